//! The handshake over a real stream, in time and within 4 KiB, on both sides.
//!
//! Reads here can be ended early by a deadline or from outside; they are never dropped, the stream is
//! shut down under them.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use drave_batch::wire::{ErrorCode, FRAME_PAYLOAD_BYTES_MAX, HelloAck};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Frame;
use crate::connection::{self, Conn};
use crate::event::{ConnId, NetEvent};
use crate::frame::{FrameError, FrameReader, HANDSHAKE_FRAME_BYTES_MAX};
use crate::handshake::{Connector, HandshakeError, Reject, frame_bytes};
use crate::shared::{Queued, Receipt, Shared, count};
use crate::slots::Slot;
use crate::stream::Stream;

/// How a wait for the other side's first frame ended without one.
enum NoFrame {
    Deadline,
    Interrupted,
    Closed,
    Io(io::Error),
    Malformed(FrameError),
}

/// Waits for one whole frame. After `Deadline` or `Interrupted`, `parting` was sent and the stream is
/// shut down.
async fn first_frame(
    stream: &Stream,
    reader: &mut FrameReader,
    deadline: Instant,
    interrupt: &Notify,
    parting: impl Fn(&NoFrame) -> Option<Reject>,
) -> Result<Frame, NoFrame> {
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(NoFrame::Malformed(error)),
        }
        let mut read = pin!(stream.read(reader.take_buffer()));
        let cut_short = tokio::select! {
            biased;
            (result, buffer) = &mut read => {
                reader.restore_buffer(buffer);
                match result {
                    Ok(0) => return Err(NoFrame::Closed),
                    Ok(_) => continue,
                    Err(error) => return Err(NoFrame::Io(error)),
                }
            }
            () = sleep_until(deadline) => NoFrame::Deadline,
            () = interrupt.notified() => NoFrame::Interrupted,
        };
        if let Some(reject) = parting(&cut_short) {
            // Nothing was sent before, so these few bytes fit the socket's buffer.
            let _ = stream.write_all(frame_bytes(&reject.to_wire())).await;
        }
        stream.shutdown(Shutdown::Both);
        let (_, buffer) = read.await;
        reader.restore_buffer(buffer);
        return Err(cut_short);
    }
}

/// Greets an accepted connection, and runs it when it may come in.
pub(crate) async fn serve(shared: Rc<Shared>, stream: Stream, remote: SocketAddr, slot: Slot) {
    let deadline = Instant::now() + shared.config.handshake_timeout;
    let mut reader = FrameReader::for_handshake();
    let parting = |no_frame: &NoFrame| match no_frame {
        NoFrame::Interrupted if shared.stopping.get() => Some(stopping()),
        NoFrame::Interrupted => Some(shared.slots.full()),
        _ => {
            let limit_ms = shared.config.handshake_timeout.as_millis();
            let message = format!("no complete Hello within {limit_ms} ms");
            Some(Reject::new(ErrorCode::HandshakeTimeout, message))
        }
    };
    let frame = first_frame(&stream, &mut reader, deadline, slot.evict(), &parting).await;
    let frame = match frame {
        Ok(frame) => frame,
        Err(no_frame) => {
            let reject = match &no_frame {
                NoFrame::Malformed(error) => {
                    let reject = Reject::new(error.code(), error.to_string());
                    say_goodbye(&shared, &stream, &reject, deadline, slot.evict()).await;
                    reject
                }
                NoFrame::Closed => match reader.finish() {
                    // Probes of the port, by load balancers for one, are no news.
                    Ok(()) => return,
                    Err(cut) => Reject::new(cut.code(), cut.to_string()),
                },
                NoFrame::Io(error) => Reject::new(ErrorCode::MalformedFrame, error.to_string()),
                no_frame => parting(no_frame).expect("there is one for each of the rest"),
            };
            count(&shared.counters.refused, 1);
            shared.log_refusal(remote, reject.code, &reject.message);
            return;
        }
    };
    let judged = shared
        .acceptor
        .on_frame(&frame, |hello| shared.policy.judge(hello))
        .and_then(|(ack, hello)| {
            if shared.stopping.get() {
                return Err(stopping());
            }
            slot.establish(hello.role)?;
            Ok((ack, hello))
        });
    let (ack, hello) = match judged {
        Ok(accepted) => accepted,
        Err(reject) => {
            say_goodbye(&shared, &stream, &reject, deadline, slot.evict()).await;
            count(&shared.counters.refused, 1);
            shared.log_refusal(remote, reject.code, &reject.message);
            return;
        }
    };
    drop(frame);
    if stream.write_all(frame_bytes(&ack)).await.is_err() {
        count(&shared.counters.refused, 1);
        return;
    }
    reader.establish(shared.config.limits.payload_bytes_max);
    let id = ConnId(shared.next_id());
    let role = hello.role;
    let conn = Conn::new(&shared, id, stream, remote, role, FRAME_PAYLOAD_BYTES_MAX);
    count(&shared.counters.accepted, 1);
    shared.emit(Queued::plain(NetEvent::Accepted {
        conn: id,
        hello,
        remote,
    }));
    connection::run(shared, conn, reader, Receipt::Slot(slot)).await;
}

