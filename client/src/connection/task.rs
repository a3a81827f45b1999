//! The one task of a connection: it reads, writes, and keeps watch until one of the three ends.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drave_batch::wire::{ErrorReply, MessageKind, Status, TailData};
use drave_net::frame::{Frame, FrameReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    AttemptReply, Connection, LinkError, Pending, Refusal, Shared, TailFrame, Waiter, push,
};

/// How often the watch looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Without a byte for this long while an answer is due, the node is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Without a byte for this long while an answer is due, the node counts as gone. A node that only has a
/// slow disk still answers the ping.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A node that answers pings but not this request has forgotten it; its credit would be lost for good.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Pieces and bytes of one vectored write.
const WRITE_PIECES_MAX: usize = 64;
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Runs the connection until it fails or its last handle is dropped.
pub(super) fn spawn(connection: &Connection, stream: TcpStream, reader: FrameReader) {
    let shared = Arc::clone(&connection.guard.0);
    tokio::spawn(run(shared, stream, reader));
}

async fn run(shared: Arc<Shared>, mut stream: TcpStream, reader: FrameReader) {
    let (read_half, write_half) = stream.split();
    let received = std::sync::Mutex::new(Instant::now());
    let error = tokio::select! {
        error = read(&shared, read_half, reader, &received) => error,
        error = write(&shared, write_half) => error,
        error = watch(&shared, &received) => error,
    };
    tracing::debug!(address = shared.address, %error, "connection ended");
    shared.close(error);
}

async fn read(
    shared: &Shared,
    mut stream: ReadHalf<'_>,
    mut reader: FrameReader,
    received: &std::sync::Mutex<Instant>,
) -> LinkError {
    let lost = |cause: String| LinkError::Lost {
        address: shared.address.clone(),
        cause,
    };
    loop {
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    if let Err(error) = dispatch(shared, frame) {
                        return error;
                    }
                }
                Ok(None) => break,
                Err(source) => {
                    return LinkError::Framing {
                        address: shared.address.clone(),
                        source,
                    };
                }
            }
        }
        let buffer = reader.spare();
        let room = buffer.capacity() - buffer.len();
        match stream.read_buf(buffer).await {
            Ok(0) => return lost("closed by the node".to_owned()),
            Ok(count) => reader.note_read(count, room),
            Err(error) => return lost(error.to_string()),
        }
        *received.lock().expect("held for an assignment only") = Instant::now();
    }
}

/// Hands a frame to whoever waits for it. An error ends the connection.
fn dispatch(shared: &Shared, frame: Frame) -> Result<(), LinkError> {
    let request_id = frame.header.request_id;
    if request_id == 0 {
        return Err(connection_error(shared, &frame));
    }
    let pending = {
        let mut state = shared.lock();
        if frame.header.kind == MessageKind::TailData
            && let Some(Pending {
                waiter: Waiter::Tail(queue),
                ..
            }) = state.pending.get(&request_id)
        {
            let queue = Arc::clone(queue);
            drop(state);
            return tail_data(shared, &queue, frame);
        }
        state.pending.remove(&request_id)
    };
    // Without an entry whoever asked no longer waits, as after a stopped tail.
    let Some(pending) = pending else {
        return Ok(());
    };
    shared.credit.add_permits(pending.credit as usize);
    match pending.waiter {
        Waiter::Once(sender) => drop(sender.send(Ok(frame))),
        Waiter::Attempt { attempt, replies } => {
            let answer = Ok(frame);
            drop(replies.try_send(AttemptReply { attempt, answer }));
        }
        Waiter::Tail(queue) => {
            let reply: ErrorReply = frame.decode().map_err(|source| damaged(shared, source))?;
            queue.end(TailFrame::Refused(Refusal::new(&shared.address, reply)));
        }
        Waiter::Ping => {}
    }
    Ok(())
}

fn tail_data(shared: &Shared, queue: &super::TailQueue, frame: Frame) -> Result<(), LinkError> {
    let data: TailData = frame.decode().map_err(|source| damaged(shared, source))?;
    queue
        .push(data, frame.payload)
        .map_err(|overrun| LinkError::Misbehaved {
            address: shared.address.clone(),
            what: "no payload for a tail without credit",
            expected: 0,
            found: overrun.payload_bytes,
        })
}

fn damaged(shared: &Shared, source: drave_batch::DecodeError) -> LinkError {
    LinkError::Damaged {
        address: shared.address.clone(),
        source,
    }
}

/// A frame that answers no request says why the node is about to close the connection.
fn connection_error(shared: &Shared, frame: &Frame) -> LinkError {
    if frame.header.kind != MessageKind::ErrorReply {
        return LinkError::Misbehaved {
            address: shared.address.clone(),
            what: "an answer to a request",
            expected: MessageKind::ErrorReply as u64,
            found: frame.header.kind as u64,
        };
    }
    match frame.decode::<ErrorReply>() {
        Ok(reply) => LinkError::Lost {
            address: shared.address.clone(),
            cause: Refusal::new(&shared.address, reply).message,
        },
        Err(source) => damaged(shared, source),
    }
}

async fn write(shared: &Shared, mut stream: WriteHalf<'_>) -> LinkError {
    let mut taken: Vec<Bytes> = Vec::with_capacity(WRITE_PIECES_MAX);
    loop {
        {
            let mut state = shared.lock();
            if let Some(error) = &state.closed {
                return error.clone();
            }
            state
                .outgoing
                .take(&mut taken, WRITE_PIECES_MAX, WRITE_BYTES_MAX);
        }
        if taken.is_empty() {
            shared.wake.notified().await;
            continue;
        }
        let slices: Vec<IoSlice<'_>> = taken.iter().map(|piece| IoSlice::new(piece)).collect();
        let written = stream.write_vectored(&slices).await;
        match written {
            Ok(0) => {
                return LinkError::Lost {
                    address: shared.address.clone(),
                    cause: "nothing can be written".to_owned(),
                };
            }
            Ok(count) => {
                let mut state = shared.lock();
                let super::State { outgoing, pool, .. } = &mut *state;
                outgoing.written(pool, &mut taken, count);
            }
            Err(error) => {
                return LinkError::Lost {
                    address: shared.address.clone(),
                    cause: error.to_string(),
                };
            }
        }
    }
}

/// Ends when the node owes an answer and is silent for too long.
async fn watch(shared: &Shared, received: &std::sync::Mutex<Instant>) -> LinkError {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pinged = false;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let received_at = *received.lock().expect("held for an assignment only");
        let mut state = shared.lock();
        let due_since = state.pending.values().map(|pending| pending.since).min();
        let Some(due_since) = due_since else {
            pinged = false;
            continue;
        };
        let silence = now.duration_since(received_at.max(due_since));
        if silence < PING_AFTER {
            pinged = false;
        } else if !pinged {
            pinged = true;
            let request_id = state.next_request_id;
            state.next_request_id += 1;
            state.pending.insert(
                request_id,
                Pending {
                    waiter: Waiter::Ping,
                    credit: 0,
                    since: now,
                },
            );
            push(&mut state, request_id, &Status {}, &[]);
            drop(state);
            shared.wake.notify_one();
            continue;
        }
        let oldest = state
            .pending
            .values()
            .filter(|pending| !matches!(pending.waiter, Waiter::Tail(_)))
            .map(|pending| now.duration_since(pending.since))
            .max();
        if silence >= SILENCE_MAX || oldest.is_some_and(|age| age >= ANSWER_MAX) {
            return LinkError::Silent {
                address: shared.address.clone(),
                silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            };
        }
    }
}
