//! Whose scan goes on next: readers take turns by connection, within what one turn of the node's loop may
//! spend on them.
//!
//! A scan is known by its key and is in one place at a time: to be run, waiting for the helper thread to
//! have room, with the helper, or waiting for its client to read. Each run is one step of its cursor. So
//! neither a log with few records among many, nor a client with thousands of readers, nor a full helper
//! holds the thread from appends, or other clients from their turn. It knows nothing of logs.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use drave_wal::{ColdRead, ReadError, Slices};

use super::CLIENT_QUEUE_BYTES_HIGH;

/// Time that one turn of the loop spends on scans, give or take one step: an append, or a heartbeat,
/// never waits for longer.
const TURN_TIME_MAX: Duration = Duration::from_micros(500);

/// Steps of one turn, whatever the time says.
const TURN_STEPS_MAX: u32 = 1024;

/// Reads that scans may have with the helper, or unused: the rest of its places are for followers, and
/// a step's bytes are held for no more scans than these.
const COLD_READS_MAX: usize = 32;

/// How long a read waits for a client that takes no byte before the client is given up.
const STALL_US_MAX: u64 = 60_000_000;

/// Keys of reads are even, keys of tails odd.
pub(super) const KEY_STEP: u64 = 2;
pub(super) const FIRST_READ_KEY: u64 = 0;
pub(super) const FIRST_TAIL_KEY: u64 = 1;

/// Whether a key is a read's; otherwise it is a tail's.
pub(super) fn is_read(key: u64) -> bool {
    key.is_multiple_of(KEY_STEP)
}

/// What a step of a scan leaves to be done.
pub(super) enum After {
    /// It can go on at once.
    Again,
    /// Its client has to read first.
    Stalled,
    /// It needs bytes from a disk.
    Cold(ColdRead),
    /// Nothing, until it is pushed again.
    Done,
}

/// What one turn of the loop still has for scans.
pub(super) struct Budget {
    until: Instant,
    steps: u32,
}

impl Budget {
    pub(super) fn start() -> Self {
        Self {
            until: Instant::now() + TURN_TIME_MAX,
            steps: TURN_STEPS_MAX,
        }
    }

    /// Counts a step; `false` when it was the last one.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        self.steps -= 1;
        self.steps > 0 && now < self.until
    }
}

/// What is on its way to a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Outgoing {
    /// Bytes that wait for the client to read.
    pub queued_bytes: usize,
    /// Bytes that the client's socket has taken since it was connected.
    pub written_bytes: u64,
}

impl Outgoing {
    /// Whether the client is to read before it is given more.
    pub(super) fn is_full(self) -> bool {
        self.queued_bytes > CLIENT_QUEUE_BYTES_HIGH
    }
}

/// Scans of one connection that wait for it to be read.
#[derive(Debug)]
struct Stall {
    keys: Vec<u64>,
    written_bytes: u64,
    /// Since when the client has taken no byte.
    since_us: u64,
}

/// Where every scan is that does not wait for an event of its own.
#[derive(Default)]
pub(super) struct Rounds {
    runnable: FairQueue,
    /// Scans that need the helper while it has no room for them.
    deferred: FairQueue,
    helper_is_full: bool,
    /// Reads with the helper, with the connection of their scan as long as there is one.
    under_way: HashMap<u64, Option<u64>>,
    /// What the helper has read and its scan has not yet looked at.
    arrived: HashMap<u64, Result<Slices, ReadError>>,
    stalled: HashMap<u64, Stall>,
}

impl Rounds {
    /// A scan can go on.
    pub(super) fn push(&mut self, connection: u64, key: u64) {
        self.runnable.push(connection, key);
    }

