//! The stable numbers of what can go wrong on the wire. `DRV-0101` is code 101.

use std::fmt;

/// What a failed request did to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing was written, now or later.
    NotWritten,
    /// It may have been written: a retry under the same producer sequence settles it.
    Unknown,
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $value:literal, $effect:ident, $retryable:literal, $summary:literal;)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$meta])* $name = $value,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code of this number, if this build knows it.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($value => Some(Self::$name),)* _ => None }
            }

            /// What the failed request did.
            #[must_use]
            pub fn effect(self) -> Effect {
                match self { $(Self::$name => Effect::$effect,)* }
            }

            /// Whether the same request may succeed later or elsewhere.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// One line about it.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$name => $summary,)* }
            }
        }
    };
}

codes! {
    /// The node does not lead the group.
    NotLeader = 101, NotWritten, true, "this node is not the leader";
    /// No leader with a quorum is known.
    NoQuorum = 102, NotWritten, true, "no leader with a quorum is known";
    /// The leader changed or the connection broke after the request was taken.
    OutcomeUnknown = 103, Unknown, true, "the outcome is unknown";
    /// `expect_seq` is not the log's next seq.
    ExpectSeq = 104, NotWritten, false, "the log's next seq is not the expected one";
    /// A record or batch is over the limit.
    TooLarge = 105, NotWritten, false, "the record or batch is over the limit";
    /// A batch of the producer before this one is missing.
    SequenceGap = 106, NotWritten, true, "an earlier batch of this producer is missing";
    /// Another instance of the producer took over.
    StaleEpoch = 107, NotWritten, false, "another instance of this producer took over";
    /// The producer is not registered, or was forgotten.
    UnknownProducer = 108, NotWritten, false, "the producer is not registered or was forgotten";
    /// More is waiting than the node takes.
    Busy = 109, NotWritten, true, "the node has too much waiting";
    /// The answer to this old duplicate was dropped, since its producer had it before.
    DuplicateForgotten = 110, Unknown, false, "the first answer to this old duplicate is gone";
    /// The batch does not decode.
    MalformedBatch = 111, NotWritten, false, "the batch is malformed";
    /// The append does not carry the log's fencing token.
    Fenced = 112, NotWritten, false, "the log is fenced with another token";
    /// The log, or the client, has appended as much as its quota gives it.
    QuotaExceeded = 113, NotWritten, true, "the quota of the log or of the client is used up";
    /// No log of this name or number.
    LogNotFound = 201, NotWritten, false, "no such log";
    /// The name is taken.
    LogExists = 202, NotWritten, false, "a log of this name exists";
    /// The records asked for were trimmed.
    Trimmed = 203, NotWritten, false, "the records were trimmed";
    /// Not a log name.
    LogName = 204, NotWritten, false, "not a valid log name";
    /// The group holds as many logs as it may.
    LogLimit = 205, NotWritten, false, "the group holds as many logs as it may";
    /// The seq asked for is beyond the tail.
    BeyondTail = 206, NotWritten, false, "the seq is beyond the log's tail";
    /// The read could not be confirmed by a quorum.
    ReadUnconfirmed = 207, NotWritten, true, "the read was not confirmed by a quorum";
    /// The seq to keep from is beyond the tail.
    TrimBeyondTail = 208, NotWritten, false, "the seq to keep from is beyond the log's tail";
    /// The log was closed.
    LogClosed = 209, NotWritten, false, "the log is closed";
    /// A change of members is under way, or the configuration is not the expected one.
    MembershipConflict = 301, NotWritten, true, "another change of members is under way or came first";
    /// A member with this id, another address or incarnation.
    MemberExists = 302, NotWritten, false, "the node is a member already, with another address or store";
    /// No such member.
    MemberUnknown = 303, NotWritten, false, "the node is not a member";
    /// The id was a member's before.
    NodeIdUsed = 304, NotWritten, false, "the node id was used before";
    /// The learner is too far behind.
    NotCaughtUp = 305, NotWritten, true, "the learner has not caught up";
    /// It is the last voter.
    LastVoter = 306, NotWritten, false, "the last voter cannot leave";
    /// The voters that would be left and answer are no majority.
    WouldLoseQuorum = 307, NotWritten, true, "the change would leave the group without a quorum";
    /// The node cannot take the lead.
    NotEligible = 308, NotWritten, false, "the node cannot take the lead";
    /// The lead was not taken over in time.
    TransferFailed = 309, NotWritten, true, "the lead was not taken over in time";
    /// The members asked for are no configuration.
    InvalidMembers = 310, NotWritten, false, "the members asked for are not a valid configuration";
    /// Stored bytes are damaged.
    Corruption = 402, NotWritten, true, "stored bytes are damaged";
    /// The node's disk is full.
    DiskFull = 403, NotWritten, true, "the node's disk is full";
    /// The node's log is damaged and being repaired from the other members.
    Repairing = 404, NotWritten, true, "the node repairs its damaged log and takes no part meanwhile";
    /// The node's log was cut on demand, and it is not the only voter.
    LogCut = 405, NotWritten, true, "the node's log was cut on demand, and other members vote";
    /// No protocol version in common.
    ProtocolVersion = 701, NotWritten, false, "no protocol version in common";
    /// Another cluster.
    WrongCluster = 702, NotWritten, false, "the node belongs to another cluster";
    /// Another node than the one meant.
    WrongNode = 703, NotWritten, false, "this is another node than the one meant";
    /// Not the incarnation that this node id was known by.
    WrongIncarnation = 704, NotWritten, false, "the node id is known under another incarnation";
    /// Bytes that are no frame of ours.
    MalformedFrame = 705, NotWritten, false, "the frame is malformed";
    /// A frame over the limit.
    FrameTooLarge = 706, NotWritten, false, "the frame is over the limit";
    /// No handshake in time.
    HandshakeTimeout = 707, NotWritten, true, "no handshake arrived in time";
    /// More connections than the node takes.
    ConnectionLimit = 708, NotWritten, true, "the node has as many connections as it takes";
    /// A message that this side of this connection may not send.
    UnexpectedMessage = 709, NotWritten, false, "the message is not allowed on this connection";
    /// Bytes that a node of the same cluster should never send.
    UnknownMember = 710, NotWritten, false, "the node is not a member of the group";
    /// The node is stopping.
    Stopping = 711, NotWritten, true, "the node is stopping";
    /// Settings that must be the same on every node of a cluster are not.
    SettingsDiffer = 712, NotWritten, false, "the nodes' settings differ where they must not";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DRV-{:04}", *self as u32)
    }
}
