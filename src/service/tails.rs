//! Tailing readers: pushed to as the commit index moves, within the credit each gives.
//!
//! A reader without credit, or that does not read its socket, stops only itself. What it gets is slices
//! of the log's own bytes.

use std::collections::{HashMap, VecDeque};

use drave_batch::wire::{self, ErrorCode};
use drave_net::ConnId;
use drave_wal::{ReadError, Slices};

use super::reads::{out_of_range, unreadable};
use super::scan::{Cursor, Found, Step};
use super::{CLIENT_QUEUE_BYTES_HIGH, Context};
use crate::node::JobKey;
use crate::replica::{Refusal, ReplyTo};

/// Between signs of life to a reader that has everything.
pub(crate) const KEEPALIVE_US: u64 = 500_000;

/// Bytes of batches in one frame to a tailing reader, unless one batch is larger.
const TAIL_BYTES_MAX: usize = 256 << 10;

const STEPS_MAX: usize = 4;

/// Credit that a reader may have open.
const CREDIT_MAX: i64 = 64 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Has everything committed; wakes when its log advances.
    CaughtUp,
    /// In the queue of those to be served.
    Runnable,
    /// Waits for the helper thread.
    Disk,
    /// Waits for credit.
    Credit,
    /// Waits for its client to read, or for the helper to have room; tried again each turn.
    Stalled,
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
    by_request: HashMap<(u64, u64), u64>,
    by_log: HashMap<u64, Vec<u64>>,
    runnable: VecDeque<u64>,
    stalled: VecDeque<u64>,
}

impl Tails {
    pub(super) fn new(tails_max: usize) -> Self {
        Self {
            tails_max,
            // Odd: see `reads::KEY_STEP`.
            next_key: 1,
            tails: HashMap::new(),
            by_request: HashMap::new(),
            by_log: HashMap::new(),
            runnable: VecDeque::new(),
            stalled: VecDeque::new(),
        }
    }

    pub(super) fn start(
        &mut self,
        context: &mut Context<'_>,
        to: ReplyTo,
        request: &wire::TailStart,
    ) {
        let Some(log) = context.replica.catalogue().log(request.log_id) else {
            context.refuse_absent(to, &format!("log {}", request.log_id), false);
            return;
        };
        let next_seq = if context.replica.is_leader() {
            log.next_seq
        } else {
            u64::MAX
        };
        if let Some(refusal) = out_of_range(request.from_seq, log.first_seq, next_seq) {
            context.refuse(to, &refusal);
            return;
        }
        if self.tails.len() >= self.tails_max || self.by_request.contains_key(&key_of(to)) {
            let message = format!(
                "{} tailing readers, at most {}",
                self.tails.len(),
                self.tails_max
            );
            context.refuse(to, &Refusal::new(ErrorCode::Busy, message));
            return;
        }
        let key = self.next_key;
        self.next_key += 2;
        let tail = Tail {
            to,
            cursor: Cursor::new(request.log_id, request.from_seq),
            credit_bytes: i64::from(request.credit_bytes).min(CREDIT_MAX),
            found: Found::default(),
            state: State::Runnable,
        };
        self.tails.insert(key, tail);
        self.by_request.insert(key_of(to), key);
        self.by_log.entry(request.log_id).or_default().push(key);
        self.runnable.push_back(key);
    }

    pub(super) fn credit(&mut self, to: ReplyTo, credit_bytes: u32) {
        let Some(key) = self.by_request.get(&key_of(to)) else {
            return;
        };
        if let Some(tail) = self.tails.get_mut(key) {
            tail.credit_bytes = (tail.credit_bytes + i64::from(credit_bytes)).min(CREDIT_MAX);
            if tail.state == State::Credit {
                tail.state = State::Runnable;
                self.runnable.push_back(*key);
            }
        }
    }

    pub(super) fn stop(&mut self, to: ReplyTo) {
        if let Some(key) = self.by_request.get(&key_of(to)).copied() {
            self.remove(key);
        }
    }

