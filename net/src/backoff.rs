//! Exponential backoff with seeded jitter: how long to wait before the next attempt.
//!
//! No clock and no entropy of its own: the caller waits, and the seed makes a run repeatable.

use std::time::Duration;

/// The first delay of [`Backoff::new`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// The longest delay of [`Backoff::new`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Delays that double from a minimum to a maximum. Each is drawn from the upper half of its step, so
/// that many who lost the same peer do not come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
    state: u64,
}

impl Backoff {
    /// Delays from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_bounds(BACKOFF_MIN, BACKOFF_MAX, seed)
    }

    /// Delays from `min` to `max`.
    ///
    /// # Panics
    /// If `min` is zero, which would spin, or over `max`.
    #[must_use]
    pub fn with_bounds(min: Duration, max: Duration, seed: u64) -> Self {
        assert!(!min.is_zero() && min <= max, "0 < min <= max");
        Self {
            min,
            max,
            step: min,
            state: seed,
        }
    }

    /// The delay before the next attempt; the one after it doubles.
    #[must_use]
    pub fn next_delay(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        let half = step / 2;
        let spread_ns = u64::try_from((step - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.random() % spread_ns.saturating_add(1).max(1))
    }

    /// An attempt succeeded: the next delay is the first again.
    pub fn reset(&mut self) {
        self.step = self.min;
    }

    /// SplitMix64: small, seeded, and good enough to spread delays.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_maximum_and_stay_in_their_half() {
        let mut backoff = Backoff::new(7);
        let mut step = BACKOFF_MIN;
        for _ in 0..12 {
            let delay = backoff.next_delay();
            assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
            step = (step * 2).min(BACKOFF_MAX);
        }
        assert_eq!(step, BACKOFF_MAX);
        backoff.reset();
        assert!(backoff.next_delay() <= BACKOFF_MIN);
    }

    #[test]
    fn the_seed_decides() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 8].map(|()| backoff.next_delay())
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
