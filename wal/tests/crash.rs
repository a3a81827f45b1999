//! A log crashed at every operation of its disk: nothing durable is missing, nothing is there that was
//! never written, and what is recovered can be appended to, crashed again and recovered again.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;

use common::model::{Appended, Change, Model};
use common::random::Random;
use common::{body, header, read_all};
use drave_wal::{
    AppendError, Behaviour, CrashMode, CrashPart, MemoryDisk, OpenError, Options, Wal,
};

const STEPS: usize = 70;
const SEEDS: u64 = 40;
const KILLED_SEEDS: u64 = 6;
/// Up to so many parts every subset of them is tried.
const PARTS_MAX: usize = 8;
/// Images of each mode where there are more parts.
const SAMPLES: usize = 16;
/// The recovery of one image in so many is crashed as well.
const SECOND_EVERY: u64 = 37;

fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        group_bytes_max: 8 << 10,
        groups_in_flight_max: 4,
        extra_group_bytes_min: 1,
        tail_bytes_max: 0,
        store_id: 9,
        idle_us: 60,
        ..Options::default()
    }
}

fn open(disk: &MemoryDisk, seed: u64) -> Result<Wal, OpenError> {
    let behaviour = Behaviour {
        seed,
        latency_us_min: 10,
        latency_us_max: 90,
    };
    Wal::open_with(disk.engine(behaviour), options())
}

