//! Where entries spend their time: a histogram for each stage of the way from socket to answer, always on.
//!
//! ```text
//!  queue  encode |  write    flush          |            answer
//!  ------ ------ | ------- ---------        |            ------
//!                | peer: wire  flush  wire  |
//!                | ------------------------ | (ack)
//!  socket        appended                   committed    answered
//!                --------- commit ---------
//! ```
//!
//! Nothing is kept for a single entry: what is appended, sent or submitted in one turn of the node's loop has one
//! mark, so a turn costs the same whether it took one entry or thousands. All times are the owner's, in
//! microseconds. It decides nothing.

mod line;

use std::collections::BTreeMap;

use drave_batch::wire::{LatencyReply, QuorumsClosed, StageLatency};
use hdrhistogram::Histogram;

use crate::raft::{NodeId, ProgressState, ProgressView};
use line::Line;

/// Figures are of the span under way and of the whole one before it.
const SPAN_US: u64 = 30_000_000;

/// The longest time told apart; what takes longer counts as this.
const US_MAX: u64 = 60_000_000;

/// One histogram's memory is 10 KiB at this precision.
const SIGNIFICANT_DIGITS: u8 = 2;

/// One stage, in the present span and the one before.
struct Stage {
    present: Histogram<u32>,
    before: Histogram<u32>,
}

impl Stage {
    fn new() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1, US_MAX, SIGNIFICANT_DIGITS)
                .expect("constant bounds that the histogram takes")
        };
        Self {
            present: empty(),
            before: empty(),
        }
    }

    fn record(&mut self, us: u64, entries: u64) {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        self.present.saturating_record_n(us, entries);
    }

    fn begin_span(&mut self) {
        std::mem::swap(&mut self.present, &mut self.before);
        self.present.reset();
    }

    fn told(&self, stage: &str, peer: u64) -> StageLatency {
        let mut both = self.before.clone();
        both.add(&self.present).expect("both have the same bounds");
        StageLatency {
            stage: stage.to_owned(),
            peer,
            entries: both.len(),
            us_p50: both.value_at_quantile(0.5),
            us_p99: both.value_at_quantile(0.99),
            us_p999: both.value_at_quantile(0.999),
            us_max: both.max(),
        }
    }
}

/// What a leader measures of one peer.
struct Peer {
    /// When it was last sent to, or could have been.
    seen_us: u64,
    /// Sent, and not yet acknowledged; nothing while this node does not lead.
    sent: Option<Line>,
    wire: Stage,
    flush: Stage,
    ack: Stage,
}

/// Entries that one node's flush committed, in the present span and the one before.
#[derive(Clone, Copy, Default)]
struct Closed {
    present: u64,
    before: u64,
}

/// See the module.
pub(crate) struct Latency {
    queue: Stage,
    encode: Stage,
    write: Stage,
    flush: Stage,
    commit: Stage,
    answer: Stage,
    peers: BTreeMap<u64, Peer>,
    closed: BTreeMap<u64, Closed>,
    /// Appended, and not yet given to the disk.
    to_write: Line,
    /// Given to the disk, and not yet durable.
    to_flush: Line,
    /// Appended, and not yet durable.
    to_durable: Line,
    /// Appended as a leader, and not yet committed.
    to_commit: Line,
    /// Committed in this turn.
    to_answer: u64,
    /// How long the entry that became durable last took from its coming to then.
    residence_us: u64,
    /// When the spans under way and before it began.
    spans_us: (u64, u64),
}

impl Latency {
    /// For a log that goes on at `next_index`.
    pub(super) fn new(now_us: u64, next_index: u64) -> Self {
        Self {
            queue: Stage::new(),
            encode: Stage::new(),
            write: Stage::new(),
            flush: Stage::new(),
            commit: Stage::new(),
            answer: Stage::new(),
            peers: BTreeMap::new(),
            closed: BTreeMap::new(),
            to_write: Line::starting_at(next_index),
            to_flush: Line::starting_at(next_index),
            to_durable: Line::starting_at(next_index),
            to_commit: Line::starting_at(next_index),
            to_answer: 0,
            residence_us: 0,
            spans_us: (now_us, now_us),
        }
    }

