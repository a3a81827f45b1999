//! What opening a log that was closed cleanly reads: the last segment, and of each other its first block, its seal
//! and its last group, however long it is.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::files::segments;
use common::{append_flushed, settle};
use drave_wal::{
    BLOCK_BYTES, Behaviour, Completion, Engine, FileName, MemoryDisk, Operation, Options, Source,
    Wal,
};

const SEGMENT_BYTES: u64 = 1 << 20;

/// Bytes loaded, file by file.
type Loaded = Arc<Mutex<BTreeMap<FileName, u64>>>;

struct CountingSource {
    file: FileName,
    loaded: Loaded,
    inner: Arc<dyn Source>,
}

impl Source for CountingSource {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn load(self: Arc<Self>, offset: u64, bytes: usize) -> io::Result<Bytes> {
        *self.loaded.lock().unwrap().entry(self.file).or_default() += bytes as u64;
        Arc::clone(&self.inner).load(offset, bytes)
    }
}

struct CountingEngine {
    loaded: Loaded,
    inner: Box<dyn Engine>,
}

impl Engine for CountingEngine {
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
    fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>> {
        self.inner.medium(file)
    }

    fn source(&self, file: FileName, mapped: bool) -> io::Result<Arc<dyn Source>> {
        Ok(Arc::new(CountingSource {
            file,
            loaded: Arc::clone(&self.loaded),
            inner: self.inner.source(file, mapped)?,
        }))
    }
    fn start(&mut self, number: u64, operation: Operation) {
        self.inner.start(number, operation);
    }
    fn submit(&mut self) {
        self.inner.submit();
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.inner.poll(completions);
    }
    fn wait(&mut self, until_us: Option<u64>) {
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

fn options(verify_on_open: bool) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        verify_on_open,
        ..common::small_options()
    }
}

fn engine(disk: &MemoryDisk) -> Box<dyn Engine> {
    disk.engine(Behaviour {
        seed: 1,
        latency_us_min: 1,
        latency_us_max: 5,
    })
}

/// Opens the log; gives the last index and what was loaded of each segment, in order.
fn open(disk: &MemoryDisk, verify_on_open: bool) -> (u64, Vec<u64>) {
    let loaded = Loaded::default();
    let counting = Box::new(CountingEngine {
        loaded: Arc::clone(&loaded),
        inner: engine(disk),
    });
    let wal = Wal::open_with(counting, options(verify_on_open)).unwrap();
    let loaded = loaded.lock().unwrap();
    let of = |name| loaded.get(&FileName::Segment(name)).copied().unwrap_or(0);
    let each = segments(disk).into_iter().map(of).collect();
    (wal.last_index(), each)
}

#[test]
fn opening_a_log_closed_cleanly_reads_only_the_last_segment_whole() {
    const ENTRIES: u64 = 500;
    let disk = MemoryDisk::new();
    let mut wal = Wal::open_with(engine(&disk), options(false)).unwrap();
    append_flushed(&mut wal, 1, ENTRIES, 10_000);
    settle(&mut wal);
    wal.close().unwrap();

    let (last_index, by_seals) = open(&disk, false);
    assert_eq!(last_index, ENTRIES);
    let (last, others) = by_seals.split_last().unwrap();
    assert!(others.len() >= 4, "{by_seals:?}");
    for bytes in others {
        // A first block, a seal with a row for each of some 85 groups, a last group; headers are read before.
        assert!(
            (1..=16 * BLOCK_BYTES as u64).contains(bytes),
            "{by_seals:?}"
        );
    }
    assert!(*last > 16 * BLOCK_BYTES as u64, "{by_seals:?}");

    // That the counting sees what is read: asked to verify, it reads everything.
    let (last_index, whole) = open(&disk, true);
    assert_eq!(last_index, ENTRIES);
    let (_, others) = whole.split_last().unwrap();
    assert!(
        others.iter().all(|bytes| *bytes > SEGMENT_BYTES * 3 / 4),
        "{whole:?}"
    );
}
