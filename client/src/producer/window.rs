//! What a producer has sent, what of it is settled, and what may be sent next. Pure: no I/O, no clock.
//!
//! # Exactly once: the argument
//!
//! Nodes keep one rule: a batch with sequence `n` of a producer id is accepted only if the last accepted
//! one has `n - 1`; a lower one is answered as a duplicate; a refused one does not consume `n`. So under
//! one id each sequence is accepted at most once, in order, and **nothing above a sequence that was never
//! accepted can be**. An attempt (one sending) ends *clean*, by an answer that says that this very
//! request wrote nothing now or later, or *unsure*: no answer, or one that leaves it open. A batch none
//! of whose attempts is unsure or outstanding was certainly not written.
//!
//! 1. Resending under the same id and sequence is always safe. That is how unsure batches are settled.
//! 2. A batch gets *another* sequence or id only if it was certainly not written: each of its own
//!    attempts ended clean, or a batch below it that certainly was not written will never be sent again
//!    under this id (the gap: a frame that is still under way somewhere can then never be accepted).
//! 3. Sequence `n` is given to another batch under the same id (*renumbering*) only when no attempt of
//!    any batch with a sequence of `n` or more can still be accepted: all of them ended clean. A late
//!    frame with an old number would otherwise be taken for the new batch, or behind it.
//! 4. When renumbering is not possible, the id is given up (*renewal*) and a new one registered.
//!
//! # A refusal for good in the middle
//!
//! `n` is refused (say, its condition does not hold). If an earlier attempt of `n` is unsure, its outcome
//! is unknown and its sequence is a *hole*. Else it fails alone, and `n` *seals* the id: nothing above it
//! is sent, since all of that is refused as a gap. Once the attempts above have ended: all clean and no
//! hole above, then renumber (3); otherwise wait until what is below is settled, then renew (4): by the
//! gap at `n` all that was above it was not written (2).
//!
//! A fence above the batch's token, and the end of a closed log, are for good in another way: both are committed, and
//! whoever leads from then on refuses every attempt that is still out. The leader that says so has all that was
//! appended before them, and the batch is not among it, or it would be a duplicate. So no attempt is unsure then.
//!
//! # A hole
//!
//! A batch whose time is up while its outcome is open leaves a hole. Later ones are still sent: if the
//! lost one was written they are accepted. If the lowest of them is refused as a gap, the id is renewed:
//! what then is unsure has an unknown outcome, the rest goes on under the new id. The same happens when
//! nodes no longer know the id: it is never registered again silently for a batch that may be written.

use std::collections::VecDeque;
use std::time::Instant;

use drave_batch::wire::{Effect, ErrorCode};

use crate::{Ack, ClientError};

/// A registered producer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProducerId {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    /// Sequences from the lowest unsettled to the highest sent, at most.
    pub(crate) in_flight_max: u32,
}

/// A refusal as far as the window keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// `None` for a code that this build does not know: its effect is unknown.
    pub(crate) code: Option<ErrorCode>,
    /// The error of a batch for which this is the last word.
    pub(crate) error: ClientError,
}

/// The answer to one attempt.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Acked(Ack),
    Refused(Refused),
}

/// What an answer says about where to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Advice {
    /// As before.
    Continue,
    /// The node has too much to do: pause, then resend.
    Pause,
    /// Another node must be found.
    Leave,
}

/// What may be sent next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ready {
    /// The batch at this place of the sent ones, once more.
    Again(usize),
    /// The first batch that has no sequence.
    Fresh,
}

/// The numbers of one sending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sending {
    pub(crate) attempt: u64,
    pub(crate) producer: ProducerId,
    pub(crate) sequence: u64,
    /// How far below the lowest unsettled sequence is.
    pub(crate) unacked: u32,
}

/// A batch that left the window, with its outcome.
#[derive(Debug)]
pub(crate) struct Settled<T> {
    pub(crate) content: T,
    pub(crate) outcome: Result<Ack, ClientError>,
}

struct Item<T> {
    content: T,
    deadline: Instant,
    /// Times it was sent.
    attempts: u32,
    /// The last refusal, for the error at the deadline.
    refused: Option<Refused>,
}

