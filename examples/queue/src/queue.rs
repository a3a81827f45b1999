//! A queue: made, opened, sent to, looked at.

use drave_client::{Batcher, BatcherOptions, Client, ClientError, ErrorCode, Log, ReadLimits};

use crate::consumer::Consumer;
use crate::error::QueueError;
use crate::event::Event;
use crate::fields::{Fields, VERSION};
use crate::message::Message;

/// How a queue is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueOptions {
    /// A message that was given out so often without being finished is put aside.
    pub attempts_max: u32,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { attempts_max: 5 }
    }
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Messages sent so far.
    pub sent: u64,
    /// Messages that nobody has asked for yet.
    pub new: u64,
    /// Messages that somebody holds.
    pub held: u64,
    /// Messages that were asked for, are not finished, and are held by nobody.
    pub waiting: u64,
    /// Messages that were put aside.
    pub dead: u64,
}

/// A message that was put aside.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its seq when it was sent.
    pub message: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// When it was put aside, microseconds since 1970.
    pub time_us: u64,
    /// Its key.
    pub key: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A queue. Clones share the connections, and the batches in which messages are sent.
#[derive(Clone)]
pub struct Queue {
    pub(crate) client: Client,
    pub(crate) messages: Log,
    pub(crate) consumers: Log,
    pub(crate) dead: Log,
    sender: Batcher,
}

impl Queue {
    /// Makes the queue, or opens it as it is when it exists.
    ///
    /// # Errors
    /// [`QueueError::Client`]
    pub async fn create(
        client: &Client,
        name: &str,
        options: QueueOptions,
    ) -> Result<Self, QueueError> {
        for part in ["messages", "consumers", "dead"] {
            client.create_log(&format!("{name}.{part}"), true).await?;
        }
        let queue = Self::open(client, name).await?;
        let configure = Event::Configure {
            attempts_max: options.attempts_max,
        };
        match queue.consumers.append_if(0, [configure.encode()]).await {
            Err(error) if error.code() != Some(ErrorCode::ExpectSeq) => Err(error.into()),
            _ => Ok(queue),
        }
    }

    /// Opens a queue that exists.
    ///
    /// # Errors
    /// [`QueueError::Client`], with `LogNotFound` when there is none.
    pub async fn open(client: &Client, name: &str) -> Result<Self, QueueError> {
        let messages = client.log(&format!("{name}.messages")).await?;
        Ok(Self {
            sender: messages.batcher(BatcherOptions::default()),
            consumers: client.log(&format!("{name}.consumers")).await?,
            dead: client.log(&format!("{name}.dead")).await?,
            client: client.clone(),
            messages,
        })
    }

    /// Sends a message and gives its seq. It is then on stable storage on a majority of the nodes, once, however often
    /// the client had to try. Messages that are sent at the same time share a flush.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`]; [`QueueError::Client`], which says whether it may have been sent.
    pub async fn send(&self, message: &Message) -> Result<u64, QueueError> {
        Ok(self.sender.append(message.encode()?).await?)
    }

    /// Somebody who receives messages.
    ///
    /// # Errors
    /// [`QueueError`] when what consumers asked for so far cannot be read.
    pub async fn consumer(&self) -> Result<Consumer, QueueError> {
        Consumer::start(self.clone()).await
    }

    /// How the queue stands now.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn status(&self) -> Result<QueueStatus, QueueError> {
        let mut consumer = self.consumer().await?;
        let now_us = consumer.tell_time().await?;
        let state = consumer.state();
        let sent = self.messages.check_tail().await?.next_seq;
        let held = state.held(now_us) as u64;
        Ok(QueueStatus {
            sent,
            new: sent - state.next().min(sent),
            held,
            waiting: state.unfinished() as u64 - held,
            dead: state.buried(),
        })
    }

    /// Messages that were put aside, from the `first` one of them on, as many as one read gives.
    ///
    /// # Errors
    /// [`QueueError`]
    pub async fn dead_letters(&self, first: u64) -> Result<Vec<DeadLetter>, QueueError> {
        let chunk = self.dead.read(first, ReadLimits::default()).await?;
        let letters = chunk.records.iter().map(|record| {
            let letter = decode_dead(&record.payload, record.append_time_us);
            letter.map_err(|wrong| format_error(&self.dead, record.seq, wrong))
        });
        letters.collect()
    }
}

pub(crate) fn format_error(log: &Log, seq: u64, wrong: crate::error::Wrong) -> QueueError {
    QueueError::Format {
        log: log.name().to_owned(),
        seq,
        wrong,
    }
}

/// A record of `NAME.dead`: u8 version, u64 message, u32 attempts, then the message as it was sent.
pub(crate) fn encode_dead(message: u64, attempts: u32, sent: &[u8]) -> Vec<u8> {
    let mut record = vec![VERSION];
    record.extend_from_slice(&message.to_le_bytes());
    record.extend_from_slice(&attempts.to_le_bytes());
    record.extend_from_slice(sent);
    record
}

fn decode_dead(record: &[u8], time_us: u64) -> Result<DeadLetter, crate::error::Wrong> {
    let mut fields = Fields(record);
    fields.version()?;
    let message = fields.u64("message that was put aside")?;
    let attempts = fields.u32("attempts of a message")?;
    // One that no queue sent was given out to nobody, and is kept as it was.
    let (key, body) = Message::decode(fields.0).unwrap_or((None, fields.0));
    Ok(DeadLetter {
        message,
        attempts,
        time_us,
        key: key.map(str::to_owned),
        body: body.to_vec(),
    })
}

/// Whether an append lost a race, so that nothing was written.
pub(crate) fn lost_race(error: &ClientError) -> bool {
    error.code() == Some(ErrorCode::ExpectSeq)
}
