//! A consumer: appends what it asks for to `NAME.consumers`, and reads there what came of it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use drave_client::{ClientError, ErrorCode, ReadLimits, Record, Tail, TailEvent, TailFrom};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;
use crate::error::QueueError;
use crate::event::{Event, KEYS_MAX, Receipt, SETTLE_MAX, Settle};
use crate::message::Message;
use crate::queue::{Queue, encode_dead, format_error, lost_race};
use crate::state::{Grant, Outcome, State};

/// Events after which the state is written as a snapshot, and what is before it trimmed.
const SNAPSHOT_EVENTS: u64 = 1_000;

/// Finished messages after which they are trimmed.
const TRIM_MESSAGES: u64 = 1_000;

/// New messages that are kept ready.
const READY_MAX: usize = KEYS_MAX;

/// After asking in vain: somebody else was faster, or the leader's clock is behind.
const PAUSE: Duration = Duration::from_millis(20);

/// A message that this consumer holds for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// To finish it, release it or hold it longer.
    pub receipt: Receipt,
    /// Its key.
    pub key: Option<String>,
    /// Its body.
    pub body: Bytes,
    /// How often it was given out, this time included.
    pub attempts: u32,
    /// When it was given out, by the log: microseconds since 1970.
    pub given_us: u64,
    /// Until when it is held, by the log.
    pub until_us: u64,
    /// The same by this machine's clock, on the early side.
    pub until: Instant,
}

/// What became of receipts.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Settled {
    /// Of each receipt, in order: whether it still counted. It does not when the message was finished before, or given
    /// out again.
    pub done: Vec<bool>,
    /// When, by the log: microseconds since 1970.
    pub time_us: u64,
}

/// Receives messages. One at a time asks; programs that want more have more consumers.
pub struct Consumer {
    queue: Queue,
    state: State,
    /// The next event to fold.
    folded: u64,
    events: Tail,
    /// The first event that is still there, as far as is known: a snapshot, or the very first one.
    first_event: u64,
    trimmed: u64,
    messages: Tail,
    /// Somebody closed a log: there is nothing more to wait for.
    is_closed: bool,
    /// New messages, in order.
    ready: VecDeque<Record>,
    clock: Clock,
}

impl Consumer {
    pub(crate) async fn start(queue: Queue) -> Result<Self, QueueError> {
        let first_event = queue.consumers.info().await?.first_seq;
        let trimmed = queue.messages.info().await?.first_seq;
        let mut consumer = Self {
            events: queue.consumers.tail(TailFrom::Seq(first_event)).await?,
            messages: queue.messages.tail(TailFrom::Seq(trimmed)).await?,
            state: State::default(),
            folded: first_event,
            first_event,
            trimmed,
            is_closed: false,
            ready: VecDeque::new(),
            clock: Clock::new(),
            queue,
        };
        consumer.tell_time().await?;
        consumer.messages = consumer
            .queue
            .messages
            .tail(TailFrom::Seq(consumer.state.next()))
            .await?;
        Ok(consumer)
    }

    /// The state as far as this consumer has read.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Waits up to `wait` for messages and gives at most `limit` of them. They are this consumer's alone for
    /// `visibility`; one that is not finished by then is given out again, to whoever asks.
    ///
    /// Not cancel-safe: dropped halfway, what was given out is visible again after `visibility`.
    ///
    /// # Errors
    /// [`QueueError`]; what may have been given out is visible again after `visibility`.
    pub async fn receive(
        &mut self,
        limit: u32,
        visibility: Duration,
        wait: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            self.take_what_is_there().await?;
            self.put_aside().await?;
            let has_new = !self.ready.is_empty() && self.state.room() > 0;
            if limit > 0 && (has_new || self.state.has_visible(self.clock.now_us())) {
                let deliveries = self.ask(limit, visibility).await?;
                if !deliveries.is_empty() || Instant::now() >= deadline {
                    return Ok(deliveries);
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if Instant::now() < deadline {
                self.wait(deadline).await?;
            } else if !self.take_what_was_missed().await? {
                return Ok(Vec::new());
            }
        }
    }

    /// Finishes messages: they are given out no more.
    ///
    /// # Errors
    /// [`QueueError`]; doing it again does no harm.
    pub async fn acknowledge(&mut self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, Settle::Acknowledge).await
    }

