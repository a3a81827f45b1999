//! What a [`crate::Net`] says and is told: events, their reasons, and the errors of its calls.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use drave_batch::wire::{Hello, HelloAck, Lane};
use thiserror::Error;

use crate::handshake::HandshakeError;
use crate::{Frame, FrameError};

/// One connection. Never given again within a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ConnId(pub(crate) u64);

impl ConnId {
    /// The number, for logs, metrics and tables of others.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The connection of this [number](Self::number).
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// One standing order to be connected to a peer. Never given again within a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct DialId(pub(crate) u64);

/// Whom to stay connected to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dial {
    /// The peer that must answer.
    pub node_id: u64,
    /// What the connection is for.
    pub lane: Lane,
    /// `HOST:PORT`, resolved anew for each attempt.
    pub address: String,
    /// The local address that the connection leaves from; `None` for the system's choice.
    pub source: Option<IpAddr>,
    /// The incarnation that the peer is known by; any other is refused. `None` takes any.
    pub incarnation: Option<u128>,
}

/// When to close.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flush {
    /// After what is queued was written, or the close timeout ran out.
    Queued,
    /// At once; what is queued is lost.
    Nothing,
}

/// Something that happened. Events of one connection are in order, from `Accepted` or `Dialed` to
/// `Closed`, each exactly once.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// A client or a peer came in.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// Who it is, checked.
        hello: Hello,
        /// Where it comes from.
        remote: SocketAddr,
    },
    /// A dialed connection stands.
    Dialed {
        /// The order it belongs to.
        dial: DialId,
        /// The connection.
        conn: ConnId,
        /// Who answered, checked.
        ack: HelloAck,
    },
    /// Attempts of a dial fail. Told at the first failure and then about once a second; the dial goes
    /// on by itself.
    DialFailed {
        /// The order.
        dial: DialId,
        /// The latest failure.
        reason: DialError,
    },
    /// A frame arrived.
    Frame {
        /// The connection.
        conn: ConnId,
        /// The frame; its head is not yet decoded.
        frame: Frame,
    },
    /// The queue of a connection, which had been above `send_queue_bytes_low`, fell to it: there is room
    /// for more.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// A connection is closed; nothing follows of it.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection closed.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The other side closed it, between two frames.
    #[error("closed by the other side")]
    ByPeer,
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The connection broke.
    #[error("{message}")]
    Io {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// What arrived is no frame, is over the limit, or was cut.
    #[error("{0}")]
    Malformed(#[from] FrameError),
    /// A limit of this side was reached.
    #[error("{what}: at most {limit}, found {found}")]
    Limit {
        /// The limit.
        what: &'static str,
        /// Its value.
        limit: u64,
        /// What it would have become.
        found: u64,
    },
    /// A client was silent, or slow with a frame, for too long.
    #[error("{what} for more than {limit_ms} ms")]
    Timeout {
        /// What lasted too long.
        what: &'static str,
        /// How long it may last.
        limit_ms: u64,
    },
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        Self::Io {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address has no meaning, or none that fits the source address.
    #[error("cannot resolve {address}: {message}")]
    Resolve {
        /// The address as given.
        address: String,
        /// The resolver's words.
        message: String,
    },
    /// No connection could be made.
    #[error("cannot connect to {remote}: {message}")]
    Connect {
        /// Where to.
        remote: SocketAddr,
        /// What kind of failure; `TimedOut` when nothing answered in time.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// The connection stood, but its handshake did not come to an end.
    #[error("handshake with {remote}: {message}")]
    Handshake {
        /// With whom.
        remote: SocketAddr,
        /// What happened.
        message: String,
    },
    /// The other side refused, or is not who was meant.
    #[error("handshake with {remote}: {error}")]
    Refused {
        /// With whom.
        remote: SocketAddr,
        /// The refusal.
        error: HandshakeError,
    },
}

/// Why a frame was not queued. It never left, not even in part.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// No such connection, or it is closing.
    #[error("{0} is closed")]
    Closed(ConnId),
    /// The payload is over what the other side takes.
    #[error("the payload has {found} bytes, the other side takes {limit}")]
    TooLarge {
        /// Bytes that the other side takes.
        limit: u64,
        /// Bytes of the payload.
        found: u64,
    },
    /// The connection's queue is full; a client's connection is closed for it.
    #[error("the queue of {conn} is full: at most {limit} bytes, {found} with this frame")]
    QueueFull {
        /// The connection.
        conn: ConnId,
        /// Bytes that may be queued.
        limit: u64,
        /// Bytes that it would have been.
        found: u64,
    },
}

/// Counters since the start, and what stands now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NetStats {
    /// Accepted connections now, those in handshake and those whose `Closed` waits included.
    pub accepted_now: u32,
    /// Of these, clients past their handshake.
    pub clients_now: u32,
    /// Dialed connections that stand now.
    pub dialed_now: u32,
    /// Connections accepted and past their handshake.
    pub accepted: u64,
    /// Connections refused or dropped before their handshake was done.
    pub refused: u64,
    /// Failures of the accept call itself, such as too many open files.
    pub accept_errors: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Frames queued to be sent.
    pub frames_sent: u64,
    /// Bytes received after the handshake.
    pub bytes_received: u64,
    /// Bytes handed to the kernel after the handshake.
    pub bytes_sent: u64,
    /// Connections closed for what they sent, for a limit or for a timeout.
    pub closed_for_cause: u64,
}
