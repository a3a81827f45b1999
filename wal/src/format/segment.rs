//! The first block of a segment.

use super::{BLOCK_BYTES, BlockError, check_block, finish_block, le_u32, le_u64, le_u128, put};

pub(crate) const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"DRAVEWAL");

/// Flag: the predecessor ends with a seal.
pub(crate) const PREDECESSOR_SEALED: u32 = 1;

/// Flag: the file held an older segment before, so what follows the last group may look like groups.
pub(crate) const USED_BEFORE: u32 = 2;

/// Flag: the predecessor was written anew after this segment's first group, which names the former one.
pub(crate) const RELINKED: u32 = 4;

/// What a segment says of itself and of its predecessor's end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: u128,
    pub(crate) segment_seq: u64,
    pub(crate) incarnation: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) base_index: u64,
    pub(crate) base_term: u64,
    pub(crate) base_crc: u32,
    pub(crate) group_bytes_max: u32,
    pub(crate) groups_in_flight_max: u32,
    pub(crate) flags: u32,
    pub(crate) previous_end_offset: u64,
    pub(crate) previous_group_seq: u64,
    pub(crate) previous_group_crc: u32,
    /// With [`RELINKED`]: what the first group calls the checksum of the group before it.
    pub(crate) linked_group_crc: u32,
    pub(crate) first_group_seq: u64,
    pub(crate) previous_seal_offset: u64,
}

impl SegmentHeader {
    /// Writes the header into `block`, which is one block long.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES, "a segment header is one block");
        block.fill(0);
        put(block, 16, &self.identity());
        put(block, 48, &self.segment_bytes.to_le_bytes());
        put(block, 56, &self.base_index.to_le_bytes());
        put(block, 64, &self.base_term.to_le_bytes());
        put(block, 72, &self.base_crc.to_le_bytes());
        put(block, 76, &self.group_bytes_max.to_le_bytes());
        put(block, 80, &self.groups_in_flight_max.to_le_bytes());
        put(block, 84, &self.flags.to_le_bytes());
        put(block, 88, &self.previous_end_offset.to_le_bytes());
        put(block, 96, &self.previous_group_seq.to_le_bytes());
        put(block, 104, &self.previous_group_crc.to_le_bytes());
        put(block, 108, &self.linked_group_crc.to_le_bytes());
        put(block, 112, &self.first_group_seq.to_le_bytes());
        put(block, 120, &self.previous_seal_offset.to_le_bytes());
        finish_block(block, SEGMENT_MAGIC);
    }

    /// Reads a header.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, BlockError> {
        check_block(block, SEGMENT_MAGIC, "segment header")?;
        let header = Self {
            store_id: le_u128(block, 16),
            segment_seq: le_u64(block, 32),
            incarnation: le_u64(block, 40),
            segment_bytes: le_u64(block, 48),
            base_index: le_u64(block, 56),
            base_term: le_u64(block, 64),
            base_crc: le_u32(block, 72),
            group_bytes_max: le_u32(block, 76),
            groups_in_flight_max: le_u32(block, 80),
            flags: le_u32(block, 84),
            previous_end_offset: le_u64(block, 88),
            previous_group_seq: le_u64(block, 96),
            previous_group_crc: le_u32(block, 104),
            linked_group_crc: le_u32(block, 108),
            first_group_seq: le_u64(block, 112),
            previous_seal_offset: le_u64(block, 120),
        };
        let consistent = header.base_index > 0
            && header.first_group_seq > header.previous_group_seq
            && header.flags & !(PREDECESSOR_SEALED | USED_BEFORE | RELINKED) == 0;
        if consistent {
            Ok(header)
        } else {
            Err(BlockError::Damaged("segment header fields"))
        }
    }

    /// What the segment's first group names as the checksum of the group before it.
    pub(crate) fn first_link_crc(&self) -> u32 {
        if self.flags & RELINKED == 0 {
            self.previous_group_crc
        } else {
            self.linked_group_crc
        }
    }

    fn identity(&self) -> [u8; 32] {
        let mut out = [0; 32];
        put(&mut out, 0, &self.store_id.to_le_bytes());
        put(&mut out, 16, &self.segment_seq.to_le_bytes());
        put(&mut out, 24, &self.incarnation.to_le_bytes());
        out
    }

    /// What the checksums of this segment's groups start from: groups of another use of the file, of
    /// another segment or of another store do not verify.
    pub(crate) fn seed(&self) -> u32 {
        crc32fast::hash(&self.identity())
    }
}
