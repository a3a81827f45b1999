//! Every way of damaging a small log, and the verdict on each: refused by name, cut where nothing proves
//! that more was durable, or harmless. Never entries that were not written, never a panic, and never fewer
//! entries than some later thing on disk proves durable.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::files::segments;
use common::twin::{open, options};
use common::{append, append_flushed, read_all};
use drave_wal::{
    BLOCK_BYTES, Behaviour, CorruptionKind, FileName, MemoryDisk, OpenError, Options, ReadError,
    SegmentName, WAL_VERSION, Wal,
};

/// Two segments, the second one with groups of several batches, a truncation, and an idle record at its end.
struct Log {
    disk: MemoryDisk,
    crcs: Vec<u32>,
    segments: Vec<SegmentName>,
}

fn make(idle: bool) -> Log {
    let disk = MemoryDisk::new();
    let idle_us = if idle { 500_000 } else { 0 };
    let engine = disk.engine(Behaviour {
        seed: 3,
        latency_us_min: 1,
        latency_us_max: 5,
    });
    let mut wal = Wal::open_with(
        engine,
        Options {
            idle_us,
            ..options()
        },
    )
    .unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, 5, 3_900);
    wal.truncate_suffix(5).unwrap();
    for _ in 0..3 {
        append(&mut wal, 2, 300);
    }
    append_flushed(&mut wal, 2, 1, 7_000);
    append_flushed(&mut wal, 3, 1, 10);
    if idle {
        disk.set_now_us(1_000_000);
        common::settle(&mut wal);
    }
    common::settle(&mut wal);
    let crcs = read_all(&wal).iter().map(|entry| entry.crc).collect();
    drop(wal);
    let segments = segments(&disk);
    assert_eq!(segments.len(), 2);
    Log {
        disk,
        crcs,
        segments,
    }
}

/// What became of a damaged log.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Verdict {
    /// Everything is there.
    Harmless,
    /// The last so many entries were cut, which nothing on disk proves to have been durable.
    Cut(usize),
    Refused(&'static str),
}

fn kind_name(kind: &CorruptionKind) -> &'static str {
    match kind {
        CorruptionKind::Meta => "meta",
        CorruptionKind::MetaOld { .. } => "meta old",
        CorruptionKind::MetaMissing => "meta missing",
        CorruptionKind::SegmentMissing { .. } => "segment missing",
        CorruptionKind::SegmentName { .. } => "segment name",
        CorruptionKind::SegmentHeader(_) => "segment header",
        CorruptionKind::SegmentBytes { .. } => "segment bytes",
        CorruptionKind::Group { .. } => "group",
        other => panic!("{other} is not for open to find"),
    }
}

/// Opens a damaged log and says what became of it; what is recovered must be a prefix of what was written,
/// and go on from there.
fn judge(log: &Log, image: &MemoryDisk) -> Verdict {
    judge_and(log, image, true)
}

/// As `judge`; going on is tried only if asked for.
fn judge_and(log: &Log, image: &MemoryDisk, go_on: bool) -> Verdict {
    let before = image.list();
    let mut wal = match open(image, 5) {
        Ok(wal) => wal,
        Err(error) => {
            assert_eq!(
                before,
                image.list(),
                "a refused log is left as it is: {error}"
            );
            return match error {
                OpenError::Corrupt(corruption) => Verdict::Refused(kind_name(&corruption.kind)),
                OpenError::Version { .. } => Verdict::Refused("version"),
                OpenError::Store { .. } => Verdict::Refused("store"),
                other => panic!("{other}"),
            };
        }
    };
    assert_eq!(wal.meta(), Some(&b"vote"[..]));
    let crcs: Vec<u32> = read_all(&wal).iter().map(|entry| entry.crc).collect();
    assert_eq!(wal.first_index(), 1);
    assert_eq!(crcs, log.crcs[..crcs.len()]);
    let cut = log.crcs.len() - crcs.len();
    if go_on || cut > 0 {
        append_flushed(&mut wal, 9, 1, 50);
        drop(wal);
        assert_eq!(
            open(image, 6).unwrap().last_index() as usize,
            crcs.len() + 1
        );
    }
    if cut == 0 {
        Verdict::Harmless
    } else {
        Verdict::Cut(cut)
    }
}

fn damage(log: &Log, file: FileName, change: impl FnOnce(&mut Vec<u8>)) -> Verdict {
    let image = log.disk.fork();
    let mut content = image.content(file).unwrap();
    change(&mut content);
    image.replace(file, content);
    judge(log, &image)
}

fn files(log: &Log) -> [FileName; 3] {
    [
        FileName::Meta,
        FileName::Segment(log.segments[0]),
        FileName::Segment(log.segments[1]),
    ]
}

fn tally(verdicts: &mut BTreeMap<Verdict, u64>, verdict: Verdict) {
    *verdicts.entry(verdict).or_default() += 1;
}

