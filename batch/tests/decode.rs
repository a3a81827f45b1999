//! Decoders are total: any bytes give a value or a typed error, and damage is never taken for data.
#![allow(clippy::unwrap_used)]

use drave_batch::control::{
    LogCreated, Members, ProducerRegistered, address_error, log_name_error,
};
use drave_batch::wire::{self, ClusterId, ErrorCode, FrameHeader, Message};
use drave_batch::{
    BATCH_HEADER_BYTES, BatchHeader, BatchRef, Batches, BodyBuilder, DecodeError, EntryKind,
    Records, checksum,
};
use proptest::prelude::*;

fn encoded(records: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BodyBuilder::new();
    for record in records {
        builder.push(record);
    }
    let count = builder.record_count();
    let mut body = Vec::new();
    builder.drain_into(&mut body);
    let mut out = Vec::new();
    BatchHeader::new(EntryKind::Data, &body, count).encode_with_body(&body, &mut out);
    out
}

fn resealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = checksum(&batch[4..BATCH_HEADER_BYTES]);
    batch[..4].copy_from_slice(&crc.to_le_bytes());
    batch
}

fn whole(bytes: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
    let batch = BatchRef::decode(bytes)?;
    batch.verify_body()?;
    Ok(batch.records()?.map(<[u8]>::to_vec).collect())
}

proptest! {
    #[test]
    fn records_survive(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20)) {
        prop_assert_eq!(whole(&encoded(&records)).unwrap(), records);
    }

    #[test]
    fn several_batches_back_to_back(counts in proptest::collection::vec(1usize..5, 0..6)) {
        let mut bytes = Vec::new();
        for count in &counts {
            bytes.extend(encoded(&vec![vec![7; 13]; *count]));
        }
        let found: Result<Vec<_>, _> = Batches::new(&bytes).collect();
        prop_assert_eq!(found.unwrap().len(), counts.len());
        if !bytes.is_empty() {
            prop_assert!(Batches::new(&bytes[..bytes.len() - 1]).any(|batch| batch.is_err()));
        }
    }

    #[test]
    fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..400), count in 0u32..100_000) {
        let _ = whole(&bytes);
        let _ = FrameHeader::decode(&bytes);
        let _ = Records::new(&bytes, count);
        let _ = Members::decode(&bytes);
        let _ = LogCreated::decode(&bytes);
        let _ = ProducerRegistered::decode(&bytes);
        let _ = wire::Hello::decode_head(&bytes);
        let _ = wire::StatusReply::decode_head(&bytes);
        let _ = wire::LatencyReply::decode_head(&bytes);
        let _ = wire::LogListed::decode_head(&bytes);
        let _ = wire::Append::decode_head(&bytes);
        let _ = wire::MemberListed::decode_head(&bytes);
        let _ = wire::MemberChange::decode_head(&bytes);
        let _ = wire::EntriesRequest::decode_head(&bytes);
        let _ = wire::EntriesReply::decode_head(&bytes);
        let _ = wire::LogEndReply::decode_head(&bytes);
    }
}

#[test]
fn every_flipped_bit_of_a_batch_is_found() {
    let good = encoded(&[b"one".to_vec(), b"two!!".to_vec()]);
    for at in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[at / 8] ^= 1 << (at % 8);
        assert!(whole(&bad).is_err(), "bit {at}");
    }
    for len in 0..good.len() {
        assert!(
            matches!(whole(&good[..len]), Err(DecodeError::Truncated { .. })),
            "cut at {len}"
        );
    }
}

#[test]
fn a_header_with_a_valid_checksum_is_still_checked() {
    let good = encoded(&[b"x".to_vec()]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::decode(&resealed(bad))
    };
    assert!(matches!(with(88, &[0, 0]), Err(DecodeError::Magic { .. })));
    assert!(matches!(
        with(90, &[2]),
        Err(DecodeError::Version { found: 2, .. })
    ));
    assert!(matches!(
        with(91, &[200]),
        Err(DecodeError::Invalid {
            what: "batch kind",
            ..
        })
    ));
    assert!(matches!(
        with(92, &[1, 0]),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        with(94, &[1, 0]),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        with(8, &u32::MAX.to_le_bytes()),
        Err(DecodeError::TooLarge { .. })
    ));
    assert!(matches!(
        with(12, &u32::MAX.to_le_bytes()),
        Err(DecodeError::TooLarge { .. })
    ));
    assert!(matches!(
        with(12, &0u32.to_le_bytes()),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        with(40, &u64::MAX.to_le_bytes()),
        Err(DecodeError::Invalid { .. })
    ));
}

