//! Becoming and ceasing to be a leader: pre-vote, votes, stickiness, check-quorum.

use super::effect::Control;
use super::lease::Lease;
use super::marks::{Mark, mark};
use super::message::{Message, VoteReply, VoteRequest};
use super::mutants::{Mutant, is_planted};
use super::progress::Progress;
use super::quorum::{VoteResult, Votes, quorum_vote};
use super::raft::Raft;
use super::read::ReadQueue;
use super::role::{Follower, Leader, Role};
use super::types::{HardState, NodeId};
use super::uncommitted::Uncommitted;
use super::window::Window;
use alloc::boxed::Box;
use alloc::vec::Vec;

impl Raft {
    /// The leader's connection was closed by its machine: likely its process has died. Brings this
    /// node's own timeout forward; pre-vote keeps the hint from disturbing a leader that lives.
    pub fn on_leader_connection_lost(&mut self, now_us: u64) {
        self.advance_clock(now_us);
        let Role::Follower(Follower {
            leader: Some(_), ..
        }) = self.role
        else {
            return;
        };
        // What was promised for a lease is kept also to a leader that seems dead.
        if !self.config.pre_vote || self.config.lease_drift_ppm.is_some() {
            return;
        }
        self.leader_contact_us = 0;
        let soon_us = self.rng.range(0, self.config.heartbeat_interval_us);
        let hinted_us = self.now_us.saturating_add(soon_us);
        self.election_deadline_us = self.election_deadline_us.min(hinted_us);
    }

    /// The owner could not do what leading takes, for want of room: this node campaigns a timeout later at
    /// the earliest, if it was about to. Nothing for a leader.
    pub fn postpone_election(&mut self, now_us: u64) {
        self.advance_clock(now_us);
        let is_leader = matches!(self.role, Role::Leader(_));
        if !is_leader && self.now_us >= self.election_deadline_us {
            self.arm_election();
        }
    }

    pub(super) fn election_timeout(&mut self) {
        // While the disk still holds back the last round's term and vote, another round would only
        // throw that work away.
        if !self.is_promotable() || !self.hard_state_is_durable() || self.keeps_lease_promise() {
            self.arm_election();
            return;
        }
        if self.config.pre_vote {
            self.become_pre_candidate();
        } else {
            self.become_candidate(false);
        }
    }

    /// Changes neither term nor vote. Forgets the leader and any earlier round's votes.
    fn become_pre_candidate(&mut self) {
        let mut votes = Votes::default();
        votes.record(self.config.id, true);
        let result = votes.result(self.membership.current());
        self.fail_forwarded_reads();
        self.role = Role::PreCandidate(votes);
        self.arm_election();
        self.report_role();
        if result == VoteResult::Won {
            self.become_candidate(false);
            return;
        }
        self.request_votes(VoteRequest {
            term: self.hard_state.term + 1,
            last: self.log.last(),
            pre_vote: true,
            transfer: false,
        });
    }

    /// The own vote counts, and the requests leave, once term and vote are durable.
    pub(super) fn become_candidate(&mut self, transfer: bool) {
        assert!(
            !matches!(self.role, Role::Leader(_)),
            "a leader does not campaign"
        );
        let term = self.hard_state.term + 1;
        self.set_hard_state(HardState {
            term,
            vote: Some(self.config.id),
        });
        self.fail_forwarded_reads();
        self.role = Role::Candidate(Votes::default());
        self.arm_election();
        self.report_role();
        self.request_votes(VoteRequest {
            term,
            last: self.log.last(),
            pre_vote: false,
            transfer,
        });
        if is_planted(Mutant::VoteRequestBeforeFlush) {
            self.count_own_vote();
        }
    }

    fn request_votes(&mut self, request: VoteRequest) {
        for peer in self.membership.current().members() {
            if peer != self.config.id && self.membership.current().is_voter(peer) {
                self.send(peer, Message::VoteRequest(request));
            }
        }
    }

    /// Called when term and vote have become durable.
    pub(super) fn count_own_vote(&mut self) {
        if self.hard_state.vote == Some(self.config.id) && matches!(self.role, Role::Candidate(_)) {
            self.count_vote(self.config.id, true);
        }
    }

