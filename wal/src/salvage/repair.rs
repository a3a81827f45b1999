//! Writing the runs: each segment aside and then over its name, the last of a run first; then the header of the
//! segment behind the run, which names what it continues.
//!
//! Until that header is written the log is found damaged, and every entry that was found before is found again.

use super::frames::{self, Rewritten, Share};
use super::judge::{Tail, file_of};
use super::plan::{Run, plan};
use super::{RepairReport, Salvage};
use crate::buffer::{Blocks, ClosedGroup};
use crate::engine::{Operation, Target};
use crate::error::{OpenError, ReadError};
use crate::format::{
    BLOCK_BYTES, FileName, PREDECESSOR_SEALED, RELINKED, SegmentHeader, SegmentName,
};
use crate::recover::files::run;

/// Bytes of a group's batches at most, where there are too few numbers for smaller groups.
const GROUP_BYTES_LIMIT: u64 = 1 << 30;

impl Salvage {
    fn operate(&mut self, operation: Operation) -> Result<(), OpenError> {
        run(self.engine.as_mut(), &mut self.number, operation)
    }

    /// Replaces the caller's value, durably on return; a crash on the way leaves the old or the new one. For what
    /// has to be known before entries are that a repair brings.
    ///
    /// # Errors
    /// [`OpenError::Failed`] for a write that failed.
    ///
    /// # Panics
    /// If the value is longer than [`crate::Options::META_VALUE_BYTES_MAX`].
    pub fn write_meta(&mut self, value: &[u8]) -> Result<(), OpenError> {
        self.meta.generation += 1;
        self.meta.sequence += 1;
        self.meta.value = value.to_vec();
        let mut block = [0; BLOCK_BYTES];
        self.meta.encode(&mut block);
        self.operate(Operation::OpenMeta)?;
        // One slot, and when it is durable the other.
        for slot in [self.meta.generation % 2, (self.meta.generation + 1) % 2] {
            self.operate(Operation::Write {
                target: Target::Meta,
                offset: slot * BLOCK_BYTES as u64,
                blocks: Blocks::copy_of(&block),
            })?;
        }
        Ok(())
    }

    /// Writes what the plan says; the chain must be whole.
    pub(super) fn write(&mut self, next_index: u64) -> Result<RepairReport, OpenError> {
        let mut report = RepairReport::default();
        for (planned, rewritten) in self.lay_out_all(next_index)? {
            for segment in rewritten.iter().rev() {
                self.write_segment(segment)?;
            }
            report.segments_written += rewritten.len() as u64;
            let entries = planned.shares.iter().map(|(lo, hi)| hi - lo);
            report.entries_written += entries.sum::<u64>();
            if planned.last_seq < self.meta.last_segment_seq {
                self.relink(planned.last_seq + 1, &end_of(&rewritten))?;
            }
        }
        for file in std::mem::take(&mut self.strays) {
            self.operate(Operation::Remove { file })?;
            report.files_removed += 1;
        }
        Ok(report)
    }

