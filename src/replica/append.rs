//! The leader's side: clients' appends, new logs, new producers; and what commitment does to them.

use drave_batch::control::{LogCreated, ProducerRegistered, log_name_error};
use drave_batch::wire::{Append, Appended, EXPECT_SEQ_NONE, ErrorCode};
use drave_batch::{BatchHeader, EntryKind, Quota, Records, checksum, encoded_bytes};

use super::change::refusal_of_room;
use super::producers::{FirstAnswer, Verdict};
use super::rules::check_rules;
use super::tables::PRODUCER_IN_FLIGHT_MAX;
use super::{Answer, EntryLog, Fatal, Now, Refusal, Replica, ReplyTo};
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{EntryId, ProposeError};

/// What a producer's sequence says of a batch.
#[derive(Debug)]
pub(super) enum Sequence {
    /// It is the next one.
    Next,
    /// It is in the log and not yet committed, at this index.
    InFlight(u64),
    /// It was appended before.
    Answered(Answer),
}

/// What an append gets whose conditions hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// The seq of its first record.
    pub first_seq: u64,
    /// The quota that it counts in.
    pub quota: Quota,
}

impl Replica {
    /// A client's batch. The answer comes through [`super::Outputs::replies`], at once or when the
    /// entry commits.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer.
    pub fn append(
        &mut self,
        now: Now,
        reply: ReplyTo,
        request: &Append,
        body: &[u8],
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        let header = &request.header;
        if let Err(refusal) = self.check_shape(header, body) {
            self.refuse(reply, refusal);
            return Ok(());
        }
        let answer = |first: &FirstAnswer| Answer::Appended(self.first_answer(header, first));
        match self.check_duplicate(header, answer) {
            Ok(Sequence::Next) => {}
            Ok(Sequence::InFlight(index)) => {
                self.wait_for_batch(index, reply, header.producer_seq);
                return Ok(());
            }
            Ok(Sequence::Answered(answer)) => {
                self.outputs.replies.push((reply, answer));
                return Ok(());
            }
            Err(refusal) => return self.refuse_sequence(now, reply, refusal, log),
        }
        match self.check_conditions(header.log_id, request.expect_seq, request.fence) {
            Ok(Granted { first_seq, quota }) => {
                let header = BatchHeader {
                    first_seq,
                    ..header.clone()
                };
                if let Some(refusal) = self.quotas.check(now.mono_us, &[(quota, &header)]) {
                    self.refuse(reply, refusal);
                    return Ok(());
                }
                self.propose(now, reply, header, body, log)
            }
            Err(refusal) => self.refuse_for_good(now, reply, refusal, log),
        }
    }

    /// What an append to this log asks for holds, over everything that is in the log.
    pub(super) fn check_conditions(
        &self,
        log_id: u64,
        expect_seq: u64,
        fence: u64,
    ) -> Result<Granted, Refusal> {
        // A new leader may not have applied what it has; but all that is committed is in its log.
        let Some(state) = self.tables.catalogue.log_appended(log_id) else {
            let message = format!("log {log_id} does not exist");
            return Err(Refusal::new(ErrorCode::LogNotFound, message));
        };
        let (next_seq, tail_seq) = (state.next_seq, state.tail_seq);
        let refusal =
            check_rules(state, fence).or_else(|| check_expectation(expect_seq, next_seq, tail_seq));
        let granted = Granted {
            first_seq: tail_seq,
            quota: state.rules.quota,
        };
        refusal.map_or(Ok(granted), Err)
    }

    /// The first answer to a batch, again.
    fn first_answer(&self, header: &BatchHeader, first: &FirstAnswer) -> Appended {
        Appended {
            log_id: first.log_id,
            first_seq: first.first_seq,
            record_count: first.record_count,
            duplicate: true,
            producer_seq: header.producer_seq,
            term: self.raft.term(),
            index: first.index,
        }
    }

    /// A repeated request waits for the entry in flight.
    pub(super) fn wait_for_batch(&mut self, index: u64, reply: ReplyTo, producer_seq: u64) {
        if !self.wait_for(index, reply, producer_seq) {
            let message = "the batch is in flight and asked for too often";
            self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
        }
    }

    /// Refuses what a producer's sequence does not allow.
    pub(super) fn refuse_sequence(
        &mut self,
        now: Now,
        reply: ReplyTo,
        refusal: Refusal,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if refusal.code == ErrorCode::UnknownProducer {
            return self.refuse_for_good(now, reply, refusal, log);
        }
        self.refuse(reply, refusal);
        Ok(())
    }

