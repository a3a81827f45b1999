//! A node's clocks over the simulator's one time: a rate, an origin, jumps.

use drave::replica::Now;

/// Ticks of a clock per 1024 ticks of true time, when it runs true.
pub const RATE_TRUE: u64 = 1024;

/// A node's clocks. The monotonic one starts at every start of the process, as the product's does.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    rate: u64,
    /// True and own time when the rate was last set.
    origin_us: u64,
    mono_us: u64,
    /// Added to true time for the wall clock; may jump either way.
    wall_offset_us: i64,
}

impl Clock {
    /// A clock at `now_us` that shows zero.
    #[must_use]
    pub fn new(now_us: u64, rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            origin_us: now_us,
            mono_us: 0,
            wall_offset_us: 1_700_000_000_000_000,
        }
    }

    /// The process starts at `now_us`: its monotonic time begins anew.
    pub fn restart(&mut self, now_us: u64) {
        self.origin_us = now_us;
        self.mono_us = 0;
    }

    fn mono(&self, now_us: u64) -> u64 {
        self.mono_us + now_us.saturating_sub(self.origin_us) * self.rate / RATE_TRUE
    }

    /// What both clocks show at `now_us`.
    #[must_use]
    pub fn now(&self, now_us: u64) -> Now {
        let unix_us = now_us.saturating_add_signed(self.wall_offset_us);
        Now {
            mono_us: self.mono(now_us),
            unix_us,
        }
    }

    /// The first true time at which the monotonic clock shows at least `mono_us`.
    #[must_use]
    pub fn when(&self, mono_us: u64) -> u64 {
        if mono_us == u64::MAX {
            return u64::MAX;
        }
        let own = mono_us.saturating_sub(self.mono_us);
        self.origin_us + (own.saturating_mul(RATE_TRUE)).div_ceil(self.rate)
    }

    /// From now on the clock runs at `rate`.
    pub fn set_rate(&mut self, now_us: u64, rate: u64) {
        self.mono_us = self.mono(now_us);
        self.origin_us = now_us;
        self.rate = rate.max(1);
    }

    /// The wall clock jumps.
    pub fn jump_wall(&mut self, by_us: i64) {
        self.wall_offset_us = self.wall_offset_us.saturating_add(by_us);
    }

    /// The monotonic clock jumps forwards, as after the machine slept.
    pub fn jump_mono(&mut self, now_us: u64, by_us: u64) {
        self.mono_us = self.mono(now_us) + by_us;
        self.origin_us = now_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_time_that_shows_it() {
        for rate in [512, 1000, 1024, 1500, 3000] {
            let mut clock = Clock::new(1_000, rate);
            clock.set_rate(2_000, rate + 7);
            for deadline in [1, 999, 1_000, 12_345] {
                let at = clock.when(deadline);
                assert!(clock.now(at).mono_us >= deadline, "rate {rate}, {deadline}");
                assert!(at <= 2_000 || clock.now(at - 1).mono_us < deadline);
            }
        }
        assert_eq!(Clock::new(5, 1024).when(u64::MAX), u64::MAX);
    }
}
