//! The index against a walk over all batches.

use super::*;
use proptest::prelude::*;

/// A batch at an index, which also says when it was appended and what was before it.
fn mark(seq: u64, index: u64) -> Mark {
    Mark {
        seq,
        index,
        time_us: 1_000 + index / 3,
        bytes_before: 100 * seq,
    }
}

/// Reads a whole log through the index as a reader does, and counts the headers looked at.
fn walk(batches: &[(u64, u64)], index: &SeqIndex, seq: u64) -> (Vec<u64>, u64) {
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut range = index.locate(seq);
    while let Some((lo, hi)) = range {
        assert!(lo < hi, "a range is never empty");
        looked += hi - lo;
        found.extend(
            batches
                .iter()
                .filter(|b| (lo..hi).contains(&b.1))
                .map(|b| b.0),
        );
        range = index.resume(hi);
    }
    (found, looked)
}

proptest! {
    #[test]
    fn every_batch_from_a_seq_on_is_found_once(
        steps in proptest::collection::vec((1u64..5, 1u64..1500), 1..200),
        pick in 0usize..200,
    ) {
        let mut index = SeqIndex::default();
        let mut batches = Vec::new();
        let (mut seq, mut at) = (0, 0);
        for (records, gap) in steps {
            at += gap;
            index.push(mark(seq, at));
            batches.push((seq, at));
            seq += records;
        }
        let from = batches[pick % batches.len()];
        let (found, looked) = walk(&batches, &index, from.0);
        let expected: Vec<u64> = batches.iter().filter(|b| b.0 >= from.0).map(|b| b.0).collect();
        prop_assert!(found.ends_with(&expected), "{found:?} {expected:?}");
        prop_assert!(found.windows(2).all(|w| w[0] < w[1]));
        prop_assert!(looked <= (expected.len() as u64 + 1) * MARK_INDEXES);
    }
}

proptest! {
    #[test]
    fn a_trim_loses_nothing_that_is_kept(
        steps in proptest::collection::vec((1u64..5, 1u64..1500), 1..200),
        pick in 0usize..200,
    ) {
        let mut index = SeqIndex::default();
        let mut batches = Vec::new();
        let (mut seq, mut at) = (0, 0);
        for (records, gap) in steps {
            at += gap;
            index.push(mark(seq, at));
            batches.push((seq, at));
            seq += records;
        }
        let kept = pick % batches.len();
        index.trim(batches[kept].0);
        let (found, _) = walk(&batches, &index, batches[kept].0);
        let expected: Vec<u64> = batches[kept..].iter().map(|b| b.0).collect();
        prop_assert!(found.ends_with(&expected), "{found:?} {expected:?}");
        let copy = SeqIndex::from_parts(index.mark_list().to_vec(), index.last_batch(), 0).unwrap();
        prop_assert_eq!(walk(&batches, &copy, batches[kept].0).0, found);
    }
}

#[test]
fn parts_that_are_no_index_are_refused() {
    for (marks, last) in [
        (vec![], Some((1, 1))),
        (vec![(1, 1)], None),
        (vec![(1, 1), (2, 2)], Some((2, 2))),
        (vec![(5, 1), (4, 1000)], Some((4, 1000))),
        (vec![(1, 1)], Some((9, 1000))),
    ] {
        let marks: Vec<Mark> = marks.into_iter().map(|(seq, at)| mark(seq, at)).collect();
        let last = last.map(|(seq, at)| mark(seq, at));
        assert!(
            SeqIndex::from_parts(marks.clone(), last, 0).is_none(),
            "{marks:?} {last:?}"
        );
    }
}

#[test]
fn what_is_needed_never_moves_back_when_batches_follow_a_trim() {
    let mut index = SeqIndex::default();
    for at in 0..40 {
        index.push(mark(at * 10, 100 + at));
    }
    index.trim(395);
    assert_eq!(index.locate(395), Some((139, 140)));
    index.push(mark(400, 150));
    assert_eq!(index.locate(395).unwrap().0, 139);
    let marks = index.mark_list().to_vec();
    assert!(SeqIndex::from_parts(marks, index.last_batch(), 0).is_some());
}

#[test]
fn an_empty_log_has_nothing() {
    assert_eq!(SeqIndex::default().locate(0), None);
    assert_eq!(SeqIndex::default().resume(0), None);
}

#[test]
fn a_log_alone_costs_one_mark_in_many_batches() {
    let mut index = SeqIndex::default();
    for at in 0..10 * MARK_INDEXES {
        index.push(mark(at, at + 1));
    }
    assert_eq!(index.marks(), 10);
}

#[test]
fn marks_that_run_back_in_time_or_bytes_are_refused() {
    let first = mark(0, 1);
    for bad in [
        Mark {
            time_us: 1,
            ..mark(9, 1_000)
        },
        Mark {
            bytes_before: 0,
            ..mark(9, 1_000)
        },
    ] {
        let first = Mark {
            bytes_before: 1,
            ..first
        };
        assert!(SeqIndex::from_parts(vec![first, bad], Some(bad), 0).is_none());
    }
}

