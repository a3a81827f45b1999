//! The set that cannot be told apart, counted: how many flipped bits make a log end earlier than it did,
//! or a meta value older than it was, and where they are. The README argues why it is these and no others.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::files::{self, only_segment};
use common::{append, append_flushed, flush, read_all, settle};
use drave_wal::{
    BLOCK_BYTES, Behaviour, CrashMode, Event, FileName, MemoryDisk, OpenError, Options, Wal,
};

const GROUP_HEADER_BYTES: usize = 64;

fn options() -> Options {
    Options {
        segment_bytes: 48 << 10,
        verify_on_open: true,
        groups_in_flight_max: 4,
        extra_group_bytes_min: 1,
        ..common::small_options()
    }
}

fn open_with(disk: &MemoryDisk, options: Options) -> Result<Wal, OpenError> {
    let behaviour = Behaviour {
        seed: 3,
        latency_us_min: 1,
        latency_us_max: 5,
    };
    Wal::open_with(disk.engine(behaviour), options)
}

/// Where the groups of a segment's content are: offset and bytes, header and payload, without the padding.
fn groups(content: &[u8]) -> Vec<(usize, usize)> {
    let payload = |at: usize| u32::from_le_bytes(content[at + 44..at + 48].try_into().unwrap());
    files::groups(content)
        .map(|at| (at, GROUP_HEADER_BYTES + payload(at) as usize))
        .collect()
}

/// Flips every bit of the log's segment, one at a time, and counts those that make the log end earlier, by
/// the group they are in, counted from the end: 1 is the last group. Anything else must be refused or
/// harmless.
fn count_cuts(disk: &MemoryDisk) -> BTreeMap<(usize, &'static str), usize> {
    let file = only_segment(disk);
    let content = disk.content(file).unwrap();
    let groups = groups(&content);
    let entries = read_all(&open_with(&disk.fork(), options()).unwrap());
    let mut cuts = BTreeMap::new();
    let (mut refused, mut harmless, mut nothing_torn) = (0, 0, 0);
    // Behind the first block after the last group one bit of each byte is enough.
    let every = (groups.last().unwrap().0 / BLOCK_BYTES + 2) * BLOCK_BYTES * 8;
    let bits = (0..every).chain((every..content.len() * 8).step_by(8));
    for at in bits {
        let image = disk.fork();
        image.damage(file, at / 8, 1 << (at % 8));
        let wal = match open_with(&image, options()) {
            Ok(wal) => wal,
            Err(OpenError::Corrupt(corruption)) => {
                assert_eq!(corruption.file, file);
                assert!(corruption.offset <= at as u64 / 8);
                refused += 1;
                continue;
            }
            Err(OpenError::Store { .. }) | Err(OpenError::Version { .. }) => {
                panic!("a flipped bit is damage, not another store or version");
            }
            Err(error) => panic!("{error}"),
        };
        let found = read_all(&wal);
        assert_eq!(found[..], entries[..found.len()]);
        if found.len() == entries.len() {
            // A bit of the idle group, or of the empty block behind the end, passes for a write that was torn.
            nothing_torn += usize::from(wal.recovery().torn.is_some());
            harmless += 1;
            continue;
        }
        let group = groups
            .iter()
            .rposition(|(offset, _)| at / 8 >= *offset)
            .unwrap();
        let (offset, bytes) = groups[group];
        assert!(
            at / 8 < offset + bytes,
            "padding says nothing about a group"
        );
        let part = if at / 8 < offset + GROUP_HEADER_BYTES {
            "header"
        } else {
            "payload"
        };
        *cuts.entry((groups.len() - group, part)).or_default() += 1;
    }
    println!(
        "{refused} bits refused; {harmless} harmless, {nothing_torn} of them reported as a torn write; cut: {cuts:?}"
    );
    assert!(refused > 1_000 && harmless > 1_000);
    cuts
}