#[test]
fn record_tables_that_lie_are_refused() {
    let table = |ends: &[u32], payload: &[u8]| {
        let mut body: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        body.extend_from_slice(payload);
        Records::new(&body, ends.len() as u32).map(Iterator::count)
    };
    assert_eq!(table(&[1, 3], b"abc").unwrap(), 2);
    assert!(matches!(
        table(&[3, 1], b"abc"),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        table(&[1, 4], b"abc"),
        Err(DecodeError::Invalid { .. })
    ));
    assert!(matches!(
        table(&[1, 2], b"abc"),
        Err(DecodeError::Trailing { .. })
    ));
    assert!(matches!(
        Records::new(b"ab", u32::MAX),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn a_frame_over_the_limit_and_a_strangers_bytes_are_named() {
    let mut frame = Vec::new();
    wire::encode_frame(&mut frame, 0, 1, &wire::Status {}, 0);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = frame.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = checksum(&bad[4..32]);
        bad[..4].copy_from_slice(&crc.to_le_bytes());
        FrameHeader::decode(&bad)
    };
    assert!(matches!(
        with(8, &u32::MAX.to_le_bytes()),
        Err(DecodeError::TooLarge { .. })
    ));
    assert!(matches!(with(7, &[0xee]), Err(DecodeError::Invalid { .. })));
    assert!(matches!(
        with(6, &[9]),
        Err(DecodeError::Version { found: 9, .. })
    ));
    assert!(matches!(
        FrameHeader::decode(b"GET / HTTP/1.1\r\nHost: localhost\r\n"),
        Err(DecodeError::Magic { .. })
    ));
}

#[test]
fn names_are_checked() {
    for good in ["a", "orders/eu-1", "A.b_c-9", &"x".repeat(255)] {
        assert_eq!(log_name_error(good), None, "{good}");
    }
    for bad in [
        "",
        ".hidden",
        "/abs",
        "sp ace",
        "ü",
        "a\n",
        &"x".repeat(256),
    ] {
        assert!(log_name_error(bad).is_some(), "{bad}");
    }
    for bad in ["", "a b", &"x".repeat(65)] {
        assert!(ClusterId::new(bad).is_err(), "{bad}");
    }
    ClusterId::new("prod-1.eu_A").unwrap();
}

#[test]
fn error_codes_are_stable_and_unique() {
    let mut numbers: Vec<u32> = ErrorCode::ALL.iter().map(|code| *code as u32).collect();
    for (code, number) in ErrorCode::ALL.iter().zip(&numbers) {
        assert_eq!(ErrorCode::from_number(*number), Some(*code));
        assert!(!code.summary().is_empty());
    }
    assert_eq!(ErrorCode::ExpectSeq.to_string(), "DRV-0104");
    assert_eq!(ErrorCode::from_number(0), None);
    numbers.dedup();
    assert_eq!(numbers.len(), ErrorCode::ALL.len());
}

#[test]
fn addresses_are_host_and_port() {
    for good in ["10.0.0.1:4436", "node-1.example:1", "[::1]:65535"] {
        assert_eq!(address_error(good), None, "{good}");
    }
    let long = format!("{}:1", "x".repeat(254));
    for bad in [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "a b:1",
        "a\n:1",
        &long,
    ] {
        assert!(address_error(bad).is_some(), "{bad}");
    }
}

#[test]
fn an_answer_about_entries_says_something_of_at_least_one() {
    let head = |held: u8, lo: u64, hi: u64| {
        let mut head = vec![held];
        for number in [lo, hi, 7] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        wire::EntriesReply::decode_head(&head)
    };
    for held in [1, 2, 3] {
        assert_eq!(head(held, 5, 6).unwrap().hi, 6);
        for (lo, hi) in [(5, 5), (5, 4), (u64::MAX, u64::MAX), (1, 0)] {
            let refused = head(held, lo, hi).unwrap_err();
            assert!(matches!(refused, DecodeError::Invalid { .. }), "{refused}");
        }
    }
    assert_eq!(head(4, 5, 5).unwrap().held, wire::EntriesHeld::Busy);
    for held in [0, 5, 255] {
        let refused = head(held, 5, 6).unwrap_err();
        assert!(matches!(refused, DecodeError::Invalid { .. }), "{refused}");
    }
}
