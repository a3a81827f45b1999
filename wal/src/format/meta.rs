//! One slot of the meta record.

use super::{
    BLOCK_BYTES, BlockError, META_VALUE_BYTES_MAX, check_block, finish_block, le_u32, le_u64,
    le_u128, put,
};

pub(crate) const META_MAGIC: u64 = u64::from_le_bytes(*b"DRAVMETA");
const VALUE_AT: usize = 96;
const FLAG_INITIALISED: u32 = 1;

/// Bytes of the meta file: two slots.
pub(crate) const META_FILE_BYTES: usize = 2 * BLOCK_BYTES;

/// The one small record beside the segments: the caller's value and which segments must exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct MetaRecord {
    pub(crate) store_id: u128,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) first_segment_seq: u64,
    pub(crate) last_segment_seq: u64,
    pub(crate) initialised: bool,
    pub(crate) seed: u32,
    pub(crate) value: Vec<u8>,
}

impl MetaRecord {
    /// Writes the slot into `block`, which is one block long.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES, "a slot is one block");
        assert!(
            self.value.len() <= META_VALUE_BYTES_MAX,
            "the value's size is checked on arrival"
        );
        block.fill(0);
        let flags = if self.initialised {
            FLAG_INITIALISED
        } else {
            0
        };
        put(block, 16, &self.store_id.to_le_bytes());
        put(block, 32, &self.generation.to_le_bytes());
        put(block, 40, &self.sequence.to_le_bytes());
        put(block, 48, &self.first_segment_seq.to_le_bytes());
        put(block, 56, &self.last_segment_seq.to_le_bytes());
        put(block, 64, &flags.to_le_bytes());
        put(block, 68, &(self.value.len() as u32).to_le_bytes());
        put(block, 72, &self.seed.to_le_bytes());
        put(block, VALUE_AT, &self.value);
        finish_block(block, META_MAGIC);
    }

    /// Reads a slot.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, BlockError> {
        check_block(block, META_MAGIC, "meta slot")?;
        let value_bytes = le_u32(block, 68) as usize;
        let flags = le_u32(block, 64);
        if value_bytes > META_VALUE_BYTES_MAX || flags & !FLAG_INITIALISED != 0 {
            return Err(BlockError::Damaged("meta slot fields"));
        }
        Ok(Self {
            store_id: le_u128(block, 16),
            generation: le_u64(block, 32),
            sequence: le_u64(block, 40),
            first_segment_seq: le_u64(block, 48),
            last_segment_seq: le_u64(block, 56),
            initialised: flags & FLAG_INITIALISED != 0,
            seed: le_u32(block, 72),
            value: block[VALUE_AT..VALUE_AT + value_bytes].to_vec(),
        })
    }
}
