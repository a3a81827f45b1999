//! The values that operations give back.

use std::time::Duration;

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

/// A log in full, as a node described it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LogDescription {
    /// The log's number.
    pub log_id: u64,
    /// Its name.
    pub name: String,
    /// The first seq still held.
    pub first_seq: u64,
    /// The seq that the next record gets.
    pub next_seq: u64,
    /// When the last record was appended, microseconds since 1970, also when it was trimmed since; none before the
    /// first one.
    pub last_time_us: Option<u64>,
    /// Bytes of the batches that are held, headers included; to within some batches before the first one held.
    pub held_bytes: u64,
    /// The token that appends must carry, 0 when the log was never fenced.
    pub fence: u64,
    /// The first seq that was not appended before that token.
    pub fence_seq: u64,
    /// Whether it was closed: it takes no append.
    pub is_closed: bool,
    /// How much of it is kept.
    pub retention: Retention,
    /// How much may be appended in a second.
    pub quota: Quota,
}

/// How much may be appended to a log in a second; none for no limit. What was not used is kept for a second, and a
/// batch is taken as long as anything is left. Appends beyond it wait and are sent again, up to their timeout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    /// Bytes of batches, headers included.
    pub bytes_per_second: Option<u64>,
    /// Records.
    pub records_per_second: Option<u64>,
}

impl From<Quota> for drave_batch::Quota {
    fn from(quota: Quota) -> Self {
        Self {
            bytes_per_second: quota.bytes_per_second.unwrap_or(0),
            records_per_second: quota.records_per_second.unwrap_or(0),
        }
    }
}

/// How much of a log is kept at least: what is beyond either limit is given up, by and by, on every replica alike.
///
/// Up to about 4 MiB, or 512 entries of the group, more than that are held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// Bytes of the newest batches, headers included; none for no limit.
    pub bytes: Option<u64>,
    /// Time since a record was appended, by the leaders' clocks; none for no limit.
    pub age: Option<Duration>,
}

impl From<Retention> for drave_batch::Retention {
    fn from(retention: Retention) -> Self {
        let age_us = |age: Duration| u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Self {
            bytes: retention.bytes.unwrap_or(0),
            age_us: retention.age.map_or(0, age_us),
        }
    }
}

impl From<wire::LogDescribed> for LogDescription {
    fn from(log: wire::LogDescribed) -> Self {
        Self {
            log_id: log.log_id,
            name: log.name,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
            last_time_us: (log.last_time_us != 0).then_some(log.last_time_us),
            held_bytes: log.held_bytes,
            fence: log.fence,
            fence_seq: log.fence_seq,
            is_closed: log.is_closed,
            retention: Retention {
                bytes: (log.retention_bytes > 0).then_some(log.retention_bytes),
                age: (log.retention_age_us > 0)
                    .then(|| Duration::from_micros(log.retention_age_us)),
            },
            quota: Quota {
                bytes_per_second: (log.quota_bytes_per_second > 0)
                    .then_some(log.quota_bytes_per_second),
                records_per_second: (log.quota_records_per_second > 0)
                    .then_some(log.quota_records_per_second),
            },
        }
    }
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LogTail {
    /// The seq that the next record gets.
    pub next_seq: u64,
    /// When the last record was appended, microseconds since 1970; none before the first one.
    pub last_time_us: Option<u64>,
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
    /// At the first record appended at this time or after it, microseconds since 1970; behind the last record when
    /// there is none yet.
    TimeUs(u64),
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
    /// The log was taken over: every record from `seq` on was appended under `token`. Of several takeovers between two
    /// records the last one is reported; one before the beginning of the tail is not.
    Fenced {
        /// The log's fencing token.
        token: u64,
        /// The first seq that may have been appended under it.
        seq: u64,
    },
    /// The log was closed, and everything in it has been reported. Said whenever it is asked again.
    Closed {
        /// The seq that the next record would have had.
        next_seq: u64,
    },
}
