//! What operators ask of a group: its members, changes to them, the lead, and trimming.

use super::message::message;
use super::{Message, MessageKind};
use crate::control::{MEMBERS_MAX, Member};
use crate::{DecodeError, Reader, Writer};

message! {
    /// Asks for the members; answered by the leader.
    MemberList {}
}

/// A member as the leader sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Known to be durable there and equal to the leader's log.
    pub match_index: u64,
    /// Entries of the leader's log that it is not known to have.
    pub lag_entries: u64,
    /// Milliseconds since the leader last heard it; `u64::MAX` when it never did.
    pub last_active_ms: u64,
    /// Whether it may be promoted now.
    pub is_caught_up: bool,
}

/// Answers [`MemberList`], and [`MemberChange`] once the configuration asked for is committed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemberListed {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub leader_id: u64,
    /// Its commit index.
    pub commit_index: u64,
    /// Index of the entry that brought the configuration; 0 for the one the cluster was formatted with.
    pub configuration_index: u64,
    /// Whether that entry is committed.
    pub is_committed: bool,
    /// The highest id that was ever a member: new ones are above it.
    pub node_id_max: u64,
    /// The members, ascending by node id.
    pub members: Vec<MemberStatus>,
}

impl Message for MemberListed {
    const KIND: MessageKind = MessageKind::MemberListed;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u64(self.term);
        writer.u64(self.leader_id);
        writer.u64(self.commit_index);
        writer.u64(self.configuration_index);
        writer.u8(u8::from(self.is_committed));
        writer.u64(self.node_id_max);
        writer.u32(self.members.len() as u32);
        for status in &self.members {
            status.member.encode(&mut writer);
            writer.u64(status.match_index);
            writer.u64(status.lag_entries);
            writer.u64(status.last_active_ms);
            writer.u8(u8::from(status.is_caught_up));
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("MemberListed", head);
        let mut listed = Self {
            term: fields.u64()?,
            leader_id: fields.u64()?,
            commit_index: fields.u64()?,
            configuration_index: fields.u64()?,
            is_committed: fields.bool("MemberListed.is_committed")?,
            node_id_max: fields.u64()?,
            members: Vec::new(),
        };
        let count = fields.u32()?;
        if count as usize > MEMBERS_MAX {
            return Err(DecodeError::TooLarge {
                what: "MemberListed.members",
                limit: MEMBERS_MAX as u64,
                found: count.into(),
            });
        }
        for _ in 0..count {
            listed.members.push(MemberStatus {
                member: Member::decode(&mut fields)?,
                match_index: fields.u64()?,
                lag_entries: fields.u64()?,
                last_active_ms: fields.u64()?,
                is_caught_up: fields.bool("MemberStatus.is_caught_up")?,
            });
        }
        fields.finish()?;
        Ok(listed)
    }
}

/// What is asked of the members.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum MemberOperation {
    /// A new node is to receive the log without a vote.
    AddLearner = 1,
    /// A learner that has caught up is to vote.
    Promote = 2,
    /// A member is to leave.
    Remove = 3,
    /// A learner that has caught up takes the place of a voter, in one joint change.
    Replace = 4,
}

/// Changes the members. Every operation is idempotent: asked for again when it is in effect, it is
/// answered at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberChange {
    /// What is asked for.
    pub operation: MemberOperation,
    /// The node it is about; the one that comes, in a replacement.
    pub node_id: u64,
    /// The node that leaves in a replacement, else 0.
    pub other_node_id: u64,
    /// The new node's incarnation; 0 for operations that add none.
    pub incarnation: u128,
    /// Refuse when the configuration is another than that of this entry; `u64::MAX` for any.
    pub expected_configuration_index: u64,
    /// The new node's HOST:PORT; empty for operations that add none.
    pub address: String,
}

impl Message for MemberChange {
    const KIND: MessageKind = MessageKind::MemberChange;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u8(self.operation as u8);
        writer.u64(self.node_id);
        writer.u64(self.other_node_id);
        writer.u128(self.incarnation);
        writer.u64(self.expected_configuration_index);
        writer.text(&self.address);
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("MemberChange", head);
        let operation = match fields.u8()? {
            1 => MemberOperation::AddLearner,
            2 => MemberOperation::Promote,
            3 => MemberOperation::Remove,
            4 => MemberOperation::Replace,
            other => {
                return Err(DecodeError::Invalid {
                    what: "MemberChange.operation",
                    found: other.into(),
                });
            }
        };
        let change = Self {
            operation,
            node_id: fields.u64()?,
            other_node_id: fields.u64()?,
            incarnation: fields.u128()?,
            expected_configuration_index: fields.u64()?,
            address: fields.text()?.to_owned(),
        };
        fields.finish()?;
        Ok(change)
    }
}

message! {
    /// Hands the lead to a voter; answered when it leads, or with the reason why it does not.
    LeaderTransfer {
        /// The node that is to lead.
        to: u64,
    }
}

message! {
    /// Answers [`LeaderTransfer`].
    LeaderTransferred {
        /// Who leads now.
        leader_id: u64,
        /// In which term.
        term: u64,
    }
}

message! {
    /// Gives up a log's records below a seq. Answered with [`super::LogInfo`] when it is committed.
    LogTrim {
        /// The log.
        log_id: u64,
        /// The first seq that is kept, at most the log's next seq; at or below its first seq: no change.
        first_seq: u64,
    }
}