    /// Creates a named log, or answers with the one there is.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn create_log(
        &mut self,
        now: Now,
        reply: ReplyTo,
        name: &str,
        if_missing: bool,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        if let Some(reason) = log_name_error(name) {
            self.refuse(reply, Refusal::new(ErrorCode::LogName, reason));
            return Ok(());
        }
        let exists = || Refusal::new(ErrorCode::LogExists, format!("a log named {name} exists"));
        if let Some(state) = self.tables.catalogue.log_named(name) {
            let answer = if if_missing {
                Answer::Log(state.info(false))
            } else {
                Answer::Refused(exists())
            };
            self.outputs.replies.push((reply, answer));
            return Ok(());
        }
        let in_flight = self.tables.catalogue.in_flight_index(name);
        if let Some(index) = in_flight.filter(|_| !is_planted(Mutant::CreateTwice)) {
            // Without `if_missing`: not committed, so it may still turn out that there is none.
            if !if_missing || !self.wait_for(index, reply, 0) {
                let message = "the log is being created";
                self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
            }
            return Ok(());
        }
        let (count, limit) = (
            self.tables.catalogue.len() + self.tables.catalogue.in_flight_len(),
            self.config.logs_max as usize,
        );
        if count >= limit {
            let message = format!("the group holds {count} logs, at most {limit}");
            let refusal =
                Refusal::numbers(ErrorCode::LogLimit, limit as u64, count as u64, message);
            return self.refuse_for_good(now, reply, refusal, log);
        }
        let body = LogCreated {
            name: name.to_owned(),
        }
        .encode();
        self.propose(
            now,
            reply,
            BatchHeader::new(EntryKind::LogCreate, &body, 0),
            &body,
            log,
        )
    }

    /// Registers a producer.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn open_producer(
        &mut self,
        now: Now,
        reply: ReplyTo,
        name: &str,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        let body = ProducerRegistered {
            name: name.chars().take(64).collect(),
        }
        .encode();
        self.propose(
            now,
            reply,
            BatchHeader::new(EntryKind::ProducerRegister, &body, 0),
            &body,
            log,
        )
    }

    /// Appends an entry for a request, if there is room, and has the request wait for it.
    pub(super) fn propose(
        &mut self,
        now: Now,
        reply: ReplyTo,
        header: BatchHeader,
        body: &[u8],
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let Some(id) = self.place(reply, header.kind, header.encoded_bytes(), log)? else {
            return Ok(());
        };
        self.append_entry(now, id, header, body, Some(reply), log)?;
        self.drain_effects(now, log)
    }

    /// Gives a new entry its place, if there is room for so many bytes; nothing when the request was refused.
    pub(super) fn place(
        &mut self,
        reply: ReplyTo,
        kind: EntryKind,
        bytes: usize,
        log: &mut impl EntryLog,
    ) -> Result<Option<EntryId>, Fatal> {
        // A trim makes room, and a change of a log is small and may be what saves it: they get what a full disk
        // keeps back.
        let room = match kind {
            EntryKind::LogTrim | EntryKind::LogChange => log.has_room_for_control(bytes),
            _ => log.has_room(bytes),
        };
        match room {
            Ok(()) => {}
            Err(refusal) => {
                self.refuse(reply, refusal_of_room(refusal)?);
                return Ok(None);
            }
        }
        match self.raft.propose(bytes as u32) {
            Ok(id) => Ok(Some(id)),
            Err(error) => {
                let refusal = self.refused_proposal(&error);
                self.refuse(reply, refusal);
                Ok(None)
            }
        }
    }

    pub(super) fn refused_proposal(&self, error: &ProposeError) -> Refusal {
        match error {
            ProposeError::NotLeader { .. } => self.not_leader(),
            ProposeError::Busy { .. } => Refusal::new(ErrorCode::Busy, error.to_string()),
            ProposeError::Transferring { .. } | ProposeError::Leaving => {
                Refusal::new(ErrorCode::NoQuorum, error.to_string())
            }
        }
    }

    /// Gives the header of a new entry what its place gives it.
    pub(super) fn complete(&self, now: Now, id: EntryId, header: &mut BatchHeader) {
        // The leader's clock may run backwards; the times of a group's entries do not.
        header.append_time_us = if is_planted(Mutant::AppendTimeBackwards) {
            now.unix_us
        } else {
            self.tables.append_time_us.max(now.unix_us)
        };
        header.index = id.index;
        header.term = id.term;
        header.group_id = self.config.group_id;
    }

    /// Completes the header of a new entry and puts it into the log.
    pub(super) fn append_entry(
        &mut self,
        now: Now,
        id: EntryId,
        mut header: BatchHeader,
        body: &[u8],
        reply: Option<ReplyTo>,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        self.complete(now, id, &mut header);
        log.append(&mut header, body)?;
        if let Some(reply) = reply
            && is_planted(Mutant::AcknowledgedBeforeCommit)
            && header.kind == EntryKind::Data
        {
            let answer = Answer::Appended(answer_of(&header));
            self.outputs.replies.push((reply, answer));
            self.tables.appended(&header, log.last_crc(), body, None)?;
            return Ok(());
        }
        // The core knows a configuration that it asked for itself.
        self.tables.appended(&header, log.last_crc(), body, reply)?;
        Ok(())
    }

    /// A batch from outside is what its header says, and within the limits.
    pub(super) fn check_shape(&self, header: &BatchHeader, body: &[u8]) -> Result<(), Refusal> {
        let malformed = |message: String| Refusal::new(ErrorCode::MalformedBatch, message);
        if header.kind != EntryKind::Data {
            return Err(malformed("clients append data batches only".to_owned()));
        }
        if body.len() != header.body_len as usize {
            return Err(malformed(format!(
                "the header says {} bytes of body, {} came",
                header.body_len,
                body.len()
            )));
        }
        let found = checksum(body);
        if found != header.body_crc {
            return Err(malformed(format!(
                "body checksum: expected {:#010x}, found {found:#010x}",
                header.body_crc
            )));
        }
        let records = Records::new(body, header.record_count)
            .map_err(|error| malformed(error.to_string()))?;
        let limit = self.config.record_bytes_max as usize;
        // The bodies of small batches cannot hold a record over the limit.
        if body.len() > limit
            && let Some(record) = { records }.find(|record| record.len() > limit)
        {
            let (limit, found) = (limit as u64, record.len() as u64);
            let message = format!("a record of {found} bytes, at most {limit} are taken");
            return Err(Refusal::numbers(ErrorCode::TooLarge, limit, found, message));
        }
        Ok(())
    }

    /// What the producer's sequence says. `answer` makes the answer to what was appended before.
    pub(super) fn check_duplicate(
        &self,
        header: &BatchHeader,
        answer: impl FnOnce(&FirstAnswer) -> Answer,
    ) -> Result<Sequence, Refusal> {
        if header.producer_id == 0 {
            return Ok(Sequence::Next);
        }
        if header.producer_unacked >= PRODUCER_IN_FLIGHT_MAX {
            let limit = PRODUCER_IN_FLIGHT_MAX.into();
            let found = header.producer_unacked.into();
            let message = format!("{found} batches unacknowledged, at most {limit}");
            return Err(Refusal::numbers(ErrorCode::Busy, limit, found, message));
        }
        let (id, epoch, sequence) = (
            header.producer_id,
            header.producer_epoch,
            header.producer_seq,
        );
        match self.tables.producers.judge(id, epoch, sequence) {
            Verdict::Next => Ok(Sequence::Next),
            Verdict::Duplicate(first) => {
                let is_pending = self.tables.pending.term(first.index).is_some();
                if is_pending && !is_planted(Mutant::DuplicateAnsweredEarly) {
                    return Ok(Sequence::InFlight(first.index));
                }
                Ok(Sequence::Answered(answer(&first)))
            }
            Verdict::DuplicateForgotten => Err(Refusal::new(
                ErrorCode::DuplicateForgotten,
                format!("batch {sequence} was acknowledged before"),
            )),
            Verdict::Gap { expected } => {
                let message =
                    format!("expected batch {expected} of the producer, found {sequence}");
                Err(Refusal::numbers(
                    ErrorCode::SequenceGap,
                    expected,
                    sequence,
                    message,
                ))
            }
            Verdict::StaleEpoch { expected } => {
                let message = format!("the producer's epoch is {expected}, the batch says {epoch}");
                let (expected, found) = (expected.into(), epoch.into());
                Err(Refusal::numbers(
                    ErrorCode::StaleEpoch,
                    expected,
                    found,
                    message,
                ))
            }
            Verdict::Unknown => {
                let message = format!("producer {id} is not registered or was forgotten");
                Err(Refusal::new(ErrorCode::UnknownProducer, message))
            }
        }
    }
}