    /// Whether [`Self::next`] has somebody at once. Others wait for the helper or for their clients, and
    /// an event comes from those.
    pub(super) fn has_work(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Begins a turn: who waited for its client goes on if that has read. `look` tells how a connection
    /// stands. Gives the connections that asked for reads and have not taken a byte for too long.
    pub(super) fn begin_turn(&mut self, now_us: u64, look: impl Fn(u64) -> Outgoing) -> Vec<u64> {
        self.helper_is_full = false;
        let mut given_up = Vec::new();
        let runnable = &mut self.runnable;
        self.stalled.retain(|connection, stall| {
            let outgoing = look(*connection);
            if !outgoing.is_full() {
                for key in &stall.keys {
                    runnable.push(*connection, *key);
                }
                return false;
            }
            if outgoing.written_bytes != stall.written_bytes {
                stall.written_bytes = outgoing.written_bytes;
                stall.since_us = now_us;
            } else if now_us.saturating_sub(stall.since_us) > STALL_US_MAX
                && stall.keys.iter().any(|key| is_read(*key))
            {
                given_up.push(*connection);
            }
            true
        });
        given_up
    }

    /// The scan whose turn it is, and its connection.
    pub(super) fn next(&mut self) -> Option<(u64, u64)> {
        if self.has_room_for_cold()
            && let Some(next) = self.deferred.pop()
        {
            return Some(next);
        }
        self.runnable.pop()
    }

    /// Whether a read may be given to the helper.
    pub(super) fn has_room_for_cold(&self) -> bool {
        !self.helper_is_full && self.under_way.len() + self.arrived.len() < COLD_READS_MAX
    }

    /// The scan's read is with the helper.
    pub(super) fn submitted(&mut self, connection: u64, key: u64) {
        self.under_way.insert(key, Some(connection));
    }

    /// The helper has no room for the scan's read, or may not be given more.
    pub(super) fn defer(&mut self, connection: u64, key: u64) {
        self.helper_is_full = true;
        self.deferred.push(connection, key);
    }

    /// The helper has read for a scan, which then can go on if it is still there.
    pub(super) fn on_cold(&mut self, key: u64, result: Result<Slices, ReadError>) {
        if let Some(Some(connection)) = self.under_way.remove(&key) {
            self.arrived.insert(key, result);
            self.runnable.push(connection, key);
        }
    }

    /// What the helper has read for a scan.
    pub(super) fn take_arrived(&mut self, key: u64) -> Option<Result<Slices, ReadError>> {
        self.arrived.remove(&key)
    }

    /// The scan waits for its client to read.
    pub(super) fn stall(&mut self, connection: u64, key: u64, now_us: u64, outgoing: Outgoing) {
        let stall = self.stalled.entry(connection).or_insert_with(|| Stall {
            keys: Vec::new(),
            written_bytes: outgoing.written_bytes,
            since_us: now_us,
        });
        stall.keys.push(key);
    }

    /// A scan is no more.
    pub(super) fn forget(&mut self, connection: u64, key: u64) {
        self.runnable.remove(connection, key);
        self.deferred.remove(connection, key);
        self.arrived.remove(&key);
        if let Some(owner) = self.under_way.get_mut(&key) {
            *owner = None;
        }
        if let Some(stall) = self.stalled.get_mut(&connection) {
            stall.keys.retain(|other| *other != key);
            if stall.keys.is_empty() {
                self.stalled.remove(&connection);
            }
        }
    }

    /// All of a connection's scans are no more, `keys` among them.
    pub(super) fn forget_connection(&mut self, connection: u64, keys: impl Iterator<Item = u64>) {
        self.runnable.remove_connection(connection);
        self.deferred.remove_connection(connection);
        self.stalled.remove(&connection);
        for key in keys {
            self.arrived.remove(&key);
            if let Some(owner) = self.under_way.get_mut(&key) {
                *owner = None;
            }
        }
    }
}

/// A queue that serves connections in turn, and each one's keys in order.
///
/// Invariant: a connection has a queue exactly when it is in `order`, once.
#[derive(Debug, Default)]
struct FairQueue {
    queues: HashMap<u64, VecDeque<u64>>,
    order: VecDeque<u64>,
}

impl FairQueue {
    fn push(&mut self, connection: u64, key: u64) {
        let order = &mut self.order;
        let queue = self.queues.entry(connection).or_insert_with(|| {
            order.push_back(connection);
            VecDeque::new()
        });
        queue.push_back(key);
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        while let Some(connection) = self.order.pop_front() {
            let queue = self.queues.get_mut(&connection)?;
            let key = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&connection);
            } else {
                self.order.push_back(connection);
            }
            // A queue whose keys were removed is empty, and is met once.
            if let Some(key) = key {
                return Some((connection, key));
            }
        }
        None
    }

    fn remove(&mut self, connection: u64, key: u64) {
        if let Some(queue) = self.queues.get_mut(&connection) {
            queue.retain(|other| *other != key);
        }
    }

    fn remove_connection(&mut self, connection: u64) {
        if self.queues.remove(&connection).is_some() {
            self.order.retain(|other| *other != connection);
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests;
