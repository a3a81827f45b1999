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
        let copy = SeqIndex::from_parts(index.mark_list().to_vec(), index.last_batch(), Vec::new(), 0).unwrap();
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
            SeqIndex::from_parts(marks.clone(), last, Vec::new(), 0).is_none(),
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
    assert!(SeqIndex::from_parts(marks, index.last_batch(), Vec::new(), 0).is_some());
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
        assert!(SeqIndex::from_parts(vec![first, bad], Some(bad), Vec::new(), 0).is_none());
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
    let index = SeqIndex::from_parts(marks, Some(mark(20, 2_000)), Vec::new(), 0).unwrap();
    assert_eq!(index.locate_time(1), Some(0));
    assert_eq!(index.locate_time(mark(20, 2_000).time_us), Some(0));
    assert_eq!(index.locate_time(mark(20, 2_000).time_us + 1), None);
}

#[test]
fn bytes_before_a_seq_are_those_before_its_mark() {
    let mut index = SeqIndex::default();
    assert_eq!(index.bytes_before(0, 1 << 30), None);
    for at in 0..1_000 {
        index.push(mark(at, at + 1));
    }
    assert_eq!(index.bytes_before(0, 1 << 30), Some(0));
    assert_eq!(index.bytes_before(511, 1 << 30), Some(0));
    assert_eq!(index.bytes_before(512, 1 << 30), Some(51_200));
    assert_eq!(index.bytes_before(998, 1 << 30), Some(51_200));
    assert_eq!(index.bytes_before(999, 1 << 30), Some(99_900));
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
            SeqIndex::from_parts(index.mark_list().to_vec(), index.last_batch(), Vec::new(), doublings)
        };
        prop_assert_eq!(walk(&batches, &parts(doublings).unwrap(), from).0, found);
        prop_assert!(parts(DOUBLINGS_MAX + 1).is_none());
    }
}

/// An index and what it is of, with batches carried over as a leader would, or not quite.
#[derive(Clone, Debug)]
enum Change {
    /// Batches of so many records, so many entries apart.
    Append(Vec<(u64, u64)>),
    /// Everything up to a fraction of the entries is carried over, as planned, so many batches later.
    Carry(u64, u64),
    /// So many batches from one on are carried over.
    CarryAnyhow(usize, usize),
    /// Up to a fraction of what is held is trimmed.
    Trim(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        proptest::collection::vec((1u64..4, 1u64..900), 1..30).prop_map(Change::Append),
        (0u64..=100, 0u64..4).prop_map(|(percent, late)| Change::Carry(percent, late)),
        (0usize..60, 1usize..20).prop_map(|(from, count)| Change::CarryAnyhow(from, count)),
        (0u64..=100).prop_map(Change::Trim),
    ]
}

/// A batch, and the entries that hold it.
#[derive(Clone, Debug)]
struct Held {
    seq: u64,
    next_seq: u64,
    entries: Vec<u64>,
}

/// What an entry carries that holds the batches of these seqs.
fn part(batches: &[Held], seq: u64, next_seq: u64) -> CarriedPart {
    let held = batches
        .iter()
        .filter(|it| it.seq >= seq && it.next_seq <= next_seq);
    let times: Vec<u64> = held.map(|it| mark(0, it.entries[0]).time_us).collect();
    CarriedPart {
        seq,
        next_seq,
        first_time_us: times[0],
        last_time_us: times[times.len() - 1],
        bytes: 100 * (next_seq - seq),
    }
}

