//! Numbers that look random and come from one seed.

/// SplitMix64: small, seeded, and good enough to draw faults with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent source for a part of the work, so that one part's draws do not shift another's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In `[lo, hi)`.
    ///
    /// # Panics
    /// If that is empty.
    pub fn between(&mut self, lo: u64, hi: u64) -> u64 {
        assert!(lo < hi, "[{lo}, {hi}) is not empty");
        lo + self.draw() % (hi - lo)
    }

    /// True in so many of 1,000 cases.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.between(0, 1000) < chance
    }

    /// Brings them into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.between(0, end as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_and_stay_in_range() {
        let mut one = Random::new(7);
        let mut other = Random::new(7);
        let draws: Vec<u64> = (0..1000).map(|_| one.between(3, 6)).collect();
        assert!(draws.iter().all(|draw| (3..6).contains(draw)));
        assert!((3..6).all(|number| draws.contains(&number)));
        assert!(draws.iter().all(|draw| *draw == other.between(3, 6)));
        let hits = (0..10_000).filter(|_| one.per_mille(100)).count();
        assert!((800..1200).contains(&hits), "{hits}");
    }

    #[test]
    fn shuffling_keeps_everything() {
        let mut random = Random::new(1);
        let mut items: Vec<u64> = (0..20).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
