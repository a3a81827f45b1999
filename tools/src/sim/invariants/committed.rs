//! The one log that there must be: what was committed at each index, by whoever was first, and what it
//! amounts to. The checkers compare everything else with it.

use std::collections::BTreeMap;

use drave::replica::LogState;
use drave_batch::{EntryKind, LogChange, Quota};

use super::super::shadow::Entry;

/// A named log, as committed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LogModel {
    /// The first seq kept.
    pub first_seq: u64,
    /// The seq that the next record gets.
    pub next_seq: u64,
    /// When the last record was appended, 0 before the first.
    pub last_time_us: u64,
    /// The token that appends must carry.
    pub fence: u64,
    /// Whether it takes no append.
    pub is_closed: bool,
    /// Bytes and microseconds that are kept.
    pub retention: (u64, u64),
    /// What may be appended in a second.
    pub quota: Quota,
}

/// What a node has applied of a log.
#[must_use]
pub fn model_of(log: &LogState) -> LogModel {
    LogModel {
        first_seq: log.first_seq,
        next_seq: log.next_seq,
        last_time_us: log.last_time_us,
        fence: log.rules.fence,
        is_closed: log.rules.is_closed,
        retention: (log.rules.retention.bytes, log.rules.retention.age_us),
        quota: log.rules.quota,
    }
}

/// A committed entry, and the term of whoever was first seen to commit it.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// The entry.
    pub entry: Entry,
    /// A leader of a later term must have it.
    pub commit_term: u64,
}

/// Entries from index 1 on.
#[derive(Debug, Default)]
pub struct Committed {
    entries: Vec<CommittedEntry>,
    /// Of each data entry, the token that its log had then.
    fences: BTreeMap<u64, u64>,
    logs: BTreeMap<u64, LogModel>,
    /// Where each operation of a client ended up.
    operations: BTreeMap<u64, u64>,
    /// The last entry that carries an entry's batch, by that entry's index.
    carried: BTreeMap<u64, u64>,
    producers_opened: u64,
    /// The highest sequence of each producer, and where.
    producers: BTreeMap<u64, (u64, u64)>,
}

