//! Appending: one check of index, chain, term and limits, one copy into the tail.

use drave_batch::{BATCH_HEADER_BYTES, BODY_BYTES_MAX, BatchHeader, BatchRef, EntryKind};

use super::{GroupPlan, Machine, OpenGroup, QueuedGroup, RESERVE_BYTES, batch_bytes_max};
use crate::error::AppendError;
use crate::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupKind, whole_blocks};

/// The share of the last possible segment that data leaves to control entries on a full disk, as a divisor.
const CONTROL_SHARE: u64 = 8;

/// And at most so many bytes.
const CONTROL_BYTES_MAX: u64 = 256 << 10;

/// On a busy disk a group is begun only in memory that takes this share of a full one, as a divisor.
const WORTHWHILE_SHARE: usize = 4;

/// What an entry may use up when the disk is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// Records: the last spare and a share of the last segment stay free.
    Data,
    /// What the group itself needs to go on, and to make room again: all there is.
    Control,
}

impl Claim {
    fn of(kind: EntryKind) -> Self {
        if matches!(kind, EntryKind::Data | EntryKind::Together) {
            Self::Data
        } else {
            Self::Control
        }
    }

    fn spares_left(self) -> usize {
        usize::from(self == Self::Data)
    }

    /// Bytes that may wait to be flushed. What the group needs to go on is not refused because records wait;
    /// there is little of it.
    fn queue_bytes_max(self, limit: u64) -> u64 {
        match self {
            Self::Data => limit,
            Self::Control => limit.saturating_add(CONTROL_BYTES_MAX),
        }
    }
}

/// The header bytes that a batch starts with, and its checksum is in the first four.
fn crc_of(header: &[u8; BATCH_HEADER_BYTES]) -> u32 {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]])
}

impl Machine {
    /// Encodes and appends a batch after the last entry.
    pub(crate) fn append(
        &mut self,
        header: &mut BatchHeader,
        body: &[u8],
    ) -> Result<(), AppendError> {
        if header.body_len as usize != body.len() {
            let (expected, found) = (u64::from(header.body_len), body.len() as u64);
            return Err(AppendError::Body { expected, found });
        }
        if header.body_len > BODY_BYTES_MAX {
            let (found, limit) = (u64::from(header.body_len), u64::from(BODY_BYTES_MAX));
            return Err(AppendError::TooLarge { found, limit });
        }
        let bytes = header.encoded_bytes();
        self.make_room(header, bytes)?;
        header.prev_crc = self.last_crc;
        let encoded = header.encode();
        self.push([&encoded, body], bytes, crc_of(&encoded), header.term);
        Ok(())
    }

