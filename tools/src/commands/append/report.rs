//! What became of each input line, as a summary and as an error. Pure bookkeeping.

use std::fmt::{self, Write};
use std::io;
use std::ops::Range;
use std::time::Duration;

use drave_batch::wire::ErrorCode;
use drave_client::ClientError;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::pipeline::Acked;
use crate::cli::ResultFormat;
use crate::connect::client_error;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::lines::LongLine;
use crate::output::{brief, per_second, thousands};

/// Longest latency that is told apart from longer ones.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Ranges or lines that an error names one by one.
const NAMED_MAX: usize = 5;

/// Ascending ranges of line numbers; neighbours are merged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LineRanges(Vec<Range<u64>>);

impl LineRanges {
    /// Adds lines behind those that are there.
    pub fn push(&mut self, lines: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == lines.start => last.end = lines.end,
            _ => self.0.push(lines),
        }
    }

    /// How many lines.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|lines| lines.end - lines.start).sum()
    }
}

impl fmt::Display for LineRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.count() == 1 { "line " } else { "lines " })?;
        for (place, lines) in self.0.iter().take(NAMED_MAX).enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            let (first, last) = (lines.start, lines.end - 1);
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

/// The books of one append.
#[derive(Debug)]
pub struct Report {
    acknowledged: LineRanges,
    unknown: LineRanges,
    refused: LineRanges,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    batches: u64,
    latency_us: Histogram<u64>,
    unknown_error: Option<ClientError>,
    refusal: Option<ClientError>,
    output_error: Option<CliError>,
    /// Bytes of a record at most, as far as is known.
    pub record_bytes_max: u64,
    /// Lines over that limit.
    pub too_long: Vec<LongLine>,
    /// Why the input ended early.
    pub input_error: Option<io::Error>,
    /// The line from which on nothing was sent, when the input was not used up.
    pub not_sent_from: Option<u64>,
    /// The user stopped it.
    pub interrupted: bool,
    /// From the start to the last outcome.
    pub elapsed: Duration,
}

#[derive(Serialize)]
struct Summary<'a> {
    log: &'a str,
    records: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    batches: u64,
    not_acknowledged: u64,
    seconds: f64,
    records_per_second: f64,
    latency_us_p50: u64,
    latency_us_p99: u64,
    latency_us_max: u64,
}

