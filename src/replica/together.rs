//! Appends to several logs in one entry: all of them or none.
//!
//! The entry holds a whole batch for each log, so that readers of a log find it as any other. Of its producer each
//! batch has a sequence number of its own: the answers to an entry that comes again are those to its batches.

use drave_batch::wire::{AppendTogether, AppendedPart, AppendedTogether, ErrorCode, TogetherPart};
use drave_batch::{
    BODY_BYTES_MAX, BatchHeader, EntryKind, decode_together, encode_together, encoded_bytes,
    together_bytes,
};

use super::append::Sequence;
use super::pending::{PendingEntry, Waiter};
use super::producers::FirstAnswer;
use super::{Answer, EntryLog, Fatal, Now, Outputs, Refusal, Replica, ReplyTo};
use crate::raft::EntryId;

/// An entry for several logs that is in the log and not yet applied.
#[derive(Debug)]
pub(super) struct TogetherInFlight {
    index: u64,
    parts: Vec<PartInFlight>,
}

#[derive(Clone, Copy, Debug)]
struct PartInFlight {
    log_id: u64,
    record_count: u32,
    body_len: u32,
}

impl Replica {
    /// A client's batches for several logs, their bodies back to back in `payload`. The answer comes through
    /// [`super::Outputs::replies`], at once or when the entry commits.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer, and has written nothing to any of the logs.
    pub fn append_together(
        &mut self,
        now: Now,
        reply: ReplyTo,
        request: &AppendTogether,
        payload: &[u8],
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        let mut parts = match self.check_parts(request, payload) {
            Ok(parts) => parts,
            Err(refusal) => {
                self.refuse(reply, refusal);
                return Ok(());
            }
        };
        let entry = entry_of(request, &parts);
        let answer = |first: &FirstAnswer| self.first_answers(request, first);
        match self.check_duplicate(&entry, answer) {
            Ok(Sequence::Next) => {}
            Ok(Sequence::InFlight(index)) => {
                self.wait_for_batch(index, reply, request.producer_seq);
                return Ok(());
            }
            Ok(Sequence::Answered(answer)) => {
                self.outputs.replies.push((reply, answer));
                return Ok(());
            }
            Err(refusal) => return self.refuse_sequence(now, reply, refusal, log),
        }
        let mut quotas = Vec::with_capacity(parts.len());
        for (asked, (header, _)) in request.parts.iter().zip(&mut parts) {
            match self.check_conditions(asked.log_id, asked.expect_seq, asked.fence) {
                Ok(granted) => {
                    header.first_seq = granted.first_seq;
                    quotas.push(granted.quota);
                }
                Err(mut refusal) => {
                    refusal.message = format!("log {}: {}", asked.log_id, refusal.message);
                    return self.refuse_for_good(now, reply, refusal, log);
                }
            }
        }
        let headers = parts.iter().map(|(header, _)| header);
        let counted: Vec<_> = quotas.into_iter().zip(headers).collect();
        if let Some(refusal) = self.quotas.check(now.mono_us, &counted) {
            self.refuse(reply, refusal);
            return Ok(());
        }
        self.propose_together(now, reply, entry, &parts, log)
    }

    fn propose_together(
        &mut self,
        now: Now,
        reply: ReplyTo,
        mut entry: BatchHeader,
        parts: &[(BatchHeader, &[u8])],
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let Some(id) = self.place(reply, entry.kind, entry.encoded_bytes(), log)? else {
            return Ok(());
        };
        self.complete(now, id, &mut entry);
        let body = encode_together(&entry, parts);
        entry.body_crc = drave_batch::checksum(&body);
        self.append_entry(now, id, entry, &body, Some(reply), log)?;
        self.drain_effects(now, log)
    }