    /// A turn of the loop begins.
    pub(super) fn begin_turn(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.spans_us.0) < SPAN_US {
            return;
        }
        self.spans_us = (now_us, self.spans_us.0);
        for stage in [
            &mut self.queue,
            &mut self.encode,
            &mut self.write,
            &mut self.flush,
            &mut self.commit,
            &mut self.answer,
        ] {
            stage.begin_span();
        }
        for peer in self.peers.values_mut() {
            for stage in [&mut peer.wire, &mut peer.flush, &mut peer.ack] {
                stage.begin_span();
            }
        }
        // What was measured of the others is older than what is told.
        let told_since_us = self.spans_us.1;
        self.peers.retain(|_, peer| peer.seen_us >= told_since_us);
        for closed in self.closed.values_mut() {
            *closed = Closed {
                present: 0,
                before: closed.present,
            };
        }
        self.closed.retain(|_, closed| closed.before > 0);
    }

    /// The log was replaced: it goes on at `next_index`.
    pub(super) fn restart(&mut self, next_index: u64) {
        for line in [
            &mut self.to_write,
            &mut self.to_flush,
            &mut self.to_durable,
            &mut self.to_commit,
        ] {
            *line = Line::starting_at(next_index);
        }
    }

    /// Whether a log that ends before `next_index` is not the one last seen.
    pub(super) fn is_news(&self, next_index: u64) -> bool {
        self.to_durable.end() != next_index
    }

    /// This turn's requests, which waited since `since_us` until `begun_us`, are in the log by `now_us`, and it
    /// goes on at `next_index`. The wait is that of the first of them: for the others it is an upper bound.
    pub(super) fn appended(
        &mut self,
        (since_us, begun_us, now_us): (u64, u64, u64),
        next_index: u64,
        is_leader: bool,
    ) {
        let entries = next_index.saturating_sub(self.to_durable.end());
        self.to_write.extend(next_index, now_us);
        self.to_durable.extend(next_index, now_us);
        self.to_flush.cut(next_index);
        if !is_leader {
            self.to_commit = Line::starting_at(next_index);
            return;
        }
        self.to_commit.extend(next_index, now_us);
        if entries > 0 {
            self.queue
                .record(begun_us.saturating_sub(since_us), entries);
            self.encode
                .record(now_us.saturating_sub(begun_us) / entries, entries);
        }
    }

    /// The disk has been given everything before `next_index`.
    pub(super) fn submitted(&mut self, now_us: u64, next_index: u64) {
        let write = &mut self.write;
        self.to_write.pass(next_index, |at_us, entries| {
            write.record(now_us.saturating_sub(at_us), entries);
        });
        self.to_flush.extend(next_index, now_us);
    }

    /// Everything up to `index` is on this node's disk.
    pub(super) fn durable(&mut self, now_us: u64, index: u64) {
        let flush = &mut self.flush;
        self.to_flush.pass(index + 1, |at_us, entries| {
            flush.record(now_us.saturating_sub(at_us), entries);
        });
        let residence_us = &mut self.residence_us;
        self.to_durable.pass(index + 1, |at_us, _| {
            *residence_us = now_us.saturating_sub(at_us);
        });
    }

    /// How long the entry that became durable last took from its coming to then: what a follower says with its
    /// acknowledgements.
    pub(super) fn residence_us(&self) -> u64 {
        self.residence_us
    }

    /// What was sent to the peers by `now_us`, as a leader's progress shows it.
    pub(super) fn sent(&mut self, now_us: u64, progress: impl Iterator<Item = ProgressView>) {
        for view in progress {
            let peer = self.peers.entry(view.peer.0).or_insert_with(|| Peer {
                seen_us: now_us,
                sent: None,
                wire: Stage::new(),
                flush: Stage::new(),
                ack: Stage::new(),
            });
            peer.seen_us = now_us;
            let sent = peer
                .sent
                .get_or_insert_with(|| Line::starting_at(view.next_index));
            if view.state == ProgressState::Replicate && view.next_index >= sent.end() {
                sent.extend(view.next_index, now_us);
            } else {
                *sent = Line::starting_at(view.next_index);
            }
        }
    }

    /// This node does not lead any more: what is on its way to others is not waited for.
    pub(super) fn lead_lost(&mut self) {
        for peer in self.peers.values_mut() {
            peer.sent = None;
        }
        self.to_answer = 0;
    }

    /// A peer has everything up to `index` on its disk, where the last of it took `flush_us` from its coming.
    ///
    /// What was on the wire is told from what was at the peer by that last one: the others, which may have
    /// waited there for a disk that was busy, are taken to have been on the wire for as long.
    pub(super) fn acknowledged(&mut self, now_us: u64, peer: NodeId, index: u64, flush_us: u64) {
        let next_index = index.saturating_add(1);
        let Some(peer) = self.peers.get_mut(&peer.0) else {
            return;
        };
        let (wire, flush, ack) = (&mut peer.wire, &mut peer.flush, &mut peer.ack);
        let Some(sent) = &mut peer.sent else {
            return;
        };
        let Some(last_us) = sent.last_before(next_index) else {
            return;
        };
        let last_wire_us = now_us.saturating_sub(last_us).saturating_sub(flush_us);
        sent.pass(next_index, |at_us, entries| {
            let ack_us = now_us.saturating_sub(at_us);
            let wire_us = last_wire_us.min(ack_us);
            ack.record(ack_us, entries);
            wire.record(wire_us, entries);
            flush.record(ack_us - wire_us, entries);
        });
    }

    /// Everything before `next_index` is committed; `closer`'s flush was what the quorum waited for.
    pub(super) fn committed(&mut self, now_us: u64, closer: NodeId, next_index: u64) {
        let commit = &mut self.commit;
        let mut count = 0;
        self.to_commit.pass(next_index, |at_us, entries| {
            commit.record(now_us.saturating_sub(at_us), entries);
            count += entries;
        });
        if count > 0 {
            self.closed.entry(closer.0).or_default().present += count;
            self.to_answer += count;
        }
    }

    /// Whether entries were committed that are to be answered.
    pub(super) fn has_to_answer(&self) -> bool {
        self.to_answer > 0
    }

    /// What was committed since the turn began at `begun_us` is answered.
    pub(super) fn answered(&mut self, begun_us: u64, now_us: u64) {
        let entries = std::mem::take(&mut self.to_answer);
        self.answer.record(now_us.saturating_sub(begun_us), entries);
    }

    /// What a node says to who asks.
    pub(crate) fn told(&self, node_id: u64, now_us: u64) -> LatencyReply {
        let own = [
            ("queue", &self.queue),
            ("encode", &self.encode),
            ("write", &self.write),
            ("flush", &self.flush),
        ];
        let mut stages: Vec<StageLatency> = own
            .iter()
            .map(|(name, stage)| stage.told(name, 0))
            .collect();
        for (id, peer) in &self.peers {
            stages.push(peer.wire.told("peer wire", *id));
            stages.push(peer.flush.told("peer flush", *id));
            stages.push(peer.ack.told("peer ack", *id));
        }
        stages.push(self.commit.told("commit", 0));
        stages.push(self.answer.told("answer", 0));
        stages.retain(|stage| stage.entries > 0);
        let closed = self.closed.iter().map(|(node_id, closed)| QuorumsClosed {
            node_id: *node_id,
            entries: closed.present + closed.before,
        });
        LatencyReply {
            node_id,
            span_us: now_us.saturating_sub(self.spans_us.1),
            stages,
            closed: closed.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
