//! What is asked about one log besides its records: what it is like, and where a moment is in it.

use super::message::message;
use super::{Message, MessageKind};
use crate::{DecodeError, LogChange, Reader, Writer};

message! {
    /// Asks what a log is like, by its name. Answered with [`LogDescribed`].
    LogDescribe {
        /// 0 linearizable, [`super::LOCAL_READ`] from this replica.
        consistency: u8,
        /// The name.
        name: String,
    }
}

message! {
    /// One log in full. Answers [`LogDescribe`] and [`LogChangeRequest`]; the deletion of a log with what it was
    /// before.
    LogDescribed {
        /// The log's number.
        log_id: u64,
        /// The first seq still held.
        first_seq: u64,
        /// The seq that the next committed record gets.
        next_seq: u64,
        /// The append time of the last record, also when that was trimmed; 0 when there never was one.
        last_time_us: u64,
        /// Bytes of the batches that are held, headers included; those that are partly trimmed, and some before
        /// the first one held, may be counted.
        held_bytes: u64,
        /// The token that appends must carry, [`super::FENCE_NONE`] when the log was never fenced.
        fence: u64,
        /// The first seq that was not appended before that token.
        fence_seq: u64,
        /// Whether it was closed: it takes no append.
        is_closed: bool,
        /// Bytes that are kept at least, 0 for all.
        retention_bytes: u64,
        /// For how long records are kept at least, microseconds, 0 for ever.
        retention_age_us: u64,
        /// Bytes of batches that are taken in a second, 0 for no limit.
        quota_bytes_per_second: u64,
        /// Records that are taken in a second, 0 for no limit.
        quota_records_per_second: u64,
        /// Its name.
        name: String,
    }
}

message! {
    /// Asks for the first record that was appended at a time or after it. Answered with [`SeqFound`].
    SeqAt {
        /// The log.
        log_id: u64,
        /// Microseconds since 1970.
        time_us: u64,
        /// 0 linearizable, [`super::LOCAL_READ`] from this replica.
        consistency: u8,
    }
}

message! {
    /// Answers [`SeqAt`].
    SeqFound {
        /// The log.
        log_id: u64,
        /// The first seq still held.
        first_seq: u64,
        /// The seq the next committed record gets, as this replica knows it.
        next_seq: u64,
        /// The seq of the record; `next_seq` when there is none yet.
        seq: u64,
        /// When that record was appended; 0 when there is none.
        time_us: u64,
    }
}

/// Changes one log. Answered with [`LogDescribed`] once the change is committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogChangeRequest {
    /// The log.
    pub log_id: u64,
    /// What changes; a fence may leave the choice of the token to the leader: [`crate::FENCE_NEXT`].
    pub change: LogChange,
}

impl Message for LogChangeRequest {
    const KIND: MessageKind = MessageKind::LogChangeRequest;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u64(self.log_id);
        self.change.write(&mut writer);
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("LogChangeRequest", head);
        let log_id = fields.u64()?;
        let change = LogChange::read(&mut fields)?;
        fields.finish()?;
        Ok(Self { log_id, change })
    }
}
