//! The points of a node's loop at which it looks at the clock for `node::latency`.

use drave_batch::wire;

use super::Node;
use crate::raft::NodeId;
use crate::replica::Now;

impl Node {
    /// Since when what this turn takes from the sockets has waited.
    pub(super) fn waiting_since_us(&self, now: Now) -> u64 {
        let since = self.net.waiting_since();
        since.map_or(now.mono_us, |since| self.clock.mono_us_at(since))
    }

    /// What this turn had to append is in the log.
    pub(super) fn note_appended(&mut self, since_us: u64, now: Now) {
        let next_index = self.replica.raft().last().index + 1;
        if self.replica.outputs.log_replaced {
            self.latency.restart(next_index);
        } else if self.latency.is_news(next_index) {
            let times_us = (since_us, now.mono_us, self.clock.mono_us());
            let is_leader = self.replica.is_leader();
            self.latency.appended(times_us, next_index, is_leader);
        }
    }

    /// A peer says how far its disk is.
    pub(super) fn note_acknowledged(&mut self, now: Now, peer: NodeId, reply: &wire::AppendReply) {
        if reply.accepted && self.replica.is_leader() {
            let (index, flush_us) = (reply.index, reply.flush_us);
            self.latency
                .acknowledged(now.mono_us, peer, index, flush_us);
        }
    }

    /// Something has become durable at `closer`: it may be what a quorum waited for.
    pub(super) fn note_committed(&mut self, now: Now, closer: NodeId) {
        if self.replica.is_leader() {
            let next_index = self.replica.raft().commit_index() + 1;
            self.latency.committed(now.mono_us, closer, next_index);
        }
    }

    /// The answers of this turn are with the sockets.
    pub(super) fn note_answered(&mut self, now: Now) {
        if self.latency.has_to_answer() {
            let answered_us = self.clock.mono_us();
            self.latency.answered(now.mono_us, answered_us);
        }
    }

    /// What there was to send and to flush is with sockets and disk since `at_us`.
    pub(super) fn note_sent(&mut self, at_us: u64) {
        self.latency.submitted(at_us, self.log.wal.submitted_end());
        if self.replica.is_leader() {
            self.latency.sent(at_us, self.replica.raft().progress());
        } else if !self.replica.outputs.roles.is_empty() {
            self.latency.lead_lost();
        }
    }
}
