//! A tail: every record from a seq on, as it is committed, over the loss of nodes.
//!
//! A tail is a position in the log and, most of the time, a subscription on some replica. Records come
//! only from batches that continue the position exactly, so whichever replica serves it, none is left
//! out and none comes twice. When a replica is silent, gone or damaged, the next one continues at the
//! position. A replica that is cut off from the others gives signs of life and nothing else: after a
//! quiet time the leader is asked whether there is more, and if so the replica is left.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use drave_batch::wire::{ErrorCode, TailData, TailStart};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::call::{Route, Target};
use crate::catalogue;
use crate::connection::{Connection, LinkError, Refusal, Subscription, TailFrame};
use crate::read::{BATCH_BYTES_MAX, Source, for_each_record, seq_at};
use crate::stream::TailStream;
use crate::task::{Task, finish};
use crate::{ClientError, LogInfo, Record, TailEvent, TailFrom};

/// Payload bytes that a node may send ahead of the reader.
///
/// Credit goes back once a quarter of it is consumed, so that at least three quarters are out whenever
/// the reader waits: enough for the largest batch.
pub(crate) const CREDIT_BYTES: u32 = 4 << 20;
const CREDIT_RETURN_BYTES: u32 = CREDIT_BYTES / 4;
const _: () = assert!(CREDIT_BYTES - CREDIT_RETURN_BYTES >= BATCH_BYTES_MAX);

/// Nodes give a sign of life every second. After this long without one the replica counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// After this long without a record the leader is asked whether there are any.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// Records of one frame that wait for the reader.
struct Delivery {
    records: VecDeque<Record>,
    payload_bytes: u32,
    /// Nothing more was committed when the frame was sent, as far as its replica knew.
    is_last: bool,
}

/// A tail of one log. From [`Log::tail`](crate::Log::tail).
pub struct Tail {
    source: Source,
    name: String,
    /// The seq of the next record to take from a frame.
    position: u64,
    /// Taken from a frame and not yet given out. Its bytes go back as credit when it is empty.
    delivery: Delivery,
    /// Bytes consumed and not yet given back.
    consumed_bytes: u32,
    subscription: Option<Subscription>,
    route: Route,
    /// When the present replica, or the search for one, counts as failed.
    silent_at: Instant,
    /// Whether the last event was that there is nothing more.
    caught_up: bool,
    /// The fencing token that was reported last, or held where the tail began.
    fence: Option<u64>,
    /// A token to be reported at its seq.
    fenced: Option<(u64, u64)>,
    /// There will be no more records.
    is_closed: bool,
    /// When the leader is asked whether this replica keeps up; never for a tail of one replica alone.
    check_at: Option<Instant>,
    checking: Option<Task<Result<LogInfo, ClientError>>>,
    /// Since when there was no sign of life from any replica.
    failing_since: Option<Instant>,
    last_failure: Option<LinkError>,
}

/// What a wait ended with.
enum Event {
    Arrived(TailFrame),
    Silent,
    CheckDue,
    Checked(Result<LogInfo, ClientError>),
}

/// What a frame came to.
enum Step {
    /// Something may be there to give out.
    Go,
    Event(TailEvent),
    /// This replica is of no use: another one.
    Leave(LinkError),
    Fail(ClientError),
}

