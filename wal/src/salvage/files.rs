//! What is in one segment file, however damaged: its groups as far as their headers are valid, and every batch
//! that is whole.
//!
//! Batches have their place in the log's order if the header of their group is valid, be others of the group damaged
//! or not. All others ("loose" ones: in groups and files without a valid header, from a file's former use) may only be
//! chosen by what the chain says. A batch whose body is damaged still names the entry before it, if its header is
//! valid.

use std::sync::Arc;

use bytes::Bytes;
use drave_batch::{BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, BatchRef};

use crate::engine::{Engine, Source};
use crate::error::{Corruption, OpenError};
use crate::format::{
    BLOCK_BYTES, FileName, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SegmentHeader, SegmentName,
    may_begin_batch, whole_blocks,
};
use crate::recover::files::{failed, judge_first_block};
use crate::recover::scan::check_batch;

/// A batch that was found whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) crc: u32,
    pub(super) prev_crc: u32,
    /// The number of its group; 0 for a loose one.
    pub(super) group_seq: u64,
    /// A later group took it away, or put another in its place.
    pub(super) is_superseded: bool,
    pub(super) place: Place,
}

/// A batch of which only the header is valid: it cannot be read, but what it was, and what is before it, is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bodiless {
    pub(super) index: u64,
    pub(super) crc: u32,
    pub(super) prev_crc: u32,
}

/// What was found in all files.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) batches: Vec<Candidate>,
    pub(super) bodiless: Vec<Bodiless>,
}

/// Where a batch's bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// Which of the files, or none for what was fetched.
    pub(super) file: Option<usize>,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

/// A group with a valid header.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) header: GroupHeader,
    pub(super) crc: u32,
    pub(super) offset: u64,
    pub(super) end_offset: u64,
    /// The payload is valid, too.
    pub(super) is_whole: bool,
    /// Checksum of the last entry after it, where the group itself says.
    pub(super) last_crc: u32,
}

/// A segment file and what was found in it.
pub(super) struct SegmentFile {
    pub(super) name: SegmentName,
    source: Arc<dyn Source>,
    /// None if damaged.
    pub(super) header: Option<SegmentHeader>,
    /// What is wrong with the file as such.
    pub(super) damage: Option<Corruption>,
    pub(super) groups: Vec<Group>,
}

