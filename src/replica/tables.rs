//! What the entries of a group amount to: members, logs, producers, and the entries not applied yet.
//!
//! Tails, sequences and members move when an entry is appended, on leaders and followers alike, and move
//! back when it is truncated; what is committed moves when it is applied. So any replica that comes to
//! lead decides duplicates and conditions over everything in its log, committed or not.

use std::collections::VecDeque;

use drave_batch::control::{LogCreated, Members, ProducerRegistered};
use drave_batch::wire::{Appended, ErrorCode, ProducerOpened};
use drave_batch::{BatchHeader, EntryKind, LogChange, encoded_bytes};

use super::carry::CarryInFlight;
use super::catalogue::Catalogue;
use super::members::{MemberTable, configuration_of, decode_members};
use super::pending::{PendingEntries, PendingEntry, Waiter, Waiters};
use super::producers::{ANSWERS_MAX, FirstAnswer, Producers};
use super::rules::ChangeInFlight;
use super::together::TogetherInFlight;
use super::{Answer, Fatal, Outputs, Refusal, ReplyTo, StateSnapshot};
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{Configuration, EntryId};

/// Batches that one producer may have unacknowledged.
pub(super) const PRODUCER_IN_FLIGHT_MAX: u32 = 4096;

/// Confirmed reads that wait to be applied at most.
pub(super) const READS_WAITING_MAX: usize = 4096;

/// The last entry applied, and what the next one continues.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    pub id: EntryId,
    /// Its header checksum.
    pub header_crc: u32,
    /// Its append time.
    pub append_time_us: u64,
    /// Bytes of all entries applied since the replica began.
    pub bytes: u64,
}

/// A trim that is in the log and not yet applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrimInFlight {
    pub index: u64,
    pub log_id: u64,
    pub first_seq: u64,
}

/// The tables; see the module.
#[derive(Debug)]
pub(super) struct Tables {
    pub catalogue: Catalogue,
    pub producers: Producers,
    pub members: MemberTable,
    pub pending: PendingEntries,
    pub waiters: Waiters,
    /// Ascending by index.
    pub trims: VecDeque<TrimInFlight>,
    /// Ascending by index.
    pub changes: VecDeque<ChangeInFlight>,
    /// Ascending by index.
    pub togethers: VecDeque<TogetherInFlight>,
    /// Ascending by index.
    pub carries: VecDeque<CarryInFlight>,
    /// Every index at or below it is applied. Invariant: whenever a call to the replica returns, its index
    /// equals the core's commit index.
    pub applied: Applied,
    /// The append time of the last entry, which the next one's does not run behind.
    pub append_time_us: u64,
    /// Where the tables began: the entries after it were applied one by one.
    base_index: u64,
    /// Reads confirmed at an index not applied yet: index and ticket.
    reads_waiting: Vec<(u64, u64)>,
}

impl Tables {
    /// Empty tables; the next entry has index 1.
    pub(super) fn new(producers_max: u32, members: Members) -> Self {
        Self {
            catalogue: Catalogue::default(),
            producers: Producers::new(producers_max, ANSWERS_MAX),
            members: MemberTable::new(0, members),
            pending: PendingEntries::new(1),
            waiters: Waiters::default(),
            trims: VecDeque::new(),
            changes: VecDeque::new(),
            togethers: VecDeque::new(),
            carries: VecDeque::new(),
            applied: Applied::default(),
            append_time_us: 0,
            base_index: 0,
            reads_waiting: Vec::new(),
        }
    }

