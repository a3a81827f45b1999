//! The user's side: bind, dial, send, drain events, close.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drave_batch::wire::{ErrorCode, Message};

use crate::accept::accept_loop;
use crate::config::{NetConfig, PeerPolicy};
use crate::dial::{DialOrder, dial_loop};
use crate::event::{CloseReason, ConnId, Dial, DialId, Flush, NetEvent, NetStats, SendError};
use crate::runtime::current_engine;
use crate::shared::Shared;
use crate::stream;

/// Connections that the kernel completes before they are accepted.
const LISTEN_BACKLOG: i32 = 1024;

const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(10);
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Listens, dials, and moves frames; all inside one [`crate::Runtime`].
///
/// Nothing here blocks; all but dropping it must happen inside of that runtime. `&self` throughout: the
/// user's loop waits with [`Net::wait`], takes events with [`Net::drain`], and answers with
/// [`Net::send`]. Dropping it closes everything at once;
/// [`Net::shutdown`] flushes first.
pub struct Net {
    shared: Rc<Shared>,
    local_addr: SocketAddr,
}

impl Net {
    /// Listens on `config.listen`; `policy` judges the peers that come in.
    ///
    /// # Errors
    /// The address in use or not ours; a configuration that cannot work (`InvalidInput`); no
    /// [`crate::Runtime`] around the caller (`Unsupported`).
    pub fn bind(config: NetConfig, policy: impl PeerPolicy + 'static) -> io::Result<Self> {
        config.check()?;
        let Some(engine) = current_engine() else {
            let message = "Net::bind works only inside of drave_net::Runtime::block_on";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        };
        let listener = stream::listen(config.listen, LISTEN_BACKLOG)?;
        let local_addr = listener.local_addr()?;
        let shared = Shared::new(config, engine, Box::new(policy));
        shared.spawn(accept_loop(Rc::clone(&shared), listener));
        shared.spawn(sweep_loop(Rc::clone(&shared)));
        Ok(Self { shared, local_addr })
    }

    /// The address that it listens on, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connects to a peer and stays connected, with backoff between attempts, until
    /// [`undial`](Self::undial).
    pub fn dial(&self, dial: Dial) -> DialId {
        let id = DialId(self.shared.next_id());
        let order = DialOrder::new(id, dial);
        self.shared.dials.borrow_mut().insert(id, Rc::clone(&order));
        self.shared.spawn(dial_loop(Rc::clone(&self.shared), order));
        id
    }

    /// Ends a dial. Its connection, if one stands, is closed after a flush, with a `Closed` event.
    pub fn undial(&self, id: DialId) {
        let order = self.shared.dials.borrow().get(&id).cloned();
        if let Some(order) = order {
            order.end(&self.shared);
        }
    }

    /// Resolves when events wait. Cancel-safe; for one waiter at a time.
    ///
    /// # Panics
    /// If a task of this crate panicked: a broken invariant does not pass in silence.
    pub async fn wait(&self) {
        self.shared.filled().await;
    }

