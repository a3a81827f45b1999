//! One log: append, read, tail.

use drave_batch::wire::{EXPECT_SEQ_NONE, ErrorCode, FENCE_NONE};
use drave_batch::{FENCE_NEXT, LogChange};

use crate::batcher::{self, Batcher, BatcherOptions};
use crate::catalogue;
use crate::client::Client;
use crate::producer::{Conditions, Producer};
use crate::read::{Reader, Source, read, read_held, seq_at};
use crate::tail::Tail;
use crate::{Ack, ClientError, LogDescription, LogInfo, LogTail, ReadChunk, ReadLimits, TailFrom};

/// A log. From [`Client::log`]. Cheap to clone; clones and other logs share the client's connections.
#[derive(Clone)]
pub struct Log {
    client: Client,
    source: Source,
    name: String,
    /// What its appends carry.
    fence: u64,
}

impl Log {
    pub(crate) fn new(client: Client, source: Source, name: String) -> Self {
        Self {
            client,
            source,
            name,
            fence: FENCE_NONE,
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

    /// The log in full, as the leader knows it now.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unavailable`] without a leader.
    pub async fn describe(&self) -> Result<LogDescription, ClientError> {
        self.client.describe_log(&self.name).await
    }

    /// Where the log ends, linearizably: every record that was acknowledged before the call is before it.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    pub async fn check_tail(&self) -> Result<LogTail, ClientError> {
        let log = self.describe().await?;
        Ok(LogTail {
            next_seq: log.next_seq,
            last_time_us: log.last_time_us,
        })
    }

    /// The seq of the first record that was appended at `time_us` (microseconds since 1970, by the clocks of
    /// leaders) or after it; the log's next seq when there is none. Append times never run backwards, so the
    /// records from there on are those of that time and later.
    ///
    /// It costs the node a look at the entries between two marks of the log's index, at most 512 of the group, and
    /// no more however long the log is.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn seq_at(&self, time_us: u64) -> Result<u64, ClientError> {
        seq_at(&self.source, time_us).await
    }

    /// Reads from the first record on that was appended at `time_us` or after it; see [`seq_at`](Self::seq_at).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_at(
        &self,
        time_us: u64,
        limits: ReadLimits,
    ) -> Result<ReadChunk, ClientError> {
        let from_seq = self.seq_at(time_us).await?;
        read_held(&self.source, from_seq, limits).await
    }

    /// Reads the last `count` records, or as many as are held: those before the log's end as of now, and what
    /// `limits` allows of them.
    ///
    /// It costs a look-up, and a read that begins there.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_last(
        &self,
        count: u64,
        limits: ReadLimits,
    ) -> Result<ReadChunk, ClientError> {
        let info = catalogue::lookup(&self.source.call(), &self.name).await?;
        let from_seq = info.next_seq.saturating_sub(count).max(info.first_seq);
        let mut chunk = read_held(&self.source, from_seq, limits).await?;
        chunk.records.retain(|record| record.seq < info.next_seq);
        Ok(chunk)
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
        let conditions = self.conditions(EXPECT_SEQ_NONE);
        let producer = self.producer(conditions);
        self.heard(producer.append(self.id(), conditions, records).await)
    }

    /// A log that is not there any more is looked up anew by who asks for it next.
    fn heard<T>(&self, answer: Result<T, ClientError>) -> Result<T, ClientError> {
        if let Err(error) = &answer
            && error.code() == Some(ErrorCode::LogNotFound)
        {
            self.client.forget_log(&self.name);
        }
        answer
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
        let conditions = self.conditions(expect_seq);
        let producer = self.producer(conditions);
        self.heard(producer.append(self.id(), conditions, records).await)
    }

    /// Takes the log over: from now on it takes only appends that carry a new token, which no other caller gets.
    /// Appends without it that are not in the log yet are refused with `Fenced`, whoever sends them and however late
    /// they arrive, and have written nothing. Gives the log with appends that carry the token.
    ///
    /// A log that was fenced stays so: who comes next fences it again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unknown`] when it may be fenced: fence it again.
    pub async fn fence(&self) -> Result<Self, ClientError> {
        self.fence_with(FENCE_NEXT).await
    }

    /// Takes the log over with a token that a lock service, say, has given to this caller alone. Asked again with the
    /// token in force, it changes nothing.
    ///
    /// # Errors
    /// As [`fence`](Self::fence), and [`ClientError::Refused`] with `Fenced` when the log has a higher token
    /// already, which is `expected`.
    pub async fn fence_at(&self, token: u64) -> Result<Self, ClientError> {
        if token == FENCE_NEXT {
            let what = "a fencing token is at least 1".to_owned();
            return Err(ClientError::Argument { what });
        }
        self.fence_with(token).await
    }

    async fn fence_with(&self, token: u64) -> Result<Self, ClientError> {
        let change = LogChange::Fence { token };
        let log = self
            .client
            .change_log(&self.name, self.id(), change)
            .await?;
        Ok(self.with_fence(log.fence))
    }

    /// The log with appends that carry this token, which was given to this caller before. 0 carries none.
    #[must_use]
    pub fn with_fence(&self, token: u64) -> Self {
        Self {
            fence: token,
            ..self.clone()
        }
    }

    /// The token that this handle's appends carry, 0 for none.
    #[must_use]
    pub fn fence_token(&self) -> u64 {
        self.fence
    }

    fn conditions(&self, expect_seq: u64) -> Conditions {
        Conditions {
            expect_seq,
            fence: self.fence,
        }
    }

    /// Appends that may be refused for what others do have a producer of their own, so that they do not hold up the
    /// rest.
    fn producer(&self, conditions: Conditions) -> &Producer {
        if conditions.expect_seq == EXPECT_SEQ_NONE && conditions.fence == FENCE_NONE {
            self.client.shared_producer()
        } else {
            self.client.conditional_producer()
        }
    }

    /// Puts the records of many callers together, each waiting at most the linger time. Must be called within a
    /// tokio runtime.
    #[must_use]
    pub fn batcher(&self, options: BatcherOptions) -> Batcher {
        let producer = self.producer(self.conditions(EXPECT_SEQ_NONE)).clone();
        let target = batcher::Target {
            log_id: self.id(),
            fence: self.fence,
        };
        Batcher::spawn(target, producer, options)
    }

    /// Reads committed records from `from_seq` on, linearizably: everything that was acknowledged before
    /// the call is seen. Empty at the tail.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `Trimmed` (`expected` is the first seq held) or `BeyondTail`;
    /// [`ClientError::Unavailable`] without a leader; [`ClientError::Damaged`] and
    /// [`ClientError::Misbehaved`] when the answer does not pass its checks.
    pub async fn read(&self, from_seq: u64, limits: ReadLimits) -> Result<ReadChunk, ClientError> {
        self.heard(read(&self.source, from_seq, limits).await)
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
