//! Whatever is queued leaves byte for byte, in order, however the kernel takes it.

use drave_batch::wire::Read;
use proptest::prelude::*;

use super::*;

fn request(number: u64) -> Read {
    Read {
        log_id: number,
        from_seq: 0,
        bytes_max: 0,
        consistency: 0,
    }
}

fn piece(len: usize, salt: u8) -> Bytes {
    vec![salt; len].into()
}

/// A step of a connection's life.
#[derive(Clone, Debug)]
enum Step {
    Push(Vec<usize>),
    /// Takes pieces, and writes them in steps of so many bytes.
    Write(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let lens = prop_oneof![
        4 => 0usize..300,
        1 => SHARED_PIECE_BYTES_MIN - 1..SHARED_PIECE_BYTES_MIN + 2,
        1 => 0usize..100_000
    ];
    prop_oneof![
        proptest::collection::vec(lens, 0..5).prop_map(Step::Push),
        (1usize..20, 1usize..50_000).prop_map(|(pieces, bytes)| Step::Write(pieces, bytes)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_leave_as_they_were_queued(steps in proptest::collection::vec(any_step(), 1..40)) {
        let mut pool = BufferPool::new(4);
        let mut outgoing = Outgoing::new();
        let mut expected = Vec::new();
        let mut found = Vec::new();
        let mut taken = Vec::new();
        let write = |outgoing: &mut Outgoing, pool: &mut BufferPool, found: &mut Vec<u8>,
                     taken: &mut Vec<Bytes>, pieces: usize, bytes: usize| {
            outgoing.take(taken, pieces, usize::MAX);
            assert!(taken.iter().all(|piece| !piece.is_empty()));
            while !taken.is_empty() {
                let all: Vec<u8> = taken.iter().flatten().copied().collect();
                let written = all.len().min(bytes);
                found.extend_from_slice(&all[..written]);
                outgoing.written(pool, taken, written);
            }
        };
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Push(lens) => {
                    let payload: Vec<Bytes> = lens
                        .iter()
                        .map(|len| piece(*len, number as u8))
                        .collect();
                    let before = expected.len();
                    let payload_bytes = lens.iter().sum();
                    encode_frame(&mut expected, 1, number, &request(number), payload_bytes);
                    payload.iter().for_each(|piece| expected.extend_from_slice(piece));
                    let bytes = outgoing.push(&mut pool, 1, number, &request(number), &payload);
                    prop_assert_eq!(bytes, expected.len() - before);
                }
                Step::Write(pieces, bytes) => {
                    write(&mut outgoing, &mut pool, &mut found, &mut taken, pieces, bytes);
                }
            }
            prop_assert_eq!(outgoing.queued_bytes(), expected.len() - found.len());
        }
        while !outgoing.is_empty() {
            write(&mut outgoing, &mut pool, &mut found, &mut taken, 64, 1 << 20);
        }
        prop_assert!(found == expected, "the same bytes in the same order");
        prop_assert!(pool.free.len() <= 4);
        prop_assert!(pool.free.iter().all(Vec::is_empty));
    }
}

#[test]
fn large_pieces_are_not_copied_and_small_frames_share_one_write() {
    let mut pool = BufferPool::new(4);
    let mut outgoing = Outgoing::new();
    let large = piece(SHARED_PIECE_BYTES_MIN, 1);
    for number in 0..100 {
        outgoing.push(&mut pool, 0, number, &request(number), &[piece(50, 2)]);
    }
    outgoing.push(
        &mut pool,
        0,
        100,
        &request(100),
        std::slice::from_ref(&large),
    );
    let mut taken = Vec::new();
    outgoing.take(&mut taken, 64, usize::MAX);
    assert_eq!(taken.len(), 2, "a hundred frames and a head in one piece");
    assert_eq!(taken[1].as_ptr(), large.as_ptr());
}

#[test]
fn written_buffers_are_used_again() {
    let mut pool = BufferPool::new(4);
    let mut outgoing = Outgoing::new();
    let mut taken = Vec::new();
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..100 {
        outgoing.push(&mut pool, 0, number, &request(number), &[piece(500, 2)]);
        outgoing.take(&mut taken, 64, usize::MAX);
        addresses.insert(taken[0].as_ptr());
        let bytes = taken[0].len();
        outgoing.written(&mut pool, &mut taken, bytes);
    }
    assert_eq!(addresses.len(), 1, "one buffer for all of them");
    // A piece that its owner still holds is not taken from him.
    let held = piece(SHARED_PIECE_BYTES_MIN, 3);
    outgoing.push(&mut pool, 0, 0, &request(0), std::slice::from_ref(&held));
    outgoing.take(&mut taken, 64, usize::MAX);
    let bytes = outgoing.queued_bytes();
    outgoing.written(&mut pool, &mut taken, bytes);
    assert!(held.iter().all(|byte| *byte == 3));
    assert_eq!(pool.free.len(), 1);
}

#[test]
fn a_take_stops_at_its_bounds() {
    let mut pool = BufferPool::new(0);
    let mut outgoing = Outgoing::new();
    let pieces = [piece(10_000, 1), piece(10_000, 2), piece(10_000, 3)];
    outgoing.push(&mut pool, 0, 0, &request(0), &pieces);
    let mut taken = Vec::new();
    outgoing.take(&mut taken, 64, 10_000);
    assert_eq!(
        taken.len(),
        2,
        "the head, and the piece that reaches the bound"
    );
    outgoing.take(&mut taken, 3, usize::MAX);
    assert_eq!(taken.len(), 3);
    let queued = outgoing.queued_bytes();
    outgoing.clear();
    let in_hand: usize = taken.iter().map(Bytes::len).sum();
    assert_eq!(outgoing.queued_bytes(), in_hand);
    assert_eq!(queued - in_hand, 10_000);
}

#[test]
#[should_panic(expected = "no more can be written than was taken")]
fn more_written_than_taken_is_a_broken_invariant() {
    let mut pool = BufferPool::new(0);
    let mut outgoing = Outgoing::new();
    outgoing.push(&mut pool, 0, 0, &request(0), &[]);
    outgoing.written(&mut pool, &mut Vec::new(), 1);
}
