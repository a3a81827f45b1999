//! Tailing readers: pushed to as the commit index moves, within the credit each gives.
//!
//! A reader without credit, or that does not read its socket, stops only itself. What it gets is slices
//! of the log's own bytes.

use std::collections::{HashMap, HashSet};

use drave_batch::wire::{self, ErrorCode};
use drave_net::ConnId;
use drave_wal::{ReadError, Slices};

use super::reads::{out_of_range, trimmed, unreadable};
use super::rounds::{After, FIRST_TAIL_KEY, KEY_STEP, Rounds};
use super::scan::{Cursor, Found, Step};
use super::{Context, absent, deleted};
use crate::replica::{Fatal, LogState, Refusal, ReplyTo, closed};

/// Between signs of life to a reader that has nothing to be given.
pub(crate) const KEEPALIVE_US: u64 = 500_000;

/// Bytes of batches in one frame to a tailing reader, unless one batch is larger.
const TAIL_BYTES_MAX: usize = 256 << 10;

/// Tailing readers of one connection: one client leaves room for others.
const TAILS_PER_CONNECTION_MAX: usize = 4096;

/// Credit that a reader may have open.
const CREDIT_MAX: i64 = 64 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Has everything committed; wakes when its log advances.
    CaughtUp,
    /// Waits for credit.
    Credit,
    /// Somewhere in the rounds.
    Scheduled,
}

struct Tail {
    to: ReplyTo,
    cursor: Cursor,
    credit_bytes: i64,
    found: Found,
    state: State,
}

/// All tailing readers.
pub(super) struct Tails {
    tails_max: usize,
    next_key: u64,
    tails: HashMap<u64, Tail>,
    /// By connection and request.
    by_request: HashMap<u64, HashMap<u64, u64>>,
    by_log: HashMap<u64, HashSet<u64>>,
}

/// Why a reader cannot begin where it asks to, as far as this replica knows.
fn no_such_place(context: &Context<'_>, request: &wire::TailStart) -> Option<Refusal> {
    let Some(log) = context.replica.catalogue().log(request.log_id) else {
        return Some(absent(&format!("log {}", request.log_id)));
    };
    // Elsewhere the log may have come further: the reader waits until it has come here.
    let next_seq = if context.replica.is_leader() {
        log.next_seq
    } else {
        u64::MAX
    };
    out_of_range(request.from_seq, log.first_seq, next_seq)
}

/// What a reader hears with each frame.
fn tail_data(log: &LogState) -> wire::TailData {
    wire::TailData {
        log_id: log.log_id,
        first_seq: log.first_seq,
        next_seq: log.next_seq,
        fence: log.rules.fence,
        fence_seq: log.fence_seq,
    }
}

impl Tails {
    pub(super) fn new(tails_max: usize) -> Self {
        Self {
            tails_max,
            next_key: FIRST_TAIL_KEY,
            tails: HashMap::new(),
            by_request: HashMap::new(),
            by_log: HashMap::new(),
        }
    }

    /// Takes a reader; what it is given first is looked for in its turn.
    pub(super) fn start(
        &mut self,
        context: &mut Context<'_>,
        rounds: &mut Rounds,
        to: ReplyTo,
        request: &wire::TailStart,
    ) -> Result<(), Fatal> {
        if let Some(refusal) = no_such_place(context, request) {
            return context.refuse_if_confirmed(to, refusal);
        }
        if let Some(message) = self.has_no_place(to) {
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return Ok(());
        }
        let key = self.next_key;
        self.next_key += KEY_STEP;
        let tail = Tail {
            to,
            cursor: Cursor::new(request.log_id, request.from_seq),
            credit_bytes: i64::from(request.credit_bytes).min(CREDIT_MAX),
            found: Found::default(),
            state: State::Scheduled,
        };
        self.tails.insert(key, tail);
        let requests = self.by_request.entry(to.connection).or_default();
        requests.insert(to.request_id, key);
        self.by_log.entry(request.log_id).or_default().insert(key);
        rounds.push(to.connection, key);
        Ok(())
    }

    /// Why one more reader is not taken.
    fn has_no_place(&self, to: ReplyTo) -> Option<String> {
        let (all, limit) = (self.tails.len(), self.tails_max);
        if all >= limit {
            return Some(format!("{all} tailing readers, at most {limit}"));
        }
        let requests = self.by_request.get(&to.connection)?;
        let (own, limit) = (requests.len(), TAILS_PER_CONNECTION_MAX);
        if own >= limit {
            return Some(format!(
                "{own} tailing readers of this connection, at most {limit}"
            ));
        }
        requests
            .contains_key(&to.request_id)
            .then(|| format!("request {} tails already", to.request_id))
    }

    fn key_of(&self, to: ReplyTo) -> Option<u64> {
        let requests = self.by_request.get(&to.connection)?;
        requests.get(&to.request_id).copied()
    }

    pub(super) fn credit(&mut self, rounds: &mut Rounds, to: ReplyTo, credit_bytes: u32) {
        let Some(key) = self.key_of(to) else {
            return;
        };
        if let Some(tail) = self.tails.get_mut(&key) {
            tail.credit_bytes = (tail.credit_bytes + i64::from(credit_bytes)).min(CREDIT_MAX);
            if tail.state == State::Credit {
                tail.schedule(rounds, key);
            }
        }
    }