    /// Appends an encoded batch unchanged after the last entry, which must be the one it continues.
    pub(crate) fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), AppendError> {
        let header = &batch.header;
        if header.index == self.next_index && header.prev_crc != self.last_crc {
            return Err(AppendError::Chain {
                index: header.index,
                expected: self.last_crc,
                found: header.prev_crc,
            });
        }
        let encoded = batch.encoded();
        self.make_room(header, encoded.len())?;
        self.push([encoded, &[]], encoded.len(), batch.header_crc, header.term);
        Ok(())
    }

    /// Whether batches of `bytes` in all, appended now one after the other, would be taken.
    pub(crate) fn has_room(&self, bytes: usize, claim: Claim) -> Result<(), AppendError> {
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(failure.clone()));
        }
        let limit = claim.queue_bytes_max(self.options.queue_bytes_max);
        if self.queued_bytes > 0 && self.queued_bytes + bytes as u64 > limit {
            return Err(AppendError::Full {
                queued_bytes: self.queued_bytes,
                limit,
            });
        }
        // Each group adds its header and less than a block of padding, and the open one, which the plan
        // does not count before it is closed, takes its place first.
        let groups = bytes / self.options.group_bytes_max as usize + 2;
        let open = self
            .open
            .as_ref()
            .map_or(0, |open| GROUP_HEADER_BYTES + open.payload_bytes);
        let grown = whole_blocks(open) + whole_blocks(bytes) + groups * 2 * BLOCK_BYTES;
        if self.plan.fits(grown, self.reserve_bytes(claim))
            || self.space.may_roll(claim.spares_left())
        {
            Ok(())
        } else {
            Err(AppendError::NoSpace)
        }
    }

    fn push(&mut self, parts: [&[u8]; 2], bytes: usize, crc: u32, term: u64) {
        self.tail.push(parts, bytes);
        self.terms.push(self.next_index, term);
        let open = self.open.as_mut().expect("making room opens a group");
        open.batch_count += 1;
        open.payload_bytes += bytes;
        open.batch_crcs.update(&crc.to_le_bytes());
        self.next_index += 1;
        self.last_crc = crc;
        self.queued_bytes += bytes as u64;
    }

    /// Checks everything that can refuse an append, then leaves a group open that takes `bytes`.
    fn make_room(&mut self, header: &BatchHeader, bytes: usize) -> Result<(), AppendError> {
        let (index, term, claim) = (header.index, header.term, Claim::of(header.kind));
        if let Some(failure) = &self.failure {
            return Err(AppendError::Failed(failure.clone()));
        }
        if index != self.next_index {
            return Err(AppendError::Index {
                expected: self.next_index,
                found: index,
            });
        }
        let last_term = self.terms.last();
        if term < last_term {
            return Err(AppendError::Term {
                expected: last_term,
                found: term,
            });
        }
        let limit = batch_bytes_max(self.options.segment_bytes.min(self.plan.segment_bytes));
        if bytes as u64 > limit {
            return Err(AppendError::TooLarge {
                found: bytes as u64,
                limit,
            });
        }
        let queued_bytes = self.queued_bytes + bytes as u64;
        let limit = claim.queue_bytes_max(self.options.queue_bytes_max);
        if self.queued_bytes > 0 && queued_bytes > limit {
            return Err(AppendError::Full {
                queued_bytes: self.queued_bytes,
                limit,
            });
        }
        if self.open_group_takes(term, bytes, claim) {
            return Ok(());
        }
        self.open_group(term, bytes, claim)
    }

    /// What stays free behind an entry in its segment: a truncation's block; and when no segment can follow,
    /// behind data, a share for control entries.
    fn reserve_bytes(&self, claim: Claim) -> usize {
        if claim == Claim::Data && !self.space.may_roll(0) {
            let share = self.plan.segment_bytes / CONTROL_SHARE;
            return whole_blocks(share.min(CONTROL_BYTES_MAX) as usize) + RESERVE_BYTES;
        }
        RESERVE_BYTES
    }

    fn open_group_takes(&self, term: u64, bytes: usize, claim: Claim) -> bool {
        let Some(open) = &self.open else { return false };
        let grown = GROUP_HEADER_BYTES + open.payload_bytes + bytes;
        open.term == term
            && open.plan.meta_sequence == self.meta.sequence()
            && grown <= self.options.group_bytes_max as usize
            && bytes <= self.tail.room()
            && self
                .plan
                .fits(whole_blocks(grown), self.reserve_bytes(claim))
    }

    fn open_group(&mut self, term: u64, bytes: usize, claim: Claim) -> Result<(), AppendError> {
        self.close_group();
        let group_bytes = whole_blocks(GROUP_HEADER_BYTES + bytes);
        let roll_before = !self.plan.fits(group_bytes, self.reserve_bytes(claim));
        if roll_before && !self.space.may_roll(claim.spares_left()) {
            return Err(AppendError::NoSpace);
        }
        if roll_before {
            self.plan_roll();
        }
        // The group's first index is where the truncation cut, so it records the truncation itself.
        let cuts = self.pending_truncation.take().is_some();
        // While the disk is busy the group will grow: the rest of a piece of memory would cut it short, and a
        // small group costs a flush like a large one.
        let is_busy = !self.flights.is_empty();
        let worthwhile = if is_busy {
            self.options.group_bytes_max as usize / WORTHWHILE_SHARE
        } else {
            0
        };
        // Several groups are in flight only when much waits.
        let is_bulk = self.flights.len() > 1;
        self.tail.open_group(bytes, worthwhile, is_bulk);
        self.open = Some(OpenGroup {
            first_index: self.next_index,
            batch_count: 0,
            term,
            payload_bytes: 0,
            batch_crcs: crc32fast::Hasher::new(),
            plan: GroupPlan {
                cuts,
                ..self.group_plan(roll_before)
            },
        });
        Ok(())
    }

    pub(super) fn group_plan(&self, roll_before: bool) -> GroupPlan {
        GroupPlan {
            base_term: self.terms.last(),
            base_crc: self.last_crc,
            meta_sequence: self.meta.sequence(),
            roll_before,
            cuts: false,
        }
    }

    /// Ends the open group, if there is one, and queues it.
    pub(super) fn close_group(&mut self) {
        let Some(open) = self.open.take() else { return };
        let closed = self.tail.close_group();
        self.plan.offset += closed.bytes() as u64;
        self.plan.rows += 1;
        self.queue.push_back(QueuedGroup {
            kind: GroupKind::Data,
            closed,
            first_index: open.first_index,
            batch_count: open.batch_count,
            term: open.term,
            payload_bytes: open.payload_bytes as u32,
            payload_crc: open.batch_crcs.finalize(),
            visible_end: open.first_index + u64::from(open.batch_count),
            plan: open.plan,
        });
    }
}
