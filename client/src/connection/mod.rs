//! One connection to one node: many requests in flight, told apart by their request ids.
//!
//! A handle only encodes, counts and queues; the connection's one task (`task.rs`) reads, writes and
//! keeps watch. Bounds: requests that are not answered are within the node's credit in bytes, a tail's
//! undelivered payload is within the credit given for it, so neither queue can grow without limit. It
//! never retries: whoever asked decides what a lost answer means.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use drave_batch::wire::{
    Append, FRAME_HEADER_BYTES, HelloAck, Message, TailCredit, TailStart, TailStop,
};
use drave_net::frame::Frame;
use drave_net::outgoing::{BufferPool, Outgoing};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};

mod dial;
mod error;
mod subscription;
mod task;

pub(crate) use dial::{DialOptions, dial};
pub(crate) use error::{LinkError, Refusal, cut_text};
use subscription::TailQueue;
pub(crate) use subscription::{Subscription, TailFrame};

/// The group that clients of this version talk to.
pub(crate) const GROUP_ID: u32 = 0;

/// Head bytes that a request is counted with; heads are small, and the exact number is not needed to
/// keep a bound.
const HEAD_BYTES_COUNTED: usize = 128;

/// Buffers kept for reuse per connection.
const BUFFERS_MAX: usize = 4;

/// The answer to one attempt of an append.
#[derive(Debug)]
pub(crate) struct AttemptReply {
    pub(crate) attempt: u64,
    pub(crate) answer: Result<Frame, LinkError>,
}

/// Who waits for the answer to a request.
enum Waiter {
    /// One answer, then done.
    Once(oneshot::Sender<Result<Frame, LinkError>>),
    /// One answer, told apart by its attempt number. Invariant: the channel has room for every attempt
    /// that its owner has outstanding, so that sending into it never waits.
    Attempt {
        attempt: u64,
        replies: mpsc::Sender<AttemptReply>,
    },
    /// Any number of answers, bounded by the credit given.
    Tail(Arc<TailQueue>),
    /// A sign of life asked for by the connection itself.
    Ping,
}

struct Pending {
    waiter: Waiter,
    /// Credit to give back with the answer.
    credit: u32,
    since: Instant,
}

struct State {
    /// Set once; nothing is queued and nobody waits from then on.
    closed: Option<LinkError>,
    pending: HashMap<u64, Pending>,
    next_request_id: u64,
    outgoing: Outgoing,
    pool: BufferPool,
}

struct Shared {
    address: String,
    ack: HelloAck,
    state: Mutex<State>,
    /// Something was queued, or the last handle is gone.
    wake: Notify,
    credit: Semaphore,
    credit_bytes: u32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Ends the connection: everyone who waits is told, and nobody can begin to.
    fn close(&self, error: LinkError) {
        let pending = {
            let mut state = self.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(error.clone());
            state.outgoing.clear();
            std::mem::take(&mut state.pending)
        };
        self.credit.close();
        self.wake.notify_one();
        for waiting in pending.into_values() {
            waiting.waiter.fail(&error);
        }
    }
}

impl Waiter {
    fn fail(self, error: &LinkError) {
        match self {
            // A receiver that is gone no longer wants to know.
            Self::Once(sender) => drop(sender.send(Err(error.clone()))),
            Self::Attempt { attempt, replies } => {
                let answer = Err(error.clone());
                drop(replies.try_send(AttemptReply { attempt, answer }));
            }
            Self::Tail(queue) => queue.end(TailFrame::Lost(error.clone())),
            Self::Ping => {}
        }
    }
}

/// Closes the connection when the last handle is dropped.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        let address = self.0.address.clone();
        self.0.close(LinkError::Closed { address });
    }
}

/// A handle to a connection. Cheap to clone; the connection closes with the last one.
#[derive(Clone)]
pub(crate) struct Connection {
    guard: Arc<Guard>,
}

/// Credit for one request, given back when dropped unused.
pub(crate) struct Reservation<'a> {
    permit: SemaphorePermit<'a>,
}

/// Why there is no credit now.
#[derive(Debug)]
pub(crate) enum ReserveError {
    /// The node has as much unanswered as it takes: wait.
    Full,
    /// More than the node ever takes at once.
    TooLarge { limit: u64, found: u64 },
    /// The connection is gone.
    Closed(LinkError),
}

impl Connection {
    fn new(address: String, ack: HelloAck) -> Self {
        let shared = Shared {
            address,
            credit: Semaphore::new(ack.credit_bytes as usize),
            credit_bytes: ack.credit_bytes,
            ack,
            state: Mutex::new(State {
                closed: None,
                pending: HashMap::new(),
                next_request_id: 1,
                outgoing: Outgoing::new(),
                pool: BufferPool::new(BUFFERS_MAX),
            }),
            wake: Notify::new(),
        };
        Self {
            guard: Arc::new(Guard(Arc::new(shared))),
        }
    }

    fn shared(&self) -> &Shared {
        &self.guard.0
    }

    /// HOST:PORT that was dialled.
    pub(crate) fn address(&self) -> &str {
        &self.shared().address
    }

    /// What the node said of itself.
    pub(crate) fn ack(&self) -> &HelloAck {
        &self.shared().ack
    }

    /// Why it ended, if it did.
    pub(crate) fn closed(&self) -> Option<LinkError> {
        self.shared().lock().closed.clone()
    }

