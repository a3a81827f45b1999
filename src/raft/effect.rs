//! What the core asks of its owner. Data only.

use super::configuration::Configuration;
use super::message::Message;
use super::role::RoleKind;
use super::types::{EntryId, HardState, NodeId};

/// Something for the owner to do, in the order polled.
#[derive(Clone, Eq, PartialEq, Debug)]
#[must_use]
pub enum Effect {
    /// Flush this, then call `on_hard_state_durable`. A later one replaces an earlier one.
    /// It must be under way before any log write that is issued after it.
    SaveHardState(HardState),
    /// Send now: all it depends on is durable.
    Send {
        /// Receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// The leader appends this entry to its own log at `id`, before anything proposed later.
    AppendControl {
        /// Where.
        id: EntryId,
        /// What.
        control: Control,
    },
    /// Role, term or known leader changed. Comes before any commit learned in the new role.
    RoleChanged {
        /// Role now.
        role: RoleKind,
        /// Term now.
        term: u64,
        /// Leader of that term, if known.
        leader: Option<NodeId>,
    },
    /// Entries up to here are committed. Never goes back.
    CommitAdvanced {
        /// New commit index.
        commit_index: u64,
    },
    /// A linearizable read may be served once `index` is applied.
    ReadReady {
        /// As given to `read_index`.
        ticket: u64,
        /// Apply at least this far first.
        index: u64,
    },
    /// Leadership was lost before the read could be confirmed.
    ReadFailed {
        /// As given to `read_index`.
        ticket: u64,
    },
}

/// An entry the core itself asks for.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Control {
    /// First entry of a leader's term; has no content.
    Noop,
    /// A configuration; in force from the moment it is in the log.
    Configuration(Configuration),
}

/// What to do with the entries of an AppendEntries request.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[must_use]
pub enum AppendOutcome {
    /// Drop own entries from `truncate_from` on, then store the message's entries `[lo, hi)`, after
    /// any `SaveHardState` polled now. The reply follows by itself when they are durable.
    Store {
        /// First own entry to drop, if any.
        truncate_from: Option<u64>,
        /// Index of the first entry to store.
        lo: u64,
        /// Index after the last entry to store.
        hi: u64,
    },
    /// Nothing to store; any reply is an effect.
    Nothing,
}

/// The next append for a peer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct AppendPlan {
    /// Entry before `lo`.
    pub prev: EntryId,
    /// First entry to send.
    pub lo: u64,
    /// Entries `[lo, hi_max)` may be sent; equal to `lo` for an empty append.
    pub hi_max: u64,
    /// Send at most this many bytes of entries, but at least one entry if there is one.
    pub bytes_max: u64,
    /// To be carried.
    pub commit_index: u64,
    /// To be carried.
    pub term: u64,
    /// To be carried.
    pub session: u64,
}

/// What to do with a received snapshot.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[must_use]
pub enum SnapshotOutcome {
    /// Older than what is committed here, or from an older term: throw it away.
    Ignored,
    /// The log holds the snapshot's last entry: keep the log, compact up to it when convenient.
    KeepLog,
    /// The log conflicts or ends before: drop the whole log; it restarts after the snapshot.
    ResetLog,
}
