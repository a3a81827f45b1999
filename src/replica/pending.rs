//! The entries that are in the log and not yet applied, and who waits for them.

use std::collections::VecDeque;

use drave_batch::{BatchHeader, EntryKind};

use super::ReplyTo;

/// What applying an entry needs, and who is to be told.
#[derive(Debug)]
pub(super) struct PendingEntry {
    pub kind: EntryKind,
    pub term: u64,
    pub log_id: u64,
    pub first_seq: u64,
    pub record_count: u32,
    pub producer_id: u64,
    pub producer_seq: u64,
    pub producer_unacked: u32,
    /// The name in a control entry's body; empty for others.
    pub name: String,
    pub waiters: Waiters,
}

impl PendingEntry {
    pub(super) fn new(header: &BatchHeader, name: String, reply: Option<ReplyTo>) -> Self {
        Self {
            kind: header.kind,
            term: header.term,
            log_id: header.log_id,
            first_seq: header.first_seq,
            record_count: header.record_count,
            producer_id: header.producer_id,
            producer_seq: header.producer_seq,
            producer_unacked: header.producer_unacked,
            name,
            waiters: Waiters {
                first: reply,
                more: Vec::new(),
            },
        }
    }
}

/// Those who wait for one entry: nearly always one, more when a duplicate came while it was in flight.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    first: Option<ReplyTo>,
    more: Vec<ReplyTo>,
}

/// Waiters of one entry at most: a client that repeats a request more often is told that it is busy.
const WAITERS_MAX: usize = 16;

impl Waiters {
    pub(super) fn push(&mut self, reply: ReplyTo) -> bool {
        if self.first.is_none() {
            self.first = Some(reply);
        } else if self.more.len() < WAITERS_MAX {
            self.more.push(reply);
        } else {
            return false;
        }
        true
    }

    pub(super) fn drain(&mut self, _: std::ops::RangeFull) -> impl Iterator<Item = ReplyTo> + '_ {
        self.first.take().into_iter().chain(self.more.drain(..))
    }
}

/// Entries `[first, first + len)`, contiguous in index. Bounded by the core's limit on uncommitted
/// entries on a leader, and by the window of its leader on a follower.
#[derive(Debug)]
pub(super) struct PendingEntries {
    first: u64,
    entries: VecDeque<PendingEntry>,
}

impl PendingEntries {
    /// Nothing pending; the next entry has index `first`.
    pub(super) fn new(first: u64) -> Self {
        Self {
            first,
            entries: VecDeque::new(),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn push(&mut self, index: u64, entry: PendingEntry) {
        assert_eq!(index, self.end(), "entries are appended in order");
        self.entries.push_back(entry);
    }

    pub(super) fn get_mut(&mut self, index: u64) -> Option<&mut PendingEntry> {
        self.entries
            .get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PendingEntry> {
        self.entries.iter_mut()
    }

    /// Takes the first entry if its index is at most `commit_index`.
    pub(super) fn pop_committed(&mut self, commit_index: u64) -> Option<(u64, PendingEntry)> {
        if self.first > commit_index {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let index = self.first;
        self.first += 1;
        Some((index, entry))
    }

    /// Takes the last entry if its index is at least `from_index`.
    pub(super) fn pop_truncated(&mut self, from_index: u64) -> Option<(u64, PendingEntry)> {
        if self.entries.is_empty() || self.end() - 1 < from_index {
            return None;
        }
        let entry = self.entries.pop_back()?;
        Some((self.end(), entry))
    }
}
