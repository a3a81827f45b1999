//! Bounds the log lines that strangers can cause: so many a second, and then a count of the rest.

use std::cell::Cell;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);
const LINES_PER_WINDOW: u32 = 20;

/// Lets [`LINES_PER_WINDOW`] lines through per [`WINDOW`].
#[derive(Debug)]
pub(crate) struct LogLimit {
    window_start: Cell<Instant>,
    lines: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            window_start: Cell::new(now),
            lines: Cell::new(0),
            suppressed: Cell::new(0),
        }
    }

    /// `Some(n)` when a line may be written, which then says that `n` were not before it.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.window_start.get()) >= WINDOW {
            self.window_start.set(now);
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_PER_WINDOW {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.suppressed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_counted_and_told_later() {
        let start = Instant::now();
        let limit = LogLimit::new(start);
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(limit.admit(start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(limit.admit(start + WINDOW / 2), None);
        }
        assert_eq!(limit.admit(start + WINDOW), Some(5));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