    /// The tables as of a snapshot; the next entry follows it.
    pub(super) fn from_snapshot(producers_max: u32, snapshot: &StateSnapshot) -> Self {
        let members = MemberTable::new(snapshot.configuration_index, snapshot.members.clone());
        let mut producers = Producers::new(producers_max, ANSWERS_MAX);
        producers.restore(&snapshot.producers);
        Self {
            catalogue: Catalogue::restored(&snapshot.logs, snapshot.mark_doublings),
            producers,
            members,
            pending: PendingEntries::new(snapshot.last.index + 1),
            applied: Applied {
                id: snapshot.last,
                header_crc: snapshot.header_crc,
                append_time_us: snapshot.append_time_us,
                bytes: 0,
            },
            append_time_us: snapshot.append_time_us,
            base_index: snapshot.last.index,
            ..Self::new(producers_max, Members::default())
        }
    }

    /// The index of the next entry.
    pub(super) fn next_index(&self) -> u64 {
        self.pending.end()
    }

    /// An entry is in the log, on a leader or a follower, now or at restart. Returns the configuration
    /// that it brings, if it does.
    ///
    /// # Errors
    /// [`Fatal`] when the entry contradicts the ones before it: the log is not one that a leader of this
    /// version can have written.
    pub(super) fn appended(
        &mut self,
        header: &BatchHeader,
        header_crc: u32,
        body: &[u8],
        reply: Option<ReplyTo>,
    ) -> Result<Option<Configuration>, Fatal> {
        let undecodable = |error| Fatal {
            reason: format!("entry {}: {error}", header.index),
        };
        let mut configuration = None;
        match header.kind {
            EntryKind::Data => self.data_appended(header)?,
            EntryKind::Together => self.together_appended(header, body)?,
            EntryKind::CarryOver => self.carry_appended(header, body)?,
            EntryKind::LogCreate => {
                let created = LogCreated::decode(body).map_err(undecodable)?;
                self.catalogue.appended(&created.name, header.index);
            }
            EntryKind::ProducerRegister => {
                ProducerRegistered::decode(body).map_err(undecodable)?;
                self.producers.registration_appended(header.index);
            }
            EntryKind::Configuration => {
                let (members, decoded) = decode_members(body).map_err(undecodable)?;
                self.members.append(header.index, members);
                configuration = Some(decoded);
            }
            EntryKind::LogTrim => self.trim_appended(header)?,
            EntryKind::LogChange => {
                let change = LogChange::decode(body).map_err(undecodable)?;
                self.change_appended(header, change)?;
            }
            _ => {}
        }
        self.append_time_us = self.append_time_us.max(header.append_time_us);
        let entry = PendingEntry::new(header, header_crc);
        self.pending.push(header.index, header.term, entry);
        if let Some(reply) = reply {
            self.waiters
                .proposed(header.index, header.term, reply, header.producer_seq);
        }
        Ok(configuration)
    }

