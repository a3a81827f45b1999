//! Where a log's records are in the group: a sparse map from seq, and from append time, to Raft index.
//!
//! A mark is kept for a batch only when the group moved on by [`MARK_INDEXES`] entries since the last
//! mark, or the log grew by [`MARK_BYTES`], so a reader scans at most that many headers to find a batch, and
//! a log that fills the group alone costs one mark in as many batches or bytes.
//!
//! In a group of very many logs nearly every batch gets a mark. So that what they take is bounded, the marks of all
//! logs are thinned when they are too many (`catalogue.rs`): both distances double, marks that are nearer than that to
//! the one before them go, and readers scan further.

use crate::raft::mutants::{Mutant, is_planted};

/// Entries of the group between two marks of a log at least.
const MARK_INDEXES: u64 = 512;

/// Bytes of a log between two marks of it at least, unless entries come first: what is given up by its size is
/// given up at marks.
const MARK_BYTES: u64 = 4 << 20;

/// How often the distances double at most: then they are beyond any log's length.
pub(super) const DOUBLINGS_MAX: u32 = 40;

/// Where a batch is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The seq of its first record.
    pub seq: u64,
    /// Its Raft index.
    pub index: u64,
    /// When it was appended, microseconds since 1970; 0 when that is not known, in what a version 1 snapshot held.
    pub time_us: u64,
    /// Bytes of all batches of the log before it.
    pub bytes_before: u64,
}

/// One log's marks, ascending in seq and index, and never running back in time and bytes.
#[derive(Clone, Debug, Default)]
pub struct SeqIndex {
    marks: Vec<Mark>,
    last: Option<Mark>,
    /// How often the distances between marks were doubled.
    doublings: u32,
}

impl SeqIndex {
    /// An index of no batches, whose distances are doubled so often.
    pub(super) fn doubled(doublings: u32) -> Self {
        Self {
            doublings,
            ..Self::default()
        }
    }

    /// Doubles the distances until they were doubled so often, and forgets the marks that are nearer.
    pub(super) fn thin(&mut self, doublings: u32) {
        self.doublings = doublings;
        let mut kept: Option<Mark> = None;
        self.marks.retain(|mark| {
            let is_kept = kept.is_none_or(|kept| is_far(&kept, mark, doublings));
            if is_kept {
                kept = Some(*mark);
            }
            is_kept
        });
        self.marks.shrink_to_fit();
    }

    /// Entries behind a mark in which all batches of the log are that come before the next mark. A batch without a
    /// mark was less than the distance of its time behind one; that one, if it went, less than a later distance behind
    /// another; and all of these distances together are less than twice the last.
    fn reach(&self) -> u64 {
        match self.doublings {
            0 => MARK_INDEXES,
            doublings => MARK_INDEXES << (doublings + 1),
        }
    }

    /// Records where the next batch is. Calls ascend.
    pub fn push(&mut self, batch: Mark) {
        debug_assert!(
            self.last
                .is_none_or(|last| last.seq < batch.seq && last.index < batch.index)
        );
        let doublings = self.doublings;
        let last = self.marks.last();
        if last.is_none_or(|mark| is_far(mark, &batch, doublings)) {
            self.marks.push(batch);
        }
        self.last = Some(batch);
    }

    /// The index range `[lo, hi)` to scan for the batch that holds `seq`: its first batch of this log
    /// begins at or before `seq`, and no batch of this log is in `[hi, ..)` before the next mark.
    /// `None` when the log has no batch.
    #[must_use]
    pub fn locate(&self, seq: u64) -> Option<(u64, u64)> {
        let last = self.last?;
        if seq >= last.seq {
            return Some((last.index, last.index + 1));
        }
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        let lo = self.marks.get(after.checked_sub(1)?)?.index;
        Some((lo, self.scan_end(after, lo, last.index)))
    }

    /// The seq to look from for the first batch appended at `time_us` or after it: no batch before it was, and it
    /// is found before the next mark, or is that. `None` when no batch held was appended as late.
    #[must_use]
    pub fn locate_time(&self, time_us: u64) -> Option<u64> {
        let last = self.last.filter(|last| last.time_us >= time_us)?;
        let mut later = self.marks.partition_point(|mark| mark.time_us < time_us);
        if is_planted(Mutant::SearchBehindMark) {
            later = (later + 1).min(self.marks.len());
        }
        let before = later.checked_sub(1).map(|at| self.marks[at]);
        // Of a mark without a time nothing follows for those before it, which have none either.
        let from = before.filter(|mark| mark.time_us > 0);
        let from = from.or(self.marks.first().copied()).unwrap_or(last);
        Some(from.seq)
    }

