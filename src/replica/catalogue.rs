//! The named logs of a group: what is applied, and the tail that in-flight entries have moved on.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use drave_batch::wire::LogInfo;

use super::seq_index::SeqIndex;

/// A created log as a snapshot holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LogImage {
    pub log_id: u64,
    pub name: String,
    pub first_seq: u64,
    pub next_seq: u64,
    /// Seq and Raft index of batches, as in [`SeqIndex`].
    pub marks: Vec<(u64, u64)>,
    pub last: Option<(u64, u64)>,
}

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
    /// No entry below it holds a record that is kept; `None` when no entry holds one.
    pub(super) fn first_index_needed(&self) -> Option<u64> {
        if self.first_seq >= self.next_seq {
            return None;
        }
        // Without a mark nothing is known, and everything is needed.
        Some(self.index.locate(self.first_seq).map_or(0, |range| range.0))
    }

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
    /// What [`Self::first_index_needed`] found, until a trim or the first record of an empty log.
    needed: Cell<Option<u64>>,
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
        let state = self.by_id.get_mut(&log_id)?;
        if state.first_seq >= state.next_seq {
            self.needed.set(None);
        }
        Some(state)
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

    /// What is applied of all created logs, ascending by id.
    pub(super) fn images(&self) -> Vec<LogImage> {
        let created = self.by_id.values().filter(|state| state.created);
        let mut images: Vec<LogImage> = created
            .map(|state| LogImage {
                log_id: state.log_id,
                name: state.name.clone(),
                first_seq: state.first_seq,
                next_seq: state.next_seq,
                marks: state.index.mark_list().to_vec(),
                last: state.index.last_batch(),
            })
            .collect();
        images.sort_unstable_by_key(|image| image.log_id);
        images
    }

    /// The catalogue of these logs, all of them created; what does not fit was refused when it was read.
    pub(super) fn restored(images: &[LogImage]) -> Self {
        let mut catalogue = Self::default();
        for image in images {
            let index = SeqIndex::from_parts(image.marks.clone(), image.last);
            let state = LogState {
                log_id: image.log_id,
                name: image.name.clone(),
                first_seq: image.first_seq,
                next_seq: image.next_seq,
                tail_seq: image.next_seq,
                index: index.unwrap_or_default(),
                created: true,
            };
            catalogue.by_name.insert(image.name.clone(), image.log_id);
            catalogue.by_id.insert(image.log_id, state);
        }
        catalogue
    }

    /// No entry below this index holds a record of any log that is kept; `u64::MAX` when none holds one.
    pub(super) fn first_index_needed(&self) -> u64 {
        if let Some(needed) = self.needed.get() {
            return needed;
        }
        let needed = self
            .by_id
            .values()
            .filter_map(LogState::first_index_needed)
            .min()
            .unwrap_or(u64::MAX);
        self.needed.set(Some(needed));
        needed
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

    /// The creation at `index` was truncated.
    pub(super) fn truncated(&mut self, index: u64) {
        if let Some(state) = self.by_id.remove(&index) {
            self.in_flight.remove(&state.name);
        }
    }

    /// The creation at `index` is committed.
    ///
    /// # Panics
    /// If the entry was not [appended](Self::appended), or the name is taken: a leader appends a
    /// creation only when no log of that name is in its log.
    pub(super) fn created(&mut self, index: u64) -> &LogState {
        let state = self
            .by_id
            .get_mut(&index)
            .expect("what is committed was appended");
        state.created = true;
        self.in_flight.remove(&state.name);
        let taken = self.by_name.insert(state.name.clone(), index);
        assert!(
            taken.is_none(),
            "log {} was created twice, at {taken:?} and {index}",
            state.name
        );
        state
    }

    /// Records of a log below `first_seq`, which is committed, are given up.
    pub(super) fn trimmed(&mut self, log_id: u64, first_seq: u64) -> Option<&LogState> {
        let state = self.by_id.get_mut(&log_id)?;
        if first_seq > state.first_seq {
            self.needed.set(None);
            state.first_seq = first_seq.min(state.next_seq);
            if state.first_seq == state.next_seq {
                // No batch is held: the next one gets a mark of its own.
                state.index = SeqIndex::default();
            } else {
                state.index.trim(state.first_seq);
            }
        }
        Some(state)
    }
}
