//! What the log tells its owner.

use crate::error::Failure;

/// Something that happened since the last `poll`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Entries became durable.
    Durable(Flushed),
    /// A meta value became durable.
    MetaDurable(MetaFlushed),
    /// The first failed write or flush. Nothing works from now on; said once.
    Failed(Failure),
    /// No further segment can be made: the disk is full. Appends will be refused when the last one is full.
    SpaceLow,
    /// Segments can be made again.
    SpaceOk,
}

/// Proof that the log is on stable storage up to an index. Made only from completed flushes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flushed {
    index: u64,
    term: u64,
}

impl Flushed {
    pub(crate) fn new(index: u64, term: u64) -> Self {
        Self { index, term }
    }

    /// The last entry of the durable prefix. Lower than one reported before only after a truncation.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// That entry's term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }
}

/// Proof that a meta value is on stable storage. Made only from a completed flush.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MetaFlushed {
    sequence: u64,
}

impl MetaFlushed {
    pub(crate) fn new(sequence: u64) -> Self {
        Self { sequence }
    }

    /// The number that `write_meta` gave; every value written before is superseded by this one.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Flushes of the last 10 to 20 seconds in which there were any, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecentFlushes {
    /// How many.
    pub count: u64,
    /// Half of them took no longer, to the next power of two.
    pub us_p50: u64,
    /// 99 of 100 took no longer, to the next power of two.
    pub us_p99: u64,
    /// The longest.
    pub us_max: u64,
}

/// Counters since open, and present sizes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Groups handed to the engine; those above `groups` are in flight.
    pub groups_started: u64,
    /// Groups whose flush completed.
    pub groups: u64,
    /// Of these, those that are part of the durable prefix.
    pub groups_in_order: u64,
    /// Batches in groups that were submitted.
    pub batches: u64,
    /// Bytes of batches made durable.
    pub payload_bytes: u64,
    /// Bytes written for them, headers and padding included.
    pub written_bytes: u64,
    /// Microseconds from submitting the last group to its completion.
    pub flush_us_last: u64,
    /// The longest so far.
    pub flush_us_max: u64,
    /// All of them added up.
    pub flush_us_sum: u64,
    /// Meta records made durable.
    pub metas: u64,
    /// Segments in use.
    pub segments: u64,
    /// Segments prepared and not in use.
    pub spares: u64,
    /// Segments begun since open.
    pub rolls: u64,
    /// Bytes of memory held by the tail.
    pub tail_bytes: u64,
}

impl Statistics {
    pub(crate) fn flushed(&mut self, us: u64) {
        self.groups += 1;
        self.flush_us_last = us;
        self.flush_us_max = self.flush_us_max.max(us);
        self.flush_us_sum += us;
    }
}
