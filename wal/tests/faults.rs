//! Failing and full disks: the first failure is final, and a full disk is a state that passes.
#![allow(clippy::unwrap_used)]

mod common;

use std::io;

use common::{append, append_flushed, body, durable, header, is_failed, read_all, settle};
use drave_batch::{BatchHeader, BatchRef, EntryKind, encoded_bytes};
use drave_wal::{
    AppendError, Behaviour, ChangeError, CrashMode, Event, MemoryDisk, Options, Read, Wal,
};

fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        ..common::small_options()
    }
}

fn open(disk: &MemoryDisk) -> Wal {
    let behaviour = Behaviour {
        seed: 1,
        latency_us_min: 5,
        latency_us_max: 50,
    };
    Wal::open_with(disk.engine(behaviour), options()).unwrap()
}

fn try_append(wal: &mut Wal, bytes: usize) -> Result<(), AppendError> {
    let index = wal.last_index() + 1;
    let body = body(index, 1, bytes);
    wal.append(&mut header(index, 1, &body), &body)
}

/// Whether an append finds no space; it stays if it does.
fn try_append_refused(wal: &mut Wal) -> bool {
    match try_append(wal, 3_900) {
        Ok(()) => false,
        Err(AppendError::NoSpace) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Appends until the disk fails; the events.
fn run_until_failed(wal: &mut Wal) -> Vec<Event> {
    let mut events = Vec::new();
    for round in 0..30 {
        if round % 9 == 8 {
            let _ = wal.write_meta(b"value");
        }
        let _ = try_append(wal, 3_000);
        if wal.flush(&mut events).is_err() {
            break;
        }
    }
    events
}

#[test]
fn a_disk_that_hangs_shows() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    assert_eq!(wal.flush_waits_us(), 0);
    disk.set_latency_us(90_000_000, 90_000_000);
    let at_us = 100_000_000;
    disk.set_now_us(at_us);
    try_append(&mut wal, 100).unwrap();
    wal.submit();
    disk.set_now_us(at_us + 3_000_000);
    let mut events = Vec::new();
    wal.poll(&mut events);
    assert_eq!((wal.durable_index(), wal.flush_waits_us()), (0, 3_000_000));
    disk.set_now_us(at_us + 90_000_000);
    wal.poll(&mut events);
    assert_eq!((wal.durable_index(), wal.flush_waits_us()), (1, 0));
    let recent = wal.recent_flushes();
    assert!(recent.us_max >= 90_000_000, "{recent:?}");
}

#[test]
fn the_first_failure_of_any_operation_is_final() {
    let healthy = MemoryDisk::new();
    let mut wal = open(&healthy);
    let from = healthy.operations();
    run_until_failed(&mut wal);
    let to = healthy.operations();
    let mut failures = 0;
    for at in from + 1..=to {
        let disk = MemoryDisk::new();
        let mut wal = open(&disk);
        disk.fail_at(at, io::ErrorKind::Other);
        let mut events = run_until_failed(&mut wal);
        let failed = events
            .iter()
            .filter(|event| matches!(event, Event::Failed(_)))
            .count();
        assert_eq!(failed, 1, "operation {at} is said to have failed once");
        assert!(
            matches!(events.last(), Some(Event::Failed(_))),
            "nothing is reported after it"
        );
        let (durable_index, last_index) = (wal.durable_index(), wal.last_index());
        assert!(matches!(
            try_append(&mut wal, 1),
            Err(AppendError::Failed(_))
        ));
        assert!(is_failed(&wal.write_meta(b"x").unwrap_err()));
        assert!(is_failed(&wal.truncate_prefix(1).unwrap_err()));
        assert!(is_failed(&wal.truncate_suffix(last_index + 1).unwrap_err()));
        assert!(is_failed(&wal.reset(9, 9, 9).unwrap_err()));
        events.clear();
        for _ in 0..5 {
            wal.wait();
            wal.poll(&mut events);
        }
        assert!(events.is_empty() && wal.flush(&mut events).is_err());
        assert_eq!(wal.durable_index(), durable_index);
        drop(wal);
        disk.crash(CrashMode::Drop, at);
        let wal = open(&disk);
        assert!(wal.last_index() >= durable_index, "operation {at}");
        read_all(&wal);
        failures += 1;
    }
    println!("{failures} operations failed, each in a run of its own");
    assert!(failures > 80);
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else_and_passes() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    settle(&mut wal);
    disk.set_capacity_bytes(Some(0));
    let mut events = Vec::new();
    let error = loop {
        match try_append(&mut wal, 3_900) {
            Ok(()) => wal.flush(&mut events).unwrap(),
            Err(error) => break error,
        }
        events.extend(settle(&mut wal));
    };
    assert!(matches!(error, AppendError::NoSpace), "{error}");
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::SpaceLow))
            .count(),
        1
    );
    let full_at = wal.last_index();
    assert!(full_at >= 5);
    // Term and vote, truncation of either end, reading: all of it works on a full disk.
    wal.write_meta(b"vote").unwrap();
    wal.flush(&mut events).unwrap();
    assert_eq!(wal.meta(), Some(&b"vote"[..]));
    for from in [full_at, full_at - 1] {
        wal.truncate_suffix(from).unwrap();
        wal.flush(&mut events).unwrap();
        assert_eq!(wal.last_index(), from - 1);
        // The first cut takes the block kept back for it; the second one takes the spare that is.
        assert_eq!(try_append_refused(&mut wal), from == full_at);
    }
    assert_eq!(read_all(&wal).len() as u64, full_at - 1);
    // Room again: it goes on by itself.
    disk.set_capacity_bytes(None);
    disk.set_now_us(10_000_000);
    events = settle(&mut wal);
    assert!(
        events.iter().any(|event| matches!(event, Event::SpaceOk)),
        "{events:?}"
    );
    append_flushed(&mut wal, 1, 20, 3_900);
    let expected = read_all(&wal);
    drop(wal);
    assert_eq!(read_all(&open(&disk)), expected);
}