    /// Moves up to `max` waiting events to the end of `out`, oldest first. Draining is what lets
    /// connections be read on, and their slots be taken again.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn drain(&self, out: &mut Vec<NetEvent>, max: usize) {
        self.shared.drain(out, max);
    }

    /// Since when events wait to be [drained](Self::drain): when the first of them came, or when an earlier one
    /// did that was drained without taking all.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.shared.waiting_since()
    }

    /// Queues one frame. It leaves with whatever else is queued when this turn of the executor ends.
    /// Payload pieces of 8 KiB and more are not copied, and are held until written.
    ///
    /// # Errors
    /// [`SendError`]; the frame was then not queued.
    pub fn send<M: Message>(
        &self,
        conn: ConnId,
        group_id: u32,
        request_id: u64,
        message: &M,
        payload: &[Bytes],
    ) -> Result<(), SendError> {
        let connection = self.shared.conn(conn).ok_or(SendError::Closed(conn))?;
        connection.send(&self.shared, group_id, request_id, message, payload)
    }

    /// Bytes queued for a connection and not yet with the kernel; 0 for one that is closed.
    #[must_use]
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.shared.conn(conn).map_or(0, |conn| conn.queued_bytes())
    }

    /// Bytes of a connection that the kernel has taken since the handshake: a count that stands still
    /// belongs to a peer that does not read. 0 for a connection that is closed.
    #[must_use]
    pub fn written_bytes(&self, conn: ConnId) -> u64 {
        self.shared
            .conn(conn)
            .map_or(0, |conn| conn.written_bytes())
    }

    /// Stops and restarts the reading of a connection. Frames already in the inbox still come.
    pub fn pause_reading(&self, conn: ConnId, paused: bool) {
        if let Some(conn) = self.shared.conn(conn) {
            conn.gate.paused.set(paused);
            conn.gate.wake.notify_one();
        }
    }

    /// Closes a connection. Its `Closed` event follows; frames of it that wait are dropped.
    pub fn close(&self, conn: ConnId, flush: Flush) {
        if let Some(conn) = self.shared.conn(conn) {
            conn.gate.closed_locally.set(true);
            conn.close(flush, CloseReason::Local);
        }
    }

    /// Tells the other side why with an `ErrorReply` under request id 0, then closes as
    /// [`close`](Self::close) after a flush.
    pub fn close_with(&self, conn: ConnId, code: ErrorCode, message: &str) {
        if let Some(conn) = self.shared.conn(conn) {
            conn.gate.closed_locally.set(true);
            conn.close_with(&self.shared, code, message, CloseReason::Local);
        }
    }

    /// Stops accepting and dialing, flushes and closes every connection, and waits for that, no longer
    /// than about `close_timeout`. Events that wait can still be drained afterwards.
    pub async fn shutdown(&self) {
        self.stop();
        for conn in self.connections() {
            conn.close(Flush::Queued, CloseReason::Local);
        }
        self.shared.tasks_ended().await;
    }

    /// What stands now, and what was counted since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        let counters = &self.shared.counters;
        let (accepted_now, clients_now) = self.shared.slots.counts();
        NetStats {
            accepted_now,
            clients_now,
            dialed_now: counters.dialed_now.get(),
            accepted: counters.accepted.get(),
            refused: counters.refused.get(),
            accept_errors: counters.accept_errors.get(),
            frames_received: counters.frames_received.get(),
            frames_sent: counters.frames_sent.get(),
            bytes_received: counters.bytes_received.get(),
            bytes_sent: counters.bytes_sent.get(),
            closed_for_cause: counters.closed_for_cause.get(),
        }
    }

    fn stop(&self) {
        self.shared.stopping.set(true);
        // One permit each for the accept loop and the sweeper, whether they wait now or later.
        self.shared.stop_accept.notify_one();
        self.shared.stop_sweep.notify_one();
        self.shared.slots.evict_all();
        let orders: Vec<_> = self.shared.dials.borrow().values().cloned().collect();
        for order in orders {
            order.end(&self.shared);
        }
    }

    fn connections(&self) -> Vec<Rc<crate::connection::Conn>> {
        self.shared.conns.borrow().values().cloned().collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // First, so that nothing below begins a flush: this may run after the runtime's end.
        for conn in self.connections() {
            conn.close(Flush::Nothing, CloseReason::Local);
        }
        self.stop();
    }
}

/// Looks at every connection now and then for those that are silent or slow for too long.
async fn sweep_loop(shared: Rc<Shared>) {
    let shortest = shared
        .config
        .idle_timeout
        .map_or(shared.config.frame_timeout, |idle| {
            idle.min(shared.config.frame_timeout)
        });
    let interval = (shortest / 4).clamp(SWEEP_INTERVAL_MIN, SWEEP_INTERVAL_MAX);
    while !shared.stopping.get() {
        tokio::select! {
            () = shared.stop_sweep.notified() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let now = Instant::now();
        let conns: Vec<_> = shared.conns.borrow().values().cloned().collect();
        for conn in conns {
            conn.sweep(&shared, now);
        }
    }
}