    pub(super) fn data_appended(&mut self, header: &BatchHeader) -> Result<(), Fatal> {
        let Some(state) = self.catalogue.log_mut(header.log_id) else {
            return Err(no_such_log(header));
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

    fn trim_appended(&mut self, header: &BatchHeader) -> Result<(), Fatal> {
        let Some(state) = self.catalogue.log_mut(header.log_id) else {
            return Err(no_such_log(header));
        };
        if header.first_seq > state.tail_seq {
            return Err(Fatal {
                reason: format!(
                    "entry {}: log {} ends at seq {}, a trim keeps from {}",
                    header.index, header.log_id, state.tail_seq, header.first_seq
                ),
            });
        }
        if is_planted(Mutant::TrimWhenAppended) {
            state.first_seq = state.first_seq.max(header.first_seq);
        }
        self.trims.push_back(TrimInFlight {
            index: header.index,
            log_id: header.log_id,
            first_seq: header.first_seq,
        });
        Ok(())
    }

    /// Undoes what the entries from `from_index` on had moved, last one first.
    pub(super) fn truncate(&mut self, from_index: u64) {
        while let Some((index, entry)) = self.pending.pop_truncated(from_index) {
            match entry.kind {
                EntryKind::Together => self.truncate_together(index, &entry),
                EntryKind::Data => {
                    let (log_id, records) = (entry.log_id, entry.record_count);
                    self.truncate_data(log_id, records, entry.producer_id, index);
                }
                _ if is_planted(Mutant::TruncationKeepsCreation) => {}
                EntryKind::LogCreate => self.catalogue.truncated(index),
                EntryKind::ProducerRegister => self.producers.registration_truncated(index),
                _ => {}
            }
        }
        self.members.truncate_from(from_index);
        self.trims.retain(|trim| trim.index < from_index);
        self.carries.retain(|carry| carry.index < from_index);
        self.truncate_changes(from_index);
    }

    /// The last batch of a log and of its producer, in the entry at `index`, is truncated.
    pub(super) fn truncate_data(
        &mut self,
        log_id: u64,
        record_count: u32,
        producer_id: u64,
        index: u64,
    ) {
        if let Some(state) = self.catalogue.log_mut(log_id) {
            state.tail_seq -= u64::from(record_count);
        }
        if producer_id != 0 && !is_planted(Mutant::TruncationKeepsAnswer) {
            self.producers.truncated(producer_id, index);
        }
    }

    /// Applies everything up to `commit_index` and answers whoever waited for it.
    pub(super) fn apply_to(&mut self, commit_index: u64, outputs: &mut Outputs) {
        let mut waiters = Vec::new();
        let mut others = Vec::new();
        while let Some((index, term, entry)) = self.pending.pop_committed(commit_index) {
            self.waiters.take(index, term, &mut waiters, &mut others);
            self.apply(EntryId { term, index }, &entry, &mut waiters, outputs);
            waiters.clear();
        }
        for reply in others {
            outputs.replies.push((reply, outcome_unknown()));
        }
        assert_eq!(
            self.applied.id.index, commit_index,
            "what is committed is in the log"
        );
        let applied_index = commit_index;
        self.reads_waiting.retain(|(read_index, ticket)| {
            let ready = *read_index <= applied_index;
            if ready {
                outputs.reads_ready.push(*ticket);
            }
            !ready
        });
    }

    fn apply(
        &mut self,
        id: EntryId,
        entry: &PendingEntry,
        waiters: &mut Vec<Waiter>,
        outputs: &mut Outputs,
    ) {
        let skipped = is_planted(Mutant::ApplySkipsAfterSnapshot)
            && self.base_index > 0
            && id.index == self.base_index + 1;
        match entry.kind {
            _ if skipped => {}
            EntryKind::Data => self.apply_data(id, entry, waiters, outputs),
            EntryKind::Together => self.apply_together(id, entry, waiters, outputs),
            EntryKind::LogCreate => {
                let state = self.catalogue.created(id.index);
                for waiter in waiters.drain(..) {
                    let info = state.info(!waiter.duplicate);
                    outputs.replies.push((waiter.reply, Answer::Log(info)));
                }
            }
            EntryKind::ProducerRegister => {
                self.producers.registration_applied(id.index);
                for waiter in waiters.drain(..) {
                    let opened = ProducerOpened {
                        producer_id: id.index,
                        producer_epoch: 0,
                        in_flight_max: PRODUCER_IN_FLIGHT_MAX,
                    };
                    outputs
                        .replies
                        .push((waiter.reply, Answer::Producer(opened)));
                }
            }
            EntryKind::Configuration => self.members.apply(id.index),
            EntryKind::LogTrim => self.apply_trim(id.index, waiters, outputs),
            EntryKind::CarryOver => self.apply_carry(id.index),
            EntryKind::LogChange => self.apply_change(id.index, entry.log_id, waiters, outputs),
            _ => {}
        }
        let bytes = encoded_bytes(entry.body_len) as u64;
        self.applied = Applied {
            id,
            header_crc: entry.header_crc,
            append_time_us: entry.append_time_us,
            bytes: self.applied.bytes + bytes,
        };
    }

    fn apply_data(
        &mut self,
        id: EntryId,
        entry: &PendingEntry,
        waiters: &mut Vec<Waiter>,
        outputs: &mut Outputs,
    ) {
        // It was checked to continue the log when it was appended.
        let bytes = encoded_bytes(entry.body_len) as u64;
        let first_seq = self.catalogue.committed(
            entry.log_id,
            entry.record_count,
            bytes,
            id.index,
            entry.append_time_us,
        );
        let Some(first_seq) = first_seq else {
            return;
        };
        if outputs.advanced.last() != Some(&entry.log_id) {
            outputs.advanced.push(entry.log_id);
        }
        if entry.producer_id != 0 {
            self.producers
                .applied(entry.producer_id, entry.producer_unacked, id.index);
        }
        for waiter in waiters.drain(..) {
            let appended = Appended {
                log_id: entry.log_id,
                first_seq,
                record_count: entry.record_count,
                duplicate: waiter.duplicate,
                producer_seq: waiter.producer_seq,
                term: id.term,
                index: id.index,
            };
            outputs
                .replies
                .push((waiter.reply, Answer::Appended(appended)));
        }
    }

    fn apply_trim(&mut self, index: u64, waiters: &mut Vec<Waiter>, outputs: &mut Outputs) {
        let Some(trim) = self.trims.pop_front() else {
            return;
        };
        assert_eq!(trim.index, index, "trims are applied in order");
        if let Some(state) = self.catalogue.trimmed(trim.log_id, trim.first_seq) {
            for waiter in waiters.drain(..) {
                let info = state.info(false);
                outputs.replies.push((waiter.reply, Answer::Log(info)));
            }
        }
    }

    fn apply_change(
        &mut self,
        index: u64,
        log_id: u64,
        waiters: &mut Vec<Waiter>,
        outputs: &mut Outputs,
    ) {
        let Some(described) = self.change_applied(index) else {
            return;
        };
        // Who tails the log hears of it.
        outputs.advanced.push(log_id);
        for waiter in waiters.drain(..) {
            let answer = Answer::Described(described.clone());
            outputs.replies.push((waiter.reply, answer));
        }
    }

    /// The configuration of the applied members; the empty one before a joining node has heard of any.
    pub(super) fn applied_configuration(&self) -> Configuration {
        configuration_of(self.members.applied().1).unwrap_or_default()
    }

    /// A read is confirmed: it may be served once `index` is applied.
    pub(super) fn read_ready(&mut self, index: u64, ticket: u64, outputs: &mut Outputs) {
        if index <= self.applied.id.index || is_planted(Mutant::ReadBeforeApply) {
            outputs.reads_ready.push(ticket);
        } else {
            self.reads_waiting.push((index, ticket));
        }
    }

    /// Confirmed reads that wait to be applied.
    pub(super) fn reads_waiting(&self) -> usize {
        self.reads_waiting.len()
    }

    /// Takes over the reads that waited on tables that these replace.
    pub(super) fn keep_reads_of(&mut self, before: Self) {
        self.reads_waiting = before.reads_waiting;
    }

    /// Losing the lead means that the outcome of what is in flight is unknown, never that it failed: a
    /// retry under the same producer sequence settles it.
    pub(super) fn release_waiters(&mut self, outputs: &mut Outputs) {
        if is_planted(Mutant::WaitersKept) {
            return;
        }
        for reply in self.waiters.take_all() {
            outputs.replies.push((reply, outcome_unknown()));
        }
        for (_, ticket) in self.reads_waiting.drain(..) {
            outputs.reads_failed.push(ticket);
        }
    }
}

pub(super) fn no_such_log(header: &BatchHeader) -> Fatal {
    Fatal {
        reason: format!(
            "entry {}: log {} does not exist",
            header.index, header.log_id
        ),
    }
}

/// The answer to what was in flight when the lead was lost.
pub(super) fn outcome_unknown() -> Answer {
    let message = "this node lost the lead before the entry was committed";
    Answer::Refused(Refusal::new(ErrorCode::OutcomeUnknown, message))
}
