//! A disk without room for another name: files can be neither made nor renamed. A state that passes, like any
//! full disk, and never a failure of the log.
#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{append, append_flushed, body, header, read_all, settle};
use drave_wal::{
    AppendError, Behaviour, Completion, CrashMode, Engine, Event, FileName, MemoryDisk, Operation,
    Options, Source, Wal,
};

fn engine(disk: &MemoryDisk) -> Box<dyn Engine> {
    disk.engine(Behaviour {
        seed: 1,
        latency_us_min: 5,
        latency_us_max: 50,
    })
}

fn open_with(engine: Box<dyn Engine>) -> Wal {
    let options = Options {
        segment_bytes: 32 << 10,
        ..common::small_options()
    };
    Wal::open_with(engine, options).unwrap()
}

fn open(disk: &MemoryDisk) -> Wal {
    open_with(engine(disk))
}

/// Lets the log work for `turns` completions, and a second go by.
fn run(wal: &mut Wal, disk: &MemoryDisk, turns: usize, events: &mut Vec<Event>) {
    for _ in 0..turns {
        wal.wait();
        wal.poll(events);
    }
    let now_us = disk.now_us() + 1_000_000;
    disk.set_now_us(now_us);
    wal.submit();
    wal.poll(events);
}

/// Appends until it is refused; the refusal must be for want of space.
fn append_until_refused(wal: &mut Wal, disk: &MemoryDisk, events: &mut Vec<Event>) {
    for _ in 0..100 {
        let index = wal.last_index() + 1;
        let body = body(index, 1, 3_900);
        match wal.append(&mut header(index, 1, &body), &body) {
            Ok(()) => run(wal, disk, 20, events),
            Err(AppendError::NoSpace) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a log without a new segment takes only so much");
}

fn count(events: &[Event], is: fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| is(event)).count()
}

#[test]
fn a_new_segment_waits_for_room_for_its_name() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    append_flushed(&mut wal, 1, 3, 3_900);
    settle(&mut wal);
    for round in 1..=20 {
        disk.set_names_full(true);
        let mut events = Vec::new();
        append_until_refused(&mut wal, &disk, &mut events);
        assert_eq!(
            count(&events, |event| matches!(event, Event::Failed(_))),
            0,
            "{events:?}"
        );
        assert_eq!(count(&events, |event| matches!(event, Event::SpaceLow)), 1);
        assert!(
            wal.durable_index() < wal.last_index(),
            "the roll cannot have been made"
        );
        wal.write_meta(b"vote").unwrap();
        run(&mut wal, &disk, 20, &mut events);
        assert_eq!(wal.meta(), Some(&b"vote"[..]));

        // A crash in this state loses nothing that was acknowledged.
        let image = disk.fork();
        image.crash(CrashMode::Drop, round);
        image.set_names_full(false);
        assert!(open(&image).last_index() >= wal.durable_index());

        disk.set_names_full(false);
        disk.set_now_us(disk.now_us() + 1_000_000);
        wal.flush(&mut events).unwrap();
        assert_eq!(wal.durable_index(), wal.last_index());
        settle(&mut wal);
        append_flushed(&mut wal, 1, 1, 3_900);
        wal.truncate_prefix(wal.last_index()).unwrap();
        settle(&mut wal);
        read_all(&wal);
    }
}

#[test]
fn a_segment_that_cannot_be_renamed_is_removed() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    // Rolls use up the spares, and without room no new ones are made.
    append_flushed(&mut wal, 1, 8, 3_900);
    settle(&mut wal);
    disk.set_capacity_bytes(Some(0));
    append_flushed(&mut wal, 1, 5, 3_900);
    let names = |disk: &MemoryDisk| disk.list().len();
    let before = names(&disk);
    disk.set_names_full(true);
    wal.truncate_prefix(wal.last_index()).unwrap();
    let mut events = Vec::new();
    for _ in 0..10 {
        run(&mut wal, &disk, 20, &mut events);
    }
    assert_eq!(
        count(&events, |event| matches!(event, Event::Failed(_))),
        0,
        "{events:?}"
    );
    assert!(names(&disk) < before, "what is trimmed goes");
    disk.set_names_full(false);
    disk.set_capacity_bytes(None);
    disk.set_now_us(disk.now_us() + 1_000_000);
    append_flushed(&mut wal, 1, 20, 3_900);
}

