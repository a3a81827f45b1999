//! What ends a connection or keeps it from opening, before an operation makes a `ClientError` of it.

use drave_batch::DecodeError;
use drave_batch::wire::{ErrorCode, ErrorReply};
use drave_net::frame::FrameError;
use drave_net::handshake::HandshakeError;
use thiserror::Error;

use crate::{ClientError, LeaderHint};

/// Bytes of a node's text that are kept.
const TEXT_BYTES_MAX: usize = 512;

/// Why a connection does not open or does not go on.
#[derive(Clone, Debug, Error)]
pub(crate) enum LinkError {
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("{address} did not answer the handshake: {cause}")]
    Handshake { address: String, cause: String },
    #[error("{address} refused the connection: {message}")]
    Rejected {
        address: String,
        code: ErrorCode,
        message: String,
    },
    #[error("the connection to {address} broke: {cause}")]
    Lost { address: String, cause: String },
    #[error("{address} gave no sign of life for {silence_ms} ms")]
    Silent { address: String, silence_ms: u64 },
    #[error("{address} sent bytes that are no frame: {source}")]
    Framing { address: String, source: FrameError },
    #[error("{address} sent damaged bytes: {source}")]
    Damaged {
        address: String,
        source: DecodeError,
    },
    #[error("{address} broke the protocol: {what}, expected {expected}, found {found}")]
    Misbehaved {
        address: String,
        what: &'static str,
        expected: u64,
        found: u64,
    },
    #[error("the connection to {address} was closed here")]
    Closed { address: String },
}

impl LinkError {
    pub(crate) fn handshake(address: &str, error: HandshakeError) -> Self {
        let address = address.to_owned();
        let code = match &error {
            HandshakeError::Rejected { code, .. } => *code,
            HandshakeError::WrongCluster { .. } => Some(ErrorCode::WrongCluster),
            HandshakeError::WrongNode { .. } => Some(ErrorCode::WrongNode),
            HandshakeError::Version { .. } => Some(ErrorCode::ProtocolVersion),
            _ => None,
        };
        let cause = cut_text(error.to_string());
        match code {
            Some(code) => Self::Rejected {
                address,
                code,
                message: cause,
            },
            None => Self::Handshake { address, cause },
        }
    }

    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected { code, .. } => Some(*code),
            Self::Framing { source, .. } => Some(source.code()),
            _ => None,
        }
    }

    /// A refusal that the same node will repeat: asking it again is of no use.
    pub(crate) fn is_final_rejection(&self) -> bool {
        matches!(self, Self::Rejected { code, .. } if !code.is_retryable())
    }

    /// The error of an operation that ends with this and was never sent.
    pub(crate) fn unavailable(&self, attempts: u32) -> ClientError {
        match self {
            Self::Rejected {
                address,
                code,
                message,
            } if !code.is_retryable() => ClientError::Refused {
                code: *code,
                message: message.clone(),
                expected: 0,
                found: 0,
                address: address.clone(),
                leader: None,
            },
            _ => ClientError::Unavailable {
                code: self.code(),
                cause: self.to_string(),
                attempts,
                leader: None,
            },
        }
    }
}

/// A node's `ErrorReply`, its texts cut to what is worth keeping.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// `None` for a number that this build does not know.
    pub(crate) code: Option<ErrorCode>,
    pub(crate) expected: u64,
    pub(crate) found: u64,
    pub(crate) leader: Option<LeaderHint>,
    pub(crate) message: String,
    pub(crate) address: String,
}

impl Refusal {
    pub(crate) fn new(address: &str, reply: ErrorReply) -> Self {
        let code = ErrorCode::from_number(reply.code);
        let leader_known =
            reply.leader_id != 0 && crate::cluster::is_address(&reply.leader_address);
        let message = match code {
            Some(code) if reply.message.is_empty() => code.summary().to_owned(),
            Some(_) => cut_text(reply.message),
            None => cut_text(format!("code {}: {}", reply.code, reply.message)),
        };
        Self {
            code,
            expected: reply.expected,
            found: reply.found,
            leader: leader_known.then_some(LeaderHint {
                node_id: reply.leader_id,
                address: reply.leader_address,
            }),
            message,
            address: address.to_owned(),
        }
    }

    /// The error of an operation for which this is the last word.
    pub(crate) fn into_error(self) -> ClientError {
        match self.code {
            Some(code) => ClientError::Refused {
                code,
                message: self.message,
                expected: self.expected,
                found: self.found,
                address: self.address,
                leader: self.leader.map(Box::new),
            },
            // What an unknown code did is unknown.
            None => ClientError::Unknown {
                code: None,
                cause: format!("{} says: {}", self.address, self.message),
                attempts: 1,
            },
        }
    }
}

/// At most [`TEXT_BYTES_MAX`] bytes of a text that a node chose, cut at a character.
pub(crate) fn cut_text(mut text: String) -> String {
    let mut len = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.truncate(len);
    text
}