    fn request_bytes(payload_bytes: usize) -> usize {
        FRAME_HEADER_BYTES + HEAD_BYTES_COUNTED + payload_bytes
    }

    fn checked_bytes(&self, payload_bytes: usize) -> Result<u32, ReserveError> {
        let limits = [
            (self.shared().ack.payload_bytes_max as usize, payload_bytes),
            (
                self.shared().credit_bytes as usize,
                Self::request_bytes(payload_bytes),
            ),
        ];
        for (limit, found) in limits {
            if found > limit {
                return Err(ReserveError::TooLarge {
                    limit: limit as u64,
                    found: found as u64,
                });
            }
        }
        Ok(u32::try_from(Self::request_bytes(payload_bytes)).expect("checked against a u32"))
    }

    fn closed_error(&self) -> ReserveError {
        let address = self.shared().address.clone();
        ReserveError::Closed(self.closed().unwrap_or(LinkError::Closed { address }))
    }

    /// Credit for a request with a payload of this many bytes, if there is some now.
    pub(crate) fn try_reserve(
        &self,
        payload_bytes: usize,
    ) -> Result<Reservation<'_>, ReserveError> {
        let bytes = self.checked_bytes(payload_bytes)?;
        match self.shared().credit.try_acquire_many(bytes) {
            Ok(permit) => Ok(Reservation { permit }),
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(ReserveError::Full),
            Err(tokio::sync::TryAcquireError::Closed) => Err(self.closed_error()),
        }
    }

    /// Waits for credit. Cancel-safe.
    pub(crate) async fn reserve(
        &self,
        payload_bytes: usize,
    ) -> Result<Reservation<'_>, ReserveError> {
        let bytes = self.checked_bytes(payload_bytes)?;
        match self.shared().credit.acquire_many(bytes).await {
            Ok(permit) => Ok(Reservation { permit }),
            Err(_) => Err(self.closed_error()),
        }
    }

    /// Queues a request and enters its waiter. Never waits.
    fn enqueue<M: Message>(
        &self,
        reservation: Option<Reservation<'_>>,
        message: &M,
        payload: &[Bytes],
        waiter: Waiter,
    ) -> Result<u64, LinkError> {
        let credit = reservation.as_ref().map_or(0, |r| r.permit.num_permits());
        let request_id = {
            let mut state = self.shared().lock();
            if let Some(error) = &state.closed {
                return Err(error.clone());
            }
            let request_id = state.next_request_id;
            state.next_request_id += 1;
            state.pending.insert(
                request_id,
                Pending {
                    waiter,
                    credit: u32::try_from(credit).expect("acquired as a u32"),
                    since: Instant::now(),
                },
            );
            push(&mut state, request_id, message, payload);
            request_id
        };
        if let Some(reservation) = reservation {
            // The answer gives it back.
            reservation.permit.forget();
        }
        self.shared().wake.notify_one();
        Ok(request_id)
    }

    /// Sends a request; the receiver gets its one answer, or why there is none. An error means that it
    /// was not sent. Dropping the receiver does not recall the request.
    pub(crate) fn send<M: Message>(
        &self,
        reservation: Reservation<'_>,
        message: &M,
        payload: &[Bytes],
    ) -> Result<oneshot::Receiver<Result<Frame, LinkError>>, LinkError> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(Some(reservation), message, payload, Waiter::Once(sender))?;
        Ok(receiver)
    }

    /// Sends one attempt of an append. Exactly one [`AttemptReply`] follows, unless this is an error:
    /// then it was not sent.
    pub(crate) fn send_attempt(
        &self,
        reservation: Reservation<'_>,
        append: &Append,
        body: Bytes,
        attempt: u64,
        replies: mpsc::Sender<AttemptReply>,
    ) -> Result<(), LinkError> {
        let waiter = Waiter::Attempt { attempt, replies };
        self.enqueue(Some(reservation), append, &[body], waiter)?;
        Ok(())
    }

    /// Begins a tail. Needs no credit of the node's: its frames are few and small.
    pub(crate) fn subscribe(&self, start: &TailStart) -> Result<Subscription, LinkError> {
        let queue = Arc::new(TailQueue::new(start.credit_bytes));
        let waiter = Waiter::Tail(Arc::clone(&queue));
        let request_id = self.enqueue(None, start, &[], waiter)?;
        Ok(Subscription::new(self.clone(), request_id, queue))
    }

    fn tail_credit(&self, request_id: u64, credit_bytes: u32) {
        let mut state = self.shared().lock();
        if state.closed.is_none() && state.pending.contains_key(&request_id) {
            push(&mut state, request_id, &TailCredit { credit_bytes }, &[]);
            drop(state);
            self.shared().wake.notify_one();
        }
    }

    fn tail_stop(&self, request_id: u64) {
        let mut state = self.shared().lock();
        // Without an entry the node has ended it, or the connection is gone: nothing to stop.
        if state.pending.remove(&request_id).is_some() {
            push(&mut state, request_id, &TailStop {}, &[]);
            drop(state);
            self.shared().wake.notify_one();
        }
    }
}

fn push<M: Message>(state: &mut State, request_id: u64, message: &M, payload: &[Bytes]) {
    let State { outgoing, pool, .. } = state;
    outgoing.push(pool, GROUP_ID, request_id, message, payload);
}