/// A spare that cannot be named is taken away again, however often it is tried.
#[test]
fn a_file_that_cannot_be_named_is_not_left_behind() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    append_flushed(&mut wal, 1, 3, 3_900);
    settle(&mut wal);
    let from = disk.operations();
    append_flushed(&mut wal, 1, 6, 3_900);
    settle(&mut wal);
    for at in from + 1..=disk.operations() {
        let disk = MemoryDisk::new();
        let mut wal = open(&disk);
        append_flushed(&mut wal, 1, 3, 3_900);
        settle(&mut wal);
        disk.fail_at(at, io::ErrorKind::StorageFull);
        let mut events = Vec::new();
        for _ in 0..6 {
            let index = wal.last_index() + 1;
            let body = body(index, 1, 3_900);
            let _ = wal.append(&mut header(index, 1, &body), &body);
            run(&mut wal, &disk, 20, &mut events);
        }
        if count(&events, |event| matches!(event, Event::Failed(_))) == 0 {
            settle(&mut wal);
            let temporary = |name: &FileName| matches!(name, FileName::Temporary(_));
            let names: Vec<FileName> = disk.list().into_iter().map(|(name, _)| name).collect();
            assert!(!names.iter().any(temporary), "operation {at}: {names:?}");
        }
    }
}

/// Counts how often it waits, and gives room again when segments were refused their names often enough.
struct Counting {
    inner: Box<dyn Engine>,
    disk: MemoryDisk,
    waits: Arc<AtomicUsize>,
    attempts_left: Arc<AtomicUsize>,
}

const WAITS_MAX: usize = 1_000;

impl Engine for Counting {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn reason(&self) -> &str {
        self.inner.reason()
    }

    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        self.inner.list()
    }

    fn settle(&mut self, files: &[FileName]) -> io::Result<()> {
        self.inner.settle(files)
    }

    fn source(&self, file: FileName, mapped: bool) -> io::Result<Arc<dyn Source>> {
        self.inner.source(file, mapped)
    }

    fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>> {
        self.inner.medium(file)
    }

    fn start(&mut self, number: u64, operation: Operation) {
        let left = self.attempts_left.load(Ordering::Relaxed);
        if matches!(operation, Operation::Activate { .. }) && left > 0 {
            self.attempts_left.store(left - 1, Ordering::Relaxed);
            self.disk.set_names_full(left > 1);
        }
        self.inner.start(number, operation);
    }

    fn submit(&mut self) {
        self.inner.submit();
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.inner.poll(completions);
    }

    fn wait(&mut self, until_us: Option<u64>) {
        let waits = self.waits.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(waits < WAITS_MAX, "it waits for nothing again and again");
        self.inner.wait(until_us);
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }

    fn now_us(&self) -> u64 {
        self.inner.now_us()
    }

    fn random_u64(&mut self) -> u64 {
        self.inner.random_u64()
    }
}

/// Closing a log on a disk without room waits from one attempt to the next, and does not run in a circle meanwhile.
#[test]
fn a_flush_and_a_close_wait_for_room_without_turning_in_a_circle() {
    const ATTEMPTS: usize = 40;
    let disk = MemoryDisk::new();
    let waits = Arc::new(AtomicUsize::new(0));
    let attempts_left = Arc::new(AtomicUsize::new(0));
    let mut wal = open_with(Box::new(Counting {
        inner: engine(&disk),
        disk: disk.clone(),
        waits: Arc::clone(&waits),
        attempts_left: Arc::clone(&attempts_left),
    }));
    append_flushed(&mut wal, 1, 3, 3_900);
    settle(&mut wal);
    disk.set_names_full(true);
    attempts_left.store(ATTEMPTS, Ordering::Relaxed);
    for _ in 0..5 {
        append(&mut wal, 1, 3_900);
    }
    let (before, from_us) = (waits.load(Ordering::Relaxed), disk.now_us());
    wal.close().unwrap();
    let waits = waits.load(Ordering::Relaxed) - before;
    println!("{waits} waits for {ATTEMPTS} attempts");
    assert_eq!(attempts_left.load(Ordering::Relaxed), 0);
    assert!(waits < 4 * ATTEMPTS, "{waits}");
    assert!(disk.now_us() - from_us >= (ATTEMPTS as u64 - 1) * 250_000);
    assert_eq!(open(&disk).last_index(), 8);
}
