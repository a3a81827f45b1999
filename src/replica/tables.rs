//! What the entries of a group amount to: logs, producers, and the entries not applied yet.
//!
//! Tails and sequences move when an entry is appended, on leaders and followers alike, and move back
//! when it is truncated; what is committed moves when it is applied. So any replica that comes to lead
//! decides duplicates and conditions over everything in its log, committed or not.

use drave_batch::control::{LogCreated, ProducerRegistered};
use drave_batch::wire::{Appended, ErrorCode, ProducerOpened};
use drave_batch::{BatchHeader, EntryKind};

use super::catalogue::Catalogue;
use super::pending::{PendingEntries, PendingEntry};
use super::producers::{FirstAnswer, Producers};
use super::{Answer, Fatal, Outputs, Refusal, ReplyTo};

/// Batches that one producer may have unacknowledged.
pub(super) const PRODUCER_IN_FLIGHT_MAX: u32 = 4096;

/// The tables; see the module.
#[derive(Debug)]
pub(super) struct Tables {
    pub catalogue: Catalogue,
    pub producers: Producers,
    pub pending: PendingEntries,
    /// Every index at or below it is applied. Invariant: whenever a call to the replica returns, it
    /// equals the core's commit index.
    pub applied_index: u64,
    /// The append time of the last entry, which the next one's does not run behind.
    pub append_time_us: u64,
    /// Reads confirmed at an index not applied yet: index and ticket.
    reads_waiting: Vec<(u64, u64)>,
}

impl Tables {
    /// Empty tables; the next entry has index 1.
    pub(super) fn new(producers_max: u32) -> Self {
        Self {
            catalogue: Catalogue::default(),
            producers: Producers::new(producers_max),
            pending: PendingEntries::new(1),
            applied_index: 0,
            append_time_us: 0,
            reads_waiting: Vec::new(),
        }
    }

    /// The index of the next entry.
    pub(super) fn next_index(&self) -> u64 {
        self.pending.end()
    }

    /// An entry is in the log, on a leader or a follower, now or at restart.
    ///
    /// # Errors
    /// [`Fatal`] when the entry contradicts the ones before it: the log is not one that a leader of this
    /// version can have written.
    pub(super) fn appended(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
        reply: Option<ReplyTo>,
    ) -> Result<(), Fatal> {
        let mut name = String::new();
        let undecodable = |error| Fatal {
            reason: format!("entry {}: {error}", header.index),
        };
        match header.kind {
            EntryKind::Data => self.data_appended(header)?,
            EntryKind::LogCreate => {
                name = LogCreated::decode(body).map_err(undecodable)?.name;
                self.catalogue.appended(&name, header.index);
            }
            EntryKind::ProducerRegister => {
                ProducerRegistered::decode(body).map_err(undecodable)?;
                self.producers.registration_appended(header.index);
            }
            _ => {}
        }
        self.append_time_us = self.append_time_us.max(header.append_time_us);
        self.pending
            .push(header.index, PendingEntry::new(header, name, reply));
        Ok(())
    }

    fn data_appended(&mut self, header: &BatchHeader) -> Result<(), Fatal> {
        let Some(state) = self.catalogue.log_mut(header.log_id) else {
            let reason = format!(
                "entry {}: log {} does not exist",
                header.index, header.log_id
            );
            return Err(Fatal { reason });
        };
        if state.tail_seq != header.first_seq {
            return Err(Fatal {
                reason: format!(
                    "entry {}: log {} continues at seq {}, the batch says {}",
                    header.index, header.log_id, state.tail_seq, header.first_seq
                ),
            });
        }
        state.tail_seq = header.next_seq();
        if header.producer_id != 0 {
            let answer = FirstAnswer {
                index: header.index,
                first_seq: header.first_seq,
                record_count: header.record_count,
                log_id: header.log_id,
            };
            self.producers
                .appended(header.producer_id, header.producer_seq, answer);
        }
        Ok(())
    }