struct Sent<T> {
    item: Item<T>,
    sequence: u64,
    /// An attempt ended without an answer that settles it.
    unsure: bool,
    /// The attempt that is not answered yet.
    outstanding: Option<u64>,
}

/// Whether this refusal says of every earlier attempt too that it was not written and will not be.
fn is_conclusive(refused: &Refused) -> bool {
    match &refused.error {
        ClientError::Refused {
            code: ErrorCode::Fenced,
            expected,
            found,
            ..
        } => expected > found,
        ClientError::Refused { code, .. } => *code == ErrorCode::LogClosed,
        _ => false,
    }
}

/// The window of one producer. `T` is what the owner needs to send and to answer a batch.
pub(crate) struct Window<T> {
    producer: Option<ProducerId>,
    /// Without a sequence, in order; certainly not written. All of them come after all of `sent`.
    queue: VecDeque<Item<T>>,
    /// With a sequence and not settled; sequences ascend, and may skip settled ones.
    sent: VecDeque<Sent<T>>,
    /// The sequence that the next fresh batch gets. Invariant: above all of `sent`.
    next_sequence: u64,
    next_attempt: u64,
    /// Sent ones with an outstanding attempt, and those without.
    outstanding: usize,
    idle: usize,
    /// The highest sequence that was given up with its outcome open, if nothing above was accepted.
    hole: Option<u64>,
    /// The lowest sequence that was certainly not accepted while higher ones were sent.
    seal: Option<u64>,
    /// The seal cannot be resolved by renumbering.
    seal_renews: bool,
    /// Nothing more is sent under this id: it is renewed once nothing is outstanding.
    renewing: bool,
    settled: Vec<Settled<T>>,
}

impl<T> Window<T> {
    pub(crate) fn new() -> Self {
        Self {
            producer: None,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            next_sequence: 0,
            next_attempt: 0,
            outstanding: 0,
            idle: 0,
            hole: None,
            seal: None,
            seal_renews: false,
            renewing: false,
            settled: Vec::new(),
        }
    }

