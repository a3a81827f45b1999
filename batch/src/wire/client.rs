//! Messages between clients and nodes.

use super::message::message;
use super::{Message, MessageKind};
use crate::{BATCH_HEADER_BYTES, BatchHeader, DecodeError, Reader, Writer};

/// In [`Append::expect_seq`]: the append is unconditional.
pub const EXPECT_SEQ_NONE: u64 = u64::MAX;

/// In [`Append::fence`]: the append carries no token; also the token of a log that was never fenced.
pub const FENCE_NONE: u64 = 0;

/// In [`Read::consistency`]: answer from what this replica knows to be committed.
pub const LOCAL_READ: u8 = 1;

message! {
    /// Any request's failure. Text is for people; programs use `code`.
    ErrorReply {
        /// A [`super::ErrorCode`].
        code: u32,
        /// The leader as this node knows it, 0 for unknown.
        leader_id: u64,
        /// A number the code gives a meaning: a limit, an expected seq, a first seq.
        expected: u64,
        /// Its counterpart: what was found.
        found: u64,
        /// The leader's HOST:PORT, or empty.
        leader_address: String,
        /// What happened.
        message: String,
    }
}

message! {
    /// Registers a producer.
    ProducerOpen {
        /// A name for people; may be empty.
        name: String,
    }
}

message! {
    /// Answers [`ProducerOpen`].
    ProducerOpened {
        /// The new producer's id, never given again.
        producer_id: u64,
        /// The epoch to send.
        producer_epoch: u32,
        /// Batches that the producer may have unacknowledged.
        in_flight_max: u32,
    }
}

message! {
    /// Creates a named log.
    LogCreate {
        /// Answer with the existing log of this name instead of refusing.
        if_missing: bool,
        /// 1 to 255 bytes; see [`crate::control::log_name_error`].
        name: String,
    }
}

message! {
    /// One log. Answers [`LogCreate`] and [`LogLookup`].
    LogInfo {
        /// The log's number.
        log_id: u64,
        /// The first seq still held.
        first_seq: u64,
        /// The seq that the next committed record gets.
        next_seq: u64,
        /// Whether the request created it.
        created: bool,
        /// Its name.
        name: String,
    }
}

message! {
    /// Finds a log by name. Answered by the leader, after a read round, unless `consistency` is
    /// [`LOCAL_READ`].
    LogLookup {
        /// 0 linearizable, [`LOCAL_READ`] from this replica.
        consistency: u8,
        /// The name.
        name: String,
    }
}

message! {
    /// Lists logs in order of their names.
    LogList {
        /// 0 linearizable, [`LOCAL_READ`] from this replica.
        consistency: u8,
        /// Logs at most in one answer; the node may give fewer.
        count_max: u32,
        /// Only names after this one; empty for all.
        after: String,
    }
}

/// Answers [`LogList`].
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub struct LogListed {
    /// Whether more names follow the last one.
    pub more: bool,
    /// The logs.
    pub logs: Vec<LogInfo>,
}

impl Message for LogListed {
    const KIND: MessageKind = MessageKind::LogListed;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u8(u8::from(self.more));
        writer.u32(self.logs.len() as u32);
        for log in &self.logs {
            writer.u64(log.log_id);
            writer.u64(log.first_seq);
            writer.u64(log.next_seq);
            writer.text(&log.name);
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("LogListed", head);
        let more = fields.u8()? != 0;
        let count = fields.u32()?;
        let mut logs = Vec::new();
        for _ in 0..count {
            let log_id = fields.u64()?;
            let first_seq = fields.u64()?;
            let next_seq = fields.u64()?;
            let name = fields.text()?.to_owned();
            logs.push(LogInfo {
                log_id,
                first_seq,
                next_seq,
                created: false,
                name,
            });
        }
        fields.finish()?;
        Ok(Self { more, logs })
    }
}

