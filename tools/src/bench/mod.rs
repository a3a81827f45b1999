//! Measuring the log beside the raw disk, in the same minutes on the same files' kind.
//!
//! `log` drives a log with so many appends waiting; `raw` is the plain loop of writes and flushes it is held
//! against; `environment` says what machine it was; `report` turns rounds into medians and ratios. Nothing
//! here prints.

pub mod environment;
pub mod log;
pub mod raw;
pub mod report;
pub mod rounds;

use std::time::Duration;

use hdrhistogram::Histogram;

/// Nanoseconds, three digits, whatever they are.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

/// Adds one latency; one beyond the histogram's range counts as the highest.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}

/// The value at `percentile` in microseconds; 0 of nothing.
#[must_use]
pub fn us_at(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e3
}
