//! Appending allocates nothing in steady state: counted by the allocator itself.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{EngineChoice, Event, Options, Wal};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what the calling thread asks of it.
struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged; counting touches no memory of its own but
// a plain cell of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// Keeps `waiting` entries under way until `total` more are durable, and lets old segments go. Gives how
/// often the owner's thread allocated while appending, and in all.
fn run(wal: &mut Wal, body: &[u8], waiting: u64, total: u64) -> (u64, u64) {
    let mut events: Vec<Event> = Vec::with_capacity(64);
    let end = wal.last_index() + total;
    let (before, mut appending) = (count(), 0);
    while wal.durable_index() < end {
        while wal.last_index() < end && wal.last_index() - wal.durable_index() < waiting {
            let mut header = BatchHeader::new(EntryKind::Data, body, 1);
            (header.index, header.term) = (wal.last_index() + 1, 1);
            let before = count();
            wal.append(&mut header, body).unwrap();
            appending += count() - before;
        }
        wal.wait();
        wal.poll(&mut events);
        events.clear();
        if wal.statistics().segments > 2 {
            wal.truncate_prefix(wal.durable_index() + 1).unwrap();
        }
    }
    (appending, count() - before)
}

/// Entries of 128 bytes, 4096 at a time, over a real engine, rolls and recycling included.
fn check(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        engine,
        segment_bytes: 8 << 20,
        tail_bytes_max: 4 << 20,
        ..Options::default()
    };
    let mut wal = match Wal::open(dir.path(), options) {
        Ok(wal) => wal,
        Err(error) if engine == EngineChoice::IoUring => {
            println!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let body = [0x5A; 128];
    // The tail has been filled, chunks go round, every list has the room it needs.
    run(&mut wal, &body, 4_096, 400_000);
    let rolls = wal.statistics().rolls;
    let total = 200_000;
    let (appending, all) = run(&mut wal, &body, 4_096, total);
    let rolls = wal.statistics().rolls - rolls;
    println!(
        "{}: {total} appends, {rolls} rolls: {appending} allocations in append, {all} in all",
        wal.engine_name()
    );
    assert!(rolls > 0, "segments ended meanwhile");
    assert_eq!(appending, 0, "appending allocates nothing");
    // What rolls and groups need (a name, a block, a list for a helper) is of no account per append.
    assert!(all < total / 100, "{all} allocations for {total} appends");
}

#[test]
fn appends_allocate_nothing_over_io_uring() {
    check(EngineChoice::IoUring);
}

#[test]
fn appends_allocate_nothing_over_posix() {
    check(EngineChoice::Posix);
}
