//! Giving up the old records of a log: the leader decides, an entry says so, every replica applies it alike.

use drave_batch::wire::ErrorCode;
use drave_batch::{BatchHeader, EntryKind};

use super::rules::DELETION_IN_FLIGHT;
use super::{Answer, EntryLog, Fatal, Now, Refusal, Replica, ReplyTo};

impl Replica {
    /// Gives up the records of a log below `first_seq`. Answered with [`Answer::Log`] once that is
    /// committed; at once when there is nothing left to give up.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer.
    pub fn trim_log(
        &mut self,
        now: Now,
        reply: ReplyTo,
        log_id: u64,
        first_seq: u64,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        let Some(state) = self.tables.catalogue.log_appended(log_id) else {
            let message = format!("log {log_id} does not exist");
            return self.refuse_for_good(
                now,
                reply,
                Refusal::new(ErrorCode::LogNotFound, message),
                log,
            );
        };
        if state.tail_rules.is_deleted {
            self.refuse(reply, Refusal::new(ErrorCode::Busy, DELETION_IN_FLIGHT));
            return Ok(());
        }
        if first_seq <= state.first_seq && self.tables.catalogue.log(log_id).is_some() {
            let answer = Answer::Log(state.info(false));
            self.outputs.replies.push((reply, answer));
            return Ok(());
        }
        let (next_seq, tail_seq) = (state.next_seq, state.tail_seq);
        if first_seq > tail_seq {
            let message = format!("the log's next seq is {next_seq}, {first_seq} is beyond it");
            let refusal = Refusal::numbers(ErrorCode::TrimBeyondTail, next_seq, first_seq, message);
            return self.refuse_for_good(now, reply, refusal, log);
        }
        if first_seq > next_seq {
            // What is not committed may never be: it is neither trimmed nor said not to be there.
            let message = format!("seqs from {next_seq} on are in flight");
            self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
            return Ok(());
        }
        let mut in_flight = self.tables.trims.iter();
        let covering = in_flight.find(|trim| trim.log_id == log_id && trim.first_seq >= first_seq);
        if let Some(index) = covering.map(|trim| trim.index) {
            if !self.wait_for(index, reply, 0) {
                let message = "the trim is in flight and asked for too often";
                self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
            }
            return Ok(());
        }
        let header = BatchHeader {
            log_id,
            first_seq,
            ..BatchHeader::new(EntryKind::LogTrim, &[], 0)
        };
        self.propose(now, reply, header, &[], log)
    }
}