    pub(super) fn on_vote_request(&mut self, from: NodeId, request: VoteRequest) {
        let sticky =
            !request.transfer && (self.sticks_to_leader(from) || self.keeps_lease_promise());
        if request.pre_vote {
            let granted = !sticky && self.would_vote(from, &request);
            // A grant carries the request's term, a refusal the own one, which may be news.
            let term = if granted && !is_planted(Mutant::PreVoteOwnTerm) {
                request.term
            } else {
                self.hard_state.term
            };
            self.send(
                from,
                Message::VoteReply(VoteReply {
                    term,
                    granted,
                    pre_vote: true,
                }),
            );
            return;
        }
        if request.term > self.hard_state.term {
            if sticky {
                mark(Mark::StuckToLeader);
                return;
            }
            self.become_follower(request.term, None);
        }
        if is_planted(Mutant::TimerResetByRequests) {
            self.arm_election();
        }
        // The term may have been learned without a vote: a promise to a leader is kept in it, too.
        let is_promised = !request.transfer && self.keeps_lease_promise();
        let granted = !is_promised && self.would_vote(from, &request);
        if !self.hard_state_is_durable() {
            mark(Mark::VoteDuringFlush);
        }
        if granted {
            if !self.is_voter() {
                mark(Mark::LearnerVoted);
            }
            self.set_hard_state(HardState {
                vote: Some(from),
                ..self.hard_state
            });
            self.arm_election();
        }
        let term = self.hard_state.term;
        self.send(
            from,
            Message::VoteReply(VoteReply {
                term,
                granted,
                pre_vote: false,
            }),
        );
    }

    /// A node that hears its leader does not help to depose it. The leader itself may: its asking
    /// shows that it has lost its place.
    fn sticks_to_leader(&self, from: NodeId) -> bool {
        if !self.config.pre_vote && !self.config.check_quorum || is_planted(Mutant::NoStickiness) {
            return false;
        }
        match &self.role {
            Role::Leader(_) => self.config.check_quorum,
            Role::Follower(Follower {
                leader: Some(leader),
                ..
            }) => {
                let heard_until_us = self
                    .leader_contact_us
                    .saturating_add(self.config.election_timeout_us_min);
                *leader != from && self.leader_contact_us > 0 && self.now_us < heard_until_us
            }
            _ => false,
        }
    }

    /// Learners vote too: they may be voters by an entry they do not have yet.
    fn would_vote(&self, from: NodeId, request: &VoteRequest) -> bool {
        let HardState { term, vote } = self.hard_state;
        if request.term < term {
            return false;
        }
        let free = vote == Some(from)
            || (vote.is_none() && self.leader().is_none())
            || (request.pre_vote && request.term > term)
            || is_planted(Mutant::SecondVote) && self.leader().is_none();
        let last = self.log.last();
        let up_to_date = if is_planted(Mutant::VoteIgnoresLog) {
            true
        } else if is_planted(Mutant::VoteByIndexOnly) {
            request.last.index >= last.index
        } else if is_planted(Mutant::VoteByComponent) {
            request.last.term >= last.term && request.last.index >= last.index
        } else {
            request.last >= last
        };
        free && up_to_date
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        let term = self.hard_state.term;
        let pre_vote_granted = reply.pre_vote && reply.granted;
        if !pre_vote_granted && reply.term > term && !is_planted(Mutant::NoStepDownOnHigherTerm) {
            self.become_follower(reply.term, None);
            return;
        }
        let about_this_round = match self.role {
            Role::PreCandidate(_) if pre_vote_granted => reply.term == term + 1,
            Role::PreCandidate(_) => reply.pre_vote,
            Role::Candidate(_) => !reply.pre_vote && reply.term == term,
            _ => false,
        };
        if about_this_round && self.membership.current().is_voter(from) {
            self.count_vote(from, reply.granted || is_planted(Mutant::RefusalCounted));
        }
    }

