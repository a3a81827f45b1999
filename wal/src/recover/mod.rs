//! Opening a log: what is on disk becomes what the state machine starts from.
//!
//! The steps are numbered in the crate's README. Nothing that may have been acknowledged is ever cut: what
//! follows the last valid group is either provably not durable, and left behind, or the open fails and
//! names it. It runs blocking, before the first append.

pub(crate) mod files;
pub(crate) mod finish;
pub(crate) mod judge;
pub(crate) mod scan;

use std::time::Duration;

pub(crate) use finish::recover;

use crate::format::SegmentName;

/// What recovery found and did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The first index held; the next index if the log is empty.
    pub first_index: u64,
    /// The last index; one below the first for an empty log.
    pub last_index: u64,
    /// Segments in use.
    pub segments: usize,
    /// Groups read and checked.
    pub groups: u64,
    /// Where the log was cut because the last write had not completed, if it was.
    pub torn: Option<Torn>,
    /// Files without content that were removed.
    pub files_removed: usize,
    /// The slots of the meta record differed, and the newer one was copied to the other.
    pub meta_healed: bool,
    /// A new, empty log was made.
    pub created: bool,
    /// How long it took.
    pub duration: Duration,
}

/// The end of the log after an interrupted write: nothing from here on was ever acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Torn {
    /// The segment.
    pub segment: SegmentName,
    /// Where its last valid group ends, bytes.
    pub offset: u64,
    /// Bytes from there to the end of the last thing that was recognisably written, at least one block.
    pub bytes: u64,
    /// Later groups of the same flight that were valid and are dropped, since one before them is not.
    pub groups_dropped: u64,
}
