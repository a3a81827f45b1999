//! The pure Raft core: elections, replication, commitment, linearizable reads, membership.
//!
//! Sans-I/O: it has no clock, no unseeded randomness, no file, socket, thread, channel or log line.
//! Time comes in as `now_us` (monotonic microseconds), randomness from a seed, and everything it
//! wants done goes out as an [`Effect`]. It never sees a payload, only indexes, terms and byte sizes;
//! terms are held as runs, so the term of any held entry is known without touching the disk.
//!
//! # How an owner drives it
//!
//! One owner feeds inputs ([`Raft::tick`], [`Raft::step`], [`Raft::step_append`], [`Raft::propose`],
//! the `on_*` completions) and after **each** of them drains [`Raft::poll_effect`] until `None`:
//!
//! 1. [`Effect::SaveHardState`] comes first. The owner starts that flush before any log write it
//!    issues afterwards, so that an entry of term `t` on disk implies a term of at least `t` on disk.
//! 2. What [`AppendOutcome::Store`] or [`Effect::AppendControl`] asks for is then written to the log.
//! 3. [`Effect::CommitAdvanced`] comes last and may name entries that step 2 has just handed over.
//!
//! Messages that depend on something not yet durable are held inside and leave as
//! [`Effect::Send`] when [`Raft::on_hard_state_durable`] or [`Raft::on_log_durable`] reports the
//! flush. Appends are pulled: the owner asks [`Raft::plan_append`] when a peer's connection has room.
//!
//! # The order of the indexes
//!
//! ```text
//! first_index - 1 <= commit_index <= last.index
//!                    durable_index <= last.index
//! acknowledged     = min(verified, durable_index)
//! ```
//!
//! `commit_index` may exceed `durable_index`: a leader commits by the quorum's flushes without
//! waiting for its own, and a follower learns of a commit while its own flush is under way. What is
//! persisted as a commit hint must be [`Raft::commit_index_durable`].
//!
//! What it does not do: storing or shipping snapshots, retry of client requests.

mod catch_up;
mod commit;
mod config;
mod configuration;
mod effect;
mod election;
mod error;
mod follower;
mod held;
mod invariants;
mod lease;
mod log;
pub mod marks;
mod membership;
mod message;
pub mod mutants;
mod pace;
mod progress;
mod quorum;
// The struct the directory is named after lives in the file that is named after it.
#[allow(clippy::module_inception)]
mod raft;
mod read;
mod read_forward;
mod replication;
mod restored;
mod rng;
mod role;
mod snapshot;
mod transfer;
mod types;
mod uncommitted;
mod window;

#[cfg(test)]
mod tests;

pub use config::{Config, ConfigError};
pub use configuration::{Configuration, ConfigurationError, MEMBERS_MAX};
pub use effect::{AppendOutcome, AppendPlan, Control, Effect, SnapshotOutcome};
pub use error::{ConfigurationChangeError, ProposeError, ReadError, TransferError};
pub use invariants::{Observation, Violation};
pub use membership::ConfigurationAt;
pub use message::{
    AppendReply, AppendResult, Heartbeat, HeartbeatReply, Message, ReadIndexReply,
    ReadIndexRequest, TimeoutNow, VoteReply, VoteRequest,
};
pub use progress::{ProgressState, ProgressView};
pub use raft::Raft;
pub use restored::{RestoreError, Restored};
pub use role::RoleKind;
pub use types::{
    AppendEntries, Durable, EntryId, EntryMeta, HardState, NodeId, SnapshotMeta, TermRun,
};