    pub(super) fn on_closed(&mut self, conn: ConnId) {
        let keys: Vec<u64> = self
            .tails
            .iter()
            .filter(|(_, tail)| tail.to.connection == conn.number())
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(tail) = self.tails.remove(&key) else {
            return;
        };
        self.by_request.remove(&key_of(tail.to));
        if let Some(keys) = self.by_log.get_mut(&tail.cursor.log_id) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_log.remove(&tail.cursor.log_id);
            }
        }
    }

    /// The committed end of a log has moved.
    pub(super) fn advanced(&mut self, log_id: u64) {
        for key in self.by_log.get(&log_id).into_iter().flatten() {
            if let Some(tail) = self.tails.get_mut(key)
                && tail.state == State::CaughtUp
            {
                tail.state = State::Runnable;
                self.runnable.push_back(*key);
            }
        }
    }

    pub(super) fn on_cold(
        &mut self,
        context: &Context<'_>,
        key: u64,
        result: Result<Slices, ReadError>,
    ) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        match result {
            Ok(slices) => {
                tail.cursor.take(&slices, TAIL_BYTES_MAX, &mut tail.found);
                tail.state = State::Runnable;
                self.runnable.push_back(key);
            }
            Err(error) => {
                context.refuse(tail.to, &unreadable(&error));
                self.remove(key);
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.runnable.is_empty()
    }

    pub(super) fn turn(&mut self, context: &mut Context<'_>) {
        for _ in 0..self.stalled.len() {
            if let Some(key) = self.stalled.pop_front() {
                self.run(context, key);
            }
        }
        for _ in 0..self.runnable.len() {
            if let Some(key) = self.runnable.pop_front() {
                self.run(context, key);
            }
        }
    }

    fn run(&mut self, context: &mut Context<'_>, key: u64) {
        let Some(tail) = self.tails.get_mut(&key) else {
            return;
        };
        if context
            .net
            .queued_bytes(ConnId::from_number(tail.to.connection))
            > CLIENT_QUEUE_BYTES_HIGH
        {
            tail.state = State::Stalled;
            self.stalled.push_back(key);
            return;
        }
        let commit_index = context.replica.applied_index();
        for _ in 0..STEPS_MAX {
            if tail.credit_bytes <= 0 {
                tail.state = State::Credit;
                return;
            }
            let Some(log) = context.replica.catalogue().log(tail.cursor.log_id) else {
                break;
            };
            if log.first_seq > tail.cursor.seq {
                let refusal = out_of_range(tail.cursor.seq, log.first_seq, u64::MAX);
                context.refuse(tail.to, &refusal.expect("the seq is before the first one"));
                self.remove(key);
                return;
            }
            let bytes_max = TAIL_BYTES_MAX.min(tail.credit_bytes as usize);
            let data = wire::TailData {
                log_id: log.log_id,
                first_seq: log.first_seq,
                next_seq: log.next_seq,
            };
            match tail.cursor.step(
                log,
                &context.log.wal,
                commit_index,
                bytes_max,
                &mut tail.found,
            ) {
                Ok(Step::Moved) => {}
                Ok(Step::Full) => tail.send(context, &data),
                Ok(Step::End) => {
                    // Also when nothing was found: the reader hears that it has everything.
                    tail.send(context, &data);
                    tail.state = State::CaughtUp;
                    return;
                }
                Ok(Step::Cold(job)) => {
                    if context.helper.submit(JobKey::Scan(key), job) {
                        tail.state = State::Disk;
                    } else {
                        tail.state = State::Stalled;
                        self.stalled.push_back(key);
                    }
                    return;
                }
                Err(error) => {
                    context.refuse(tail.to, &unreadable(&error));
                    self.remove(key);
                    return;
                }
            }
        }
        tail.state = State::Runnable;
        self.runnable.push_back(key);
    }

    pub(super) fn keepalive(&mut self, context: &mut Context<'_>) {
        for tail in self.tails.values_mut() {
            let Some(log) = context.replica.catalogue().log(tail.cursor.log_id) else {
                continue;
            };
            // One that waits for its own credit or reads too slowly has frames of ours to live on.
            if matches!(tail.state, State::CaughtUp | State::Credit) {
                let data = wire::TailData {
                    log_id: log.log_id,
                    first_seq: log.first_seq,
                    next_seq: log.next_seq,
                };
                context.reply(tail.to, &data, &[]);
            }
        }
    }
}

impl Tail {
    fn send(&mut self, context: &Context<'_>, data: &wire::TailData) {
        self.credit_bytes -= self.found.bytes as i64;
        context.reply(self.to, data, &self.found.pieces);
        self.found = Found::default();
    }
}

fn key_of(to: ReplyTo) -> (u64, u64) {
    (to.connection, to.request_id)
}