    /// Makes messages visible to others at once.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn release(&mut self, receipts: &[Receipt]) -> Result<Settled, QueueError> {
        self.settle(receipts, Settle::Release).await
    }

    /// Holds messages for `visibility` from now on.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn extend(
        &mut self,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Settled, QueueError> {
        self.settle(receipts, Settle::Extend(micros(visibility)))
            .await
    }

    async fn settle(&mut self, receipts: &[Receipt], what: Settle) -> Result<Settled, QueueError> {
        let mut settled = Settled {
            done: Vec::with_capacity(receipts.len()),
            time_us: self.clock.now_us(),
        };
        for receipts in receipts.chunks(SETTLE_MAX) {
            let settles = receipts.iter().map(|receipt| (*receipt, what)).collect();
            let (_, time_us, outcome) = self.append(&Event::Settle(settles)).await?;
            settled.time_us = time_us;
            if let Outcome::Settled(done) = outcome {
                settled.done.extend(done);
            }
        }
        self.tidy_up().await?;
        Ok(settled)
    }

    /// Appends an event that does nothing, so that the state is as of now; gives its time.
    pub(crate) async fn tell_time(&mut self) -> Result<u64, QueueError> {
        let (_, time_us, _) = self.append(&Event::Settle(Vec::new())).await?;
        Ok(time_us)
    }

    /// Asks for messages and fetches what was given.
    async fn ask(&mut self, limit: u32, visibility: Duration) -> Result<Vec<Delivery>, QueueError> {
        let new = self.ready.iter().take(KEYS_MAX.min(self.state.room()));
        // Somewhat more than are wanted: others may take some first, and keys may hold some back.
        let new = new.take(limit as usize * 2 + 8);
        let event = Event::Receive {
            visibility_us: micros(visibility),
            limit,
            first: self
                .ready
                .front()
                .map_or(self.state.next(), |record| record.seq),
            keys: new.map(|record| key_of(&record.payload)).collect(),
        };
        let asked = Instant::now();
        let kept: Vec<Record> = self.ready.iter().cloned().collect();
        let (given_at, given_us, outcome) = self.append(&event).await?;
        let Outcome::Granted(grants) = outcome else {
            return Ok(Vec::new());
        };
        let mut deliveries = Vec::with_capacity(grants.len());
        for Grant { message, attempts } in grants {
            let receipt = Receipt { message, given_at };
            let payload = match kept.iter().find(|record| record.seq == message) {
                Some(record) => record.payload.clone(),
                None => fetch(&self.queue, message).await?,
            };
            let (key, body) = match Message::decode(&payload) {
                Ok((key, body)) => (key.map(str::to_owned), payload.slice_ref(body)),
                Err(wrong) => {
                    // It comes again, and is put aside in the end.
                    tracing::warn!(message, %wrong, "what is no message is not delivered");
                    continue;
                }
            };
            deliveries.push(Delivery {
                receipt,
                key,
                body,
                attempts,
                given_us,
                until_us: given_us.saturating_add(micros(visibility)),
                until: asked + visibility,
            });
        }
        Ok(deliveries)
    }

    /// Puts messages aside that were given out too often: into the dead letters and out of the queue in one entry.
    async fn put_aside(&mut self) -> Result<(), QueueError> {
        while self.state.to_bury(self.clock.now_us()).is_some() {
            // By the log's time, so that nobody holds the message any more.
            let time_us = self.tell_time().await?;
            let Some(message) = self.state.to_bury(time_us) else {
                break;
            };
            let sent = fetch(&self.queue, message).await?;
            let attempts = self.state.attempts(message).unwrap_or_default();
            let letter = encode_dead(message, attempts, &sent);
            let event = Event::Buried { message }.encode();
            let together = self.queue.client.together();
            // Whoever else puts one aside at the same time takes that place first. That nobody prolonged the holding
            // meanwhile, or finished the message, is certain only if no event came between.
            let together = together.push_if(&self.queue.dead, self.state.buried(), [letter]);
            let together = together.push_if(&self.queue.consumers, self.folded, [event]);
            match together.append().await {
                Ok(ack) => drop(self.fold_until(ack.logs[1].first_seq).await?),
                Err(error) if lost_race(&error) => self.take_what_is_there().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Appends an event and folds up to it: its seq, its time, what it did.
    async fn append(&mut self, event: &Event) -> Result<(u64, u64, Outcome), QueueError> {
        let ack = self.queue.consumers.append(event.encode()).await?;
        let (time_us, outcome) = self.fold_until(ack.first_seq).await?;
        if !ack.duplicate {
            self.clock.set(time_us);
        }
        Ok((ack.first_seq, time_us, outcome))
    }

    async fn fold_until(&mut self, seq: u64) -> Result<(u64, Outcome), QueueError> {
        loop {
            if self.folded > seq {
                return Err(QueueError::Behind { seq });
            }
            let event = self.events.next().await?;
            if let Some((folded, time_us, outcome)) = self.fold(event)?
                && folded == seq
            {
                return Ok((time_us, outcome));
            }
        }
    }

    /// Applies an event of the tail: its seq, its time, what it did.
    fn fold(&mut self, event: TailEvent) -> Result<Option<(u64, u64, Outcome)>, QueueError> {
        match event {
            TailEvent::Record(record) => {
                let (seq, time_us) = (record.seq, record.append_time_us);
                let log = &self.queue.consumers;
                let wrong = |wrong| format_error(log, seq, wrong);
                let event = Event::decode(&record.payload).map_err(wrong)?;
                match &event {
                    Event::Snapshot(state) if seq == self.first_event => self.state = state.clone(),
                    _ => {}
                }
                let outcome = self.state.apply(seq, time_us, &event);
                self.folded = seq + 1;
                self.clock.see(time_us);
                while self
                    .ready
                    .front()
                    .is_some_and(|record| record.seq < self.state.next())
                {
                    self.ready.pop_front();
                }
                return Ok(Some((seq, time_us, outcome)));
            }
            // What was trimmed is in the snapshot that is now the first event.
            TailEvent::Trimmed { first_seq } => {
                self.first_event = first_seq;
                self.folded = first_seq;
            }
            TailEvent::Closed { .. } => self.is_closed = true,
            _ => {}
        }
        Ok(None)
    }

    fn take_message(&mut self, event: TailEvent) {
        match event {
            TailEvent::Record(record) if record.seq >= self.state.next() => {
                self.ready.push_back(record);
            }
            TailEvent::Closed { .. } => self.is_closed = true,
            // Those that were trimmed are finished.
            _ => {}
        }
    }

    /// Takes what has come of events and messages, without waiting.
    async fn take_what_is_there(&mut self) -> Result<(), QueueError> {
        while let Some(event) = self.events.next().now_or_never() {
            let event = event?;
            let is_all = matches!(event, TailEvent::CaughtUp { .. } | TailEvent::Closed { .. });
            self.fold(event)?;
            if is_all {
                break;
            }
        }
        while self.ready.len() < READY_MAX {
            let Some(event) = self.messages.next().now_or_never() else {
                break;
            };
            let event = event?;
            let is_all = matches!(event, TailEvent::CaughtUp { .. } | TailEvent::Closed { .. });
            self.take_message(event);
            if is_all {
                break;
            }
        }
        Ok(())
    }

    /// Takes the events and the next message that were there when this was called and had not come yet; whether there
    /// were any. So "nothing" is what the whole cluster says, not this consumer's view of it.
    async fn take_what_was_missed(&mut self) -> Result<bool, QueueError> {
        let events = self.queue.consumers.check_tail().await?.next_seq;
        let messages = self.queue.messages.check_tail().await?.next_seq;
        let folded = self.folded;
        while self.folded < events {
            let event = self.events.next().await?;
            self.fold(event)?;
        }
        let mut is_missed = folded < events;
        while self.ready.is_empty() && self.state.next() < messages && self.state.room() > 0 {
            let event = self.messages.next().await?;
            self.take_message(event);
            is_missed = true;
        }
        Ok(is_missed)
    }

    /// Waits for an event, a message, a held message to become free, or the deadline.
    async fn wait(&mut self, deadline: Instant) -> Result<(), QueueError> {
        let free_us = self.state.next_free_us(self.clock.now_us());
        let until = free_us.map_or(deadline, |free_us| {
            self.clock.instant(free_us).min(deadline)
        });
        let (is_open, has_room) = (!self.is_closed, self.ready.len() < READY_MAX);
        tokio::select! {
            event = self.events.next(), if is_open => drop(self.fold(event?)?),
            event = self.messages.next(), if is_open && has_room => self.take_message(event?),
            () = sleep_until(until) => {}
        }
        Ok(())
    }

    /// Has old events and finished messages trimmed, when there are many.
    async fn tidy_up(&mut self) -> Result<(), QueueError> {
        let floor = self.state.floor();
        if floor - self.trimmed.min(floor) >= TRIM_MESSAGES {
            self.queue
                .client
                .trim_log(self.queue.messages.name(), floor)
                .await?;
            self.trimmed = floor;
        }
        if self.folded - self.first_event >= SNAPSHOT_EVENTS {
            let event = Event::Snapshot(self.state.clone()).encode();
            match self.queue.consumers.append_if(self.folded, [event]).await {
                Ok(ack) => {
                    self.fold_until(ack.first_seq).await?;
                    let name = self.queue.consumers.name();
                    self.queue.client.trim_log(name, ack.first_seq).await?;
                    self.first_event = ack.first_seq;
                }
                // Somebody else's event came first; the next one tries again.
                Err(error) if lost_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn fetch(queue: &Queue, message: u64) -> Result<Bytes, QueueError> {
    let limits = ReadLimits {
        records_max: 1,
        ..ReadLimits::default()
    };
    let mut chunk = queue.messages.read(message, limits).await?;
    // There is one: what is unfinished is not trimmed.
    let record = chunk.records.pop();
    Ok(record.map_or_else(Bytes::new, |record| record.payload))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The key by which a record is kept in order; one that is no message has none.
fn key_of(record: &[u8]) -> Option<String> {
    let (key, _) = Message::decode(record).ok()?;
    key.map(str::to_owned)
}

/// What a program may do after an error of the queue.
impl QueueError {
    /// Whether the same may work later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retryable() || is_race(error),
            Self::Behind { .. } => true,
            Self::Format { .. } | Self::TooLarge { .. } => false,
        }
    }
}

fn is_race(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::ExpectSeq | ErrorCode::Trimmed)
    )
}
