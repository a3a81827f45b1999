//! The log as a state machine: appends, truncations and completed operations in; operations and events out.
//!
//! It decides what is written where, what goes into one group, what may be in flight together, when a
//! segment ends, and what is durable. It reads no file, no clock and no random number of its own: time and
//! incarnations are arguments, and the same calls give the same operations over every engine.
//!
//! Positions, each at or above the one before:
//!
//! ```text
//! first_index .. durable_index .. (in flight) .. (queued) .. (open group) .. next_index
//! ```

mod append;
mod complete;
mod flow;
mod flushes;
mod meta;
mod roll;
mod space;
mod truncate;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Weak;

use crate::buffer::ClosedGroup;
use crate::buffer::HUGE_PAGE_BYTES;
use crate::engine::{Operation, Source};
use crate::error::Failure;
use crate::event::{Event, RecentFlushes, Statistics};
use crate::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupKind, MetaRecord, SEAL_ROW_BYTES, SealRow, SegmentName,
    whole_blocks,
};
use crate::options::Options;
use crate::tail::Tail;
use crate::terms::Terms;

pub(crate) use append::Claim;
pub(crate) use flow::apply_group;
pub(crate) use meta::Meta;
pub(crate) use space::Space;

/// A segment as the log knows it. Ranges follow what was submitted, in that order, not what was asked for.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) bytes: u64,
    pub(crate) seed: u32,
    /// Entries `[lo, hi)` live here; neighbours meet without a gap, and a segment may have none.
    pub(crate) lo: u64,
    pub(crate) hi: u64,
    /// Where the last submitted group ends.
    pub(crate) end_offset: u64,
    /// Where the seal is; the table is read from it.
    pub(crate) seal_offset: Option<u64>,
    /// The groups, while there is no seal.
    pub(crate) rows: Vec<SealRow>,
    /// A group of the segment is a reset.
    pub(crate) has_reset: bool,
    /// Readers of the file, mapped and not; while any lives the file is not used again.
    pub(crate) mapped: RefCell<Weak<dyn Source>>,
    pub(crate) unmapped: RefCell<Weak<dyn Source>>,
}

impl Segment {
    pub(crate) fn new(name: SegmentName, bytes: u64, seed: u32, next_index: u64) -> Self {
        let nobody: Weak<crate::engine::disk::FileSource> = Weak::new();
        Self {
            name,
            bytes,
            seed,
            lo: next_index,
            hi: next_index,
            end_offset: BLOCK_BYTES as u64,
            seal_offset: None,
            rows: Vec::new(),
            has_reset: false,
            mapped: RefCell::new(nobody.clone()),
            unmapped: RefCell::new(nobody),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.mapped.borrow().strong_count() > 0 || self.unmapped.borrow().strong_count() > 0
    }

    /// Takes away what is at or above `from`.
    pub(crate) fn clip(&mut self, from: u64) {
        if self.hi > from {
            self.hi = from;
            self.lo = self.lo.min(from);
        }
        while self.rows.last().is_some_and(|row| row.first_index >= from) {
            self.rows.pop();
        }
        if let Some(row) = self.rows.last_mut() {
            row.batch_count = row.batch_count.min((from - row.first_index) as u32);
        }
    }
}

/// A group of batches that still grows.
#[derive(Debug)]
struct OpenGroup {
    first_index: u64,
    batch_count: u32,
    term: u64,
    payload_bytes: usize,
    batch_crcs: crc32fast::Hasher,
    plan: GroupPlan,
}

/// What is settled about a group when it is opened.
#[derive(Clone, Copy, Debug)]
struct GroupPlan {
    /// Term and checksum of the entry before its first index.
    base_term: u64,
    base_crc: u32,
    /// The meta value that must be durable before.
    meta_sequence: u64,
    /// It is the first of a new segment.
    roll_before: bool,
    /// It takes entries away.
    cuts: bool,
}

/// A group that waits to be submitted.
#[derive(Debug)]
struct QueuedGroup {
    kind: GroupKind,
    closed: ClosedGroup,
    first_index: u64,
    batch_count: u32,
    term: u64,
    payload_bytes: u32,
    payload_crc: u32,
    /// Its durability makes entries below this durable; lowered by truncations that come after it.
    visible_end: u64,
    plan: GroupPlan,
}

/// A group that was submitted and that is not yet part of the durable prefix.
#[derive(Debug)]
struct Flight {
    number: u64,
    group_seq: u64,
    kind: GroupKind,
    payload_bytes: u64,
    visible_end: u64,
    cuts: bool,
    started_us: u64,
    done: bool,
}

/// Where the next group to be opened will go.
#[derive(Clone, Copy, Debug)]
struct Plan {
    offset: u64,
    rows: usize,
    segment_bytes: u64,
}

impl Plan {
    /// Whether a group of `bytes` fits and the seal, and `reserve_bytes`, still fit behind it.
    fn fits(&self, bytes: usize, reserve_bytes: usize) -> bool {
        let seal = seal_bytes(self.rows + 1);
        self.offset + (bytes + reserve_bytes + seal) as u64 <= self.segment_bytes
    }
}

/// Kept free behind data, so that a truncation always has a place.
const RESERVE_BYTES: usize = BLOCK_BYTES;

fn seal_bytes(rows: usize) -> usize {
    whole_blocks(GROUP_HEADER_BYTES + rows * SEAL_ROW_BYTES)
}

/// Bytes of one encoded batch at most, in segments of `segment_bytes`.
pub(crate) fn batch_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes - (2 * BLOCK_BYTES + RESERVE_BYTES + GROUP_HEADER_BYTES) as u64
}

