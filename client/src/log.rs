//! One log: append, read, tail.

use drave_batch::wire::EXPECT_SEQ_NONE;

use crate::client::Client;
use crate::read::{Reader, Source, read};
use crate::tail::Tail;
use crate::{Ack, ClientError, LogInfo, ReadChunk, ReadLimits, TailFrom};

/// A log. From [`Client::log`]. Cheap to clone; clones and other logs share the client's connections.
#[derive(Clone)]
pub struct Log {
    client: Client,
    source: Source,
    name: String,
}

impl Log {
    pub(crate) fn new(client: Client, source: Source, name: String) -> Self {
        Self {
            client,
            source,
            name,
        }
    }

    /// The log's number, as [`Producer::submit`](crate::Producer::submit) takes it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.source.log_id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log as the leader knows it now: its first and next seq.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] without a leader.
    pub async fn info(&self) -> Result<LogInfo, ClientError> {
        self.client.look_up(&self.name).await
    }

    /// Appends one record, and waits until it is on stable storage on a majority. The record is in the
    /// log once, however often it had to be sent.
    ///
    /// Dropping the future does not recall a record that was submitted.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] when the outcome could not be settled in time;
    /// [`ClientError::Unavailable`], [`ClientError::TooLarge`] and others when nothing was written.
    pub async fn append(&self, record: impl AsRef<[u8]>) -> Result<Ack, ClientError> {
        self.append_batch([record]).await
    }

    /// Appends records together: all of them or none, one after the other.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_batch<R: AsRef<[u8]>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ack, ClientError> {
        let producer = self.client.shared_producer();
        producer.append(self.id(), EXPECT_SEQ_NONE, records).await
    }

    /// Appends records together, only if the first of them gets the seq `expect_seq`.
    ///
    /// Conditional appends of a client are in order among themselves; they have a producer of their own,
    /// so that a condition that fails does not hold up other appends.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`ClientError::Refused`] with `ExpectSeq`, whose `found` is the
    /// log's next seq. An argument error for `u64::MAX`.
    pub async fn append_if<R: AsRef<[u8]>>(
        &self,
        expect_seq: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Ack, ClientError> {
        if expect_seq == EXPECT_SEQ_NONE {
            return Err(ClientError::Argument {
                what: format!("seq {expect_seq} is beyond every log"),
            });
        }
        let producer = self.client.conditional_producer();
        producer.append(self.id(), expect_seq, records).await
    }

    /// Reads committed records from `from_seq` on, linearizably: everything that was acknowledged before
    /// the call is seen. Empty at the tail.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `Trimmed` (`expected` is the first seq held) or `BeyondTail`;
    /// [`ClientError::Unavailable`] without a leader; [`ClientError::Damaged`] and
    /// [`ClientError::Misbehaved`] when the answer does not pass its checks.
    pub async fn read(&self, from_seq: u64, limits: ReadLimits) -> Result<ReadChunk, ClientError> {
        read(&self.source, from_seq, limits).await
    }

    /// Reads chunk by chunk from `from_seq` up to the tail as of the first chunk.
    #[must_use]
    pub fn reader(&self, from_seq: u64) -> Reader {
        Reader::new(self.source.clone(), from_seq)
    }

    /// Follows the log: every record from there on as it is committed, from whichever replica serves it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `BeyondTail` for a seq that the log has not reached;
    /// [`ClientError::Unavailable`] without a leader.
    pub async fn tail(&self, from: TailFrom) -> Result<Tail, ClientError> {
        Tail::start(self.source.clone(), &self.name, from).await
    }
}
