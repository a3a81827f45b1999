//! What time it is by the log: append times are leaders' clocks, and only they decide who holds what. A consumer's own
//! clock only tells how much has passed since it last saw one.

use std::time::Duration;

use tokio::time::Instant;

pub(crate) struct Clock {
    seen: Option<(u64, Instant)>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { seen: None }
    }

    /// A record of this append time was read. One that was read late tells less than one that was read at once.
    pub(crate) fn see(&mut self, time_us: u64) {
        if time_us >= self.now_us() {
            self.set(time_us);
        }
    }

    /// A record of this append time was appended just now.
    pub(crate) fn set(&mut self, time_us: u64) {
        self.seen = Some((time_us, Instant::now()));
    }

    /// The time by the log, as well as is known.
    pub(crate) fn now_us(&self) -> u64 {
        self.seen.map_or(0, |(time_us, at)| {
            let since = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
            time_us.saturating_add(since)
        })
    }

    /// When it will be this time by the log.
    pub(crate) fn instant(&self, time_us: u64) -> Instant {
        Instant::now() + Duration::from_micros(time_us.saturating_sub(self.now_us()))
    }
}
