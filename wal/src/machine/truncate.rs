//! Taking entries away: a suffix logically, a prefix by whole segments, everything by a reset.
//!
//! A suffix is never cut out of files: a later group says that it is gone, or supersedes it. What was on its
//! way stays on its way; only its durability no longer counts for the entries taken away.

use super::{Machine, PendingTruncation, QueuedGroup};
use crate::buffer::ClosedGroup;
use crate::error::ChangeError;
use crate::format::{BLOCK_BYTES, GroupKind};
use crate::mutants::{Mutant, is_planted};
use crate::terms::Terms;

impl Machine {
    pub(super) fn check_alive(&self) -> Result<(), ChangeError> {
        self.failure
            .as_ref()
            .map_or(Ok(()), |failure| Err(ChangeError::Failed(failure.clone())))
    }

    /// Drops entries from `from` on. `base_crc` is the checksum of entry `from - 1`.
    pub(crate) fn truncate_suffix(&mut self, from: u64, base_crc: u32) -> Result<(), ChangeError> {
        self.check_alive()?;
        let (lo, hi) = (self.first_index, self.next_index + 1);
        if !(lo..hi).contains(&from) {
            return Err(ChangeError::Index {
                lo,
                hi,
                found: from,
            });
        }
        if from == self.next_index {
            return Ok(());
        }
        self.close_group();
        if !self.plan.fits(BLOCK_BYTES, 0) && !self.space.may_roll(0) {
            return Err(ChangeError::NoSpace);
        }
        self.fence(from);
        self.durable_index = self.durable_index.min(from - 1);
        self.reported_index = self.reported_index.min(from - 1);
        // What was let go was let go of the old entries; the segments' ranges do not know of the cut yet.
        self.kept_index = self.kept_index.min(from);
        self.tail.truncate(from);
        self.terms.truncate(from);
        self.next_index = from;
        self.last_crc = base_crc;
        let base_term = self.terms.last();
        self.pending_truncation = Some(PendingTruncation {
            from,
            base_term,
            base_crc,
        });
        Ok(())
    }

    /// From now on, the durability of groups already on their way says nothing of entries from `from` on.
    fn fence(&mut self, from: u64) {
        if is_planted(Mutant::TruncationNotFenced) {
            return;
        }
        for group in &mut self.queue {
            group.visible_end = group.visible_end.min(from);
        }
        for flight in &mut self.flights {
            flight.visible_end = flight.visible_end.min(from);
        }
    }

    /// Drops all entries; the log goes on at `next_index`, after an entry of `term` and `crc`.
    pub(crate) fn reset(
        &mut self,
        next_index: u64,
        term: u64,
        crc: u32,
    ) -> Result<(), ChangeError> {
        self.check_alive()?;
        if next_index == 0 || next_index == u64::MAX {
            return Err(ChangeError::Index {
                lo: 1,
                hi: u64::MAX,
                found: next_index,
            });
        }
        self.close_group();
        if !self.plan.fits(BLOCK_BYTES, 0) && !self.space.may_roll(0) {
            return Err(ChangeError::NoSpace);
        }
        self.fence(0);
        self.pending_truncation = None;
        self.durable_index = 0;
        self.reported_index = 0;
        self.tail.reset(next_index);
        self.terms = Terms::starting_after(next_index - 1, term);
        self.next_index = next_index;
        self.first_index = next_index;
        self.last_crc = crc;
        self.kept_index = next_index;
        self.queue_marker(
            GroupKind::Reset,
            PendingTruncation {
                from: next_index,
                base_term: term,
                base_crc: crc,
            },
        );
        Ok(())
    }

    /// Queues the group that records the pending truncation, if no group after it does.
    pub(super) fn record_truncation(&mut self) {
        if let Some(pending) = self.pending_truncation.take() {
            self.queue_marker(GroupKind::Truncate, pending);
        }
    }

    fn queue_marker(&mut self, kind: GroupKind, mark: PendingTruncation) {
        let roll_before = !self.plan.fits(BLOCK_BYTES, 0);
        if roll_before {
            self.plan_roll();
        }
        self.plan.offset += BLOCK_BYTES as u64;
        let mut plan = self.group_plan(roll_before);
        plan.base_term = mark.base_term;
        plan.base_crc = mark.base_crc;
        plan.cuts = true;
        self.queue.push_back(QueuedGroup {
            kind,
            closed: ClosedGroup::around(&[]),
            first_index: mark.from,
            batch_count: 0,
            term: mark.base_term,
            payload_bytes: 0,
            payload_crc: mark.base_crc,
            visible_end: mark.from,
            plan,
        });
    }

    /// Lets whole segments go whose entries are all below `first_index_kept`.
    pub(crate) fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), ChangeError> {
        self.check_alive()?;
        let (lo, hi) = (1, self.next_index + 1);
        if !(lo..hi).contains(&first_index_kept) {
            return Err(ChangeError::Index {
                lo,
                hi,
                found: first_index_kept,
            });
        }
        self.kept_index = self.kept_index.max(first_index_kept);
        self.trim();
        Ok(())
    }

    fn has_cuts_under_way(&self) -> bool {
        self.pending_truncation.is_some()
            || self.open.as_ref().is_some_and(|open| open.plan.cuts)
            || self.queue.iter().any(|group| group.plan.cuts)
            || self.flights.iter().any(|flight| flight.cuts)
    }

    /// Retires segments at the front that hold nothing to keep. While a truncation is not durable yet nothing
    /// is retired: after a crash the entries that it took away would be the log again.
    pub(super) fn trim(&mut self) {
        let leaving = self.segments_to_leave();
        if leaving == 0 || self.has_cuts_under_way() {
            return;
        }
        for _ in 0..leaving {
            let segment = self.segments.pop_front().expect("there are two");
            self.first_index = self.first_index.max(segment.hi);
            self.space.let_go(segment);
        }
        self.terms.forget_below(self.first_index - 1);
        self.meta
            .want_first_segment(self.segments[0].name.segment_seq);
    }

    /// How many segments at the front hold nothing to keep. The one that is first then must not begin
    /// below what its header says: a cut into the segment before it is recorded in its groups, and the term
    /// of the entry before the cut only in that other segment.
    fn segments_to_leave(&self) -> usize {
        let kept_index = self.kept_index;
        let empty = self
            .segments
            .iter()
            .take_while(|segment| segment.hi <= kept_index);
        let count = empty.count().min(self.segments.len() - 1);
        let may_be_first = |position: &usize| {
            let segment = &self.segments[*position];
            segment.has_reset
                || segment.lo >= segment.name.first_index
                || is_planted(Mutant::TrimBehindCut)
        };
        (1..=count).rev().find(may_be_first).unwrap_or(0)
    }
}
