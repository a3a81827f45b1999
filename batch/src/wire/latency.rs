//! Where a node's entries spent their time lately, as the node measured it.

use super::message::message;
use super::{Message, MessageKind};
use crate::{DecodeError, Reader, Writer};

message! {
    /// Asks a node where its entries spent their time lately.
    Latency {}
}

/// How long one stage took, over the entries that passed it.
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub struct StageLatency {
    /// The stage's name, as `docs/operations.md` lists them.
    pub stage: String,
    /// The peer that the stage is about, 0 for the node itself.
    pub peer: u64,
    /// Entries.
    pub entries: u64,
    /// Half of them took no longer, microseconds.
    pub us_p50: u64,
    /// 99 of 100.
    pub us_p99: u64,
    /// 999 of 1000.
    pub us_p999: u64,
    /// The longest.
    pub us_max: u64,
}

/// How many entries were committed by the flush of one node: it was the last one that the quorum needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Default)]
pub struct QuorumsClosed {
    /// The node.
    pub node_id: u64,
    /// Entries.
    pub entries: u64,
}

/// Answers [`Latency`].
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub struct LatencyReply {
    /// The answering node.
    pub node_id: u64,
    /// All of it is of the last so many microseconds.
    pub span_us: u64,
    /// In the order in which an entry passes them.
    pub stages: Vec<StageLatency>,
    /// Ascending by node; only of a node that leads, or did within the span.
    pub closed: Vec<QuorumsClosed>,
}

impl Message for LatencyReply {
    const KIND: MessageKind = MessageKind::LatencyReply;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u64(self.node_id);
        writer.u64(self.span_us);
        writer.u32(self.stages.len() as u32);
        for stage in &self.stages {
            writer.text(&stage.stage);
            for value in [
                stage.peer,
                stage.entries,
                stage.us_p50,
                stage.us_p99,
                stage.us_p999,
                stage.us_max,
            ] {
                writer.u64(value);
            }
        }
        writer.u32(self.closed.len() as u32);
        for closed in &self.closed {
            writer.u64(closed.node_id);
            writer.u64(closed.entries);
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("LatencyReply", head);
        let mut reply = Self {
            node_id: fields.u64()?,
            span_us: fields.u64()?,
            ..Self::default()
        };
        // Counts size nothing: a head that ends early ends the loop.
        for _ in 0..fields.u32()? {
            reply.stages.push(StageLatency {
                stage: fields.text()?.to_owned(),
                peer: fields.u64()?,
                entries: fields.u64()?,
                us_p50: fields.u64()?,
                us_p99: fields.u64()?,
                us_p999: fields.u64()?,
                us_max: fields.u64()?,
            });
        }
        for _ in 0..fields.u32()? {
            reply.closed.push(QuorumsClosed {
                node_id: fields.u64()?,
                entries: fields.u64()?,
            });
        }
        fields.finish()?;
        Ok(reply)
    }
}