/// Nothing is cut where an idle record proves that all was durable, except what damages the proof itself.
fn assert_nothing_cut(verdicts: &BTreeMap<Verdict, u64>) {
    let cut = verdicts
        .keys()
        .find(|verdict| matches!(verdict, Verdict::Cut(_)));
    assert_eq!(cut, None, "{verdicts:?}");
}

#[test]
fn a_flip_in_any_byte_is_refused_or_harmless() {
    let log = make(true);
    for file in files(&log) {
        let mut verdicts = BTreeMap::new();
        for at in 0..log.disk.content(file).unwrap().len() {
            let image = log.disk.fork();
            let mut content = image.content(file).unwrap();
            content[at] ^= 1 << (at % 8);
            image.replace(file, content);
            tally(&mut verdicts, judge_and(&log, &image, at % 29 == 0));
        }
        println!("{file}: {verdicts:?}");
        assert_nothing_cut(&verdicts);
    }
}

#[test]
fn a_zeroed_sector_is_refused_or_harmless() {
    let log = make(true);
    let mut verdicts = BTreeMap::new();
    for file in files(&log) {
        for sector in 0..log.disk.content(file).unwrap().len() / 512 {
            let zero = |content: &mut Vec<u8>| content[sector * 512..][..512].fill(0);
            tally(&mut verdicts, damage(&log, file, zero));
        }
    }
    println!("{verdicts:?}");
    assert_nothing_cut(&verdicts);
    assert!(verdicts[&Verdict::Refused("group")] > 20);
}

#[test]
fn swapped_and_copied_blocks_are_refused_or_harmless() {
    let log = make(true);
    let mut verdicts = BTreeMap::new();
    for file in files(&log) {
        let blocks = log.disk.content(file).unwrap().len() / BLOCK_BYTES;
        for from in 0..blocks {
            for to in (0..blocks).filter(|to| *to != from) {
                let swap = |content: &mut Vec<u8>| {
                    for at in 0..BLOCK_BYTES {
                        content.swap(from * BLOCK_BYTES + at, to * BLOCK_BYTES + at);
                    }
                };
                tally(&mut verdicts, damage(&log, file, swap));
                let copy = |content: &mut Vec<u8>| {
                    content.copy_within(
                        from * BLOCK_BYTES..(from + 1) * BLOCK_BYTES,
                        to * BLOCK_BYTES,
                    );
                };
                tally(&mut verdicts, damage(&log, file, copy));
            }
        }
    }
    println!("{verdicts:?}");
    assert_nothing_cut(&verdicts);
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let log = make(true);
    for file in files(&log) {
        let length = log.disk.content(file).unwrap().len();
        for bytes in (0..length)
            .step_by(61)
            .chain([length - 1, length + 1, length + BLOCK_BYTES])
        {
            let verdict = damage(&log, file, |content| content.resize(bytes, 0));
            assert!(
                matches!(verdict, Verdict::Refused(_)),
                "{file} of {bytes} bytes: {verdict:?}"
            );
        }
    }
}

#[test]
fn a_missing_file_is_refused() {
    let log = make(true);
    let verdicts = files(&log).map(|file| {
        let image = log.disk.fork();
        image.forget(file);
        judge(&log, &image)
    });
    let missing = Verdict::Refused("segment missing");
    assert_eq!(
        verdicts,
        [Verdict::Refused("meta missing"), missing, missing]
    );
}

#[test]
fn a_future_version_is_not_corruption() {
    let log = make(true);
    for file in files(&log) {
        let verdict = damage(&log, file, |content| {
            content[8..12].copy_from_slice(&(WAL_VERSION + 1).to_le_bytes());
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&content[..12]);
            hasher.update(&content[16..BLOCK_BYTES]);
            let crc = hasher.finalize();
            content[12..16].copy_from_slice(&crc.to_le_bytes());
        });
        assert_eq!(verdict, Verdict::Refused("version"), "{file}");
        let flipped = damage(&log, file, |content| content[8] ^= 2);
        assert_ne!(
            flipped,
            Verdict::Refused("version"),
            "a damaged version is damage"
        );
    }
}