    fn count_vote(&mut self, from: NodeId, granted: bool) {
        let configuration = self.membership.current();
        let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &mut self.role else {
            return;
        };
        votes.record(from, granted);
        let result = votes.result(configuration);
        match (result, &self.role) {
            (VoteResult::Won, Role::PreCandidate(_)) => self.become_candidate(false),
            (VoteResult::Won, _) => self.become_leader(),
            (VoteResult::Lost, _) => self.become_follower(self.hard_state.term, None),
            (VoteResult::Pending, _) => {}
        }
    }

    fn become_leader(&mut self) {
        assert!(
            self.hard_state_is_durable() || is_planted(Mutant::VoteRequestBeforeFlush),
            "nobody leads on a term that could be forgotten"
        );
        assert!(
            self.hard_state.vote == Some(self.config.id),
            "a leader voted for itself"
        );
        let next_index = self.log.last_index() + 1;
        let mut session_last = 0;
        let mut peers = Vec::new();
        for peer in self.membership.current().members() {
            if peer != self.config.id {
                session_last += 1;
                let window = Window::new(&self.config);
                peers.push((
                    peer,
                    Progress::new(next_index, session_last, self.now_us, window),
                ));
            }
        }
        self.role = Role::Leader(Box::new(Leader {
            peers,
            term_start_index: next_index,
            uncommitted: Uncommitted::starting_at(next_index),
            reads: ReadQueue::default(),
            heartbeat_deadline_us: self.now_us,
            quorum_deadline_us: self.now_us + self.config.election_timeout_us_min,
            transfer: None,
            session_last,
            lease: Lease::default(),
        }));
        self.report_role();
        let index = self.append_control(Control::Noop);
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.push(index, 0);
        }
        self.broadcast_heartbeat();
    }

    /// Follows `leader` in `term`, or nobody yet. The vote is kept within a term.
    pub(super) fn become_follower(&mut self, term: u64, leader: Option<NodeId>) {
        if term > self.hard_state.term {
            self.set_hard_state(HardState { term, vote: None });
            if is_planted(Mutant::TermNotSaved) {
                self.hard_state_unsaved = false;
                self.hard_state_durable = self.hard_state;
            }
        } else if is_planted(Mutant::VoteResetOnStepDown) && !matches!(self.role, Role::Follower(_))
        {
            self.hard_state.vote = None;
            self.hard_state_durable.vote = None;
        }
        let was_follower = matches!(self.role, Role::Follower(_));
        self.fail_reads();
        self.fail_forwarded_reads();
        self.role = Role::Follower(Follower::new(leader, self.commit_index));
        // Learning of a term is no reason to wait longer: only a leader or a vote given is.
        if !was_follower {
            self.arm_election();
        }
        self.report_role();
    }

    /// A valid message of `term`'s leader has come.
    pub(super) fn follow(&mut self, term: u64, from: NodeId) {
        match &mut self.role {
            _ if term > self.hard_state.term => self.become_follower(term, Some(from)),
            Role::Follower(follower) => {
                let leader = *follower.leader.get_or_insert(from);
                assert!(
                    leader == from,
                    "two leaders in term {term}: {leader} and {from}"
                );
                self.report_role();
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {
                mark(Mark::CandidateFollowed);
                self.become_follower(term, Some(from));
            }
            Role::Leader(_) => panic!("two leaders in term {term}: this node and {from}"),
        }
        self.leader_contact_us = self.now_us.max(1);
        self.arm_election();
    }

    /// Steps down when no quorum was heard for as long as followers stick to a leader.
    pub(super) fn check_quorum(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if is_planted(Mutant::NoCheckQuorum) {
            leader.quorum_deadline_us = self.now_us + self.config.election_timeout_us_min;
            return;
        }
        if !self.config.check_quorum || self.now_us < leader.quorum_deadline_us {
            return;
        }
        let since_us = self
            .now_us
            .saturating_sub(self.config.election_timeout_us_min);
        leader.quorum_deadline_us = self.now_us + self.config.election_timeout_us_min / 2;
        let own = self.config.id;
        let heard = quorum_vote(self.membership.current(), |node| {
            let active = |progress: &Progress| progress.last_active_us >= since_us;
            Some(node == own || leader.progress(node).is_some_and(active))
        });
        if heard != VoteResult::Won {
            mark(Mark::SteppedDownUnheard);
            self.become_follower(self.hard_state.term, None);
        }
    }
}
