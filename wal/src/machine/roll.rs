//! Ending a segment and beginning the next.
//!
//! While the last groups drain, the next segment's file is given its header and name. Then, in this order,
//! each durable before the next: the seal, the meta record that names the new segment, its first group. So
//! only the last segment can be torn, and a missing one is noticed.

use super::space::RETRY_US;
use super::{Flight, Machine, Plan, Segment};
use crate::buffer::{Blocks, ClosedGroup};
use crate::engine::Operation;
use crate::format::{
    BLOCK_BYTES, GroupHeader, GroupKind, PREDECESSOR_SEALED, SEAL_HAS_RESET, SegmentHeader,
    SegmentName, USED_BEFORE, encode_rows,
};
use crate::mutants::{Mutant, is_planted};

/// The new segment's file.
#[derive(Debug)]
enum Activation {
    /// No spare is ready yet.
    Waiting,
    /// Under way.
    Started(u64),
    /// There was no room for the name; tried again when there may be.
    Refused { retry_at_us: u64 },
    /// The file has its header and its name.
    Done,
}

/// A roll under way.
#[derive(Debug)]
pub(super) struct Roll {
    seal: Option<Seal>,
    /// What the new segment's header says of the seal.
    seal_crc: u32,
    seal_offset: u64,
    seal_end: u64,
    seal_seq: u64,
    incarnation: u64,
    activation: Activation,
    /// What an activation does, for the next try.
    operation: Option<Operation>,
    next: Option<Segment>,
    meta_wanted: bool,
}

/// A seal that waits for the groups before it.
#[derive(Debug)]
struct Seal {
    blocks: Blocks,
}

impl Machine {
    /// Lets the groups planned from here on go to a new segment.
    pub(super) fn plan_roll(&mut self) {
        self.space.plan_roll();
        self.plan = Plan {
            offset: BLOCK_BYTES as u64,
            rows: 0,
            segment_bytes: self.options.segment_bytes,
        };
    }

    /// Begins a roll: every group of the segment has been submitted, so its seal is known.
    pub(super) fn begin_roll(&mut self, incarnation: u64) {
        assert!(self.roll.is_none(), "one roll at a time");
        let (terms_last, group_seq) = (self.last_submitted_term(), self.next_group_seq);
        let meta_generation = self.meta.durable().generation as u32;
        let previous_group_crc = self.last_group_crc;
        let active = self.active();
        let mut payload = Vec::new();
        encode_rows(&active.rows, &mut payload);
        let header = GroupHeader {
            kind: GroupKind::Seal,
            group_seq,
            // It is submitted when all before it is durable, and not earlier.
            durable_group_seq: group_seq - 1,
            first_index: active.lo,
            term: terms_last,
            batch_count: active.rows.len() as u32,
            payload_bytes: payload.len() as u32,
            payload_crc: crc32fast::hash(&payload),
            previous_group_crc,
            meta_generation,
            flags: if active.has_reset { SEAL_HAS_RESET } else { 0 },
        };
        let (bytes, seal_crc) = header.encode(active.seed);
        let blocks = ClosedGroup::around(&payload).finish(&bytes);
        let seal_offset = active.end_offset;
        let seal_end = seal_offset + blocks.len() as u64;
        assert!(seal_end <= active.bytes, "room for the seal is planned");
        self.next_group_seq += 1;
        self.last_group_crc = seal_crc;
        self.roll = Some(Roll {
            seal: Some(Seal { blocks }),
            seal_crc,
            seal_offset,
            seal_end,
            seal_seq: group_seq,
            incarnation,
            activation: Activation::Waiting,
            operation: None,
            next: None,
            meta_wanted: false,
        });
    }

    fn last_submitted_term(&self) -> u64 {
        self.queue
            .front()
            .map_or_else(|| self.terms.last(), |group| group.plan.base_term)
    }

    /// Does what can be done of a roll; true when it is complete.
    pub(super) fn advance_roll(&mut self, now_us: u64) -> bool {
        let Some(mut roll) = self.roll.take() else {
            return true;
        };
        let leaves_early = is_planted(Mutant::SealNotAwaited);
        if (self.flights.is_empty() || leaves_early)
            && let Some(seal) = roll.seal.take()
        {
            self.start_seal(&roll, seal, now_us);
        }
        match roll.activation {
            Activation::Waiting => self.activate(&mut roll),
            Activation::Refused { retry_at_us } if now_us >= retry_at_us => {
                let operation = roll.operation.clone().expect("it was tried before");
                roll.activation = Activation::Started(self.start(operation));
            }
            _ => {}
        }
        let sealed = roll.seal.is_none() && (self.flights.is_empty() || leaves_early);
        if sealed && matches!(roll.activation, Activation::Done) && !roll.meta_wanted {
            let next = roll.next.as_ref().expect("an activation names its segment");
            self.meta
                .want_last_segment(next.name.segment_seq, next.seed);
            roll.meta_wanted = true;
            self.pump_meta();
        }
        let named = roll
            .next
            .as_ref()
            .is_some_and(|next| self.meta.durable().last_segment_seq >= next.name.segment_seq);
        if roll.meta_wanted && named {
            self.finish_roll(roll);
            return true;
        }
        self.roll = Some(roll);
        false
    }

