//! Reading entries: from the tail at once, from files by a job that any thread may run.
//!
//! What comes from a file is checked before it is given out: group header, every batch header on the way,
//! every body that is returned, and that they follow one another. It decides nothing about the log.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use drave_batch::BatchRef;

use crate::engine::Source;
use crate::error::{Corruption, CorruptionKind, ReadError};
use crate::format::{
    BLOCK_BYTES, FileName, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SealRow, SegmentName,
    decode_rows,
};

/// What a read gives.
#[derive(Debug)]
pub enum Read {
    /// The entries, from memory.
    Ready(Slices),
    /// A job that fetches them from a file.
    Cold(ColdRead),
}

/// Consecutive entries `[lo, hi)` as encoded batches. The memory stays valid whatever the log does.
#[derive(Clone, Debug)]
pub struct Slices {
    /// Index of the first entry.
    pub lo: u64,
    /// Index after the last one.
    pub hi: u64,
    /// Bytes of all pieces together.
    pub bytes: usize,
    /// Each piece holds whole batches back to back and nothing else.
    pub pieces: Vec<Bytes>,
}

/// Where a cold read finds out in which groups its entries are.
#[derive(Debug)]
pub(crate) enum Rows {
    /// Known: those that overlap the range.
    Known(Vec<SealRow>),
    /// In the seal at this offset.
    Seal(u64),
}

/// A read from a file: `Send`, blocking, to be run on a thread that may wait for a disk.
pub struct ColdRead {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) name: SegmentName,
    pub(crate) seed: u32,
    pub(crate) rows: Rows,
    pub(crate) lo: u64,
    pub(crate) hi: u64,
    pub(crate) bytes_max: usize,
}

impl fmt::Debug for ColdRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColdRead([{}, {}) of {})", self.lo, self.hi, self.name)
    }
}

impl ColdRead {
    /// Index of the first entry it reads.
    #[must_use]
    pub fn lo(&self) -> u64 {
        self.lo
    }

    /// Index after the last entry it may read; the limit on bytes may end it before.
    #[must_use]
    pub fn hi(&self) -> u64 {
        self.hi
    }

    /// Reads and checks, at least one entry, at most what was asked for. Blocks on the disk.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] with file and offset for entries that are damaged, [`ReadError::Io`] for a
    /// file that cannot be read.
    pub fn run(self) -> Result<Slices, ReadError> {
        let rows = match &self.rows {
            Rows::Known(rows) => rows.clone(),
            Rows::Seal(offset) => self.rows_from_seal(*offset)?,
        };
        let mut slices = Slices {
            lo: self.lo,
            hi: self.lo,
            bytes: 0,
            pieces: Vec::new(),
        };
        let from = rows.partition_point(|row| row.end_index() <= self.lo);
        for row in &rows[from..] {
            if row.first_index >= self.hi {
                break;
            }
            if !self.take_group(row, &mut slices)? {
                break;
            }
        }
        if slices.hi == slices.lo {
            return Err(self.corrupt(
                0,
                CorruptionKind::Batch {
                    index: self.lo,
                    what: "no group holds it",
                },
            ));
        }
        Ok(slices)
    }

    fn rows_from_seal(&self, offset: u64) -> Result<Vec<SealRow>, ReadError> {
        let bad = |what| self.corrupt(offset, CorruptionKind::Seal(what));
        let (header, payload) = self
            .load_group(offset)?
            .ok_or_else(|| bad("its header is not valid"))?;
        if header.kind != GroupKind::Seal || crc32fast::hash(&payload) != header.payload_crc {
            return Err(bad("its table is not valid"));
        }
        decode_rows(&payload).ok_or_else(|| bad("its table is not in order"))
    }

    /// Adds what is wanted of one group; false when no more is wanted.
    fn take_group(&self, row: &SealRow, slices: &mut Slices) -> Result<bool, ReadError> {
        let offset = u64::from(row.offset);
        let bad = |index, what| self.corrupt(offset, CorruptionKind::Batch { index, what });
        let group = self.load_group(offset)?;
        let (header, payload) =
            group.ok_or_else(|| bad(row.first_index, "its group's header is not valid"))?;
        if header.kind != GroupKind::Data || header.first_index != row.first_index {
            return Err(bad(row.first_index, "its group is another one"));
        }
        let mut index = row.first_index;
        let (mut at, mut start) = (0, None);
        let mut more = true;
        while index < row.end_index().min(self.hi) {
            let batch = BatchRef::decode(&payload[at..])
                .map_err(|_| bad(index, "its header is not valid"))?;
            if batch.header.index != index {
                return Err(bad(index, "another index is in its place"));
            }
            let bytes = batch.encoded().len();
            if index >= self.lo {
                if slices.bytes > 0 && slices.bytes + bytes > self.bytes_max {
                    more = false;
                    break;
                }
                batch
                    .verify_body()
                    .map_err(|_| bad(index, "its body is not valid"))?;
                start.get_or_insert(at);
                slices.bytes += bytes;
                slices.hi = index + 1;
            }
            at += bytes;
            index += 1;
        }
        if let Some(start) = start {
            slices.pieces.push(payload.slice(start..at));
        }
        Ok(more && slices.hi < self.hi)
    }

    /// A group's header and payload; nothing if the header is not valid or claims more than the file has.
    fn load_group(&self, offset: u64) -> Result<Option<(GroupHeader, Bytes)>, ReadError> {
        let file_bytes = self.source.bytes();
        if offset + BLOCK_BYTES as u64 > file_bytes {
            return Ok(None);
        }
        let head = self.load(offset, GROUP_HEADER_BYTES)?;
        let Some((header, _)) = GroupHeader::decode(&head, self.seed) else {
            return Ok(None);
        };
        let payload_at = offset + GROUP_HEADER_BYTES as u64;
        if payload_at + u64::from(header.payload_bytes) > file_bytes {
            return Ok(None);
        }
        let payload = self.load(payload_at, header.payload_bytes as usize)?;
        Ok(Some((header, payload)))
    }

    fn load(&self, offset: u64, bytes: usize) -> Result<Bytes, ReadError> {
        let file = FileName::Segment(self.name);
        let failed = |source| ReadError::Io {
            file,
            offset,
            source: Arc::new(source),
        };
        Arc::clone(&self.source).load(offset, bytes).map_err(failed)
    }

    fn corrupt(&self, offset: u64, kind: CorruptionKind) -> ReadError {
        Corruption {
            file: FileName::Segment(self.name),
            offset,
            kind,
        }
        .into()
    }
}
