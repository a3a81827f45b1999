//! The accept loop: takes connections for the life of a [`crate::Net`], whatever happens.
//!
//! It never ends for an error and never spins. When the process is out of file descriptors, a spare one
//! is given up for a moment to accept a connection and refuse it in words, instead of leaving callers
//! hanging in the kernel's queue.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use drave_batch::wire::ErrorCode;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backoff::Backoff;
use crate::greet;
use crate::handshake::{Reject, frame_bytes};
use crate::shared::{Shared, count};
use crate::slots::Admission;
use crate::stream::Stream;

/// How long a connection in handshake gets to make room for a new one.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Refused connections that may wait for the other side to take note, at the same time.
const GOODBYES_MAX: usize = 64;
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// Connections refused with the spare descriptor before the loop pauses again.
const REFUSALS_PER_ROUND_MAX: usize = 64;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A descriptor kept for the moment when there are no others.
struct SpareFd(Option<File>);

impl SpareFd {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn refill(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }
}

pub(crate) async fn accept_loop(shared: Rc<Shared>, listener: TcpListener) {
    let mut spare = SpareFd::new();
    let seed = shared.config.identity.node_id;
    let mut pause = Backoff::with_bounds(PAUSE_MIN, PAUSE_MAX, seed);
    let goodbyes = Arc::new(Semaphore::new(GOODBYES_MAX));
    while !shared.stopping.get() {
        let accepted = tokio::select! {
            biased;
            () = shared.stop_accept.notified() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => {
                pause.reset();
                spare.refill();
                admit(&shared, &goodbyes, socket, remote).await;
            }
            Err(error) => {
                count(&shared.counters.accept_errors, 1);
                if let Some(suppressed) = shared.log.admit(std::time::Instant::now()) {
                    tracing::warn!(%error, suppressed, "cannot accept a connection");
                }
                if is_out_of_descriptors(&error) && spare.0.take().is_some() {
                    refuse_waiting(&shared, &listener).await;
                }
                spare.refill();
                tokio::select! {
                    () = shared.stop_accept.notified() => return,
                    () = sleep(pause.next_delay()) => {}
                }
            }
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Accepts waiting connections with the one descriptor just given up, one after the other, and refuses
/// them.
async fn refuse_waiting(shared: &Shared, listener: &TcpListener) {
    let message = "this node is out of file descriptors";
    let reject = Reject::new(ErrorCode::ConnectionLimit, message);
    for _ in 0..REFUSALS_PER_ROUND_MAX {
        let accepted = poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await;
        // Anything else: nobody waits any more, or another thread took the descriptor.
        let Poll::Ready(Ok((socket, remote))) = accepted else {
            return;
        };
        refuse(shared, &socket, remote, &reject);
    }
}

async fn admit(
    shared: &Rc<Shared>,
    goodbyes: &Arc<Semaphore>,
    socket: TcpStream,
    remote: SocketAddr,
) {
    let mut admission = shared.slots.admit(remote.ip());
    let patience = Instant::now() + EVICTION_TIMEOUT;
    while let Admission::Evicting = admission {
        admission = match timeout_at(patience, shared.slots.changed.notified()).await {
            Ok(()) => shared.slots.admit(remote.ip()),
            Err(_) => Admission::Refused(shared.slots.full()),
        };
    }
    match admission {
        Admission::Granted(slot) => match Stream::new(shared.engine, socket) {
            Ok(stream) => shared.spawn(greet::serve(Rc::clone(shared), stream, remote, slot)),
            Err(error) => tracing::debug!(%remote, %error, "an accepted connection is gone"),
        },
        Admission::Refused(reject) => {
            refuse(shared, &socket, remote, &reject);
            if let Ok(permit) = Arc::clone(goodbyes).try_acquire_owned() {
                shared.spawn(async move {
                    let _permit = permit;
                    let _ = timeout(GOODBYE_TIMEOUT, read_to_end(&socket)).await;
                });
            }
        }
        Admission::Evicting => unreachable!("waited for above"),
    }
}

/// Says why, as far as the socket takes it at once, and ends the sending direction.
fn refuse(shared: &Shared, socket: &TcpStream, remote: SocketAddr, reject: &Reject) {
    count(&shared.counters.refused, 1);
    shared.log_refusal(remote, reject.code, &reject.message);
    let _ = SockRef::from(socket).send(&frame_bytes(&reject.to_wire()));
    let _ = SockRef::from(socket).shutdown(Shutdown::Write);
}

/// Reads on without interest, so that unread bytes do not turn the close into a reset that destroys
/// the refusal on its way. Plain tokio: this may be dropped at any time.
async fn read_to_end(socket: &TcpStream) {
    let mut buffer = BytesMut::with_capacity(1 << 10);
    while socket.readable().await.is_ok() {
        buffer.clear();
        match socket.try_read_buf(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
}