/// Does one step of the workload.
fn step(wal: &mut Wal, random: &mut Random, model: &mut Model, term: &mut u64) {
    match random.below(100) {
        0..60 => {
            let index = wal.last_index() + 1;
            *term += u64::from(random.below(8) == 0);
            let body = body(index, *term, random.below(5_000) as usize);
            match wal.append(&mut header(index, *term, &body), &body) {
                Ok(()) => model.changes.push(Change::Append(Appended {
                    index,
                    term: *term,
                    bytes: body.len(),
                    crc: wal.last_crc(),
                })),
                Err(AppendError::Failed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        60..72 => {
            let from = wal.last_index() + 1
                - random
                    .below(wal.last_index() + 2 - wal.first_index())
                    .min(9);
            *term += 1;
            if from <= wal.last_index() && wal.truncate_suffix(from).is_ok() {
                model.changes.push(Change::Truncate { from });
            }
        }
        72..84 => {
            let span = wal.last_index() + 2 - wal.first_index();
            let _ = wal.truncate_prefix(wal.first_index() + random.below(span));
        }
        84..98 => {
            let sequence = model.metas.len() as u64 + 1;
            if let Ok(given) = wal.write_meta(&sequence.to_le_bytes()) {
                assert_eq!(given, sequence);
                model.metas.push(model.changes.len());
            }
        }
        _ => {
            let next_index = wal.last_index() + 1 + random.below(5);
            *term += 1;
            if wal.reset(next_index, *term, 77).is_ok() {
                model.changes.push(Change::Reset {
                    next_index,
                    crc: 77,
                });
            }
        }
    }
}

/// Runs the workload of `seed` until it ends or the power goes off.
fn drive(disk: &MemoryDisk, seed: u64) -> Model {
    let mut model = Model::default();
    let Ok(mut wal) = open(disk, seed) else {
        assert!(disk.is_off());
        return model;
    };
    let (mut random, mut term, mut events) = (Random(seed), 1, Vec::new());
    for _ in 0..STEPS {
        step(&mut wal, &mut random, &mut model, &mut term);
        for _ in 0..random.below(3) {
            if random.below(2) == 0 {
                wal.wait();
            }
            wal.submit();
            wal.poll(&mut events);
            model.note(&events, &wal);
            events.clear();
        }
        if disk.is_off() {
            return model;
        }
    }
    let flushed = wal.flush(&mut events);
    model.note(&events, &wal);
    assert!(flushed.is_ok() || disk.is_off());
    model
}

/// What was tried.
#[derive(Default)]
struct Tally {
    images: u64,
    second: u64,
    distinct: HashSet<u64>,
    torn: u64,
    resets: u64,
}

/// Every image that a crash now may leave where there are few, a sample of them by `seed` where there are
/// many; each once.
fn images(disk: &MemoryDisk, seed: u64) -> Vec<MemoryDisk> {
    let mut images = Vec::new();
    let mut seen = HashSet::new();
    let mut take = |image: MemoryDisk| {
        if seen.insert(image.fingerprint()) {
            images.push(image);
        }
    };
    let all_of = |part: CrashPart, take: &mut dyn FnMut(MemoryDisk)| {
        for choice in 0..1u64 << disk.unflushed(part) {
            let (image, mut bits) = (disk.fork(), choice);
            image.crash_keeping(part, || {
                bits = bits.rotate_right(1);
                bits >> 63 == 1
            });
            take(image);
        }
    };
    if disk.unflushed(CrashPart::Sector) <= PARTS_MAX {
        all_of(CrashPart::Sector, &mut take);
        return images;
    }
    let mut modes = vec![CrashMode::Tear; SAMPLES];
    modes.extend([CrashMode::Reorder; SAMPLES]);
    if disk.unflushed(CrashPart::Change) <= PARTS_MAX {
        all_of(CrashPart::Change, &mut take);
    } else {
        modes.extend([CrashMode::Drop, CrashMode::Keep]);
        modes.extend([CrashMode::Some; SAMPLES]);
    }
    for (position, mode) in modes.into_iter().enumerate() {
        let image = disk.fork();
        image.crash(mode, seed ^ ((position as u64 + 1) << 40));
        take(image);
    }
    images
}

/// Recovers, appends, and recovers once more.
fn check_usable(disk: &MemoryDisk, model: &Model, seed: u64) {
    let mut wal = open(disk, seed).unwrap();
    model.check(&wal).unwrap();
    let term = wal.term(wal.last_index()).unwrap() + 1;
    for _ in 0..4 {
        common::append(&mut wal, term, 3_000);
        common::flush(&mut wal);
    }
    let expected = read_all(&wal);
    drop(wal);
    disk.crash(CrashMode::Drop, seed);
    let wal = open(disk, seed + 1).unwrap();
    assert_eq!(read_all(&wal), expected);
}

/// Crashes the recovery of `disk` itself at each of its operations in turn, `crashes` ways each.
fn crash_recovery(disk: &MemoryDisk, model: &Model, seed: u64, crashes: u64, tally: &mut Tally) {
    for at in 1.. {
        let recovering = disk.fork();
        recovering.power_off_at(recovering.operations() + at);
        let opened = open(&recovering, seed + at);
        if !recovering.is_off() {
            assert!(opened.is_ok());
            return;
        }
        drop(opened);
        for crash in 0..crashes {
            let image = recovering.fork();
            let mode = CrashMode::ALL[(seed + at + crash) as usize % 5];
            image.crash(mode, seed ^ at ^ (crash << 40));
            tally.second += 1;
            tally.distinct.insert(image.fingerprint());
            let wal = open(&image, seed + at + 1)
                .unwrap_or_else(|error| panic!("recovery crashed at {at}, {mode:?}: {error}"));
            model.check(&wal).unwrap();
        }
    }
}

fn is_reset(change: &&Change) -> bool {
    matches!(change, Change::Reset { .. })
}

#[test]
fn every_operation_survives_a_crash() {
    let mut tally = Tally::default();
    for seed in 1..=SEEDS {
        let whole = MemoryDisk::new();
        let model = drive(&whole, seed);
        let operations = whole.operations();
        tally.resets += model.changes.iter().filter(is_reset).count() as u64;
        for at in 1..=operations + 1 {
            let disk = MemoryDisk::new();
            disk.power_off_at(at);
            let model = drive(&disk, seed);
            let mixed = seed * 1_000_003 + at * 31;
            for (position, image) in images(&disk, mixed).into_iter().enumerate() {
                tally.images += 1;
                tally.distinct.insert(image.fingerprint());
                let again = (tally.images.is_multiple_of(SECOND_EVERY)).then(|| image.fork());
                let named = |error: &dyn std::fmt::Display| -> ! {
                    panic!("seed {seed}, operation {at}, image {position}: {error}")
                };
                let wal = open(&image, mixed).unwrap_or_else(|error| named(&error));
                model.check(&wal).unwrap_or_else(|error| named(&error));
                tally.torn += u64::from(wal.recovery().torn.is_some());
                drop(wal);
                if let Some(image) = again {
                    crash_recovery(&image, &model, mixed, 1, &mut tally);
                    check_usable(&image, &model, mixed);
                }
            }
        }
        println!(
            "seed {seed}: {operations} operations; so far {} images, {} of a crash during recovery, {} distinct",
            tally.images,
            tally.second,
            tally.distinct.len()
        );
    }
    println!(
        "{} crash images and {} of a second crash during recovery, {} of them distinct; {} with a torn end, {} resets",
        tally.images,
        tally.second,
        tally.distinct.len(),
        tally.torn,
        tally.resets
    );
    assert!(tally.distinct.len() >= 100_000 && tally.images >= 100_000);
    assert!(tally.second > 10_000 && tally.torn > 1_000 && tally.resets > 0);
}

/// A process that dies alone leaves what it wrote for all to see, and not flushed: what recovery then builds
/// on must not be what a loss of power takes away.
#[test]
fn a_killed_process_and_then_a_loss_of_power_during_recovery() {
    let mut tally = Tally::default();
    for seed in 1..=KILLED_SEEDS {
        let whole = MemoryDisk::new();
        drive(&whole, seed);
        for at in 1..=whole.operations() + 1 {
            let disk = MemoryDisk::new();
            disk.power_off_at(at);
            let model = drive(&disk, seed);
            disk.restart();
            tally.images += 1;
            let mixed = seed * 1_000_003 + at * 37;
            crash_recovery(&disk, &model, mixed, 5, &mut tally);
            check_usable(&disk, &model, mixed);
        }
    }
    println!(
        "{} kills, {} losses of power during the recovery, {} distinct images",
        tally.images,
        tally.second,
        tally.distinct.len()
    );
    assert!(tally.images > 1_000 && tally.second > 10_000);
}
