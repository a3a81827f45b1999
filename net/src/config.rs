//! What a [`crate::Net`] is told at its start: limits and times, all bounded, and who may come in.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use drave_batch::wire::{ErrorCode, FRAME_PAYLOAD_BYTES_MAX, Hello, PeerSettings};
use rustix::process::{Resource, getrlimit};

use crate::handshake::{Identity, Limits};

/// File descriptors left to everything that is not an accepted connection.
const FD_RESERVE: u64 = 256;

/// Accepted connections at most, whatever the descriptor limit allows.
const CONNECTIONS_CAP: u64 = 4096;

/// Above this a timeout is a mistake, and its deadline may not be a point in time at all.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Judges the peers that ask to come in. Clients are not put before it.
pub trait PeerPolicy {
    /// Whether the peer with this `Hello` (its node id, its incarnation) may come in.
    ///
    /// # Errors
    /// The code and the text of the refusal: [`ErrorCode::UnknownMember`] or
    /// [`ErrorCode::WrongIncarnation`], usually.
    fn judge(&self, hello: &Hello) -> Result<(), (ErrorCode, String)>;
}

impl<F: Fn(&Hello) -> Result<(), (ErrorCode, String)>> PeerPolicy for F {
    fn judge(&self, hello: &Hello) -> Result<(), (ErrorCode, String)> {
        self(hello)
    }
}

/// The configuration of a [`crate::Net`]. [`NetConfig::new`] gives defaults for everything but the
/// address and the identity.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Where to listen; port 0 for any free one.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: Identity,
    /// What it tells the peers that it dials of its settings; [`PeerPolicy::judge`] sees what they tell.
    pub settings: Option<PeerSettings>,
    /// What others may send; told to them in the handshake. Payloads above `payload_bytes_max` are
    /// refused on arrival.
    pub limits: Limits,
    /// A connection must open with its `Hello` within this.
    pub handshake_timeout: Duration,
    /// A dialed connection must stand within this.
    pub connect_timeout: Duration,
    /// A client's connection without a byte in either direction for so long is closed; `None` never
    /// closes for silence.
    pub idle_timeout: Option<Duration>,
    /// A client's frame must be complete within this from its first bytes on.
    pub frame_timeout: Duration,
    /// A closing connection may flush, and wait for the other side, for so long.
    pub close_timeout: Duration,
    /// Accepted connections at most, those in handshake included.
    pub connections_max: u32,
    /// Of these, slots that clients cannot take.
    pub peer_connections_reserved: u32,
    /// Accepted connections from one address at most; `None` for no limit of its own.
    pub connections_per_ip_max: Option<u32>,
    /// Bytes queued for one connection at most. At this limit a client's connection is closed; a
    /// peer's refuses the frame.
    pub send_queue_bytes_max: usize,
    /// [`crate::NetEvent::Writable`] is given when a queue that was above this falls to it.
    pub send_queue_bytes_low: usize,
    /// Bytes of frames of one connection that wait to be drained; above it the connection is not read.
    pub receive_budget_bytes: usize,
    /// The same for all clients together, and, apart, for their frames that are not complete yet.
    pub receive_total_bytes_max: usize,
}

impl NetConfig {
    /// Defaults around an address and an identity.
    #[must_use]
    pub fn new(listen: SocketAddr, identity: Identity) -> Self {
        let connections_max = connections_default();
        Self {
            listen,
            identity,
            settings: None,
            limits: Limits::DEFAULT,
            handshake_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: None,
            frame_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            connections_max,
            peer_connections_reserved: (connections_max / 4).min(64),
            connections_per_ip_max: None,
            send_queue_bytes_max: 8 << 20,
            send_queue_bytes_low: 256 << 10,
            receive_budget_bytes: 1 << 20,
            receive_total_bytes_max: 256 << 20,
        }
    }

    /// Refuses values that cannot work together, by name.
    pub(crate) fn check(&self) -> io::Result<()> {
        // A head has at most 64 KiB; header and rounding to the unit of memory are within 2 KiB more.
        let frame_bytes_max = self.limits.payload_bytes_max as usize + (66 << 10);
        let longest = [
            self.handshake_timeout,
            self.connect_timeout,
            self.frame_timeout,
            self.close_timeout,
        ]
        .into_iter()
        .max()
        .expect("the list is not empty");
        let rules = [
            (
                self.limits.payload_bytes_max <= FRAME_PAYLOAD_BYTES_MAX,
                "payload_bytes_max is over the format's limit of 4 MiB",
            ),
            (self.connections_max > 0, "connections_max is 0"),
            (
                self.peer_connections_reserved < self.connections_max,
                "peer_connections_reserved leaves no connection to clients",
            ),
            (
                self.connections_per_ip_max != Some(0),
                "connections_per_ip_max is 0",
            ),
            (
                self.send_queue_bytes_low < self.send_queue_bytes_max,
                "send_queue_bytes_low is not below send_queue_bytes_max",
            ),
            (self.receive_budget_bytes > 0, "receive_budget_bytes is 0"),
            (
                self.receive_total_bytes_max >= frame_bytes_max,
                "receive_total_bytes_max does not hold one frame",
            ),
            (
                !self.handshake_timeout.is_zero() && !self.connect_timeout.is_zero(),
                "handshake_timeout or connect_timeout is 0",
            ),
            (
                !self.frame_timeout.is_zero() && !self.close_timeout.is_zero(),
                "frame_timeout or close_timeout is 0",
            ),
            (longest <= TIMEOUT_MAX, "a timeout is over 24 hours"),
            (
                self.idle_timeout != Some(Duration::ZERO),
                "idle_timeout is 0",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, broken)) => Err(io::Error::new(io::ErrorKind::InvalidInput, *broken)),
        }
    }
}

/// What the limit on file descriptors leaves to connections.
fn connections_default() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let reserve = FD_RESERVE.min(limit / 2);
    u32::try_from((limit - reserve).clamp(1, CONNECTIONS_CAP)).expect("capped")
}
