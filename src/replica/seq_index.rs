//! Where a log's records are in the group: a sparse map from seq to Raft index.
//!
//! A mark is kept for a batch only when the group moved on by [`MARK_INDEXES`] entries since the last
//! mark, so a reader scans at most that many headers to find a batch, and a log that fills the group
//! alone costs one mark in as many batches.

use crate::raft::mutants::{Mutant, is_planted};

/// Entries of the group between two marks of a log at least.
const MARK_INDEXES: u64 = 512;

/// One log's marks, ascending in seq and index.
#[derive(Clone, Debug, Default)]
pub struct SeqIndex {
    marks: Vec<(u64, u64)>,
    last: Option<(u64, u64)>,
}

impl SeqIndex {
    /// Records that the batch at `index` begins at `first_seq`. Calls ascend.
    pub fn push(&mut self, first_seq: u64, index: u64) {
        debug_assert!(
            self.last
                .is_none_or(|last| last.0 < first_seq && last.1 < index)
        );
        if self
            .marks
            .last()
            .is_none_or(|mark| mark.1 + MARK_INDEXES <= index)
        {
            self.marks.push((first_seq, index));
        }
        self.last = Some((first_seq, index));
    }

    /// The index range `[lo, hi)` to scan for the batch that holds `seq`: its first batch of this log
    /// begins at or before `seq`, and no batch of this log is in `[hi, ..)` before the next mark.
    /// `None` when the log has no batch.
    #[must_use]
    pub fn locate(&self, seq: u64) -> Option<(u64, u64)> {
        let last = self.last?;
        if seq >= last.0 {
            return Some((last.1, last.1 + 1));
        }
        let after = self.marks.partition_point(|mark| mark.0 <= seq);
        let lo = self.marks.get(after.checked_sub(1)?)?.1;
        Some((lo, self.scan_end(after, lo, last.1)))
    }

    /// The range to scan after everything below `index` was: from the first place at or above it where
    /// this log can have a batch. `None` when there is none yet.
    #[must_use]
    pub fn resume(&self, index: u64) -> Option<(u64, u64)> {
        let last = self.last?;
        if index > last.1 {
            return None;
        }
        let after = self.marks.partition_point(|mark| mark.1 <= index);
        let (lo, after) = match after.checked_sub(1).map(|at| self.marks[at].1) {
            Some(mark) if index < mark + MARK_INDEXES => (index, after),
            // Past the reach of the mark before: this log's next batch is the next mark, or the last.
            _ => match self.marks.get(after) {
                Some(mark) => (mark.1, after + 1),
                None => (last.1, after),
            },
        };
        Some((lo, self.scan_end(after, lo, last.1)))
    }

    /// A mark's reach ends before the next mark, after [`MARK_INDEXES`] entries, or with the log.
    fn scan_end(&self, after: usize, lo: u64, last: u64) -> u64 {
        let next_mark = self.marks.get(after).map_or(u64::MAX, |mark| mark.1);
        let reach = self
            .marks
            .get(after.wrapping_sub(1))
            .map_or(lo, |mark| mark.1)
            + MARK_INDEXES;
        next_mark.min(reach.max(lo + 1)).min(last + 1)
    }

    /// Forgets marks that no record from `first_seq` on needs.
    pub(super) fn trim(&mut self, first_seq: u64) {
        if let Some(last) = self.last.filter(|last| last.0 <= first_seq)
            && !is_planted(Mutant::TrimForgetsFirstBatch)
        {
            // It is the first one held from now on: what is needed never begins before it again, however
            // many batches follow, and the log may be compacted up to it.
            self.marks = vec![last];
            return;
        }
        let after = self.marks.partition_point(|mark| mark.0 <= first_seq);
        self.marks.drain(..after.saturating_sub(1));
    }

    /// Seq and index of each mark: what a snapshot holds, with [`Self::last_batch`].
    pub(super) fn mark_list(&self) -> &[(u64, u64)] {
        &self.marks
    }

    /// Seq and index of the last batch.
    pub(super) fn last_batch(&self) -> Option<(u64, u64)> {
        self.last
    }

    /// The index of these marks and this last batch; `None` when they are no index's.
    pub(super) fn from_parts(marks: Vec<(u64, u64)>, last: Option<(u64, u64)>) -> Option<Self> {
        let ascend = marks.windows(2).all(|pair| {
            pair[0].0 < pair[1].0 && pair[0].1.saturating_add(MARK_INDEXES) <= pair[1].1
        });
        let ends = match (marks.last(), last) {
            (None, None) => true,
            (Some(mark), Some(last)) => {
                *mark == last
                    || (mark.0 < last.0
                        && mark.1 < last.1
                        && last.1 < mark.1.saturating_add(MARK_INDEXES))
            }
            _ => false,
        };
        (ascend && ends).then_some(Self { marks, last })
    }

    /// Marks held: what it costs, at 16 bytes each.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
                index.push(seq, at);
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
                index.push(seq, at);
                batches.push((seq, at));
                seq += records;
            }
            let kept = pick % batches.len();
            index.trim(batches[kept].0);
            let (found, _) = walk(&batches, &index, batches[kept].0);
            let expected: Vec<u64> = batches[kept..].iter().map(|b| b.0).collect();
            prop_assert!(found.ends_with(&expected), "{found:?} {expected:?}");
            let copy = SeqIndex::from_parts(index.mark_list().to_vec(), index.last_batch()).unwrap();
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
            assert!(
                SeqIndex::from_parts(marks.clone(), last).is_none(),
                "{marks:?} {last:?}"
            );
        }
    }

    #[test]
    fn what_is_needed_never_moves_back_when_batches_follow_a_trim() {
        let mut index = SeqIndex::default();
        for at in 0..40 {
            index.push(at * 10, 100 + at);
        }
        index.trim(395);
        assert_eq!(index.locate(395), Some((139, 140)));
        index.push(400, 150);
        assert_eq!(index.locate(395).unwrap().0, 139);
        let marks = index.mark_list().to_vec();
        assert!(SeqIndex::from_parts(marks, index.last_batch()).is_some());
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
            index.push(at, at + 1);
        }
        assert_eq!(index.marks(), 10);
    }
}
