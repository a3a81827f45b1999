//! A snapshot on its way to a peer: pulled in chunks like appends, a window of them in flight.

use drave_batch::wire::SnapshotReply;

use super::super::{EntryLog, Fatal, Now, Replica};
use super::pause::SendingPauses;
use crate::raft::{EntryId, NodeId, ProgressState};

/// Chunks that may be sent and not yet acknowledged.
const WINDOW_CHUNKS: u64 = 4;

/// Waits without any progress after which a session is given up: what it keeps from being compacted is let
/// go, and the core looks again at what the peer needs.
const STALLS_MAX: u32 = 8;

/// The next chunk for a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SnapshotPlan {
    /// Which stored snapshot.
    pub snapshot: EntryId,
    /// From where on.
    pub offset: u64,
    /// Bytes at most. None may be left: an empty chunk asks the peer how far it is.
    pub bytes_max: u32,
    /// To be carried.
    pub term: u64,
    /// To be carried.
    pub session: u64,
}

/// A snapshot that one peer is getting. Invariant: `acked <= sent`.
#[derive(Debug)]
struct Session {
    peer: NodeId,
    number: u64,
    snapshot: EntryId,
    /// Known once the first chunk was read.
    total_bytes: Option<u64>,
    /// What the peer has, as it said last.
    acked: u64,
    sent: u64,
    /// The peer is to be asked how far it is, even if nothing is left to send.
    asks: bool,
    /// It was asked and has not answered: only then does it count that it is behind what it said before.
    awaits: bool,
    /// When something was last heard of it, or given up as lost.
    moved_us: u64,
    stalls: u32,
}

/// All that is being sent, by a leader: one session for each peer at most.
#[derive(Debug, Default)]
pub(in super::super) struct Sending {
    sessions: Vec<Session>,
    pauses: SendingPauses,
    /// Never used twice in a term: this node leads in it once.
    last_number: u64,
}

impl Sending {
    pub(in super::super) fn clear(&mut self) {
        self.sessions.clear();
        self.pauses.clear();
    }

    pub(in super::super) fn lowest_index(&self) -> Option<u64> {
        self.sessions
            .iter()
            .map(|session| session.snapshot.index)
            .min()
    }

    /// When the next session counts as stalled, or may begin.
    pub(in super::super) fn deadline_us(&self, patience_us: u64) -> u64 {
        let due = self.sessions.iter();
        due.map(|session| session.moved_us.saturating_add(patience_us))
            .min()
            .unwrap_or(u64::MAX)
            .min(self.pauses.deadline_us())
    }

    /// The connection to a peer is another one: what was in flight is gone.
    pub(in super::super) fn on_link(&mut self, peer: NodeId) {
        if let Some(session) = self.of(peer) {
            session.sent = session.acked;
            session.asks = true;
        }
    }

    #[cfg(test)]
    pub(in super::super) fn sessions_begun(&self) -> u64 {
        self.last_number
    }

    fn of(&mut self, peer: NodeId) -> Option<&mut Session> {
        self.sessions
            .iter_mut()
            .find(|session| session.peer == peer)
    }

    fn end(&mut self, peer: NodeId) {
        self.sessions.retain(|session| session.peer != peer);
    }
}

impl Replica {
    /// The next chunk for `peer`, to be asked for when its connection has room. `None`: it needs no
    /// snapshot, or its window is full.
    #[must_use]
    pub fn plan_snapshot_chunk(&mut self, now: Now, peer: NodeId) -> Option<SnapshotPlan> {
        if !self.is_leader() {
            return None;
        }
        self.follow_progress(peer);
        if self.sending.of(peer).is_none() {
            self.begin_snapshot(now, peer)?;
        }
        let (term, bytes_max) = (self.raft.term(), self.config.snapshot_chunk_bytes);
        let window_bytes = WINDOW_CHUNKS * u64::from(bytes_max);
        let session = self.sending.of(peer)?;
        let is_left = match session.total_bytes {
            Some(total) => session.sent < total,
            None => session.sent == 0,
        };
        let has_window = session.sent - session.acked < window_bytes;
        (session.asks || (is_left && has_window)).then_some(SnapshotPlan {
            snapshot: session.snapshot,
            offset: session.sent,
            bytes_max,
            term,
            session: session.number,
        })
    }

