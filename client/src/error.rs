//! What can go wrong for a caller, and what that did to the log.
//!
//! Every error answers four questions: what happened, why, what effect it had, what to do next. It does
//! not log anything: errors are logged once, by whoever handles them.

use drave_batch::DecodeError;
use drave_batch::wire::{Effect, ErrorCode};
use thiserror::Error;

/// The leader as the answering node knew it. A hint: it may be out of date by the time it is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaderHint {
    /// The leader's node id.
    pub node_id: u64,
    /// Its HOST:PORT.
    pub address: String,
}

/// Why an operation did not succeed.
///
/// The variant says who refused and how far the request came; [`ClientError::code`] gives the stable
/// number where there is one. Retrying safely and having had no effect are two different questions:
/// [`is_retryable`](Self::is_retryable) and [`has_no_side_effects`](Self::has_no_side_effects).
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A node refused the request, and every earlier attempt of it was refused too.
    #[error("{address} refused: {message}")]
    Refused {
        /// The stable code.
        code: ErrorCode,
        /// What happened, in the node's words.
        message: String,
        /// A number that the code gives a meaning: a limit, an expected seq, a first seq.
        expected: u64,
        /// Its counterpart: what was found.
        found: u64,
        /// The node that answered.
        address: String,
        /// The leader as that node knew it.
        leader: Option<Box<LeaderHint>>,
    },
    /// The request was sent, and whether it took effect could not be settled before its deadline. It
    /// may take effect even now, also behind requests that were made after it.
    #[error("the outcome is unknown after {attempts} attempts: {cause}")]
    Unknown {
        /// What the last node said, if one did.
        code: Option<ErrorCode>,
        /// The last thing that went wrong.
        cause: String,
        /// Times it was sent.
        attempts: u32,
    },
    /// No node took the request before its deadline. Nothing was written.
    #[error("no node took the request after {attempts} attempts: {cause}")]
    Unavailable {
        /// What the last node said, if one did.
        code: Option<ErrorCode>,
        /// The last thing that went wrong.
        cause: String,
        /// Times a node was asked.
        attempts: u32,
        /// The leader as last heard of.
        leader: Option<Box<LeaderHint>>,
    },
    /// A node's answer does not decode, or its checksum does not match.
    #[error("{address} sent damaged bytes: {source}")]
    Damaged {
        /// The node.
        address: String,
        /// What was expected and found, and in which field.
        source: DecodeError,
    },
    /// A node's answer decodes, but breaks a rule of the protocol.
    #[error("{address} broke the protocol: {what}, expected {expected}, found {found}")]
    Misbehaved {
        /// The node.
        address: String,
        /// The rule.
        what: &'static str,
        /// What the rule expects.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// Over a limit that the client checks itself. Nothing was sent.
    #[error("{what}: at most {limit} allowed, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The value found.
        found: u64,
    },
    /// Not a log name. Nothing was sent.
    #[error("{name:?} is not a log name: {why}")]
    LogName {
        /// The name, cut to 255 bytes.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An argument that makes no sense. Nothing was sent.
    #[error("{what}")]
    Argument {
        /// The rule it breaks.
        what: String,
    },
    /// The client's own task is gone: its runtime was shut down.
    #[error("the client's runtime was shut down")]
    Closed,
}

impl ClientError {
    /// The stable code, where there is one: `DRV-0101` is [`ErrorCode::NotLeader`].
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unknown { .. } => Some(ErrorCode::OutcomeUnknown),
            Self::Unavailable { code, .. } => Some(code.unwrap_or(ErrorCode::NoQuorum)),
            Self::Damaged { .. } => Some(ErrorCode::Corruption),
            Self::Misbehaved { .. } => Some(ErrorCode::UnexpectedMessage),
            Self::TooLarge { .. } => Some(ErrorCode::TooLarge),
            Self::LogName { .. } => Some(ErrorCode::LogName),
            Self::Argument { .. } | Self::Closed => None,
        }
    }

    /// Whether the same operation may succeed later. It says nothing about whether this one took effect:
    /// for an append whose outcome is unknown, a new append may append a second time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.is_retryable(),
            Self::Unavailable {
                code: Some(code), ..
            } => code.is_retryable(),
            Self::Unknown { .. } | Self::Unavailable { .. } | Self::Damaged { .. } => true,
            Self::Misbehaved { .. }
            | Self::TooLarge { .. }
            | Self::LogName { .. }
            | Self::Argument { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the operation certainly wrote nothing, now or later.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.effect() == Effect::NotWritten,
            Self::Unknown { .. } | Self::Closed => false,
            Self::Unavailable { .. }
            | Self::Damaged { .. }
            | Self::Misbehaved { .. }
            | Self::TooLarge { .. }
            | Self::LogName { .. }
            | Self::Argument { .. } => true,
        }
    }

    /// The leader as the last answering node knew it.
    #[must_use]
    pub fn leader_hint(&self) -> Option<&LeaderHint> {
        match self {
            Self::Refused { leader, .. } | Self::Unavailable { leader, .. } => leader.as_deref(),
            _ => None,
        }
    }

    /// What happened, in one line without a full stop.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Refused { code, .. } => code.summary().to_owned(),
            Self::Unknown { .. } => "the outcome is unknown".to_owned(),
            Self::Unavailable { .. } => "no node took the request in time".to_owned(),
            Self::Damaged { .. } => "a node sent damaged bytes".to_owned(),
            Self::Misbehaved { .. } => "a node broke the protocol".to_owned(),
            Self::TooLarge { .. } | Self::LogName { .. } | Self::Argument { .. } | Self::Closed => {
                self.to_string()
            }
        }
    }

    /// Why, in one line: the facts of this case.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Refused {
                message, address, ..
            } => format!("{address} says: {message}"),
            Self::Unknown {
                cause, attempts, ..
            } => format!("it was sent {attempts} times and not answered for good: {cause}"),
            Self::Unavailable {
                cause, attempts, ..
            } => format!("{attempts} attempts; the last one: {cause}"),
            Self::TooLarge { limit, found, .. } => format!("the limit is {limit}, found {found}"),
            Self::LogName { why, .. } => (*why).to_owned(),
            Self::Closed => "the runtime that drove the client has ended".to_owned(),
            Self::Damaged { .. } | Self::Misbehaved { .. } | Self::Argument { .. } => {
                self.to_string()
            }
        }
    }

    /// What it did to the log.
    #[must_use]
    pub fn effect(&self) -> &'static str {
        if self.has_no_side_effects() {
            "nothing was written"
        } else {
            "unknown: it may have been written, or may be written yet"
        }
    }

    /// What to do.
    #[must_use]
    pub fn next(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => {
                "read the log to see whether it is there before appending it again"
            }
            Self::Unavailable {
                code: Some(code @ ErrorCode::QuotaExceeded),
                ..
            } => next_for(*code),
            Self::Unavailable { .. } => {
                "check that a majority of the nodes runs and is reachable (drave status), then retry"
            }
            Self::Damaged { .. } => "retry, or read from another replica; check the network path",
            Self::Misbehaved { .. } => "check that client and nodes are of compatible versions",
            Self::TooLarge { .. } => "split it",
            Self::LogName { .. } | Self::Argument { .. } => "correct the argument",
            Self::Closed => "keep the runtime alive until the last answer",
            Self::Refused { code, .. } => next_for(*code),
        }
    }
}

