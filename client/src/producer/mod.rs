//! Producers: pipelined appends, each of them once in its log, in order.
//!
//! A producer numbers its batches. Nodes keep the numbers with the log, so a batch that is sent again
//! because its answer was lost is recognised on every replica. `window.rs` decides, without I/O, what to
//! send and what an outcome is; `driver.rs` is the task around it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use drave_batch::wire::{EXPECT_SEQ_NONE, FENCE_NONE};
use drave_batch::{BODY_BYTES_MAX, BatchHeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::cluster::Cluster;
use crate::{Ack, ClientError};

mod driver;
mod encode;
mod window;

use encode::Encoded;
pub(crate) use encode::{EncodeLimits, Encoder};

/// How a producer works.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// A name for people, shown by nodes; may be empty. At most 255 bytes are sent.
    pub name: String,
    /// Batches submitted and not settled at most, from 1 to 65,536.
    pub in_flight_max: u32,
    /// Their bytes at most. A single larger batch still passes, alone.
    pub in_flight_bytes_max: u32,
    /// Bytes of one batch's body at most; no more than the format's 2 MiB.
    pub batch_bytes_max: u32,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            in_flight_max: 256,
            in_flight_bytes_max: 16 << 20,
            batch_bytes_max: BODY_BYTES_MAX,
        }
    }
}

impl ProducerOptions {
    /// Every field within its documented range.
    fn clamped(mut self) -> Self {
        let mut len = self.name.len().min(255);
        while !self.name.is_char_boundary(len) {
            len -= 1;
        }
        self.name.truncate(len);
        self.in_flight_max = self.in_flight_max.clamp(1, 65_536);
        self.in_flight_bytes_max = self.in_flight_bytes_max.max(1);
        self.batch_bytes_max = self.batch_bytes_max.min(BODY_BYTES_MAX);
        self
    }
}

/// What must hold of the log for a batch to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Its next seq, or [`EXPECT_SEQ_NONE`].
    pub(crate) expect_seq: u64,
    /// Its fencing token, or [`FENCE_NONE`].
    pub(crate) fence: u64,
}

impl Conditions {
    /// The log was never fenced.
    pub(crate) const NONE: Self = Self {
        expect_seq: EXPECT_SEQ_NONE,
        fence: FENCE_NONE,
    };
}

/// A batch on its way to the driver and through the window.
struct Batch {
    log_id: u64,
    conditions: Conditions,
    /// Log, shape and checksum of the body; the rest is filled in at each sending.
    header: BatchHeader,
    body: Bytes,
    deadline: Instant,
    reply: oneshot::Sender<Result<Ack, ClientError>>,
    /// Room in the window, free again when the batch is settled.
    _room: [OwnedSemaphorePermit; 2],
}

struct Shared {
    cluster: Arc<Cluster>,
    options: ProducerOptions,
    /// Room in batches and in bytes.
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// To the driver, which starts with the first batch.
    submissions: OnceLock<mpsc::Sender<Batch>>,
    /// The first failure that no flush has reported yet.
    failure: Arc<Mutex<Option<ClientError>>>,
    /// None while one is at work with it.
    encoder: Mutex<Option<Encoder>>,
}

/// Appends batches in order, many at a time, each exactly once. From
/// [`Client::producer`](crate::Client::producer).
///
/// Clones share the order and the window. When the last clone is dropped, what was submitted is still
/// carried to its end, as long as the runtime lives.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

impl Producer {
    pub(crate) fn new(cluster: Arc<Cluster>, options: ProducerOptions) -> Self {
        let options = options.clamped();
        Self {
            shared: Arc::new(Shared {
                cluster,
                slots: Arc::new(Semaphore::new(options.in_flight_max as usize)),
                bytes: Arc::new(Semaphore::new(options.in_flight_bytes_max as usize)),
                options,
                submissions: OnceLock::new(),
                failure: Arc::default(),
                encoder: Mutex::default(),
            }),
        }
    }

