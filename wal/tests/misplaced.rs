//! Bytes that are whole and in the wrong place: sectors and files of other segments, of other logs, of an
//! earlier time; segments that are missing from the middle. Each is named for what it is, or harmless.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::files::segments;
use common::{append_flushed, read_all, settle};
use drave_wal::{
    Behaviour, Corruption, CorruptionKind, FileName, MemoryDisk, OpenError, Options, SegmentName,
    Wal,
};

const SECTOR_BYTES: usize = 512;

fn options(store_id: u128) -> Options {
    Options {
        segment_bytes: 32 << 10,
        verify_on_open: true,
        idle_us: 500_000,
        store_id,
        ..common::small_options()
    }
}

fn open(disk: &MemoryDisk, seed: u64) -> Result<Wal, OpenError> {
    let behaviour = Behaviour {
        seed,
        latency_us_min: 1,
        latency_us_max: 5,
    };
    Wal::open_with(disk.engine(behaviour), options(7))
}

/// A log of at least four segments, quiet, so that everything in it is recorded durable.
struct Log {
    disk: MemoryDisk,
    crcs: Vec<u32>,
    segments: Vec<SegmentName>,
}

fn make(seed: u64, store_id: u128) -> Log {
    let disk = MemoryDisk::new();
    let behaviour = Behaviour {
        seed,
        latency_us_min: 1,
        latency_us_max: 5,
    };
    let mut wal = Wal::open_with(disk.engine(behaviour), options(store_id)).unwrap();
    append_flushed(&mut wal, 1, 3, 3_000);
    append_flushed(&mut wal, seed, 18, 3_900);
    append_flushed(&mut wal, seed + 1, 3, 500);
    disk.set_now_us(1_000_000);
    settle(&mut wal);
    let crcs = read_all(&wal).iter().map(|entry| entry.crc).collect();
    drop(wal);
    let segments = segments(&disk);
    assert!(segments.len() >= 4);
    Log {
        disk,
        crcs,
        segments,
    }
}

/// None if all entries are there; a log that opens with fewer is a lost promise.
fn judge(log: &Log, image: &MemoryDisk) -> Option<Corruption> {
    match open(image, 5) {
        Ok(wal) => {
            let crcs: Vec<u32> = read_all(&wal).iter().map(|entry| entry.crc).collect();
            assert_eq!(crcs, log.crcs, "entries are missing and nothing was said");
            None
        }
        Err(OpenError::Corrupt(corruption)) => Some(corruption),
        Err(error) => panic!("{error}"),
    }
}

fn kind(corruption: Option<&Corruption>) -> &'static str {
    match corruption.map(|corruption| &corruption.kind) {
        None => "harmless",
        Some(CorruptionKind::SegmentMissing { .. }) => "segment missing",
        Some(CorruptionKind::SegmentName { .. }) => "segment name",
        Some(CorruptionKind::SegmentHeader(_)) => "segment header",
        Some(CorruptionKind::Group { .. }) => "group",
        Some(other) => panic!("{other}"),
    }
}

/// Puts each sector of `from` where it would be in `to`, one at a time; the verdicts.
fn misdirect(log: &Log, from: &[u8], to: SegmentName) -> BTreeMap<&'static str, u64> {
    let mut verdicts = BTreeMap::new();
    let file = FileName::Segment(to);
    let whole = log.disk.content(file).unwrap();
    for at in (0..whole.len()).step_by(SECTOR_BYTES) {
        let sector = at..at + SECTOR_BYTES;
        let image = log.disk.fork();
        let mut content = whole.clone();
        content[sector.clone()].copy_from_slice(&from[sector.clone()]);
        let differs = content != whole;
        image.replace(file, content);
        let verdict = match open(&image, 5) {
            Err(OpenError::Store { file: named, .. }) => {
                assert_eq!((named, at), (file, 0));
                "store"
            }
            _ => kind(
                judge(log, &image)
                    .inspect(|corruption| {
                        assert!(differs);
                        assert_eq!(corruption.file, file);
                        // A header that is whole and another's is seen in what follows it.
                        assert!(at == 0 || corruption.offset <= at as u64, "{corruption}");
                    })
                    .as_ref(),
            ),
        };
        *verdicts.entry(verdict).or_default() += 1;
    }
    verdicts
}