    /// Bytes of the batches that were there before the one that holds `seq`, or before the last mark that is not
    /// behind it; `None` when no batch is held.
    #[must_use]
    pub fn bytes_before(&self, seq: u64) -> Option<u64> {
        let last = self.last?;
        if seq >= last.seq {
            return Some(last.bytes_before);
        }
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        let mark = self.marks.get(after.saturating_sub(1))?;
        Some(mark.bytes_before)
    }

    /// The seq of the last mark with at most so many bytes before it.
    pub(super) fn mark_with_bytes_before(&self, bytes_max: u64) -> Option<u64> {
        let beyond = self
            .marks
            .partition_point(|mark| mark.bytes_before <= bytes_max);
        Some(self.marks.get(beyond.checked_sub(1)?)?.seq)
    }

    /// The seq of the last mark whose batch was appended at this time or before it: all before it were too.
    pub(super) fn mark_appended_by(&self, time_us: u64) -> Option<u64> {
        let later = self.marks.partition_point(|mark| mark.time_us <= time_us);
        Some(self.marks.get(later.checked_sub(1)?)?.seq)
    }

    /// The range to scan after everything below `index` was: from the first place at or above it where
    /// this log can have a batch. `None` when there is none yet.
    #[must_use]
    pub fn resume(&self, index: u64) -> Option<(u64, u64)> {
        let last = self.last?;
        if index > last.index {
            return None;
        }
        let after = self.marks.partition_point(|mark| mark.index <= index);
        let (lo, after) = match after.checked_sub(1).map(|at| self.marks[at].index) {
            Some(mark) if index < mark + self.reach() => (index, after),
            // Past the reach of the mark before: this log's next batch is the next mark, or the last.
            _ => match self.marks.get(after) {
                Some(mark) => (mark.index, after + 1),
                None => (last.index, after),
            },
        };
        Some((lo, self.scan_end(after, lo, last.index)))
    }

    /// A mark's reach ends before the next mark, after so many entries, or with the log.
    fn scan_end(&self, after: usize, lo: u64, last: u64) -> u64 {
        let next_mark = self.marks.get(after).map_or(u64::MAX, |mark| mark.index);
        let reach = self
            .marks
            .get(after.wrapping_sub(1))
            .map_or(lo, |mark| mark.index)
            + self.reach();
        next_mark.min(reach.max(lo + 1)).min(last + 1)
    }

    /// Forgets marks that no record from `first_seq` on needs.
    pub(super) fn trim(&mut self, first_seq: u64) {
        if let Some(last) = self.last.filter(|last| last.seq <= first_seq)
            && !is_planted(Mutant::TrimForgetsFirstBatch)
        {
            // It is the first one held from now on: what is needed never begins before it again, however
            // many batches follow, and the log may be compacted up to it.
            self.marks = vec![last];
            return;
        }
        let after = self.marks.partition_point(|mark| mark.seq <= first_seq);
        self.marks.drain(..after.saturating_sub(1));
    }

    /// The marks: what a snapshot holds, with [`Self::last_batch`].
    pub(super) fn mark_list(&self) -> &[Mark] {
        &self.marks
    }

    /// The last batch.
    pub(super) fn last_batch(&self) -> Option<Mark> {
        self.last
    }

    /// The index of these marks and this last batch, the distances doubled so often; `None` when they are no
    /// index's.
    pub(super) fn from_parts(marks: Vec<Mark>, last: Option<Mark>, doublings: u32) -> Option<Self> {
        let follows = |one: &Mark, other: &Mark| {
            one.seq < other.seq
                && one.index < other.index
                && one.time_us <= other.time_us
                && one.bytes_before <= other.bytes_before
        };
        let ascend = marks.windows(2).all(|pair| {
            follows(&pair[0], &pair[1]) && is_far(&pair[0], &pair[1], doublings.min(DOUBLINGS_MAX))
        });
        // As `reach` has it.
        let beyond = match doublings {
            0 => 0,
            doublings => doublings + 1,
        };
        let ends = match (marks.last(), last) {
            (None, None) => true,
            (Some(mark), Some(last)) => {
                *mark == last || (follows(mark, &last) && !is_far(mark, &last, beyond))
            }
            _ => false,
        };
        let is_index = doublings <= DOUBLINGS_MAX && ascend && ends;
        is_index.then_some(Self {
            marks,
            last,
            doublings,
        })
    }

    /// Marks held: what it costs, at 32 bytes each.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }
}

/// Whether a batch gets a mark of its own behind this one, when the distances were doubled so often.
fn is_far(mark: &Mark, batch: &Mark, doublings: u32) -> bool {
    mark.index.saturating_add(MARK_INDEXES << doublings) <= batch.index
        || mark.bytes_before.saturating_add(MARK_BYTES << doublings) <= batch.bytes_before
}

#[cfg(test)]
mod tests;
