//! What can be wrong with a history, by name.

use std::fmt;

/// The rule that was broken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ViolationKind {
    /// An acknowledged record is not in the log.
    Lost,
    /// An acknowledged record is in the log, but not at the seq that was acknowledged.
    Misplaced,
    /// A record is in the log more than once.
    Duplicated,
    /// One seq was acknowledged to two appends.
    SeqReused,
    /// An append that had completed before another began has the higher seq.
    OutOfOrder,
    /// A producer's later append has the lower seq.
    ProducerOrder,
    /// An append that certainly failed is in the log.
    FailedPresent,
    /// Only a part of an append is in the log, or its records are not one after the other.
    Torn,
    /// A record that nobody appended to this log.
    Stranger,
    /// A read showed other records than the log has at these seqs.
    ReadMismatch,
    /// A read showed nothing although its tail is behind its start, or records beyond its own tail.
    ReadTail,
    /// A read or tail did not show what was acknowledged before it began.
    StaleRead,
    /// A read or tail is below what another one had shown before it began.
    TailWentBack,
    /// A read or tail showed what was not even begun when it ended.
    FutureRead,
    /// A read or tail was beyond the end of the log as it was at last.
    ShownThenGone,
    /// Two replicas hold different logs.
    ReplicasDiffer,
}

impl ViolationKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Lost,
        Self::Misplaced,
        Self::Duplicated,
        Self::SeqReused,
        Self::OutOfOrder,
        Self::ProducerOrder,
        Self::FailedPresent,
        Self::Torn,
        Self::Stranger,
        Self::ReadMismatch,
        Self::ReadTail,
        Self::StaleRead,
        Self::TailWentBack,
        Self::FutureRead,
        Self::ShownThenGone,
        Self::ReplicasDiffer,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Misplaced => "misplaced",
            Self::Duplicated => "duplicated",
            Self::SeqReused => "seq reused",
            Self::OutOfOrder => "out of order",
            Self::ProducerOrder => "producer order",
            Self::FailedPresent => "failed but present",
            Self::Torn => "torn",
            Self::Stranger => "stranger",
            Self::ReadMismatch => "read mismatch",
            Self::ReadTail => "read against its own tail",
            Self::StaleRead => "stale read",
            Self::TailWentBack => "tail went back",
            Self::FutureRead => "future read",
            Self::ShownThenGone => "shown, then gone",
            Self::ReplicasDiffer => "replicas differ",
        }
    }
}

/// One breach of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The rule.
    pub kind: ViolationKind,
    /// The log.
    pub log: u64,
    /// What exactly.
    pub detail: String,
    /// The operations concerned, as places in the history.
    pub operations: Vec<usize>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: log {}: {}", self.kind.name(), self.log, self.detail)
    }
}
