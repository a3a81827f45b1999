//! Handing the lead to another voter, and the answer when it leads or does not.

use drave_batch::wire::{ErrorCode, LeaderTransferred};

use super::{Answer, EntryLog, Fatal, Now, Refusal, Replica, ReplyTo};
use crate::raft::{NodeId, TransferError};

/// Requests that wait for one transfer at most.
const WAITERS_MAX: usize = 16;

/// Longest election timeouts after which a transfer whose outcome this node does not hear of is given up:
/// one for the core's own attempt, two for an election.
const PATIENCE_TIMEOUTS: u64 = 3;

/// A transfer on its way, and who waits for it.
#[derive(Debug)]
pub(super) struct PendingTransfer {
    to: NodeId,
    deadline_us: u64,
    waiters: Vec<ReplyTo>,
}

impl PendingTransfer {
    pub(super) fn deadline_us(&self) -> u64 {
        self.deadline_us
    }
}

impl Replica {
    /// Hands the lead to `to`. Answered with [`Answer::Transferred`] once this node hears that it leads;
    /// at once when that is this node, which leads.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer.
    pub fn transfer_leader(
        &mut self,
        now: Now,
        reply: ReplyTo,
        to: NodeId,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        if to == self.raft.id() {
            let (leader_id, term) = (to.0, self.raft.term());
            let answer = Answer::Transferred(LeaderTransferred { leader_id, term });
            self.outputs.replies.push((reply, answer));
            return Ok(());
        }
        if let Some(transfer) = &mut self.transfer
            && transfer.to == to
            && transfer.waiters.len() < WAITERS_MAX
        {
            transfer.waiters.push(reply);
            return Ok(());
        }
        if self.raft.configuration().is_voter(to) && !self.is_active(now, to) {
            let message = format!("node {} does not answer", to.0);
            self.refuse(reply, Refusal::new(ErrorCode::NotEligible, message));
            return Ok(());
        }
        match self.raft.transfer_leadership(now.mono_us, to) {
            Ok(()) => {
                let patience_us = PATIENCE_TIMEOUTS * self.times.election_timeout_us_max;
                self.transfer = Some(PendingTransfer {
                    to,
                    deadline_us: now.mono_us.saturating_add(patience_us),
                    waiters: vec![reply],
                });
            }
            Err(error) => {
                let refusal = match error {
                    TransferError::NotLeader { .. } => self.not_leader(),
                    TransferError::NotEligible { .. } => {
                        Refusal::new(ErrorCode::NotEligible, error.to_string())
                    }
                    TransferError::InProgress { .. } => {
                        Refusal::new(ErrorCode::Busy, error.to_string())
                    }
                };
                self.refuse(reply, refusal);
            }
        }
        self.drain_effects(now, log)
    }

    /// Hands the lead to the voter that has most of the log, nobody asking for it: this node cannot do what a
    /// leader has to. Whether there is one that answers.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn hand_over(&mut self, now: Now, log: &mut impl EntryLog) -> Result<bool, Fatal> {
        let own = self.raft.id();
        let configuration = self.raft.configuration().clone();
        let peers = self.raft.progress();
        let best = peers
            .filter(|peer| peer.peer != own && configuration.voters.contains(&peer.peer))
            .filter(|peer| self.is_active(now, peer.peer))
            .max_by_key(|peer| peer.match_index)
            .map(|peer| peer.peer);
        let Some(to) = best else {
            return Ok(false);
        };
        let begun = self.raft.transfer_leadership(now.mono_us, to).is_ok();
        self.drain_effects(now, log)?;
        Ok(begun)
    }

    /// Answers who waits for a transfer, if anything is known of it: that `to` leads, that another does,
    /// that the core has given up, or that nothing was heard for too long.
    pub(super) fn settle_transfer(&mut self, now: Now) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        let to = transfer.to;
        let leader = self.raft.leader();
        let answer = if leader == Some(to) {
            let (leader_id, term) = (to.0, self.raft.term());
            Answer::Transferred(LeaderTransferred { leader_id, term })
        } else if self.is_leader() && self.raft.transferring_to() == Some(to) {
            return;
        } else if let Some(leader) = leader {
            let message = format!("node {} did not take over, node {} leads", to.0, leader.0);
            let (expected, found) = (to.0, leader.0);
            Answer::Refused(Refusal::numbers(
                ErrorCode::TransferFailed,
                expected,
                found,
                message,
            ))
        } else if now.mono_us >= transfer.deadline_us {
            let message = "the lead was given up, and no leader was heard of since";
            Answer::Refused(Refusal::new(ErrorCode::OutcomeUnknown, message))
        } else {
            return;
        };
        if let Some(transfer) = self.transfer.take() {
            let waiters = transfer.waiters.into_iter();
            let answers = waiters.map(|reply| (reply, answer.clone()));
            self.outputs.replies.extend(answers);
        }
    }
}
