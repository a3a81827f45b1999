//! The small values everything else is made of. No behaviour beyond comparison.

use super::configuration::Configuration;
use core::fmt;

/// No correct cluster reaches a term or index this high; what claims to is dropped, so that counting
/// on from anything accepted cannot overflow.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;

/// The number of a node in its cluster. Never reused for another store.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{}", self.0)
    }
}

/// What names an entry for ever: the term it was made in and its index.
///
/// The order is lexicographic, term first: it is Raft's "at least as up to date".
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug, Default)]
pub struct EntryId {
    /// Term of the leader that made the entry; 0 only before the first entry.
    pub term: u64,
    /// Position in the Raft log, from 1.
    pub index: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.index, self.term)
    }
}

/// Term and vote: one record, flushed as one, before anything that depends on it leaves the node.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Default)]
pub struct HardState {
    /// Latest term this node has seen.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

impl HardState {
    /// Whether a durable `self` makes every promise that `needed` makes.
    pub(super) fn covers(self, needed: HardState) -> bool {
        self.term > needed.term
            || (self.term == needed.term && (needed.vote.is_none() || self.vote == needed.vote))
    }
}

/// Attestation that a completed flush covers `T`.
///
/// [`Durable::attest`] is the single gate: only the code that saw the flush complete may call it.
/// For a log position it must be the log *as it is now*: a flush that was issued before a truncation
/// at or below its index attests nothing (see [`super::Raft::truncation_count`]).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// States that a completed flush covers `value`.
    pub fn attest(value: T) -> Durable<T> {
        Durable(value)
    }

    /// What is durable.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// Entries from `first_index` on, until the next run, are of `term`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct TermRun {
    /// First index of the run.
    pub first_index: u64,
    /// Term of all its entries.
    pub term: u64,
}

/// What the core needs to know of an entry.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct EntryMeta {
    /// Term of the entry.
    pub term: u64,
    /// Encoded size in bytes.
    pub bytes: u32,
}

/// The head of an AppendEntries request; its entries follow `prev` without a gap.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct AppendEntries {
    /// Term of the sending leader.
    pub term: u64,
    /// The entry before the first one carried.
    pub prev: EntryId,
    /// The leader's commit index when this was planned.
    pub commit_index: u64,
    /// The leader's session with this peer, echoed in replies. Grows within a term.
    pub session: u64,
}

/// What a snapshot stands for.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct SnapshotMeta {
    /// Last entry the snapshot includes.
    pub last: EntryId,
    /// Index of the configuration entry in force at `last`.
    pub configuration_index: u64,
    /// Configuration in force at `last`, its joint state included.
    pub configuration: Configuration,
}
