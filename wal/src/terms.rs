//! Which term each index has, as runs: the term at any index is known without reading entries.

use std::collections::VecDeque;

/// A run of entries of one term, up to the next run's first index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TermRun {
    /// Index of the first entry.
    pub first_index: u64,
    /// Its term.
    pub term: u64,
}

/// The runs of the entries held, and the term just before them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// In index order. The first run may start below the first index held: it then also names the term of
    /// the entry before.
    runs: VecDeque<TermRun>,
}

impl Terms {
    /// Nothing but the term of the entry at `index`, the one before the first.
    pub(crate) fn starting_after(index: u64, term: u64) -> Self {
        Self {
            runs: VecDeque::from([TermRun {
                first_index: index,
                term,
            }]),
        }
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, index: u64, term: u64) {
        if self.runs.back().is_none_or(|last| last.term != term) {
            self.runs.push_back(TermRun {
                first_index: index,
                term,
            });
        }
    }

    /// Forgets entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self
            .runs
            .back()
            .is_some_and(|last| last.first_index >= from)
        {
            self.runs.pop_back();
        }
    }

    /// Forgets entries below `before`, which itself stays known.
    pub(crate) fn forget_below(&mut self, before: u64) {
        while self
            .runs
            .get(1)
            .is_some_and(|second| second.first_index <= before)
        {
            self.runs.pop_front();
        }
        if let Some(first) = self.runs.front_mut() {
            first.first_index = first.first_index.max(before);
        }
    }

    /// The term at `index`; 0 before everything known.
    pub(crate) fn at(&self, index: u64) -> u64 {
        let after = self.runs.partition_point(|run| run.first_index <= index);
        after
            .checked_sub(1)
            .map_or(0, |position| self.runs[position].term)
    }

    /// The last entry's term; 0 for none.
    pub(crate) fn last(&self) -> u64 {
        self.runs.back().map_or(0, |run| run.term)
    }

    /// The runs in index order, clipped to `[first_index, ..)`.
    pub(crate) fn runs(&self, first_index: u64, next_index: u64) -> Vec<TermRun> {
        let mut runs: Vec<TermRun> = Vec::with_capacity(self.runs.len());
        for run in self.runs.iter().filter(|run| run.first_index < next_index) {
            let first = run.first_index.max(first_index);
            if runs.last().is_some_and(|last| last.first_index == first) {
                runs.pop();
            }
            if first < next_index {
                runs.push(TermRun {
                    first_index: first,
                    term: run.term,
                });
            }
        }
        runs
    }
}
