//! One established connection: a reader task, a writer task, and the queue between them and the user.
//!
//! The reader never drops a pending read, and stops reading while its frames wait undrained. The writer
//! takes what is queued and writes it in large pieces. Closing at once means: shut both directions down,
//! which completes whatever is in flight; the tasks end, and the descriptor is closed with the last of
//! them. Closing after a flush lets the writer finish, ends the sending direction, and reads on for a
//! while, so that the kernel does not answer unread bytes with a reset that destroys the last frame.

use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Instant;

use bytes::Bytes;
use drave_batch::wire::{
    ErrorCode, ErrorReply, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, Message, Role,
};
use tokio::sync::{Notify, SemaphorePermit};

use crate::event::{CloseReason, ConnId, Flush, NetEvent, SendError};
use crate::frame::FrameReader;
use crate::outgoing::Outgoing;
use crate::shared::{ASSEMBLY_UNIT_BYTES, Gate, Queued, Receipt, Shared, count};
use crate::stream::{Stream, WRITE_PIECES_MAX};

/// Bytes of one write at most, give or take one piece: so that progress is seen, and memory given back,
/// in steps.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// What an event costs beside its frame's bytes, so that tiny frames are bounded too.
const EVENT_COST: usize = size_of::<Queued>();

/// A frame above this is only taken from a client when there is memory for all of it.
const UNRESERVED_FRAME_BYTES_MAX: usize = 64 << 10;

/// How far a connection is in its life. Only ever moves down this list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
enum Phase {
    Open,
    /// No new frames either way; what is queued is written.
    Flushing,
    /// Everything was written and the sending direction is ended; the other side is waited for.
    Lingering,
    /// Both directions are shut down.
    Closing,
}

pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) remote: SocketAddr,
    pub(crate) gate: Rc<Gate>,
    shared: Weak<Shared>,
    stream: Stream,
    phase: Cell<Phase>,
    /// The first reason to close; later ones are consequences.
    reason: RefCell<Option<CloseReason>>,
    outgoing: RefCell<Outgoing>,
    /// Bytes of a payload that the other side takes.
    payload_bytes_max: u32,
    /// The queue was above its low mark, and `Writable` is owed.
    writable_owed: Cell<bool>,
    writer_wake: Notify,
    writer_ended: Notify,
    /// Told when the connection is at its end, for those who do not keep it alive.
    ended: Rc<Notify>,
    /// Bytes that the kernel has taken.
    written_bytes: Cell<u64>,
    /// When bytes last went in either direction.
    active_at: Cell<Instant>,
    /// When the first bytes of the frame being received came.
    frame_began_at: Cell<Option<Instant>>,
    /// The reader waits for memory, so that a slow frame is not the sender's doing.
    reserving: Cell<bool>,
}

