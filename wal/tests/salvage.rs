//! Damaged logs, salvaged: whatever `Wal::open` refuses (but for the meta record) is named, completed from a twin
//! and written back, and what is found then is what was there before. Crashed on the way, it can be done again.
#![allow(clippy::unwrap_used)]

mod common;

use common::random::{Random, seed};
use common::twin::{
    Log, behaviour, changed, contents, encoded, finish, make, open, options, salvage,
};
use common::{append, append_flushed, read_all};
use drave_wal::{
    BLOCK_BYTES, CrashMode, EndError, FileName, MemoryDisk, OfferError, OpenError, Options,
    Salvage, SegmentName, Wal,
};

#[test]
fn a_whole_log_has_no_damage() {
    let log = make();
    assert!(log.segments.len() >= 3);
    let mut salvage = salvage(&log.disk, 1).unwrap();
    assert_eq!((salvage.damage(), salvage.missing()), (&[][..], &[][..]));
    assert_eq!(log.heal(&mut salvage), 0);
    let before = contents(&log.disk);
    assert_eq!(salvage.repair().unwrap().segments_written, 0);
    assert!(contents(&log.disk) == before);
}

#[test]
fn a_flip_in_any_byte_is_repaired() {
    let log = make();
    let (mut refused, mut fetched, mut tried) = (0, 0, 0);
    for segment in &log.segments {
        let bytes = log.disk.content(FileName::Segment(*segment)).unwrap().len();
        for at in (0..bytes).step_by(3) {
            let image = changed(&log, *segment, |content| content[at] ^= 1 << (at % 8));
            tried += 1;
            if let Some(offered) = log.repair(&image, at % 97 == 0) {
                refused += 1;
                fetched += offered;
            }
        }
    }
    println!("{tried} flips, {refused} refused and repaired, {fetched} entries fetched");
    assert!(refused > 1_000 && fetched > 1_000);
}

#[test]
fn a_zeroed_sector_is_repaired() {
    let log = make();
    let (mut refused, mut fetched) = (0, 0);
    for segment in &log.segments {
        for sector in 0..(32 << 10) / 512 {
            let image = changed(&log, *segment, |content| {
                content[sector * 512..][..512].fill(0);
            });
            if let Some(offered) = log.repair(&image, sector % 5 == 0) {
                refused += 1;
                fetched += offered;
            }
        }
    }
    println!("{refused} refused and repaired, {fetched} entries fetched");
    assert!(refused > 50 && fetched > 50);
}

#[test]
fn a_removed_segment_is_repaired() {
    let log = make();
    for segment in &log.segments {
        let image = log.disk.fork();
        image.forget(FileName::Segment(*segment));
        assert!(log.repair(&image, true).is_some(), "{segment}");
    }
    // All of them.
    let image = log.disk.fork();
    for segment in &log.segments {
        image.forget(FileName::Segment(*segment));
    }
    let offered = log.repair(&image, true);
    assert_eq!(offered, Some(log.last().index));
}

#[test]
fn a_file_of_any_other_length_is_repaired() {
    let log = make();
    let mut refused = 0;
    for segment in &log.segments {
        let length = log.disk.content(FileName::Segment(*segment)).unwrap().len();
        let shorter = (0..length).step_by(509);
        for bytes in shorter.chain([length - 1, length + 1, length + BLOCK_BYTES]) {
            let image = changed(&log, *segment, |content| content.resize(bytes, 0));
            let repaired = log.repair(&image, bytes % 4 == 0);
            assert!(repaired.is_some(), "{segment} of {bytes} bytes");
            refused += 1;
        }
    }
    println!("{refused} repaired");
}

