//! What nodes tell each other, apart from AppendEntries itself. Data only.

use super::types::EntryId;

/// A message of the control lane, or the reply to an append.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Message {
    /// Asks for a vote or a pre-vote.
    VoteRequest(VoteRequest),
    /// Answers it.
    VoteReply(VoteReply),
    /// Leader's sign of life; carries commit index and read round; never truncates.
    Heartbeat(Heartbeat),
    /// Answers it.
    HeartbeatReply(HeartbeatReply),
    /// Answers AppendEntries, on the connection it came on.
    AppendReply(AppendReply),
    /// Tells a follower to campaign at once: leadership transfer.
    TimeoutNow(TimeoutNow),
    /// A follower's question: up to where must a linearizable read be applied?
    ReadIndexRequest(ReadIndexRequest),
    /// Answers it.
    ReadIndexReply(ReadIndexReply),
}

impl Message {
    /// The term the sender was in, or for a pre-vote asks about.
    pub fn term(&self) -> u64 {
        match self {
            Message::VoteRequest(request) => request.term,
            Message::VoteReply(reply) => reply.term,
            Message::Heartbeat(heartbeat) => heartbeat.term,
            Message::HeartbeatReply(reply) => reply.term,
            Message::AppendReply(reply) => reply.term,
            Message::TimeoutNow(timeout) => timeout.term,
            Message::ReadIndexRequest(request) => request.term,
            Message::ReadIndexReply(reply) => reply.term,
        }
    }
}

/// Asks for a vote.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct VoteRequest {
    /// Term of the election; for a pre-vote the term it would have.
    pub term: u64,
    /// Last entry of the candidate's log.
    pub last: EntryId,
    /// Nothing is promised or changed by answering.
    pub pre_vote: bool,
    /// The leader asked for this election: stickiness does not apply.
    pub transfer: bool,
}

/// Answers a [`VoteRequest`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct VoteReply {
    /// A granted pre-vote carries the request's term, anything else the voter's own.
    pub term: u64,
    /// Whether the vote is given.
    pub granted: bool,
    /// Which kind of request it answers.
    pub pre_vote: bool,
}

/// Leader's sign of life.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: u64,
    /// The leader's commit index; the follower caps it by what this leader has verified.
    pub commit_index: u64,
    /// Latest read round; grows within a term.
    pub read_round: u64,
    /// The leader's session with this peer.
    pub session: u64,
}

/// Answers a [`Heartbeat`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct HeartbeatReply {
    /// The follower's term.
    pub term: u64,
    /// The heartbeat's read round.
    pub read_round: u64,
    /// The latest session heard from this leader.
    pub session: u64,
    /// Durable prefix verified by this leader's appends, as in [`AppendResult::Accepted`].
    pub match_index: u64,
    /// Verified prefix, durable or not.
    pub received_index: u64,
    /// As in [`AppendReply::credit_bytes`].
    pub credit_bytes: u64,
}

/// Answers AppendEntries. One reply may answer several queued appends.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct AppendReply {
    /// The follower's term.
    pub term: u64,
    /// The latest session heard from this leader.
    pub session: u64,
    /// What became of it.
    pub result: AppendResult,
    /// Bytes of appends the follower is ready to have in flight.
    pub credit_bytes: u64,
}

/// What became of an append.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum AppendResult {
    /// The logs agree.
    Accepted {
        /// Durable prefix verified by this leader's appends.
        match_index: u64,
        /// Verified prefix, durable or not: what need not be sent again on this connection.
        received_index: u64,
    },
    /// The previous entry is missing or differs.
    Rejected {
        /// Index of the previous entry of the refused append.
        rejected_prev: u64,
        /// The follower's last entry at or below it whose term is not above the refused one.
        hint: EntryId,
        /// The follower's last index.
        last_index: u64,
    },
}

/// Leadership transfer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct TimeoutNow {
    /// The term of the leader that hands over.
    pub term: u64,
}

/// A follower asks its leader for a read index.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ReadIndexRequest {
    /// The follower's term.
    pub term: u64,
    /// The follower's number of the question; never used twice, also not after a restart.
    pub number: u64,
}

/// Answers a [`ReadIndexRequest`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ReadIndexReply {
    /// The answering node's term.
    pub term: u64,
    /// The number of the question.
    pub number: u64,
    /// The read may be served once this entry is applied.
    pub index: u64,
    /// Confirmed by a quorum; if not, `index` means nothing.
    pub ok: bool,
}