/// A truncation that nothing submitted or queued records yet.
#[derive(Clone, Copy, Debug)]
struct PendingTruncation {
    from: u64,
    base_term: u64,
    base_crc: u32,
}

/// What an operation under way was, for the failure report.
#[derive(Debug)]
struct Started {
    number: u64,
    operation: &'static str,
    file: crate::format::FileName,
    offset: u64,
}

/// What recovery found, and what the machine starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) options: Options,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) terms: Terms,
    pub(crate) next_index: u64,
    pub(crate) last_crc: u32,
    pub(crate) next_group_seq: u64,
    pub(crate) last_group_crc: u32,
    pub(crate) last_kind: GroupKind,
    pub(crate) meta: MetaRecord,
    pub(crate) spares: Vec<u64>,
    pub(crate) next_spare: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    options: Options,

    // The log as its owner sees it, including what is not durable.
    first_index: u64,
    next_index: u64,
    last_crc: u32,
    terms: Terms,
    tail: Tail,
    durable_index: u64,
    reported_index: u64,

    // Groups on their way, in order: open, queued, in flight.
    open: Option<OpenGroup>,
    pending_truncation: Option<PendingTruncation>,
    queue: VecDeque<QueuedGroup>,
    flights: VecDeque<Flight>,
    queued_bytes: u64,
    plan: Plan,

    // Groups as they are on disk.
    next_group_seq: u64,
    durable_group_seq: u64,
    last_group_crc: u32,
    last_kind: GroupKind,
    last_flush_us: u64,
    /// Since when something waits to become durable and nothing has.
    stalled_since_us: Option<u64>,
    flushes: flushes::Flushes,

    // Files.
    segments: VecDeque<Segment>,
    kept_index: u64,
    roll: Option<roll::Roll>,
    meta: Meta,
    space: Space,

    // The engine's side.
    next_number: u64,
    started: Vec<Started>,
    effects: Vec<(u64, Operation)>,
    events: Vec<Event>,
    failure: Option<Failure>,
    statistics: Statistics,
}

impl Machine {
    pub(crate) fn new(start: Start) -> Self {
        let first_index = start.segments.front().expect("a log has a segment").lo;
        let active = start.segments.back().expect("a log has a segment");
        let plan = Plan {
            offset: active.end_offset,
            rows: active.rows.len(),
            segment_bytes: active.bytes,
        };
        // A chunk takes at least one full group, and a few of the usual size.
        let group_bytes = start.options.group_bytes_max as usize;
        let chunk_bytes = whole_blocks(
            (4 * group_bytes)
                .clamp(64 << 10, HUGE_PAGE_BYTES)
                .max(group_bytes),
        );
        Self {
            first_index,
            next_index: start.next_index,
            last_crc: start.last_crc,
            terms: start.terms,
            tail: Tail::new(start.next_index, chunk_bytes),
            durable_index: start.next_index - 1,
            reported_index: start.next_index - 1,
            open: None,
            pending_truncation: None,
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            queued_bytes: 0,
            plan,
            next_group_seq: start.next_group_seq,
            durable_group_seq: start.next_group_seq - 1,
            last_group_crc: start.last_group_crc,
            last_kind: start.last_kind,
            last_flush_us: 0,
            stalled_since_us: None,
            flushes: flushes::Flushes::default(),
            segments: start.segments,
            kept_index: first_index,
            roll: None,
            meta: Meta::new(start.meta),
            space: Space::new(&start.options, start.spares, start.next_spare),
            next_number: 1,
            started: Vec::new(),
            effects: Vec::new(),
            events: Vec::new(),
            failure: None,
            statistics: Statistics::default(),
            options: start.options,
        }
    }