    /// All runs with their groups; refused if it is not known what one goes on from, a reset being lost. Where there
    /// are too few group numbers before the next segment, that one is written anew, too: after the last one there
    /// are enough.
    fn lay_out_all(&mut self, next_index: u64) -> Result<Vec<(Run, Vec<Rewritten>)>, OpenError> {
        'planning: loop {
            let (files, judged) = (&self.files, &self.judged);
            let runs = plan(files, &self.meta, judged, &self.chain, next_index);
            let mut laid_out = Vec::with_capacity(runs.len());
            for planned in runs {
                let mut shares = planned.shares.iter();
                if shares.any(|(lo, _)| self.chain.before(*lo).is_none()) {
                    return Err(self.first_damage());
                }
                let before = self.judged.whole.get(&(planned.first_seq - 1));
                let tail = before.map(|followed| followed.tail);
                let Some(rewritten) = self.lay_out(&planned, tail) else {
                    let next = self.judged.whole.remove(&(planned.last_seq + 1));
                    assert!(next.is_some(), "only a next segment limits the numbers");
                    continue 'planning;
                };
                laid_out.push((planned, rewritten));
            }
            return Ok(laid_out);
        }
    }

    fn shares(&self, planned: &Run) -> Vec<Share> {
        let mut marker = planned.marker;
        let share = |entries: &(u64, u64)| Share {
            entries: *entries,
            marker: marker.take(),
            before: self
                .chain
                .before(entries.0)
                .expect("it was seen to be known"),
        };
        planned.shares.iter().map(share).collect()
    }

    /// A run's segments behind `tail`, if there are numbers enough below those of the next segment.
    fn lay_out(&mut self, planned: &Run, tail: Option<Tail>) -> Option<Vec<Rewritten>> {
        let shares = self.shares(planned);
        let next = self.judged.whole.get(&(planned.last_seq + 1));
        let limit = next.map_or(u64::MAX, |next| next.header.first_group_seq);
        let count = |bytes_max| -> u64 {
            let counts = shares
                .iter()
                .map(|share| frames::count(&self.chain, share, bytes_max));
            counts.sum()
        };
        let own = self.header_of(planned.first_seq);
        let start = match (&tail, &own) {
            (Some(tail), _) => tail.group_seq + 1,
            (None, Some(own)) => own.first_group_seq,
            (None, None) => limit
                .min(self.group_seq_max() + 1)
                .saturating_sub(count(GROUP_BYTES_LIMIT))
                .max(1),
        };
        let room = limit - start.min(limit);
        let usual = u64::from(self.options.group_bytes_max);
        let bytes_max = [usual, GROUP_BYTES_LIMIT]
            .into_iter()
            .find(|bytes_max| count(*bytes_max) <= room);
        let bytes_max = bytes_max?;
        let mut first_group_seq = start;
        // Behind what the old file may hold, if the next segment leaves that much room.
        if let Some(own) = own.as_ref().filter(|own| own.first_group_seq > start)
            && own.first_group_seq + count(bytes_max) <= limit
        {
            first_group_seq = own.first_group_seq;
        }
        let mut previous = match (tail, own) {
            (Some(tail), _) => continuing(&tail),
            (None, Some(own)) => own,
            (None, None) => SegmentHeader::default(),
        };
        let generation = self.meta.generation as u32;
        let mut segments: Vec<Rewritten> = Vec::with_capacity(shares.len());
        for (segment_seq, share) in (planned.first_seq..).zip(&shares) {
            let usual = self.options.segment_bytes;
            let old_bytes = self
                .header_of(segment_seq)
                .map_or(usual, |old| old.segment_bytes);
            let header = SegmentHeader {
                store_id: self.options.store_id,
                segment_seq,
                incarnation: self.engine.random_u64(),
                segment_bytes: old_bytes,
                base_index: share.entries.0,
                base_term: share.before.0,
                base_crc: share.before.1,
                group_bytes_max: self.options.group_bytes_max,
                groups_in_flight_max: self.options.groups_in_flight_max,
                flags: previous.flags & PREDECESSOR_SEALED,
                linked_group_crc: 0,
                first_group_seq,
                ..previous
            };
            let made = frames::lay_out(&self.chain, share, header, bytes_max, generation);
            first_group_seq += made.frames.len() as u64;
            segments.push(made);
            previous = continuing(&end_of(&segments));
        }
        Some(segments)
    }

    fn header_of(&self, segment_seq: u64) -> Option<SegmentHeader> {
        let file = &self.files[file_of(&self.files, segment_seq)?];
        let header = file.header.clone();
        header.filter(|header| header.segment_seq == segment_seq)
    }

    fn group_seq_max(&self) -> u64 {
        let groups = self.files.iter().flat_map(|file| &file.groups);
        groups
            .map(|group| group.header.group_seq)
            .max()
            .unwrap_or(0)
    }

    fn write_segment(&mut self, segment: &Rewritten) -> Result<(), OpenError> {
        let spare = self.next_spare;
        self.next_spare += 1;
        self.operate(Operation::Prepare {
            spare,
            bytes: segment.header.segment_bytes,
            prewrite: self.options.prewrite,
        })?;
        let seed = segment.header.seed();
        for frame in &segment.frames {
            let mut payload = frame.payload.clone();
            for index in frame.entries.clone() {
                let batch = self.chain.get(index).expect("the log is whole");
                let bytes = self.load(batch).map_err(unreadable)?;
                payload.extend_from_slice(&bytes);
            }
            let is_same = payload.len() == frame.header.payload_bytes as usize;
            assert!(is_same, "a group is as long as its batches");
            let (header, _) = frame.header.encode(seed);
            self.operate(Operation::Fill {
                spare,
                offset: frame.offset,
                blocks: ClosedGroup::around(&payload).finish(&header),
            })?;
        }
        // A trim relies on the name's first index being that of the header.
        let name = SegmentName {
            segment_seq: segment.header.segment_seq,
            first_index: segment.header.base_index,
        };
        let mut block = [0; BLOCK_BYTES];
        segment.header.encode(&mut block);
        self.operate(Operation::Activate {
            spare,
            segment: name,
            header: Blocks::copy_of(&block),
        })?;
        self.strays.retain(|file| *file != FileName::Segment(name));
        let former = file_of(&self.files, name.segment_seq).map(|file| self.files[file].name);
        let former = former.filter(|former| *former != name);
        self.strays.extend(former.map(FileName::Segment));
        Ok(())
    }

    /// Lets the whole segment behind a run continue what was written. Its first group names the former
    /// predecessor, and so does its header from now on.
    fn relink(&mut self, segment_seq: u64, tail: &Tail) -> Result<(), OpenError> {
        let next = &self.judged.whole[&segment_seq];
        let segment = self.files[next.file].name;
        let header = SegmentHeader {
            linked_group_crc: next.header.first_link_crc(),
            flags: next.header.flags | RELINKED | PREDECESSOR_SEALED,
            previous_end_offset: tail.end_offset,
            previous_group_seq: tail.group_seq,
            previous_group_crc: tail.group_crc,
            previous_seal_offset: tail.seal_offset,
            ..next.header.clone()
        };
        let mut block = [0; BLOCK_BYTES];
        header.encode(&mut block);
        self.operate(Operation::Open { segment })?;
        self.operate(Operation::Write {
            target: Target::Segment(segment),
            offset: 0,
            blocks: Blocks::copy_of(&block),
        })
    }
}

fn end_of(rewritten: &[Rewritten]) -> Tail {
    let last = rewritten.last().expect("a run has a segment");
    Tail {
        end_offset: last.end_offset,
        group_seq: last.header.first_group_seq + last.frames.len() as u64 - 1,
        group_crc: last.seal_crc,
        seal_offset: last.seal_offset,
    }
}

/// The fields that name what a segment continues.
fn continuing(tail: &Tail) -> SegmentHeader {
    let is_sealed = tail.seal_offset > 0;
    SegmentHeader {
        flags: if is_sealed { PREDECESSOR_SEALED } else { 0 },
        previous_end_offset: tail.end_offset,
        previous_group_seq: tail.group_seq,
        previous_group_crc: tail.group_crc,
        previous_seal_offset: tail.seal_offset,
        ..SegmentHeader::default()
    }
}

fn unreadable(error: ReadError) -> OpenError {
    match error {
        ReadError::Corrupt(corruption) => corruption.into(),
        ReadError::Io { file, source, .. } => OpenError::Io {
            operation: "reading",
            path: file.to_string().into(),
            source,
        },
        other => unreachable!("the entry is the log's: {other}"),
    }
}
