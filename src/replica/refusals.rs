//! Refusals that stand on what is not there, given only after a quorum has confirmed that this node leads.
//!
//! A leader that was deposed while it stood still does not know it, nor what was committed since: that a log
//! or a producer does not exist is only true of its own log. So such a refusal waits for a round of
//! ReadIndex (thesis section 6.4) that began after the request came. It knows nothing of what is refused.

use std::collections::BTreeMap;

use super::{Answer, EntryLog, Fatal, Now, Refusal, Replica, ReplyTo};
use crate::raft::ReadError;
use crate::raft::mutants::{Mutant, is_planted};
use drave_batch::wire::ErrorCode;

/// Tickets of this module; the owner's count from 0 and never come here.
const FIRST_TICKET: u64 = 1 << 63;

/// Refusals that wait for a round. Bounded by the core's limit on waiting reads.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    tickets_given: u64,
    waiting: BTreeMap<u64, (ReplyTo, Refusal)>,
}

impl Replica {
    /// Refuses a request if this node still leads, and says who is to be asked otherwise.
    pub(crate) fn refuse_for_good(
        &mut self,
        now: Now,
        reply: ReplyTo,
        refusal: Refusal,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if let Err(unauthorised) = self.check_authority(now) {
            self.refuse(reply, unauthorised);
            return Ok(());
        }
        if is_planted(Mutant::RefusalUnconfirmed) {
            self.refuse(reply, refusal);
            return Ok(());
        }
        let ticket = FIRST_TICKET + self.refusals.tickets_given;
        self.refusals.tickets_given += 1;
        // Under a lease the core answers at once.
        self.refusals.waiting.insert(ticket, (reply, refusal));
        if let Err(error) = self.raft.read_index(now.mono_us, ticket) {
            self.refusals.waiting.remove(&ticket);
            let refusal = match error {
                ReadError::NotLeader { .. } => self.not_leader(),
                ReadError::Busy { .. } => Refusal::new(ErrorCode::Busy, error.to_string()),
            };
            self.refuse(reply, refusal);
        }
        self.drain_effects(now, log)
    }

    /// A round is over. `false` if the ticket is the owner's.
    pub(super) fn settle_refusal(&mut self, ticket: u64, is_confirmed: bool) -> bool {
        if ticket < FIRST_TICKET {
            return false;
        }
        if let Some((reply, refusal)) = self.refusals.waiting.remove(&ticket) {
            let refusal = if is_confirmed {
                refusal
            } else {
                self.not_leader()
            };
            self.outputs.replies.push((reply, Answer::Refused(refusal)));
        }
        true
    }
}
