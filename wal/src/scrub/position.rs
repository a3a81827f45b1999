//! Where scrubbing was: a small file in the log's directory, whose loss costs a pass and nothing else.

use std::fs;
use std::io;
use std::path::Path;

/// Not one of the log's files: recovery leaves it alone.
const FILE: &str = "scrub";
const FILE_NEW: &str = "scrub-new";
const MAGIC: &[u8; 8] = b"DRVSCRUB";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 72;

/// How far scrubbing has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScrubPosition {
    /// The number of the segment that is checked next.
    pub segment_seq: u64,
    /// Bytes checked in this pass.
    pub bytes: u64,
    /// When the last whole pass ended, microseconds since 1970; 0 before the first.
    pub last_pass_unix_us: u64,
    /// Whole passes so far.
    pub passes: u64,
    /// How often damage was found so far.
    pub found: u64,
}

impl ScrubPosition {
    /// Reads what was stored last for this store. Without it, or if it is damaged, of another store or version,
    /// scrubbing begins anew.
    #[must_use]
    pub fn load(directory: &Path, store_id: u128) -> Self {
        let bytes = fs::read(directory.join(FILE)).unwrap_or_default();
        Self::decode(&bytes, store_id).unwrap_or_default()
    }

    /// Stores it in place of the last one. Not flushed: after a power cut an older one, or none, may be found.
    ///
    /// # Errors
    /// What the system says.
    pub fn store(&self, directory: &Path, store_id: u128) -> io::Result<()> {
        let new = directory.join(FILE_NEW);
        fs::write(&new, self.encode(store_id))?;
        fs::rename(&new, directory.join(FILE))
    }

    fn encode(&self, store_id: u128) -> [u8; FILE_BYTES] {
        let mut bytes = [0; FILE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&store_id.to_le_bytes());
        let fields = [
            self.segment_seq,
            self.bytes,
            self.last_pass_unix_us,
            self.passes,
            self.found,
        ];
        for (place, field) in bytes[32..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], store_id: u128) -> Option<Self> {
        let bytes: &[u8; FILE_BYTES] = bytes.try_into().ok()?;
        let crc = u32::from_le_bytes(bytes[12..16].try_into().ok()?);
        let is_ours = bytes[..8] == MAGIC[..]
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[16..32] == store_id.to_le_bytes()
            && crc == crc32fast::hash(&bytes[16..]);
        let field = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
        is_ours.then_some(Self {
            segment_seq: field(32).ok()?,
            bytes: field(40).ok()?,
            last_pass_unix_us: field(48).ok()?,
            passes: field(56).ok()?,
            found: field(64).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: ScrubPosition = ScrubPosition {
        segment_seq: 7,
        bytes: 1 << 40,
        last_pass_unix_us: 1_700_000_000_000_000,
        passes: 3,
        found: 1,
    };

    #[test]
    fn what_is_stored_is_loaded_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            ScrubPosition::load(directory.path(), 5),
            ScrubPosition::default()
        );
        SAMPLE.store(directory.path(), 5).unwrap();
        assert_eq!(ScrubPosition::load(directory.path(), 5), SAMPLE);
        assert_eq!(
            ScrubPosition::load(directory.path(), 6),
            ScrubPosition::default()
        );
        let later = ScrubPosition {
            segment_seq: 8,
            ..SAMPLE
        };
        later.store(directory.path(), 5).unwrap();
        assert_eq!(ScrubPosition::load(directory.path(), 5), later);
    }

    #[test]
    fn a_damaged_or_short_file_is_as_none() {
        let bytes = SAMPLE.encode(5);
        for length in 0..bytes.len() {
            assert_eq!(ScrubPosition::decode(&bytes[..length], 5), None);
        }
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ScrubPosition::decode(&flipped, 5), None, "bit {bit}");
        }
    }
}
