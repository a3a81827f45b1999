//! A log crashed at every operation of its disk: nothing durable is missing, nothing is there that was
//! never written, and what is recovered can be appended to, crashed again and recovered again.
#![allow(clippy::unwrap_used)]

mod common;

use common::{body, header, read_all};
use drave_wal::{AppendError, Behaviour, CrashMode, Event, MemoryDisk, OpenError, Options, Wal};

const STEPS: usize = 70;
const SEEDS: u64 = 6;

/// A small generator: the same seed, the same workload.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Clone, Debug)]
enum Change {
    Append { index: u64, crc: u32 },
    Truncate { from: u64 },
    Reset { next_index: u64, crc: u32 },
}

/// Everything asked of the log, in order, and how much of it is known durable.
#[derive(Clone, Debug, Default)]
struct Model {
    changes: Vec<Change>,
    /// The first so many changes are known durable.
    acknowledged: usize,
    /// Per meta value, from sequence 1: how many changes came before it.
    metas: Vec<usize>,
    meta_acknowledged: u64,
    first_index_max: u64,
}

/// The log after some changes: header checksums from `base` on.
#[derive(Clone, Debug)]
struct State {
    base: u64,
    base_crc: u32,
    crcs: Vec<u32>,
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append { index, crc } => {
                assert_eq!(*index, self.base + self.crcs.len() as u64);
                self.crcs.push(*crc);
            }
            Change::Truncate { from } => self.crcs.truncate((from - self.base) as usize),
            Change::Reset { next_index, crc } => {
                *self = Self {
                    base: *next_index,
                    base_crc: *crc,
                    crcs: Vec::new(),
                };
            }
        }
    }

    fn is(&self, wal: &Wal, crcs: &[u32], first_index_max: u64) -> bool {
        let first = wal.first_index();
        let next = self.base + self.crcs.len() as u64;
        first >= self.base
            && first <= self.base.max(first_index_max).min(next)
            && wal.last_index() + 1 == next
            && self.crcs[(first - self.base) as usize..] == *crcs
            && (!self.crcs.is_empty() || wal.last_crc() == self.base_crc)
    }
}

impl Model {
    /// Takes note of events: an entry reported durable makes every change up to its last append durable.
    fn note(&mut self, events: &[Event], wal: &Wal) {
        for event in events {
            match event {
                Event::Durable(flushed) => {
                    let made = self.changes.iter().rposition(|change| match change {
                        Change::Append { index, .. } => *index == flushed.index(),
                        Change::Reset { next_index, .. } => next_index - 1 == flushed.index(),
                        Change::Truncate { .. } => false,
                    });
                    self.acknowledged = self.acknowledged.max(made.unwrap() + 1);
                    if flushed.index() >= wal.first_index() {
                        assert_eq!(wal.term(flushed.index()), Some(flushed.term()));
                    }
                }
                Event::MetaDurable(meta) => {
                    assert!(meta.sequence() > self.meta_acknowledged);
                    self.meta_acknowledged = meta.sequence();
                }
                _ => {}
            }
        }
        self.first_index_max = self.first_index_max.max(wal.first_index());
    }

    /// Checks a recovered log against everything it may and must be; how many changes it holds.
    fn check(&self, wal: &Wal) -> usize {
        let crcs: Vec<u32> = read_all(wal).iter().map(|entry| entry.crc).collect();
        let mut state = State {
            base: 1,
            base_crc: 0,
            crcs: Vec::new(),
        };
        let mut found = None;
        for count in 0..=self.changes.len() {
            if count > 0 {
                state.apply(&self.changes[count - 1]);
            }
            if count >= self.acknowledged && state.is(wal, &crcs, self.first_index_max) {
                found = Some(count);
                break;
            }
        }
        let count = found.unwrap_or_else(|| {
            panic!(
                "[{}, {}] is no state from change {} on; {:?}",
                wal.first_index(),
                wal.last_index(),
                self.acknowledged,
                wal.recovery()
            )
        });
        let sequence = wal.meta().map_or(0, |value| {
            u64::from_le_bytes(value[..8].try_into().unwrap())
        });
        assert!(
            sequence >= self.meta_acknowledged,
            "meta {sequence} < {}",
            self.meta_acknowledged
        );
        assert!(sequence <= self.metas.len() as u64);
        let needed = self
            .metas
            .iter()
            .take_while(|before| **before < count)
            .count() as u64;
        assert!(
            sequence >= needed,
            "entries came before meta {needed}, found {sequence}"
        );
        count
    }
}

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
                Ok(()) => model.changes.push(Change::Append {
                    index,
                    crc: wal.last_crc(),
                }),
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

/// Recovers, appends, and recovers once more.
fn check_usable(disk: &MemoryDisk, model: &Model, seed: u64) {
    let mut wal = open(disk, seed).unwrap();
    model.check(&wal);
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

/// Crashes the recovery itself at each of its operations in turn, from `every`-th to `every`-th.
fn crash_recovery(disk: &MemoryDisk, model: &Model, seed: u64) -> u64 {
    let mut images = 0;
    for at in 1.. {
        let image = disk.fork();
        image.power_off_at(image.operations() + at);
        let opened = open(&image, seed + at);
        if !image.is_off() {
            assert!(opened.is_ok());
            break;
        }
        drop(opened);
        image.crash(CrashMode::ALL[(seed + at) as usize % 5], seed ^ at);
        model.check(&open(&image, seed + at + 1).unwrap());
        images += 1;
    }
    images
}

#[test]
fn every_operation_survives_a_crash() {
    let (mut images, mut second, mut torn, mut resets) = (0u64, 0u64, 0u64, 0u64);
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        let whole = MemoryDisk::new();
        let model = drive(&whole, seed);
        let operations = whole.operations();
        resets += model
            .changes
            .iter()
            .filter(|change| matches!(change, Change::Reset { .. }))
            .count() as u64;
        for at in 1..=operations + 1 {
            let disk = MemoryDisk::new();
            disk.power_off_at(at);
            let model = drive(&disk, seed);
            for mode in CrashMode::ALL {
                let image = disk.fork();
                let mixed = seed * 1_000_003 + at * 31;
                image.crash(mode, mixed);
                let wal = open(&image, mixed).unwrap_or_else(|error| {
                    panic!("seed {seed}, operation {at}, {mode:?}: {error}")
                });
                model.check(&wal);
                torn += u64::from(wal.recovery().torn.is_some());
                drop(wal);
                images += 1;
                if (at + seed) % 7 == 0 {
                    let image = disk.fork();
                    image.crash(mode, mixed);
                    second += crash_recovery(&image, &model, mixed);
                    check_usable(&image, &model, mixed);
                }
            }
        }
    }
    println!(
        "{images} images, {second} of a second crash, {torn} with a torn end, {resets} resets"
    );
    assert!(images > 5_000 && second > 500 && torn > 50 && resets > 0);
}
