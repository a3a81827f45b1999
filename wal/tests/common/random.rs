//! Random numbers for tests, from a seed that is printed.

/// A small generator: the same seed, the same numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// `DRAVE_TEST_SEED`, or another one for each run; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var("DRAVE_TEST_SEED").ok();
    let seed = match given {
        Some(text) => text.parse().expect("DRAVE_TEST_SEED is a number"),
        None => u64::from(std::process::id()) << 20,
    };
    println!("DRAVE_TEST_SEED={seed}");
    seed
}
