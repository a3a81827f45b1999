//! The frame around every message: a 32-byte header, a head of fixed fields, a payload of batches.
//!
//! The header has a checksum of its own, so that its lengths can be trusted before the rest is there;
//! the head has one too; the payload is batches, which carry theirs.

use super::{Message, MessageKind};
use crate::{DecodeError, Reader, checksum};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;

/// Marks a frame header.
pub const FRAME_MAGIC: u16 = 0xDF4D;

/// The version of the frame layout.
pub const FRAME_VERSION: u8 = 1;

/// Bytes of a frame's payload at most.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 4 << 20;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: MessageKind,
    /// Bytes of the head.
    pub head_len: u16,
    /// Bytes of the payload behind the head.
    pub payload_len: u32,
    /// CRC-32 of the head.
    pub head_crc: u32,
    /// The Raft group that the message is about; 0 in a handshake.
    pub group_id: u32,
    /// Chosen by whoever asks; an answer carries the id of its request.
    pub request_id: u64,
}

impl FrameHeader {
    /// The 32 bytes, checksum first.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &FRAME_MAGIC.to_le_bytes());
        put(6, &[FRAME_VERSION, self.kind as u8]);
        put(8, &self.payload_len.to_le_bytes());
        put(12, &self.head_len.to_le_bytes());
        put(16, &self.head_crc.to_le_bytes());
        put(20, &self.group_id.to_le_bytes());
        put(24, &self.request_id.to_le_bytes());
        let crc = checksum(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`.
    ///
    /// Magic and version are looked at before the checksum, so that a stranger's protocol and a later
    /// version of ours are named as such.
    ///
    /// # Errors
    /// [`DecodeError`] for too few bytes, a foreign magic, an unknown version or kind, a wrong checksum,
    /// and lengths over their limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "frame header";
        let bytes = Reader::new(WHAT, bytes).bytes(FRAME_HEADER_BYTES)?;
        let mut fields = Reader::new(WHAT, bytes);
        let header_crc = fields.u32()?;
        let magic = fields.u16()?;
        let version = fields.u8()?;
        let kind = fields.u8()?;
        let payload_len = fields.u32()?;
        let head_len = fields.u16()?;
        let flags = fields.u16()?;
        let head_crc = fields.u32()?;
        let group_id = fields.u32()?;
        let request_id = fields.u64()?;
        if magic != FRAME_MAGIC {
            let (expected, found) = (FRAME_MAGIC.into(), magic.into());
            return Err(DecodeError::Magic {
                what: WHAT,
                expected,
                found,
            });
        }
        if version != FRAME_VERSION {
            let (expected, found) = (FRAME_VERSION.into(), version.into());
            return Err(DecodeError::Version {
                what: WHAT,
                expected,
                found,
            });
        }
        let found = checksum(&bytes[4..]);
        if found != header_crc {
            return Err(DecodeError::Checksum {
                what: WHAT,
                expected: header_crc,
                found,
            });
        }
        if flags != 0 {
            return Err(DecodeError::Invalid {
                what: "frame flags",
                found: flags.into(),
            });
        }
        if payload_len > FRAME_PAYLOAD_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                what: "frame payload bytes",
                limit: FRAME_PAYLOAD_BYTES_MAX.into(),
                found: payload_len.into(),
            });
        }
        let kind = MessageKind::decode(kind)?;
        Ok(Self {
            kind,
            head_len,
            payload_len,
            head_crc,
            group_id,
            request_id,
        })
    }

    /// Bytes behind the header: head and payload.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        self.head_len as usize + self.payload_len as usize
    }
}

/// Appends a frame's header and head to `out`; `payload_len` bytes of batches must follow on the wire.
///
/// # Panics
/// If the head or the payload is over the format's limits: what we send is ours to bound.
pub fn encode_frame<M: Message>(
    out: &mut Vec<u8>,
    group_id: u32,
    request_id: u64,
    message: &M,
    payload_len: usize,
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    message.encode_head(out);
    let head = &out[start + FRAME_HEADER_BYTES..];
    assert!(
        payload_len <= FRAME_PAYLOAD_BYTES_MAX as usize,
        "payload over the frame limit"
    );
    let header = FrameHeader {
        kind: M::KIND,
        head_len: u16::try_from(head.len()).expect("heads are bounded by their layouts"),
        payload_len: payload_len as u32,
        head_crc: checksum(head),
        group_id,
        request_id,
    };
    out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Decodes the head of a frame as message `M`: the kind and the checksum must fit.
///
/// # Errors
/// [`DecodeError`] for another kind, a wrong checksum, or fields that do not fill the head exactly.
pub fn decode_head<M: Message>(header: &FrameHeader, head: &[u8]) -> Result<M, DecodeError> {
    if header.kind != M::KIND {
        let found = header.kind as u64;
        return Err(DecodeError::Invalid {
            what: "message kind",
            found,
        });
    }
    let found = checksum(head);
    if found != header.head_crc {
        return Err(DecodeError::Checksum {
            what: "frame head",
            expected: header.head_crc,
            found,
        });
    }
    M::decode_head(head)
}
