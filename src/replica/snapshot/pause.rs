//! A snapshot that a follower could not keep, its disk being full for example, is not sent again at once: the
//! follower says for how long it wants none, longer each time, and the leader lets go of it for as long.

use drave_batch::wire::SnapshotReply;

use super::super::{Now, Replica};
use super::receive::Receiving;
use crate::raft::{EntryId, NodeId};

/// After the first failure, microseconds; twice as long after each further one,
const PAUSE_US_MIN: u64 = 1_000_000;

/// and never longer. A leader waits no longer either, whatever it is told.
const PAUSE_US_MAX: u64 = 60_000_000;

/// A follower's side: what it could not keep, and until when it takes none.
#[derive(Debug, Default)]
pub(in super::super) struct ReceivingPause {
    /// What was to be kept; none if nothing failed since one was kept.
    failed: Option<EntryId>,
    pause_us: u64,
    /// `None` once it is over.
    until_us: Option<u64>,
}

impl ReceivingPause {
    /// When it is over.
    pub(in super::super) fn deadline_us(&self) -> u64 {
        self.until_us.unwrap_or(u64::MAX)
    }

    /// What is answered to whatever is sent meanwhile; 0 for no pause.
    pub(super) fn in_force_us(&self) -> u64 {
        self.until_us.map_or(0, |_| self.pause_us)
    }

    /// One was kept.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

/// A leader's side: who wants none for now, and until when.
#[derive(Debug, Default)]
pub(super) struct SendingPauses(Vec<(NodeId, u64)>);

impl SendingPauses {
    pub(super) fn set(&mut self, now: Now, peer: NodeId, pause_us: u64) {
        self.0.retain(|(paused, _)| *paused != peer);
        let until_us = now.mono_us.saturating_add(pause_us.min(PAUSE_US_MAX));
        self.0.push((peer, until_us));
    }

    pub(super) fn is_paused(&self, now: Now, peer: NodeId) -> bool {
        let mut pauses = self.0.iter();
        pauses.any(|(paused, until_us)| *paused == peer && now.mono_us < *until_us)
    }

    pub(super) fn expire(&mut self, now: Now) {
        self.0.retain(|(_, until_us)| now.mono_us < *until_us);
    }

    pub(super) fn deadline_us(&self) -> u64 {
        let ends = self.0.iter().map(|(_, until_us)| *until_us);
        ends.min().unwrap_or(u64::MAX)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Replica {
    /// The snapshot that a leader sent and this node could not keep, while it still needs it, and for how many
    /// microseconds it takes none after that.
    #[must_use]
    pub fn snapshot_not_kept(&self) -> Option<(EntryId, u64)> {
        let pause = &self.receiving_pause;
        pause.failed.map(|id| (id, pause.pause_us))
    }

    /// Throws away what was received, and tells the leader not to send it again too soon.
    pub(super) fn pause_receiving(&mut self, now: Now, receiving: &Receiving) {
        let pause = &mut self.receiving_pause;
        pause.failed = Some(receiving.last());
        pause.pause_us = (2 * pause.pause_us).clamp(PAUSE_US_MIN, PAUSE_US_MAX);
        pause.until_us = Some(now.mono_us.saturating_add(pause.pause_us));
        let reply = SnapshotReply {
            pause_us: pause.pause_us,
            ..receiving.reply(0, false)
        };
        let to = receiving.from();
        self.outputs.snapshot_replies.push((to, reply));
    }

    /// Ends the pause when its time is over, and forgets it when the entries have come in another way.
    pub(in super::super) fn tick_receiving(&mut self, now: Now) {
        let commit_index = self.raft.commit_index();
        let pause = &mut self.receiving_pause;
        pause.until_us.take_if(|until_us| *until_us <= now.mono_us);
        if pause.failed.is_some_and(|id| id.index <= commit_index) {
            pause.end();
        }
    }
}