    fn start_seal(&mut self, roll: &Roll, seal: Seal, now_us: u64) {
        assert!(
            self.durable_group_seq == roll.seal_seq - 1 || is_planted(Mutant::SealNotAwaited),
            "a seal follows what is durable"
        );
        self.statistics.groups_started += 1;
        let number = self.start_write(roll.seal_offset, seal.blocks);
        self.flights.push_back(Flight {
            number,
            group_seq: roll.seal_seq,
            kind: GroupKind::Seal,
            payload_bytes: 0,
            visible_end: 0,
            cuts: false,
            started_us: now_us,
            done: false,
        });
    }

    fn activate(&mut self, roll: &mut Roll) {
        let Some((spare, used)) = self.space.take() else {
            return;
        };
        let first = self.queue.front().expect("a roll is begun for a group");
        let active = self.segments.back().expect("a log has a segment");
        let name = SegmentName {
            segment_seq: active.name.segment_seq + 1,
            first_index: first.first_index,
        };
        let header = SegmentHeader {
            store_id: self.options.store_id,
            segment_seq: name.segment_seq,
            incarnation: roll.incarnation,
            segment_bytes: self.options.segment_bytes,
            base_index: first.first_index,
            base_term: first.plan.base_term,
            base_crc: first.plan.base_crc,
            group_bytes_max: self.options.group_bytes_max,
            groups_in_flight_max: self.options.groups_in_flight_max,
            flags: PREDECESSOR_SEALED | if used { USED_BEFORE } else { 0 },
            previous_end_offset: roll.seal_end,
            previous_group_seq: roll.seal_seq,
            previous_group_crc: roll.seal_crc,
            linked_group_crc: 0,
            first_group_seq: self.next_group_seq,
            previous_seal_offset: roll.seal_offset,
        };
        let mut block = [0; BLOCK_BYTES];
        header.encode(&mut block);
        let mut next = Segment::new(name, header.segment_bytes, header.seed(), first.first_index);
        next.lo = active.hi;
        next.hi = active.hi;
        roll.next = Some(next);
        let operation = Operation::Activate {
            spare,
            segment: name,
            header: Blocks::copy_of(&block),
        };
        roll.operation = Some(operation.clone());
        roll.activation = Activation::Started(self.start(operation));
    }

    /// Takes note of a full disk, if it is what kept the new segment from its name: nothing is written to it
    /// yet, and it waits for room like a spare that cannot be made.
    pub(super) fn no_room_to_roll(&mut self, number: u64, now_us: u64) -> bool {
        let Some(roll) = &mut self.roll else {
            return false;
        };
        if !matches!(roll.activation, Activation::Started(own) if own == number) {
            return false;
        }
        let retry_at_us = now_us + RETRY_US;
        roll.activation = Activation::Refused { retry_at_us };
        self.exhaust(retry_at_us);
        true
    }

    /// When what waits for room on a full disk, and for nothing that is under way, is tried again.
    pub(crate) fn retry_at_us(&self) -> Option<u64> {
        let roll = self.roll.as_ref().filter(|_| self.failure.is_none())?;
        match roll.activation {
            Activation::Refused { retry_at_us } => Some(retry_at_us),
            Activation::Waiting => self.space.retry_at_us(),
            Activation::Started(_) | Activation::Done => None,
        }
    }

    /// Takes a completion if it is the new segment's.
    pub(super) fn complete_roll(&mut self, number: u64) -> bool {
        let Some(roll) = &mut self.roll else {
            return false;
        };
        if !matches!(roll.activation, Activation::Started(own) if own == number) {
            return false;
        }
        roll.activation = Activation::Done;
        self.space_proved();
        true
    }

    fn finish_roll(&mut self, roll: Roll) {
        let active = self.active();
        active.seal_offset = Some(roll.seal_offset);
        active.end_offset = roll.seal_end;
        // From here on the table is read from the seal.
        active.rows = Vec::new();
        self.segments
            .push_back(roll.next.expect("a complete roll has its segment"));
        self.queue
            .front_mut()
            .expect("a roll is begun for a group")
            .plan
            .roll_before = false;
        self.statistics.rolls += 1;
        self.trim();
    }
}
