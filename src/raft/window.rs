//! The in-flight window of one peer: bounded by messages, and by bytes as `pace` finds what the peer takes.

use super::config::Config;
use super::mutants::{Mutant, is_planted};
use super::pace::{Pace, Sent};
use alloc::collections::VecDeque;

/// Invariants: `bytes` is the sum over `flights`; last indexes ascend.
pub(super) struct Window {
    flights: VecDeque<Flight>,
    bytes: u64,
    messages_max: usize,
    pace: Pace,
}

struct Flight {
    last_index: u64,
    bytes: u64,
    sent: Sent,
}

impl Window {
    pub(super) fn new(config: &Config) -> Window {
        Window {
            flights: VecDeque::new(),
            bytes: 0,
            messages_max: config.window_entries_max as usize,
            pace: Pace::new(config.window_bytes_min, config.window_bytes_max),
        }
    }

    pub(super) fn clear(&mut self) {
        self.flights.clear();
        if !is_planted(Mutant::WindowLeaks) {
            self.bytes = 0;
        }
    }

    /// What was in flight is lost, or will be answered elsewhere: nothing is known of how much the peer takes.
    pub(super) fn restart(&mut self) {
        self.clear();
        self.pace.restart();
    }

    /// Bytes that may be in flight at present, apart from the peer's credit.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.pace.limit_bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn messages(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn last_index(&self) -> Option<u64> {
        self.flights.back().map(|flight| flight.last_index)
    }

    /// Bytes that may still be sent; 0 when the window is full either way.
    ///
    /// One message may overshoot, because an entry is never split.
    pub(super) fn room_bytes(&self, credit_bytes: u64) -> u64 {
        if self.flights.len() >= self.messages_max {
            return 0;
        }
        let limit_bytes = self.pace.limit_bytes().min(credit_bytes);
        limit_bytes.saturating_sub(self.bytes)
    }

    pub(super) fn push(&mut self, now_us: u64, last_index: u64, bytes: u64) {
        assert!(
            self.last_index().is_none_or(|last| last < last_index),
            "flights ascend"
        );
        self.flights.push_back(Flight {
            last_index,
            bytes,
            sent: self.pace.sent(now_us, self.bytes),
        });
        self.bytes += bytes;
    }

    /// Frees every message that ends at or below `index`.
    pub(super) fn release(&mut self, now_us: u64, index: u64) {
        let (mut bytes, mut last) = (0, None);
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.last_index <= index)
        {
            let flight = self.flights.pop_front().expect("front was just seen");
            self.bytes -= flight.bytes;
            bytes += flight.bytes;
            last = Some(flight.sent);
        }
        if let Some(last) = last {
            self.pace.acknowledged(now_us, bytes, last);
        }
    }
}
