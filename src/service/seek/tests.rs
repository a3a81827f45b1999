//! A search over batches that were found.

use bytes::Bytes;
use drave_batch::{BatchHeader, EntryKind};

use super::*;

/// Batches of three records, the n-th appended at 10 * n us.
fn found(numbers: std::ops::Range<u64>) -> Found {
    let mut pieces = Vec::new();
    for number in numbers {
        let mut batch = Vec::new();
        let header = BatchHeader {
            first_seq: 3 * number,
            append_time_us: 10 * number,
            ..BatchHeader::new(EntryKind::Data, &[], 3)
        };
        header.encode_with_body(&[], &mut batch);
        pieces.push(Bytes::from(batch));
    }
    let mut found = Found::default();
    found.bytes = pieces.iter().map(Bytes::len).sum();
    found.pieces = pieces;
    found
}

#[test]
fn the_first_batch_of_the_time_or_later_is_taken_and_earlier_ones_are_dropped() {
    let seek = Seek { time_us: 45 };
    let mut earlier = found(0..5);
    assert_eq!(seek.take(&mut earlier, 0), None);
    assert_eq!(
        earlier.bytes, 0,
        "what was looked at does not fill the search"
    );
    assert_eq!(seek.take(&mut found(3..9), 0), Some((15, 50)));
    let exact = Seek { time_us: 50 };
    assert_eq!(exact.take(&mut found(3..9), 0), Some((15, 50)));
    assert_eq!(
        exact.take(&mut found(3..9), 16),
        Some((16, 50)),
        "partly trimmed"
    );
}
