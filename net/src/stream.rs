//! One TCP connection on either engine, with owned buffers.
//!
//! A read or write that was begun must be awaited to its end: an io_uring operation whose future is
//! dropped stays in flight and takes the next bytes with it. To end one early, [`Stream::shutdown`] the
//! connection; the operation then completes.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio_uring::buf::BoundedBuf;

use crate::runtime::NetEngine;

/// Pieces of one vectored write at most.
pub(crate) const WRITE_PIECES_MAX: usize = 64;

/// After this much silence the kernel asks the other side whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A connection between nodes that acknowledges nothing for so long is given up by the kernel.
const PEER_UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

pub(crate) enum Stream {
    Uring(tokio_uring::net::TcpStream),
    Posix(tokio::net::TcpStream),
}

impl Stream {
    /// Moves a connected socket to the engine.
    pub(crate) fn new(engine: NetEngine, socket: tokio::net::TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        match engine {
            NetEngine::Posix => Ok(Self::Posix(socket)),
            NetEngine::Uring => {
                let socket = socket.into_std()?;
                // On a non-blocking socket io_uring answers EAGAIN instead of waiting.
                socket.set_nonblocking(false)?;
                Ok(Self::Uring(tokio_uring::net::TcpStream::from_std(socket)))
            }
        }
    }

    /// For connections between nodes: a peer that vanished is noticed without waiting for the kernel's
    /// quarter of an hour. Not for clients, who may well stop reading for longer.
    pub(crate) fn limit_unacknowledged(socket: &tokio::net::TcpStream) -> io::Result<()> {
        SockRef::from(socket).set_tcp_user_timeout(Some(PEER_UNACKNOWLEDGED_MAX))
    }

    /// Appends received bytes to `buffer`, up to its capacity, of which some must be spare. 0 is the end
    /// of the stream.
    pub(crate) async fn read(&self, mut buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let used = buffer.len();
        assert!(used < buffer.capacity(), "a read needs room");
        match self {
            Self::Uring(socket) => {
                let (result, slice) = socket.read(buffer.slice(used..)).await;
                (result, slice.into_inner())
            }
            Self::Posix(socket) => {
                let result = loop {
                    if let Err(error) = socket.readable().await {
                        break Err(error);
                    }
                    match socket.try_read_buf(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result,
                    }
                };
                // Unlike a completion, readiness can be there at once: a fast sender must not keep this
                // thread's other tasks waiting.
                tokio::task::consume_budget().await;
                (result, buffer)
            }
        }
    }

    /// Writes the pieces' first bytes, and gives how many. Callers go on with the rest.
    pub(crate) async fn write(&self, mut pieces: Vec<Bytes>) -> (io::Result<usize>, Vec<Bytes>) {
        match self {
            Self::Uring(socket) if pieces.len() == 1 => {
                let piece = pieces.pop().expect("there is one");
                let (result, piece) = socket.write(piece).submit().await;
                pieces.push(piece);
                (result, pieces)
            }
            Self::Uring(socket) => socket.writev(pieces).await,
            Self::Posix(socket) => {
                let result = loop {
                    if let Err(error) = socket.writable().await {
                        break Err(error);
                    }
                    let mut slices = [IoSlice::new(&[]); WRITE_PIECES_MAX];
                    for (slice, piece) in slices.iter_mut().zip(&pieces) {
                        *slice = IoSlice::new(piece);
                    }
                    let count = pieces.len().min(WRITE_PIECES_MAX);
                    match socket.try_write_vectored(&slices[..count]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result,
                    }
                };
                tokio::task::consume_budget().await;
                (result, pieces)
            }
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            let (result, _) = self.write(vec![rest.clone()]).await;
            match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => drop(rest.split_to(written)),
            }
        }
        Ok(())
    }

    /// Ends one or both directions. Reads and writes in flight complete. An error only says that the
    /// connection is gone already.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let result = match self {
            Self::Uring(socket) => socket.shutdown(how),
            Self::Posix(socket) => SockRef::from(socket).shutdown(how),
        };
        if let Err(error) = result {
            tracing::trace!(%error, "shutdown of a connection that is gone");
        }
    }
}

/// Binds the listening socket. Without `SO_REUSEPORT`, under which a second process would silently share
/// the port; with `SO_REUSEADDR`, so that a restart need not wait for old connections to time out.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<tokio::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket.into())
}
