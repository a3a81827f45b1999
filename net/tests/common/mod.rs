//! What the runtime tests share: both engines, a node with its events, and a plain-socket client.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use drave_batch::wire::{
    ClusterId, ErrorCode, ErrorReply, Hello, HelloAck, HelloReject, Lane, Message, Read, Role,
    encode_frame,
};
use drave_net::handshake::{Connector, frame_bytes};
use drave_net::{
    CloseReason, ConnId, Dial, Frame, FrameReader, Identity, IoChoice, Net, NetConfig, NetEvent,
    PeerPolicy, Runtime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests takes so long; it only turns a hang into a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on every engine that this machine allows.
pub(crate) fn on_both_engines(test: impl AsyncFn()) {
    for choice in [IoChoice::Uring, IoChoice::Posix] {
        match Runtime::new(choice) {
            Ok(runtime) => {
                let outcome =
                    runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await });
                assert!(outcome.is_ok(), "the test hangs on {choice:?}");
            }
            Err(error) => println!("skipped on {choice:?}: {error}"),
        }
    }
}

pub(crate) fn identity(node_id: u64) -> Identity {
    Identity {
        cluster_id: ClusterId::new("testing").unwrap(),
        node_id,
        incarnation: 1000 + u128::from(node_id),
    }
}

pub(crate) fn config(node_id: u64) -> NetConfig {
    let mut config = NetConfig::new("127.0.0.1:0".parse().unwrap(), identity(node_id));
    config.connections_max = 64;
    config.peer_connections_reserved = 8;
    config
}

pub(crate) fn anyone(_: &Hello) -> Result<(), (ErrorCode, String)> {
    Ok(())
}

/// A net and the events that it gave.
pub(crate) struct Node {
    pub(crate) net: Net,
    events: VecDeque<NetEvent>,
}

impl Node {
    pub(crate) fn new(node_id: u64) -> Self {
        Self::with(config(node_id), anyone)
    }

    pub(crate) fn with(config: NetConfig, policy: impl PeerPolicy + 'static) -> Self {
        Self {
            net: Net::bind(config, policy).unwrap(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.net.local_addr()
    }

    /// The order to dial this node.
    pub(crate) fn dial(&self, node_id: u64, lane: Lane) -> Dial {
        Dial {
            node_id,
            lane,
            address: self.address().to_string(),
            source: None,
            incarnation: None,
        }
    }

    pub(crate) async fn event(&mut self) -> NetEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.net.wait().await;
            let mut events = Vec::new();
            self.net.drain(&mut events, 100);
            self.events.extend(events);
        }
    }

    pub(crate) async fn accepted(&mut self) -> (ConnId, Hello, SocketAddr) {
        match self.event().await {
            NetEvent::Accepted {
                conn,
                hello,
                remote,
            } => (conn, hello, remote),
            other => panic!("expected Accepted, found {other:?}"),
        }
    }

    pub(crate) async fn dialed(&mut self) -> ConnId {
        match self.event().await {
            NetEvent::Dialed { conn, .. } => conn,
            other => panic!("expected Dialed, found {other:?}"),
        }
    }

    pub(crate) async fn frame(&mut self) -> (ConnId, Frame) {
        match self.event().await {
            NetEvent::Frame { conn, frame } => (conn, frame),
            other => panic!("expected Frame, found {other:?}"),
        }
    }

    pub(crate) async fn closed(&mut self) -> (ConnId, CloseReason) {
        match self.event().await {
            NetEvent::Closed { conn, reason } => (conn, reason),
            other => panic!("expected Closed, found {other:?}"),
        }
    }
}

/// Two nodes, connected: the dialing one first.
pub(crate) async fn pair() -> (Node, ConnId, Node, ConnId) {
    let mut server = Node::new(1);
    let mut dialer = Node::new(2);
    dialer.net.dial(server.dial(1, Lane::Append));
    let dialed = dialer.dialed().await;
    let (accepted, hello, _) = server.accepted().await;
    assert_eq!((hello.node_id, hello.role), (2, Role::Peer));
    (dialer, dialed, server, accepted)
}

/// A client over a plain tokio socket, to say what no honest client says.
pub(crate) struct RawClient {
    pub(crate) socket: TcpStream,
    pub(crate) reader: FrameReader,
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            socket: TcpStream::connect(address).await.unwrap(),
            reader: FrameReader::new(u32::MAX),
        }
    }

    /// Connects and shakes hands as a client.
    pub(crate) async fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.greet(&Connector::client(None, 0)).await.unwrap();
        client
    }

    pub(crate) async fn greet(&mut self, connector: &Connector) -> Result<HelloAck, String> {
        self.write(&connector.hello_bytes()).await;
        match self.read_frame().await {
            Some(frame) => connector
                .on_frame(&frame)
                .map_err(|error| error.to_string()),
            None => Err("closed".to_owned()),
        }
    }

    /// Writes all; an error only means that the other side closed already, which tests see by reading.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    pub(crate) async fn send<M: Message>(&mut self, request_id: u64, message: &M, payload: &[u8]) {
        let mut out = Vec::new();
        encode_frame(&mut out, 1, request_id, message, payload.len());
        out.extend_from_slice(payload);
        self.write(&out).await;
    }

    /// The next frame, or `None` when the stream ended or broke.
    pub(crate) async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            match self.socket.read_buf(self.reader.spare()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads a refusal before the handshake, and the end of the stream behind it.
    pub(crate) async fn rejected(&mut self) -> HelloReject {
        let frame = self.read_frame().await.expect("a refusal");
        let reject = frame.decode().unwrap();
        assert!(self.read_frame().await.is_none(), "closed behind it");
        reject
    }

    /// Reads an error behind the handshake, and the end of the stream behind it.
    pub(crate) async fn refused(&mut self) -> ErrorReply {
        let frame = self.read_frame().await.expect("an error");
        let error = frame.decode().unwrap();
        assert!(self.read_frame().await.is_none(), "closed behind it");
        error
    }
}

/// A request with a number in it.
pub(crate) fn request(number: u64) -> Read {
    Read {
        log_id: 1,
        from_seq: number,
        bytes_max: 0,
        consistency: 0,
    }
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize, salt: u8) -> Bytes {
    (0..len)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ salt)
        .collect::<Vec<u8>>()
        .into()
}

/// A handshake message as bytes.
pub(crate) fn hello_bytes(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = Connector::client(None, 0).hello();
    change(&mut hello);
    frame_bytes(&hello)
}
