//! Where a log's records are in the group: a sparse map from seq, and from append time, to Raft index.
//!
//! A mark is kept for a batch only when the group moved on by [`MARK_INDEXES`] entries since the last
//! mark, or the log grew by [`MARK_BYTES`], so a reader scans at most that many headers to find a batch, and
//! a log that fills the group alone costs one mark in as many batches or bytes.
//!
//! In a group of very many logs nearly every batch gets a mark. So that what they take is bounded, the marks of all
//! logs are thinned when they are too many (`catalogue.rs`): both distances double, marks that are nearer than that to
//! the one before them go, and readers scan further.
//!
//! The oldest batches of a log may have been carried over (`carry.rs`): a later entry holds them again, and the entries
//! in which they were may be gone. For these it is known which entry has which seqs.

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

/// Batches, one after the other, that were carried over by one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Carried {
    /// The seq of their first record.
    pub seq: u64,
    /// The seq after their last one.
    pub next_seq: u64,
    /// The Raft index of the entry that carries them.
    pub index: u64,
    /// No batch before them was appended later than this, microseconds since 1970, and none of them before it.
    pub time_us: u64,
    /// Bytes that they are at least: exactly, unless others were carried on without them.
    pub bytes: u64,
}

/// What an entry carries of one log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct CarriedPart {
    pub seq: u64,
    pub next_seq: u64,
    /// When the first and the last of the batches were appended.
    pub first_time_us: u64,
    pub last_time_us: u64,
    pub bytes: u64,
}