#[test]
fn what_has_room_is_taken_also_behind_an_open_group() {
    for bytes in [10, 700, 2_500] {
        let disk = MemoryDisk::new();
        let mut wal = open(&disk);
        settle(&mut wal);
        disk.set_capacity_bytes(Some(0));
        while wal.has_room(12_000).is_ok() {
            try_append(&mut wal, 3_900).unwrap();
            common::flush(&mut wal);
            settle(&mut wal);
        }
        // The last segment is nearly full and there is no other: nothing is flushed in between, so
        // what is taken stays in the open group.
        while wal.has_room(encoded_bytes(bytes)).is_ok() {
            try_append(&mut wal, bytes as usize).unwrap();
        }
        let refused = wal.has_room(encoded_bytes(bytes)).unwrap_err();
        assert!(matches!(refused, AppendError::NoSpace), "{refused}");
        common::flush(&mut wal);
    }
}

#[test]
fn trimming_a_full_disk_makes_room_by_using_files_again() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    append_flushed(&mut wal, 1, 20, 3_900);
    settle(&mut wal);
    disk.set_capacity_bytes(Some(0));
    while try_append(&mut wal, 3_900).is_ok() {
        common::flush(&mut wal);
        settle(&mut wal);
    }
    let files = disk.list().len();
    for _ in 0..30 {
        wal.truncate_prefix(wal.last_index() + 1).unwrap();
        settle(&mut wal);
        append(&mut wal, 1, 3_900);
        common::flush(&mut wal);
    }
    assert!(disk.list().len() <= files);
    assert!(wal.recovery().created && wal.statistics().rolls > 8);
}

