//! The values that operations give back.

use bytes::Bytes;

use drave_batch::wire;

/// A log as a node described it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LogInfo {
    /// The log's number.
    pub log_id: u64,
    /// The first seq still held.
    pub first_seq: u64,
    /// The seq that the next record gets.
    pub next_seq: u64,
    /// Whether this very request created it.
    pub created: bool,
    /// Its name.
    pub name: String,
}

impl From<wire::LogInfo> for LogInfo {
    fn from(info: wire::LogInfo) -> Self {
        Self {
            log_id: info.log_id,
            first_seq: info.first_seq,
            next_seq: info.next_seq,
            created: info.created,
            name: info.name,
        }
    }
}

/// An append's acknowledgement: the records are on stable storage on a majority of the nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ack {
    /// The seq of the first record; the others follow without a gap.
    pub first_seq: u64,
    /// Records appended.
    pub record_count: u32,
    /// Term of the leader that answered.
    pub term: u64,
    /// The entry's Raft index, 0 when the answering leader no longer knew it.
    pub index: u64,
    /// An earlier attempt had appended it already. It is in the log once.
    pub duplicate: bool,
}

/// One record.
///
/// The payload is a slice of the buffer that it arrived in, so keeping it keeps that buffer (up to 4 MiB)
/// alive; copy the bytes to keep few records for long.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Its dense position in the log, from 0.
    pub seq: u64,
    /// Microseconds since the Unix epoch by the clock of the leader that appended it.
    pub append_time_us: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// How much one read gives at most. At least one record is given if there is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadLimits {
    /// Bytes of encoded batches, payload and overhead.
    pub bytes_max: u32,
    /// Records.
    pub records_max: u32,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            records_max: u32::MAX,
        }
    }
}

/// What one read gave.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReadChunk {
    /// Records from the seq asked for on, without a gap; empty at the tail.
    pub records: Vec<Record>,
    /// The first seq that the log still holds.
    pub first_seq: u64,
    /// The seq that the log's next record gets, as the answering node knew it.
    pub next_seq: u64,
}

/// Where a tail begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TailFrom {
    /// At this seq.
    Seq(u64),
    /// This many records before the end of the log as of now.
    Last(u64),
    /// Behind the last record as of now.
    End,
}

/// What a tail reports.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TailEvent {
    /// The next record, in order, without a gap or a repeat.
    Record(Record),
    /// Everything that the serving replica had has been reported. Said once until a record follows.
    CaughtUp {
        /// The seq that the next record will have.
        next_seq: u64,
    },
    /// Records before `first_seq` were trimmed before they could be reported; the tail goes on there.
    Trimmed {
        /// The next seq reported.
        first_seq: u64,
    },
}