    pub(super) fn stop(&mut self, rounds: &mut Rounds, to: ReplyTo) {
        if let Some(key) = self.key_of(to) {
            self.remove(key);
            rounds.forget(to.connection, key);
        }
    }

    /// A client is gone. Gives the keys of its readers.
    pub(super) fn on_closed(&mut self, conn: ConnId) -> Vec<u64> {
        let requests = self.by_request.remove(&conn.number()).unwrap_or_default();
        let keys: Vec<u64> = requests.into_values().collect();
        for key in &keys {
            self.remove(*key);
        }
        keys
    }

    fn remove(&mut self, key: u64) {
        let Some(tail) = self.tails.remove(&key) else {
            return;
        };
        if let Some(requests) = self.by_request.get_mut(&tail.to.connection) {
            requests.remove(&tail.to.request_id);
            if requests.is_empty() {
                self.by_request.remove(&tail.to.connection);
            }
        }
        if let Some(keys) = self.by_log.get_mut(&tail.cursor.log_id) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_log.remove(&tail.cursor.log_id);
            }
        }
    }

    /// The committed end of a log, or its beginning, has moved.
    pub(super) fn advanced(&mut self, rounds: &mut Rounds, log_id: u64) {
        for key in self.by_log.get(&log_id).into_iter().flatten() {
            if let Some(tail) = self.tails.get_mut(key)
                && tail.state == State::CaughtUp
            {
                tail.schedule(rounds, *key);
            }
        }
    }

    /// All logs may be others than they were.
    pub(super) fn replaced(&mut self, rounds: &mut Rounds) {
        for (key, tail) in &mut self.tails {
            if tail.state == State::CaughtUp {
                tail.schedule(rounds, *key);
            }
        }
    }

    /// Goes on with a reader, whose bytes from the disk may have arrived.
    pub(super) fn step(
        &mut self,
        context: &Context<'_>,
        key: u64,
        arrived: Option<Result<Slices, ReadError>>,
    ) -> After {
        let Some(tail) = self.tails.get_mut(&key) else {
            return After::Done;
        };
        let log = context.replica.catalogue().log(tail.cursor.log_id);
        let Some(log) = log else {
            let refusal = deleted(tail.cursor.log_id);
            return self.end(context, key, &refusal);
        };
        if tail.cursor.seq < log.first_seq {
            let refusal = trimmed(tail.cursor.seq, log.first_seq);
            return self.end(context, key, &refusal);
        }
        if arrived.is_none() {
            if context.outgoing(tail.to.connection).is_full() {
                return After::Stalled;
            }
            if tail.credit_bytes <= 0 {
                tail.state = State::Credit;
                return After::Done;
            }
        }
        let bytes_max = TAIL_BYTES_MAX.min(tail.credit_bytes as usize);
        let data = tail_data(log);
        let step = match arrived {
            Some(Ok(slices)) => Ok(tail
                .cursor
                .take_cold(&slices, TAIL_BYTES_MAX, &mut tail.found)),
            Some(Err(error)) => Err(error),
            None => tail.cursor.step(
                (&log.index, log.next_seq),
                &context.log.wal,
                context.replica.applied_index(),
                bytes_max,
                &mut tail.found,
            ),
        };
        match step {
            Ok(Step::Moved) => After::Again,
            Ok(Step::Full) => {
                tail.send(context, &data);
                After::Again
            }
            Ok(Step::End) => {
                // Also when nothing was found: the reader hears that it has everything.
                tail.send(context, &data);
                if log.rules.is_closed {
                    return self.end(context, key, &closed(log));
                }
                tail.state = State::CaughtUp;
                After::Done
            }
            Ok(Step::Missing) => {
                context.refuse_unconfirmed(tail.to);
                self.remove(key);
                After::Done
            }
            Ok(Step::Cold(job)) => After::Cold(job),
            Err(error) => self.end(context, key, &unreadable(&error)),
        }
    }

    fn end(&mut self, context: &Context<'_>, key: u64, refusal: &Refusal) -> After {
        if let Some(tail) = self.tails.get(&key) {
            context.refuse(tail.to, refusal);
        }
        self.remove(key);
        After::Done
    }

    /// Tells every reader that is still there, and where its log ends. One that does not read what it
    /// was given has frames to live on.
    pub(super) fn keepalive(&mut self, context: &Context<'_>) {
        for tail in self.tails.values() {
            let Some(log) = context.replica.catalogue().log(tail.cursor.log_id) else {
                continue;
            };
            if !context.outgoing(tail.to.connection).is_full() {
                context.reply(tail.to, &tail_data(log), &[]);
            }
        }
    }
}

impl Tail {
    fn schedule(&mut self, rounds: &mut Rounds, key: u64) {
        self.state = State::Scheduled;
        rounds.push(self.to.connection, key);
    }

    fn send(&mut self, context: &Context<'_>, data: &wire::TailData) {
        self.credit_bytes -= self.found.bytes as i64;
        context.reply(self.to, data, &self.found.pieces);
        self.found = Found::default();
    }
}