#[test]
fn the_last_spare_is_left_for_truncations() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    settle(&mut wal);
    disk.set_capacity_bytes(Some(0));
    while try_append(&mut wal, 3_900).is_ok() {
        common::flush(&mut wal);
        settle(&mut wal);
    }
    // A block in the full segment, and the spare's: then there is no place left to record a cut.
    let mut cuts = 0;
    let error = loop {
        if let Err(error) = wal.truncate_suffix(wal.last_index()) {
            break error;
        }
        common::flush(&mut wal);
        cuts += 1;
    };
    assert!(matches!(error, ChangeError::NoSpace), "{error}");
    assert_eq!(cuts, 1 + 6);
    let expected = read_all(&wal);
    drop(wal);
    disk.set_capacity_bytes(None);
    assert_eq!(read_all(&open(&disk)), expected);
}

#[test]
fn completions_out_of_order_are_reported_in_order() {
    for seed in 1..40 {
        let disk = MemoryDisk::new();
        let behaviour = Behaviour {
            seed,
            latency_us_min: 1,
            latency_us_max: 500,
        };
        let options = Options {
            extra_group_bytes_min: 1,
            group_bytes_max: 4_096,
            ..options()
        };
        let mut wal = Wal::open_with(disk.engine(behaviour), options.clone()).unwrap();
        let (mut reported, mut in_flight_max) = (0, 0);
        for _ in 0..40 {
            append(&mut wal, 1, 3_000);
            wal.submit();
            in_flight_max = in_flight_max.max(wal.queued_bytes());
            let mut events = Vec::new();
            while wal.queued_bytes() > 12_000 {
                wal.wait();
                wal.poll(&mut events);
            }
            if let Some((index, _)) = durable(&events) {
                assert!(index > reported);
                reported = index;
                // A crash at this very moment keeps everything reported.
                let image = disk.fork();
                image.crash(CrashMode::Drop, seed);
                let recovered = Wal::open_with(image.engine(behaviour), options.clone()).unwrap();
                assert!(recovered.last_index() >= reported, "seed {seed}");
            }
        }
        assert!(reported > 20 && in_flight_max > 9_000);
    }
}

#[test]
fn entries_after_a_meta_value_wait_for_it() {
    let disk = MemoryDisk::new();
    let behaviour = Behaviour {
        seed: 1,
        latency_us_min: 100,
        latency_us_max: 100,
    };
    let mut wal = Wal::open_with(disk.engine(behaviour), options()).unwrap();
    wal.write_meta(b"first").unwrap();
    append(&mut wal, 1, 10);
    let before = disk.operations();
    wal.submit();
    let mut begun = disk.operations() - before;
    // The meta slot, and the spare being made; not the entry.
    let mut events = Vec::new();
    while wal.meta().is_none() {
        assert_eq!(wal.durable_index(), 0);
        let image = disk.fork();
        image.crash(CrashMode::Keep, 1);
        let recovered = Wal::open_with(image.engine(behaviour), options()).unwrap();
        assert_eq!(
            recovered.last_index(),
            0,
            "the entry is not on disk before the value is"
        );
        wal.wait();
        wal.poll(&mut events);
        begun += 1;
    }
    assert!(begun >= 1);
    wal.flush(&mut events).unwrap();
    assert_eq!(wal.durable_index(), 1);
    assert!(matches!(
        wal.write_meta(&[0; 2_000]),
        Err(ChangeError::TooLarge {
            found: 2_000,
            limit: 1_024
        })
    ));
}

#[test]
fn the_window_is_counted_from_the_oldest_group_that_is_not_durable() {
    for groups_in_flight_max in 1..=4 {
        let disk = MemoryDisk::new();
        let behaviour = Behaviour {
            seed: 1,
            latency_us_min: 100,
            latency_us_max: 900,
        };
        let options = Options {
            segment_bytes: 1 << 20,
            groups_in_flight_max,
            extra_group_bytes_min: 1,
            ..options()
        };
        let mut wal = Wal::open_with(disk.engine(behaviour), options).unwrap();
        let window = u64::from(groups_in_flight_max);
        let mut reached = 0;
        for _ in 0..100 {
            append(&mut wal, 1, 100);
            wal.submit();
            let submitted = wal.statistics().written_bytes / 4_096;
            // Groups that completed out of order do not make room.
            let durable = wal.statistics().groups_in_order;
            assert!(
                submitted - durable <= window,
                "{submitted} - {durable} > {window}"
            );
            reached = reached.max(submitted - durable);
            if wal.queued_bytes() > 2_000 {
                wal.wait();
                wal.poll(&mut Vec::new());
            }
        }
        assert_eq!(reached, window);
    }
}