#[test]
fn swapped_copied_and_doubled_files_are_repaired() {
    let log = make();
    let mut fetched = 0;
    for (number, left) in log.segments.iter().enumerate() {
        let content = |name: &SegmentName| log.disk.content(FileName::Segment(*name)).unwrap();
        for right in &log.segments[number + 1..] {
            let image = log.disk.fork();
            image.replace(FileName::Segment(*left), content(right));
            fetched += log.repair(&image.fork(), true).unwrap();
            image.replace(FileName::Segment(*right), content(left));
            assert_eq!(
                log.repair(&image, true),
                Some(0),
                "swapped: all is still there"
            );
        }
        let image = log.disk.fork();
        let first_index = left.first_index + 100;
        let double = SegmentName {
            first_index,
            ..*left
        };
        image.replace(FileName::Segment(double), content(left));
        assert_eq!(
            log.repair(&image, true),
            Some(0),
            "a copy under a second name"
        );
    }
    assert!(fetched > 5);
}

/// Several sectors at once, anywhere but in the idle record: with it and the group before it gone, nothing tells
/// that from an interrupted write.
#[test]
fn several_damages_at_once_are_repaired() {
    let log = make();
    let (mut generator, mut refused) = (Random(seed()), 0);
    let mut random = |limit: usize| generator.below(limit as u64) as usize;
    let last = *log.segments.last().unwrap();
    let content = log.disk.content(FileName::Segment(last)).unwrap();
    let written = content.iter().rposition(|byte| *byte != 0).unwrap();
    let idle_at = written / BLOCK_BYTES * BLOCK_BYTES;
    for round in 0..3_000 {
        let mut image = log.disk.fork();
        for _ in 0..2 + round % 4 {
            let segment = log.segments[random(log.segments.len())];
            let file = FileName::Segment(segment);
            let mut content = image.content(file).unwrap();
            let sectors = if segment == last {
                idle_at
            } else {
                content.len()
            } / 512;
            let at = random(sectors) * 512;
            content[at..][..1 + random(512)].fill(0x5a);
            image = image.fork();
            image.replace(file, content);
        }
        refused += u64::from(log.repair(&image, round % 50 == 0).is_some());
    }
    println!("{refused} refused and repaired");
    assert!(refused > 1_000);
}

/// Damages to repair, each needing entries from elsewhere.
fn images(log: &Log) -> Vec<MemoryDisk> {
    let header = |name: &SegmentName| changed(log, *name, |content| content[50] ^= 1);
    let group = |name: &SegmentName, block: usize| {
        changed(log, *name, |content| {
            content[block * BLOCK_BYTES..][..3 * BLOCK_BYTES].fill(0);
        })
    };
    let removed = |name: &SegmentName| {
        let image = log.disk.fork();
        image.forget(FileName::Segment(*name));
        image
    };
    let segments = &log.segments;
    let mut images: Vec<MemoryDisk> = segments.iter().map(header).collect();
    images.extend(segments.iter().map(removed));
    images.extend(segments.iter().map(|name| group(name, 1)));
    images.extend(segments.iter().map(|name| group(name, 3)));
    let two = removed(&segments[0]);
    two.forget(FileName::Segment(segments[1]));
    two.forget(FileName::Segment(segments[3]));
    images.push(two);
    images
}

#[test]
fn a_crash_at_any_operation_of_a_repair_is_survived() {
    let log = make();
    let (mut crashes, mut complete) = (0, 0);
    for damaged in images(&log) {
        if open(&damaged.fork(), 1).is_ok() {
            continue;
        }
        for mode in CrashMode::ALL {
            for operation in 1.. {
                let image = damaged.fork();
                let mut healed = salvage(&image, operation).unwrap();
                let missing_before = log.heal(&mut healed);
                image.power_off_at(image.operations() + operation);
                let done = healed.repair().is_ok();
                image.crash(mode, operation);
                crashes += 1;
                let mut again = salvage(&image, operation + 1).unwrap();
                let needed = log.heal(&mut again);
                assert!(needed <= missing_before, "what was there before is there");
                again.repair().unwrap();
                log.assert_same(&image, operation % 7 == 0);
                if done {
                    complete += 1;
                    break;
                }
            }
        }
    }
    println!("{crashes} crashes, {complete} repairs that were not reached by one");
    assert!(crashes > 500);
}

