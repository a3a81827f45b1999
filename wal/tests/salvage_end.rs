//! Logs that lost where they ended, salvaged: ended where the caller says, above or below what was found, and ended
//! anew when the caller has learned better.
#![allow(clippy::unwrap_used)]

mod common;

use common::twin::{Log, changed, finish, make, open, options, salvage};
use common::{append_flushed, read_all};
use drave_wal::{
    BLOCK_BYTES, Behaviour, CrashMode, EndError, FileName, MemoryDisk, OfferError, Salvage, Wal,
};

/// Every way in which the end can be lost with the last file.
fn endless(log: &Log) -> Vec<MemoryDisk> {
    let last = *log.segments.last().unwrap();
    let removed = log.disk.fork();
    removed.forget(FileName::Segment(last));
    let all = log.disk.fork();
    for segment in &log.segments {
        all.forget(FileName::Segment(*segment));
    }
    let images = vec![
        removed,
        all,
        changed(log, last, Vec::clear),
        changed(log, last, |content| content.truncate(BLOCK_BYTES)),
        changed(log, last, |content| content.truncate(2 * BLOCK_BYTES)),
    ];
    for image in &images {
        let salvaged = salvage(image, 1).unwrap();
        assert_eq!(salvaged.missing().last().unwrap().hi, u64::MAX);
    }
    images
}

/// Offers what is missing, at most two entries at a time; how many there were.
fn fill(log: &Log, salvaged: &mut Salvage) -> u64 {
    let mut offered = 0;
    while let Some(missing) = salvaged.missing().last().copied() {
        let lo = missing.lo.max(missing.hi - 2);
        salvaged.offer(&log.range(lo, missing.hi)).unwrap();
        offered += missing.hi - lo;
    }
    offered
}

fn set_end(log: &Log, salvaged: &mut Salvage, last_index: u64) {
    let last = &log.entries[last_index as usize - 1];
    salvaged.set_end(last_index, last.term, last.crc).unwrap();
    assert_eq!(salvaged.last_index(), last_index);
}

#[test]
fn a_log_ends_where_the_caller_says_whatever_was_found() {
    let log = make();
    let (mut repaired, mut dropped) = (0, 0);
    for damaged in endless(&log) {
        let found = salvage(&damaged, 1).unwrap().last_index();
        for last_index in 1..=log.last().index {
            let image = damaged.fork();
            let mut salvaged = salvage(&image, 2).unwrap();
            set_end(&log, &mut salvaged, last_index);
            fill(&log, &mut salvaged);
            assert!(salvaged.read(last_index + 1).unwrap().is_none());
            salvaged.repair().unwrap();
            let expected = &log.entries[..last_index as usize];
            let mut wal = open(&image, 3).unwrap();
            assert_eq!(read_all(&wal), expected);
            append_flushed(&mut wal, 9, 2, 3_900);
            drop(wal);
            let wal = open(&image, 4).unwrap();
            assert_eq!(&read_all(&wal)[..expected.len()], expected);
            assert_eq!(wal.last_index(), last_index + 2);
            repaired += 1;
            dropped += u64::from(last_index < found);
        }
    }
    println!("{repaired} repaired, of {dropped} entries were dropped that had been found");
    assert!(repaired > 50 && dropped > 20);
}