    /// Whether nothing is unsettled.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.sent.is_empty()
    }

    /// Attempts that wait for their answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether a producer must be registered before anything can be sent.
    pub(crate) fn needs_producer(&self) -> bool {
        self.producer.is_none() && !self.queue.is_empty()
    }

    /// A registration succeeded.
    pub(crate) fn registered(&mut self, producer: ProducerId) {
        assert!(self.producer.is_none(), "one id at a time");
        assert!(self.sent.is_empty(), "nothing is sent without an id");
        self.producer = Some(producer);
    }

    /// Takes a batch in, behind all others.
    pub(crate) fn submit(&mut self, content: T, deadline: Instant) {
        self.queue.push_back(Item {
            content,
            deadline,
            attempts: 0,
            refused: None,
        });
    }

    /// Batches that left the window since the last call.
    pub(crate) fn take_settled(&mut self) -> Vec<Settled<T>> {
        std::mem::take(&mut self.settled)
    }

    /// What may be sent now.
    ///
    /// A batch is sent again only when nothing above it is outstanding: everything above is refused as
    /// a gap meanwhile, and its answers come first. So a node sees sequences rise, except at a rewind.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let producer = self.producer.as_ref()?;
        if self.renewing {
            return None;
        }
        if self.idle > 0 {
            let at = self.sent.iter().position(|s| s.outstanding.is_none())?;
            let sealed = self.seal.is_some_and(|seal| self.sent[at].sequence > seal);
            let rewinding = self.sent.range(at..).any(|s| s.outstanding.is_some());
            return (!sealed && !rewinding).then_some(Ready::Again(at));
        }
        if self.seal.is_some() || self.queue.is_empty() {
            return None;
        }
        let lowest = self.sent.front().map_or(self.next_sequence, |s| s.sequence);
        let span = self.next_sequence - lowest;
        (span < u64::from(producer.in_flight_max)).then_some(Ready::Fresh)
    }

    /// The batch that is ready.
    pub(crate) fn content(&self, ready: Ready) -> &T {
        match ready {
            Ready::Again(at) => &self.sent[at].item.content,
            Ready::Fresh => &self.queue.front().expect("a fresh one is ready").content,
        }
    }

    /// The ready batch is being sent: an answer or [`lost`](Self::lost) must follow. To be called only
    /// with the value of [`ready`](Self::ready), and nothing in between.
    pub(crate) fn begin(&mut self, ready: Ready) -> Sending {
        let producer = self.producer.expect("without an id nothing is ready");
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        let at = match ready {
            Ready::Again(at) => {
                self.idle -= 1;
                at
            }
            Ready::Fresh => {
                let item = self.queue.pop_front().expect("a fresh one is ready");
                self.sent.push_back(Sent {
                    item,
                    sequence: self.next_sequence,
                    unsure: false,
                    outstanding: None,
                });
                self.next_sequence += 1;
                self.sent.len() - 1
            }
        };
        let lowest = self.sent[0].sequence;
        let sent = &mut self.sent[at];
        assert!(sent.outstanding.is_none(), "one attempt at a time");
        sent.outstanding = Some(attempt);
        sent.item.attempts = sent.item.attempts.saturating_add(1);
        self.outstanding += 1;
        Sending {
            attempt,
            producer,
            sequence: sent.sequence,
            unacked: u32::try_from(sent.sequence - lowest).expect("within in_flight_max"),
        }
    }

    /// The attempt that was just begun could not be handed to the connection: nothing was sent.
    pub(crate) fn not_sent(&mut self, attempt: u64) {
        for sent in &mut self.sent {
            if sent.outstanding == Some(attempt) {
                sent.outstanding = None;
                self.outstanding -= 1;
                self.idle += 1;
            }
        }
        self.resolve();
    }

    /// No node takes anything of this client: what was not sent fails with this error.
    pub(crate) fn refuse_queue(&mut self, error: &ClientError) {
        while let Some(item) = self.queue.pop_front() {
            self.settle(item, Err(error.clone()));
        }
    }

    /// A ready batch cannot be sent at all: it fails with this error, as if a node had refused it.
    pub(crate) fn refuse_ready(&mut self, ready: Ready, error: ClientError) {
        match ready {
            Ready::Again(at) => self.refuse(at, error),
            Ready::Fresh => {
                let item = self.queue.pop_front().expect("a fresh one is ready");
                self.settle(item, Err(error));
            }
        }
        self.resolve();
    }

    /// The batch that this attempt is of, while it is not answered.
    pub(crate) fn outstanding_attempt(&self, attempt: u64) -> Option<(u64, &T)> {
        let sent = self.sent.iter().find(|s| s.outstanding == Some(attempt))?;
        Some((sent.sequence, &sent.item.content))
    }

    /// An attempt was answered. Answers to attempts that are no longer known are ignored.
    pub(crate) fn answer(&mut self, attempt: u64, answer: Answer) -> Advice {
        let position = self
            .sent
            .iter()
            .position(|sent| sent.outstanding == Some(attempt));
        let Some(at) = position else {
            return Advice::Continue;
        };
        self.sent[at].outstanding = None;
        self.outstanding -= 1;
        self.idle += 1;
        let advice = match answer {
            Answer::Acked(ack) => {
                self.accepted(at, Ok(ack));
                Advice::Continue
            }
            Answer::Refused(refused) => self.refused(at, refused),
        };
        self.resolve();
        advice
    }

    fn refused(&mut self, at: usize, refused: Refused) -> Advice {
        let sent = &mut self.sent[at];
        sent.item.refused = Some(refused.clone());
        if is_conclusive(&refused) {
            sent.unsure = false;
        }
        let Some(code) = refused.code else {
            sent.unsure = true;
            return Advice::Leave;
        };
        match code {
            ErrorCode::SequenceGap => self.gap(at),
            ErrorCode::Busy | ErrorCode::DiskFull | ErrorCode::QuotaExceeded => Advice::Pause,
            ErrorCode::UnknownProducer | ErrorCode::StaleEpoch => {
                self.renewing = true;
                Advice::Continue
            }
            // It is in the log, only its seq is no longer known.
            ErrorCode::DuplicateForgotten => {
                self.accepted(at, Err(refused.error));
                Advice::Continue
            }
            code if code.effect() == Effect::Unknown => {
                sent.unsure = true;
                Advice::Leave
            }
            code if code.is_retryable() => Advice::Leave,
            _ => {
                self.refuse(at, refused.error);
                Advice::Continue
            }
        }
    }

    /// The leader misses a batch before this one.
    fn gap(&mut self, at: usize) -> Advice {
        let sequence = self.sent[at].sequence;
        if at > 0 || self.seal.is_some_and(|seal| seal < sequence) {
            // Its predecessor was refused, and will be sent again or is being given up.
            return Advice::Continue;
        }
        if self.hole.is_some_and(|hole| hole < sequence) {
            self.renewing = true;
            return Advice::Continue;
        }
        // Everything below was acknowledged, so this node does not have what a majority has: it is not
        // the leader that it takes itself for.
        Advice::Leave
    }

    /// The batch is in the log: whatever was below it is too.
    fn accepted(&mut self, at: usize, outcome: Result<Ack, ClientError>) {
        let sequence = self.sent[at].sequence;
        if self.hole.is_some_and(|hole| hole < sequence) {
            self.hole = None;
        }
        if self.seal.is_some_and(|seal| seal < sequence) {
            // Against the rule that the gap rests on. The id is of no more use.
            tracing::error!(sequence, "a batch above a refused one was acknowledged");
            self.seal_renews = true;
        }
        let sent = self.remove(at);
        self.settle(sent.item, outcome);
    }

    /// The batch is refused for good by its last attempt.
    fn refuse(&mut self, at: usize, error: ClientError) {
        let sealed = self.is_above_seal(&self.sent[at]);
        let sent = self.remove(at);
        if sent.unsure && !sealed {
            self.open_hole(sent.sequence);
            let outcome = unknown(&sent.item, &error.to_string());
            self.settle(sent.item, Err(outcome));
        } else {
            // Under the seal a frame that may still be out must never find its gap filled.
            self.seal_renews |= sent.unsure;
            self.free(sent.sequence);
            self.settle(sent.item, Err(error));
        }
    }

    fn is_above_seal(&self, sent: &Sent<T>) -> bool {
        self.seal.is_some_and(|seal| sent.sequence > seal)
    }

    fn remove(&mut self, at: usize) -> Sent<T> {
        let sent = self.sent.remove(at).expect("the place was just found");
        if sent.outstanding.is_some() {
            self.outstanding -= 1;
        } else {
            self.idle -= 1;
        }
        sent
    }

    fn open_hole(&mut self, sequence: u64) {
        self.hole = Some(self.hole.map_or(sequence, |hole| hole.max(sequence)));
    }

    /// A sequence was certainly not accepted, and its batch will not be sent under it again.
    fn free(&mut self, sequence: u64) {
        self.seal = Some(self.seal.map_or(sequence, |seal| seal.min(sequence)));
    }

    fn settle(&mut self, item: Item<T>, outcome: Result<Ack, ClientError>) {
        self.settled.push(Settled {
            content: item.content,
            outcome,
        });
    }

    /// The connection that outstanding attempts were made on is given up: their answers will not come.
    pub(crate) fn lost(&mut self) {
        for sent in &mut self.sent {
            if sent.outstanding.take().is_some() {
                sent.unsure = true;
                self.outstanding -= 1;
                self.idle += 1;
            }
        }
        assert_eq!(self.outstanding, 0);
        self.resolve();
    }

    /// Settles what is overdue. Says whether answers to some of it were still due.
    pub(crate) fn expire(&mut self, now: Instant, cause: &str) -> bool {
        let outstanding_before = self.outstanding;
        let mut at = 0;
        while at < self.sent.len() {
            if self.sent[at].item.deadline > now {
                at += 1;
                continue;
            }
            self.expire_sent(at, cause);
        }
        // Deadlines need not be in order.
        for _ in 0..self.queue.len() {
            let item = self.queue.pop_front().expect("counted");
            if item.deadline > now {
                self.queue.push_back(item);
            } else {
                let error = not_written(&item, cause);
                self.settle(item, Err(error));
            }
        }
        let answers_due = self.outstanding < outstanding_before;
        self.resolve();
        answers_due
    }

    fn expire_sent(&mut self, at: usize, cause: &str) {
        let sealed = self.is_above_seal(&self.sent[at]);
        let sent = self.remove(at);
        let settled_by_answers = !sent.unsure && sent.outstanding.is_none();
        if settled_by_answers || sealed {
            // As for a refusal under the seal.
            self.seal_renews |= sent.unsure || sent.outstanding.is_some();
            self.free(sent.sequence);
            let error = not_written(&sent.item, cause);
            self.settle(sent.item, Err(error));
        } else {
            self.open_hole(sent.sequence);
            let error = unknown(&sent.item, cause);
            self.settle(sent.item, Err(error));
        }
    }

    /// The earliest deadline of what is unsettled.
    pub(crate) fn deadline_min(&self) -> Option<Instant> {
        let sent = self.sent.iter().map(|sent| sent.item.deadline);
        sent.chain(self.queue.iter().map(|item| item.deadline))
            .min()
    }

    /// Renumbers or renews when what that waits for has come. Runs after every change.
    fn resolve(&mut self) {
        if self.renewing && self.outstanding == 0 {
            self.renew();
        }
        if let Some(seal) = self.seal
            && !self.renewing
        {
            self.resolve_seal(seal);
        }
        self.check();
    }

    fn resolve_seal(&mut self, seal: u64) {
        let above = self.sent.partition_point(|sent| sent.sequence <= seal);
        if self.sent.range(above..).any(|s| s.outstanding.is_some()) {
            return;
        }
        let unsure = self.sent.range(above..).any(|sent| sent.unsure);
        let hole = self.hole.is_some_and(|hole| hole > seal);
        self.seal_renews |= unsure || hole;
        if !self.seal_renews {
            self.requeue(above);
            self.next_sequence = seal;
            self.seal = None;
        } else if above == 0 {
            self.renew();
        }
    }

    /// Puts the batches from this place on back, as if never sent. They must certainly not be written.
    fn requeue(&mut self, from: usize) {
        while self.sent.len() > from {
            let sent = self.remove(self.sent.len() - 1);
            assert!(
                sent.outstanding.is_none(),
                "an attempt that is out is not over"
            );
            self.queue.push_front(sent.item);
        }
    }

    /// Gives the id up. What may have been written is unknown; what certainly was not goes on.
    fn renew(&mut self) {
        assert_eq!(self.outstanding, 0);
        // From the first batch on that certainly was not written, none was (the gap).
        let gap = self
            .sent
            .iter()
            .position(|sent| !sent.unsure || self.is_above_seal(sent))
            .unwrap_or(self.sent.len());
        self.requeue(gap);
        while !self.sent.is_empty() {
            let sent = self.remove(0);
            let cause = sent.item.refused.as_ref().map(|r| r.error.to_string());
            let cause = cause.unwrap_or_else(|| "the producer was given up".to_owned());
            let error = unknown(&sent.item, &cause);
            self.settle(sent.item, Err(error));
        }
        self.producer = None;
        self.next_sequence = 0;
        self.hole = None;
        self.seal = None;
        self.seal_renews = false;
        self.renewing = false;
    }

    fn check(&self) {
        assert_eq!(self.outstanding + self.idle, self.sent.len());
        assert!(self.seal.is_some() || !self.seal_renews);
        if let Some(last) = self.sent.back() {
            assert!(self.producer.is_some() && last.sequence < self.next_sequence);
        }
    }
}

fn unknown<T>(item: &Item<T>, cause: &str) -> ClientError {
    ClientError::Unknown {
        code: item.refused.as_ref().and_then(|refused| refused.code),
        cause: cause.to_owned(),
        attempts: item.attempts,
    }
}

/// The error of a batch whose time is up and that certainly was not written.
fn not_written<T>(item: &Item<T>, cause: &str) -> ClientError {
    let (code, cause) = match &item.refused {
        Some(refused) => (refused.code, refused.error.to_string()),
        None => (None, cause.to_owned()),
    };
    ClientError::Unavailable {
        code,
        cause,
        attempts: item.attempts,
        leader: None,
    }
}

#[cfg(test)]
mod tests;