#[test]
fn a_failed_write_leaves_the_damage_as_it_was() {
    let log = make();
    let mut failures = 0;
    for damaged in images(&log) {
        if open(&damaged.fork(), 1).is_ok() {
            continue;
        }
        for operation in 1.. {
            let image = damaged.fork();
            let mut healed = salvage(&image, operation).unwrap();
            let missing_before = log.heal(&mut healed);
            let kind = match operation % 2 {
                0 => std::io::ErrorKind::StorageFull,
                _ => std::io::ErrorKind::Other,
            };
            image.fail_at(image.operations() + operation, kind);
            let repaired = healed.repair();
            let reached = image.operations();
            image.forget_failure();
            if repaired.is_ok() {
                log.assert_same(&image, false);
                break;
            }
            failures += 1;
            assert!(reached > 0);
            let mut again = salvage(&image, operation + 1).unwrap();
            assert!(log.heal(&mut again) <= missing_before);
            again.repair().unwrap();
            log.assert_same(&image, false);
        }
    }
    println!("{failures} failures");
    assert!(failures > 100);
}

#[test]
fn wrong_offers_are_refused() {
    let log = make();
    let twin = make_other(&log);
    let (mut flips, mut others) = (0, 0);
    for damaged in images(&log) {
        let mut salvage = salvage(&damaged, 1).unwrap();
        let Some(missing) = salvage.missing().last().copied() else {
            continue;
        };
        let last = log.last();
        if missing.hi == u64::MAX {
            let refused = salvage.offer(&log.range(missing.lo, last.index + 1));
            assert!(
                matches!(refused, Err(OfferError::Range { .. })),
                "{refused:?}"
            );
            salvage.set_end(last.index, last.term, last.crc).unwrap();
        } else {
            let refused = salvage.set_end(last.index, last.term, last.crc);
            assert!(
                matches!(refused, Err(EndError::Known { .. })),
                "{refused:?}"
            );
        }
        let before = salvage.missing().to_vec();
        let missing = *before.last().unwrap();
        let (lo, hi) = (missing.lo, missing.hi);
        let right = log.range(lo, hi);
        for at in (0..right.len()).step_by(23) {
            let mut wrong = right.clone();
            wrong[at] ^= 1 << (at % 8);
            salvage.offer(&wrong).unwrap_err();
            flips += 1;
        }
        for bytes in [0, 1, right.len() - 8, right.len() - 1] {
            salvage.offer(&right[..bytes]).unwrap_err();
        }
        if hi - lo > 1 {
            let refused = salvage.offer(&log.range(lo, hi - 1));
            assert!(
                matches!(refused, Err(OfferError::Range { .. })),
                "{refused:?}"
            );
        }
        if lo > 1 {
            let refused = salvage.offer(&log.range(lo - 1, hi));
            assert!(
                matches!(refused, Err(OfferError::Range { .. })),
                "{refused:?}"
            );
        }
        // The same index in a chain of its own, valid in itself.
        let refused = salvage.offer(&twin.range(hi - 1, hi));
        assert!(
            matches!(refused, Err(OfferError::Chain { .. })),
            "{refused:?}"
        );
        others += 1;
        assert_eq!(salvage.missing(), before);
        log.heal(&mut salvage);
    }
    println!("{flips} flips and {others} other entries refused");
    assert!(flips > 1_000 && others > 5);
}

/// As many entries as `log` has, all of another term.
fn make_other(log: &Log) -> Log {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 4).unwrap();
    wal.write_meta(b"vote").unwrap();
    for _ in &log.entries {
        append(&mut wal, 8, 100);
    }
    finish(disk, wal)
}

