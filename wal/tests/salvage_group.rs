//! One group of many entries, damaged: no more is missing than what cannot be read or proven, wherever the damage is.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Range;

use common::files::{groups, only_segment};
use common::twin::{Log, behaviour, changed, finish, open, options, salvage};
use common::{append, append_flushed, flush, read_all};
use drave_batch::{BATCH_HEADER_BYTES, BatchRef};
use drave_wal::{BLOCK_BYTES, FileName, MemoryDisk, Options, Salvage, Wal};

const GROUP_HEADER_BYTES: usize = 64;

/// The entries of the group that is damaged.
const LO: u64 = 4;
const HI: u64 = 16;

/// A segment whose fourth group holds twelve entries, with groups behind it.
fn make() -> Log {
    let disk = MemoryDisk::new();
    let with_idle = Options {
        idle_us: 500_000,
        segment_bytes: 64 << 10,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour(3)), with_idle).unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, LO - 1, 300);
    for _ in LO..HI {
        append(&mut wal, 1, 200);
    }
    append_flushed(&mut wal, 1, 2, 300);
    finish(disk, wal)
}

/// Where the group's header is.
fn group_at(log: &Log) -> usize {
    let content = log
        .disk
        .content(FileName::Segment(log.segments[0]))
        .unwrap();
    let at = groups(&content).nth(LO as usize - 1);
    at.unwrap()
}

/// Where each of the group's entries is.
fn places(log: &Log) -> Vec<(u64, Range<usize>)> {
    let content = log
        .disk
        .content(FileName::Segment(log.segments[0]))
        .unwrap();
    let mut at = group_at(log) + GROUP_HEADER_BYTES;
    let place = |index| {
        let batch = BatchRef::decode(&content[at..]).unwrap();
        assert_eq!(batch.header.index, index);
        let place = at..at + batch.encoded().len();
        at = place.end;
        (index, place)
    };
    (LO..HI).map(place).collect()
}

fn missing(salvaged: &Salvage) -> Vec<(u64, u64)> {
    let missing = salvaged.missing().iter();
    missing.map(|missing| (missing.lo, missing.hi)).collect()
}

/// What is missing in the image, which can be completed and repaired.
fn missing_in(log: &Log, image: &MemoryDisk) -> Vec<(u64, u64)> {
    let found = missing(&salvage(image, 1).unwrap());
    let entries = found.iter().map(|(lo, hi)| hi - lo).sum();
    // What is fetched names what is below it: of a range without a proof not all need be fetched.
    assert!((1..=entries).contains(&log.repair(image, false).unwrap()) || entries == 0);
    found
}

#[test]
fn a_flip_costs_the_entry_that_it_is_in_and_no_other() {
    let log = make();
    let (group_at, places) = (group_at(&log), places(&log));
    let (mut without, mut tried) = (0, 0);
    for at in group_at..places.last().unwrap().1.end {
        let image = changed(&log, log.segments[0], |content| {
            content[at] ^= 1 << (at % 8);
        });
        let found = missing_in(&log, &image);
        let hit = places.iter().find(|(_, place)| place.contains(&at));
        match hit {
            Some((index, _)) => assert_eq!(found, [(*index, index + 1)], "byte {at}"),
            None => {
                without += 1;
                assert_eq!(found, [], "byte {at}");
            }
        }
        tried += 1;
    }
    println!("{tried} flips, {without} of them with every entry found");
    assert_eq!(without, GROUP_HEADER_BYTES);
}

/// Without the group's header an entry whose own header is valid names the one below; one that has neither leaves
/// what is below it in the group without a proof.
#[test]
fn with_the_groups_header_lost_what_an_entry_names_is_found() {
    let log = make();
    let group_at = group_at(&log);
    for (index, place) in places(&log) {
        let with_header_lost = |at: usize| {
            changed(&log, log.segments[0], |content| {
                content[group_at..][..GROUP_HEADER_BYTES].fill(0);
                content[at] ^= 1;
            })
        };
        let in_body = with_header_lost(place.start + BATCH_HEADER_BYTES + 7);
        assert_eq!(missing_in(&log, &in_body), [(index, index + 1)]);
        let in_header = with_header_lost(place.start + 20);
        assert_eq!(missing_in(&log, &in_header), [(LO, index + 1)]);
    }
}