/// One log's marks, ascending in seq and index, and never running back in time and bytes.
#[derive(Clone, Debug, Default)]
pub struct SeqIndex {
    /// What was carried over: each where the one before it ends, in any order of indexes. Invariant: marks are of
    /// batches behind them, but for the first one, which may be of a batch among them, and `last` may be one of them.
    carried: Vec<Carried>,
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
        if let Some(carried) = self.carried_at(seq) {
            return Some((carried.index, carried.index + 1));
        }
        let last = self.last?;
        if seq >= last.seq {
            return Some((last.index, last.index + 1));
        }
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        let lo = self.marks.get(after.checked_sub(1)?)?.index;
        Some((lo, self.scan_end(after, lo, last.index)))
    }

    /// Whether the batch that holds `seq` was carried over: it is in the one entry that [`Self::locate`] says, and what
    /// follows is to be located anew.
    #[must_use]
    pub fn is_carried(&self, seq: u64) -> bool {
        self.carried_at(seq).is_some()
    }

    fn carried_at(&self, seq: u64) -> Option<&Carried> {
        let at = self.carried.partition_point(|it| it.next_seq <= seq);
        self.carried.get(at)
    }

    /// The seq behind what was carried over; `None` when nothing was.
    fn carried_end(&self) -> Option<u64> {
        self.carried.last().map(|carried| carried.next_seq)
    }

    /// No entry below it is needed for the records from `first_seq` on, of which there is one, up to `next_seq`.
    pub(super) fn first_index_needed(&self, first_seq: u64, next_seq: u64) -> u64 {
        let held = self.carried.iter().filter(|it| it.next_seq > first_seq);
        let carried = held.map(|it| it.index).min();
        let carried = carried.filter(|_| !is_planted(Mutant::CarriedNotNeeded));
        let carried = carried.unwrap_or(u64::MAX);
        let rest = self.carried_end().unwrap_or(first_seq).max(first_seq);
        if rest >= next_seq {
            return carried;
        }
        // Without a mark nothing is known, and everything is needed.
        carried.min(self.locate(rest).map_or(0, |range| range.0))
    }

    /// The seqs whose entries are to be carried over so that none of the entries up to `limit` is needed for the
    /// records from `first_seq` on, up to `next_seq`; they end before a mark, or with the log. `None` when none is
    /// needed already.
    pub(super) fn needed_up_to(
        &self,
        limit: u64,
        first_seq: u64,
        next_seq: u64,
    ) -> Option<(u64, u64)> {
        let low = |it: &&Carried| it.next_seq > first_seq && it.index <= limit;
        let mut lows = self.carried.iter().filter(low);
        let (from, to) = match (lows.next(), lows.next_back()) {
            (Some(first), Some(last)) => (Some(first.seq), last.next_seq),
            (Some(only), None) => (Some(only.seq), only.next_seq),
            (None, _) => (None, 0),
        };
        let rest = self.carried_end().unwrap_or(first_seq).max(first_seq);
        let is_rest_low = rest < next_seq && self.locate(rest).is_none_or(|range| range.0 <= limit);
        if is_rest_low {
            let beyond = self.marks.partition_point(|mark| mark.index <= limit);
            let to = self.marks.get(beyond).map_or(next_seq, |mark| mark.seq);
            return Some((from.unwrap_or(rest).max(first_seq), to));
        }
        from.map(|from| (from.max(first_seq), to))
    }

    /// The entry at `index`, which is committed, holds these batches again: nothing changes unless they reach from what
    /// is carried, or from `held_from`, the first seq that is held. All replicas do the same.
    pub(super) fn carry(&mut self, index: u64, part: &CarriedPart, held_from: u64) {
        let (seq, next_seq) = (part.seq, part.next_seq);
        let begin = self.carried.first().map_or(held_from, |it| it.seq);
        let end = self.carried_end().unwrap_or(held_from);
        let is_beyond = self.last.is_none_or(|last| last.seq < seq);
        if is_beyond || next_seq <= held_from || seq > end || next_seq < begin {
            return;
        }
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        for it in &self.carried {
            // Of two that are left of one it is not known how its bytes divide.
            let bytes = match it.seq < seq && it.next_seq > next_seq {
                true => 0,
                false => it.bytes.saturating_sub(part.bytes),
            };
            if it.next_seq <= seq {
                before.push(*it);
            } else if it.seq < seq {
                let next_seq = seq;
                before.push(Carried {
                    next_seq,
                    bytes,
                    ..*it
                });
            }
            if it.seq >= next_seq {
                behind.push(*it);
            } else if it.next_seq > next_seq {
                behind.push(Carried {
                    seq: next_seq,
                    bytes,
                    time_us: match is_planted(Mutant::CarriedTimeTooEarly) {
                        true => it.time_us,
                        false => part.last_time_us,
                    },
                    ..*it
                });
            }
        }
        before.push(Carried {
            seq,
            next_seq,
            index,
            time_us: part.first_time_us,
            bytes: part.bytes,
        });
        before.append(&mut behind);
        self.carried = before;
        self.forget_marks_of_carried();
    }

    /// Forgets the marks of batches that are carried, but for one that those behind them need.
    fn forget_marks_of_carried(&mut self) {
        let Some((end, last)) = self.carried_end().zip(self.last) else {
            return;
        };
        if last.seq < end {
            self.marks.clear();
            return;
        }
        if last.seq == end {
            // As in a trim: what is needed never begins before it again, however many batches follow.
            self.marks = vec![last];
            return;
        }
        let after = self.marks.partition_point(|mark| mark.seq <= end);
        self.marks.drain(..after.saturating_sub(1));
    }

    /// The seq to look from for the first batch appended at `time_us` or after it: no batch before it was, and it
    /// is found before the next mark, or is that. `None` when no batch held was appended as late.
    #[must_use]
    pub fn locate_time(&self, time_us: u64) -> Option<u64> {
        let last = self.last.filter(|last| last.time_us >= time_us)?;
        let is_mark_early = self
            .marks
            .first()
            .is_some_and(|mark| mark.time_us < time_us);
        if !is_mark_early && let Some(first) = self.carried.first() {
            let later = self.carried.partition_point(|it| it.time_us < time_us);
            let before = later.checked_sub(1).map(|at| self.carried[at].seq);
            return Some(before.unwrap_or(first.seq));
        }
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
    /// behind it; of what was carried over, as many or more. `total` are those of all batches there ever were. `None`
    /// when no batch is held.
    #[must_use]
    pub fn bytes_before(&self, seq: u64, total: u64) -> Option<u64> {
        if self.is_carried(seq) {
            let carried = self.carried_bytes_before(total);
            return carried
                .take_while(|(it, _)| it.next_seq > seq)
                .map(|it| it.1)
                .last();
        }
        let last = self.last?;
        if seq >= last.seq {
            return Some(last.bytes_before);
        }
        let after = self.marks.partition_point(|mark| mark.seq <= seq);
        let mark = self.marks.get(after.saturating_sub(1))?;
        Some(mark.bytes_before)
    }

    /// What was carried over, the last first, and the bytes before it at most.
    fn carried_bytes_before(&self, total: u64) -> impl Iterator<Item = (&Carried, u64)> {
        let end = self.carried_end().unwrap_or(0);
        let behind = self.marks.iter().find(|mark| mark.seq >= end);
        let mut before = behind.map_or(total, |mark| mark.bytes_before);
        self.carried.iter().rev().map(move |it| {
            before = before.saturating_sub(it.bytes);
            (it, before)
        })
    }

    /// The seq of the last place with at most so many bytes before it, of the `total` that there ever were.
    pub(super) fn place_with_bytes_before(&self, bytes_max: u64, total: u64) -> Option<u64> {
        let beyond = self
            .marks
            .partition_point(|mark| mark.bytes_before <= bytes_max);
        let mark = beyond.checked_sub(1).map(|at| self.marks[at].seq);
        let mut carried = self.carried_bytes_before(total);
        let carried = carried.find(|(_, before)| *before <= bytes_max);
        mark.max(carried.map(|(it, _)| it.seq))
    }

    /// The seq of the last mark whose batch was appended at this time or before it: all before it were too.
    pub(super) fn mark_appended_by(&self, time_us: u64) -> Option<u64> {
        let later = self.marks.partition_point(|mark| mark.time_us <= time_us);
        let mark = later.checked_sub(1).map(|at| self.marks[at].seq);
        let later = self.carried.partition_point(|it| it.time_us <= time_us);
        let carried = later.checked_sub(1).map(|at| self.carried[at].seq);
        mark.max(carried)
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
        self.carried.retain(|it| it.next_seq > first_seq);
        if self.carried_end() > self.last.map(|last| last.seq) {
            return;
        }
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

    /// What was carried over.
    pub(super) fn carried(&self) -> &[Carried] {
        &self.carried
    }

    /// The index of these marks, this last batch, and what was carried over, the distances doubled so often; `None`
    /// when they are no index's.
    pub(super) fn from_parts(
        marks: Vec<Mark>,
        last: Option<Mark>,
        carried: Vec<Carried>,
        doublings: u32,
    ) -> Option<Self> {
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
        let is_one_after_other = carried
            .windows(2)
            .all(|pair| pair[0].next_seq == pair[1].seq && pair[0].time_us <= pair[1].time_us);
        let has_seqs = |it: &Carried| it.seq < it.next_seq && it.index > 0;
        let carried_end = carried.last().map(|it| it.next_seq);
        let is_carried = carried.iter().all(has_seqs)
            && is_one_after_other
            && carried_end.is_none_or(|end| {
                let is_last_behind = last.is_some_and(|last| last.seq >= end);
                match marks.len() {
                    0 => last.is_some(),
                    1 => is_last_behind,
                    _ => is_last_behind && marks[1].seq > end,
                }
            });
        let ends = match (marks.last(), last) {
            (None, None) => true,
            (None, Some(last)) => carried_end.is_some_and(|end| last.seq < end),
            (Some(mark), Some(last)) => {
                *mark == last || (follows(mark, &last) && !is_far(mark, &last, beyond))
            }
            _ => false,
        };
        let is_index = doublings <= DOUBLINGS_MAX && ascend && ends && is_carried;
        is_index.then_some(Self {
            carried,
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
