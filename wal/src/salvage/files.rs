//! What is in one segment file, however damaged: its groups as far as their headers are valid, and every batch
//! that is whole.
//!
//! Batches of valid groups have their place in the log's order. All others ("loose" ones: in damaged groups, in
//! files without a valid header, from a file's former use) may only be chosen by what the chain says.

use std::sync::Arc;

use bytes::Bytes;
use drave_batch::{BATCH_ALIGN, BATCH_HEADER_BYTES, BATCH_MAGIC, BatchRef};

use crate::engine::{Engine, Source};
use crate::error::{Corruption, CorruptionKind, OpenError};
use crate::format::{
    BLOCK_BYTES, BlockError, FileName, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SegmentHeader,
    SegmentName, WAL_VERSION, whole_blocks,
};
use crate::recover::files::failed;

/// Where the magic of a batch is in its header.
const BATCH_MAGIC_AT: usize = 88;

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
        let (offset, kind) = match SegmentHeader::decode(&block) {
            Err(BlockError::Version(found)) => {
                return Err(OpenError::Version {
                    file,
                    expected: WAL_VERSION,
                    found,
                });
            }
            Err(BlockError::Damaged(what)) => (0, Some(CorruptionKind::SegmentHeader(what))),
            Ok(header) if header.store_id != store_id => {
                return Err(OpenError::Store {
                    file,
                    expected: store_id,
                    found: header.store_id,
                });
            }
            Ok(header) => {
                let found = opened.bytes();
                let (segment_seq, expected) = (header.segment_seq, header.segment_bytes);
                opened.header = Some(header);
                if segment_seq != name.segment_seq {
                    (32, Some(CorruptionKind::SegmentName { segment_seq }))
                } else if expected != found {
                    (
                        found,
                        Some(CorruptionKind::SegmentBytes { expected, found }),
                    )
                } else {
                    (0, None)
                }
            }
        };
        opened.damage = kind.map(|kind| Corruption { file, offset, kind });
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
    pub(super) fn scan(&mut self, number: usize, seed: Option<u32>, found: &mut Vec<Candidate>) {
        let (mut offset, mut loose_from) = (BLOCK_BYTES as u64, BLOCK_BYTES as u64);
        while offset + BLOCK_BYTES as u64 <= self.bytes() {
            let group = seed.and_then(|seed| self.group_at(number, offset, seed, found));
            let Some(group) = group else {
                offset += BLOCK_BYTES as u64;
                continue;
            };
            self.scan_loose(number, loose_from, offset, found);
            if group.is_whole {
                loose_from = group.end_offset;
                offset = group.end_offset;
            } else {
                // The next group may begin anywhere, if it is the length that is wrong.
                loose_from = group.offset;
                offset += BLOCK_BYTES as u64;
            }
            self.groups.push(group);
        }
        self.scan_loose(number, loose_from, self.bytes(), found);
    }

    fn group_at(
        &self,
        number: usize,
        offset: u64,
        seed: u32,
        found: &mut Vec<Candidate>,
    ) -> Option<Group> {
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
        if end_offset > self.bytes() {
            return Some(group);
        }
        let payload_at = offset + GROUP_HEADER_BYTES as u64;
        let payload = self.load(payload_at, group.header.payload_bytes as usize);
        match group.header.kind {
            GroupKind::Data => {
                let place = |at: usize, bytes: usize| Place {
                    file: Some(number),
                    offset: payload_at + at as u64,
                    bytes: bytes as u32,
                };
                if let Some(batches) = whole_batches(&group.header, &payload, place) {
                    group.last_crc = batches.last().map_or(0, |last| last.crc);
                    group.is_whole = true;
                    found.extend(batches);
                }
            }
            GroupKind::Seal => {
                group.is_whole = crc32fast::hash(&payload) == group.header.payload_crc;
            }
            _ => group.is_whole = true,
        }
        Some(group)
    }

    /// Whole batches in `[from, to)`, wherever they begin.
    fn scan_loose(&self, number: usize, from: u64, to: u64, found: &mut Vec<Candidate>) {
        if to <= from {
            return;
        }
        let bytes = self.load(from, (to - from) as usize);
        let mut at = 0;
        while at + BATCH_HEADER_BYTES <= bytes.len() {
            let magic = &bytes[at + BATCH_MAGIC_AT..][..2];
            let batch = (magic == BATCH_MAGIC.to_le_bytes())
                .then(|| BatchRef::decode(&bytes[at..]).ok())
                .flatten()
                .filter(|batch| batch.verify_body().is_ok());
            let Some(batch) = batch else {
                at += BATCH_ALIGN;
                continue;
            };
            let place = Place {
                file: Some(number),
                offset: from + at as u64,
                bytes: batch.encoded().len() as u32,
            };
            found.push(candidate(&batch, 0, place));
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

/// Marks what later groups say is gone. A group's header says so though its batches be damaged.
pub(super) fn mark_superseded(files: &[SegmentFile], found: &mut [Candidate]) {
    let cuts = |group: &&Group| !matches!(group.header.kind, GroupKind::Idle | GroupKind::Seal);
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
        let later = from.partition_point(|(group_seq, _)| *group_seq <= batch.group_seq);
        let taken_from = from.get(later).map(|(_, first_index)| *first_index);
        batch.is_superseded = taken_from.is_some_and(|first_index| first_index <= batch.index);
    }
}

/// The batches of a data group, if all of them are what the header says.
fn whole_batches(
    header: &GroupHeader,
    payload: &[u8],
    place: impl Fn(usize, usize) -> Place,
) -> Option<Vec<Candidate>> {
    let mut batches: Vec<Candidate> = Vec::new();
    let (mut crcs, mut at) = (crc32fast::Hasher::new(), 0);
    for position in 0..u64::from(header.batch_count) {
        let batch = BatchRef::decode(&payload[at..]).ok()?;
        let last = batches.last();
        let follows = last.is_none_or(|last| last.crc == batch.header.prev_crc)
            && Some(batch.header.index) == header.first_index.checked_add(position)
            && batch.header.term == header.term;
        if !follows || batch.verify_body().is_err() {
            return None;
        }
        let bytes = batch.encoded().len();
        crcs.update(&batch.header_crc.to_le_bytes());
        batches.push(candidate(&batch, header.group_seq, place(at, bytes)));
        at += bytes;
    }
    (at == payload.len() && crcs.finalize() == header.payload_crc).then_some(batches)
}
