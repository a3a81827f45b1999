//! How long flushes took lately, so that a disk that has become slow shows, and one that hangs.
//!
//! Times are counted in powers of two over two windows: the one that fills and the one before it, so what is
//! told is of the last 10 to 20 seconds.

use crate::event::RecentFlushes;

/// Microseconds of one window.
const WINDOW_US: u64 = 10_000_000;

/// Power-of-two buckets; the last one holds everything from 2^30 us on.
const BUCKETS: usize = 32;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    counts: [u64; BUCKETS],
    us_max: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    started_us: u64,
    present: Window,
    before: Window,
}

impl Flushes {
    /// A flush completed at `now_us` and had taken `us`.
    pub(super) fn completed(&mut self, now_us: u64, us: u64) {
        let age_us = now_us.saturating_sub(self.started_us);
        if age_us >= WINDOW_US {
            let is_next = age_us < 2 * WINDOW_US;
            self.before = if is_next {
                self.present
            } else {
                Window::default()
            };
            self.present = Window::default();
            self.started_us = now_us;
        }
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.present.counts[bucket.min(BUCKETS - 1)] += 1;
        self.present.us_max = self.present.us_max.max(us);
    }

    /// What was seen lately.
    pub(super) fn recent(&self) -> RecentFlushes {
        let count_of = |bucket: usize| self.present.counts[bucket] + self.before.counts[bucket];
        let total: u64 = (0..BUCKETS).map(count_of).sum();
        let us_max = self.present.us_max.max(self.before.us_max);
        // The upper end of the bucket that the rank falls into.
        let quantile = |permille: u64| {
            let rank = (total * permille).div_ceil(1000);
            let mut below = 0;
            let bucket = (0..BUCKETS).find(|bucket| {
                below += count_of(*bucket);
                below >= rank
            });
            bucket.map_or(0, |bucket| (1_u64 << bucket).min(us_max))
        };
        RecentFlushes {
            count: total,
            us_p50: if total == 0 { 0 } else { quantile(500) },
            us_p99: if total == 0 { 0 } else { quantile(990) },
            us_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_slow_shows_and_is_forgotten() {
        let mut flushes = Flushes::default();
        assert_eq!(flushes.recent(), RecentFlushes::default());
        for at_us in 0..99 {
            flushes.completed(at_us, 100);
        }
        flushes.completed(100, 70_000);
        let recent = flushes.recent();
        assert_eq!(
            (recent.count, recent.us_p50, recent.us_p99),
            (100, 128, 128)
        );
        assert_eq!(recent.us_max, 70_000);
        flushes.completed(WINDOW_US, 70_000);
        assert_eq!(flushes.recent().us_p99, 70_000);
        assert_eq!(flushes.recent().count, 101);
        // Two windows later nothing of it counts any more.
        flushes.completed(4 * WINDOW_US, 90);
        let recent = flushes.recent();
        assert_eq!((recent.count, recent.us_p50, recent.us_max), (1, 90, 90));
    }
}
