//! Every way this crate says no, each with what was expected, what was found and where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::format::FileName;

/// The first failed write or flush of a log. It is final: what reached the disk after it is unknown, and
/// trying again may succeed without the data being there.
#[derive(Clone, Debug, Error)]
#[error("{operation} of {file} at offset {offset} failed: {source}")]
pub struct Failure {
    /// What was tried.
    pub operation: &'static str,
    /// The file.
    pub file: FileName,
    /// Where in the file, bytes.
    pub offset: u64,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

/// Why nothing was appended. The log is as it was.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch's index is not the next one.
    #[error("expected index {expected}, found {found}")]
    Index {
        /// The next index of the log.
        expected: u64,
        /// The batch's index.
        found: u64,
    },
    /// The batch does not continue this log: its predecessor is another entry than the last one here.
    #[error(
        "entry {index} continues an entry with checksum {found:#010x}, the last one here has {expected:#010x}"
    )]
    Chain {
        /// The batch's index.
        index: u64,
        /// The checksum of the last entry.
        expected: u32,
        /// The batch's `prev_crc`.
        found: u32,
    },
    /// The batch's term is lower than that of the last entry.
    #[error("expected term {expected} or higher, found {found}")]
    Term {
        /// The last entry's term.
        expected: u64,
        /// The batch's term.
        found: u64,
    },
    /// Too much waits to become durable; try again after the next `Durable` event.
    #[error("{queued_bytes} bytes wait to become durable, at most {limit} may")]
    Full {
        /// Bytes waiting.
        queued_bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The batch cannot fit: over the limit of a batch, or over what a segment holds.
    #[error("a batch of {found} bytes, at most {limit} fit")]
    TooLarge {
        /// Bytes of the batch.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The body is not as long as the header says.
    #[error("the header says a body of {expected} bytes, found {found}")]
    Body {
        /// The header's length.
        expected: u64,
        /// The body's length.
        found: u64,
    },
    /// The disk is full: there is no room for another segment. Appending works again when there is.
    #[error("no space for another segment")]
    NoSpace,
    /// The log has failed before; nothing works any more.
    #[error("the log has failed: {0}")]
    Failed(Failure),
}

/// Why a change other than an append was refused. The log is as it was.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// An index outside of what the call allows.
    #[error("index {found} is outside [{lo}, {hi})")]
    Index {
        /// Lowest index allowed.
        lo: u64,
        /// The first index that is too high.
        hi: u64,
        /// The index given.
        found: u64,
    },
    /// The meta value is too long.
    #[error("a meta value of {found} bytes, at most {limit} are possible")]
    TooLarge {
        /// Bytes given.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk is full: there is no room to record the change.
    #[error("no space to record the change")]
    NoSpace,
    /// The entry before the cut, which ends the chain from now on, cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log has failed before; nothing works any more.
    #[error("the log has failed: {0}")]
    Failed(Failure),
}

/// Why entries cannot be read.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The range is empty or runs backwards.
    #[error("[{lo}, {hi}) holds nothing")]
    Range {
        /// First index asked for.
        lo: u64,
        /// The index after the last one asked for.
        hi: u64,
    },
    /// The entries are below the first one held.
    #[error("entry {found} is gone, the first one held is {first_index}")]
    Compacted {
        /// First index asked for.
        found: u64,
        /// The log's first index.
        first_index: u64,
    },
    /// The entries do not exist yet.
    #[error("entry {found} is beyond the last one, {last_index}")]
    Beyond {
        /// First index asked for.
        found: u64,
        /// The log's last index.
        last_index: u64,
    },
    /// The entries were durable and are damaged. They are not cut, not skipped and not served.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The file cannot be read.
    #[error("cannot read {file} at offset {offset}: {source}")]
    Io {
        /// The file.
        file: FileName,
        /// Where, bytes.
        offset: u64,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Damage to something that was durable.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{file} is damaged at offset {offset}: {kind}")]
pub struct Corruption {
    /// The file.
    pub file: FileName,
    /// Where, bytes.
    pub offset: u64,
    /// What is wrong.
    pub kind: CorruptionKind,
}

/// What is wrong with something that was durable.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// Neither slot of the meta record can be read.
    #[error("neither slot of the meta record is valid")]
    Meta,
    /// The meta record is older than one that a group saw durable.
    #[error("the meta record is of generation {found}, generation {expected} was durable")]
    MetaOld {
        /// Generation that was durable.
        expected: u64,
        /// Generation found.
        found: u64,
    },
    /// Segments without a meta record.
    #[error("there are segments and no meta record")]
    MetaMissing,
    /// A segment that must be there is not.
    #[error("segment {segment_seq} is missing")]
    SegmentMissing {
        /// The missing segment's number.
        segment_seq: u64,
    },
    /// Two files claim to be the same segment, or a file's name contradicts its header.
    #[error("the file's name does not match its header (segment {segment_seq})")]
    SegmentName {
        /// The number in the header, or the number claimed twice.
        segment_seq: u64,
    },
    /// The first block of a segment is damaged.
    #[error("the segment's header is damaged ({0})")]
    SegmentHeader(&'static str),
    /// The file is shorter than its header says.
    #[error("the file has {found} bytes, its header says {expected}")]
    SegmentBytes {
        /// Bytes by the header.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A group that is known to have been durable is not valid.
    #[error(
        "group {group_seq} (entries from {first_index} on) was durable and is not valid: {what}; {proof}"
    )]
    Group {
        /// The group's number.
        group_seq: u64,
        /// The first index that is lost.
        first_index: u64,
        /// What is wrong with it.
        what: &'static str,
        /// How it is known to have been durable.
        proof: Proof,
    },
    /// A batch inside a group that is otherwise valid, found when read.
    #[error("entry {index} is not valid: {what}")]
    Batch {
        /// The entry's index.
        index: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The seal of a segment is not valid, found when read.
    #[error("the segment's seal is not valid: {0}")]
    Seal(&'static str),
}

/// How a damaged group is known to have been durable.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum Proof {
    /// A later group says so.
    #[error("group {group_seq} of segment {segment_seq} knew that it was")]
    LaterGroup {
        /// The later group's number.
        group_seq: u64,
        /// Where it is.
        segment_seq: u64,
    },
    /// The next segment says where this one ends.
    #[error("segment {segment_seq} continues after it")]
    NextSegment {
        /// The next segment's number.
        segment_seq: u64,
    },
}

/// Why a log cannot be opened. The directory is as it was found, except for files without content.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the log open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another store.
    #[error("{file} belongs to store {found:032x}, expected {expected:032x}")]
    Store {
        /// The file that says so.
        file: FileName,
        /// The store of the options.
        expected: u128,
        /// The store of the file.
        found: u128,
    },
    /// A file of a version that this build does not know.
    #[error("{file} has version {found}, this build reads version {expected}")]
    Version {
        /// The file.
        file: FileName,
        /// The version of this build.
        expected: u32,
        /// The version of the file.
        found: u32,
    },
    /// Something that was durable is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The engine that was asked for is not allowed here.
    #[error("the engine cannot be used: {reason}")]
    Engine {
        /// Why.
        reason: String,
    },
    /// The disk is too full for a segment.
    #[error("no space for a segment: {0}")]
    NoSpace(Arc<io::Error>),
    /// The system refused an operation.
    #[error("{operation} of {} failed: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A write failed during open.
    #[error(transparent)]
    Failed(#[from] Failure),
}
