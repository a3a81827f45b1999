//! Group headers and the table in a seal.

use drave_batch::DecodeError;

use super::{le_u32, le_u64, put};

/// Bytes of a group header.
pub(crate) const GROUP_HEADER_BYTES: usize = 64;

/// Marks the start of a group.
pub(crate) const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"GRUP");

/// Bytes of one row of a seal.
pub(crate) const SEAL_ROW_BYTES: usize = 24;

/// Flag of a seal: a group of the segment was a reset, so the table does not tell everything.
pub(crate) const SEAL_HAS_RESET: u8 = 1;

/// What a group does to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum GroupKind {
    /// Adds batches, superseding what was at their indexes.
    Data = 1,
    /// Removes a suffix.
    Truncate = 2,
    /// Removes everything; the log goes on elsewhere.
    Reset = 3,
    /// Only records durability.
    Idle = 4,
    /// Ends a segment.
    Seal = 5,
}

/// A group's header; see the table in `docs/format-wal.md` for the meaning of each field per kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    pub(crate) group_seq: u64,
    pub(crate) durable_group_seq: u64,
    pub(crate) first_index: u64,
    pub(crate) term: u64,
    pub(crate) batch_count: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) previous_group_crc: u32,
    pub(crate) meta_generation: u32,
    pub(crate) flags: u8,
}

impl GroupHeader {
    /// The 64 bytes and the header's checksum.
    pub(crate) fn encode(&self, seed: u32) -> ([u8; GROUP_HEADER_BYTES], u32) {
        let mut out = [0; GROUP_HEADER_BYTES];
        put(&mut out, 0, &GROUP_MAGIC.to_le_bytes());
        put(&mut out, 8, &self.group_seq.to_le_bytes());
        put(&mut out, 16, &self.durable_group_seq.to_le_bytes());
        put(&mut out, 24, &self.first_index.to_le_bytes());
        put(&mut out, 32, &self.term.to_le_bytes());
        put(&mut out, 40, &self.batch_count.to_le_bytes());
        put(&mut out, 44, &self.payload_bytes.to_le_bytes());
        put(&mut out, 48, &self.payload_crc.to_le_bytes());
        put(&mut out, 52, &self.previous_group_crc.to_le_bytes());
        put(&mut out, 56, &self.meta_generation.to_le_bytes());
        out[60] = self.kind as u8;
        out[61] = self.flags;
        let crc = header_crc(&out, seed);
        put(&mut out, 4, &crc.to_le_bytes());
        (out, crc)
    }

    /// The header at the start of `bytes` with its checksum, if it is one of this seed's.
    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Option<(Self, u32)> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        if le_u32(bytes, 0) != GROUP_MAGIC {
            return None;
        }
        let crc = le_u32(bytes, 4);
        if crc != header_crc(bytes, seed) || bytes[62..64] != [0; 2] {
            return None;
        }
        let kind = match bytes[60] {
            1 => GroupKind::Data,
            2 => GroupKind::Truncate,
            3 => GroupKind::Reset,
            4 => GroupKind::Idle,
            5 => GroupKind::Seal,
            _ => return None,
        };
        let header = Self {
            kind,
            group_seq: le_u64(bytes, 8),
            durable_group_seq: le_u64(bytes, 16),
            first_index: le_u64(bytes, 24),
            term: le_u64(bytes, 32),
            batch_count: le_u32(bytes, 40),
            payload_bytes: le_u32(bytes, 44),
            payload_crc: le_u32(bytes, 48),
            previous_group_crc: le_u32(bytes, 52),
            meta_generation: le_u32(bytes, 56),
            flags: bytes[61],
        };
        let sized = match kind {
            GroupKind::Data => header.batch_count > 0 && header.payload_bytes > 0,
            GroupKind::Seal => {
                u64::from(header.payload_bytes)
                    == u64::from(header.batch_count) * SEAL_ROW_BYTES as u64
            }
            _ => header.batch_count == 0 && header.payload_bytes == 0,
        };
        let flagged =
            header.flags == 0 || (kind == GroupKind::Seal && header.flags == SEAL_HAS_RESET);
        let ordered = header.durable_group_seq < header.group_seq && header.first_index > 0;
        (sized && ordered && flagged).then_some((header, crc))
    }
}

fn header_crc(bytes: &[u8], seed: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&bytes[8..GROUP_HEADER_BYTES]);
    hasher.finalize()
}

/// Why there is no header of this seed at the start of `bytes`, in numbers: magic, then checksum.
pub(crate) fn explain_header(bytes: &[u8], seed: u32) -> Option<DecodeError> {
    let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
    let (magic, crc) = (le_u32(bytes, 0), le_u32(bytes, 4));
    let computed = header_crc(bytes, seed);
    if magic != GROUP_MAGIC {
        Some(DecodeError::Magic {
            what: "group header",
            expected: GROUP_MAGIC.into(),
            found: magic.into(),
        })
    } else if crc != computed {
        Some(DecodeError::Checksum {
            what: "group header",
            expected: crc,
            found: computed,
        })
    } else {
        None
    }
}

/// The group seq that an unverified header claims, if it has the magic.
pub(crate) fn raw_group_seq(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
    (le_u32(bytes, 0) == GROUP_MAGIC).then(|| le_u64(bytes, 8))
}

/// Where a run of entries is in a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SealRow {
    /// Index of the group's first batch.
    pub(crate) first_index: u64,
    /// Term of its batches.
    pub(crate) term: u64,
    /// Offset of the group's header.
    pub(crate) offset: u32,
    /// How many of its batches count, from the first.
    pub(crate) batch_count: u32,
}

impl SealRow {
    /// The index after the last batch that counts.
    pub(crate) fn end_index(&self) -> u64 {
        self.first_index + u64::from(self.batch_count)
    }
}

/// Appends the rows to `out`.
pub(crate) fn encode_rows(rows: &[SealRow], out: &mut Vec<u8>) {
    for row in rows {
        out.extend_from_slice(&row.first_index.to_le_bytes());
        out.extend_from_slice(&row.term.to_le_bytes());
        out.extend_from_slice(&row.offset.to_le_bytes());
        out.extend_from_slice(&row.batch_count.to_le_bytes());
    }
}

/// The rows of a seal's payload, or nothing when they are not in order without gaps.
pub(crate) fn decode_rows(payload: &[u8]) -> Option<Vec<SealRow>> {
    let mut rows: Vec<SealRow> = Vec::with_capacity(payload.len() / SEAL_ROW_BYTES);
    for bytes in payload.chunks(SEAL_ROW_BYTES) {
        if bytes.len() != SEAL_ROW_BYTES {
            return None;
        }
        let row = SealRow {
            first_index: le_u64(bytes, 0),
            term: le_u64(bytes, 8),
            offset: le_u32(bytes, 16),
            batch_count: le_u32(bytes, 20),
        };
        row.first_index.checked_add(row.batch_count.into())?;
        if row.batch_count == 0
            || rows
                .last()
                .is_some_and(|last| last.end_index() != row.first_index)
        {
            return None;
        }
        rows.push(row);
    }
    Some(rows)
}
