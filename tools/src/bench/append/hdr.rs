//! Latencies as a log of HdrHistogram, which its tools read: an interval for each run.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::report::Report;

/// Writes the runs one after the other, each tagged with its target.
///
/// # Errors
/// What `out` says.
pub fn write(out: &mut impl Write, runs: &[Report]) -> io::Result<()> {
    let mut serializer = V2Serializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("drave bench append; values in nanoseconds")
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    let mut start = Duration::ZERO;
    for run in runs {
        let length = Duration::from_secs_f64(run.seconds);
        let tag = Tag::new(run.target);
        let written = log.write_histogram(&run.histogram, start, length, tag);
        written.map_err(|error| io::Error::other(format!("{error:?}")))?;
        start += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::bench::append::compare::tests::run;

    #[test]
    fn what_is_written_is_read_again() {
        let mut out = Vec::new();
        write(&mut out, &[run("drave", 100.0), run("floor", 200.0)]).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&out).map(Result::unwrap).collect();
        let tags = entries.iter().filter_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval.tag().unwrap().as_str().to_owned()),
            _ => None,
        });
        assert_eq!(tags.collect::<Vec<_>>(), ["drave", "floor"]);
    }
}
