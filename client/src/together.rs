//! Appends to several logs at once: one entry, all of them or none.
//!
//! A producer of its own numbers them, so that one that is sent again is not appended again. One is under way at a
//! time for each client; what comes meanwhile waits its turn.

use bytes::Bytes;
use drave_batch::wire::{
    AppendTogether, AppendedTogether, EXPECT_SEQ_NONE, ErrorCode, ProducerOpen, ProducerOpened,
    TogetherPart,
};
use drave_batch::{BATCH_HEADER_BYTES, BODY_BYTES_MAX, TOGETHER_LOGS_MAX};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use crate::call::{Answer, Call};
use crate::client::Client;
use crate::producer::{EncodeLimits, Encoder};
use crate::{Ack, ClientError, Log};

/// Batches for several logs, from [`Client::together`]: all of them are appended or none. At most 64 logs, and as
/// much in all as one batch holds, 2 MiB.
///
/// ```no_run
/// # async fn example(client: drave_client::Client) -> Result<(), drave_client::ClientError> {
/// let orders = client.log("orders").await?;
/// let stock = client.log("stock").await?;
/// let ack = client
///     .together()
///     .push(&orders, ["order 17: 2 of 5"])
///     .push_if(&stock, 41, ["5: -2"])
///     .append()
///     .await?;
/// println!("order at seq {}, stock at seq {}", ack.logs[0].first_seq, ack.logs[1].first_seq);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is appended before `append`"]
pub struct Together {
    client: Client,
    logs: Vec<Log>,
    request: AppendTogether,
    bodies: Vec<Bytes>,
    encoder: Encoder,
    /// The first batch that cannot be appended.
    failure: Option<ClientError>,
}

/// The acknowledgement of an append to several logs: all the records are on stable storage on a majority of the nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TogetherAck {
    /// Of each log, in the order in which they were pushed.
    pub logs: Vec<Ack>,
}