impl Conn {
    pub(crate) fn new(
        shared: &Rc<Shared>,
        id: ConnId,
        stream: Stream,
        remote: SocketAddr,
        role: Role,
        payload_bytes_max: u32,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            remote,
            gate: Rc::new(Gate {
                is_client: role == Role::Client,
                ..Gate::default()
            }),
            shared: Rc::downgrade(shared),
            stream,
            phase: Cell::new(Phase::Open),
            reason: RefCell::new(None),
            outgoing: RefCell::new(Outgoing::new()),
            payload_bytes_max: payload_bytes_max.min(FRAME_PAYLOAD_BYTES_MAX),
            writable_owed: Cell::new(false),
            writer_wake: Notify::new(),
            writer_ended: Notify::new(),
            ended: Rc::new(Notify::new()),
            written_bytes: Cell::new(0),
            active_at: Cell::new(Instant::now()),
            frame_began_at: Cell::new(None),
            reserving: Cell::new(false),
        })
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.outgoing.borrow().queued_bytes()
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }

    /// Queues a frame, within the queue's limit.
    pub(crate) fn send<M: Message>(
        self: &Rc<Self>,
        shared: &Shared,
        group_id: u32,
        request_id: u64,
        message: &M,
        payload: &[Bytes],
    ) -> Result<(), SendError> {
        if self.phase.get() != Phase::Open {
            return Err(SendError::Closed(self.id));
        }
        let payload_bytes: usize = payload.iter().map(Bytes::len).sum();
        if payload_bytes > self.payload_bytes_max as usize {
            return Err(SendError::TooLarge {
                limit: self.payload_bytes_max.into(),
                found: payload_bytes as u64,
            });
        }
        let queued = self.queued_bytes();
        let limit = shared.config.send_queue_bytes_max;
        let found = queued + FRAME_HEADER_BYTES + payload_bytes;
        if queued > 0 && found > limit {
            if self.gate.is_client {
                let reason = CloseReason::Limit {
                    what: "bytes queued for a client that does not read",
                    limit: limit as u64,
                    found: found as u64,
                };
                self.close_for_cause(shared, Flush::Nothing, ErrorCode::Busy, reason);
            }
            return Err(SendError::QueueFull {
                conn: self.id,
                limit: limit as u64,
                found: found as u64,
            });
        }
        self.push(shared, group_id, request_id, message, payload);
        Ok(())
    }

    fn push<M: Message>(
        &self,
        shared: &Shared,
        group_id: u32,
        request_id: u64,
        message: &M,
        payload: &[Bytes],
    ) {
        let mut outgoing = self.outgoing.borrow_mut();
        let mut pool = shared.pool.borrow_mut();
        outgoing.push(&mut pool, group_id, request_id, message, payload);
        count(&shared.counters.frames_sent, 1);
        if outgoing.queued_bytes() > shared.config.send_queue_bytes_low {
            self.writable_owed.set(true);
        }
        self.writer_wake.notify_one();
    }

    /// Begins to close. The first reason stays; a close at once overtakes one that flushes.
    pub(crate) fn close(self: &Rc<Self>, flush: Flush, reason: CloseReason) {
        self.reason.borrow_mut().get_or_insert(reason);
        match flush {
            Flush::Nothing => self.shut(),
            Flush::Queued if self.phase.get() == Phase::Open => {
                self.phase.set(Phase::Flushing);
                self.close_in_time();
            }
            Flush::Queued => {}
        }
        self.writer_wake.notify_one();
        self.gate.wake.notify_one();
    }

    /// Tells the other side why, then closes.
    pub(crate) fn close_with(
        self: &Rc<Self>,
        shared: &Shared,
        code: ErrorCode,
        message: &str,
        reason: CloseReason,
    ) {
        if self.phase.get() == Phase::Open {
            let reply = ErrorReply {
                code: code as u32,
                message: crate::handshake::brief(message).to_owned(),
                ..ErrorReply::default()
            };
            self.push(shared, 0, 0, &reply, &[]);
        }
        self.close(Flush::Queued, reason);
    }

    fn shut(&self) {
        if self.phase.get() < Phase::Closing {
            self.phase.set(Phase::Closing);
            self.stream.shutdown(Shutdown::Both);
        }
    }

    /// Sees to it that a flush or a linger ends. A task of its own, since reader and writer may both
    /// be waiting for the other side.
    fn close_in_time(self: &Rc<Self>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let timeout = shared.config.close_timeout;
        let conn = Rc::downgrade(self);
        let ended = Rc::clone(&self.ended);
        shared.spawn(async move {
            tokio::select! {
                () = ended.notified() => return,
                () = tokio::time::sleep(timeout) => {}
            }
            if let Some(conn) = conn.upgrade() {
                conn.close(Flush::Nothing, CloseReason::Local);
            }
        });
    }

    /// Closes a client's connection that is silent, or slow with a frame, for too long.
    pub(crate) fn sweep(self: &Rc<Self>, shared: &Shared, now: Instant) {
        if !self.gate.is_client || self.phase.get() != Phase::Open {
            return;
        }
        let too_long = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        let frame_timeout = shared.config.frame_timeout;
        let held_by_us = self.reserving.get() || !shared.may_deliver(&self.gate);
        let (what, limit) = if self
            .frame_began_at
            .get()
            .is_some_and(|began| !held_by_us && too_long(began, frame_timeout))
        {
            ("a frame was incomplete", frame_timeout)
        } else if let Some(idle) = shared.config.idle_timeout
            && too_long(self.active_at.get(), idle)
        {
            ("no byte in either direction", idle)
        } else {
            return;
        };
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let reason = CloseReason::Timeout { what, limit_ms };
        self.close_for_cause(shared, Flush::Queued, ErrorCode::Busy, reason);
    }

    /// Closes for what the other side did or did not do, with a line in the log.
    fn close_for_cause(
        self: &Rc<Self>,
        shared: &Shared,
        flush: Flush,
        code: ErrorCode,
        reason: CloseReason,
    ) {
        count(&shared.counters.closed_for_cause, 1);
        shared.log_refusal(self.remote, code, &reason);
        self.close(flush, reason);
    }
}