proptest! {
    #[test]
    fn the_first_batch_of_a_time_is_found_before_the_next_mark(
        steps in proptest::collection::vec((1u64..5, 1u64..1500), 1..200),
        pick in 0u64..100_000,
        trimmed in 0usize..200,
    ) {
        let mut index = SeqIndex::default();
        let mut batches = Vec::new();
        let (mut seq, mut at) = (0, 0);
        for (records, gap) in steps {
            at += gap;
            index.push(mark(seq, at));
            batches.push(mark(seq, at));
            seq += records;
        }
        let kept = trimmed % batches.len();
        index.trim(batches[kept].seq);
        let time_us = 1_000 + pick % (at / 3 + 2);
        let held = &batches[kept..];
        let expected = held.iter().find(|batch| batch.time_us >= time_us);
        let from = index.locate_time(time_us);
        prop_assert_eq!(from.is_some(), expected.is_some());
        let (Some(from), Some(expected)) = (from, expected) else { return Ok(()) };
        prop_assert!(from <= expected.seq, "it is not passed over");
        // What is looked at on the way: what is between two marks, however long the log is.
        let begin = index.locate(from).unwrap().0;
        prop_assert!(expected.index - begin <= MARK_INDEXES + 1500);
        let begin = batches.iter().find(|batch| batch.index == begin).unwrap();
        let between = batches.iter().filter(|b| b.seq >= begin.seq && b.seq < expected.seq);
        prop_assert!(between.clone().all(|batch| batch.index < begin.index + MARK_INDEXES));
    }
}

#[test]
fn without_times_everything_is_looked_at() {
    let old = |seq, at| Mark {
        time_us: 0,
        ..mark(seq, at)
    };
    let marks = vec![old(0, 1), old(10, 1_000), mark(20, 2_000)];
    let index = SeqIndex::from_parts(marks, Some(mark(20, 2_000)), 0).unwrap();
    assert_eq!(index.locate_time(1), Some(0));
    assert_eq!(index.locate_time(mark(20, 2_000).time_us), Some(0));
    assert_eq!(index.locate_time(mark(20, 2_000).time_us + 1), None);
}

#[test]
fn bytes_before_a_seq_are_those_before_its_mark() {
    let mut index = SeqIndex::default();
    assert_eq!(index.bytes_before(0), None);
    for at in 0..1_000 {
        index.push(mark(at, at + 1));
    }
    assert_eq!(index.bytes_before(0), Some(0));
    assert_eq!(index.bytes_before(511), Some(0));
    assert_eq!(index.bytes_before(512), Some(51_200));
    assert_eq!(index.bytes_before(998), Some(51_200));
    assert_eq!(index.bytes_before(999), Some(99_900));
}

proptest! {
    /// Thinned now and then, as when there are too many marks: nothing is lost, and what a reader looks at stays
    /// within the distance.
    #[test]
    fn a_thinned_index_finds_every_batch_once(
        steps in proptest::collection::vec((1u64..5, 1u64..1500), 1..300),
        thinned_every in 20usize..120,
        pick in 0usize..300,
        trimmed in 0usize..300,
    ) {
        let mut index = SeqIndex::default();
        let mut batches = Vec::new();
        let (mut seq, mut at, mut doublings) = (0, 0, 0);
        for (number, (records, gap)) in (1..).zip(steps) {
            at += gap;
            index.push(mark(seq, at));
            batches.push((seq, at));
            seq += records;
            if number % thinned_every == 0 {
                doublings += 1;
                index.thin(doublings);
            }
        }
        index.trim(batches[trimmed % batches.len()].0);
        let from = batches[(trimmed + pick) % batches.len()].0.max(batches[trimmed % batches.len()].0);
        let (found, looked) = walk(&batches, &index, from);
        let expected: Vec<u64> = batches.iter().filter(|b| b.0 >= from).map(|b| b.0).collect();
        prop_assert!(found.ends_with(&expected), "{found:?} {expected:?}");
        prop_assert!(found.windows(2).all(|w| w[0] < w[1]));
        prop_assert!(looked <= (expected.len() as u64 + 1) * index.reach());
        let pairs = index.mark_list().windows(2);
        prop_assert!(pairs.clone().all(|pair| pair[1].index - pair[0].index >= MARK_INDEXES << doublings));
        let parts = |doublings| {
            SeqIndex::from_parts(index.mark_list().to_vec(), index.last_batch(), doublings)
        };
        prop_assert_eq!(walk(&batches, &parts(doublings).unwrap(), from).0, found);
        prop_assert!(parts(DOUBLINGS_MAX + 1).is_none());
    }
}