#[test]
fn two_damaged_entries_are_one_range_or_two_with_what_is_between_them_kept() {
    let log = make();
    let places = places(&log);
    let mut tried = 0;
    for (low, low_place) in &places {
        for (high, high_place) in places.iter().filter(|(high, _)| high > low) {
            let offsets = [20, BATCH_HEADER_BYTES + 7];
            for (low_offset, high_offset) in
                offsets.map(|low| offsets.map(|high| (low, high))).concat()
            {
                let image = changed(&log, log.segments[0], |content| {
                    content[low_place.start + low_offset] ^= 1;
                    content[high_place.start + high_offset] ^= 1;
                });
                let found = missing_in(&log, &image);
                let expected = if *low + 1 == *high {
                    vec![(*low, high + 1)]
                } else {
                    vec![(*low, low + 1), (*high, high + 1)]
                };
                assert_eq!(found, expected, "{low} and {high}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 66 * 4);
}

#[test]
fn a_file_that_ends_in_a_group_keeps_the_entries_before_its_end() {
    let log = make();
    for (index, place) in places(&log) {
        for bytes in [place.start, place.start + 20, place.end - 1] {
            let image = changed(&log, log.segments[0], |content| content.truncate(bytes));
            let salvaged = salvage(&image, 1).unwrap();
            assert_eq!(missing(&salvaged), [(index, u64::MAX)]);
            drop(salvaged);
            assert_eq!(log.repair(&image, false), Some(HI + 2 - index));
        }
    }
}

#[test]
fn a_cut_keeps_the_group_up_to_the_damaged_entry() {
    let log = make();
    for (index, place) in places(&log) {
        let image = changed(&log, log.segments[0], |content| {
            content[place.start + 20] ^= 1;
        });
        let report = salvage(&image, 2).unwrap().cut(None).unwrap();
        assert_eq!(report.next_index, index);
        assert_eq!(report.entries_dropped, log.last().index - index);
        let wal = open(&image, 3).unwrap();
        assert_eq!(read_all(&wal), log.entries[..index as usize - 1]);
    }
}

/// Groups behind the end of the log were never durable: they supersede nothing and stand in for nothing.
#[test]
fn what_was_never_durable_takes_no_entrys_place() {
    let disk = MemoryDisk::new();
    let several_in_flight = Options {
        segment_bytes: 96 << 10,
        groups_in_flight_max: 4,
        extra_group_bytes_min: 1,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour(3)), several_in_flight).unwrap();
    append_flushed(&mut wal, 1, 10, 300);
    let entries = read_all(&wal);
    append(&mut wal, 1, 300);
    wal.submit();
    wal.truncate_suffix(5).unwrap();
    append(&mut wal, 2, 300);
    flush(&mut wal);
    drop(wal);
    let file = only_segment(&disk);
    let mut content = disk.content(file).unwrap();
    // Entry 11, which a crash kept from the disk, so that what came after it does not count; and entry 7.
    let block = |index: usize| index * BLOCK_BYTES;
    content[block(11)..block(12)].fill(0);
    assert!(content[block(12)..].starts_with(b"GRUP"));
    content[block(7) + GROUP_HEADER_BYTES + 20] ^= 1;
    disk.replace(file, content);
    let salvaged = salvage(&disk, 4).unwrap();
    assert_eq!(salvaged.last_index(), 10);
    assert_eq!(missing(&salvaged), [(7, 8)]);
    salvaged.cut(None).unwrap();
    assert_eq!(read_all(&open(&disk, 5).unwrap()), entries[..6]);
}
