//! Batches of what many callers append one by one: each record waits at most the linger time for company.
//!
//! Without a linger time there is no timer: a batch is what arrived while there was no room for the one before
//! it. The batches go out through a [`Producer`], which decides order, retries and outcomes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use drave_batch::{BATCH_RECORDS_MAX, body_bytes};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::{ClientError, Producer, Ticket};

/// How records are put together.
#[derive(Clone, Copy, Debug)]
pub struct BatcherOptions {
    /// How long the first record of a batch waits for others. Zero takes only what is there.
    pub linger: Duration,
    /// Records of one batch at most, up to the format's limit.
    pub batch_records_max: u32,
    /// Bytes of one batch's body at most. A larger record goes alone.
    pub batch_bytes_max: u32,
    /// Records that wait at most before [`Batcher::append`] waits itself.
    pub queue_records_max: usize,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            batch_records_max: 1_000,
            batch_bytes_max: 256 << 10,
            queue_records_max: 4_096,
        }
    }
}

impl BatcherOptions {
    fn records_max(&self) -> usize {
        self.batch_records_max.clamp(1, BATCH_RECORDS_MAX) as usize
    }
}

struct Waiting {
    record: Bytes,
    reply: oneshot::Sender<Result<u64, ClientError>>,
}

/// Where records go, and the token that they carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) log_id: u64,
    pub(crate) fence: u64,
}

/// Appends single records in batches to one log. From [`Log::batcher`](crate::Log::batcher).
///
/// Clones feed the same batches. Records of one caller that awaits each call of [`submit`](Self::submit) are in
/// the log in that order. When the last clone is dropped, what was submitted is still carried to its end, as
/// long as the runtime lives.
#[derive(Clone, Debug)]
pub struct Batcher {
    records: mpsc::Sender<Waiting>,
}

impl Batcher {
    pub(crate) fn spawn(target: Target, producer: Producer, options: BatcherOptions) -> Self {
        let (records, receiver) = mpsc::channel(options.queue_records_max.max(1));
        tokio::spawn(run(target, producer, options, receiver));
        Self { records }
    }

    /// Appends one record and waits until it is on stable storage on a majority; gives its seq.
    ///
    /// Dropping the future after the record was taken does not recall it.
    ///
    /// # Errors
    /// As [`Log::append`](crate::Log::append). All records of one batch share their outcome.
    pub async fn append(&self, record: impl Into<Bytes>) -> Result<u64, ClientError> {
        self.submit(record).await?.await
    }

    /// Takes one record, waiting only for room. Cancel-safe: either it is taken, and then there is a ticket for
    /// its seq, or not at all.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the runtime that drives the client has ended.
    pub async fn submit(&self, record: impl Into<Bytes>) -> Result<RecordTicket, ClientError> {
        let room = self.records.reserve().await;
        let (reply, outcome) = oneshot::channel();
        let record = record.into();
        room.map_err(|_| ClientError::Closed)?
            .send(Waiting { record, reply });
        Ok(RecordTicket { outcome })
    }
}

/// The outcome of one record, to be awaited: its seq. Dropping it does not recall the record.
#[must_use = "the outcome is known only to whoever awaits the ticket"]
#[derive(Debug)]
pub struct RecordTicket {
    outcome: oneshot::Receiver<Result<u64, ClientError>>,
}

impl Future for RecordTicket {
    type Output = Result<u64, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(ClientError::Closed)))
    }
}

/// A batch that grows.
struct Growing {
    waiting: Vec<Waiting>,
    payload_bytes: usize,
}

impl Growing {
    fn starting_with(first: Waiting) -> Self {
        Self {
            payload_bytes: first.record.len(),
            waiting: vec![first],
        }
    }

    /// Gives the record back if the batch has no room for it.
    fn push(&mut self, next: Waiting, options: &BatcherOptions) -> Option<Waiting> {
        let records = self.waiting.len() + 1;
        let payload_bytes = self.payload_bytes + next.record.len();
        if records > options.records_max()
            || body_bytes(records, payload_bytes) > options.batch_bytes_max as usize
        {
            return Some(next);
        }
        self.payload_bytes = payload_bytes;
        self.waiting.push(next);
        None
    }
}

async fn run(
    target: Target,
    producer: Producer,
    options: BatcherOptions,
    mut records: mpsc::Receiver<Waiting>,
) {
    let mut next = records.recv().await;
    while let Some(first) = next.take() {
        let mut batch = Growing::starting_with(first);
        let until = Instant::now() + options.linger;
        let mut left_over = loop {
            if batch.waiting.len() == options.records_max() {
                break None;
            }
            let arrived = match records.try_recv() {
                Ok(record) => Some(record),
                Err(_) if options.linger.is_zero() => None,
                Err(_) => timeout_at(until, records.recv()).await.ok().flatten(),
            };
            let Some(record) = arrived else { break None };
            if let Some(record) = batch.push(record, &options) {
                break Some(record);
            }
        };
        submit(target, &producer, batch.waiting).await;
        next = match left_over.take() {
            Some(record) => Some(record),
            None => records.recv().await,
        };
    }
}

/// Hands a batch to the producer, and waits for room in its window only.
async fn submit(target: Target, producer: &Producer, waiting: Vec<Waiting>) {
    let payloads = waiting.iter().map(|waiting| waiting.record.clone());
    match producer
        .submit_fenced(target.log_id, target.fence, payloads)
        .await
    {
        // One record over the limit is no reason to refuse the others.
        Err(ClientError::TooLarge { .. }) if waiting.len() > 1 => {
            for alone in waiting {
                let records = [alone.record.clone()];
                let submitted = producer
                    .submit_fenced(target.log_id, target.fence, records)
                    .await;
                tokio::spawn(settle(submitted, vec![alone]));
            }
        }
        // In a task of its own: the next batch does not wait for this one's outcome. The producer's window
        // bounds their number.
        submitted => drop(tokio::spawn(settle(submitted, waiting))),
    }
}

/// Gives each record of a batch its outcome. A caller that is gone does not want it.
async fn settle(submitted: Result<Ticket, ClientError>, waiting: Vec<Waiting>) {
    let outcome = match submitted {
        Ok(ticket) => ticket.await,
        Err(error) => Err(error),
    };
    for (position, waiting) in waiting.into_iter().enumerate() {
        let seq = outcome.clone().map(|ack| ack.first_seq + position as u64);
        let _ = waiting.reply.send(seq);
    }
}
