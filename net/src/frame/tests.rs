//! Any split of a stream gives the same frames; any garbage gives an error and no memory.

use drave_batch::wire::{MessageKind, Read, encode_frame};
use proptest::prelude::*;

use super::*;

fn request(number: u64) -> Read {
    Read {
        log_id: number,
        from_seq: number,
        bytes_max: 1,
        consistency: 0,
    }
}

fn frame_with(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, 3, number, &request(number), payload.len());
    out.extend_from_slice(payload);
    out
}

/// How test bytes get into the reader.
#[derive(Clone, Copy, Debug)]
enum Feed {
    Push,
    Spare,
    Lend,
}

/// Feeds up to `bytes.len()` bytes, and gives how many went in.
fn feed(reader: &mut FrameReader, feed: Feed, bytes: &[u8]) -> usize {
    match feed {
        Feed::Push => reader.push(bytes),
        Feed::Spare => {
            let buffer = reader.spare();
            let room = buffer.capacity() - buffer.len();
            let taken = bytes.len().min(room);
            buffer.extend_from_slice(&bytes[..taken]);
            taken
        }
        Feed::Lend => {
            let mut buffer = reader.take_buffer();
            let room = buffer.capacity() - buffer.len();
            let taken = bytes.len().min(room);
            buffer.extend_from_slice(&bytes[..taken]);
            reader.restore_buffer(buffer);
            reader.note_read(taken, room);
            taken
        }
    }
}

