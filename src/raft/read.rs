//! Linearizable reads by ReadIndex: one heartbeat round confirms every read that waited for it.

use super::effect::Effect;
use super::error::ReadError;
use super::quorum::quorum_value;
use super::raft::Raft;
use super::role::Role;
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
    ticket: u64,
    round: u64,
    index: u64,
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

    /// A heartbeat that leaves now may open the round the last reads wait for.
    pub(super) fn start_wanted_round(&mut self) {
        if self.wants_round() {
            self.started += 1;
        }
    }
}

impl Raft {
    /// Asks for a linearizable read. Answered by `ReadReady` or `ReadFailed` with `ticket`.
    ///
    /// Before the term's first commit the read waits for the term's no-op, so a pure-read workload
    /// does not stall at a change of leaders.
    pub fn read_index(&mut self, now_us: u64, ticket: u64) -> Result<(), ReadError> {
        self.advance_clock(now_us);
        let known_leader = self.leader();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader {
                leader: known_leader,
            });
        };
        let reads = &mut leader.reads;
        if reads.waiting.len() >= self.config.reads_waiting_max as usize {
            return Err(ReadError::Busy {
                waiting: reads.waiting.len() as u64,
            });
        }
        let index = self.commit_index.max(leader.term_start_index);
        reads.waiting.push_back(Read {
            ticket,
            round: reads.started + 1,
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
        let is_ready = |read: &Read| read.round <= confirmed && read.index <= self.commit_index;
        while waiting.front().is_some_and(is_ready) {
            let Read { ticket, index, .. } = waiting.pop_front().expect("front was just seen");
            self.effects.push_back(Effect::ReadReady { ticket, index });
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
            self.emit(Effect::ReadFailed {
                ticket: read.ticket,
            });
        }
    }
}
