//! Pauses between attempts: exponential, capped, with jitter.
//!
//! Short on purpose: an election takes some hundred milliseconds, and a client that sleeps longer than
//! that prolongs the outage for its user.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The next pause of one operation: the framing crate's backoff with this client's bounds.
#[derive(Debug)]
pub(crate) struct Backoff(drave_net::backoff::Backoff);

impl Backoff {
    /// A fresh one, with jitter of its own so that clients that failed together do not return together.
    pub(crate) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    fn seeded(seed: u64) -> Self {
        Self(drave_net::backoff::Backoff::with_bounds(
            PAUSE_MIN, PAUSE_MAX, seed,
        ))
    }

    /// Between half and all of the current step; the next step is twice as long, up to the cap.
    pub(crate) fn pause(&mut self) -> Duration {
        self.0.next_delay()
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_over() {
        let mut backoff = Backoff::seeded(7);
        let mut step = PAUSE_MIN;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(PAUSE_MAX);
        }
        assert_eq!(step, PAUSE_MAX);
        backoff.reset();
        assert!(backoff.pause() <= PAUSE_MIN);
    }
}