proptest::proptest! {
    #[test]
    fn what_was_carried_over_is_found_where_it_is_and_holds_nothing_back(
        changes in proptest::collection::vec(change(), 1..40),
    ) {
        let mut index = SeqIndex::default();
        let mut batches: Vec<Held> = Vec::new();
        let (mut first_seq, mut next_seq, mut at) = (0, 0, 1);
        // What was said not to be needed any more is never needed again.
        let mut freed = 0;
        for change in changes {
            match change {
                Change::Append(steps) => for (records, gap) in steps {
                    at += gap;
                    index.push(mark(next_seq, at));
                    batches.push(Held { seq: next_seq, next_seq: next_seq + records, entries: vec![at] });
                    next_seq += records;
                },
                Change::Carry(percent, late) if first_seq < next_seq => {
                    let limit = at * percent / 100;
                    let before = index.first_index_needed(first_seq, next_seq);
                    let planned = index.needed_up_to(limit, first_seq, next_seq);
                    prop_assert_eq!(planned.is_none(), before > limit, "{:?} {} {}", planned, before, limit);
                    let Some((from, to)) = planned else { continue };
                    for _ in 0..late {
                        at += 7;
                        index.push(mark(next_seq, at));
                        let (seq, entries) = (next_seq, vec![at]);
                        next_seq += 2;
                        batches.push(Held { seq, next_seq, entries });
                    }
                    at += 1;
                    let from = batches.iter().find(|it| it.next_seq > from).unwrap().seq;
                    index.carry(at, &part(&batches, from, to), first_seq);
                    for it in batches.iter_mut().filter(|it| it.seq >= from && it.seq < to) {
                        prop_assert!(it.next_seq <= to, "a plan ends with a batch");
                        it.entries.push(at);
                    }
                    let after = index.first_index_needed(first_seq, next_seq);
                    prop_assert!(after > limit || late > 0, "{} is needed, up to {} was to be freed", after, limit);
                },
                Change::CarryAnyhow(from, count) => {
                    let some: Vec<&Held> = batches.iter().skip(from).take(count).collect();
                    let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
                    at += 1;
                    index.carry(at, &part(&batches, first.seq, last.next_seq), first_seq);
                    for it in batches.iter_mut().skip(from).take(count) {
                        it.entries.push(at);
                    }
                },
                Change::Trim(percent) => {
                    first_seq += (next_seq - first_seq) * percent / 100;
                    if first_seq == next_seq {
                        index = SeqIndex::default();
                    } else {
                        index.trim(first_seq);
                    }
                    batches.retain(|it| it.next_seq > first_seq);
                },
                Change::Carry(..) => {},
            }
            let needed = match first_seq < next_seq {
                true => index.first_index_needed(first_seq, next_seq),
                false => u64::MAX,
            };
            prop_assert!(needed >= freed, "{needed} is needed, {freed} was");
            freed = needed.min(at);
            for it in &batches {
                let (lo, hi) = index.locate(it.seq).unwrap();
                if index.is_carried(it.seq) {
                    prop_assert!(hi == lo + 1 && it.entries.contains(&lo), "{it:?} at {lo}");
                } else {
                    prop_assert!(lo <= it.entries[0] && needed <= it.entries[0], "{it:?} at {lo} {needed}");
                }
                prop_assert!(lo >= needed || !index.is_carried(it.seq));
            }
            let time_of = |it: &Held| mark(0, it.entries[0]).time_us;
            for it in &batches {
                let time_us = time_of(it);
                let first = batches.iter().find(|other| time_of(other) >= time_us).unwrap();
                let from = index.locate_time(time_us).unwrap();
                prop_assert!(from <= first.seq, "{time_us} from {from}, it is {first:?}");
                if let Some(by) = index.mark_appended_by(time_us) {
                    let mut before = batches.iter().filter(|other| other.next_seq <= by);
                    prop_assert!(before.all(|other| time_of(other) <= time_us), "{by} by {time_us}");
                }
                for spare in [100 * it.seq, 100 * it.seq + 50, 100 * it.next_seq] {
                    let place = index.place_with_bytes_before(spare, 100 * next_seq);
                    prop_assert!(place.is_none_or(|place| 100 * place <= spare), "{place:?} {spare}");
                }
                let before = index.bytes_before(it.seq, 100 * next_seq).unwrap();
                prop_assert!(before <= 100 * it.seq || index.is_carried(it.seq));
            }
            let copy = SeqIndex::from_parts(
                index.mark_list().to_vec(),
                index.last_batch(),
                index.carried().to_vec(),
                0,
            );
            prop_assert!(copy.is_some(), "{index:?}");
        }
    }
}
