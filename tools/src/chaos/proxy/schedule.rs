//! When a frame is passed on: pure, drawn from a seed.

use std::time::{Duration, Instant};

use crate::chaos::random::Random;

/// How much is done to the frames of one direction of a connection, per mille and in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Held back, and those behind with it.
    pub(super) delay: u64,
    pub(super) delay_us_max: u64,
    /// Held back alone.
    pub(super) overtake: u64,
    pub(super) overtake_us_max: u64,
    /// Passed on a second time.
    pub(super) double: u64,
    pub(super) double_us_max: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            delay: 100,
            delay_us_max: 15_000,
            overtake: 50,
            overtake_us_max: 30_000,
            double: 50,
            double_us_max: 200_000,
        }
    }
}

/// When a frame is passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: Instant,
    pub(super) copy_at: Option<Instant>,
    pub(super) is_delayed: bool,
    pub(super) is_overtaken: bool,
}

impl Place {
    pub(super) fn times(&self) -> impl Iterator<Item = Instant> {
        [Some(self.at), self.copy_at].into_iter().flatten()
    }
}

/// The draws of one direction of a connection.
pub(super) struct Schedule {
    random: Random,
    rates: Rates,
    /// What was not held back alone is not passed on before this.
    in_order_at: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(random: Random, rates: Rates) -> Self {
        Self {
            random,
            rates,
            in_order_at: None,
        }
    }

    /// The place of the next frame. Draws the same numbers whether it is calm or not.
    pub(super) fn place(&mut self, now: Instant, calm: bool) -> Place {
        let rates = self.rates;
        let mut draw = |chance, us_max| {
            let (hit, us) = (
                self.random.per_mille(chance),
                self.random.between(1, us_max + 1),
            );
            (hit && !calm).then(|| Duration::from_micros(us))
        };
        let delay = draw(rates.delay, rates.delay_us_max);
        let overtake = draw(rates.overtake, rates.overtake_us_max);
        let double = draw(rates.double, rates.double_us_max);
        let in_order_at = self.in_order_at.map_or(now, |at| at.max(now));
        let at = match (overtake, delay) {
            (Some(alone), _) => in_order_at + alone,
            (None, delay) => {
                // From now on, not from the one before: else delays would add up without end.
                let at = in_order_at.max(now + delay.unwrap_or_default());
                self.in_order_at = Some(at);
                at
            }
        };
        Place {
            at,
            copy_at: double.map(|later| at + later),
            is_delayed: overtake.is_none() && delay.is_some(),
            is_overtaken: overtake.is_some(),
        }
    }
}
