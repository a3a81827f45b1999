//! The tail against a plain list.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Group(Vec<u16>),
    Truncate(u8),
    Reset(u8),
    Evict(u8),
    Read(u8, u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(0u16..3_000, 1..6).prop_map(Step::Group),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Reset),
        2 => any::<u8>().prop_map(Step::Evict),
        4 => any::<(u8, u8, u16)>().prop_map(|(at, count, bytes)| Step::Read(at, count, bytes)),
    ]
}

fn content(number: u64, bytes: u16) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.resize(8 + usize::from(bytes).next_multiple_of(8), number as u8);
    out
}

fn check_read(tail: &Tail, model: &[(u64, Vec<u8>)], at: u8, count: u8, bytes_max: u16) {
    let held: Vec<&(u64, Vec<u8>)> = model
        .iter()
        .filter(|(index, _)| *index >= tail.first_index())
        .collect();
    let Some((lo, _)) = held.get(usize::from(at) % held.len().max(1)).copied() else {
        return;
    };
    let hi = (lo + 1 + u64::from(count)).min(tail.next_index);
    let (end, bytes, pieces) = tail.read(*lo, hi, bytes_max.into());
    assert!(end > *lo && end <= hi);
    let expected: Vec<u8> = model
        .iter()
        .filter(|(index, _)| (*lo..end).contains(index))
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    assert_eq!(bytes, expected.len());
    assert!(end == lo + 1 || bytes <= bytes_max.into());
    assert_eq!(pieces.concat(), expected);
}

proptest! {
    #[test]
    fn reads_are_what_was_pushed(steps in proptest::collection::vec(step(), 1..80)) {
        let mut tail = Tail::new(1, 32 << 10);
        let mut model: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut kept: Vec<(Bytes, Vec<u8>)> = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Group(sizes) => {
                    let batches: Vec<Vec<u8>> = sizes
                        .iter()
                        .map(|bytes| { number += 1; content(number, *bytes) })
                        .collect();
                    let worthwhile = if number % 2 == 0 { 0 } else { 9_000 };
                    tail.open_group(batches.iter().map(Vec::len).sum(), worthwhile, number % 3 == 0);
                    for batch in batches {
                        model.push((tail.next_index, batch.clone()));
                        tail.push([&batch[..8], &batch[8..]], batch.len());
                    }
                    tail.close_group();
                    let last = tail.next_index - 1;
                    let (_, _, pieces) = tail.read(last, last + 1, 0);
                    kept.push((pieces[0].clone(), pieces[0].to_vec()));
                }
                Step::Truncate(back) => {
                    let from = tail.next_index - u64::from(back).min(tail.next_index - 1);
                    tail.truncate(from);
                    model.retain(|(index, _)| *index < from);
                }
                Step::Reset(ahead) => {
                    tail.reset(u64::from(ahead) + 1);
                    model.clear();
                }
                Step::Evict(keep) => {
                    let keep_from = tail.next_index - u64::from(keep).min(tail.next_index);
                    tail.evict(0, keep_from);
                    prop_assert!(tail.first_index() <= keep_from.max(tail.first_index()));
                }
                Step::Read(at, count, bytes_max) => check_read(&tail, &model, at, count, bytes_max),
            }
            let held: u64 = tail.pieces.iter().map(|piece| piece.chunk.capacity() as u64).sum();
            prop_assert_eq!(tail.held_bytes(), held);
            prop_assert!(tail.pool.len() <= POOL_CHUNKS_MAX);
        }
        for (piece, copy) in kept {
            prop_assert_eq!(piece, copy);
        }
    }
}
