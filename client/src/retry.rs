//! Pauses between attempts: exponential, capped, with jitter.
//!
//! Short on purpose: an election takes some hundred milliseconds, and a client that sleeps longer than
//! that prolongs the outage for its user.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The next pause of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    random: u64,
}

impl Backoff {
    /// A fresh one, with jitter of its own so that clients that failed together do not return together.
    pub(crate) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    fn seeded(seed: u64) -> Self {
        Self {
            pause: PAUSE_MIN,
            random: seed,
        }
    }

    /// Between half and all of the current step; the next step is twice as long, up to the cap.
    pub(crate) fn pause(&mut self) -> Duration {
        self.random = splitmix(self.random);
        let half = self.pause / 2;
        let jitter = half.mul_f64((self.random >> 11) as f64 / (1_u64 << 53) as f64);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        half + jitter
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.pause = PAUSE_MIN;
    }
}

fn splitmix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
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
