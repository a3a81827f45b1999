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
use crate::error::{CorruptionKind, OpenError, ReadError};
use crate::format::{
    BLOCK_BYTES, FileName, PREDECESSOR_SEALED, RELINKED, SegmentHeader, SegmentName,
};
use crate::recover::files::{corrupt, run};

/// Bytes of a group's batches at most, where there are too few numbers for smaller groups.
const GROUP_BYTES_LIMIT: u64 = 1 << 30;

impl Salvage {
    fn operate(&mut self, operation: Operation) -> Result<(), OpenError> {
        run(self.engine.as_mut(), &mut self.number, operation)
    }

    /// Writes what the plan says; the chain must be whole.
    pub(super) fn write(&mut self, next_index: u64) -> Result<RepairReport, OpenError> {
        let mut report = RepairReport::default();
        let runs = plan(
            &self.files,
            &self.meta,
            &self.judged,
            &self.chain,
            next_index,
        );
        // The tails of what was whole and of what is rewritten, by segment.
        let mut tail = None;
        let mut after = self.meta.first_segment_seq;
        for planned in runs {
            if planned.first_seq > after {
                let before = self.judged.whole.get(&(planned.first_seq - 1));
                tail = before.map(|followed| followed.tail);
            }
            let rewritten = self.lay_out(&planned, tail)?;
            let last = rewritten.last().expect("a run has a segment");
            let seals = rewritten.len() as u64;
            let end = Tail {
                end_offset: last.end_offset,
                group_seq: last.header.first_group_seq + last.frames.len() as u64 - 1,
                group_crc: last.seal_crc,
                seal_offset: last.seal_offset,
            };
            for segment in rewritten.iter().rev() {
                self.write_segment(segment)?;
            }
            report.segments_written += seals;
            let entries = planned.shares.iter().map(|(lo, hi)| hi - lo);
            report.entries_written += entries.sum::<u64>();
            if planned.last_seq < self.meta.last_segment_seq {
                self.relink(planned.last_seq + 1, &end)?;
            }
            after = planned.last_seq + 1;
            tail = Some(end);
        }
        for file in std::mem::take(&mut self.strays) {
            self.operate(Operation::Remove { file })?;
            report.files_removed += 1;
        }
        Ok(report)
    }

    fn shares(&self, planned: &Run) -> Vec<Share> {
        let mut marker = planned.marker;
        let share = |entries: &(u64, u64)| Share {
            entries: *entries,
            marker: marker.take(),
            before: self
                .chain
                .before(entries.0)
                .expect("the entry before is the log's"),
        };
        planned.shares.iter().map(share).collect()
    }

    /// The numbers that the groups of a run may have: none above what the next segment begins with.
    fn lay_out(&mut self, planned: &Run, tail: Option<Tail>) -> Result<Vec<Rewritten>, OpenError> {
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
        let Some(bytes_max) = bytes_max else {
            let what = "its groups need more numbers than there are";
            let file = FileName::Segment(self.name_of(planned.first_seq, shares[0].entries.0));
            return Err(corrupt(file, 0, CorruptionKind::SegmentHeader(what)));
        };
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
            previous = continuing(&Tail {
                end_offset: made.end_offset,
                group_seq: first_group_seq - 1,
                group_crc: made.seal_crc,
                seal_offset: made.seal_offset,
            });
            segments.push(made);
        }
        Ok(segments)
    }

    fn header_of(&self, segment_seq: u64) -> Option<SegmentHeader> {
        let file = &self.files[file_of(&self.files, segment_seq)?];
        let header = file.header.clone();
        header.filter(|header| header.segment_seq == segment_seq)
    }

    fn name_of(&self, segment_seq: u64, first_index: u64) -> SegmentName {
        let file = file_of(&self.files, segment_seq);
        file.map_or(
            SegmentName {
                segment_seq,
                first_index,
            },
            |number| self.files[number].name,
        )
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
        let name = self.name_of(segment.header.segment_seq, segment.header.base_index);
        let mut block = [0; BLOCK_BYTES];
        segment.header.encode(&mut block);
        self.operate(Operation::Activate {
            spare,
            segment: name,
            header: Blocks::copy_of(&block),
        })
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
