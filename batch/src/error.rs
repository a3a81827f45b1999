//! What a decoder says of bytes that are not what they should be.

use thiserror::Error;

/// Bytes that cannot be decoded: what was expected, what was found, and in which field.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Truncated {
        /// The layout that was read.
        what: &'static str,
        /// Bytes the layout needs.
        expected: u64,
        /// Bytes that were there.
        found: u64,
    },
    /// Bytes left over after a layout that must fill its frame.
    #[error("{what}: {found} bytes left over after the last field")]
    Trailing {
        /// The layout that was read.
        what: &'static str,
        /// Bytes left over.
        found: u64,
    },
    /// A checksum that does not match its bytes.
    #[error("{what}: checksum mismatch, expected {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
        /// The stored checksum.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A magic number that is not ours.
    #[error("{what}: expected magic {expected:#x}, found {found:#x}")]
    Magic {
        /// The layout that was read.
        what: &'static str,
        /// The magic number of the layout.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A version this build does not know.
    #[error("{what}: this build reads version {expected}, found version {found}")]
    Version {
        /// The layout that was read.
        what: &'static str,
        /// The version this build reads.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// A value outside its limit.
    #[error("{what}: at most {limit} allowed, found {found}")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The value found.
        found: u64,
    },
    /// A value that no version of the layout allows.
    #[error("{what}: invalid value {found:#x}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// The value found.
        found: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what}: not UTF-8")]
    Text {
        /// The field.
        what: &'static str,
    },
}