/// Runs a connection from after its handshake to its end, and reports that end.
pub(crate) async fn run(
    shared: Rc<Shared>,
    conn: Rc<Conn>,
    mut reader: FrameReader,
    receipt: Receipt,
) {
    shared.conns.borrow_mut().insert(conn.id, Rc::clone(&conn));
    if shared.stopping.get() {
        conn.close(Flush::Queued, CloseReason::Local);
    }
    shared.spawn(write_loop(Rc::clone(&shared), Rc::clone(&conn)));
    let end = read_loop(&shared, &conn, &mut reader).await;
    drop(reader);
    finish(&shared, &conn, end).await;
    shared.conns.borrow_mut().remove(&conn.id);
    let reason = conn.reason.take().expect("a connection ends for a reason");
    tracing::debug!(remote = %conn.remote, "{} closed: {reason}", conn.id);
    let closed = NetEvent::Closed {
        conn: conn.id,
        reason,
    };
    conn.ended.notify_one();
    // The descriptor is closed before the event tells so.
    drop(conn);
    shared.emit(Queued::with_receipt(closed, receipt));
}

/// Takes a connection from the end of its reading to the end of its writing.
async fn finish(shared: &Rc<Shared>, conn: &Rc<Conn>, end: CloseReason) {
    if let CloseReason::Malformed(error) = &end
        && conn.phase.get() == Phase::Open
    {
        shared.log_refusal(conn.remote, error.code(), error);
        count(&shared.counters.closed_for_cause, 1);
        conn.close_with(shared, error.code(), &error.to_string(), end.clone());
        discard_rest(conn).await;
    }
    match conn.phase.get() {
        // The other side may have ended only its own direction: what is queued is still written,
        // unless the close timeout shuts the stream.
        Phase::Flushing | Phase::Lingering => {
            conn.writer_ended.notified().await;
            conn.shut();
        }
        Phase::Open | Phase::Closing => {
            conn.close(Flush::Nothing, end);
            conn.writer_ended.notified().await;
        }
    }
}

/// Reads on without interest until the other side is done or the close timeout shuts the stream.
async fn discard_rest(conn: &Conn) {
    let mut buffer = bytes::BytesMut::with_capacity(UNRESERVED_FRAME_BYTES_MAX);
    loop {
        buffer.clear();
        let (result, back) = conn.stream.read(buffer).await;
        buffer = back;
        if matches!(result, Ok(0) | Err(_)) {
            return;
        }
    }
}

/// Reads frames until the connection ends, and says why it did.
async fn read_loop(shared: &Rc<Shared>, conn: &Rc<Conn>, reader: &mut FrameReader) -> CloseReason {
    let mut reserved: Option<SemaphorePermit<'_>> = None;
    loop {
        match deliver(shared, conn, reader) {
            Ok(true) => reserved = None,
            Ok(false) => {}
            Err(error) => return error,
        }
        if conn.phase.get() != Phase::Open {
            discard_rest(conn).await;
            return CloseReason::ByPeer;
        }
        if !shared.may_deliver(&conn.gate) {
            tokio::select! {
                () = conn.gate.wake.notified() => {}
                () = shared.clients_wake.notified(), if conn.gate.is_client => {}
            }
            continue;
        }
        if reserved.is_none() {
            match reserve(shared, conn, reader).await {
                Ok(permit) => reserved = permit,
                Err(Interrupted) => continue,
            }
        }
        let buffer = reader.take_buffer();
        let (used, room) = (buffer.len(), buffer.capacity() - buffer.len());
        let (result, buffer) = conn.stream.read(buffer).await;
        reader.restore_buffer(buffer);
        match result {
            Ok(0) => {
                return match reader.finish() {
                    Ok(()) => CloseReason::ByPeer,
                    Err(cut) => CloseReason::Malformed(cut),
                };
            }
            Ok(read) => {
                reader.note_read(read, room);
                count(&shared.counters.bytes_received, read);
                let now = Instant::now();
                conn.active_at.set(now);
                if used == 0 {
                    conn.frame_began_at.set(Some(now));
                }
            }
            Err(error) => return error.into(),
        }
    }
}