/// Appends one batch; the payload is the batch's body. The header carries what the client knows (log,
/// producer, checksum and shape of the body); index, term, first seq, time and chain are the leader's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Append {
    /// The batch header as far as the client knows it.
    pub header: BatchHeader,
    /// Append only if this is the log's next seq; [`EXPECT_SEQ_NONE`] for always.
    pub expect_seq: u64,
    /// The fencing token; appended only if it is the log's.
    pub fence: u64,
}

impl Message for Append {
    const KIND: MessageKind = MessageKind::Append;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.bytes(&self.header.encode());
        writer.u64(self.expect_seq);
        writer.u64(self.fence);
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("Append", head);
        let (header, _) = BatchHeader::decode(fields.bytes(BATCH_HEADER_BYTES)?)?;
        let expect_seq = fields.u64()?;
        let fence = fields.u64()?;
        fields.finish()?;
        Ok(Self {
            header,
            expect_seq,
            fence,
        })
    }
}

message! {
    /// Acknowledges an [`Append`]: the batch is on stable storage on a majority.
    Appended {
        /// The log.
        log_id: u64,
        /// The seq of the batch's first record.
        first_seq: u64,
        /// Records in the batch.
        record_count: u32,
        /// The batch had been appended before: this is the first answer again.
        duplicate: bool,
        /// The producer's number of the batch.
        producer_seq: u64,
        /// Term of the leader that answers.
        term: u64,
        /// The entry's Raft index, 0 when it is no longer known (a duplicate).
        index: u64,
    }
}

message! {
    /// Reads committed batches from the one that holds `from_seq` on.
    Read {
        /// The log.
        log_id: u64,
        /// The first record wanted.
        from_seq: u64,
        /// Bytes of batches at most; at least one batch is given.
        bytes_max: u32,
        /// 0 linearizable, [`LOCAL_READ`] from this replica.
        consistency: u8,
    }
}

message! {
    /// Answers [`Read`]; the payload is whole batches of the log back to back. The first may begin
    /// before `from_seq`.
    ReadReply {
        /// The log.
        log_id: u64,
        /// The first seq still held.
        first_seq: u64,
        /// The seq the next committed record gets, as this replica knows it.
        next_seq: u64,
    }
}

message! {
    /// Subscribes to a log from `from_seq` on; answered by [`TailData`] frames under the same request
    /// id until [`TailStop`] or an error: `LogClosed`, behind its last record, when there will be none.
    /// Served by any replica, up to its commit index.
    TailStart {
        /// The log.
        log_id: u64,
        /// The first record wanted.
        from_seq: u64,
        /// Bytes of payload the node may send before more credit arrives.
        credit_bytes: u32,
    }
}

message! {
    /// Batches for a tailing reader; an empty one says that the reader has all there is, and is
    /// repeated as a sign of life while nothing comes.
    TailData {
        /// The log.
        log_id: u64,
        /// The first seq still held.
        first_seq: u64,
        /// The seq the next committed record gets, as this replica knows it.
        next_seq: u64,
        /// The log's fencing token, [`FENCE_NONE`] when it was never fenced.
        fence: u64,
        /// The first seq that was not appended before that token.
        fence_seq: u64,
    }
}

message! {
    /// Gives a tailing subscription (the frame's request id) more credit.
    TailCredit {
        /// Payload bytes consumed.
        credit_bytes: u32,
    }
}

message! {
    /// Ends a tailing subscription (the frame's request id).
    TailStop {}
}

message! {
    /// Asks a node for its own state.
    Status {}
}

/// A member as a node knows it.
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub struct StatusMember {
    /// Its node id.
    pub node_id: u64,
    /// Its HOST:PORT.
    pub address: String,
}

/// How far a node's scrubber is: what it reads again from the disk and checks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScrubStatus {
    /// Bytes checked in a second at most; 0 when nothing is checked, or the node does not say.
    pub bytes_per_second: u64,
    /// The number of the log's segment that is being checked, 0 between two passes.
    pub segment_seq: u64,
    /// Bytes checked in this pass.
    pub bytes: u64,
    /// Whole passes so far.
    pub passes: u64,
    /// When the last one ended, microseconds since 1970; 0 before the first.
    pub last_pass_unix_us: u64,
    /// How often damage was found so far.
    pub found: u64,
}

