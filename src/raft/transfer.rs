//! Handing leadership over: wait until the target has everything, tell it, give up in time.

use super::effect::Effect;
use super::error::TransferError;
use super::marks::{Mark, mark};
use super::message::{Message, TimeoutNow};
use super::raft::Raft;
use super::role::{Role, Transfer};
use super::types::{EntryId, NodeId};

impl Raft {
    /// Hands leadership to `to`, which must be a voter. Proposals are refused meanwhile; after one
    /// election timeout the attempt is given up.
    pub fn transfer_leadership(&mut self, now_us: u64, to: NodeId) -> Result<(), TransferError> {
        self.advance_clock(now_us);
        let known_leader = self.leader();
        let is_voter = self.membership.current().is_voter(to);
        let Role::Leader(leader) = &mut self.role else {
            return Err(TransferError::NotLeader {
                leader: known_leader,
            });
        };
        let reachable_since_us = self
            .now_us
            .saturating_sub(self.config.election_timeout_us_max);
        let is_reachable = leader
            .progress(to)
            .is_some_and(|progress| progress.last_active_us >= reachable_since_us);
        if to == self.config.id || !is_voter || !is_reachable {
            return Err(TransferError::NotEligible { to });
        }
        if let Some(transfer) = &leader.transfer {
            return Err(TransferError::InProgress { to: transfer.to });
        }
        let deadline_us = self.now_us + self.config.election_timeout_us_max;
        leader.transfer = Some(Transfer {
            to,
            deadline_us,
            told: false,
        });
        self.continue_transfer();
        Ok(())
    }

    /// To whom leadership is being handed over.
    pub fn transferring_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// Tells the target once it has the whole log.
    pub(super) fn continue_transfer(&mut self) {
        let last_index = self.log.last_index();
        let term = self.hard_state.term;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(transfer) = &leader.transfer else {
            return;
        };
        let (to, told) = (transfer.to, transfer.told);
        let complete = leader
            .progress(to)
            .is_some_and(|progress| progress.match_index == last_index);
        if complete && !told {
            leader.transfer = leader.transfer.take().map(|transfer| Transfer {
                told: true,
                ..transfer
            });
            leader.lease.forfeit();
            self.emit(Effect::Send {
                to,
                message: Message::TimeoutNow(TimeoutNow { term }),
            });
        }
    }

    /// This leader leaves the voters: the one that has most takes over at once.
    pub(super) fn hand_over_to_best(&mut self) {
        let configuration = self.membership.current();
        let term = self.hard_state.term;
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let voters = leader
            .peers
            .iter()
            .filter(|(peer, _)| configuration.is_voter(*peer));
        let best = voters
            .max_by_key(|(_, progress)| progress.match_index)
            .map(|(peer, _)| *peer);
        if let Some(to) = best {
            self.emit(Effect::Send {
                to,
                message: Message::TimeoutNow(TimeoutNow { term }),
            });
        }
    }

    /// The owner has no room for the control entry at `id`, which [`Effect::AppendControl`] asked for: this node
    /// gives up the lead that it cannot exercise. Nobody has heard of the entry, nor of any after it, so they
    /// are taken back. Call it instead of storing the entry, before anything else.
    pub fn on_control_refused(&mut self, id: EntryId) {
        assert!(
            id.index > self.commit_index && id.index > self.log.durable_index(),
            "what was refused is neither stored nor committed"
        );
        let is_begun = match &self.role {
            Role::Leader(leader) => leader.term_start_index < id.index,
            _ => false,
        };
        self.effects
            .retain(|effect| !matches!(effect, Effect::AppendControl { .. }));
        self.control_pending = 0;
        self.log.truncate_from(id.index);
        self.membership.truncate_from(id.index);
        if is_begun {
            self.hand_over_to_best();
        }
        if matches!(self.role, Role::Leader(_)) {
            self.become_follower(self.hard_state.term, None);
        }
    }

    pub(super) fn abort_late_transfer(&mut self) {
        let now_us = self.now_us;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader
            .transfer
            .as_ref()
            .is_some_and(|transfer| now_us >= transfer.deadline_us)
        {
            mark(Mark::TransferAborted);
            leader.transfer = None;
        }
    }

    /// The target may have left the voters meanwhile.
    pub(super) fn abort_impossible_transfer(&mut self) {
        let configuration = self.membership.current();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader
            .transfer
            .as_ref()
            .is_some_and(|transfer| !configuration.is_voter(transfer.to))
        {
            leader.transfer = None;
        }
    }

    /// The leader wants this node to take over: no pre-vote, and stickiness does not apply.
    pub(super) fn on_timeout_now(&mut self, from: NodeId, timeout: TimeoutNow) {
        if timeout.term < self.hard_state.term || !self.is_promotable() {
            return;
        }
        if timeout.term > self.hard_state.term {
            self.become_follower(timeout.term, None);
        }
        match &self.role {
            Role::Follower(follower) if follower.leader.is_none_or(|leader| leader == from) => {
                mark(Mark::TransferTaken);
                self.become_candidate(true);
            }
            Role::PreCandidate(_) => self.become_candidate(true),
            _ => {}
        }
    }
}
