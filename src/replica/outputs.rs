//! What goes in and out of a replica: instants, whom to answer, answers, refusals. Data only.

use std::collections::VecDeque;

use drave_batch::wire::{
    Appended, AppendedTogether, ErrorCode, LeaderTransferred, LogDescribed, LogInfo, MemberListed,
    ProducerOpened,
};
use thiserror::Error;

use super::LogRefusal;
use crate::raft::{self, EntryId, NodeId, RoleKind};

/// The instant of an event: both clocks, read once by the shell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic microseconds: timers.
    pub mono_us: u64,
    /// Microseconds since the Unix epoch: append times, never decisions.
    pub unix_us: u64,
}

/// Whom to answer: the shell's own key of a request. The replica only gives it back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyTo {
    /// The connection.
    pub connection: u64,
    /// The request on it.
    pub request_id: u64,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The batch is on stable storage on a majority.
    Appended(Appended),
    /// The batches are.
    AppendedTogether(AppendedTogether),
    /// The log exists, or is trimmed.
    Log(LogInfo),
    /// The log is what it was to become.
    Described(LogDescribed),
    /// The producer is registered.
    Producer(ProducerOpened),
    /// The configuration asked for is committed.
    Members(MemberListed),
    /// The node asked for leads.
    Transferred(LeaderTransferred),
    /// The request failed.
    Refused(Refusal),
}

/// Why a request failed, as the client is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// A number the code gives a meaning.
    pub expected: u64,
    /// Its counterpart.
    pub found: u64,
    /// What happened.
    pub message: String,
}

impl Refusal {
    /// A refusal without numbers.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            expected: 0,
            found: 0,
            message: message.into(),
        }
    }

    /// A refusal that says what was expected and what was found.
    pub fn numbers(code: ErrorCode, expected: u64, found: u64, message: impl Into<String>) -> Self {
        Self {
            code,
            expected,
            found,
            message: message.into(),
        }
    }
}

/// The replica cannot go on: the log failed, or an invariant of the log's content is broken. The node
/// stops serving the group and says why.
#[derive(Clone, Debug, Error)]
#[error("group stopped: {reason}")]
pub struct Fatal {
    /// Why.
    pub reason: String,
}

impl From<LogRefusal> for Fatal {
    fn from(refusal: LogRefusal) -> Self {
        Self {
            reason: format!("the log refused an entry: {refusal}"),
        }
    }
}

/// What a replica wants done. The shell takes everything out after each event, or several.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages to peers, in order. What they depend on is durable.
    pub sends: VecDeque<(NodeId, raft::Message)>,
    /// Answers to peers' snapshot chunks, on the connection that brought them.
    pub snapshot_replies: Vec<(NodeId, drave_batch::wire::SnapshotReply)>,
    /// A received snapshot to be made durable (temporary file, flush, rename, flush of the directory);
    /// then [`super::Replica::on_snapshot_durable`]. None follows before that.
    pub store_snapshot: Option<(EntryId, Vec<u8>)>,
    /// Answers to clients.
    pub replies: Vec<(ReplyTo, Answer)>,
    /// Logs whose committed end has moved; the same log may be named more than once.
    pub advanced: Vec<u64>,
    /// Linearizable reads that may be served now.
    pub reads_ready: Vec<u64>,
    /// Linearizable reads that could not be confirmed.
    pub reads_failed: Vec<u64>,
    /// Role changes, in order.
    pub roles: Vec<(RoleKind, u64, Option<NodeId>)>,
    /// Why this node gave up the lead of its own accord, if it did since this was last taken.
    pub lead_given_up: Option<LogRefusal>,
    /// [`super::Replica::members`] is not what it was: connections are to follow it.
    pub members_changed: bool,
    /// The log and its catalogue were replaced by a snapshot: what was read of them is to be looked up
    /// again.
    pub log_replaced: bool,
}
