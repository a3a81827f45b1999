//! How many bytes a peer can usefully have in flight: twice what path and disk take in one round trip.
//!
//! Every acknowledgement is a sample of the rate: the bytes acknowledged between the sending of an append and
//! its answer. One that was sent with little in front of it is also a sample of the round trip: path, the peer's
//! flush, path. The limit is twice the highest rate times the shortest round trip of the last 5 to 10 seconds,
//! between a floor and a ceiling. It grows by up to two in each round trip while the window is what holds the
//! peer back, since then the rate grows with it; past that the rate stays, and more is not put in flight: it
//! would only wait in front of the peer's disk. Every 5 seconds no more than the floor is sent until there is a
//! new round trip, since behind a queue of its own making none can be seen (as BBR does). The limit goes to the
//! floor at once when what was in flight is lost or the connection is new: another path may be another world.
//! This decides nothing else; what the peer itself is ready to take is its credit.

/// Samples are of one or two such spans.
const SPAN_US: u64 = 5_000_000;

/// Twice one round trip: while the peer flushes one half, the other is on its way.
const ROUND_TRIPS: u64 = 2;

#[derive(Copy, Clone)]
struct Samples {
    bytes_per_second_max: u64,
    round_trip_us_min: u64,
}

const NONE: Samples = Samples {
    bytes_per_second_max: 0,
    round_trip_us_min: u64::MAX,
};

/// What is kept of an append while it is in flight.
#[derive(Copy, Clone)]
pub(super) struct Sent {
    at_us: u64,
    /// Acknowledged in all by then.
    delivered_bytes: u64,
    /// So little was in front of it that its round trip is that of path and disk.
    has_way: bool,
}

/// Invariant: `floor_bytes <= limit_bytes <= ceiling_bytes`.
pub(super) struct Pace {
    floor_bytes: u64,
    ceiling_bytes: u64,
    limit_bytes: u64,
    /// Acknowledged in all.
    delivered_bytes: u64,
    /// No more than the floor is sent until there is a new round trip.
    drains: bool,
    span_started_us: u64,
    present: Samples,
    before: Samples,
}

impl Pace {
    /// A floor above the ceiling counts as the ceiling.
    pub(super) fn new(floor_bytes: u64, ceiling_bytes: u64) -> Pace {
        let floor_bytes = floor_bytes.min(ceiling_bytes);
        Pace {
            floor_bytes,
            ceiling_bytes,
            limit_bytes: floor_bytes,
            delivered_bytes: 0,
            drains: false,
            span_started_us: 0,
            present: NONE,
            before: NONE,
        }
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What was known is of the past.
    pub(super) fn restart(&mut self) {
        (self.present, self.before) = (NONE, NONE);
        self.drains = false;
        self.limit_bytes = self.floor_bytes;
    }

    /// An append leaves, with so many bytes in flight in front of it.
    pub(super) fn sent(&self, now_us: u64, bytes_before: u64) -> Sent {
        Sent {
            at_us: now_us,
            delivered_bytes: self.delivered_bytes,
            has_way: bytes_before < self.floor_bytes,
        }
    }

    /// `bytes` were acknowledged at `now_us`, `last` being the last append of them.
    pub(super) fn acknowledged(&mut self, now_us: u64, bytes: u64, last: Sent) {
        self.delivered_bytes += bytes;
        self.begin_span(now_us);
        let round_trip_us = now_us.saturating_sub(last.at_us).max(1);
        let meanwhile_bytes = self.delivered_bytes - last.delivered_bytes;
        let rate = meanwhile_bytes.saturating_mul(1_000_000) / round_trip_us;
        let present = &mut self.present;
        present.bytes_per_second_max = present.bytes_per_second_max.max(rate);
        if last.has_way {
            present.round_trip_us_min = present.round_trip_us_min.min(round_trip_us);
            self.drains = false;
        }
        self.limit_bytes = if self.drains {
            self.floor_bytes
        } else {
            let useful_bytes = self.round_trip_bytes().saturating_mul(ROUND_TRIPS);
            useful_bytes.clamp(self.floor_bytes, self.ceiling_bytes)
        };
    }

    fn begin_span(&mut self, now_us: u64) {
        let age_us = now_us.saturating_sub(self.span_started_us);
        if age_us < SPAN_US {
            return;
        }
        let follows = age_us < 2 * SPAN_US;
        self.before = if follows { self.present } else { NONE };
        self.present = NONE;
        self.span_started_us = now_us;
        self.drains = true;
    }

    /// What the peer takes in one round trip.
    fn round_trip_bytes(&self) -> u64 {
        let (present, before) = (&self.present, &self.before);
        let rate = present
            .bytes_per_second_max
            .max(before.bytes_per_second_max);
        let round_trip_us = present.round_trip_us_min.min(before.round_trip_us_min);
        if round_trip_us == u64::MAX {
            return 0;
        }
        rate.saturating_mul(round_trip_us) / 1_000_000
    }
}
