//! What the tests share: making batches, driving a log, and a model of what it must hold.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod files;
pub mod model;
pub mod random;
pub mod twin;

use bytes::Bytes;
use drave_batch::{BatchHeader, BatchRef, Batches, EntryKind};
use drave_wal::{ChangeError, Event, Options, Read, ReadError, Wal};

/// A body of `bytes` bytes that no other entry of a test has.
pub fn body(index: u64, term: u64, bytes: usize) -> Vec<u8> {
    let mut state =
        index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ term.wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// A header for the entry at `index`.
pub fn header(index: u64, term: u64, body: &[u8]) -> BatchHeader {
    let mut header = BatchHeader::new(EntryKind::Data, body, 1);
    header.index = index;
    header.term = term;
    header
}

/// Small segments without zero-filling.
pub fn small_options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        group_bytes_max: 16 << 10,
        prewrite: false,
        idle_us: 0,
        store_id: 7,
        ..Options::default()
    }
}

/// Appends the next entry.
pub fn append(wal: &mut Wal, term: u64, bytes: usize) -> u64 {
    let index = wal.last_index() + 1;
    let body = body(index, term, bytes);
    wal.append(&mut header(index, term, &body), &body).unwrap();
    index
}

/// Appends `count` entries of `bytes` bytes each, one group each, and makes them durable.
pub fn append_flushed(wal: &mut Wal, term: u64, count: u64, bytes: usize) {
    for _ in 0..count {
        append(wal, term, bytes);
        flush(wal);
    }
}

/// Makes everything durable; the events on the way.
pub fn flush(wal: &mut Wal) -> Vec<Event> {
    let mut events = Vec::new();
    wal.flush(&mut events).unwrap();
    events
}

/// Waits until nothing is under way, background work included.
pub fn settle(wal: &mut Wal) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        wal.submit();
        wal.poll(&mut events);
        if wal.is_quiet() {
            return events;
        }
        wal.wait();
    }
}

/// One entry as read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub prev_crc: u32,
    pub crc: u32,
    pub body: Vec<u8>,
}

/// Entries of `[lo, hi)`, however they have to be fetched; each checked whole.
pub fn read(wal: &Wal, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::new();
    let mut next = lo;
    while next < hi {
        let slices = match wal.read(next, hi, bytes_max)? {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run()?,
        };
        assert_eq!(slices.lo, next);
        assert!(slices.hi > slices.lo && slices.hi <= hi);
        assert_eq!(
            slices.bytes,
            slices.pieces.iter().map(Bytes::len).sum::<usize>()
        );
        for piece in &slices.pieces {
            for batch in Batches::new(piece) {
                let batch: BatchRef<'_> = batch.unwrap();
                batch.verify_body().unwrap();
                assert_eq!(batch.header.index, next);
                next += 1;
                entries.push(Entry {
                    index: batch.header.index,
                    term: batch.header.term,
                    prev_crc: batch.header.prev_crc,
                    crc: batch.header_crc,
                    body: batch.body().to_vec(),
                });
            }
        }
        assert_eq!(next, slices.hi);
    }
    Ok(entries)
}

/// Everything the log holds, checked for being one chain.
pub fn read_all(wal: &Wal) -> Vec<Entry> {
    let entries = read(wal, wal.first_index(), wal.last_index() + 1, 32 << 10).unwrap();
    for pair in entries.windows(2) {
        assert_eq!(pair[0].crc, pair[1].prev_crc);
        assert!(pair[0].term <= pair[1].term);
    }
    if let Some(last) = entries.last() {
        assert_eq!(last.crc, wal.last_crc());
        assert_eq!(wal.term(last.index), Some(last.term));
    }
    entries
}

/// The last index that the events say is durable.
pub fn durable(events: &[Event]) -> Option<(u64, u64)> {
    let mut flushed = events.iter().filter_map(|event| match event {
        Event::Durable(flushed) => Some((flushed.index(), flushed.term())),
        _ => None,
    });
    flushed.next_back()
}

/// The error of a failed log.
pub fn is_failed(error: &ChangeError) -> bool {
    matches!(error, ChangeError::Failed(_))
}