impl Tail {
    /// Finds the position to begin at.
    pub(crate) async fn start(
        source: Source,
        name: &str,
        from: TailFrom,
    ) -> Result<Self, ClientError> {
        let info = catalogue::lookup(&source.call(), name).await?;
        let position = match from {
            TailFrom::Seq(seq) => seq,
            TailFrom::Last(count) => info.next_seq.saturating_sub(count).max(info.first_seq),
            TailFrom::End => info.next_seq,
            TailFrom::TimeUs(time_us) => seq_at(&source, time_us).await?,
        };
        let is_asked_for = matches!(from, TailFrom::Seq(_));
        if is_asked_for && position > info.next_seq {
            return Err(ClientError::Refused {
                code: ErrorCode::BeyondTail,
                message: format!("the log {name} ends before seq {}", info.next_seq),
                expected: info.next_seq,
                found: position,
                address: "the client".to_owned(),
                leader: None,
            });
        }
        let is_checked = matches!(source.target, Target::Leader);
        Ok(Self {
            route: Route::new(true),
            source,
            name: name.to_owned(),
            position,
            delivery: Delivery {
                records: VecDeque::new(),
                payload_bytes: 0,
                is_last: false,
            },
            check_at: is_checked.then(|| Instant::now() + QUIET_MAX),
            checking: None,
            consumed_bytes: 0,
            subscription: None,
            silent_at: Instant::now(),
            caught_up: false,
            fence: None,
            fenced: None,
            is_closed: false,
            failing_since: None,
            last_failure: None,
        })
    }

