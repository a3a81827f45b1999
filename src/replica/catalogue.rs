//! The named logs of a group: what is applied, and the tail that in-flight entries have moved on.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use drave_batch::Retention;
use drave_batch::wire::{LogDescribed, LogInfo};

use super::rules::LogRules;
use super::seq_index::{Carried, CarriedPart, DOUBLINGS_MAX, Mark, SeqIndex};

/// Marks of all logs of a group together at most, unless there are so many logs that it cannot be kept: 32 MiB, an
/// eighth of what a snapshot may hold. The same on every node, since a snapshot's bytes follow from it.
const MARKS_MAX: usize = 1 << 20;

/// A created log as a snapshot holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LogImage {
    pub log_id: u64,
    pub name: String,
    pub first_seq: u64,
    pub next_seq: u64,
    pub last_time_us: u64,
    pub bytes: u64,
    pub rules: LogRules,
    pub fence_seq: u64,
    /// As in [`SeqIndex`].
    pub marks: Vec<Mark>,
    pub last: Option<Mark>,
    pub carried: Vec<Carried>,
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
    /// When the last committed record was appended, microseconds since 1970; 0 before the first.
    pub last_time_us: u64,
    /// Bytes of all its committed batches, trimmed ones too.
    pub bytes: u64,
    /// What holds for it.
    pub rules: LogRules,
    /// What will hold for it once everything in the log is applied.
    pub tail_rules: LogRules,
    /// The first seq that was not appended before the token of [`LogRules::fence`].
    pub fence_seq: u64,
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
        let (first_seq, next_seq) = (self.first_seq, self.next_seq);
        Some(self.index.first_index_needed(first_seq, next_seq))
    }

    /// A log that was just created, at this index, with an index as sparse as the others'.
    fn new(log_id: u64, name: &str, doublings: u32) -> Self {
        Self {
            log_id,
            name: name.to_owned(),
            first_seq: 0,
            next_seq: 0,
            tail_seq: 0,
            last_time_us: 0,
            bytes: 0,
            rules: LogRules::default(),
            tail_rules: LogRules::default(),
            fence_seq: 0,
            index: SeqIndex::doubled(doublings),
            created: false,
        }
    }

    /// A batch of the log is committed: so many records and bytes, at this index and time. Gives the seq of its
    /// first record.
    pub(super) fn committed(&mut self, records: u32, bytes: u64, index: u64, time_us: u64) -> u64 {
        let seq = self.next_seq;
        self.index.push(Mark {
            seq,
            index,
            time_us,
            bytes_before: self.bytes,
        });
        self.next_seq += u64::from(records);
        self.bytes += bytes;
        self.last_time_us = time_us;
        seq
    }

    /// What clients are told who ask for everything.
    #[must_use]
    pub fn describe(&self) -> LogDescribed {
        let before = self.index.bytes_before(self.first_seq, self.bytes);
        LogDescribed {
            log_id: self.log_id,
            first_seq: self.first_seq,
            next_seq: self.next_seq,
            last_time_us: self.last_time_us,
            held_bytes: before.map_or(0, |before| self.bytes - before),
            fence: self.rules.fence,
            fence_seq: self.fence_seq,
            is_closed: self.rules.is_closed,
            retention_bytes: self.rules.retention.bytes,
            retention_age_us: self.rules.retention.age_us,
            quota_bytes_per_second: self.rules.quota.bytes_per_second,
            quota_records_per_second: self.rules.quota.records_per_second,
            name: self.name.clone(),
        }
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
#[derive(Debug)]
pub struct Catalogue {
    by_id: HashMap<u64, LogState>,
    by_name: BTreeMap<String, u64>,
    /// Names whose creation is appended and not yet committed, with the entry's index.
    in_flight: HashMap<String, u64>,
    /// What [`Self::first_index_needed`] found, until a trim or the first record of an empty log.
    needed: Cell<Option<u64>>,
    /// Logs with a retention.
    retained: BTreeSet<u64>,
    /// Marks of all logs together, and how many there may be.
    marks: usize,
    marks_max: usize,
    /// How often the distances between them were doubled.
    doublings: u32,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            by_name: BTreeMap::new(),
            in_flight: HashMap::new(),
            needed: Cell::new(None),
            retained: BTreeSet::new(),
            marks: 0,
            marks_max: MARKS_MAX,
            doublings: 0,
        }
    }
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

    /// A batch of a log is committed: so many records and bytes, at this index and time. Gives the seq of its first
    /// record, if the log is there.
    pub(super) fn committed(
        &mut self,
        log_id: u64,
        records: u32,
        bytes: u64,
        index: u64,
        time_us: u64,
    ) -> Option<u64> {
        let state = self.log_mut(log_id)?;
        let before = state.index.marks();
        let first_seq = state.committed(records, bytes, index, time_us);
        self.marks += state.index.marks() - before;
        if self.marks > self.marks_max.max(4 * self.by_id.len()) {
            self.thin();
        }
        Some(first_seq)
    }

    /// Makes the marks half as many as there may be. Looks at all of them, which the next time is as far away as there
    /// are marks by then.
    fn thin(&mut self) {
        while self.marks > self.marks_max.max(4 * self.by_id.len()) / 2
            && self.doublings < DOUBLINGS_MAX
        {
            self.doublings += 1;
            self.marks = 0;
            for state in self.by_id.values_mut() {
                state.index.thin(self.doublings);
                self.marks += state.index.marks();
            }
        }
    }

    /// How often the distances between marks were doubled.
    pub(super) fn mark_doublings(&self) -> u32 {
        self.doublings
    }

    /// The logs of which not everything is kept.
    pub(super) fn retained(&self) -> impl Iterator<Item = &LogState> {
        self.retained.iter().map(|log_id| &self.by_id[log_id])
    }

    /// Whether there is one of which not everything is kept.
    pub(super) fn has_retained(&self) -> bool {
        !self.retained.is_empty()
    }

    /// How much of a log is kept has changed.
    pub(super) fn retention_changed(&mut self, log_id: u64) {
        let state = self.by_id.get(&log_id);
        if state.is_some_and(|state| state.rules.retention != Retention::default()) {
            self.retained.insert(log_id);
        } else {
            self.retained.remove(&log_id);
        }
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
                last_time_us: state.last_time_us,
                bytes: state.bytes,
                rules: state.rules,
                fence_seq: state.fence_seq,
                marks: state.index.mark_list().to_vec(),
                last: state.index.last_batch(),
                carried: state.index.carried().to_vec(),
            })
            .collect();
        images.sort_unstable_by_key(|image| image.log_id);
        images
    }

    /// The catalogue of these logs, all of them created; what does not fit was refused when it was read.
    pub(super) fn restored(images: &[LogImage], doublings: u32) -> Self {
        let mut catalogue = Self {
            doublings,
            ..Self::default()
        };
        for image in images {
            let (marks, carried) = (image.marks.clone(), image.carried.clone());
            let index = SeqIndex::from_parts(marks, image.last, carried, doublings);
            catalogue.marks += image.marks.len();
            let state = LogState {
                first_seq: image.first_seq,
                next_seq: image.next_seq,
                tail_seq: image.next_seq,
                last_time_us: image.last_time_us,
                bytes: image.bytes,
                rules: image.rules,
                tail_rules: image.rules,
                fence_seq: image.fence_seq,
                index: index.unwrap_or_default(),
                created: true,
                ..LogState::new(image.log_id, &image.name, doublings)
            };
            catalogue.by_name.insert(image.name.clone(), image.log_id);
            catalogue.by_id.insert(image.log_id, state);
            catalogue.retention_changed(image.log_id);
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

    /// The committed entry at `index` holds batches of a log again.
    pub(super) fn carried(&mut self, log_id: u64, index: u64, part: &CarriedPart) {
        let Some(state) = self.by_id.get_mut(&log_id) else {
            return;
        };
        self.needed.set(None);
        let before = state.index.marks();
        state.index.carry(index, part, state.first_seq);
        self.marks = self.marks + state.index.marks() - before;
    }

    /// All logs that there are, in no order.
    pub(super) fn logs(&self) -> impl Iterator<Item = &LogState> {
        self.by_id.values().filter(|state| state.created)
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
        let state = LogState::new(index, name, self.doublings);
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

    /// The deletion of a log is committed. Its number is never given again; its name is free.
    pub(super) fn deleted(&mut self, log_id: u64) {
        if let Some(state) = self.by_id.remove(&log_id) {
            self.needed.set(None);
            self.marks -= state.index.marks();
            self.by_name.remove(&state.name);
            self.retained.remove(&log_id);
        }
    }

    /// Records of a log below `first_seq`, which is committed, are given up.
    pub(super) fn trimmed(&mut self, log_id: u64, first_seq: u64) -> Option<&LogState> {
        let state = self.by_id.get_mut(&log_id)?;
        if first_seq > state.first_seq {
            self.needed.set(None);
            let before = state.index.marks();
            state.first_seq = first_seq.min(state.next_seq);
            if state.first_seq == state.next_seq {
                // No batch is held: the next one gets a mark of its own.
                state.index = SeqIndex::doubled(self.doublings);
            } else {
                state.index.trim(state.first_seq);
            }
            self.marks = self.marks + state.index.marks() - before;
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests;