    /// The first index held; the next index if the log is empty.
    pub(crate) fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Bytes of the segments at the front that hold nothing from `index` on; never of the last one.
    pub(crate) fn bytes_before(&self, index: u64) -> u64 {
        let count = self.segments.len() - 1;
        let front = self.segments.iter().take(count);
        let before = front.take_while(|segment| segment.hi <= index);
        before.map(|segment| segment.bytes).sum()
    }

    /// The index the next append must have.
    pub(crate) fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The last entry's header checksum.
    pub(crate) fn last_crc(&self) -> u32 {
        self.last_crc
    }

    /// The last index below which everything is durable.
    pub(crate) fn durable_index(&self) -> u64 {
        self.durable_index
    }

    /// Bytes appended and not yet durable.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    pub(crate) fn store_id(&self) -> u128 {
        self.options.store_id
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Counters since open, with the present sizes.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            segments: self.segments.len() as u64,
            spares: self.space.ready() as u64,
            tail_bytes: self.tail.held_bytes(),
            ..self.statistics
        }
    }

    /// How long flushes took lately.
    pub(crate) fn recent_flushes(&self) -> RecentFlushes {
        self.flushes.recent()
    }

    /// The index after the last entry that the disk has been given.
    pub(crate) fn submitted_end(&self) -> u64 {
        // Groups without entries end nowhere.
        let ends = self.flights.iter().map(|flight| flight.visible_end);
        ends.max().unwrap_or(0).max(self.durable_index + 1)
    }

    /// Groups flushed, and what their flushes took, added up.
    pub(crate) fn flush_totals(&self) -> (u64, u64) {
        (self.statistics.groups, self.statistics.flush_us_sum)
    }

    /// How long the oldest flush under way has been so; while groups wait for the meta record or for the next
    /// segment, how long nothing has been written.
    pub(crate) fn flush_waits_us(&self, now_us: u64) -> u64 {
        let under_way = self.flights.iter().find(|flight| !flight.done);
        let started_us = under_way.map(|flight| flight.started_us);
        let since_us = started_us.into_iter().chain(self.stalled_since_us).min();
        since_us.map_or(0, |since_us| now_us.saturating_sub(since_us))
    }

    /// Something was written, or there may be something to write now.
    fn note_progress(&mut self, now_us: u64, has_written: bool) {
        if self.is_flushed() {
            self.stalled_since_us = None;
        } else if has_written || self.stalled_since_us.is_none() {
            self.stalled_since_us = Some(now_us);
        }
    }

    /// Operations to start, in order, since the last call.
    pub(crate) fn take_effects(&mut self) -> std::vec::Drain<'_, (u64, Operation)> {
        self.effects.drain(..)
    }

    /// Events since the last call.
    pub(crate) fn take_events(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.events);
    }

    /// Whether everything asked for has been done.
    pub(crate) fn is_quiet(&self) -> bool {
        self.failure.is_some()
            || (self.started.is_empty()
                && self.open.is_none()
                && self.queue.is_empty()
                && self.pending_truncation.is_none()
                && self.roll.is_none()
                && self.meta.is_quiet()
                && self.space.is_quiet())
    }

    /// Whether every entry, truncation and meta value asked for is durable.
    pub(crate) fn is_flushed(&self) -> bool {
        self.open.is_none()
            && self.queue.is_empty()
            && self.flights.is_empty()
            && self.pending_truncation.is_none()
            && self.roll.is_none()
            && self.meta.is_quiet()
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log has a segment")
    }

    fn start(&mut self, operation: Operation) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.started.push(Started {
            number,
            operation: operation.verb(),
            file: operation.file_name(),
            offset: operation.offset(),
        });
        self.effects.push((number, operation));
        number
    }
}
