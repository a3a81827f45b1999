//! The named logs of a group: what is applied, and the tail that in-flight entries have moved on.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use drave_batch::wire::LogInfo;

use super::seq_index::SeqIndex;

/// One named log.
#[derive(Clone, Debug)]
pub struct LogState {
    /// Its number: the Raft index of the entry that created it, so it is never given twice.
    pub log_id: u64,
    /// Its name.
    pub name: String,
    /// The first seq still held.
    pub first_seq: u64,
    /// The seq that the next committed record gets.
    pub next_seq: u64,
    /// The seq that the next appended record gets. Invariant: `first_seq <= next_seq <= tail_seq`.
    pub tail_seq: u64,
    /// Where its committed records are.
    pub index: SeqIndex,
    /// Whether the entry that created it is committed. Until then it only keeps a tail for the records
    /// that may follow it in the log.
    created: bool,
}

impl LogState {
    /// What clients are told.
    #[must_use]
    pub fn info(&self, created: bool) -> LogInfo {
        LogInfo {
            log_id: self.log_id,
            first_seq: self.first_seq,
            next_seq: self.next_seq,
            created,
            name: self.name.clone(),
        }
    }
}

/// All named logs of a group.
#[derive(Debug, Default)]
pub struct Catalogue {
    by_id: HashMap<u64, LogState>,
    by_name: BTreeMap<String, u64>,
    /// Names whose creation is appended and not yet committed, with the entry's index.
    in_flight: HashMap<String, u64>,
}

impl Catalogue {
    /// The log of this number.
    #[must_use]
    pub fn log(&self, log_id: u64) -> Option<&LogState> {
        self.by_id.get(&log_id).filter(|state| state.created)
    }

    /// The log of this number as a leader sees it: its creation may be in the log and not yet committed.
    pub(super) fn log_appended(&self, log_id: u64) -> Option<&LogState> {
        self.by_id.get(&log_id)
    }

    pub(super) fn log_mut(&mut self, log_id: u64) -> Option<&mut LogState> {
        self.by_id.get_mut(&log_id)
    }

    /// The log of this name.
    #[must_use]
    pub fn log_named(&self, name: &str) -> Option<&LogState> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// Logs in order of their names, after `after` (empty for all).
    pub fn logs_after<'a>(&'a self, after: &str) -> impl Iterator<Item = &'a LogState> + use<'a> {
        let from = if after.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(after.to_owned())
        };
        self.by_name
            .range((from, Bound::Unbounded))
            .map(|(_, id)| &self.by_id[id])
    }

    /// How many logs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn in_flight_index(&self, name: &str) -> Option<u64> {
        self.in_flight.get(name).copied()
    }

    pub(super) fn in_flight_len(&self) -> usize {
        self.in_flight.len()
    }

    /// A creation is in the log: records of the new log may follow it before it is committed.
    pub(super) fn appended(&mut self, name: &str, index: u64) {
        self.in_flight.insert(name.to_owned(), index);
        let state = LogState {
            log_id: index,
            name: name.to_owned(),
            first_seq: 0,
            next_seq: 0,
            tail_seq: 0,
            index: SeqIndex::default(),
            created: false,
        };
        self.by_id.insert(index, state);
    }

    pub(super) fn truncated(&mut self, name: &str, index: u64) {
        self.in_flight.remove(name);
        self.by_id.remove(&index);
    }

    /// A creation is committed.
    ///
    /// # Panics
    /// If the entry was not [appended](Self::appended), or the name is taken: a leader appends a
    /// creation only when no log of that name is in its log.
    pub(super) fn created(&mut self, name: &str, index: u64) -> &LogState {
        self.in_flight.remove(name);
        let taken = self.by_name.insert(name.to_owned(), index);
        assert!(
            taken.is_none(),
            "log {name} was created twice, at {taken:?} and {index}"
        );
        let state = self
            .by_id
            .get_mut(&index)
            .expect("what is committed was appended");
        state.created = true;
        state
    }
}