    /// Submits one batch of records to the log of this number, and waits only for room in the window.
    /// Cancel-safe: a batch is either submitted, and then there is a ticket, or not at all.
    ///
    /// The batch has the client's request timeout from here on, all retries included. Dropping the
    /// ticket does not recall it.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`], [`ClientError::Argument`] for an empty batch,
    /// [`ClientError::Closed`]; nothing was sent then.
    pub async fn submit<R: AsRef<[u8]>>(
        &self,
        log_id: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ticket, ClientError> {
        self.submit_fenced(log_id, FENCE_NONE, records).await
    }

    /// Submits one batch as [`submit`](Self::submit) does; it is appended only while the log's fencing token is
    /// `token`, from [`Log::fence`](crate::Log::fence).
    ///
    /// # Errors
    /// As [`submit`](Self::submit); the ticket's is [`ClientError::Refused`] with `Fenced` when the log has another
    /// token: nothing was written then, and the batches behind it are refused likewise if they carry the same.
    pub async fn submit_fenced<R: AsRef<[u8]>>(
        &self,
        log_id: u64,
        token: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ticket, ClientError> {
        let encoded = self.encode(records)?;
        let room = self.room(encoded.body.len()).await?;
        let deadline = Instant::now() + self.shared.cluster.settings.request_timeout;
        let conditions = Conditions {
            fence: token,
            ..Conditions::NONE
        };
        self.push(log_id, conditions, encoded, deadline, room)
    }

    /// Submits and waits for the outcome, all within the deadline.
    pub(crate) async fn append<R: AsRef<[u8]>>(
        &self,
        log_id: u64,
        conditions: Conditions,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ack, ClientError> {
        let deadline = Instant::now() + self.shared.cluster.settings.request_timeout;
        let encoded = self.encode(records)?;
        let room = match timeout_at(deadline, self.room(encoded.body.len())).await {
            Ok(room) => room?,
            Err(_) => {
                return Err(ClientError::Unavailable {
                    code: None,
                    cause: "earlier appends of this client filled the window".to_owned(),
                    attempts: 0,
                    leader: None,
                });
            }
        };
        self.push(log_id, conditions, encoded, deadline, room)?
            .await
    }

    /// Waits until everything submitted before is settled.
    ///
    /// # Errors
    /// The first failure since the last flush, also of batches whose tickets were dropped.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let all = self.shared.options.in_flight_max;
        let settled = self.shared.slots.acquire_many(all).await;
        drop(settled.map_err(|_| ClientError::Closed)?);
        let failure = self.shared.failure.lock();
        match failure.expect("held for an assignment only").take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn encode<R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Encoded, ClientError> {
        let limits = EncodeLimits {
            record_bytes_max: self.shared.cluster.record_bytes_max(),
            batch_bytes_max: self.shared.options.batch_bytes_max,
        };
        let slot = &self.shared.encoder;
        // Taken out, not held: the records are the caller's own code, which may panic or take its time.
        let taken = slot.lock().expect("held for an assignment only").take();
        let mut encoder = taken.unwrap_or_default();
        let encoded = limits.encode(&mut encoder, records);
        *slot.lock().expect("held for an assignment only") = Some(encoder);
        encoded
    }

    /// Waits for room in the window. Both semaphores are fair, so that whoever comes first goes first.
    async fn room(&self, body_bytes: usize) -> Result<[OwnedSemaphorePermit; 2], ClientError> {
        let bytes_max = self.shared.options.in_flight_bytes_max;
        let bytes = u32::try_from(body_bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, bytes_max);
        let closed = |_| ClientError::Closed;
        let slots = Arc::clone(&self.shared.slots);
        let slot = slots.acquire_owned().await.map_err(closed)?;
        let semaphore = Arc::clone(&self.shared.bytes);
        let bytes = semaphore.acquire_many_owned(bytes).await.map_err(closed)?;
        Ok([slot, bytes])
    }

    fn push(
        &self,
        log_id: u64,
        conditions: Conditions,
        encoded: Encoded,
        deadline: Instant,
        room: [OwnedSemaphorePermit; 2],
    ) -> Result<Ticket, ClientError> {
        let (reply, outcome) = oneshot::channel();
        let Encoded { mut header, body } = encoded;
        header.log_id = log_id;
        let batch = Batch {
            log_id,
            conditions,
            header,
            body,
            deadline,
            reply,
            _room: room,
        };
        // There is a slot for each place in the channel: it is full only if the driver is gone.
        match self.submissions().try_send(batch) {
            Ok(()) => Ok(Ticket { outcome }),
            Err(_) => Err(ClientError::Closed),
        }
    }

    fn submissions(&self) -> &mpsc::Sender<Batch> {
        self.shared.submissions.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(self.shared.options.in_flight_max as usize);
            driver::spawn(
                Arc::clone(&self.shared.cluster),
                self.shared.options.clone(),
                receiver,
                Arc::clone(&self.shared.failure),
            );
            sender
        })
    }
}

/// The outcome of a submitted batch, to be awaited. Dropping it does not recall the batch.
#[must_use = "the outcome is known only to whoever awaits the ticket, or the producer's flush"]
#[derive(Debug)]
pub struct Ticket {
    outcome: oneshot::Receiver<Result<Ack, ClientError>>,
}

impl Future for Ticket {
    type Output = Result<Ack, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(ClientError::Closed)))
    }
}
