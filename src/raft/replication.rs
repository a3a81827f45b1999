//! The sending side of replication: proposals, what to send to whom, and what the answers mean.

use super::effect::{AppendPlan, Effect};
use super::error::ProposeError;
use super::marks::{Mark, mark};
use super::message::{AppendReply, AppendResult, Heartbeat, HeartbeatReply, Message};
use super::mutants::{Mutant, is_planted};
use super::progress::ProgressState;
use super::raft::Raft;
use super::role::{Leader, Role};
use super::types::{EntryId, NodeId};

impl Raft {
    /// Appends one entry of `bytes` to the leader's log. The caller stores it at the returned id.
    /// Nothing is promised until `CommitAdvanced` reaches that index in the same term.
    pub fn propose(&mut self, bytes: u32) -> Result<EntryId, ProposeError> {
        self.assert_controls_polled();
        self.check_may_propose()?;
        let term = self.hard_state.term;
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("just checked")
        };
        let (waiting, entries) = (leader.uncommitted.bytes(), leader.uncommitted.entries());
        // One entry is admitted however large it is, or it would be refused for ever.
        let over_bytes =
            waiting > 0 && waiting + u64::from(bytes) > self.config.uncommitted_bytes_max;
        if over_bytes || entries >= u64::from(self.config.uncommitted_entries_max) {
            return Err(ProposeError::Busy {
                uncommitted_bytes: waiting,
                uncommitted_entries: entries,
            });
        }
        let index = self.log.append(term);
        leader.uncommitted.push(index, bytes);
        Ok(EntryId { term, index })
    }

    pub(super) fn check_may_propose(&self) -> Result<(), ProposeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader {
                leader: self.leader(),
            });
        };
        if let Some(transfer) = &leader.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        if !self.is_voter() {
            return Err(ProposeError::Leaving);
        }
        Ok(())
    }

    /// The next append for `peer`, to be asked for when its connection has room. `None`: nothing to
    /// send, the window is full, or the peer needs a snapshot. Changes nothing.
    #[must_use]
    pub fn plan_append(&self, now_us: u64, peer: NodeId) -> Option<AppendPlan> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let progress = leader.progress(peer)?;
        let lo = progress.next_index;
        let prev_term = self.log.term_at(lo - 1)?;
        let mut hi_max = self.log.last_index() + 1;
        let room_bytes = progress.window.room_bytes(progress.credit_bytes);
        match progress.state {
            ProgressState::Snapshot { .. } => return None,
            ProgressState::Probe => {
                let retry_us = progress.probe_sent_us.map_or(0, |sent_us| {
                    sent_us.saturating_add(self.config.heartbeat_interval_us)
                });
                if now_us < retry_us {
                    return None;
                }
                if room_bytes == 0 {
                    hi_max = lo;
                }
            }
            ProgressState::Replicate => {
                let commit_is_news = self.commit_index > progress.commit_sent;
                if lo < hi_max && room_bytes == 0 || lo == hi_max && !commit_is_news {
                    return None;
                }
            }
        }
        Some(AppendPlan {
            prev: EntryId {
                term: prev_term,
                index: lo - 1,
            },
            lo,
            hi_max,
            bytes_max: room_bytes,
            commit_index: self.commit_index,
            term: self.hard_state.term,
            session: progress.session,
        })
    }

    /// Entries `[plan.lo, hi)` of `bytes` have left for `peer`. Ignored when the plan is out of date.
    pub fn append_sent(
        &mut self,
        now_us: u64,
        peer: NodeId,
        plan: &AppendPlan,
        hi: u64,
        bytes: u64,
    ) {
        self.advance_clock(now_us);
        assert!(plan.lo <= hi && hi <= plan.hi_max, "sends what was planned");
        let (now_us, term) = (self.now_us, self.hard_state.term);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(peer) else {
            return;
        };
        let out_of_date =
            plan.term != term || plan.session != progress.session || plan.lo != progress.next_index;
        if out_of_date {
            return;
        }
        progress.commit_sent = progress.commit_sent.max(plan.commit_index);
        match progress.state {
            ProgressState::Probe => progress.probe_sent_us = Some(now_us),
            ProgressState::Replicate => {
                if hi > plan.lo {
                    if progress.is_idle() {
                        progress.moved_us = now_us;
                    }
                    progress.window.push(now_us, hi - 1, bytes);
                    progress.next_index = hi;
                }
            }
            ProgressState::Snapshot { .. } => {}
        }
    }

    /// A new connection that carries appends to `peer`: what earlier ones carried may be lost, and
    /// replies to it no longer count.
    pub fn on_peer_connected(&mut self, now_us: u64, peer: NodeId) {
        self.advance_clock(now_us);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let session = leader.next_session();
        let Some(progress) = leader.progress_mut(peer) else {
            return;
        };
        progress.session = session;
        progress.credit_bytes = u64::MAX;
        if !matches!(progress.state, ProgressState::Snapshot { .. }) {
            progress.resume();
        }
    }

    /// The connection that carries appends to `peer` is gone, and what was in flight with it.
    pub fn on_peer_disconnected(&mut self, now_us: u64, peer: NodeId) {
        self.advance_clock(now_us);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(peer) else {
            return;
        };
        if !matches!(progress.state, ProgressState::Snapshot { .. }) {
            progress.resume();
        }
    }

    /// The peer has told how many bytes of appends it is ready to have in flight.
    pub fn on_peer_credit(&mut self, peer: NodeId, credit_bytes: u64) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(progress) = leader.progress_mut(peer) {
            progress.credit_bytes = credit_bytes;
        }
    }

    pub(super) fn tick_leader(&mut self) {
        self.check_quorum();
        self.abort_late_transfer();
        self.drop_departed();
        let lost_append_us = self.config.lost_append_us();
        let now_us = self.now_us;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if now_us < leader.heartbeat_deadline_us {
            return;
        }
        for (_, progress) in &mut leader.peers {
            if progress.looks_lost(now_us, lost_append_us) {
                mark(Mark::LostAppendResent);
                progress.resume();
                progress.moved_us = now_us;
            }
        }
        self.broadcast_heartbeat();
    }

    /// One heartbeat to every peer; opens the next read round if reads wait for it.
    pub(super) fn broadcast_heartbeat(&mut self) {
        let (term, commit_index) = (self.hard_state.term, self.commit_index);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let for_lease = self.config.lease_drift_ppm.is_some();
        leader.reads.start_round(for_lease);
        leader.heartbeat_deadline_us = self.now_us + self.config.heartbeat_interval_us;
        let read_round = leader.reads.round();
        if for_lease {
            leader.lease.round_sent(read_round, self.now_us);
        }
        for position in 0..leader.peers.len() {
            let Role::Leader(leader) = &self.role else {
                return;
            };
            let (to, session) = {
                let (peer, progress) = &leader.peers[position];
                (*peer, progress.session)
            };
            let message = Message::Heartbeat(Heartbeat {
                term,
                commit_index,
                read_round,
                session,
            });
            self.emit(Effect::Send { to, message });
        }
        // Where the leader alone is a quorum, the round is over as soon as it begins.
        if self.is_quorum_alone() {
            self.resolve_reads();
        }
    }

    fn is_quorum_alone(&self) -> bool {
        let own = self.config.id;
        let alone = |node| Some(node == own);
        super::quorum::quorum_vote(self.membership.current(), alone)
            == super::quorum::VoteResult::Won
    }

    /// A reply of `term` from `from`: the leader it is meant for, unless it is of another term.
    fn leader_for_reply(&mut self, from: NodeId, term: u64) -> Option<&mut Leader> {
        if term > self.hard_state.term && !is_planted(Mutant::NoStepDownOnHigherTerm) {
            self.become_follower(term, None);
            return None;
        }
        if term < self.hard_state.term && !is_planted(Mutant::StaleAckCounted) {
            return None;
        }
        let now_us = self.now_us;
        let Role::Leader(leader) = &mut self.role else {
            return None;
        };
        leader.progress_mut(from)?.last_active_us = now_us;
        Some(leader)
    }

    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, reply: HeartbeatReply) {
        let Some(leader) = self.leader_for_reply(from, reply.term) else {
            return;
        };
        if reply.read_round <= leader.reads.round() {
            let progress = leader
                .progress_mut(from)
                .expect("a reply's peer has progress");
            progress.read_round = progress.read_round.max(reply.read_round);
        }
        self.accepted(from, reply.session, reply.match_index, reply.received_index);
        self.take_credit(from, reply.session, reply.credit_bytes);
        self.resolve_reads();
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        if self.leader_for_reply(from, reply.term).is_none() {
            return;
        }
        self.take_credit(from, reply.session, reply.credit_bytes);
        match reply.result {
            AppendResult::Accepted {
                match_index,
                received_index,
            } => {
                self.accepted(from, reply.session, match_index, received_index);
            }
            AppendResult::Rejected {
                rejected_prev,
                hint,
                ..
            } => {
                self.rejected(from, reply.session, rejected_prev, hint);
            }
        }
    }

    fn take_credit(&mut self, from: NodeId, session: u64, credit_bytes: u64) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(progress) = leader.progress_mut(from)
            && progress.session == session
        {
            progress.credit_bytes = credit_bytes;
        }
    }

    fn accepted(&mut self, from: NodeId, session: u64, match_index: u64, received_index: u64) {
        let last_index = self.log.last_index();
        let first_index = self.log.first_index();
        let now_us = self.now_us;
        let round_us_max = self.config.election_timeout_us_min;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(from) else {
            return;
        };
        // No peer can have verified more than there is.
        let other_session = progress.session != session && !is_planted(Mutant::SessionUnchecked);
        if other_session {
            mark(Mark::StaleSession);
        }
        if other_session || received_index > last_index || match_index > received_index {
            return;
        }
        let grew = progress.accepted(now_us, match_index, received_index);
        if let ProgressState::Snapshot { .. } = progress.state
            && progress.match_index + 1 >= first_index
        {
            // Whatever brought the peer into the held log, appends can take over.
            progress.resume();
        }
        if grew {
            let match_index = progress.match_index;
            progress
                .catch_up
                .advanced(now_us, match_index, last_index, round_us_max);
            self.advance_commit_by_quorum();
            self.continue_transfer();
        }
    }

    /// Goes back to where the logs may agree: a term at a time, from both sides' knowledge.
    fn rejected(&mut self, from: NodeId, session: u64, rejected_prev: u64, hint: EntryId) {
        let agreed_max = hint.index.min(rejected_prev.saturating_sub(1));
        let agreed_index = self.log.last_not_above(agreed_max, hint.term).index;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(from) else {
            return;
        };
        if progress.session != session || !progress.rejection_is_current(rejected_prev) {
            return;
        }
        progress.received_index = progress.received_index.min(agreed_index);
        progress.probe_from(agreed_index.max(progress.match_index) + 1);
    }
}
