//! The log as the core sees it: term runs between a first and a last index, and how far it is durable.

use super::marks::{Mark, mark};
use super::mutants::{Mutant, is_planted};
use super::types::{EntryId, TermRun};
use alloc::vec::Vec;

/// Invariants: runs ascend in index and term, the first one starts at `first_index`, none starts
/// after `last_index`; there is a run exactly if `first_index <= last_index`;
/// `first_index - 1 <= durable_index <= last_index`.
pub(super) struct Log {
    first_index: u64,
    /// Term of entry `first_index - 1`.
    prev_term: u64,
    runs: Vec<TermRun>,
    last_index: u64,
    durable_index: u64,
    truncation_count: u64,
}

impl Log {
    /// The caller has validated the parts; all of them are durable.
    pub(super) fn restore(
        first_index: u64,
        prev_term: u64,
        runs: Vec<TermRun>,
        last_index: u64,
    ) -> Log {
        Log {
            first_index,
            prev_term,
            runs,
            last_index,
            durable_index: last_index,
            truncation_count: 0,
        }
    }

    pub(super) fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The entry before the first one held.
    pub(super) fn prev(&self) -> EntryId {
        EntryId {
            term: self.prev_term,
            index: self.first_index - 1,
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.last_index
    }

    pub(super) fn last(&self) -> EntryId {
        let term = self.runs.last().map_or(self.prev_term, |run| run.term);
        EntryId {
            term,
            index: self.last_index,
        }
    }

    pub(super) fn durable_index(&self) -> u64 {
        self.durable_index
    }

    pub(super) fn truncation_count(&self) -> u64 {
        self.truncation_count
    }

    pub(super) fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    /// Term of a held entry or of the one before the first; `None` outside.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index > self.last_index || index + 1 < self.first_index {
            return None;
        }
        if index + 1 == self.first_index {
            return Some(self.prev_term);
        }
        let newest = self
            .runs
            .last()
            .expect("an entry between first and last has a run");
        if index >= newest.first_index {
            return Some(newest.term);
        }
        let after = self.runs.partition_point(|run| run.first_index <= index);
        Some(self.runs[after - 1].term)
    }

    /// Appends one entry and returns its index.
    pub(super) fn append(&mut self, term: u64) -> u64 {
        let last_term = self.last().term;
        assert!(
            term >= last_term && term > 0,
            "terms in a log do not go back"
        );
        self.last_index += 1;
        if self.runs.is_empty() || term > last_term {
            self.runs.push(TermRun {
                first_index: self.last_index,
                term,
            });
        }
        self.last_index
    }

    /// Drops entries from `index` on.
    pub(super) fn truncate_from(&mut self, index: u64) {
        assert!(
            index >= self.first_index && index <= self.last_index,
            "truncates held entries"
        );
        while self.runs.last().is_some_and(|run| run.first_index >= index) {
            self.runs.pop();
        }
        self.last_index = index - 1;
        self.durable_index = self.durable_index.min(self.last_index);
        self.truncation_count += 1;
    }

    /// Drops entries before `first_index`.
    pub(super) fn compact(&mut self, first_index: u64) {
        if first_index <= self.first_index {
            return;
        }
        let prev_term = self
            .term_at(first_index - 1)
            .expect("compacts held entries only");
        let after = self
            .runs
            .partition_point(|run| run.first_index <= first_index);
        // The run that contains `first_index` stays, cut to start there.
        self.runs.drain(..after.saturating_sub(1));
        if first_index > self.last_index {
            self.runs.clear();
        } else {
            self.runs[0].first_index = first_index;
        }
        self.first_index = first_index;
        self.prev_term = prev_term;
    }

    /// Forgets all entries; the log goes on after `last`, which is durable elsewhere.
    pub(super) fn reset(&mut self, last: EntryId) {
        self.first_index = last.index + 1;
        self.prev_term = last.term;
        self.runs.clear();
        self.last_index = last.index;
        self.durable_index = last.index;
        self.truncation_count += 1;
    }

    /// Takes note of a flush. Returns whether the durable prefix grew.
    ///
    /// A flush of an entry that was replaced since says nothing about what is there now.
    pub(super) fn flushed(&mut self, id: EntryId) -> bool {
        let replaced = self.term_at(id.index) != Some(id.term)
            && !(is_planted(Mutant::FlushOfTruncatedCounted) && id.index <= self.last_index);
        if replaced {
            mark(Mark::StaleFlush);
        }
        if id.index <= self.durable_index || replaced {
            return false;
        }
        self.durable_index = id.index;
        true
    }

    /// The last entry at or below `index` whose term is not above `term`.
    ///
    /// Any entry on which a log that has `term` at `index` can agree is at or below it, so a probe
    /// skips a term at a time. Below the held entries the index comes back as it is, term 0.
    pub(super) fn last_not_above(&self, index: u64, term: u64) -> EntryId {
        let mut index = index.min(self.last_index);
        for run in self.runs.iter().rev() {
            if run.first_index > index {
                continue;
            }
            if run.term <= term {
                return EntryId {
                    term: run.term,
                    index,
                };
            }
            index = run.first_index - 1;
        }
        let prev = self.prev();
        if index == prev.index && prev.term <= term {
            return prev;
        }
        EntryId {
            term: 0,
            index: index.min(prev.index.saturating_sub(1)),
        }
    }
}