    /// The batches are what the request says, and within the limits.
    fn check_parts<'a>(
        &self,
        request: &AppendTogether,
        payload: &'a [u8],
    ) -> Result<Vec<(BatchHeader, &'a [u8])>, Refusal> {
        let malformed = |message: String| Refusal::new(ErrorCode::MalformedBatch, message);
        let mut parts: Vec<(BatchHeader, &[u8])> = Vec::with_capacity(request.parts.len());
        let mut rest = payload;
        for asked in &request.parts {
            let log_id = asked.log_id;
            let Some((body, behind)) = rest.split_at_checked(asked.body_len as usize) else {
                let (expected, found) = (asked.body_len, rest.len());
                let message =
                    format!("log {log_id}: {expected} bytes of body are said, {found} came");
                return Err(malformed(message));
            };
            rest = behind;
            if asked.record_count == 0 {
                return Err(malformed(format!("log {log_id}: a batch without records")));
            }
            if parts.iter().any(|(part, _)| part.log_id == log_id) {
                return Err(malformed(format!("log {log_id} comes twice")));
            }
            let header = header_of(asked);
            self.check_shape(&header, body)?;
            parts.push((header, body));
        }
        if !rest.is_empty() {
            let message = format!("{} bytes behind the last body", rest.len());
            return Err(malformed(message));
        }
        let found = together_bytes(parts.iter().map(|(header, _)| header.body_len)) as u64;
        let limit = BODY_BYTES_MAX.into();
        if found > limit {
            let message = format!("batches of {found} bytes in all, at most {limit} are taken");
            return Err(Refusal::numbers(ErrorCode::TooLarge, limit, found, message));
        }
        Ok(parts)
    }

    /// The first answer to batches that were appended together, again.
    fn first_answers(&self, request: &AppendTogether, first: &FirstAnswer) -> Answer {
        let answers = self.tables.producers.answers_of_entry(
            request.producer_id,
            request.producer_seq,
            first.index,
        );
        let parts: Vec<AppendedPart> = answers.map(appended_part).collect();
        let is_the_same = parts.len() == request.parts.len()
            && request.parts.iter().zip(&parts).all(|(asked, part)| {
                (asked.log_id, asked.record_count) == (part.log_id, part.record_count)
            });
        if !is_the_same {
            let sequence = request.producer_seq;
            let message = format!("batch {sequence} of the producer was another one");
            return Answer::Refused(Refusal::new(ErrorCode::MalformedBatch, message));
        }
        Answer::AppendedTogether(AppendedTogether {
            term: self.raft.term(),
            index: first.index,
            producer_seq: request.producer_seq,
            duplicate: true,
            parts,
        })
    }
}

fn appended_part(answer: FirstAnswer) -> AppendedPart {
    AppendedPart {
        log_id: answer.log_id,
        first_seq: answer.first_seq,
        record_count: answer.record_count,
    }
}

fn header_of(asked: &TogetherPart) -> BatchHeader {
    BatchHeader {
        body_crc: asked.body_crc,
        body_len: asked.body_len,
        record_count: asked.record_count,
        log_id: asked.log_id,
        ..BatchHeader::new(EntryKind::Data, &[], 0)
    }
}

/// The header of the entry, as far as it is known before it has its place.
fn entry_of(request: &AppendTogether, parts: &[(BatchHeader, &[u8])]) -> BatchHeader {
    let body_lens = parts.iter().map(|(header, _)| header.body_len);
    BatchHeader {
        body_len: together_bytes(body_lens) as u32,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        producer_seq: request.producer_seq,
        producer_unacked: request.producer_unacked,
        ..BatchHeader::new(EntryKind::Together, &[], 0)
    }
}

impl super::Tables {
    /// An entry for several logs is in the log.
    ///
    /// # Errors
    /// [`Fatal`] when it contradicts the entries before it.
    pub(super) fn together_appended(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
    ) -> Result<(), Fatal> {
        let batches = decode_together(header, body).map_err(|error| Fatal {
            reason: format!("entry {}: {error}", header.index),
        })?;
        let mut parts = Vec::with_capacity(batches.len());
        for batch in batches {
            self.data_appended(&batch.header)?;
            parts.push(PartInFlight {
                log_id: batch.header.log_id,
                record_count: batch.header.record_count,
                body_len: batch.header.body_len,
            });
        }
        self.togethers.push_back(TogetherInFlight {
            index: header.index,
            parts,
        });
        Ok(())
    }

    /// The entry at `index`, the last one, is truncated.
    pub(super) fn truncate_together(&mut self, index: u64, entry: &PendingEntry) {
        let Some(together) = self.togethers.pop_back() else {
            return;
        };
        assert_eq!(together.index, index, "entries are truncated in order");
        for part in together.parts.iter().rev() {
            self.truncate_data(part.log_id, part.record_count, entry.producer_id, index);
        }
    }

    /// The entry of this id is committed.
    pub(super) fn apply_together(
        &mut self,
        id: EntryId,
        entry: &PendingEntry,
        waiters: &mut Vec<Waiter>,
        outputs: &mut Outputs,
    ) {
        let Some(together) = self.togethers.pop_front() else {
            return;
        };
        assert_eq!(together.index, id.index, "entries are applied in order");
        let mut parts = Vec::with_capacity(together.parts.len());
        for (position, part) in together.parts.iter().enumerate() {
            let Some(state) = self.catalogue.log_mut(part.log_id) else {
                continue;
            };
            let bytes = encoded_bytes(part.body_len) as u64;
            let (records, time_us) = (part.record_count, entry.append_time_us);
            parts.push(AppendedPart {
                log_id: part.log_id,
                first_seq: state.committed(records, bytes, id.index, time_us),
                record_count: records,
            });
            outputs.advanced.push(part.log_id);
            if entry.producer_id != 0 {
                let unacked = entry.producer_unacked.saturating_add(position as u16);
                self.producers.applied(entry.producer_id, unacked, id.index);
            }
        }
        for waiter in waiters.drain(..) {
            let appended = AppendedTogether {
                term: id.term,
                index: id.index,
                producer_seq: waiter.producer_seq,
                duplicate: waiter.duplicate,
                parts: parts.clone(),
            };
            let answer = Answer::AppendedTogether(appended);
            outputs.replies.push((waiter.reply, answer));
        }
    }
}
