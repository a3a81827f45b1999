//! Linearizable reads by ReadIndex: one heartbeat round confirms every read that waited for it.

use super::effect::Effect;
use super::error::ReadError;
use super::marks::{Mark, mark};
use super::message::{Message, ReadIndexReply, ReadIndexRequest};
use super::mutants::{Mutant, is_planted};
use super::quorum::quorum_value;
use super::raft::Raft;
use super::role::Role;
use super::types::NodeId;
use alloc::collections::VecDeque;

/// Rounds are numbered by the leader, grow for its whole term and are never reused, so an answer to
/// an earlier round cannot confirm a later read.
///
/// Invariants: in `waiting`, rounds and indexes do not go back; `confirmed <= started`.
#[derive(Default)]
pub(super) struct ReadQueue {
    waiting: VecDeque<Read>,
    started: u64,
    confirmed: u64,
}

struct Read {
    origin: Origin,
    round: u64,
    index: u64,
}

/// Who asked.
#[derive(Copy, Clone)]
enum Origin {
    /// This node's owner, under a ticket.
    Owner(u64),
    /// A follower, under its number.
    Follower(NodeId, u64),
}

impl ReadQueue {
    pub(super) fn round(&self) -> u64 {
        self.started
    }

    /// Whether reads wait for a round that has not been started.
    fn wants_round(&self) -> bool {
        self.waiting
            .back()
            .is_some_and(|read| read.round > self.started)
    }

    /// A heartbeat that leaves now may open the round the last reads wait for, or one for a lease.
    pub(super) fn start_round(&mut self, for_lease: bool) {
        let reused = is_planted(Mutant::ReadRoundReused) && self.started > 0;
        if (self.wants_round() || for_lease) && !reused {
            self.started += 1;
        }
    }
}

impl Raft {
    /// Asks for a linearizable read. Answered by `ReadReady` or `ReadFailed` with `ticket`.
    ///
    /// Before the term's first commit the read waits for the term's no-op, so a pure-read workload
    /// does not stall at a change of leaders.
    ///
    /// A follower asks its leader; the read is then served by the follower. With a valid lease a
    /// leader answers at once.
    pub fn read_index(&mut self, now_us: u64, ticket: u64) -> Result<(), ReadError> {
        self.advance_clock(now_us);
        match (&self.role, self.leader()) {
            (Role::Leader(_), _) => self.admit_read(Origin::Owner(ticket)),
            (_, Some(leader)) => self.forward_read(leader, ticket),
            (_, None) => Err(ReadError::NotLeader { leader: None }),
        }
    }

    fn admit_read(&mut self, origin: Origin) -> Result<(), ReadError> {
        let lease_holds = self.lease_holds();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader { leader: None });
        };
        let unasked = is_planted(Mutant::ReadWithoutRound);
        if (lease_holds || unasked) && self.commit_index >= leader.term_start_index {
            mark(Mark::LeaseServed);
            let index = self.commit_index;
            self.answer_read(origin, index);
            return Ok(());
        }
        let reads = &mut leader.reads;
        if reads.waiting.len() >= self.config.reads_waiting_max as usize {
            return Err(ReadError::Busy {
                waiting: reads.waiting.len() as u64,
            });
        }
        let mut index = self.commit_index.max(leader.term_start_index);
        if is_planted(Mutant::ReadBeforeTermCommit) {
            index = self.commit_index;
        }
        let mut round = reads.started + 1;
        if is_planted(Mutant::ReadRoundReused) {
            round = 1;
        }
        reads.waiting.push_back(Read {
            origin,
            round,
            index,
        });
        if reads.confirmed == reads.started {
            self.broadcast_heartbeat();
        }
        Ok(())
    }

    /// Answers what a quorum has confirmed and is committed, and opens the next round if wanted.
    pub(super) fn resolve_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let own = self.config.id;
        let started = leader.reads.started;
        let confirmed = quorum_value(self.membership.current(), |node| {
            if node == own {
                started
            } else {
                leader
                    .progress(node)
                    .map_or(0, |progress| progress.read_round)
            }
        });
        let reads = &mut leader.reads;
        reads.confirmed = reads.confirmed.max(confirmed.min(started));
        let confirmed = reads.confirmed;
        let mut waiting = core::mem::take(&mut reads.waiting);
        let commit_index = self.commit_index;
        let is_ready = |read: &Read| read.round <= confirmed && read.index <= commit_index;
        if waiting.get(1).is_some_and(is_ready) {
            mark(Mark::ReadsShareRound);
        }
        while waiting.front().is_some_and(is_ready) {
            let Read { origin, index, .. } = waiting.pop_front().expect("front was just seen");
            self.answer_read(origin, index);
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.reads.waiting = waiting;
        if leader.reads.confirmed == leader.reads.started && leader.reads.wants_round() {
            self.broadcast_heartbeat();
        }
    }

    /// Leadership ends: nothing can be confirmed any more.
    pub(super) fn fail_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let waiting = core::mem::take(&mut leader.reads.waiting);
        for read in waiting {
            match read.origin {
                Origin::Owner(ticket) => self.emit(Effect::ReadFailed { ticket }),
                Origin::Follower(to, number) => self.refuse_forwarded(to, number),
            }
        }
    }

    fn answer_read(&mut self, origin: Origin, index: u64) {
        match origin {
            Origin::Owner(ticket) => self.emit(Effect::ReadReady { ticket, index }),
            Origin::Follower(to, number) => {
                let reply = ReadIndexReply {
                    term: self.hard_state.term,
                    number,
                    index,
                    ok: true,
                };
                self.send(to, Message::ReadIndexReply(reply));
            }
        }
    }

    fn refuse_forwarded(&mut self, to: NodeId, number: u64) {
        let reply = ReadIndexReply {
            term: self.hard_state.term,
            number,
            index: 0,
            ok: false,
        };
        self.send(to, Message::ReadIndexReply(reply));
    }

    /// A follower's question. Its term is no reason to step down: it is of a node that follows.
    pub(super) fn on_read_index_request(&mut self, from: NodeId, request: ReadIndexRequest) {
        let is_member = self.membership.current().contains(from);
        let admitted = request.term == self.hard_state.term
            && is_member
            && self
                .admit_read(Origin::Follower(from, request.number))
                .is_ok();
        if !admitted && is_member {
            self.refuse_forwarded(from, request.number);
        }
    }
}