impl Report {
    /// Empty books, where a record may have so many bytes.
    #[must_use]
    pub fn new(record_bytes_max: u64) -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .expect("the bounds are constant and valid");
        Self {
            acknowledged: LineRanges::default(),
            unknown: LineRanges::default(),
            refused: LineRanges::default(),
            first_seq: None,
            last_seq: None,
            batches: 0,
            latency_us,
            unknown_error: None,
            refusal: None,
            output_error: None,
            record_bytes_max,
            too_long: Vec::new(),
            input_error: None,
            not_sent_from: None,
            interrupted: false,
            elapsed: Duration::ZERO,
        }
    }

    /// A batch of these lines is in the log.
    pub fn acknowledged(&mut self, lines: Range<u64>, acked: Acked, latency: Duration) {
        self.acknowledged.push(lines);
        self.first_seq.get_or_insert(acked.first_seq);
        self.last_seq = Some(acked.first_seq + acked.record_count - 1);
        self.batches += 1;
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record_n(us, acked.record_count);
    }

    /// A batch of these lines failed.
    pub fn failed(&mut self, lines: Range<u64>, error: ClientError) {
        if error.has_no_side_effects() {
            self.refused.push(lines);
            self.refusal.get_or_insert(error);
        } else {
            self.unknown.push(lines);
            self.unknown_error.get_or_insert(error);
        }
    }

    /// Seqs could not be printed. A reader that went away does not count: the records are what matters.
    pub fn output_failed(&mut self, error: CliError) {
        if error.exit != Exit::Success {
            self.output_error = Some(error);
        }
    }

    /// Records acknowledged.
    #[must_use]
    pub fn record_count(&self) -> u64 {
        self.acknowledged.count()
    }

    /// The summary, its last newline included.
    #[must_use]
    pub fn summary(&self, log: &str, format: ResultFormat) -> String {
        let records = self.record_count();
        let summary = Summary {
            log,
            records,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            batches: self.batches,
            not_acknowledged: self.unknown.count()
                + self.refused.count()
                + self.too_long.len() as u64,
            seconds: self.elapsed.as_secs_f64(),
            records_per_second: per_second(records, self.elapsed),
            latency_us_p50: self.latency_us.value_at_quantile(0.5),
            latency_us_p99: self.latency_us.value_at_quantile(0.99),
            latency_us_max: self.latency_us.max(),
        };
        if format == ResultFormat::Json {
            let mut text =
                serde_json::to_string(&summary).expect("plain fields into memory cannot fail");
            text.push('\n');
            return text;
        }
        let seq = |seq: Option<u64>| seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        let latency = |us| brief(Duration::from_micros(us));
        format!(
            "records    {}\nfirst seq  {}\nlast seq   {}\nrate       {}/s over {}\np50        {}\np99        {}\n",
            thousands(records),
            seq(self.first_seq),
            seq(self.last_seq),
            thousands(summary.records_per_second as u64),
            brief(self.elapsed),
            latency(summary.latency_us_p50),
            latency(summary.latency_us_p99),
        )
    }

    /// Why not everything is well, or `None` when every line was acknowledged and told.
    #[must_use]
    pub fn error(&self, log: &str) -> Option<CliError> {
        let error = if self.interrupted
            && (self.not_sent_from.is_some() || self.unknown_error.is_some())
        {
            CliError::new(Exit::Interrupted, "interrupted")
                .next("append the lines that are not in the log again")
        } else if let Some(cause) = &self.unknown_error {
            let from = self.last_seq.map_or(0, |seq| seq + 1);
            client_error(&format!("{} not acknowledged", self.unknown), cause).next(format!(
                "read the log from seq {from} on to see which of them it holds, then append the rest again"
            ))
        } else if let Some(cause) = &self.refusal {
            client_error(&format!("{} refused", self.refused), cause)
        } else if let Some(cause) = &self.input_error {
            CliError::new(Exit::Failure, "cannot read standard input").why(cause.to_string())
        } else if let Some(first) = self.too_long.first() {
            let more = match self.too_long.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            CliError::new(
                Exit::Precondition,
                format!("line {}{more} refused: over the limit", first.line),
            )
            .code(ErrorCode::TooLarge)
            .why(self.too_long_lines())
            .next("split the long lines; every other line is in the log")
        } else {
            return self
                .output_error
                .clone()
                .map(|error| error.effect(self.effect()));
        };
        Some(error.with("log", log).effect(self.effect()))
    }

    fn too_long_lines(&self) -> String {
        let mut text = format!("a record is at most {} bytes", self.record_bytes_max);
        for line in self.too_long.iter().take(NAMED_MAX) {
            let _ = write!(text, "\nline {} has {} bytes", line.line, line.bytes);
        }
        text
    }

    fn effect(&self) -> String {
        let mut rows = Vec::new();
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            rows.push(format!(
                "{}: in the log, at seqs from {first} to {last}",
                self.acknowledged
            ));
        } else {
            rows.push("nothing was acknowledged".to_owned());
        }
        if self.unknown.count() > 0 {
            rows.push(format!(
                "{}: unknown, may be in the log or get there yet",
                self.unknown
            ));
        }
        if self.refused.count() > 0 {
            rows.push(format!("{}: not in the log", self.refused));
        }
        if !self.too_long.is_empty() {
            let mut lines = LineRanges::default();
            self.too_long
                .iter()
                .for_each(|long| lines.push(long.line..long.line + 1));
            rows.push(format!("{lines}: not in the log, over the limit"));
        }
        if let Some(line) = self.not_sent_from {
            rows.push(format!("line {line} and all after it: not sent"));
        }
        rows.join("\n")
    }
}

#[cfg(test)]
mod tests;