/// Answers [`Status`].
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub struct StatusReply {
    /// The answering node.
    pub node_id: u64,
    /// Its term.
    pub term: u64,
    /// The leader it follows, 0 for none.
    pub leader_id: u64,
    /// First index held.
    pub first_index: u64,
    /// Last index held.
    pub last_index: u64,
    /// Last index on its stable storage.
    pub durable_index: u64,
    /// Commit index as it knows it.
    pub commit_index: u64,
    /// Last index applied.
    pub applied_index: u64,
    /// Logs it holds.
    pub log_count: u64,
    /// Microseconds since it started.
    pub uptime_us: u64,
    /// Half of its log's flushes of the last seconds took no longer, microseconds, to the next power of two.
    pub flush_us_p50: u64,
    /// 99 of 100 took no longer.
    pub flush_us_p99: u64,
    /// The longest of them.
    pub flush_us_max: u64,
    /// For how long the oldest flush under way has been so, 0 for none.
    pub flush_waits_us: u64,
    /// `leader`, `follower`, `candidate`, `pre-candidate` or `learner`.
    pub role: String,
    /// `io_uring` or `posix`.
    pub io_engine: String,
    /// The program's version.
    pub version: String,
    /// Empty, or why the node does not serve the group.
    pub fault: String,
    /// The members of the configuration it uses.
    pub members: Vec<StatusMember>,
    /// Its scrubber. Appended: of nodes that do not send it, all 0.
    pub scrub: ScrubStatus,
}

impl Message for StatusReply {
    const KIND: MessageKind = MessageKind::StatusReply;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        for value in [
            self.node_id,
            self.term,
            self.leader_id,
            self.first_index,
            self.last_index,
            self.durable_index,
            self.commit_index,
            self.applied_index,
            self.log_count,
            self.uptime_us,
            self.flush_us_p50,
            self.flush_us_p99,
            self.flush_us_max,
            self.flush_waits_us,
        ] {
            writer.u64(value);
        }
        for text in [&self.role, &self.io_engine, &self.version, &self.fault] {
            writer.text(text);
        }
        writer.u32(self.members.len() as u32);
        for member in &self.members {
            writer.u64(member.node_id);
            writer.text(&member.address);
        }
        let scrub = &self.scrub;
        for value in [
            scrub.bytes_per_second,
            scrub.segment_seq,
            scrub.bytes,
            scrub.passes,
            scrub.last_pass_unix_us,
            scrub.found,
        ] {
            writer.u64(value);
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("StatusReply", head);
        let mut reply = Self {
            node_id: fields.u64()?,
            term: fields.u64()?,
            leader_id: fields.u64()?,
            first_index: fields.u64()?,
            last_index: fields.u64()?,
            durable_index: fields.u64()?,
            commit_index: fields.u64()?,
            applied_index: fields.u64()?,
            log_count: fields.u64()?,
            uptime_us: fields.u64()?,
            flush_us_p50: fields.u64()?,
            flush_us_p99: fields.u64()?,
            flush_us_max: fields.u64()?,
            flush_waits_us: fields.u64()?,
            role: fields.text()?.to_owned(),
            io_engine: fields.text()?.to_owned(),
            version: fields.text()?.to_owned(),
            fault: fields.text()?.to_owned(),
            members: Vec::new(),
            scrub: ScrubStatus::default(),
        };
        let count = fields.u32()?;
        for _ in 0..count {
            let node_id = fields.u64()?;
            let address = fields.text()?.to_owned();
            reply.members.push(StatusMember { node_id, address });
        }
        if fields.remaining() > 0 {
            reply.scrub = ScrubStatus {
                bytes_per_second: fields.u64()?,
                segment_seq: fields.u64()?,
                bytes: fields.u64()?,
                passes: fields.u64()?,
                last_pass_unix_us: fields.u64()?,
                found: fields.u64()?,
            };
        }
        fields.finish()?;
        Ok(reply)
    }
}
