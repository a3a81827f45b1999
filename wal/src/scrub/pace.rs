//! How fast is scrubbed: bytes per second, on a clock that the caller reads.

const SECOND_US: u64 = 1_000_000;

/// A rate that is never exceeded for longer than one piece takes; time without reading is not made up for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    next_us: u64,
}

impl Pace {
    /// At most `bytes_per_second`; 0 is taken for 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            next_us: 0,
        }
    }

    /// Counts bytes read by `now_us`, and gives when the next may be read; microseconds of a clock that does not go
    /// back.
    pub fn spend(&mut self, now_us: u64, bytes: u64) -> u64 {
        let took_us = u128::from(bytes) * u128::from(SECOND_US) / u128::from(self.bytes_per_second);
        let took_us = u64::try_from(took_us).unwrap_or(u64::MAX);
        self.next_us = self.next_us.max(now_us).saturating_add(took_us);
        self.next_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over any time from a read on, no more is read than the rate allows and one piece.
        #[test]
        fn the_rate_is_held(
            rate in 1..200_000_000_u64,
            reads in prop::collection::vec((0..4_000_000_u64, 0..3_000_000_u64), 1..60),
        ) {
            let mut pace = Pace::new(rate);
            let (mut now_us, mut read) = (7, Vec::new());
            for (bytes, late_us) in reads {
                let next_us = pace.spend(now_us, bytes);
                read.push((now_us, bytes));
                prop_assert!(next_us >= now_us);
                now_us = next_us + late_us;
            }
            for from in 0..read.len() {
                let mut sum = 0;
                for (at_us, bytes) in &read[from..] {
                    let allowed = u128::from(at_us - read[from].0) * u128::from(rate) / 1_000_000;
                    // The microseconds are whole numbers, rounded down for each piece.
                    prop_assert!(sum <= allowed + u128::from(rate) * 60 / 1_000_000 + 60);
                    sum += u128::from(*bytes);
                }
            }
        }
    }

    #[test]
    fn time_without_reading_is_not_made_up_for() {
        let mut pace = Pace::new(1_000_000);
        assert_eq!(pace.spend(100, 500), 600);
        assert_eq!(pace.spend(10_000_000, 500), 10_000_500);
        assert_eq!(Pace::new(0).spend(0, 2), 2_000_000);
        assert_eq!(Pace::new(1).spend(5, u64::MAX), u64::MAX);
    }
}
