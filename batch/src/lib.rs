//! The one encoding of drave: batches, and the byte layouts of the wire messages.
//!
//! A batch is encoded once, by the leader, and the same bytes go to every log, over the wire, and to
//! every reader. This crate turns values into those bytes and back. It has no behaviour: no I/O, no
//! clock, no state, and it knows no other crate of drave. The byte tables are in `docs/format.md`;
//! golden files in `tests/golden` hold them in place.
//!
//! Decoders are total: any input gives a value or a [`DecodeError`] that says what was expected, what
//! was found and where; nothing is allocated by a length that was not checked against the bytes there.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod body;
mod carry;
mod codec;
pub mod control;
mod error;
mod header;
mod log_change;
mod together;
pub mod wire;

pub use batch::{BatchRef, Batches};
pub use body::{BodyBuilder, Records, body_bytes};
pub use carry::decode_carried;
pub use codec::{Reader, Writer};
pub use error::DecodeError;
pub use header::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BATCH_MAGIC, BATCH_VERSION, BatchHeader, EntryKind,
    encoded_bytes,
};
pub use log_change::{FENCE_NEXT, LogChange, Quota, Retention};

pub use together::{TOGETHER_LOGS_MAX, decode_together, encode_together, together_bytes};

/// Bytes of one record at most: what a user may append in one piece.
pub const RECORD_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one batch's body at most, its table of record ends included.
pub const BODY_BYTES_MAX: u32 = 2 << 20;

/// Records in one batch at most.
pub const BATCH_RECORDS_MAX: u32 = 65_536;

/// The checksum of this format: CRC-32 (IEEE 802.3), as `crc32fast` computes it.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}