/// Every bit of the last group, and none elsewhere.
#[test]
fn one_group_at_a_time_leaves_the_last_group() {
    let disk = MemoryDisk::new();
    let mut wal = open_with(&disk, options()).unwrap();
    append_flushed(&mut wal, 1, 4, 700);
    settle(&mut wal);
    drop(wal);
    let content = disk.content(only_segment(&disk)).unwrap();
    let (_, bytes) = *groups(&content).last().unwrap();
    let cuts = count_cuts(&disk);
    let expected = [
        ((1, "header"), GROUP_HEADER_BYTES * 8),
        ((1, "payload"), (bytes - GROUP_HEADER_BYTES) * 8),
    ];
    assert_eq!(cuts, BTreeMap::from(expected));
}

/// No bit at all, once the durability of the last group is recorded.
#[test]
fn a_quiet_log_leaves_nothing() {
    let disk = MemoryDisk::new();
    let idle_us = 100;
    let mut wal = open_with(
        &disk,
        Options {
            idle_us,
            ..options()
        },
    )
    .unwrap();
    append_flushed(&mut wal, 1, 4, 700);
    disk.set_now_us(1_000_000);
    wal.submit();
    assert_eq!(
        wal.submitted_end(),
        5,
        "also while a group without entries is being flushed"
    );
    settle(&mut wal);
    drop(wal);
    assert_eq!(count_cuts(&disk), BTreeMap::new());
}

/// With several in flight at the end, as many groups as the window holds, and no more.
#[test]
fn several_in_flight_leave_the_window() {
    let disk = MemoryDisk::new();
    let mut wal = open_with(&disk, options()).unwrap();
    append_flushed(&mut wal, 1, 2, 700);
    let before = groups(&disk.content(only_segment(&disk)).unwrap()).len();
    for index in 3..7 {
        append(&mut wal, 1, 300);
        assert_eq!(wal.submitted_end(), index);
        wal.submit();
        assert_eq!(wal.submitted_end(), index + 1);
    }
    flush(&mut wal);
    settle(&mut wal);
    drop(wal);
    let content = disk.content(only_segment(&disk)).unwrap();
    assert_eq!(
        groups(&content).len(),
        before + 4,
        "all four were in flight at once"
    );
    let cuts = count_cuts(&disk);
    for group in 1..=4 {
        let (_, bytes) = groups(&content)[before + 4 - group];
        assert_eq!(cuts[&(group, "header")], GROUP_HEADER_BYTES * 8);
        assert_eq!(cuts[&(group, "payload")], (bytes - GROUP_HEADER_BYTES) * 8);
    }
    assert_eq!(cuts.len(), 8);
}

/// The meta value acknowledged last, until its copy is durable: its own slot's record and nothing else.
#[test]
fn a_meta_value_just_acknowledged_can_become_the_one_before() {
    let disk = MemoryDisk::new();
    let mut wal = open_with(&disk, options()).unwrap();
    wal.write_meta(b"old").unwrap();
    settle(&mut wal);
    wal.write_meta(b"new").unwrap();
    let mut events = Vec::new();
    while !events
        .iter()
        .any(|event| matches!(event, Event::MetaDurable(_)))
    {
        wal.wait();
        wal.poll(&mut events);
    }
    drop(wal);
    disk.crash(CrashMode::Drop, 1);
    let bytes = disk.content(FileName::Meta).unwrap().len();
    let (mut old, mut new) = (Vec::new(), 0);
    for at in 0..bytes * 8 {
        let image = disk.fork();
        image.damage(FileName::Meta, at / 8, 1 << (at % 8));
        match open_with(&image, options()).unwrap().meta() {
            Some(b"old") => old.push(at / 8),
            Some(b"new") => new += 1,
            other => panic!("{other:?}"),
        }
    }
    let slot = bytes / 2;
    let slots: Vec<usize> = old.iter().map(|at| at / slot).collect();
    println!(
        "of {} bits {new} harmless, {} give the value before",
        bytes * 8,
        old.len()
    );
    assert!(!old.is_empty());
    assert!(slots.iter().all(|own| *own == slots[0]), "one slot only");
    assert!(new >= slot * 8, "the other slot's damage is harmless");
}