/// A damaged group that superseded entries: those below the range that was found missing are not the log's.
#[test]
fn a_missing_range_grows_to_the_entries_that_were_superseded() {
    let disk = MemoryDisk::new();
    let with_idle = Options {
        idle_us: 500_000,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour(3)), with_idle).unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, 4, 300);
    wal.truncate_suffix(3).unwrap();
    for _ in 0..4 {
        append(&mut wal, 2, 300);
    }
    common::flush(&mut wal);
    append_flushed(&mut wal, 2, 1, 300);
    let log = finish(disk, wal);
    let image = log.disk.fork();
    let file = FileName::Segment(log.segments[0]);
    let mut content = image.content(file).unwrap();
    content[5 * BLOCK_BYTES..6 * BLOCK_BYTES].fill(0);
    image.replace(file, content);
    let mut salvage = salvage(&image, 2).unwrap();
    let range = |salvage: &Salvage| {
        let missing = salvage.missing();
        assert_eq!(missing.len(), 1, "{missing:?}");
        (missing[0].lo, missing[0].hi)
    };
    assert_eq!(range(&salvage), (5, 7));
    salvage.offer(&log.range(5, 7)).unwrap();
    assert_eq!(
        range(&salvage),
        (4, 5),
        "entry 4 of term 1 is not the log's"
    );
    salvage.offer(&log.range(4, 5)).unwrap();
    assert_eq!(range(&salvage), (3, 4));
    salvage.offer(&log.range(3, 4)).unwrap();
    assert!(salvage.is_whole(), "entry 2 is, and that is proven");
    salvage.repair().unwrap();
    log.assert_same(&image, true);
}

/// A torn tail is a crash and not damage, also beside damage.
#[test]
fn a_torn_tail_is_not_damage() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 3).unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, 12, 3_900);
    let log = finish(disk, wal);
    let last = *log.segments.last().unwrap();
    let content = log.disk.content(FileName::Segment(last)).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    let image = changed(&log, last, |content| content[end] ^= 1);
    let salvaged = salvage(&image, 2).unwrap();
    assert_eq!((salvaged.damage(), salvaged.missing()), (&[][..], &[][..]));
    assert_eq!(salvaged.last_index(), 11);
    drop(salvaged);
    let first = FileName::Segment(log.segments[0]);
    let mut content = image.content(first).unwrap();
    content[BLOCK_BYTES + 200] ^= 1;
    image.replace(first, content);
    let mut salvaged = salvage(&image, 2).unwrap();
    assert_eq!((salvaged.damage().len(), salvaged.last_index()), (1, 11));
    let missing = salvaged.missing()[0];
    salvaged.offer(&log.range(missing.lo, missing.hi)).unwrap();
    salvaged.repair().unwrap();
    assert_eq!(read_all(&open(&image, 3).unwrap()), log.entries[..11]);
}

#[test]
fn a_cut_ends_the_log_before_what_is_missing_and_names_it() {
    let log = make();
    let mut cuts = 0;
    for damaged in images(&log) {
        let salvaged = salvage(&damaged, 1).unwrap();
        let missing = salvaged.missing().to_vec();
        if missing.is_empty() {
            continue;
        }
        let refused = salvaged.repair();
        assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{refused:?}");
        let operations = damaged.operations();
        let whole = damaged.fork();
        let report = salvage(&whole, 2).unwrap().cut(None).unwrap();
        assert_eq!(
            (report.next_index, &report.missing),
            (missing[0].lo, &missing)
        );
        let kept = report.next_index as usize - 1;
        assert!(report.entries_dropped as usize <= log.entries.len() - kept);
        assert_kept(&whole, &log, kept, b"vote");
        cuts += 1;
        for operation in 1..40 {
            let image = damaged.fork();
            let salvaged = salvage(&image, 2).unwrap();
            image.power_off_at(image.operations() + operation);
            let done = salvaged.cut(Some(b"cut")).is_ok();
            image.crash(CrashMode::Some, operation);
            let salvaged = salvage(&image, 3).unwrap();
            let is_marked = salvaged.meta_value().as_deref() == Some(b"cut");
            // No file of entries is another one before the value says what is being done to them.
            assert!(is_marked || segment_files(&image) == segment_files(&damaged));
            assert!(is_marked || !done);
            salvaged.cut(Some(b"cut")).unwrap();
            assert_kept(&image, &log, kept, b"cut");
            if done {
                break;
            }
        }
        assert!(damaged.operations() == operations);
    }
    println!("{cuts} cuts");
    assert!(cuts > 5);
}

