//! The entries that are in the log and not yet applied, and who waits for them.

use std::collections::{BTreeMap, VecDeque};

use drave_batch::{BatchHeader, EntryKind};

use super::ReplyTo;
use crate::raft::mutants::{Mutant, is_planted};

/// What applying an entry needs. What can be derived is not kept: a restarted node holds one of these for
/// each entry after the commit index it remembers.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingEntry {
    pub log_id: u64,
    pub producer_id: u64,
    pub append_time_us: u64,
    pub record_count: u32,
    pub body_len: u32,
    pub header_crc: u32,
    /// Leaders take only what fits; an entry that says more says as much as this can.
    pub producer_unacked: u16,
    pub kind: EntryKind,
}

const _: () = assert!(size_of::<PendingEntry>() == 40);

impl PendingEntry {
    pub(super) fn new(header: &BatchHeader, header_crc: u32) -> Self {
        Self {
            log_id: header.log_id,
            producer_id: header.producer_id,
            append_time_us: header.append_time_us,
            record_count: header.record_count,
            body_len: header.body_len,
            header_crc,
            producer_unacked: header.producer_unacked.min(u16::MAX.into()) as u16,
            kind: header.kind,
        }
    }
}

/// Entries `[first, first + len)`, contiguous in index. Bounded by the core's limit on uncommitted
/// entries on a leader, and by the window of its leader on a follower.
#[derive(Debug)]
pub(super) struct PendingEntries {
    first: u64,
    entries: VecDeque<PendingEntry>,
    /// Terms as runs: where each begins. The first one may begin before `first`.
    terms: VecDeque<(u64, u64)>,
}

impl PendingEntries {
    /// Nothing pending; the next entry has index `first`.
    pub(super) fn new(first: u64) -> Self {
        Self {
            first,
            entries: VecDeque::new(),
            terms: VecDeque::new(),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn push(&mut self, index: u64, term: u64, entry: PendingEntry) {
        assert_eq!(index, self.end(), "entries are appended in order");
        if self.terms.back().is_none_or(|last| last.1 != term) {
            self.terms.push_back((index, term));
        }
        self.entries.push_back(entry);
    }

    /// The term of a pending entry.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if !(self.first..self.end()).contains(&index) {
            return None;
        }
        let after = self.terms.partition_point(|run| run.0 <= index);
        Some(self.terms[after - 1].1)
    }

    /// Takes the first entry, with index and term, if its index is at most `commit_index`.
    pub(super) fn pop_committed(&mut self, commit_index: u64) -> Option<(u64, u64, PendingEntry)> {
        if self.first > commit_index {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let index = self.first;
        self.first += 1;
        while self.terms.get(1).is_some_and(|run| run.0 <= index) {
            self.terms.pop_front();
        }
        Some((index, self.terms[0].1, entry))
    }

    /// Takes the last entry if its index is at least `from_index`.
    pub(super) fn pop_truncated(&mut self, from_index: u64) -> Option<(u64, PendingEntry)> {
        if self.entries.is_empty() || self.end() - 1 < from_index {
            return None;
        }
        let entry = self.entries.pop_back()?;
        let index = self.end();
        if self.terms.back().is_some_and(|run| run.0 >= index) {
            self.terms.pop_back();
        }
        Some((index, entry))
    }
}

/// Who is told when an entry is applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub reply: ReplyTo,
    /// The producer's number of the batch, given back in the answer.
    pub producer_seq: u64,
    /// The term of the entry waited for: another one at its index is not what was asked for.
    term: u64,
    /// It asked again for what was in flight, or was appended under an earlier leader.
    pub duplicate: bool,
}

/// Those who wait, on a leader only. Nearly every entry has one, its proposer, in order of index.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    proposers: VecDeque<(u64, Waiter)>,
    repeaters: BTreeMap<u64, Vec<Waiter>>,
}

/// Repeated requests for one entry that wait at most: a client that asks more often is told that it is busy.
pub(super) const REPEATERS_MAX: usize = 16;

impl Waiters {
    /// The entry at `index` was appended for this request.
    pub(super) fn proposed(&mut self, index: u64, term: u64, reply: ReplyTo, producer_seq: u64) {
        let waiter = Waiter {
            reply,
            producer_seq,
            term,
            duplicate: false,
        };
        self.proposers.push_back((index, waiter));
    }

    /// A request for what the entry at `index` does already. `false` when too many wait for it.
    pub(super) fn repeated(
        &mut self,
        index: u64,
        term: u64,
        reply: ReplyTo,
        producer_seq: u64,
    ) -> bool {
        let repeaters = self.repeaters.entry(index).or_default();
        if repeaters.len() >= REPEATERS_MAX {
            return false;
        }
        repeaters.push(Waiter {
            reply,
            producer_seq,
            term,
            duplicate: true,
        });
        true
    }

    /// Takes who waited for the entry at `index`, proposer first, into `fitting`; who waited for an entry
    /// of another term there, into `others`.
    pub(super) fn take(
        &mut self,
        index: u64,
        term: u64,
        fitting: &mut Vec<Waiter>,
        others: &mut Vec<ReplyTo>,
    ) {
        let mut sort = |waiter: Waiter| {
            if waiter.term == term || is_planted(Mutant::WaitersKept) {
                fitting.push(waiter);
            } else {
                others.push(waiter.reply);
            }
        };
        while self.proposers.front().is_some_and(|(at, _)| *at <= index) {
            if let Some((_, waiter)) = self.proposers.pop_front() {
                sort(waiter);
            }
        }
        if self.repeaters.is_empty() {
            return;
        }
        self.repeaters
            .remove(&index)
            .into_iter()
            .flatten()
            .for_each(sort);
    }

    /// Takes all who wait.
    pub(super) fn take_all(&mut self) -> Vec<ReplyTo> {
        let proposers = self.proposers.drain(..).map(|(_, waiter)| waiter.reply);
        let repeaters = std::mem::take(&mut self.repeaters).into_values().flatten();
        proposers
            .chain(repeaters.map(|waiter| waiter.reply))
            .collect()
    }
}