    /// The seq of the next record that [`next`](Self::next) gives.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        match self.delivery.records.front() {
            Some(record) => record.seq,
            None => self.position,
        }
    }

    /// The next event; waits for it without limit as long as a replica gives signs of life. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no replica served the tail for the client's request timeout,
    /// [`ClientError::Damaged`] and [`ClientError::Misbehaved`] likewise when that is what replicas did;
    /// [`ClientError::Refused`] when the log cannot be tailed. The tail keeps its position: asking again
    /// goes on trying.
    pub async fn next(&mut self) -> Result<TailEvent, ClientError> {
        loop {
            if let Some(event) = self.take_fenced() {
                return Ok(event);
            }
            if let Some(record) = self.delivery.records.pop_front() {
                self.caught_up = false;
                if self.delivery.records.is_empty() {
                    self.consume();
                }
                return Ok(TailEvent::Record(record));
            }
            if std::mem::take(&mut self.delivery.is_last)
                && let Some(event) = self.catch_up()
            {
                return Ok(event);
            }
            if self.is_closed {
                return Ok(TailEvent::Closed {
                    next_seq: self.position,
                });
            }
            if self.subscription.is_none() {
                self.subscribe().await?;
                continue;
            }
            let event = self.wait().await;
            let step = self.apply(event);
            match step {
                Step::Go => {}
                Step::Event(event) => return Ok(event),
                Step::Leave(error) => self.leave(error),
                Step::Fail(error) => {
                    self.subscription = None;
                    return Err(error);
                }
            }
        }
    }

    /// The events as a `Stream`.
    #[must_use]
    pub fn into_stream(self) -> TailStream {
        TailStream::new(self)
    }

    /// Waits on the subscription. Cancel-safe.
    async fn wait(&mut self) -> Event {
        let Some(subscription) = &self.subscription else {
            return Event::Silent;
        };
        let check_at = self.check_at.unwrap_or(self.silent_at);
        let check = self.check_at.is_some() && self.checking.is_none();
        tokio::select! {
            // A frame that has arrived counts, however late the reader looks.
            biased;
            frame = subscription.next() => Event::Arrived(frame),
            checked = finish(&mut self.checking) => Event::Checked(checked),
            () = sleep_until(self.silent_at) => Event::Silent,
            () = sleep_until(check_at), if check => Event::CheckDue,
        }
    }

    fn apply(&mut self, event: Event) -> Step {
        let Some(subscription) = &self.subscription else {
            return Step::Go;
        };
        let address = subscription.address().to_owned();
        match event {
            Event::Arrived(frame) => self.take(frame),
            Event::Silent => Step::Leave(LinkError::Silent {
                address,
                silence_ms: SILENCE_MAX.as_millis() as u64,
            }),
            Event::CheckDue => {
                let (source, name) = (self.source.clone(), self.name.clone());
                self.checking = Some(Box::pin(async move {
                    catalogue::lookup(&source.call(), &name).await
                }));
                Step::Go
            }
            Event::Checked(info) => {
                self.check_at = Some(Instant::now() + QUIET_MAX);
                match info {
                    Ok(info) if info.next_seq > self.position => Step::Leave(LinkError::Lost {
                        address,
                        cause: format!("it lags: the log goes on to seq {}", info.next_seq),
                    }),
                    // Without a leader nothing new is committed either.
                    Ok(_) | Err(_) => Step::Go,
                }
            }
        }
    }

    /// The delivery is consumed: its bytes become credit, in portions.
    fn consume(&mut self) {
        self.consumed_bytes += std::mem::take(&mut self.delivery.payload_bytes);
        if self.consumed_bytes >= CREDIT_RETURN_BYTES
            && let Some(subscription) = &self.subscription
        {
            subscription.grant(std::mem::take(&mut self.consumed_bytes));
        }
    }

    /// One attempt to subscribe somewhere. Fails only when the time for that is over.
    async fn subscribe(&mut self) -> Result<(), ClientError> {
        let patience = self.source.cluster.settings.request_timeout;
        let failing_since = *self.failing_since.get_or_insert_with(Instant::now);
        let deadline = failing_since + patience;
        let connection = match timeout_at(deadline, self.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                self.last_failure = Some(error);
                if self.route.is_hopeless(&self.source.cluster) {
                    return Err(self.give_up());
                }
                return Ok(());
            }
            Err(_) => return Err(self.give_up()),
        };
        let start = TailStart {
            log_id: self.source.log_id,
            from_seq: self.position,
            credit_bytes: CREDIT_BYTES,
        };
        match connection.subscribe(&start) {
            Ok(subscription) => {
                self.subscription = Some(subscription);
                self.consumed_bytes = 0;
                self.silent_at = Instant::now() + SILENCE_MAX;
            }
            Err(error) => self.leave_node(connection.address(), error),
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<Connection, LinkError> {
        let cluster = &self.source.cluster;
        match &self.source.target {
            Target::Leader => self.route.next(cluster).await,
            Target::Node(name) => {
                if self.last_failure.is_some() {
                    self.route.pause().await;
                }
                let node = name.find(cluster).await?;
                cluster.connection(&node).await
            }
        }
    }

    /// Ends one round of patience; the next call begins another.
    fn give_up(&mut self) -> ClientError {
        self.failing_since = None;
        let attempts = self.route.attempts;
        match self.last_failure.take() {
            Some(LinkError::Damaged { address, source }) => {
                ClientError::Damaged { address, source }
            }
            Some(LinkError::Misbehaved {
                address,
                what,
                expected,
                found,
            }) => ClientError::Misbehaved {
                address,
                what,
                expected,
                found,
            },
            Some(error) => error.unavailable(attempts),
            None => ClientError::Unavailable {
                code: None,
                cause: "no replica answered".to_owned(),
                attempts,
                leader: None,
            },
        }
    }

    fn leave(&mut self, error: LinkError) {
        let Some(subscription) = self.subscription.take() else {
            return;
        };
        let address = subscription.address().to_owned();
        drop(subscription);
        self.leave_node(&address, error);
    }

    fn leave_node(&mut self, address: &str, error: LinkError) {
        tracing::debug!(address, %error, position = self.position, "tail leaves a replica");
        self.route.failed(&self.source.cluster, address);
        self.last_failure = Some(error);
        self.failing_since.get_or_insert_with(Instant::now);
    }

    fn take(&mut self, frame: TailFrame) -> Step {
        match frame {
            TailFrame::Data { data, payload } => self.take_data(&data, &payload),
            TailFrame::Refused(refusal) => self.take_refusal(refusal),
            TailFrame::Lost(error) => Step::Leave(error),
        }
    }

    fn take_data(&mut self, data: &TailData, payload: &Bytes) -> Step {
        let address = match &self.subscription {
            Some(subscription) => subscription.address().to_owned(),
            None => return Step::Go,
        };
        if data.log_id != self.source.log_id {
            return Step::Leave(LinkError::Misbehaved {
                address,
                what: "data of the log tailed",
                expected: self.source.log_id,
                found: data.log_id,
            });
        }
        if data.first_seq > self.position {
            // The frame's records are asked for again from there on.
            self.subscription = None;
            return self.trimmed(data.first_seq);
        }
        self.hear_fence(data);
        if payload.is_empty() {
            return self.take_sign_of_life(data);
        }
        let mut records = VecDeque::new();
        let taken = for_each_record(payload, self.source.log_id, self.position, |record| {
            records.push_back(record);
            true
        });
        match taken {
            Ok(next_seq) => {
                assert!(
                    next_seq >= self.position,
                    "a tail's position never goes back"
                );
                self.position = next_seq;
                // Records are the best sign that the replica keeps up.
                self.checking = None;
                self.check_at = self.check_at.map(|_| Instant::now() + QUIET_MAX);
                let payload_bytes =
                    u32::try_from(payload.len()).expect("a payload is within 4 MiB");
                self.delivery = Delivery {
                    records,
                    payload_bytes,
                    is_last: next_seq == data.next_seq,
                };
                self.alive();
                Step::Go
            }
            Err(error) => Step::Leave(match error.at(&address) {
                ClientError::Damaged { address, source } => LinkError::Damaged { address, source },
                other => LinkError::Lost {
                    address,
                    cause: other.to_string(),
                },
            }),
        }
    }

    /// The replica serves the tail as it should.
    fn alive(&mut self) {
        self.silent_at = Instant::now() + SILENCE_MAX;
        self.failing_since = None;
        self.last_failure = None;
        self.route.succeeded();
    }

    /// Nodes send these also while they wait for credit: only the seq says whether there is more. A
    /// replica that lags behind the position has not caught up with it.
    fn take_sign_of_life(&mut self, data: &TailData) -> Step {
        self.alive();
        if data.next_seq != self.position {
            return Step::Go;
        }
        self.catch_up().map_or(Step::Go, Step::Event)
    }

    /// A token that came before the tail began is not news. A replica that lags says an older one.
    fn hear_fence(&mut self, data: &TailData) {
        let is_before = self.fence.is_none() && data.fence_seq <= self.position;
        let known = self.fence.get_or_insert(0);
        if data.fence <= *known {
            return;
        }
        *known = data.fence;
        if !is_before {
            self.fenced = Some((data.fence, data.fence_seq));
        }
    }

    /// A token is reported before the first record that may have been appended under it.
    fn take_fenced(&mut self) -> Option<TailEvent> {
        let (token, seq) = self.fenced.filter(|(_, seq)| *seq <= self.next_seq())?;
        self.fenced = None;
        Some(TailEvent::Fenced { token, seq })
    }

    fn catch_up(&mut self) -> Option<TailEvent> {
        let said = std::mem::replace(&mut self.caught_up, true);
        (!said).then_some(TailEvent::CaughtUp {
            next_seq: self.position,
        })
    }

    fn trimmed(&mut self, first_seq: u64) -> Step {
        self.position = first_seq;
        self.caught_up = false;
        Step::Event(TailEvent::Trimmed { first_seq })
    }

    fn take_refusal(&mut self, refusal: Refusal) -> Step {
        match refusal.code {
            Some(ErrorCode::Trimmed) if refusal.expected > self.position => {
                self.subscription = None;
                self.trimmed(refusal.expected)
            }
            // The position was given by a replica that had it: this one lags.
            Some(ErrorCode::BeyondTail) => self.leave_refused(refusal),
            Some(ErrorCode::LogClosed) if refusal.expected == self.position => {
                self.subscription = None;
                self.is_closed = true;
                self.catch_up().map_or(Step::Go, Step::Event)
            }
            // It ended before everything was given: it is asked for again.
            Some(ErrorCode::LogClosed) => self.leave_refused(refusal),
            Some(code) if !code.is_retryable() => Step::Fail(refusal.into_error()),
            _ => self.leave_refused(refusal),
        }
    }

    fn leave_refused(&mut self, refusal: Refusal) -> Step {
        if let Some(leader) = &refusal.leader {
            self.source
                .cluster
                .hint_leader(&leader.address, leader.node_id);
        }
        Step::Leave(LinkError::Lost {
            address: refusal.address,
            cause: refusal.message,
        })
    }
}
