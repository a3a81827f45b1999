//! Lease reads: a leader that a quorum confirmed a moment ago answers without asking again.
//!
//! The argument. A voter that takes a heartbeat refuses for `election_timeout_us_min`, by its own clock,
//! to vote for anybody or to campaign (`Raft::keeps_lease_promise`); a restarted voter, which cannot know
//! what it promised, refuses for as long after its start. The leader counts from when it *sent* the
//! heartbeats that a quorum has answered, which is earlier than any of them was taken, and shortens the
//! time by twice the stated clock drift. So within the lease no other leader can have been elected, and
//! nothing can be committed that this leader does not know. Two things bypass the refusal: a handover,
//! after which the leader gives up leases for the rest of its term, because TimeoutNow may arrive late;
//! and nothing else.
//!
//! A leader that is paused inside one input answers with the time it was given: the read was asked for
//! before the pause, and an answer that leaves late is an answer to an old question, not a stale one.
//!
//! It does not check the clocks, nor that all nodes have the same `election_timeout_us_min`: an operator
//! who states a drift bound vouches for both.

use super::mutants::{Mutant, is_planted};
use super::quorum::quorum_value;
use super::raft::Raft;
use super::role::Role;
use super::types::NodeId;
use alloc::collections::VecDeque;

/// Rounds whose sending time is remembered: more than fit into an election timeout.
const ROUNDS_MAX: usize = 64;

/// When the latest heartbeat rounds were sent.
#[derive(Default)]
pub(super) struct Lease {
    /// Round and time, ascending.
    sent: VecDeque<(u64, u64)>,
    /// TimeoutNow has left in this term.
    forfeited: bool,
}

impl Lease {
    pub(super) fn round_sent(&mut self, round: u64, now_us: u64) {
        if self.sent.back().is_some_and(|(last, _)| *last >= round) {
            return;
        }
        if self.sent.len() == ROUNDS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((round, now_us));
    }

    pub(super) fn forfeit(&mut self) {
        self.forfeited = true;
    }

    /// When `round`, or the latest remembered one before it, was sent.
    fn sent_us(&self, round: u64) -> Option<u64> {
        let after = self.sent.partition_point(|(sent, _)| *sent <= round);
        Some(self.sent[after.checked_sub(1)?].1)
    }
}

impl Raft {
    /// Whether a linearizable read may be answered now without asking the quorum.
    pub(super) fn lease_holds(&self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let Some(lease_us) = self.config.lease_us() else {
            return false;
        };
        if (leader.lease.forfeited || leader.transfer.is_some())
            && !is_planted(Mutant::LeaseDuringTransfer)
        {
            return false;
        }
        let own = self.config.id;
        if is_planted(Mutant::LeaseFromReply) {
            let heard_us = quorum_value(self.membership.current(), |node: NodeId| {
                let heard_us = leader.progress(node).map_or(0, |p| p.last_active_us);
                if node == own { self.now_us } else { heard_us }
            });
            return self.now_us < heard_us.saturating_add(lease_us);
        }
        let round = quorum_value(self.membership.current(), |node: NodeId| {
            if node == own {
                leader.reads.round()
            } else {
                leader
                    .progress(node)
                    .map_or(0, |progress| progress.read_round)
            }
        });
        leader
            .lease
            .sent_us(round)
            .is_some_and(|sent_us| self.now_us < sent_us.saturating_add(lease_us))
    }

    /// Whether this node has promised the leader it heard not to take part in an election yet.
    pub(super) fn keeps_lease_promise(&self) -> bool {
        self.config.lease_drift_ppm.is_some()
            && !is_planted(Mutant::LeasePromiseForgotten)
            && self.leader_contact_us > 0
            && self.now_us
                < self
                    .leader_contact_us
                    .saturating_add(self.config.election_timeout_us_min)
    }
}