/// The set that cannot be told apart from an interrupted write: the very last group, when nothing later
/// records that it was durable. It is cut, and the report names it when anything of it is left to see.
#[test]
fn only_the_last_unrecorded_group_can_be_cut() {
    let log = make(false);
    let last = FileName::Segment(log.segments[1]);
    let mut verdicts = BTreeMap::new();
    for file in files(&log) {
        for at in (0..log.disk.content(file).unwrap().len()).step_by(7) {
            let verdict = damage(&log, file, |content| content[at] ^= 0x40);
            if let Verdict::Cut(count) = verdict {
                assert_eq!((count, file), (1, last), "byte {at}");
            }
            tally(&mut verdicts, verdict);
        }
    }
    println!("{verdicts:?}");
    assert!(verdicts[&Verdict::Cut(1)] > 5);
    let image = log.disk.fork();
    let mut content = image.content(last).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[end] ^= 1;
    let damaged = content.clone();
    image.replace(last, content);
    let mut wal = open(&image, 5).unwrap();
    let torn = wal.recovery().torn.unwrap();
    append_flushed(&mut wal, 9, 1, 50);
    assert!(
        image.content(last).unwrap() == damaged,
        "what was cut is left as it is: nothing is written behind a torn end"
    );
    assert_eq!(
        (torn.segment, torn.offset),
        (log.segments[1], (end / BLOCK_BYTES * BLOCK_BYTES) as u64)
    );
}

/// A file that is used again holds whole groups of its former use behind the new ones.
#[test]
fn groups_of_a_former_use_are_never_taken_for_new() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 1).unwrap();
    append_flushed(&mut wal, 1, 35, 3_900);
    common::settle(&mut wal);
    // No room for a new file: what is retired is used again.
    disk.set_capacity_bytes(Some(0));
    for _ in 0..2 {
        append_flushed(&mut wal, 1, 5, 3_900);
        wal.truncate_prefix(wal.last_index() + 1).unwrap();
        common::settle(&mut wal);
    }
    append_flushed(&mut wal, 2, 2, 3_900);
    drop(wal);
    let log = FileName::Segment(
        disk.list()
            .iter()
            .filter_map(|(name, _)| {
                if let FileName::Segment(name) = name {
                    Some(*name)
                } else {
                    None
                }
            })
            .max()
            .unwrap(),
    );
    let content = disk.content(log).unwrap();
    let groups = content
        .chunks(BLOCK_BYTES)
        .filter(|block| block.starts_with(b"GRUP"))
        .count();
    disk.set_capacity_bytes(None);
    let wal = open(&disk, 2).unwrap();
    assert_eq!(wal.last_index(), 47);
    assert_eq!(wal.recovery().torn, None);
    let valid = read_all(&wal).len();
    assert!(
        groups + 2 >= content.len() / BLOCK_BYTES - 1,
        "the file is full of old groups: {groups}"
    );
    assert!(valid >= 1);
    // Only the header of an old group, of the very number that is expected next, under the new header.
    drop(wal);
    let image = disk.fork();
    let mut spliced = content;
    let end = spliced.len() - BLOCK_BYTES;
    spliced.copy_within(end..end + 64, BLOCK_BYTES);
    image.replace(log, spliced);
    assert!(open(&image, 3).map_or(true, |wal| wal.last_index() < 47));
}

/// With trusted seals damage in a sealed segment is found when it is read, and never served.
#[test]
fn damage_in_a_sealed_segment_is_found_when_it_is_read() {
    let log = make(true);
    let file = FileName::Segment(log.segments[0]);
    let (mut refused, mut unreadable, mut harmless) = (0, 0, 0);
    for at in (0..log.disk.content(file).unwrap().len()).step_by(13) {
        let image = log.disk.fork();
        let mut content = image.content(file).unwrap();
        content[at] ^= 1;
        image.replace(file, content);
        let engine = image.engine(Behaviour {
            seed: 5,
            ..Behaviour::default()
        });
        let Ok(wal) = Wal::open_with(
            engine,
            Options {
                verify_on_open: false,
                ..options()
            },
        ) else {
            refused += 1;
            continue;
        };
        match common::read(&wal, 1, wal.last_index() + 1, 100) {
            Ok(entries) => {
                harmless += 1;
                assert!(
                    entries
                        .iter()
                        .map(|entry| entry.crc)
                        .eq(log.crcs.iter().copied())
                );
            }
            Err(ReadError::Corrupt(corruption)) => {
                unreadable += 1;
                assert_eq!(corruption.file, file);
            }
            Err(error) => panic!("{error}"),
        }
    }
    println!("{refused} refused, {unreadable} unreadable, {harmless} harmless");
    assert!(refused > 100 && unreadable > 100 && harmless > 100);
}

/// A term or vote that was durable and is gone is as bad as a lost entry.
#[test]
fn a_meta_record_put_back_as_it_was_is_refused() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 1).unwrap();
    wal.write_meta(b"old vote").unwrap();
    common::flush(&mut wal);
    let old = disk.content(FileName::Meta).unwrap();
    wal.write_meta(b"new vote").unwrap();
    append_flushed(&mut wal, 1, 1, 100);
    drop(wal);
    disk.replace(FileName::Meta, old);
    let error = open(&disk, 2).unwrap_err();
    assert!(
        matches!(&error, OpenError::Corrupt(corruption)
            if matches!(corruption.kind, CorruptionKind::MetaOld { .. })),
        "{error}"
    );
}