impl SegmentFile {
    /// Reads the first block. A file of another store or version is not damage.
    pub(super) fn open(
        engine: &mut dyn Engine,
        name: SegmentName,
        store_id: u128,
    ) -> Result<Self, OpenError> {
        let file = FileName::Segment(name);
        let source = engine
            .source(file, true)
            .map_err(|error| failed("opening", file, error))?;
        let mut opened = Self {
            name,
            source,
            header: None,
            damage: None,
            groups: Vec::new(),
        };
        let block = opened.load(0, BLOCK_BYTES);
        (opened.header, opened.damage) = judge_first_block(name, &block, opened.bytes(), store_id)?;
        Ok(opened)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// The number that the header says, or the name if there is no valid header.
    pub(super) fn own_seq(&self) -> u64 {
        let header = self.header.as_ref();
        header.map_or(self.name.segment_seq, |header| header.segment_seq)
    }

    /// The bytes; zeros for blocks that cannot be read and beyond the file's end.
    pub(super) fn load(&self, offset: u64, bytes: usize) -> Bytes {
        if let Ok(bytes) = Arc::clone(&self.source).load(offset, bytes) {
            return bytes;
        }
        let mut out = vec![0; bytes];
        for (position, piece) in out.chunks_mut(BLOCK_BYTES).enumerate() {
            let at = offset + (position * BLOCK_BYTES) as u64;
            let there = self.bytes().saturating_sub(at).min(piece.len() as u64) as usize;
            if let Ok(block) = Arc::clone(&self.source).load(at, there) {
                piece[..there].copy_from_slice(&block);
            }
        }
        out.into()
    }

    /// Finds groups, if the seed is known, and batches.
    pub(super) fn scan(&mut self, number: usize, seed: Option<u32>, found: &mut Found) {
        let (mut offset, mut loose_from) = (BLOCK_BYTES as u64, BLOCK_BYTES as u64);
        while offset + GROUP_HEADER_BYTES as u64 <= self.bytes() {
            let group = seed.and_then(|seed| self.group_at(number, offset, seed, found));
            let Some((group, valid_to)) = group else {
                offset += BLOCK_BYTES as u64;
                continue;
            };
            self.scan_loose(number, loose_from, offset, found);
            loose_from = valid_to;
            if group.is_whole {
                offset = group.end_offset;
            } else {
                // The next group may begin anywhere, if it is the length that is wrong.
                offset += BLOCK_BYTES as u64;
            }
            self.groups.push(group);
        }
        self.scan_loose(number, loose_from, self.bytes(), found);
    }

    /// The group whose header is at `offset`, and up to where what it holds is valid.
    fn group_at(
        &self,
        number: usize,
        offset: u64,
        seed: u32,
        found: &mut Found,
    ) -> Option<(Group, u64)> {
        let head = self.load(offset, GROUP_HEADER_BYTES);
        let (header, crc) = GroupHeader::decode(&head, seed)?;
        let end_offset =
            offset + whole_blocks(GROUP_HEADER_BYTES + header.payload_bytes as usize) as u64;
        let mut group = Group {
            crc,
            offset,
            end_offset,
            is_whole: false,
            last_crc: header.payload_crc,
            header,
        };
        let payload_at = offset + GROUP_HEADER_BYTES as u64;
        let mut valid_to = payload_at;
        let there = self.bytes().saturating_sub(payload_at);
        let payload_bytes = there.min(group.header.payload_bytes.into()) as usize;
        let is_there = end_offset <= self.bytes();
        let payload = self.load(payload_at, payload_bytes);
        match group.header.kind {
            GroupKind::Data => {
                let place = |at: usize, bytes: usize| Place {
                    file: Some(number),
                    offset: payload_at + at as u64,
                    bytes: bytes as u32,
                };
                let valid = valid_batches(&group.header, &payload, place);
                valid_to += valid.bytes as u64;
                group.is_whole = is_there && valid.is_whole;
                if let Some(last) = valid.batches.last().filter(|_| group.is_whole) {
                    group.last_crc = last.crc;
                }
                found.batches.extend(valid.batches);
            }
            GroupKind::Seal => {
                let is_valid = crc32fast::hash(&payload) == group.header.payload_crc;
                group.is_whole = is_there && is_valid;
            }
            _ => group.is_whole = is_there,
        }
        if group.is_whole {
            valid_to = end_offset;
        }
        Some((group, valid_to))
    }

    /// Whole batches in `[from, to)`, wherever they begin, and the headers of those that are not whole.
    fn scan_loose(&self, number: usize, from: u64, to: u64, found: &mut Found) {
        if to <= from {
            return;
        }
        let bytes = self.load(from, (to - from) as usize);
        let mut at = 0;
        while at + BATCH_HEADER_BYTES <= bytes.len() {
            let header = may_begin_batch(&bytes[at..])
                .then(|| BatchHeader::decode(&bytes[at..]).ok())
                .flatten();
            let Some((header, crc)) = header else {
                at += BATCH_ALIGN;
                continue;
            };
            let batch = BatchRef::decode(&bytes[at..]).ok();
            let Some(batch) = batch.filter(|batch| batch.verify_body().is_ok()) else {
                found.bodiless.push(Bodiless {
                    index: header.index,
                    crc,
                    prev_crc: header.prev_crc,
                });
                at += BATCH_ALIGN;
                continue;
            };
            let place = Place {
                file: Some(number),
                offset: from + at as u64,
                bytes: batch.encoded().len() as u32,
            };
            found.batches.push(candidate(&batch, 0, place));
            at += batch.encoded().len();
        }
    }
}

pub(super) fn candidate(batch: &BatchRef<'_>, group_seq: u64, place: Place) -> Candidate {
    Candidate {
        index: batch.header.index,
        term: batch.header.term,
        crc: batch.header_crc,
        prev_crc: batch.header.prev_crc,
        group_seq,
        is_superseded: false,
        place,
    }
}

/// Marks what later groups say is gone. A group's header says so though its batches be damaged, but not that of a
/// group behind `end_group_seq`, with which the log ends: it was never durable, and what it holds has no place.
pub(super) fn mark_superseded(files: &[SegmentFile], end_group_seq: u64, found: &mut [Candidate]) {
    let cuts = |group: &&Group| {
        let is_in_log = group.header.group_seq <= end_group_seq;
        is_in_log && !matches!(group.header.kind, GroupKind::Idle | GroupKind::Seal)
    };
    let groups = files.iter().flat_map(|file| &file.groups).filter(cuts);
    let mut from: Vec<(u64, u64)> = groups
        .map(|group| match group.header.kind {
            GroupKind::Reset => (group.header.group_seq, 0),
            _ => (group.header.group_seq, group.header.first_index),
        })
        .collect();
    from.sort_unstable();
    let mut lowest = u64::MAX;
    for (_, first_index) in from.iter_mut().rev() {
        lowest = lowest.min(*first_index);
        *first_index = lowest;
    }
    for batch in found {
        if batch.group_seq > end_group_seq {
            batch.group_seq = 0;
        }
        let later = from.partition_point(|(group_seq, _)| *group_seq <= batch.group_seq);
        let taken_from = from.get(later).map(|(_, first_index)| *first_index);
        batch.is_superseded = taken_from.is_some_and(|first_index| first_index <= batch.index);
    }
}

/// What is valid of a data group's batches.
#[derive(Default)]
struct Valid {
    batches: Vec<Candidate>,
    /// Up to where nothing is damaged.
    bytes: usize,
    /// Whether that is all that the header says.
    is_whole: bool,
}

/// The batches that the header says are in `payload`, but for those that are damaged. None if all are valid and they
/// are others than the header says.
fn valid_batches(
    header: &GroupHeader,
    payload: &[u8],
    place: impl Fn(usize, usize) -> Place,
) -> Valid {
    let mut valid = Valid {
        is_whole: true,
        ..Valid::default()
    };
    let (mut crcs, mut at) = (crc32fast::Hasher::new(), 0);
    let end = header.first_index.saturating_add(header.batch_count.into());
    let mut expected = header.first_index;
    while expected < end && at < payload.len() {
        let last = valid.batches.last();
        let fits = |batch: &BatchRef<'_>| {
            let index = batch.header.index;
            let is_next = index == expected;
            let in_group = is_next || !valid.is_whole && (expected..end).contains(&index);
            let before = last.filter(|last| last.index.checked_add(1) == Some(index));
            let place = (index, header.term, before.map(|before| before.crc));
            in_group && check_batch(batch, place).is_ok()
        };
        let Some(batch) = BatchRef::decode(&payload[at..]).ok().filter(fits) else {
            valid.is_whole = false;
            at += BATCH_ALIGN;
            continue;
        };
        let bytes = batch.encoded().len();
        crcs.update(&batch.header_crc.to_le_bytes());
        expected = batch.header.index + 1;
        let taken = candidate(&batch, header.group_seq, place(at, bytes));
        at += bytes;
        if valid.is_whole {
            valid.bytes = at;
        }
        valid.batches.push(taken);
    }
    if !valid.is_whole || expected < end {
        valid.is_whole = false;
    } else if at != payload.len() || crcs.finalize() != header.payload_crc {
        valid = Valid::default();
    }
    valid
}