/// The segments' files and what is in them.
fn segment_files(disk: &MemoryDisk) -> Vec<(FileName, Vec<u8>)> {
    let names = disk.list().into_iter().map(|(name, _)| name);
    let segments = names.filter(|name| matches!(name, FileName::Segment(_)));
    let read = |name| (name, disk.content(name).unwrap());
    segments.map(read).collect()
}

fn assert_kept(image: &MemoryDisk, log: &Log, kept: usize, value: &[u8]) {
    let mut wal = open(image, 4).unwrap();
    let found = read_all(&wal);
    assert_eq!(found.len(), kept);
    // What a group superseded whose header is lost cannot be told from what was not.
    let kept_as_it_was = found.iter().zip(&log.entries);
    let other = kept_as_it_was.filter(|(found, right)| found != right);
    assert!(other.clone().all(|(found, right)| found.term < right.term));
    assert!(other.count() <= 2);
    assert_eq!(wal.meta(), Some(value));
    append_flushed(&mut wal, 9, 2, 3_900);
}

/// After a reset and a trim the log begins elsewhere; a lost start is found in what is left, or refused.
#[test]
fn a_log_that_does_not_begin_at_one_is_repaired() {
    let disk = MemoryDisk::new();
    let with_idle = Options {
        idle_us: 500_000,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour(3)), with_idle).unwrap();
    append_flushed(&mut wal, 1, 9, 3_900);
    wal.reset(100, 3, 0xabcd).unwrap();
    append_flushed(&mut wal, 3, 12, 3_900);
    disk.set_now_us(1_000_000);
    common::settle(&mut wal);
    let entries = read_all(&wal);
    let encoded: Vec<Vec<u8>> = entries
        .iter()
        .map(|entry| encoded(&wal, entry.index))
        .collect();
    drop(wal);
    let names = disk.list();
    let (mut repaired, mut refused) = (0, 0);
    for (name, bytes) in names {
        let FileName::Segment(segment) = name else {
            continue;
        };
        for block in 0..bytes as usize / BLOCK_BYTES {
            let image = disk.fork();
            let mut content = image.content(name).unwrap();
            content[block * BLOCK_BYTES..][..64].fill(0);
            image.replace(name, content);
            if open(&image.fork(), 2).is_ok() {
                continue;
            }
            let mut salvage = match salvage(&image, 3) {
                Ok(salvage) => salvage,
                Err(error) => {
                    println!("{segment}, block {block}: {error}");
                    refused += 1;
                    continue;
                }
            };
            while let Some(missing) = salvage.missing().last().copied() {
                assert!(missing.lo >= 100 || block > 0, "{missing:?}");
                if missing.hi <= 100 {
                    break;
                }
                let from = missing.lo.max(100) as usize - 100;
                let offer = encoded[from..missing.hi as usize - 100].concat();
                salvage.offer(&offer).unwrap();
            }
            if !salvage.is_whole() {
                // The reset itself is lost: entries of before it are asked for, which nobody has.
                refused += 1;
                continue;
            }
            salvage.repair().unwrap();
            let wal = open(&image, 4).unwrap();
            assert_eq!((wal.first_index(), read_all(&wal)), (100, entries.clone()));
            repaired += 1;
        }
    }
    println!("{repaired} repaired, {refused} refused");
    assert!(repaired > 5 && refused <= 2);
}
