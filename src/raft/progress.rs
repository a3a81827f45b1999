//! What a leader knows of one peer: how far its log agrees, what is in flight, and in which mode.
//!
//! ```text
//!            accepted up to next - 1
//!   Probe ----------------------------> Replicate
//!     ^ ^      rejected, lost, reconnected   |
//!     | +------------------------------------+
//!     | done or failed
//!   Snapshot  <- the owner starts one when `needs_snapshot`
//! ```

use super::catch_up::CatchUp;
use super::types::NodeId;
use super::window::Window;

/// How appends are sent to a peer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ProgressState {
    /// Looking for the last common entry: one append at a time.
    Probe,
    /// Optimistic and pipelined.
    Replicate,
    /// A snapshot up to `index` is on its way; no appends.
    Snapshot {
        /// Last index the snapshot includes.
        index: u64,
    },
}

/// A peer's progress, for status displays.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ProgressView {
    /// The peer.
    pub peer: NodeId,
    /// Known to be durable there and equal to the leader's log.
    pub match_index: u64,
    /// Next entry to send.
    pub next_index: u64,
    /// Mode.
    pub state: ProgressState,
    /// Append messages in flight.
    pub in_flight_messages: usize,
    /// Append bytes in flight.
    pub in_flight_bytes: u64,
    /// Append bytes that may be in flight at present: what path and disk have shown to take.
    pub window_bytes: u64,
    /// When it last answered in this term, microseconds of the owner's clock.
    pub last_active_us: u64,
    /// It has left the configuration and is sent to only until it knows.
    pub is_departing: bool,
}

/// Invariants: `match_index < next_index`; the window is empty unless in `Replicate`.
pub(super) struct Progress {
    pub(super) match_index: u64,
    /// Highest index the peer said it has verified; a hint for where to go on, never counted.
    pub(super) received_index: u64,
    pub(super) next_index: u64,
    pub(super) state: ProgressState,
    pub(super) window: Window,
    pub(super) credit_bytes: u64,
    /// Commit index last carried to the peer by an append.
    pub(super) commit_sent: u64,
    pub(super) last_active_us: u64,
    /// When `match_index` or `received_index` last grew, or something was last sent to an idle peer.
    pub(super) moved_us: u64,
    /// When the probe in flight was sent.
    pub(super) probe_sent_us: Option<u64>,
    /// Highest read round the peer has answered.
    pub(super) read_round: u64,
    /// Replies of another session are not about this progress.
    pub(super) session: u64,
    pub(super) catch_up: CatchUp,
    /// It has left the configuration; until when it is still told about it.
    pub(super) departs_at_us: Option<u64>,
}

impl Progress {
    pub(super) fn new(next_index: u64, session: u64, now_us: u64, window: Window) -> Progress {
        Progress {
            match_index: 0,
            received_index: 0,
            next_index,
            state: ProgressState::Probe,
            window,
            credit_bytes: u64::MAX,
            commit_sent: 0,
            last_active_us: now_us,
            moved_us: now_us,
            probe_sent_us: None,
            read_round: 0,
            session,
            catch_up: CatchUp::new(next_index.saturating_sub(1), now_us),
            departs_at_us: None,
        }
    }

    /// Back to looking for the last common entry, from `next_index` down. What was in flight no
    /// longer counts.
    pub(super) fn probe_from(&mut self, next_index: u64) {
        assert!(
            next_index > self.match_index,
            "what is known to match is not probed again"
        );
        self.state = ProgressState::Probe;
        self.next_index = next_index;
        self.window.restart();
        self.probe_sent_us = None;
    }

    /// The connection or what was in flight is gone: go on from where the peer said it was, or from
    /// where the search for the last common entry stood.
    pub(super) fn resume(&mut self) {
        let known = self.match_index.max(self.received_index);
        let next_index = match self.state {
            ProgressState::Probe => self.next_index,
            ProgressState::Replicate | ProgressState::Snapshot { .. } => known + 1,
        };
        self.probe_from(next_index);
    }

    /// The peer has verified up to `received_index` and flushed up to `match_index`.
    /// Returns whether `match_index` grew.
    pub(super) fn accepted(&mut self, now_us: u64, match_index: u64, received_index: u64) -> bool {
        let grew = match_index > self.match_index;
        if grew || received_index > self.received_index {
            self.moved_us = now_us;
        }
        self.match_index = self.match_index.max(match_index);
        self.received_index = self.received_index.max(received_index);
        self.next_index = self
            .next_index
            .max(received_index + 1)
            .max(self.match_index + 1);
        self.window.release(now_us, self.match_index);
        if self.state == ProgressState::Probe && received_index + 1 >= self.next_index {
            self.state = ProgressState::Replicate;
            self.probe_sent_us = None;
            self.window.clear();
        }
        grew
    }

    /// Whether a rejection speaks of the log as it is probed now and not of the past.
    pub(super) fn rejection_is_current(&self, rejected_prev: u64) -> bool {
        match self.state {
            ProgressState::Probe => rejected_prev + 1 == self.next_index,
            ProgressState::Replicate => {
                rejected_prev > self.match_index && rejected_prev < self.next_index
            }
            ProgressState::Snapshot { .. } => false,
        }
    }

    /// Everything sent is acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.match_index + 1 == self.next_index
    }

    /// Appends in flight have shown no sign of arriving for too long.
    ///
    /// A peer that has received all of them and is only slow to flush gets four times as long:
    /// sending again would bury it.
    pub(super) fn looks_lost(&self, now_us: u64, lost_append_us: u64) -> bool {
        if self.state != ProgressState::Replicate || self.is_idle() {
            return false;
        }
        let all_received = self.received_index + 1 >= self.next_index;
        let patience_us = if all_received {
            lost_append_us.saturating_mul(4)
        } else {
            lost_append_us
        };
        now_us.saturating_sub(self.moved_us) >= patience_us
    }

    pub(super) fn view(&self, peer: NodeId) -> ProgressView {
        ProgressView {
            peer,
            match_index: self.match_index,
            next_index: self.next_index,
            state: self.state,
            in_flight_messages: self.window.messages(),
            in_flight_bytes: self.window.bytes(),
            window_bytes: self.window.limit_bytes(),
            last_active_us: self.last_active_us,
            is_departing: self.departs_at_us.is_some(),
        }
    }
}
