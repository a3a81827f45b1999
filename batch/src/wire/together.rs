//! Appending to several logs at once: all or nothing.

use super::client::EXPECT_SEQ_NONE;
use super::{Message, MessageKind};
use crate::{BATCH_RECORDS_MAX, BODY_BYTES_MAX, DecodeError, Reader, TOGETHER_LOGS_MAX, Writer};

/// Appends one batch to each of several logs, in one entry. The payload is the batches' bodies back to back, without
/// padding. Answered with [`AppendedTogether`] once all of it is committed; refused when one of them is refused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AppendTogether {
    /// The producer, 0 for none.
    pub producer_id: u64,
    /// The producer's epoch.
    pub producer_epoch: u32,
    /// How many of the producer's batches before the first of these it had no acknowledgement for.
    pub producer_unacked: u32,
    /// The producer's own number of the first batch; the others follow.
    pub producer_seq: u64,
    /// The batches, at least one, each of another log.
    pub parts: Vec<TogetherPart>,
}

/// One log's batch among those of an [`AppendTogether`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TogetherPart {
    /// The log.
    pub log_id: u64,
    /// Records in the batch.
    pub record_count: u32,
    /// Bytes of its body.
    pub body_len: u32,
    /// CRC-32 of its body.
    pub body_crc: u32,
    /// Append only if this is the log's next seq; [`EXPECT_SEQ_NONE`] for always.
    pub expect_seq: u64,
    /// The fencing token; appended only if it is the log's.
    pub fence: u64,
}

impl Default for TogetherPart {
    fn default() -> Self {
        Self {
            log_id: 0,
            record_count: 0,
            body_len: 0,
            body_crc: 0,
            expect_seq: EXPECT_SEQ_NONE,
            fence: super::FENCE_NONE,
        }
    }
}

impl Message for AppendTogether {
    const KIND: MessageKind = MessageKind::AppendTogether;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u64(self.producer_id);
        writer.u32(self.producer_epoch);
        writer.u32(self.producer_unacked);
        writer.u64(self.producer_seq);
        writer.u32(self.parts.len() as u32);
        for part in &self.parts {
            writer.u64(part.log_id);
            writer.u32(part.record_count);
            writer.u32(part.body_len);
            writer.u32(part.body_crc);
            writer.u64(part.expect_seq);
            writer.u64(part.fence);
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("AppendTogether", head);
        let mut message = Self {
            producer_id: fields.u64()?,
            producer_epoch: fields.u32()?,
            producer_unacked: fields.u32()?,
            producer_seq: fields.u64()?,
            parts: Vec::new(),
        };
        let count = fields.u32()?;
        if count == 0 {
            return Err(DecodeError::Invalid {
                what: "AppendTogether.parts",
                found: 0,
            });
        }
        at_most("logs in one append", TOGETHER_LOGS_MAX as u64, count)?;
        for _ in 0..count {
            let part = TogetherPart {
                log_id: fields.u64()?,
                record_count: fields.u32()?,
                body_len: fields.u32()?,
                body_crc: fields.u32()?,
                expect_seq: fields.u64()?,
                fence: fields.u64()?,
            };
            at_most("batch records", BATCH_RECORDS_MAX.into(), part.record_count)?;
            at_most("batch body bytes", BODY_BYTES_MAX.into(), part.body_len)?;
            message.parts.push(part);
        }
        fields.finish()?;
        Ok(message)
    }
}

fn at_most(what: &'static str, limit: u64, found: u32) -> Result<(), DecodeError> {
    let found = found.into();
    if found > limit {
        return Err(DecodeError::TooLarge { what, limit, found });
    }
    Ok(())
}

/// Acknowledges an [`AppendTogether`]: all batches are on stable storage on a majority.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AppendedTogether {
    /// Term of the leader that answers.
    pub term: u64,
    /// The entry's Raft index.
    pub index: u64,
    /// The producer's number of the first batch.
    pub producer_seq: u64,
    /// The batches had been appended before: this is the first answer again.
    pub duplicate: bool,
    /// Where they are, in the order of the request.
    pub parts: Vec<AppendedPart>,
}

/// Where one log's batch among several is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AppendedPart {
    /// The log.
    pub log_id: u64,
    /// The seq of the batch's first record.
    pub first_seq: u64,
    /// Records in the batch.
    pub record_count: u32,
}

impl Message for AppendedTogether {
    const KIND: MessageKind = MessageKind::AppendedTogether;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u64(self.term);
        writer.u64(self.index);
        writer.u64(self.producer_seq);
        writer.u8(u8::from(self.duplicate));
        writer.u32(self.parts.len() as u32);
        for part in &self.parts {
            writer.u64(part.log_id);
            writer.u64(part.first_seq);
            writer.u32(part.record_count);
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("AppendedTogether", head);
        let mut message = Self {
            term: fields.u64()?,
            index: fields.u64()?,
            producer_seq: fields.u64()?,
            duplicate: fields.bool("AppendedTogether.duplicate")?,
            parts: Vec::new(),
        };
        let count = fields.u32()?;
        at_most("logs in one append", TOGETHER_LOGS_MAX as u64, count)?;
        for _ in 0..count {
            message.parts.push(AppendedPart {
                log_id: fields.u64()?,
                first_seq: fields.u64()?,
                record_count: fields.u32()?,
            });
        }
        fields.finish()?;
        Ok(message)
    }
}