    /// The first `bytes` that `plan` asked for, of `total_bytes` in all, went to the peer's connection.
    pub fn snapshot_chunk_sent(
        &mut self,
        now: Now,
        peer: NodeId,
        plan: &SnapshotPlan,
        bytes: u64,
        total_bytes: u64,
    ) {
        let Some(session) = self.sending.of(peer) else {
            return;
        };
        if session.number != plan.session || session.sent != plan.offset {
            return;
        }
        if session.sent == session.acked {
            session.moved_us = now.mono_us;
        }
        session.sent += bytes;
        session.total_bytes = Some(total_bytes);
        session.awaits |= std::mem::take(&mut session.asks);
    }

    /// A peer says how much of a snapshot it has.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_snapshot_reply(
        &mut self,
        now: Now,
        from: NodeId,
        reply: &SnapshotReply,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        // A reply of another term or session is not about what is being sent now.
        if !self.is_leader() || reply.term != self.raft.term() {
            return Ok(());
        }
        let Some(session) = self.sending.of(from) else {
            return Ok(());
        };
        if session.number != reply.session || session.snapshot.index != reply.snapshot_index {
            return Ok(());
        }
        if reply.installed {
            self.sending.end(from);
            self.raft.snapshot_finished(now.mono_us, from, true);
            return self.drain_effects(now, log);
        }
        if reply.pause_us > 0 {
            // Nothing that it would need is kept from being compacted meanwhile.
            self.sending.end(from);
            self.sending.pauses.set(now, from, reply.pause_us);
            self.raft.snapshot_finished(now.mono_us, from, false);
            return self.drain_effects(now, log);
        }
        let next_offset = reply.next_offset.min(session.total_bytes.unwrap_or(0));
        let has_answered = std::mem::take(&mut session.awaits);
        if next_offset < session.acked {
            // It began anew: it was restarted, or what it had was damaged; so it was asked. If it was not,
            // this is an answer that others have overtaken, and going back would send everything again.
            if !has_answered {
                return Ok(());
            }
            session.sent = next_offset;
        }
        if next_offset != session.acked {
            session.moved_us = now.mono_us;
            session.stalls = 0;
        }
        session.acked = next_offset;
        session.sent = session.sent.max(next_offset);
        Ok(())
    }

    /// Takes what was not answered for a whole election timeout as lost.
    pub(in super::super) fn tick_sending(&mut self, now: Now) {
        let patience_us = self.times.election_timeout_us_max;
        self.sending.pauses.expire(now);
        let mut given_up = Vec::new();
        for session in &mut self.sending.sessions {
            if session.moved_us.saturating_add(patience_us) > now.mono_us {
                continue;
            }
            session.moved_us = now.mono_us;
            session.stalls += 1;
            session.sent = session.acked;
            session.asks = true;
            if session.stalls > STALLS_MAX {
                given_up.push(session.peer);
            }
        }
        for peer in given_up {
            self.sending.end(peer);
            self.raft.snapshot_finished(now.mono_us, peer, false);
        }
    }

    fn begin_snapshot(&mut self, now: Now, peer: NodeId) -> Option<()> {
        if !self.raft.needs_snapshot(peer) || self.sending.pauses.is_paused(now, peer) {
            return None;
        }
        let snapshot = self.snapshot_to_send()?;
        self.raft.snapshot_started(peer, snapshot);
        self.sending.last_number += 1;
        self.sending.sessions.push(Session {
            peer,
            number: self.sending.last_number,
            snapshot,
            total_bytes: None,
            acked: 0,
            sent: 0,
            asks: false,
            awaits: false,
            moved_us: now.mono_us,
            stalls: 0,
        });
        Some(())
    }

    /// A peer that left, or came back as new, is not in the session that it had.
    fn follow_progress(&mut self, peer: NodeId) {
        let mut views = self.raft.progress();
        let is_sending = views
            .find(|view| view.peer == peer)
            .is_some_and(|view| matches!(view.state, ProgressState::Snapshot { .. }));
        drop(views);
        if !is_sending {
            self.sending.end(peer);
        }
    }
}
