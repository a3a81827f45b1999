//! The demo's writer: a window of batches in flight, and a note of every acknowledgement.
//!
//! It is driven step by step, so that the demo can do its deeds in the middle of it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drave_client::ClientError;
use hdrhistogram::Histogram;

use crate::commands::append::pipeline::Appender;

/// Records in one batch.
const BATCH_RECORDS: usize = 32;

/// Batches unacknowledged at most.
pub(super) const IN_FLIGHT_MAX: u32 = 32;

const LATENCY_US_MAX: u64 = 600_000_000;

struct Pending<Ticket> {
    places: Range<usize>,
    submitted: Instant,
    ticket: Ticket,
}

/// The writer and its notes.
pub(super) struct Load<'a, A: Appender> {
    appender: &'a A,
    records: &'a [Bytes],
    submitted: usize,
    pending: VecDeque<Pending<A::Ticket>>,
    /// Of each record the acknowledged seq.
    pub seqs: Vec<Option<u64>>,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// From submitting to acknowledgement, each record of a batch counted.
    pub latency_us: Histogram<u64>,
    /// Why batches were not acknowledged, if some were not: the first reason.
    pub failure: Option<ClientError>,
    last_acknowledged_at: Instant,
    longest_pause: Duration,
}

impl<'a, A: Appender> Load<'a, A> {
    /// A writer of `records` that has not begun.
    #[must_use]
    pub(super) fn new(appender: &'a A, records: &'a [Bytes]) -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .expect("the bounds are constant and valid");
        Self {
            appender,
            records,
            submitted: 0,
            pending: VecDeque::new(),
            seqs: vec![None; records.len()],
            acknowledged: 0,
            latency_us,
            failure: None,
            last_acknowledged_at: Instant::now(),
            longest_pause: Duration::ZERO,
        }
    }

    /// Submits until the window is full or nothing is left.
    ///
    /// # Errors
    /// The producer's, when it takes no batch.
    pub(super) async fn fill(&mut self) -> Result<(), ClientError> {
        while self.pending.len() < IN_FLIGHT_MAX as usize && self.submitted < self.records.len() {
            let end = self.records.len().min(self.submitted + BATCH_RECORDS);
            let places = self.submitted..end;
            let submitted = Instant::now();
            let ticket = self.appender.submit(&self.records[places.clone()]).await?;
            self.pending.push_back(Pending {
                places,
                submitted,
                ticket,
            });
            self.submitted = end;
        }
        Ok(())
    }

    /// Awaits what becomes of the oldest batch; `false` when none is in flight.
    pub(super) async fn settle_one(&mut self) -> bool {
        let Some(pending) = self.pending.pop_front() else {
            return false;
        };
        match pending.ticket.await {
            Ok(acked) => {
                assert_eq!(
                    acked.record_count,
                    pending.places.len() as u64,
                    "a batch is acknowledged whole"
                );
                for (place, seq) in pending.places.zip(acked.first_seq..) {
                    self.seqs[place] = Some(seq);
                }
                self.acknowledged += acked.record_count;
                let us = u64::try_from(pending.submitted.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record_n(us, acked.record_count);
                let now = Instant::now();
                self.longest_pause = self.longest_pause.max(now - self.last_acknowledged_at);
                self.last_acknowledged_at = now;
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
        true
    }

    /// Batches in flight.
    #[must_use]
    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Measures pauses anew from now on.
    pub(super) fn reset_pause(&mut self) {
        self.last_acknowledged_at = Instant::now();
        self.longest_pause = Duration::ZERO;
    }

    /// The longest time without an acknowledgement since [`reset_pause`](Self::reset_pause).
    #[must_use]
    pub(super) fn longest_pause(&self) -> Duration {
        self.longest_pause
    }
}
