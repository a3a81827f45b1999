//! Batches from a node: what is right is read, and nothing wrong passes.

use drave_batch::{BatchHeader, BodyBuilder};
use proptest::prelude::*;

use super::*;

/// Encoded batches of log 5 from `first_seq` on, with these numbers of records.
fn batches(first_seq: u64, counts: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seq = first_seq;
    for count in counts {
        let mut builder = BodyBuilder::new();
        for at in 0..u64::from(*count) {
            builder.push(format!("record {}", seq + at).as_bytes());
        }
        let mut body = Vec::new();
        builder.drain_into(&mut body);
        let mut header = BatchHeader::new(EntryKind::Data, &body, u32::from(*count));
        header.log_id = 5;
        header.first_seq = seq;
        header.append_time_us = 1000 + seq;
        header.encode_with_body(&body, &mut out);
        seq += u64::from(*count);
    }
    out
}

fn records(payload: Vec<u8>, from_seq: u64) -> Result<(Vec<Record>, u64), BatchesError> {
    let mut records = Vec::new();
    let next_seq = for_each_record(&Bytes::from(payload), 5, from_seq, |record| {
        records.push(record);
        true
    })?;
    Ok((records, next_seq))
}

fn check(records: &[Record], from_seq: u64, next_seq: u64) {
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (from_seq..next_seq).collect::<Vec<_>>());
    for record in records {
        assert_eq!(record.payload, format!("record {}", record.seq));
    }
}

#[test]
fn gaps_other_logs_and_control_entries_are_named() {
    let rule = |payload: Vec<u8>, from_seq| match records(payload, from_seq) {
        Err(BatchesError::Rule { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let gap = [batches(0, &[2]), batches(3, &[2])].concat();
    assert_eq!(rule(gap, 0), "the batch of the next seq");
    let repeat = [batches(0, &[2]), batches(0, &[2])].concat();
    assert_eq!(rule(repeat, 0), "the batch of the next seq");
    assert_eq!(rule(batches(3, &[2]), 2), "the batch of the next seq");
    assert_eq!(rule(batches(3, &[2]), 5), "the batch of the next seq");

    let mut other = BatchHeader::decode(&batches(0, &[1])).unwrap().0;
    let body = batches(0, &[1])[BATCH_HEADER_BYTES..][..other.body_len as usize].to_vec();
    let encode = |header: &BatchHeader, body: &[u8]| {
        let mut out = Vec::new();
        header.encode_with_body(body, &mut out);
        out
    };
    other.log_id = 6;
    assert_eq!(rule(encode(&other, &body), 0), "a batch of the log");
    let noop = BatchHeader::new(EntryKind::Noop, &[], 0);
    assert_eq!(rule(encode(&noop, &[]), 0), "a batch of records");
}

#[test]
fn taking_may_stop_between_records() {
    let payload = Bytes::from(batches(0, &[3, 3]));
    let mut taken = 0;
    let next_seq = for_each_record(&payload, 5, 1, |_| {
        let room = taken < 3;
        taken += u32::from(room);
        room
    });
    assert_eq!(next_seq, Ok(4));
}

proptest! {
    #[test]
    fn from_any_seq_of_the_first_batch(
        first_seq in 0_u64..1000,
        counts in prop::collection::vec(1_u8..6, 1..6),
        skip in 0_u64..5,
    ) {
        let from_seq = first_seq + skip.min(u64::from(counts[0]) - 1);
        let end = first_seq + counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        let (records, next_seq) = records(batches(first_seq, &counts), from_seq).unwrap();
        prop_assert_eq!(next_seq, end);
        check(&records, from_seq, end);
    }

    #[test]
    fn one_wrong_bit_or_a_cut_never_passes(
        counts in prop::collection::vec(1_u8..4, 1..4),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        cut in any::<bool>(),
    ) {
        let mut payload = batches(0, &counts);
        let whole = payload.len();
        let at = place.index(whole);
        if cut {
            payload.truncate(at);
        } else {
            payload[at] ^= 1 << bit;
        }
        match records(payload, 0) {
            // A cut between two batches leaves whole ones.
            Ok((records, next_seq)) => {
                prop_assert!(cut);
                check(&records, 0, next_seq);
            }
            Err(error) => prop_assert!(matches!(error, BatchesError::Damaged(_)), "{error:?}"),
        }
    }

    #[test]
    fn garbage_never_panics(payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let is_empty = payload.is_empty();
        prop_assert_eq!(records(payload, 0).is_ok(), is_empty);
    }
}
