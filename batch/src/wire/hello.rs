//! The handshake: who asks for what, and whether it may.

use super::message::message;
use super::{Message, MessageKind};
use crate::{DecodeError, Reader, Writer};

/// The protocol version this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Bytes of a cluster id at most.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;

/// The name of a cluster: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ClusterId(String);

impl ClusterId {
    /// A checked cluster id.
    ///
    /// # Errors
    /// [`DecodeError`] when it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, DecodeError> {
        if name.is_empty() || name.len() > CLUSTER_ID_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                what: "cluster id bytes (1 to 64)",
                limit: CLUSTER_ID_BYTES_MAX as u64,
                found: name.len() as u64,
            });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name.chars().find(|c| !allowed(*c)) {
            None => Ok(Self(name.to_owned())),
            Some(c) => Err(DecodeError::Invalid {
                what: "cluster id character (letters, digits, '.', '_', '-' only)",
                found: u64::from(u32::from(c)),
            }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the connecting side is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Role {
    /// A node of the cluster.
    Peer = 1,
    /// A client.
    Client = 2,
}

/// Which traffic a peer's connection carries, so that small urgent messages never wait behind bulk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Votes, heartbeats, read rounds; everything of a client.
    Control = 0,
    /// AppendEntries.
    Append = 1,
    /// Catch-up and snapshots.
    CatchUp = 2,
}

/// Settings of a node that every node of its cluster should have alike: what differs is found when they connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerSettings {
    /// Producers remembered: which one is forgotten every replica decides for itself.
    pub producers_max: u32,
    /// The shortest time without a leader's sign of life after which the node campaigns, microseconds.
    pub election_timeout_us_min: u64,
    /// Whether the node takes part in leases.
    pub has_leases: bool,
}

/// The first frame of every connection, from the side that connected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// The lowest protocol version that the sender speaks.
    pub version_min: u16,
    /// The highest.
    pub version_max: u16,
    /// Peer or client.
    pub role: Role,
    /// The lane of a peer's connection.
    pub lane: Lane,
    /// The sender's node id; 0 for a client.
    pub node_id: u64,
    /// The sender's incarnation; 0 for a client.
    pub incarnation: u128,
    /// The node it means to reach; 0 for any.
    pub to_node_id: u64,
    /// The cluster it means to reach; a client may leave it open.
    pub cluster_id: Option<ClusterId>,
    /// What a peer's cluster has to agree on; none from a client.
    pub settings: Option<PeerSettings>,
}

impl Message for Hello {
    const KIND: MessageKind = MessageKind::Hello;

    fn encode_head(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.u16(self.version_min);
        writer.u16(self.version_max);
        writer.u8(self.role as u8);
        writer.u8(self.lane as u8);
        writer.u16(0);
        writer.u64(self.node_id);
        writer.u128(self.incarnation);
        writer.u64(self.to_node_id);
        writer.text(self.cluster_id.as_ref().map_or("", ClusterId::as_str));
        if let Some(settings) = &self.settings {
            writer.u32(settings.producers_max);
            writer.u64(settings.election_timeout_us_min);
            writer.u8(settings.has_leases.into());
        }
    }

    fn decode_head(head: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("Hello", head);
        let version_min = fields.u16()?;
        let version_max = fields.u16()?;
        let role = match fields.u8()? {
            1 => Role::Peer,
            2 => Role::Client,
            other => {
                return Err(DecodeError::Invalid {
                    what: "Hello.role",
                    found: other.into(),
                });
            }
        };
        let lane = match fields.u8()? {
            0 => Lane::Control,
            1 => Lane::Append,
            2 => Lane::CatchUp,
            other => {
                return Err(DecodeError::Invalid {
                    what: "Hello.lane",
                    found: other.into(),
                });
            }
        };
        let reserved = fields.u16()?;
        if reserved != 0 {
            return Err(DecodeError::Invalid {
                what: "Hello.reserved",
                found: reserved.into(),
            });
        }
        let node_id = fields.u64()?;
        let incarnation = fields.u128()?;
        let to_node_id = fields.u64()?;
        let cluster_id = match fields.text()? {
            "" => None,
            name => Some(ClusterId::new(name)?),
        };
        let mut settings = None;
        if fields.remaining() > 0 {
            settings = Some(PeerSettings {
                producers_max: fields.u32()?,
                election_timeout_us_min: fields.u64()?,
                has_leases: fields.bool("Hello.has_leases")?,
            });
        }
        fields.finish()?;
        Ok(Self {
            version_min,
            version_max,
            role,
            lane,
            node_id,
            incarnation,
            to_node_id,
            cluster_id,
            settings,
        })
    }
}

message! {
    /// The answer that opens a connection.
    HelloAck {
        /// The protocol version that both sides use from here on.
        version: u16,
        /// The answering node.
        node_id: u64,
        /// Its incarnation.
        incarnation: u128,
        /// Bytes of a frame's payload at most.
        payload_bytes_max: u32,
        /// Bytes of one record at most.
        record_bytes_max: u32,
        /// Bytes of requests that a client may have unanswered on this connection.
        credit_bytes: u32,
        /// Its cluster.
        cluster_id: String,
    }
}

message! {
    /// The answer that refuses a connection; it is closed behind it.
    HelloReject {
        /// An [`super::ErrorCode`].
        code: u32,
        /// What was expected and what was found.
        message: String,
    }
}
