//! Measuring the log beside the raw disk, in the same minutes on the same files' kind, and whole clusters.
//!
//! `append` drives a cluster, and what it is held against; `log` drives a log with so many appends waiting; `raw` is
//! the plain loop of writes and flushes it is held against; `copy` sends files through a socket into another, which
//! `catch_up` holds a joining node against; `growth` is what an append costs while something grows; `environment` says
//! what machine it was; `report` turns rounds into medians and ratios. Nothing here prints.

pub mod append;
pub mod catch_up;
pub mod copy;
pub mod environment;
pub mod growth;
pub mod log;
#[cfg(feature = "peers")]
pub mod peers;
pub mod raw;
pub mod report;
pub mod rounds;

use std::time::Duration;

use hdrhistogram::Histogram;

/// Nanoseconds up to a minute, three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Adds a latency that `count` things had; one beyond the histogram's range counts as the highest.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration, count: u64) {
    let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record_n(nanoseconds, count);
}

/// The value at `percentile` in microseconds; 0 of nothing.
#[must_use]
pub fn us_at(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_three_digits_and_do_not_overflow() {
        let mut found = histogram();
        record(&mut found, Duration::from_micros(180), 1);
        assert!((us_at(&found, 50.0) - 180.0).abs() < 0.2);
        record(&mut found, Duration::from_secs(3_600), 1);
        assert!(us_at(&found, 100.0) > 59e6);
        assert_eq!(found.len(), 2);
    }
}
