//! The two clocks, read in one place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::replica::Now;

/// Monotonic time since the node started, and wall-clock time for append times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        // A wall clock before 1970 gives append times of 0; nothing is decided by them.
        let unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, micros);
        Now {
            mono_us: micros(self.started.elapsed()),
            unix_us,
        }
    }

    /// Monotonic microseconds, as in [`Now`].
    pub(crate) fn mono_us(&self) -> u64 {
        self.mono_us_at(Instant::now())
    }

    /// The same of another instant; 0 for one before the node started.
    pub(crate) fn mono_us_at(&self, instant: Instant) -> u64 {
        let span = instant.saturating_duration_since(self.started);
        u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant of a monotonic time of this clock.
    pub(crate) fn instant(&self, mono_us: u64) -> Instant {
        // A deadline that does not fit (none at all is set) is an hour away.
        let span = Duration::from_micros(mono_us);
        self.started
            .checked_add(span)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }
}