/// Why an append that expects a seq is refused, if it is.
fn check_expectation(expect_seq: u64, next_seq: u64, tail_seq: u64) -> Option<Refusal> {
    let end_seq = if is_planted(Mutant::ExpectSeqCommitted) {
        next_seq
    } else {
        tail_seq
    };
    if expect_seq == EXPECT_SEQ_NONE
        || expect_seq == end_seq
        || is_planted(Mutant::ExpectSeqIgnored)
    {
        return None;
    }
    if (next_seq..=tail_seq).contains(&expect_seq) {
        // What contradicts it is not committed and may never be: no answer is final yet.
        let message = format!("seqs from {next_seq} on are in flight");
        return Some(Refusal::new(ErrorCode::Busy, message));
    }
    let message = format!("expected seq {expect_seq}, the log's next is {tail_seq}");
    Some(Refusal::numbers(
        ErrorCode::ExpectSeq,
        expect_seq,
        tail_seq,
        message,
    ))
}

fn answer_of(header: &BatchHeader) -> Appended {
    Appended {
        log_id: header.log_id,
        first_seq: header.first_seq,
        record_count: header.record_count,
        duplicate: false,
        producer_seq: header.producer_seq,
        term: header.term,
        index: header.index,
    }
}

/// Bytes that an entry with a body of this length counts in windows and limits.
#[must_use]
pub(super) fn entry_bytes(body_len: u32) -> u32 {
    encoded_bytes(body_len) as u32
}
