//! The in-flight window of one peer: bounded by messages and by bytes.

use super::mutants::{Mutant, is_planted};
use alloc::collections::VecDeque;

/// Invariants: `bytes` is the sum over `flights`; last indexes ascend.
pub(super) struct Window {
    flights: VecDeque<Flight>,
    bytes: u64,
    messages_max: usize,
    bytes_max: u64,
}

struct Flight {
    last_index: u64,
    bytes: u64,
}

impl Window {
    pub(super) fn new(messages_max: u32, bytes_max: u64) -> Window {
        let messages_max = messages_max as usize;
        Window {
            flights: VecDeque::new(),
            bytes: 0,
            messages_max,
            bytes_max,
        }
    }

    pub(super) fn clear(&mut self) {
        self.flights.clear();
        if !is_planted(Mutant::WindowLeaks) {
            self.bytes = 0;
        }
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
        self.bytes_max.min(credit_bytes).saturating_sub(self.bytes)
    }

    pub(super) fn push(&mut self, last_index: u64, bytes: u64) {
        assert!(
            self.last_index().is_none_or(|last| last < last_index),
            "flights ascend"
        );
        self.flights.push_back(Flight { last_index, bytes });
        self.bytes += bytes;
    }

    /// Frees every message that ends at or below `index`.
    pub(super) fn release(&mut self, index: u64) {
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.last_index <= index)
        {
            let flight = self.flights.pop_front().expect("front was just seen");
            self.bytes -= flight.bytes;
        }
    }
}
