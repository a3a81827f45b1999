//! Standing orders to be connected to a peer: resolve, connect, greet, run, and again after a backoff.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use drave_batch::wire::{HelloAck, Role};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::connection::{self, Conn};
use crate::event::{CloseReason, ConnId, Dial, DialError, DialId, Flush, NetEvent};
use crate::frame::FrameReader;
use crate::greet::{self, GreetError};
use crate::handshake::Connector;
use crate::shared::{Queued, Receipt, Shared};
use crate::stream::Stream;

/// Failures of one dial are told no more often than this.
const FAILURE_EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Addresses that one name may stand for, at most; the rest are not tried.
const ADDRESSES_MAX: usize = 8;

/// One dial, as its task and the user see it.
pub(crate) struct DialOrder {
    id: DialId,
    dial: Dial,
    ended: Cell<bool>,
    wake: Notify,
    conn: Cell<Option<ConnId>>,
    /// Shared with a `DialFailed` that waits in the inbox.
    failed_receipt: Rc<()>,
    /// Shared with a `Closed` that waits in the inbox.
    closed_receipt: Rc<()>,
}

impl DialOrder {
    pub(crate) fn new(id: DialId, dial: Dial) -> Rc<Self> {
        Rc::new(Self {
            id,
            dial,
            ended: Cell::new(false),
            wake: Notify::new(),
            conn: Cell::new(None),
            failed_receipt: Rc::new(()),
            closed_receipt: Rc::new(()),
        })
    }

    /// No further attempt; the connection that stands is closed after a flush.
    pub(crate) fn end(&self, shared: &Shared) {
        self.ended.set(true);
        self.wake.notify_one();
        if let Some(conn) = self.conn.get().and_then(|id| shared.conn(id)) {
            conn.close(Flush::Queued, CloseReason::Local);
        }
    }
}

pub(crate) async fn dial_loop(shared: Rc<Shared>, order: Rc<DialOrder>) {
    let seed = order.id.0 ^ shared.config.identity.node_id.rotate_left(32);
    let mut backoff = Backoff::new(seed);
    let mut told_at: Option<Instant> = None;
    while !order.ended.get() {
        // A user that does not drain gets no second connection's events on top of the first's.
        if Rc::strong_count(&order.closed_receipt) == 1 {
            match attempt(&shared, &order).await {
                Ok(Some(greeted)) => {
                    backoff.reset();
                    told_at = None;
                    run(&shared, &order, greeted).await;
                }
                Ok(None) => break,
                Err(reason) => tell_failure(&shared, &order, &mut told_at, reason),
            }
        }
        if order.ended.get() {
            break;
        }
        tokio::select! {
            () = order.wake.notified() => {}
            () = sleep(backoff.next_delay()) => {}
        }
    }
    shared.dials.borrow_mut().remove(&order.id);
}

fn tell_failure(
    shared: &Shared,
    order: &DialOrder,
    told_at: &mut Option<Instant>,
    reason: DialError,
) {
    let now = Instant::now();
    let is_due =
        told_at.is_none_or(|at| now.saturating_duration_since(at) >= FAILURE_EVENT_INTERVAL);
    if is_due && !order.ended.get() && Rc::strong_count(&order.failed_receipt) == 1 {
        *told_at = Some(now);
        let dial = order.id;
        let receipt = Receipt::Dial(Rc::clone(&order.failed_receipt));
        shared.emit(Queued::with_receipt(
            NetEvent::DialFailed { dial, reason },
            receipt,
        ));
    }
}

type Greeted = (Stream, SocketAddr, FrameReader, HelloAck);

/// One attempt; `None` when the dial ended meanwhile.
async fn attempt(shared: &Rc<Shared>, order: &DialOrder) -> Result<Option<Greeted>, DialError> {
    // Up to here everything is plain tokio and may be dropped half-way.
    let connected = tokio::select! {
        biased;
        () = order.wake.notified() => return Ok(None),
        connected = connect(&order.dial, shared.config.connect_timeout) => connected?,
    };
    let (socket, remote) = connected;
    let stream = Stream::limit_unacknowledged(&socket)
        .and_then(|()| Stream::new(shared.engine, socket))
        .map_err(|error| connect_error(remote, &error))?;
    let dial = &order.dial;
    let identity = &shared.config.identity;
    let connector = Connector::peer(identity, dial.lane, dial.node_id, dial.incarnation)
        .with_settings(shared.config.settings);
    match greet::connect(shared, &stream, &connector, &order.wake).await {
        Ok((reader, ack)) => Ok(Some((stream, remote, reader, ack))),
        Err(GreetError::Refused(error)) => Err(DialError::Refused { remote, error }),
        Err(GreetError::Failed(message)) => Err(DialError::Handshake { remote, message }),
    }
}

async fn run(shared: &Rc<Shared>, order: &DialOrder, greeted: Greeted) {
    let (stream, remote, reader, ack) = greeted;
    let id = ConnId(shared.next_id());
    let limit = ack.payload_bytes_max;
    let conn = Conn::new(shared, id, stream, remote, Role::Peer, limit);
    order.conn.set(Some(id));
    let dialed_now = &shared.counters.dialed_now;
    dialed_now.set(dialed_now.get() + 1);
    shared.emit(Queued::plain(NetEvent::Dialed {
        dial: order.id,
        conn: id,
        ack,
    }));
    if order.ended.get() {
        conn.close(Flush::Queued, CloseReason::Local);
    }
    let receipt = Receipt::Dial(Rc::clone(&order.closed_receipt));
    connection::run(Rc::clone(shared), conn, reader, receipt).await;
    dialed_now.set(dialed_now.get() - 1);
    order.conn.set(None);
}

/// Resolves the address and connects to the first of its meanings that answers.
async fn connect(dial: &Dial, limit: Duration) -> Result<(TcpStream, SocketAddr), DialError> {
    let resolve_error = |message: String| DialError::Resolve {
        address: dial.address.clone(),
        message,
    };
    let addresses = tokio::net::lookup_host(&dial.address)
        .await
        .map_err(|error| resolve_error(error.to_string()))?;
    let fitting = addresses.filter(|address| {
        dial.source
            .is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    });
    let mut last = None;
    for remote in fitting.take(ADDRESSES_MAX) {
        match connect_to(dial, remote, limit).await {
            Ok(socket) => return Ok((socket, remote)),
            Err(error) => last = Some(connect_error(remote, &error)),
        }
    }
    Err(last.unwrap_or_else(|| resolve_error("no address that fits".to_owned())))
}

fn connect_error(remote: SocketAddr, error: &io::Error) -> DialError {
    DialError::Connect {
        remote,
        kind: error.kind(),
        message: error.to_string(),
    }
}

async fn connect_to(dial: &Dial, remote: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = dial.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let socket = match timeout(limit, socket.connect(remote)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    // On the loopback the system may pick the port that we call as our own, and a listener that is down
    // would be connected to by ourselves, and its port be taken.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}
