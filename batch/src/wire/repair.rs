//! What a node whose log is damaged asks of the others, and what they answer.

use super::message::message;
use super::{Message, MessageKind};
use crate::{DecodeError, Reader, Writer};

message! {
    /// Asks a member for the entries `[lo, hi)` as its log holds them, committed or not. Names no term: what the
    /// entries are is proven by their chain.
    EntriesRequest {
        /// First index asked for.
        lo: u64,
        /// The index after the last one asked for.
        hi: u64,
        /// Bytes of batches in the answer, beyond which it has one batch only.
        bytes_max: u32,
    }
}

message! {
    /// Asks a member whether it leads, and how far its log goes: from one that does, a node that lost the end of its
    /// log learns what it can have acknowledged at most.
    LogEndRequest {}
}

message! {
    /// Answers a [`LogEndRequest`], under its request id.
    LogEndReply {
        /// The member's term.
        term: u64,
        /// Whether it leads in this term.
        leads: bool,
        /// The last entry of the log of one that leads, durable or not; else 0, as what follows.
        last_index: u64,
        /// That entry's term.
        last_term: u64,
        /// That entry's header checksum.
        last_crc: u32,
    }
}

/// What a member holds of the entries that it was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum EntriesHeld {
    /// The answer's `[lo, hi)`, which is its payload.
    Held = 1,
    /// None of the answer's `[lo, hi)`, which holds the first index asked for: damaged there, too, or beyond the end
    /// of its log.
    NotHeld = 2,
    /// Its log begins later, at the answer's `hi`, which may be above what was asked for.
    Trimmed = 3,
    /// It cannot say now; to be asked again.
    Busy = 4,
}

impl EntriesHeld {
    fn decode(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            1 => Self::Held,
            2 => Self::NotHeld,
            3 => Self::Trimmed,
            4 => Self::Busy,
            other => {
                let (what, found) = ("EntriesReply.held", other.into());
                return Err(DecodeError::Invalid { what, found });
            }
        })
    }
}

/// Answers an [`EntriesRequest`], under its request id; the payload is the batches of `[lo, hi)`, back to back,
/// when they are held, and empty else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EntriesReply {
    /// What is said of `[lo, hi)`.
    pub held: EntriesHeld,
    /// Where what is said begins: the request's `lo`, or below it for [`EntriesHeld::NotHeld`].
    pub lo: u64,
    /// Where what is said ends: above `lo`, except for [`EntriesHeld::Busy`].
    pub hi: u64,
    /// What the member knows to be committed; 0 when it does not know.
    pub commit_index: u64,
}

impl Message for EntriesReply {
    const KIND: MessageKind = MessageKind::EntriesReply;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u8(self.held as u8);
        writer.u64(self.lo);
        writer.u64(self.hi);
        writer.u64(self.commit_index);
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("EntriesReply", head);
        let reply = Self {
            held: EntriesHeld::decode(fields.u8()?)?,
            lo: fields.u64()?,
            hi: fields.u64()?,
            commit_index: fields.u64()?,
        };
        fields.finish()?;
        if reply.hi <= reply.lo && reply.held != EntriesHeld::Busy {
            let (what, found) = ("EntriesReply.hi", reply.hi);
            return Err(DecodeError::Invalid { what, found });
        }
        Ok(reply)
    }
}
