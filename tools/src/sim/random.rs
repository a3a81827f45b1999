//! The simulator's random numbers: small, fast, and the same on every platform and in every build.
//!
//! Each concern (plan, network, disks, faults, clients) draws from a stream of its own, so that taking one
//! fault away leaves the others' numbers as they were: what the shrinker relies on.

/// SplitMix64. The same seed and stream, the same numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this name (any number) of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self {
            state: seed ^ stream.wrapping_mul(0xA24B_AED4_963E_E407),
        };
        random.next();
        random
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of `[0, limit)`; 0 when the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 {
            return 0;
        }
        // Multiply-shift: no division, and the bias is far below anything a run can see.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number of `[lo, hi)`; `lo` when the range is empty.
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi.saturating_sub(lo))
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// True in every second case.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of the items, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// A number of `[lo, hi)`, every magnitude equally likely.
    pub fn magnitude(&mut self, lo: u64, hi: u64) -> u64 {
        let (lo, hi) = (lo.max(1), hi.max(2));
        let bits_lo = lo.ilog2();
        let bits = u64::from(hi.ilog2() - bits_lo) + 1;
        let shift = self.below(bits) as u32 + bits_lo;
        let base = 1u64 << shift;
        self.range(base.max(lo), (base * 2).min(hi).max(base.max(lo) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_ranges_and_streams_differ() {
        let mut random = Random::new(1, 2);
        for _ in 0..1000 {
            assert!((5..9).contains(&random.range(5, 9)));
            assert!((30..3000).contains(&random.magnitude(30, 3000)));
            assert!(random.below(3) < 3);
        }
        assert_eq!(random.range(7, 7), 7);
        assert_eq!(random.below(0), 0);
        assert_ne!(Random::new(1, 1).next(), Random::new(1, 2).next());
        assert_eq!(Random::new(3, 4).next(), Random::new(3, 4).next());
    }
}
