//! One tail's frames on their way from the connection's task to the reader, within its byte credit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use drave_batch::wire::TailData;
use tokio::sync::Notify;

use super::{Connection, LinkError, Refusal};

/// What arrives for a tail.
#[derive(Clone, Debug)]
pub(crate) enum TailFrame {
    /// Batches, or none as a sign of life.
    Data { data: TailData, payload: Bytes },
    /// The node ended the tail. The last frame.
    Refused(Refusal),
    /// The connection ended. The last frame.
    Lost(LinkError),
}

struct Queued {
    frames: VecDeque<TailFrame>,
    /// Payload bytes that the node may still send. Invariant: this, what is queued, and what the reader
    /// has not yet given back add up to the credit of the start. Below 0 by no more than one frame: a
    /// batch larger than what is left of the credit is sent whole, or it could never be.
    credit_left: i64,
    ended: bool,
}

/// Bounded by the credit given: a frame with payload uses it up, and frames without one are merged.
pub(super) struct TailQueue {
    queued: Mutex<Queued>,
    arrived: Notify,
}

/// A node sent payload without any credit left.
#[derive(Debug)]
pub(super) struct CreditOverrun {
    pub(super) payload_bytes: u64,
}

impl TailQueue {
    pub(super) fn new(credit_bytes: u32) -> Self {
        Self {
            queued: Mutex::new(Queued {
                frames: VecDeque::new(),
                credit_left: credit_bytes.into(),
                ended: false,
            }),
            arrived: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued
            .lock()
            .expect("no code panics while it holds this lock")
    }

    pub(super) fn push(&self, data: TailData, payload: Bytes) -> Result<(), CreditOverrun> {
        {
            let mut queued = self.lock();
            if !payload.is_empty() && queued.credit_left <= 0 {
                return Err(CreditOverrun {
                    payload_bytes: payload.len() as u64,
                });
            }
            queued.credit_left -= payload.len() as i64;
            // Of several signs of life in a row only the last one says anything.
            if payload.is_empty()
                && let Some(TailFrame::Data { payload, .. }) = queued.frames.back()
                && payload.is_empty()
            {
                queued.frames.pop_back();
            }
            queued.frames.push_back(TailFrame::Data { data, payload });
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Queues the last frame.
    pub(super) fn end(&self, last: TailFrame) {
        {
            let mut queued = self.lock();
            if !queued.ended {
                queued.ended = true;
                queued.frames.push_back(last);
            }
        }
        self.arrived.notify_one();
    }
}

/// A running tail on one connection. Stops it when dropped.
pub(crate) struct Subscription {
    connection: Connection,
    request_id: u64,
    queue: Arc<TailQueue>,
}

impl Subscription {
    pub(super) fn new(connection: Connection, request_id: u64, queue: Arc<TailQueue>) -> Self {
        Self {
            connection,
            request_id,
            queue,
        }
    }

    /// The node that serves it.
    pub(crate) fn address(&self) -> &str {
        self.connection.address()
    }

    /// The next frame; waits for ever after the last one. Cancel-safe.
    pub(crate) async fn next(&self) -> TailFrame {
        loop {
            if let Some(frame) = self.queue.lock().frames.pop_front() {
                return frame;
            }
            self.queue.arrived.notified().await;
        }
    }

    /// Gives credit for consumed bytes back to the node.
    pub(crate) fn grant(&self, credit_bytes: u32) {
        {
            let mut queued = self.queue.lock();
            if queued.ended {
                return;
            }
            queued.credit_left += i64::from(credit_bytes);
        }
        self.connection.tail_credit(self.request_id, credit_bytes);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.tail_stop(self.request_id);
    }
}