fn stopping() -> Reject {
    Reject::new(ErrorCode::Stopping, "this node is stopping")
}

/// Refuses, ends the sending direction, and reads on until the other side is done or time is up: a
/// close with unread bytes would reset the connection and destroy the refusal on its way.
async fn say_goodbye(
    shared: &Shared,
    stream: &Stream,
    reject: &Reject,
    deadline: Instant,
    interrupt: &Notify,
) {
    let _ = stream.write_all(frame_bytes(&reject.to_wire())).await;
    stream.shutdown(Shutdown::Write);
    let deadline = deadline.min(Instant::now() + shared.config.close_timeout);
    let mut buffer = bytes::BytesMut::with_capacity(HANDSHAKE_FRAME_BYTES_MAX);
    loop {
        buffer.clear();
        let mut read = pin!(stream.read(buffer));
        let (result, back) = tokio::select! {
            biased;
            done = &mut read => done,
            () = sleep_until(deadline) => { stream.shutdown(Shutdown::Both); read.await }
            () = interrupt.notified() => { stream.shutdown(Shutdown::Both); read.await }
        };
        buffer = back;
        if matches!(result, Ok(0) | Err(_)) || Instant::now() >= deadline {
            return;
        }
    }
}

/// How the handshake of a dialed connection failed.
pub(crate) enum GreetError {
    Refused(HandshakeError),
    Failed(String),
}

/// Opens a dialed connection. After an error the stream is of no use.
pub(crate) async fn connect(
    shared: &Shared,
    stream: &Stream,
    connector: &Connector,
    interrupt: &Notify,
) -> Result<(FrameReader, HelloAck), GreetError> {
    let deadline = Instant::now() + shared.config.handshake_timeout;
    let mut reader = FrameReader::for_handshake();
    if let Err(error) = stream.write_all(connector.hello_bytes()).await {
        return Err(GreetError::Failed(error.to_string()));
    }
    let frame = first_frame(stream, &mut reader, deadline, interrupt, |_| None)
        .await
        .map_err(|no_frame| match no_frame {
            NoFrame::Deadline => GreetError::Failed("no answer in time".to_owned()),
            NoFrame::Interrupted => GreetError::Failed("the dial was ended".to_owned()),
            NoFrame::Closed => GreetError::Failed("closed without an answer".to_owned()),
            NoFrame::Io(error) => GreetError::Failed(error.to_string()),
            NoFrame::Malformed(error) => GreetError::Failed(error.to_string()),
        })?;
    let ack = connector.on_frame(&frame).map_err(GreetError::Refused)?;
    reader.establish(shared.config.limits.payload_bytes_max);
    Ok((reader, ack))
}