/// What is wrong with an entry that was committed: it contradicts those before it.
pub type Contradiction = (&'static str, String);

impl Committed {
    /// The last index.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The entry of this index.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&CommittedEntry> {
        self.entries
            .get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// A named log.
    #[must_use]
    pub fn log(&self, log_id: u64) -> Option<LogModel> {
        self.logs.get(&log_id).copied()
    }

    /// Producers that were registered.
    #[must_use]
    pub fn producers_opened(&self) -> u64 {
        self.producers_opened
    }

    /// All named logs, by number.
    pub fn logs(&self) -> impl Iterator<Item = (u64, LogModel)> {
        self.logs.iter().map(|(id, log)| (*id, *log))
    }

    /// Whether the entry of this index is one whose records were all given up, or that has none.
    #[must_use]
    pub fn is_trimmed(&self, index: u64) -> bool {
        let Some(known) = self.get(index) else {
            return false;
        };
        let end = known.entry.first_seq + u64::from(known.entry.record_count);
        let log = self.log(known.entry.log_id);
        // A log that is not there was deleted.
        known.entry.kind != EntryKind::Data || log.is_none_or(|log| end <= log.first_seq)
    }

    /// The token that the log of the data entry at this index had when it was appended.
    #[must_use]
    pub fn fence_at(&self, index: u64) -> Option<u64> {
        self.fences.get(&index).copied()
    }

    /// The last entry that carries the batch of the entry at this index.
    #[must_use]
    pub fn carried_to(&self, index: u64) -> Option<u64> {
        self.carried.get(&index).copied()
    }

    /// Entries whose batches were carried over, from the first one on.
    pub fn carried(&self) -> impl Iterator<Item = u64> {
        self.carried.keys().copied()
    }

    /// Where an operation ended up.
    #[must_use]
    pub fn index_of(&self, operation: u64) -> Option<u64> {
        self.operations.get(&operation).copied()
    }

    /// The next entry is committed.
    ///
    /// # Errors
    /// The name of the broken invariant and what was seen.
    pub fn push(&mut self, entry: Entry, commit_term: u64) -> Result<(), Contradiction> {
        let before = self
            .entries
            .last()
            .map_or(0, |last| last.entry.append_time_us);
        if entry.append_time_us < before {
            let what = format!(
                "entry {} was appended at {} us, the one before it at {before} us",
                self.last_index() + 1,
                entry.append_time_us
            );
            return Err(("append_times_never_run_backwards", what));
        }
        let index = self.last_index() + 1;
        self.push_carried(index, &entry)?;
        self.entries.push(CommittedEntry {
            entry: entry.clone(),
            commit_term,
        });
        match entry.kind {
            EntryKind::LogCreate => {
                self.logs.insert(index, LogModel::default());
                Ok(())
            }
            EntryKind::LogTrim => {
                if let Some(log) = self.logs.get_mut(&entry.log_id) {
                    log.first_seq = log.first_seq.max(entry.first_seq);
                }
                Ok(())
            }
            EntryKind::LogChange => self.push_change(index, entry),
            EntryKind::Data => self.push_data(index, entry),
            EntryKind::ProducerRegister => {
                self.producers_opened += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is carried over is what was there.
    fn push_carried(&mut self, index: u64, entry: &Entry) -> Result<(), Contradiction> {
        for batch in entry.carried.iter().flat_map(|batches| batches.iter()) {
            let original = self.get(batch.index).map(|known| &known.entry);
            let is_same =
                original.is_some_and(|it| it.kind == EntryKind::Data && it.crc == batch.crc);
            if !is_same {
                let what = format!("entry {index} carries {batch:?}, entry {original:?} is there");
                return Err(("records_are_found", what));
            }
            self.carried.insert(batch.index, index);
        }
        Ok(())
    }

    fn push_change(&mut self, index: u64, entry: Entry) -> Result<(), Contradiction> {
        let Some(log) = self.logs.get_mut(&entry.log_id) else {
            let what = format!("entry {index} changes log {}, which is not", entry.log_id);
            return Err(("state_machine_safety_3_6", what));
        };
        match entry.change {
            Some(LogChange::Fence { token }) if token <= log.fence => {
                let what = format!(
                    "entry {index} fences log {} with token {token}, which has {}",
                    entry.log_id, log.fence
                );
                return Err(("fences_hold", what));
            }
            Some(LogChange::Fence { token }) => log.fence = token,
            Some(LogChange::Close) => log.is_closed = true,
            Some(LogChange::Retain(kept)) => log.retention = (kept.bytes, kept.age_us),
            Some(LogChange::Limit(quota)) => log.quota = quota,
            Some(LogChange::Delete) => {
                self.logs.remove(&entry.log_id);
            }
            None => {
                let what = format!("entry {index} changes a log in no way");
                return Err(("state_machine_safety_3_6", what));
            }
        }
        Ok(())
    }

    fn push_data(&mut self, index: u64, entry: Entry) -> Result<(), Contradiction> {
        let Some(log) = self.logs.get_mut(&entry.log_id) else {
            let what = format!("entry {index} is for log {}, which is not", entry.log_id);
            return Err(("state_machine_safety_3_6", what));
        };
        if log.is_closed {
            let what = format!("entry {index} is for log {}, which is closed", entry.log_id);
            return Err(("closed_logs_end", what));
        }
        if log.next_seq != entry.first_seq {
            let what = format!(
                "entry {index} begins at seq {} of log {}, which goes on at {}",
                entry.first_seq, entry.log_id, log.next_seq
            );
            return Err(("exactly_once_6_3", what));
        }
        log.next_seq += u64::from(entry.record_count);
        self.fences.insert(index, log.fence);
        log.last_time_us = entry.append_time_us;
        if let Some(first) = self.operations.insert(entry.operation, index)
            && entry.operation != 0
        {
            let what = format!("operation {} is at {first} and at {index}", entry.operation);
            return Err(("exactly_once_6_3", what));
        }
        if entry.producer_id != 0 {
            let before = self
                .producers
                .insert(entry.producer_id, (entry.producer_seq, index));
            let next = before.map_or(0, |(sequence, _)| sequence + 1);
            if entry.producer_seq != next {
                let what = format!(
                    "batch {} of producer {} is at {index} where {next} was next (last at {before:?})",
                    entry.producer_seq, entry.producer_id
                );
                return Err(("exactly_once_6_3", what));
            }
        }
        Ok(())
    }
}