#[test]
fn a_crash_while_a_new_end_is_written_is_survived() {
    let log = make();
    let mut crashes = 0;
    for damaged in endless(&log) {
        for last_index in [log.last().index, 6, 2] {
            let expected = &log.entries[..last_index as usize];
            for operation in 1.. {
                let image = damaged.fork();
                let mut salvaged = salvage(&image, operation).unwrap();
                set_end(&log, &mut salvaged, last_index);
                fill(&log, &mut salvaged);
                image.power_off_at(image.operations() + operation);
                let done = salvaged.repair().is_ok();
                image.crash(CrashMode::Some, operation);
                crashes += 1;
                let mut again = salvage(&image, operation + 1).unwrap();
                if again.missing().last().is_some_and(|m| m.hi == u64::MAX) {
                    set_end(&log, &mut again, last_index);
                }
                fill(&log, &mut again);
                again.repair().unwrap();
                assert_eq!(read_all(&open(&image, 3).unwrap()), expected);
                if done {
                    break;
                }
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 50);
}

/// A log whose entries from 6 on are other ones, of a leader that was deposed.
fn other_leaders(log: &Log) -> Log {
    let disk = MemoryDisk::new();
    let mut wal = Wal::open_with(disk.engine(Behaviour::default()), options()).unwrap();
    for index in 1..6 {
        let encoded = log.range(index, index + 1);
        let batch = drave_batch::BatchRef::decode(&encoded).unwrap();
        wal.append_encoded(&batch).unwrap();
    }
    append_flushed(&mut wal, 7, 9, 500);
    finish(disk, wal)
}

#[test]
fn the_end_may_be_said_anew_and_what_was_taken_stays_where_it_still_fits() {
    let log = make();
    let other = other_leaders(&log);
    for damaged in endless(&log) {
        let mut salvaged = salvage(&damaged, 1).unwrap();
        set_end(&other, &mut salvaged, other.last().index);
        let refused = salvaged.offer(&log.range(log.last().index, log.last().index + 1));
        assert!(
            matches!(
                refused,
                Err(OfferError::Range { .. } | OfferError::Chain { .. })
            ),
            "{refused:?}"
        );
        fill(&other, &mut salvaged);
        assert!(salvaged.is_whole());
        // Of the one before nothing is left, and what both have is not asked for again.
        set_end(&log, &mut salvaged, log.last().index);
        // At most one more, of the pair that reaches below them.
        assert!(fill(&log, &mut salvaged) <= log.last().index - 5 + 1);
        set_end(&other, &mut salvaged, other.last().index);
        assert!(salvaged.is_whole(), "all of it was taken before");
        set_end(&log, &mut salvaged, log.last().index);
        assert!(salvaged.is_whole());
        salvaged.repair().unwrap();
        log.assert_same(&damaged, true);
    }
}

#[test]
fn an_end_that_cannot_be_is_refused() {
    let log = make();
    let mut whole = salvage(&log.disk, 1).unwrap();
    let known = whole.set_end(3, 1, 1).unwrap_err();
    assert!(matches!(known, EndError::Known { .. }), "{known}");
    for damaged in endless(&log) {
        let mut salvaged = salvage(&damaged, 1).unwrap();
        let below = salvaged.set_end(0, 1, 1).unwrap_err();
        assert!(matches!(below, EndError::Below { .. }), "{below}");
        assert_eq!(salvaged.missing().last().unwrap().hi, u64::MAX);
    }
}

/// With the end the groups are lost that would show that there was a newer vote.
#[test]
fn what_is_beside_a_log_without_an_end_is_certain_in_two_slots_only() {
    let log = make();
    for slot in 0..2 {
        let damaged = endless(&log).remove(0);
        assert!(salvage(&damaged, 1).unwrap().is_meta_certain());
        let mut meta = damaged.content(FileName::Meta).unwrap();
        meta[slot * BLOCK_BYTES + 50] ^= 1;
        damaged.replace(FileName::Meta, meta.clone());
        assert!(!salvage(&damaged, 1).unwrap().is_meta_certain());
        let whole = log.disk.fork();
        whole.replace(FileName::Meta, meta);
        assert!(salvage(&whole, 1).unwrap().is_meta_certain());
    }
}

#[test]
fn a_value_is_durable_before_the_repair_and_replaced_whole() {
    let log = make();
    let damaged = endless(&log).remove(0);
    let mut crashes = 0;
    for mode in CrashMode::ALL {
        for operation in 1.. {
            let image = damaged.fork();
            let mut salvaged = salvage(&image, operation).unwrap();
            image.power_off_at(image.operations() + operation);
            let done = salvaged.write_meta(b"later vote").is_ok();
            image.crash(mode, operation);
            crashes += 1;
            let value = salvage(&image, 1).unwrap().meta_value().unwrap();
            assert!(value == b"later vote" || (!done && value == b"vote"));
            if done {
                break;
            }
        }
    }
    assert!(crashes > 5, "{crashes}");
}