/// Hands complete frames to the inbox as long as they may be delivered. Whether there was any.
fn deliver(
    shared: &Rc<Shared>,
    conn: &Rc<Conn>,
    reader: &mut FrameReader,
) -> Result<bool, CloseReason> {
    let mut delivered = false;
    while conn.phase.get() == Phase::Open && shared.may_deliver(&conn.gate) {
        let Some(frame) = reader.next_frame()? else {
            break;
        };
        delivered = true;
        count(&shared.counters.frames_received, 1);
        shared.emit(Queued {
            cost: frame.wire_bytes() + EVENT_COST,
            gate: Some(Rc::clone(&conn.gate)),
            receipt: Receipt::None,
            event: NetEvent::Frame {
                conn: conn.id,
                frame,
            },
        });
    }
    if delivered {
        let began = (reader.pending_bytes() > 0).then(Instant::now);
        conn.frame_began_at.set(began);
    }
    Ok(delivered)
}

/// A wait that ended because the connection's state changed.
struct Interrupted;

/// Reserves memory for a client's large frame, all of it before any of it, so that connections cannot
/// starve each other half-way. Peers are few and known: they need none.
async fn reserve<'shared>(
    shared: &'shared Shared,
    conn: &Conn,
    reader: &FrameReader,
) -> Result<Option<SemaphorePermit<'shared>>, Interrupted> {
    let frame_bytes = reader.expected_bytes();
    if !conn.gate.is_client || frame_bytes <= UNRESERVED_FRAME_BYTES_MAX {
        return Ok(None);
    }
    let units = u32::try_from(frame_bytes.div_ceil(ASSEMBLY_UNIT_BYTES))
        .expect("a frame is far below 4 TiB");
    conn.reserving.set(true);
    let reserved = tokio::select! {
        biased;
        permit = shared.assembly.acquire_many(units) => {
            Ok(Some(permit.expect("the semaphore is never closed")))
        }
        () = conn.gate.wake.notified() => Err(Interrupted),
    };
    conn.reserving.set(false);
    if reserved.is_ok() {
        conn.frame_began_at.set(Some(Instant::now()));
    }
    reserved
}

/// Writes what is queued until the connection ends.
async fn write_loop(shared: Rc<Shared>, conn: Rc<Conn>) {
    let mut pieces: Vec<Bytes> = Vec::new();
    loop {
        conn.outgoing
            .borrow_mut()
            .take(&mut pieces, WRITE_PIECES_MAX, WRITE_BYTES_MAX);
        if pieces.is_empty() {
            match conn.phase.get() {
                Phase::Open => conn.writer_wake.notified().await,
                Phase::Flushing => {
                    conn.phase.set(Phase::Lingering);
                    conn.stream.shutdown(Shutdown::Write);
                }
                Phase::Lingering | Phase::Closing => break,
            }
            continue;
        }
        while !pieces.is_empty() && conn.phase.get() < Phase::Closing {
            let (result, back) = conn.stream.write(pieces).await;
            pieces = back;
            match result {
                Ok(written) if written > 0 => {
                    note_written(&shared, &conn, &mut pieces, written);
                }
                Ok(_) => conn.close(
                    Flush::Nothing,
                    std::io::Error::from(std::io::ErrorKind::WriteZero).into(),
                ),
                Err(error) => conn.close(Flush::Nothing, error.into()),
            }
        }
        if conn.phase.get() == Phase::Closing {
            break;
        }
    }
    conn.writer_ended.notify_one();
}

fn note_written(shared: &Shared, conn: &Conn, pieces: &mut Vec<Bytes>, written: usize) {
    let mut outgoing = conn.outgoing.borrow_mut();
    outgoing.written(&mut shared.pool.borrow_mut(), pieces, written);
    count(&shared.counters.bytes_sent, written);
    conn.written_bytes
        .set(conn.written_bytes.get() + written as u64);
    conn.active_at.set(Instant::now());
    let is_low = outgoing.queued_bytes() <= shared.config.send_queue_bytes_low;
    if is_low && conn.writable_owed.replace(false) && conn.phase.get() == Phase::Open {
        shared.emit(Queued::plain(NetEvent::Writable { conn: conn.id }));
    }
}
