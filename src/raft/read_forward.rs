//! Linearizable reads on a follower: the leader is asked for the index, the follower serves the read.
//!
//! One question is under way at a time and answers every read that came before it left; what comes later
//! waits for the next one. A question is repeated under the same number until it is answered: any answer
//! to it was confirmed after the reads it covers were asked for. Numbers start at random, so an answer to
//! a question of this node's former life answers nothing. Reads fail when the leader is lost, refuses, or
//! stays silent for an election timeout.

use super::effect::Effect;
use super::error::ReadError;
use super::marks::{Mark, mark};
use super::message::{Message, ReadIndexReply, ReadIndexRequest};
use super::raft::Raft;
use super::rng::Rng;
use super::types::NodeId;
use alloc::vec::Vec;

/// Invariant: `waiting` is empty unless `asked` is not.
pub(super) struct ForwardedReads {
    /// Answered by the question under way.
    asked: Vec<u64>,
    /// Came after it.
    waiting: Vec<u64>,
    /// Number of the question under way, or of the last one.
    number: u64,
    /// When it is repeated.
    retry_at_us: u64,
    /// When it is given up.
    deadline_us: u64,
}

impl ForwardedReads {
    pub(super) fn new(rng: &mut Rng) -> ForwardedReads {
        ForwardedReads {
            asked: Vec::new(),
            waiting: Vec::new(),
            // Far from the end of the range: the numbers never run out.
            number: rng.next() >> 2,
            retry_at_us: 0,
            deadline_us: 0,
        }
    }

    /// When the next step is due; `u64::MAX` when nothing is asked.
    pub(super) fn next_deadline_us(&self) -> u64 {
        if self.asked.is_empty() {
            u64::MAX
        } else {
            self.retry_at_us.min(self.deadline_us)
        }
    }
}

impl Raft {
    pub(super) fn forward_read(&mut self, leader: NodeId, ticket: u64) -> Result<(), ReadError> {
        let forwarded = &mut self.forwarded;
        let waiting = forwarded.asked.len() + forwarded.waiting.len();
        if waiting >= self.config.reads_waiting_max as usize {
            return Err(ReadError::Busy {
                waiting: waiting as u64,
            });
        }
        forwarded.waiting.push(ticket);
        if forwarded.asked.is_empty() {
            self.ask_for_waiting(leader);
        }
        Ok(())
    }

    fn ask_for_waiting(&mut self, leader: NodeId) {
        let forwarded = &mut self.forwarded;
        if forwarded.waiting.is_empty() {
            return;
        }
        core::mem::swap(&mut forwarded.asked, &mut forwarded.waiting);
        forwarded.number += 1;
        forwarded.deadline_us = self.now_us + self.config.election_timeout_us_max;
        self.send_question(leader);
    }

    fn send_question(&mut self, leader: NodeId) {
        self.forwarded.retry_at_us = self.now_us + self.config.heartbeat_interval_us;
        let request = ReadIndexRequest {
            term: self.hard_state.term,
            number: self.forwarded.number,
        };
        self.send(leader, Message::ReadIndexRequest(request));
    }

    /// Repeats the question, or gives it up.
    pub(super) fn tick_forwarded_reads(&mut self) {
        if self.now_us < self.forwarded.next_deadline_us() {
            return;
        }
        match self.leader() {
            Some(leader) if self.now_us < self.forwarded.deadline_us => {
                mark(Mark::ReadRepeated);
                self.send_question(leader);
            }
            _ => self.fail_forwarded_reads(),
        }
    }

    pub(super) fn on_read_index_reply(&mut self, from: NodeId, reply: ReadIndexReply) {
        if reply.term > self.hard_state.term {
            self.become_follower(reply.term, None);
            return;
        }
        let current = reply.term == self.hard_state.term
            && self.leader() == Some(from)
            && reply.number == self.forwarded.number;
        if !current {
            return;
        }
        let asked = core::mem::take(&mut self.forwarded.asked);
        for ticket in asked {
            self.emit(if reply.ok {
                mark(Mark::ReadForwarded);
                let index = reply.index;
                Effect::ReadReady { ticket, index }
            } else {
                Effect::ReadFailed { ticket }
            });
        }
        self.ask_for_waiting(from);
    }

    /// The leader that was asked leads no more, or is silent.
    pub(super) fn fail_forwarded_reads(&mut self) {
        let asked = core::mem::take(&mut self.forwarded.asked);
        let waiting = core::mem::take(&mut self.forwarded.waiting);
        for ticket in asked.into_iter().chain(waiting) {
            self.emit(Effect::ReadFailed { ticket });
        }
    }
}
