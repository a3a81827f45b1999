//! What is submitted when: group cutting, the window of groups in flight, the idle group.

use super::{Flight, Machine};
use crate::buffer::{Blocks, ClosedGroup};
use crate::engine::{Operation, Target};
use crate::format::{BLOCK_BYTES, GroupHeader, GroupKind, SealRow};
use crate::mutants::{Mutant, is_planted};

impl Machine {
    /// Starts whatever may start. `random` gives a fresh number if a segment begins.
    pub(crate) fn pump(&mut self, now_us: u64, random: &mut dyn FnMut() -> u64) {
        if self.failure.is_some() {
            return;
        }
        self.pump_groups(now_us, random);
        self.pump_meta();
        self.pump_space(now_us);
        self.note_progress(now_us, false);
    }

    fn pump_groups(&mut self, now_us: u64, random: &mut dyn FnMut() -> u64) {
        loop {
            if self.roll.is_some() && !self.advance_roll(now_us) {
                return;
            }
            // A segment's end may begin whatever is in flight: its seal waits for that by itself, and the next
            // segment's file is made ready meanwhile.
            let ends_segment = self
                .queue
                .front()
                .is_some_and(|group| group.plan.roll_before);
            if !ends_segment && !self.window_is_open() {
                return;
            }
            if self.queue.is_empty() {
                self.close_group();
                self.record_truncation();
            }
            let Some(front) = self.queue.front() else {
                break;
            };
            if front.plan.meta_sequence > self.meta.durable().sequence
                && !is_planted(Mutant::MetaAfterEntries)
            {
                return;
            }
            if front.plan.roll_before {
                self.begin_roll(random());
                continue;
            }
            self.start_group(now_us);
        }
        self.idle(now_us);
    }

    /// One group is in flight normally; further ones only when enough waits to be worth a flush, and never
    /// more than the window, counted from the oldest that is not durable: recovery relies on it.
    fn window_is_open(&self) -> bool {
        let Some(oldest) = self.flights.front() else {
            return true;
        };
        let in_window =
            oldest.group_seq + u64::from(self.options.groups_in_flight_max) > self.next_group_seq;
        let in_flight: u64 = self.flights.iter().map(|flight| flight.payload_bytes).sum();
        let waiting = self.queued_bytes - in_flight;
        in_window && waiting >= u64::from(self.options.extra_group_bytes_min).max(1)
    }

    fn start_group(&mut self, now_us: u64) {
        let group = self.queue.pop_front().expect("the caller saw it");
        let group_seq = self.next_group_seq;
        let header = GroupHeader {
            kind: group.kind,
            group_seq,
            durable_group_seq: self.durable_group_seq,
            first_index: group.first_index,
            term: group.term,
            batch_count: group.batch_count,
            payload_bytes: group.payload_bytes,
            payload_crc: group.payload_crc,
            previous_group_crc: self.last_group_crc,
            meta_generation: self.meta.durable().generation as u32,
            flags: 0,
        };
        let (seed, offset) = (self.active().seed, self.active().end_offset);
        let (bytes, crc) = header.encode(seed);
        let blocks = group.closed.finish(&bytes);
        assert!(
            offset + blocks.len() as u64 <= self.active().bytes,
            "groups are planned to fit"
        );
        self.next_group_seq += 1;
        self.last_group_crc = crc;
        self.last_kind = group.kind;
        self.apply(&header, offset);
        self.active().end_offset = offset + blocks.len() as u64;
        self.statistics.groups_started += 1;
        self.statistics.written_bytes += blocks.len() as u64;
        self.statistics.batches += u64::from(group.batch_count);
        let number = self.start_write(offset, blocks);
        self.flights.push_back(Flight {
            number,
            group_seq,
            kind: group.kind,
            payload_bytes: group.payload_bytes.into(),
            visible_end: group.visible_end,
            cuts: group.plan.cuts,
            started_us: now_us,
            done: false,
        });
    }

    pub(super) fn start_write(&mut self, offset: u64, blocks: Blocks) -> u64 {
        let target = Target::Segment(self.active().name);
        self.start(Operation::Write {
            target,
            offset,
            blocks,
        })
    }

    /// What a submitted group does to the segments' ranges; recovery does the same in the same order.
    fn apply(&mut self, header: &GroupHeader, offset: u64) {
        apply_group(self.segments.make_contiguous(), header, offset);
    }

    /// Records that the last group is durable, when nothing else will for a while.
    fn idle(&mut self, now_us: u64) {
        let recorded = matches!(self.last_kind, GroupKind::Idle | GroupKind::Seal);
        let quiet = self.flights.is_empty()
            && now_us.saturating_sub(self.last_flush_us) >= self.options.idle_us;
        if recorded || !quiet || self.options.idle_us == 0 || !self.plan.fits(BLOCK_BYTES, 0) {
            return;
        }
        self.plan.offset += BLOCK_BYTES as u64;
        let plan = self.group_plan(false);
        self.queue.push_back(super::QueuedGroup {
            kind: GroupKind::Idle,
            closed: ClosedGroup::around(&[]),
            first_index: self.next_index,
            batch_count: 0,
            term: plan.base_term,
            payload_bytes: 0,
            payload_crc: plan.base_crc,
            visible_end: 0,
            plan,
        });
        self.start_group(now_us);
    }
}

/// Applies a group to the ranges of the segments up to the one it is in, which is the last of `segments`.
pub(crate) fn apply_group(segments: &mut [super::Segment], header: &GroupHeader, offset: u64) {
    let first = header.first_index;
    match header.kind {
        GroupKind::Idle | GroupKind::Seal => return,
        GroupKind::Data | GroupKind::Truncate => {
            for segment in segments.iter_mut().rev() {
                segment.clip(first);
            }
        }
        GroupKind::Reset => {
            for segment in segments.iter_mut() {
                segment.clip(0);
                segment.lo = first;
                segment.hi = first;
            }
        }
    }
    let active = segments.last_mut().expect("a group is in a segment");
    active.has_reset |= header.kind == GroupKind::Reset;
    if header.kind == GroupKind::Data {
        active.rows.push(SealRow {
            first_index: first,
            term: header.term,
            offset: offset as u32,
            batch_count: header.batch_count,
        });
        active.lo = active.lo.min(first);
        active.hi = first + u64::from(header.batch_count);
    }
}
