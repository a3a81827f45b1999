//! A small seeded generator (splitmix64). Not for secrets.

pub(super) struct Rng {
    state: u64,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A value in `[lo, hi)`. The modulo bias is of no consequence for timers.
    pub(super) fn range(&mut self, lo: u64, hi: u64) -> u64 {
        assert!(lo < hi, "an empty range has no value");
        lo + self.next() % (hi - lo)
    }
}
