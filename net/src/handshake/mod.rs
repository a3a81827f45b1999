//! The handshake of both sides, as pure functions of frames: who is there, and may it come in?
//!
//! The connecting side sends `Hello`; the other answers `HelloAck` or `HelloReject`. Nothing of either
//! side is believed beyond that: there is no cryptography here. It keeps honest nodes from talking to the
//! wrong cluster, the wrong node or a store that was swapped under a node id.

use drave_batch::wire::{
    ClusterId, ErrorCode, Hello, HelloAck, HelloReject, Lane, Message, MessageKind,
    PROTOCOL_VERSION, PeerSettings, Role,
};
use drave_batch::{DecodeError, RECORD_BYTES_MAX};
use thiserror::Error;

use crate::Frame;

#[cfg(test)]
mod tests;

/// Who a node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its number in the cluster, from 1.
    pub node_id: u64,
    /// The life of its store: made anew whenever a store is formatted.
    pub incarnation: u128,
}

/// What the accepting side lets the other send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of a frame's payload at most.
    pub payload_bytes_max: u32,
    /// Bytes of one record at most.
    pub record_bytes_max: u32,
    /// Bytes of requests that a client may have unanswered on one connection.
    pub credit_bytes: u32,
}

impl Limits {
    /// The limits in force unless something else is configured.
    pub const DEFAULT: Self = Self {
        payload_bytes_max: drave_batch::wire::FRAME_PAYLOAD_BYTES_MAX,
        record_bytes_max: RECORD_BYTES_MAX,
        credit_bytes: 8 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a connection is refused: what goes into the `HelloReject`.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[error("{code}: {message}")]
pub struct Reject {
    /// The code for programs.
    pub code: ErrorCode,
    /// Expected and found, for people.
    pub message: String,
}

impl Reject {
    /// A refusal.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// The message that refuses.
    #[must_use]
    pub fn to_wire(&self) -> HelloReject {
        HelloReject {
            code: self.code as u32,
            message: brief(&self.message).to_owned(),
        }
    }
}

/// Bytes of a refusal's text at most, so that its frame fits what a handshake may take.
const TEXT_BYTES_MAX: usize = 1024;

/// The start of `text` that fits a refusal.
pub(crate) fn brief(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The accepting side.
#[derive(Clone, Debug)]
pub struct Acceptor {
    identity: Identity,
    limits: Limits,
}

impl Acceptor {
    /// Accepts as `identity`, granting `limits`.
    #[must_use]
    pub fn new(identity: Identity, limits: Limits) -> Self {
        Self { identity, limits }
    }

    /// Judges the first frame of a connection. `judge` is asked about peers only, after everything else
    /// fits: whether this node id under this incarnation may come in.
    ///
    /// # Errors
    /// [`Reject`] for everything that is not a fitting `Hello`.
    pub fn on_frame(
        &self,
        frame: &Frame,
        judge: impl FnOnce(&Hello) -> Result<(), (ErrorCode, String)>,
    ) -> Result<(HelloAck, Hello), Reject> {
        if frame.header.kind != MessageKind::Hello {
            let message = format!("expected Hello first, found {:?}", frame.header.kind);
            return Err(Reject::new(ErrorCode::UnexpectedMessage, message));
        }
        if !frame.payload.is_empty() {
            let message = format!(
                "Hello has no payload, found {} bytes of it",
                frame.payload.len()
            );
            return Err(Reject::new(ErrorCode::MalformedFrame, message));
        }
        let hello: Hello = frame
            .decode()
            .map_err(|error| Reject::new(ErrorCode::MalformedFrame, error.to_string()))?;
        self.on_hello(&hello, judge).map(|ack| (ack, hello))
    }

    /// Judges a decoded `Hello`; see [`on_frame`](Self::on_frame).
    ///
    /// # Errors
    /// [`Reject`]
    pub fn on_hello(
        &self,
        hello: &Hello,
        judge: impl FnOnce(&Hello) -> Result<(), (ErrorCode, String)>,
    ) -> Result<HelloAck, Reject> {
        let ours = PROTOCOL_VERSION;
        if hello.version_min > ours || hello.version_max < ours {
            let message = format!(
                "this node speaks version {ours}, the caller {} to {}",
                hello.version_min, hello.version_max
            );
            return Err(Reject::new(ErrorCode::ProtocolVersion, message));
        }
        self.check_cluster(hello)?;
        if hello.to_node_id != 0 && hello.to_node_id != self.identity.node_id {
            let message = format!(
                "this is node {}, the caller means node {}",
                self.identity.node_id, hello.to_node_id
            );
            return Err(Reject::new(ErrorCode::WrongNode, message));
        }
        match hello.role {
            Role::Peer => {
                self.check_peer(hello)?;
                judge(hello).map_err(|(code, message)| Reject::new(code, message))?;
            }
            Role::Client => check_client(hello)?,
        }
        Ok(HelloAck {
            version: ours,
            node_id: self.identity.node_id,
            incarnation: self.identity.incarnation,
            payload_bytes_max: self.limits.payload_bytes_max,
            record_bytes_max: self.limits.record_bytes_max,
            credit_bytes: self.limits.credit_bytes,
            cluster_id: self.identity.cluster_id.as_str().to_owned(),
        })
    }

    fn check_cluster(&self, hello: &Hello) -> Result<(), Reject> {
        let ours = &self.identity.cluster_id;
        let found = match &hello.cluster_id {
            Some(theirs) if theirs == ours => return Ok(()),
            None if hello.role == Role::Client => return Ok(()),
            Some(theirs) => theirs.as_str(),
            None => "no cluster at all",
        };
        let message = format!("this is cluster {ours}, the caller means {found}");
        Err(Reject::new(ErrorCode::WrongCluster, message))
    }

    fn check_peer(&self, hello: &Hello) -> Result<(), Reject> {
        if hello.node_id == 0 {
            let message = "a peer has a node id from 1, found 0";
            return Err(Reject::new(ErrorCode::MalformedFrame, message));
        }
        if hello.node_id == self.identity.node_id {
            let message = format!(
                "node {} is this node itself: two nodes have the same id, or an address leads back",
                hello.node_id
            );
            return Err(Reject::new(ErrorCode::WrongNode, message));
        }
        Ok(())
    }
}

fn check_client(hello: &Hello) -> Result<(), Reject> {
    let is_anonymous = hello.node_id == 0 && hello.incarnation == 0 && hello.settings.is_none();
    if !is_anonymous || hello.lane != Lane::Control {
        let message = format!(
            "a client has no node id, no incarnation, no settings and lane Control; found node {} on lane {:?}",
            hello.node_id, hello.lane
        );
        return Err(Reject::new(ErrorCode::MalformedFrame, message));
    }
    Ok(())
}

/// Why the connecting side does not go on.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side refused.
    #[error("refused with code {number}: {message}")]
    Rejected {
        /// The code, if this build knows it.
        code: Option<ErrorCode>,
        /// The code's number.
        number: u32,
        /// The refusal's text.
        message: String,
    },
    /// The answer is from another cluster.
    #[error("expected cluster {expected}, found {found:?}")]
    WrongCluster {
        /// The cluster meant.
        expected: ClusterId,
        /// The cluster that answered.
        found: String,
    },
    /// The answer is from another node.
    #[error("expected node {expected}, found node {found}")]
    WrongNode {
        /// The node meant.
        expected: u64,
        /// The node that answered.
        found: u64,
    },
    /// The node answers under another incarnation than the one it is known by.
    #[error("node {node_id}: expected incarnation {expected:#034x}, found {found:#034x}")]
    WrongIncarnation {
        /// The node.
        node_id: u64,
        /// The incarnation it is known by.
        expected: u128,
        /// The incarnation that answered.
        found: u128,
    },
    /// The answer picks a version that was not offered.
    #[error("offered version {expected}, the answer picks {found}")]
    Version {
        /// The version offered.
        expected: u16,
        /// The version picked.
        found: u16,
    },
    /// The answer is neither an ack nor a refusal.
    #[error("expected HelloAck, found {found:?}")]
    Unexpected {
        /// What came instead.
        found: MessageKind,
    },
    /// The answer does not decode.
    #[error("malformed answer: {0}")]
    Malformed(#[from] DecodeError),
}

/// The connecting side.
#[derive(Clone, Debug)]
pub struct Connector {
    role: Role,
    lane: Lane,
    node_id: u64,
    incarnation: u128,
    to_node_id: u64,
    cluster_id: Option<ClusterId>,
    expected_incarnation: Option<u128>,
    settings: Option<PeerSettings>,
}

impl Connector {
    /// A client's side. `to_node_id` is 0 for any node.
    #[must_use]
    pub fn client(cluster_id: Option<ClusterId>, to_node_id: u64) -> Self {
        Self {
            role: Role::Client,
            lane: Lane::Control,
            node_id: 0,
            incarnation: 0,
            to_node_id,
            cluster_id,
            expected_incarnation: None,
            settings: None,
        }
    }

    /// A node's side: `identity` connects to the node `to_node_id` for `lane`. A known incarnation of
    /// that node is checked; `None` takes any, for a node never heard of before.
    #[must_use]
    pub fn peer(
        identity: &Identity,
        lane: Lane,
        to_node_id: u64,
        expected_incarnation: Option<u128>,
    ) -> Self {
        Self {
            role: Role::Peer,
            lane,
            node_id: identity.node_id,
            incarnation: identity.incarnation,
            to_node_id,
            cluster_id: Some(identity.cluster_id.clone()),
            expected_incarnation,
            settings: None,
        }
    }

    /// The same, and says which settings the node has, for the other side to compare.
    #[must_use]
    pub fn with_settings(self, settings: Option<PeerSettings>) -> Self {
        Self { settings, ..self }
    }

    /// The message to open with.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            role: self.role,
            lane: self.lane,
            node_id: self.node_id,
            incarnation: self.incarnation,
            to_node_id: self.to_node_id,
            cluster_id: self.cluster_id.clone(),
            settings: self.settings,
        }
    }

    /// The opening frame's bytes.
    #[must_use]
    pub fn hello_bytes(&self) -> Vec<u8> {
        frame_bytes(&self.hello())
    }

    /// Checks the answer.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is then of no use.
    pub fn on_frame(&self, frame: &Frame) -> Result<HelloAck, HandshakeError> {
        match frame.header.kind {
            MessageKind::HelloAck => {}
            MessageKind::HelloReject => {
                let reject: HelloReject = frame.decode()?;
                return Err(HandshakeError::Rejected {
                    code: ErrorCode::from_number(reject.code),
                    number: reject.code,
                    message: reject.message,
                });
            }
            found => return Err(HandshakeError::Unexpected { found }),
        }
        let ack: HelloAck = frame.decode()?;
        if ack.version != PROTOCOL_VERSION {
            return Err(HandshakeError::Version {
                expected: PROTOCOL_VERSION,
                found: ack.version,
            });
        }
        ClusterId::new(&ack.cluster_id)?;
        if let Some(expected) = &self.cluster_id
            && expected.as_str() != ack.cluster_id
        {
            return Err(HandshakeError::WrongCluster {
                expected: expected.clone(),
                found: ack.cluster_id,
            });
        }
        if self.to_node_id != 0 && self.to_node_id != ack.node_id {
            return Err(HandshakeError::WrongNode {
                expected: self.to_node_id,
                found: ack.node_id,
            });
        }
        if let Some(expected) = self.expected_incarnation
            && expected != ack.incarnation
        {
            return Err(HandshakeError::WrongIncarnation {
                node_id: ack.node_id,
                expected,
                found: ack.incarnation,
            });
        }
        Ok(ack)
    }
}

/// One handshake message as a whole frame.
#[must_use]
pub fn frame_bytes<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    drave_batch::wire::encode_frame(&mut out, 0, 0, message, 0);
    out
}