fn next_for(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ExpectSeq => "read the log from the expected seq on, then decide again",
        ErrorCode::Fenced => "somebody else took the log over: stop, or fence it again",
        ErrorCode::QuotaExceeded => {
            "append less, or wait; drave log describe shows the log's quota, and the node's configuration a client's"
        }
        ErrorCode::TooLarge | ErrorCode::FrameTooLarge => "split it",
        ErrorCode::LogClosed => "append to another log",
        ErrorCode::LogNotFound => "check the name, or create the log",
        ErrorCode::LogExists => "use the existing log, or choose another name",
        ErrorCode::LogName => "choose another name",
        ErrorCode::LogLimit => "use fewer logs",
        ErrorCode::Trimmed => "read from the first seq still held",
        ErrorCode::BeyondTail => "read from a seq that exists, or tail the log",
        ErrorCode::WrongCluster | ErrorCode::WrongNode => "check the endpoints and the cluster id",
        ErrorCode::ProtocolVersion => "use a client and nodes that have a version in common",
        ErrorCode::DiskFull => "free space on the node's disk, then retry",
        ErrorCode::Corruption => "look at the node's log; other replicas may still serve",
        ErrorCode::TrimBeyondTail => "trim at most up to the log's next seq",
        ErrorCode::MembershipConflict => "look at the members (drave member list), then ask again",
        ErrorCode::MemberExists => "use the next free id: a replaced disk is a new node",
        ErrorCode::MemberUnknown => "check the id: drave member list shows who is a member",
        ErrorCode::NodeIdUsed => "format the node anew with an id that was never used",
        ErrorCode::NotCaughtUp => "wait until the learner has caught up, then ask again",
        ErrorCode::LastVoter => "add and promote another node first",
        ErrorCode::WouldLoseQuorum => "bring the other voters back first, or replace a dead one",
        ErrorCode::NotEligible => "name a voter that answers: drave member list shows them",
        ErrorCode::TransferFailed => {
            "look at the other node, then ask again; the old leader goes on"
        }
        ErrorCode::InvalidMembers => "check the ids and addresses against drave member list",
        code if code.is_retryable() => "retry",
        _ => "this is not expected: check the versions of client and nodes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> ClientError {
        ClientError::Refused {
            code,
            message: "m".to_owned(),
            expected: 1,
            found: 2,
            address: "a:1".to_owned(),
            leader: None,
        }
    }

    #[test]
    fn every_code_answers_all_questions_consistently() {
        for code in ErrorCode::ALL {
            let error = refused(*code);
            assert_eq!(error.code(), Some(*code));
            assert_eq!(error.is_retryable(), code.is_retryable());
            assert_eq!(
                error.has_no_side_effects(),
                code.effect() == Effect::NotWritten
            );
            assert!(!error.what().is_empty() && !error.why().is_empty());
            assert!(!error.next().is_empty());
            assert_eq!(
                error.effect() == "nothing was written",
                error.has_no_side_effects()
            );
        }
    }

    #[test]
    fn unknown_is_retryable_and_not_without_effect() {
        let error = ClientError::Unknown {
            code: None,
            cause: "the connection broke".to_owned(),
            attempts: 3,
        };
        assert_eq!(error.code(), Some(ErrorCode::OutcomeUnknown));
        assert!(error.is_retryable() && !error.has_no_side_effects());
        assert!(error.why().contains("3 times"));
    }
}
