//! The bytes on disk (`docs/format-wal.md`): encoding and checked decoding of meta slots, segment headers,
//! group headers and seals, and the names of files. It decides nothing and touches no file.

use drave_batch::DecodeError;

mod group;
mod meta;
mod name;
mod segment;

pub use group::GroupKind;
pub(crate) use group::{
    GROUP_HEADER_BYTES, GroupHeader, SEAL_HAS_RESET, SEAL_ROW_BYTES, SealRow, decode_rows,
    encode_rows, explain_header, raw_group_seq,
};
pub(crate) use meta::{META_FILE_BYTES, META_MAGIC, MetaRecord};
pub use name::{FileName, SegmentName};
pub(crate) use segment::{PREDECESSOR_SEALED, RELINKED, SEGMENT_MAGIC, SegmentHeader, USED_BEFORE};

/// Bytes of a block: every structure on disk starts and ends on a multiple of it.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of the caller's meta value at most.
pub const META_VALUE_BYTES_MAX: usize = 1024;

/// The version of the layout that this build writes and reads.
pub const WAL_VERSION: u32 = 1;

/// `bytes` rounded up to whole blocks.
pub(crate) const fn whole_blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// What is wrong with a block that has magic, version and checksum in its first 16 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockError {
    /// Too short, foreign magic, wrong checksum, or fields that contradict each other.
    Damaged(&'static str),
    /// The checksum is right and the version is not ours.
    Version(u32),
}

/// Where a batch's header has its magic (`docs/format.md`).
const BATCH_MAGIC_AT: usize = 88;

/// Whether a batch may begin here, by its magic: compared before decoding, which computes a checksum.
pub(crate) fn may_begin_batch(bytes: &[u8]) -> bool {
    let magic = bytes.get(BATCH_MAGIC_AT..BATCH_MAGIC_AT + 2);
    magic == Some(&drave_batch::BATCH_MAGIC.to_le_bytes())
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

fn le_u128(bytes: &[u8], at: usize) -> u128 {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[at..at + 16]);
    u128::from_le_bytes(out)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn block_crc(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..12]);
    hasher.update(&block[16..BLOCK_BYTES]);
    hasher.finalize()
}

/// Why a block is not valid, in numbers: magic, then checksum; nothing if both are right.
pub(crate) fn explain_block(block: &[u8], magic: u64, what: &'static str) -> Option<DecodeError> {
    if block.len() < BLOCK_BYTES {
        return Some(DecodeError::Truncated {
            what,
            expected: BLOCK_BYTES as u64,
            found: block.len() as u64,
        });
    }
    let (expected, found) = (le_u32(block, 12), block_crc(block));
    if le_u64(block, 0) != magic {
        Some(DecodeError::Magic {
            what,
            expected: magic,
            found: le_u64(block, 0),
        })
    } else if expected != found {
        Some(DecodeError::Checksum {
            what,
            expected,
            found,
        })
    } else {
        None
    }
}

/// Fills in the first 16 bytes of a block whose other bytes are final.
fn finish_block(block: &mut [u8], magic: u64) {
    put(block, 0, &magic.to_le_bytes());
    put(block, 8, &WAL_VERSION.to_le_bytes());
    let crc = block_crc(block);
    put(block, 12, &crc.to_le_bytes());
}

/// Checks the first 16 bytes of a block: checksum before version, so that neither is taken for the other.
fn check_block(block: &[u8], magic: u64, what: &'static str) -> Result<(), BlockError> {
    if block.len() < BLOCK_BYTES
        || le_u64(block, 0) != magic
        || le_u32(block, 12) != block_crc(block)
    {
        return Err(BlockError::Damaged(what));
    }
    match le_u32(block, 8) {
        WAL_VERSION => Ok(()),
        found => Err(BlockError::Version(found)),
    }
}

#[cfg(test)]
mod tests;