#[test]
fn a_sector_of_another_segment_is_refused_where_it_changes_anything_written() {
    let log = make(2, 7);
    for to in &log.segments {
        for from in log.segments.iter().filter(|from| *from != to) {
            let content = log.disk.content(FileName::Segment(*from)).unwrap();
            let verdicts = misdirect(&log, &content, *to);
            println!("sectors of {from:?} in {to:?}: {verdicts:?}");
            assert!(verdicts["segment name"] == 1 && verdicts["group"] > 0);
        }
    }
}

#[test]
fn a_sector_of_another_log_is_refused_where_it_changes_anything_written() {
    let log = make(2, 7);
    for (seed, store_id) in [(3, 7), (2, 8), (3, 8)] {
        let other = make(seed, store_id);
        for (to, from) in log.segments.iter().zip(&other.segments) {
            let content = other.disk.content(FileName::Segment(*from)).unwrap();
            let verdicts = misdirect(&log, &content, *to);
            println!("store {store_id}, seed {seed}, sectors of {from:?}: {verdicts:?}");
            assert!(seed == 2 || verdicts["group"] > 0);
        }
    }
}

#[test]
fn swapped_and_copied_segments_are_named_for_what_they_are() {
    let log = make(2, 7);
    for (position, left) in log.segments.iter().enumerate() {
        for right in &log.segments[position + 1..] {
            let files = [left, right].map(|name| FileName::Segment(*name));
            let contents = files.map(|file| log.disk.content(file).unwrap());
            let swapped = log.disk.fork();
            swapped.replace(files[0], contents[1].clone());
            swapped.replace(files[1], contents[0].clone());
            let copied = log.disk.fork();
            copied.replace(files[0], contents[1].clone());
            for image in [swapped, copied] {
                let corruption = judge(&log, &image).unwrap();
                assert_eq!(kind(Some(&corruption)), "segment name");
                assert!(files.contains(&corruption.file), "{corruption}");
            }
        }
    }
}

#[test]
fn missing_segments_are_named() {
    let log = make(2, 7);
    let count = log.segments.len();
    for lo in 0..count {
        for hi in lo + 1..=count {
            let image = log.disk.fork();
            for name in &log.segments[lo..hi] {
                image.forget(FileName::Segment(*name));
            }
            let corruption = judge(&log, &image).unwrap();
            let first = log.segments[lo].segment_seq;
            let CorruptionKind::SegmentMissing { segment_seq } = corruption.kind else {
                panic!("{corruption}");
            };
            assert_eq!(segment_seq, first);
        }
    }
}

/// Segments as they were a while ago. All but the last are refused; the last one, when `meta` was not
/// written since, is a log that ends earlier: nothing on disk says otherwise.
#[test]
fn a_segment_put_back_as_it_was_is_refused_unless_it_is_the_last() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 1).unwrap();
    let mut earlier: BTreeMap<SegmentName, Vec<Vec<u8>>> = BTreeMap::new();
    for _ in 0..24 {
        append_flushed(&mut wal, 1, 1, 3_000);
        for name in segments(&disk) {
            let content = disk.content(FileName::Segment(name)).unwrap();
            let versions = earlier.entry(name).or_default();
            if versions.last() != Some(&content) {
                versions.push(content);
            }
        }
    }
    disk.set_now_us(1_000_000);
    settle(&mut wal);
    let entries = read_all(&wal);
    drop(wal);
    let last = *segments(&disk).last().unwrap();
    let (mut refused, mut shorter) = (0, 0);
    for (name, versions) in earlier {
        let file = FileName::Segment(name);
        let whole = disk.content(file).unwrap();
        for old in versions.into_iter().filter(|old| *old != whole) {
            let image = disk.fork();
            image.replace(file, old);
            match open(&image, 2) {
                Ok(wal) => {
                    assert_eq!(name, last, "only the last segment's age cannot be seen");
                    let found = read_all(&wal);
                    assert_eq!(found[..], entries[..found.len()]);
                    shorter += 1;
                }
                Err(OpenError::Corrupt(corruption)) => {
                    assert_eq!(corruption.file, file, "{corruption}");
                    assert_eq!(kind(Some(&corruption)), "group");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{refused} refused, {shorter} taken for a log that ends earlier");
    assert!(refused > 10 && shorter > 0);
}