fn any_feed() -> impl Strategy<Value = Feed> {
    prop_oneof![Just(Feed::Push), Just(Feed::Spare), Just(Feed::Lend)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_frames(
        payload_lens in proptest::collection::vec(
            prop_oneof![3 => 0usize..200, 2 => 0usize..30_000, 1 => 0usize..700_000], 1..12),
        splits in proptest::collection::vec(1usize..70_000, 1..40),
        way in any_feed(),
    ) {
        let payloads: Vec<Vec<u8>> = payload_lens
            .iter()
            .enumerate()
            .map(|(salt, len)| (0..*len).map(|at| (at * 7 + salt) as u8).collect())
            .collect();
        let mut stream = Vec::new();
        for (number, payload) in (0..).zip(&payloads) {
            stream.extend_from_slice(&frame_with(number, payload));
        }
        let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
        let mut frames = Vec::new();
        let mut rest = &stream[..];
        for split in splits.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let mut piece = &rest[..rest.len().min(*split)];
            rest = &rest[piece.len()..];
            while !piece.is_empty() {
                let taken = feed(&mut reader, way, piece);
                prop_assert!(taken > 0, "there is always room for one byte");
                piece = &piece[taken..];
                while let Some(frame) = reader.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(frames.len(), payloads.len());
        for ((number, payload), frame) in (0..).zip(&payloads).zip(&frames) {
            prop_assert_eq!(frame.header.request_id, number);
            prop_assert_eq!(frame.decode::<Read>().unwrap(), request(number));
            prop_assert!(frame.payload == payload[..]);
        }
    }

    #[test]
    fn any_garbage_is_an_error_that_stays_and_takes_no_memory(
        garbage in proptest::collection::vec(any::<u8>(), 32..6000),
        splits in proptest::collection::vec(1usize..700, 1..10),
        handshake in any::<bool>(),
    ) {
        let mut reader = match handshake {
            true => FrameReader::for_handshake(),
            false => FrameReader::new(FRAME_PAYLOAD_BYTES_MAX),
        };
        let bound = if handshake { HANDSHAKE_FRAME_BYTES_MAX } else { READ_BYTES_MIN };
        let mut rest = &garbage[..];
        let mut first = None;
        for split in splits.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let taken = reader.push(&rest[..rest.len().min(*split)]);
            rest = &rest[taken..];
            let outcome = reader.next_frame();
            prop_assert!(reader.capacity_bytes() <= bound);
            match (&first, outcome) {
                (_, Ok(Some(frame))) => prop_assert!(false, "a frame of garbage: {frame:?}"),
                (None, Ok(None)) => {}
                (None, Err(error)) => first = Some(error),
                (Some(error), outcome) => prop_assert_eq!(outcome, Err(error.clone())),
            }
        }
        prop_assert!(first.is_some());
        prop_assert!(reader.finish().is_err());
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_found(bit in 0usize..FRAME_HEADER_BYTES * 8) {
        let mut bytes = frame_with(5, b"payload");
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
        prop_assert_eq!(reader.push(&bytes), bytes.len());
        prop_assert!(matches!(reader.next_frame(), Err(FrameError::Malformed(_))));
    }

    #[test]
    fn any_flipped_bit_of_a_head_is_found_by_decode(bit in 0usize..21 * 8) {
        let mut bytes = frame_with(5, b"payload");
        bytes[FRAME_HEADER_BYTES + bit / 8] ^= 1 << (bit % 8);
        let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
        reader.push(&bytes);
        let frame = reader.next_frame().unwrap().unwrap();
        prop_assert_eq!(frame.head.len(), 21);
        let is_checksum = matches!(frame.decode::<Read>(), Err(DecodeError::Checksum { .. }));
        prop_assert!(is_checksum);
    }
}

/// The buffer follows what arrived, not what was announced.
#[test]
fn an_announced_length_alone_allocates_nothing() {
    let mut bytes = Vec::new();
    encode_frame(
        &mut bytes,
        0,
        1,
        &request(1),
        FRAME_PAYLOAD_BYTES_MAX as usize,
    );
    let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
    reader.push(&bytes);
    let mut arrived = bytes.len();
    let block = [0x5A; 1000];
    loop {
        let frame = reader.next_frame().unwrap();
        let justified = (arrived * GROWTH_FACTOR).max(arrived + READ_BYTES_MAX);
        assert!(
            reader.capacity_bytes() <= justified,
            "{} bytes held for {arrived} that arrived",
            reader.capacity_bytes()
        );
        if let Some(frame) = frame {
            assert_eq!(frame.payload.len(), FRAME_PAYLOAD_BYTES_MAX as usize);
            break;
        }
        let missing = reader.expected_bytes() - reader.pending_bytes();
        arrived += reader.push(&block[..block.len().min(missing)]);
    }
}

#[test]
fn limits_are_checked_on_the_header() {
    let mut reader = FrameReader::new(10);
    reader.push(&frame_with(1, &[0; 10]));
    assert!(reader.next_frame().unwrap().is_some());
    let over = frame_with(1, &[0; 11]);
    reader.push(&over[..FRAME_HEADER_BYTES]);
    let error = FrameError::TooLarge {
        limit: 10,
        found: 11,
    };
    assert_eq!(reader.next_frame(), Err(error.clone()));
    assert_eq!(error.code(), ErrorCode::FrameTooLarge);

    // Over the format's limit, where the header's decoder refuses already.
    let header = FrameHeader {
        kind: MessageKind::Read,
        head_len: 0,
        payload_len: FRAME_PAYLOAD_BYTES_MAX + 1,
        head_crc: 0,
        group_id: 0,
        request_id: 0,
    };
    let mut reader = FrameReader::new(u32::MAX);
    reader.push(&header.encode());
    let (limit, found) = (
        FRAME_PAYLOAD_BYTES_MAX.into(),
        u64::from(FRAME_PAYLOAD_BYTES_MAX) + 1,
    );
    assert_eq!(
        reader.next_frame(),
        Err(FrameError::TooLarge { limit, found })
    );
}

#[test]
fn before_the_handshake_the_whole_frame_counts() {
    let room = HANDSHAKE_FRAME_BYTES_MAX - FRAME_HEADER_BYTES - 21;
    let mut reader = FrameReader::for_handshake();
    let fits = frame_with(1, &vec![0; room]);
    assert_eq!(fits.len(), HANDSHAKE_FRAME_BYTES_MAX);
    assert_eq!(reader.push(&fits), fits.len());
    assert!(reader.next_frame().unwrap().is_some());
    let over = frame_with(1, &vec![0; room + 1]);
    reader.push(&over);
    assert_eq!(
        reader.next_frame(),
        Err(FrameError::TooLarge {
            limit: HANDSHAKE_FRAME_BYTES_MAX as u64,
            found: HANDSHAKE_FRAME_BYTES_MAX as u64 + 1,
        })
    );
    assert!(reader.capacity_bytes() <= HANDSHAKE_FRAME_BYTES_MAX);
}

#[test]
fn bytes_behind_the_handshake_stay_and_larger_frames_pass_then() {
    let mut reader = FrameReader::for_handshake();
    let mut stream = frame_with(1, b"");
    let large = frame_with(2, &[7; 100_000]);
    stream.extend_from_slice(&large);
    let mut rest = &stream[reader.push(&stream)..];
    assert!(!rest.is_empty(), "no more than the limit is buffered");
    assert_eq!(reader.next_frame().unwrap().unwrap().header.request_id, 1);
    reader.establish(FRAME_PAYLOAD_BYTES_MAX);
    loop {
        if let Some(frame) = reader.next_frame().unwrap() {
            assert_eq!(frame.payload.len(), 100_000);
            break;
        }
        rest = &rest[reader.push(rest)..];
    }
    assert_eq!(reader.pending_bytes(), 0);
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_cut() {
    let bytes = frame_with(1, b"0123456789");
    let mut reader = FrameReader::new(100);
    reader.push(&bytes[..40]);
    assert_eq!(reader.next_frame(), Ok(None));
    let (expected, found) = (bytes.len() as u64, 40);
    assert_eq!(reader.finish(), Err(FrameError::Cut { expected, found }));
    let mut reader = FrameReader::new(100);
    reader.push(&bytes[..5]);
    let expected = FRAME_HEADER_BYTES as u64;
    let found = 5;
    assert_eq!(reader.finish(), Err(FrameError::Cut { expected, found }));
}

#[test]
fn one_buffer_serves_a_steady_stream() {
    let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
    let bytes = frame_with(1, &[1; 500]);
    let mut addresses = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[feed(&mut reader, Feed::Lend, rest)..];
        }
        let frame = reader.next_frame().unwrap().unwrap();
        addresses.insert(frame.payload.as_ptr() as usize);
    }
    let first = *addresses.first().unwrap();
    let last = *addresses.last().unwrap();
    assert!(
        last - first < READ_BYTES_MIN,
        "all frames were slices of one allocation"
    );
}

#[test]
fn a_large_buffer_is_given_back_when_frames_are_small_again() {
    let mut reader = FrameReader::new(FRAME_PAYLOAD_BYTES_MAX);
    let take = |reader: &mut FrameReader, payload: &[u8]| {
        let bytes = frame_with(1, payload);
        let mut rest = &bytes[..];
        loop {
            rest = &rest[reader.push(rest)..];
            if let Some(frame) = reader.next_frame().unwrap() {
                assert!(frame.payload == payload);
                return;
            }
        }
    };
    let large = vec![1; 4 << 20];
    take(&mut reader, &large);
    take(&mut reader, &large);
    assert!(reader.backing_bytes > RETAIN_BYTES_MAX);
    for _ in 0..=RETAIN_FRAMES {
        take(&mut reader, b"small");
    }
    reader.spare();
    assert!(reader.backing_bytes <= RETAIN_BYTES_MAX);
}

#[test]
fn debug_shows_no_payload() {
    let mut reader = FrameReader::new(1000);
    reader.push(&frame_with(1, b"secret secret"));
    let shown = format!("{:?}", reader.next_frame().unwrap().unwrap());
    assert!(shown.contains("payload_len: 13"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}
