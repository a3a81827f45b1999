//! Whether a peer keeps up, measured in rounds (thesis section 4.2.1).
//!
//! A round ends when the peer has what the log held when the round began. If the last one took less
//! than an election timeout, promoting the peer costs the cluster at most about that much waiting.

/// One peer's rounds.
pub(super) struct CatchUp {
    /// The log's end when the round began.
    target_index: u64,
    started_us: u64,
    /// The last completed round was short enough.
    last_was_short: bool,
}

impl CatchUp {
    pub(super) fn new(target_index: u64, now_us: u64) -> CatchUp {
        CatchUp {
            target_index,
            started_us: now_us,
            last_was_short: false,
        }
    }

    /// The peer has everything up to `match_index` of a log that ends at `last_index`.
    pub(super) fn advanced(
        &mut self,
        now_us: u64,
        match_index: u64,
        last_index: u64,
        round_us_max: u64,
    ) {
        if match_index < self.target_index {
            return;
        }
        self.last_was_short = now_us.saturating_sub(self.started_us) < round_us_max;
        self.target_index = last_index;
        self.started_us = now_us;
    }

    /// Whether the peer has all there is, or the round under way is still as short as the last one was.
    pub(super) fn is_caught_up(
        &self,
        now_us: u64,
        match_index: u64,
        last_index: u64,
        round_us_max: u64,
    ) -> bool {
        let round_is_short = now_us.saturating_sub(self.started_us) < round_us_max;
        match_index > 0 && (match_index == last_index || self.last_was_short && round_is_short)
    }
}