#[test]
fn further_groups_start_only_when_enough_waits() {
    let disk = MemoryDisk::new();
    let behaviour = Behaviour {
        seed: 1,
        latency_us_min: 100,
        latency_us_max: 100,
    };
    let options = Options {
        extra_group_bytes_min: 10_000,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour), options).unwrap();
    for expected in [1, 1, 1, 1, 2] {
        append(&mut wal, 1, 3_000);
        wal.submit();
        assert_eq!(wal.statistics().batches, if expected == 1 { 1 } else { 5 });
    }
    common::flush(&mut wal);
    assert_eq!(wal.statistics().groups, 2);
}

#[test]
fn a_file_with_a_reader_is_never_used_again() {
    for held in [false, true] {
        let disk = MemoryDisk::new();
        let behaviour = Behaviour::default();
        let options = Options {
            tail_bytes_max: 0,
            ..options()
        };
        let mut wal = Wal::open_with(disk.engine(behaviour), options).unwrap();
        append_flushed(&mut wal, 1, 20, 3_900);
        settle(&mut wal);
        disk.set_capacity_bytes(Some(0));
        while !try_append_refused(&mut wal) {
            common::flush(&mut wal);
            settle(&mut wal);
        }
        let mut jobs = Vec::new();
        for index in (1..=wal.last_index()).filter(|_| held) {
            if let Read::Cold(job) = wal.read(index, index + 1, 0).unwrap() {
                jobs.push(job);
            }
        }
        // The only way to go on is to use files again.
        let mut went_on = 0;
        for _ in 0..10 {
            wal.truncate_prefix(wal.last_index() + 1).unwrap();
            settle(&mut wal);
            while went_on < 30 && !try_append_refused(&mut wal) {
                common::flush(&mut wal);
                went_on += 1;
            }
        }
        assert_eq!(went_on == 30, !held, "{went_on}");
        for job in jobs {
            let (lo, slices) = (job.lo(), job.run().unwrap());
            let batch = BatchRef::decode(&slices.pieces[0]).unwrap();
            assert_eq!(batch.header.index, lo);
            assert_eq!(batch.body(), body(lo, 1, 3_900));
        }
    }
}

#[test]
fn control_entries_are_taken_on_a_disk_that_is_full_for_data() {
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 256 << 10,
        ..options()
    };
    let engine = || disk.engine(Behaviour::default());
    let mut wal = Wal::open_with(engine(), options.clone()).unwrap();
    settle(&mut wal);
    disk.set_capacity_bytes(Some(0));
    while try_append(&mut wal, 500).is_ok() {
        common::flush(&mut wal);
        settle(&mut wal);
    }
    let mut taken = 0;
    while wal.has_room_for_control(encoded_bytes(0)).is_ok() {
        let index = wal.last_index() + 1;
        let mut header = BatchHeader::new(EntryKind::Noop, &[], 0);
        (header.index, header.term) = (index, 1 + taken);
        wal.append(&mut header, &[]).unwrap();
        common::flush(&mut wal);
        settle(&mut wal);
        taken += 1;
        if taken == 2 {
            // Cutting what they added is still possible.
            wal.truncate_suffix(wal.last_index()).unwrap();
            common::flush(&mut wal);
        }
    }
    // A block each: nearly all of the spare.
    assert!(taken >= 48, "{taken}");
    assert!(matches!(
        wal.has_room(encoded_bytes(0)),
        Err(AppendError::NoSpace)
    ));
    let expected = read_all(&wal);
    drop(wal);
    let reopened = Wal::open_with(engine(), options).unwrap();
    assert_eq!(read_all(&reopened), expected);
}