impl Together {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            logs: Vec::new(),
            request: AppendTogether::default(),
            bodies: Vec::new(),
            encoder: Encoder::default(),
            failure: None,
        }
    }

    /// Adds records of a log, under the fencing token of this handle. Each log can be added once. What is wrong with
    /// them is said by [`append`](Self::append).
    pub fn push<R: AsRef<[u8]>>(self, log: &Log, records: impl IntoIterator<Item = R>) -> Self {
        self.add(log, EXPECT_SEQ_NONE, records)
    }

    /// Adds records of a log as [`push`](Self::push) does; everything is appended only if the first of them gets the
    /// seq `expect_seq`.
    pub fn push_if<R: AsRef<[u8]>>(
        mut self,
        log: &Log,
        expect_seq: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Self {
        if expect_seq == EXPECT_SEQ_NONE {
            let what = format!("seq {expect_seq} is beyond every log");
            self.failure.get_or_insert(ClientError::Argument { what });
        }
        self.add(log, expect_seq, records)
    }

    fn add<R: AsRef<[u8]>>(
        mut self,
        log: &Log,
        expect_seq: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Self {
        let limits = EncodeLimits {
            record_bytes_max: self.client.cluster().record_bytes_max(),
            batch_bytes_max: BODY_BYTES_MAX - BATCH_HEADER_BYTES as u32,
        };
        match limits.encode(&mut self.encoder, records) {
            Ok(encoded) => {
                self.request.parts.push(TogetherPart {
                    log_id: log.id(),
                    record_count: encoded.header.record_count,
                    body_len: encoded.header.body_len,
                    body_crc: encoded.header.body_crc,
                    expect_seq,
                    fence: log.fence_token(),
                });
                self.bodies.push(encoded.body);
                self.logs.push(log.clone());
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
        self
    }

    /// Appends everything, and waits until it is on stable storage on a majority: each record is in its log once,
    /// however often it had to be sent. Appends of one client go one after the other.
    ///
    /// Dropping the future does not recall what was sent; it may be appended or not, all of it.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] when the outcome could not be settled in time: all of it is there, or nothing. Else
    /// nothing was written to any of the logs: [`ClientError::Refused`] as for [`Log::append_if`], for whichever log;
    /// [`ClientError::Argument`] for no log, too many, one that comes twice, and batches without a record;
    /// [`ClientError::TooLarge`]; [`ClientError::Unavailable`].
    pub async fn append(self) -> Result<TogetherAck, ClientError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        self.check_logs()?;
        let answer = self
            .client
            .together_sequence()
            .append(&self.client.call(true), self.request, &self.bodies)
            .await;
        for log in &self.logs {
            // The code does not say which of them is not there any more.
            if let Err(error) = &answer
                && error.code() == Some(ErrorCode::LogNotFound)
            {
                self.client.forget_log(log.name());
            }
        }
        answer
    }

    fn check_logs(&self) -> Result<(), ClientError> {
        let argument = |what: String| Err(ClientError::Argument { what });
        let parts = &self.request.parts;
        if parts.is_empty() || parts.len() > TOGETHER_LOGS_MAX {
            let found = parts.len();
            return argument(format!(
                "1 to {TOGETHER_LOGS_MAX} logs are needed, found {found}"
            ));
        }
        let mut log_ids: Vec<u64> = parts.iter().map(|part| part.log_id).collect();
        log_ids.sort_unstable();
        if let Some(twice) = log_ids.windows(2).find(|pair| pair[0] == pair[1]) {
            let twice = self.logs.iter().find(|log| log.id() == twice[0]);
            let name = twice.map_or("", |log| log.name());
            return argument(format!("log {name} comes twice"));
        }
        Ok(())
    }
}

/// The producer of one client's appends to several logs.
#[derive(Debug, Default)]
pub(crate) struct TogetherSequence {
    /// What comes next; nothing before the first append, and after one whose outcome is not known: its numbers may be
    /// used or not.
    next: Mutex<Option<Next>>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    producer_id: u64,
    producer_epoch: u32,
    producer_seq: u64,
}

impl TogetherSequence {
    async fn append(
        &self,
        call: &Call<'_>,
        mut request: AppendTogether,
        bodies: &[Bytes],
    ) -> Result<TogetherAck, ClientError> {
        let Ok(mut turn) = timeout_at(call.deadline, self.next.lock()).await else {
            return Err(ClientError::Unavailable {
                code: None,
                cause: "an earlier append of this client to several logs is under way".to_owned(),
                attempts: 0,
                leader: None,
            });
        };
        loop {
            // Taken: nothing is known of it when this future is dropped.
            let taken = turn.take();
            let next = match taken {
                Some(next) => next,
                None => open(call).await?,
            };
            request.producer_id = next.producer_id;
            request.producer_epoch = next.producer_epoch;
            request.producer_seq = next.producer_seq;
            let answer = call.run_with(&request, bodies).await;
            match answer.and_then(|answer| acknowledged(&request, answer)) {
                Ok(ack) => {
                    *turn = Some(Next {
                        producer_seq: next.producer_seq + request.parts.len() as u64,
                        ..next
                    });
                    return Ok(ack);
                }
                // It was idle for so long that it was forgotten; a new one is known.
                Err(ClientError::Refused {
                    code: ErrorCode::UnknownProducer,
                    ..
                }) if taken.is_some() => {}
                Err(error) => {
                    if matches!(error, ClientError::Refused { .. }) {
                        *turn = Some(next);
                    }
                    return Err(error);
                }
            }
        }
    }
}

async fn open(call: &Call<'_>) -> Result<Next, ClientError> {
    let open = ProducerOpen {
        name: "client-together".to_owned(),
    };
    // A producer that was registered twice is forgotten some day.
    let call = Call {
        writes: false,
        ..*call
    };
    let opened = call.run::<_, ProducerOpened>(&open).await?.message;
    Ok(Next {
        producer_id: opened.producer_id,
        producer_epoch: opened.producer_epoch,
        producer_seq: 0,
    })
}

fn acknowledged(
    request: &AppendTogether,
    answer: Answer<AppendedTogether>,
) -> Result<TogetherAck, ClientError> {
    let appended = answer.message;
    let fits = appended.parts.len() == request.parts.len()
        && request
            .parts
            .iter()
            .zip(&appended.parts)
            .all(|(asked, part)| {
                (asked.log_id, asked.record_count) == (part.log_id, part.record_count)
            })
        && appended.producer_seq == request.producer_seq;
    if !fits {
        // It was appended; where is not known.
        return Err(ClientError::Unknown {
            code: Some(ErrorCode::OutcomeUnknown),
            cause: format!("{} acknowledges other batches", answer.address),
            attempts: 1,
        });
    }
    let logs = appended.parts.iter().map(|part| Ack {
        first_seq: part.first_seq,
        record_count: part.record_count,
        term: appended.term,
        index: appended.index,
        duplicate: appended.duplicate,
    });
    Ok(TogetherAck {
        logs: logs.collect(),
    })
}