    /// Undoes what the entries from `from_index` on had moved, last one first.
    pub(super) fn truncate(&mut self, from_index: u64) {
        while let Some((index, entry)) = self.pending.pop_truncated(from_index) {
            match entry.kind {
                EntryKind::Data => {
                    if let Some(state) = self.catalogue.log_mut(entry.log_id) {
                        state.tail_seq = entry.first_seq;
                    }
                    if entry.producer_id != 0 {
                        self.producers.truncated(entry.producer_id, index);
                    }
                }
                EntryKind::LogCreate => self.catalogue.truncated(&entry.name, index),
                EntryKind::ProducerRegister => self.producers.registration_truncated(index),
                _ => {}
            }
        }
    }

    /// Applies everything up to `commit_index` and answers whoever waited for it.
    pub(super) fn apply_to(&mut self, commit_index: u64, outputs: &mut Outputs) {
        while let Some((index, entry)) = self.pending.pop_committed(commit_index) {
            match entry.kind {
                EntryKind::Data => self.apply_data(index, entry, outputs),
                EntryKind::LogCreate => self.apply_log_create(index, entry, outputs),
                EntryKind::ProducerRegister => self.apply_producer_register(index, entry, outputs),
                _ => {}
            }
            self.applied_index = index;
        }
        assert_eq!(
            self.applied_index, commit_index,
            "what is committed is in the log"
        );
        let applied_index = self.applied_index;
        self.reads_waiting.retain(|(read_index, ticket)| {
            let ready = *read_index <= applied_index;
            if ready {
                outputs.reads_ready.push(*ticket);
            }
            !ready
        });
    }

    fn apply_data(&mut self, index: u64, mut entry: PendingEntry, outputs: &mut Outputs) {
        if let Some(state) = self.catalogue.log_mut(entry.log_id) {
            state.next_seq = entry.first_seq + u64::from(entry.record_count);
            state.index.push(entry.first_seq, index);
            if outputs.advanced.last() != Some(&entry.log_id) {
                outputs.advanced.push(entry.log_id);
            }
        }
        if entry.producer_id != 0 {
            let unacked = entry.producer_unacked;
            self.producers
                .applied(entry.producer_id, entry.producer_seq, unacked, index);
        }
        let mut duplicate = false;
        for reply in entry.waiters.drain(..) {
            let appended = Appended {
                log_id: entry.log_id,
                first_seq: entry.first_seq,
                record_count: entry.record_count,
                duplicate,
                producer_seq: entry.producer_seq,
                term: entry.term,
                index,
            };
            outputs.replies.push((reply, Answer::Appended(appended)));
            duplicate = true;
        }
    }

    fn apply_log_create(&mut self, index: u64, mut entry: PendingEntry, outputs: &mut Outputs) {
        let state = self.catalogue.created(&entry.name, index);
        let mut created = true;
        for reply in entry.waiters.drain(..) {
            outputs
                .replies
                .push((reply, Answer::Log(state.info(created))));
            created = false;
        }
    }

    fn apply_producer_register(
        &mut self,
        index: u64,
        mut entry: PendingEntry,
        outputs: &mut Outputs,
    ) {
        self.producers.registration_applied(index);
        for reply in entry.waiters.drain(..) {
            let opened = ProducerOpened {
                producer_id: index,
                producer_epoch: 0,
                in_flight_max: PRODUCER_IN_FLIGHT_MAX,
            };
            outputs.replies.push((reply, Answer::Producer(opened)));
        }
    }

    /// A read is confirmed: it may be served once `index` is applied.
    pub(super) fn read_ready(&mut self, index: u64, ticket: u64, outputs: &mut Outputs) {
        if index <= self.applied_index {
            outputs.reads_ready.push(ticket);
        } else {
            self.reads_waiting.push((index, ticket));
        }
    }

    /// Losing the lead means that the outcome of what is in flight is unknown, never that it failed: a
    /// retry under the same producer sequence settles it.
    pub(super) fn release_waiters(&mut self, outputs: &mut Outputs) {
        let message = "this node lost the lead before the entry was committed";
        for entry in self.pending.iter_mut() {
            for reply in entry.waiters.drain(..) {
                let refusal = Refusal::new(ErrorCode::OutcomeUnknown, message);
                outputs.replies.push((reply, Answer::Refused(refusal)));
            }
        }
        for (_, ticket) in self.reads_waiting.drain(..) {
            outputs.reads_failed.push(ticket);
        }
    }
}
