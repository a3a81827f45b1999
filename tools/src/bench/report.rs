//! From rounds to figures: medians over rounds with their spread, percentiles over all rounds, and ratios
//! taken round by round.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::environment::Environment;
use super::rounds::{Case, CaseRound, Measured, RawSample};
use super::{histogram, us_at};
use crate::output::{per_second, plain_table, render_table};

/// Flushes in flight from which on the log is held against several raw writes at once.
const SEVERAL_FROM: f64 = 1.5;

const MIB: f64 = (1 << 20) as f64;

/// A figure over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the middle two.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of one figure per round; zeros of none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self {
                median: 0.0,
                min: 0.0,
                max: 0.0,
            };
        };
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Self {
            median: middle,
            min: *min,
            max: *max,
        }
    }
}

/// Percentiles over all rounds, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Half were no slower.
    pub p50: f64,
    /// Nine in ten were no slower.
    pub p90: f64,
    /// And so on.
    pub p99: f64,
    /// And so on.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: us_at(histogram, 50.0),
            p90: us_at(histogram, 90.0),
            p99: us_at(histogram, 99.0),
            p999: us_at(histogram, 99.9),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// A raw loop over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct RawReport {
    /// How writes were made durable.
    pub mode: &'static str,
    /// Writes at once; the median of the rounds.
    pub in_flight: f64,
    /// Bytes of a write.
    pub write_bytes: Spread,
    /// Durable MiB per second.
    pub mib_per_second: Spread,
    /// A write with its flush.
    pub latency_us: Latency,
}

/// The log against the raw disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// Bytes written per second, to the raw loop's with about as many in flight; goal: 0.95 or more.
    pub bytes: Spread,
    /// The same against one raw write at a time.
    pub bytes_one_in_flight: Spread,
    /// Median latency to a raw write's; with one waiting the goal is 1.10 or less.
    pub p50: Spread,
    /// p99.9 over all rounds to the raw loop's; with one waiting the goal is 2 or less.
    pub p999: f64,
}

/// What ends of segments cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rolls {
    /// Segments begun.
    pub count: u64,
    /// Appends that were waiting meanwhile.
    pub around: Latency,
    /// All others.
    pub elsewhere: Latency,
}

/// A case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// The log's engine.
    pub engine: &'static str,
    /// Body size.
    pub body_bytes: u32,
    /// Appends waiting.
    pub waiting: u32,
    /// Durable appends per second.
    pub appends_per_second: Spread,
    /// Bytes written per second, headers and padding included, in MiB.
    pub mib_per_second: Spread,
    /// Flushes per second.
    pub flushes_per_second: Spread,
    /// Bytes of a flush.
    pub flush_bytes: Spread,
    /// Flushes in flight over time.
    pub in_flight: Spread,
    /// Percent of flushes started while another ran or within 50 us of its end.
    pub back_to_back_percent: Spread,
    /// Percent of time with a flush in flight, at least.
    pub covered_percent: Spread,
    /// Processor time of the process per append, the load's own included.
    pub processor_ns_per_append: Spread,
    /// Percent of the machine's processor time that other processes and the kernel's threads used meanwhile.
    pub others_percent: Spread,
    /// From the turn that appended to the event.
    pub latency_us: Latency,
    /// Ends of segments.
    pub rolls: Rolls,
    /// The raw disk beside it.
    pub raw: Vec<RawReport>,
    /// The log against it.
    pub ratios: Ratios,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub environment: Environment,
    /// What each engine says of itself.
    pub engines: Vec<String>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
    /// The cases.
    pub cases: Vec<CaseReport>,
}

fn merged<'a>(parts: impl IntoIterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut all = histogram();
    for part in parts {
        all += part;
    }
    all
}

/// The raw loop that does what the log did, with about as many writes in flight.
fn counterpart(round: &CaseRound) -> &RawSample {
    let position = usize::from(round.log.in_flight_mean() >= SEVERAL_FROM);
    let several = round
        .raw
        .get(position)
        .filter(|raw| raw.mode == round.raw[0].mode);
    several.unwrap_or(&round.raw[0])
}

fn ratio(value: f64, to: f64) -> f64 {
    if to > 0.0 { value / to } else { 0.0 }
}

fn ratios(rounds: &[CaseRound]) -> Ratios {
    let bytes = |round: &CaseRound| per_second(round.log.written_bytes, round.log.elapsed);
    let p50 = |round: &CaseRound| {
        let raw = us_at(&counterpart(round).run.latency, 50.0);
        ratio(us_at(&round.log.latency, 50.0), raw)
    };
    let log = merged(rounds.iter().map(|round| &round.log.latency));
    let raw = merged(rounds.iter().map(|round| &counterpart(round).run.latency));
    Ratios {
        bytes: Spread::of(
            rounds
                .iter()
                .map(|round| ratio(bytes(round), counterpart(round).run.bytes_per_second())),
        ),
        bytes_one_in_flight: Spread::of(
            rounds
                .iter()
                .map(|round| ratio(bytes(round), round.raw[0].run.bytes_per_second())),
        ),
        p50: Spread::of(rounds.iter().map(p50)),
        p999: ratio(us_at(&log, 99.9), us_at(&raw, 99.9)),
    }
}

fn raw_reports(rounds: &[CaseRound]) -> Vec<RawReport> {
    let shortest = rounds.iter().map(|round| round.raw.len()).min();
    let each = 0..shortest.unwrap_or(0);
    each.map(|position| {
        let samples = || rounds.iter().map(move |round| &round.raw[position]);
        RawReport {
            mode: rounds[0].raw[position].mode.name(),
            in_flight: Spread::of(samples().map(|raw| raw.in_flight as f64)).median,
            write_bytes: Spread::of(samples().map(|raw| raw.run.write_bytes as f64)),
            mib_per_second: Spread::of(samples().map(|raw| raw.run.bytes_per_second() / MIB)),
            latency_us: Latency::of(&merged(samples().map(|raw| &raw.run.latency))),
        }
    })
    .collect()
}

fn case(case: &Case) -> CaseReport {
    let rounds = &case.rounds;
    let over = |figure: &dyn Fn(&CaseRound) -> f64| Spread::of(rounds.iter().map(figure));
    let latency = merged(rounds.iter().map(|round| &round.log.latency));
    let around = merged(rounds.iter().map(|round| &round.log.around_rolls));
    let mut elsewhere = latency.clone();
    elsewhere
        .subtract(&around)
        .expect("what was around a roll was counted among all");
    CaseReport {
        engine: case.engine,
        body_bytes: case.body_bytes,
        waiting: case.waiting,
        appends_per_second: over(&|round| per_second(round.log.appends, round.log.elapsed)),
        mib_per_second: over(&|round| per_second(round.log.written_bytes, round.log.elapsed) / MIB),
        flushes_per_second: over(&|round| per_second(round.log.flushes, round.log.elapsed)),
        flush_bytes: over(&|round| round.log.flush_bytes() as f64),
        in_flight: over(&|round| round.log.in_flight_mean()),
        back_to_back_percent: over(&|round| {
            100.0 * ratio(round.log.back_to_back as f64, round.log.starts as f64)
        }),
        covered_percent: over(&|round| {
            let idle = round.log.idle.as_secs_f64();
            100.0 * (1.0 - ratio(idle, round.log.elapsed.as_secs_f64()))
        }),
        processor_ns_per_append: over(&|round| {
            ratio(
                round.log.processor.as_nanos() as f64,
                round.log.appends as f64,
            )
        }),
        others_percent: over(&|round| round.others_percent),
        latency_us: Latency::of(&latency),
        rolls: Rolls {
            count: rounds.iter().map(|round| round.log.rolls).sum(),
            around: Latency::of(&around),
            elsewhere: Latency::of(&elsewhere),
        },
        raw: raw_reports(rounds),
        ratios: ratios(rounds),
    }
}

impl Report {
    /// Of what was measured.
    #[must_use]
    pub fn of(measured: &Measured) -> Self {
        let engines = measured.engines.iter();
        Self {
            environment: measured.environment.clone(),
            engines: engines
                .map(|(name, reason)| format!("{name}: {reason}"))
                .collect(),
            notes: measured.notes.clone(),
            cases: measured.cases.iter().map(case).collect(),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let environment = &self.environment;
        let alignment = match (
            environment.direct_memory_bytes,
            environment.direct_offset_bytes,
        ) {
            (0, 0) => "not told".to_owned(),
            (memory, offset) => format!("{memory} B of memory, {offset} B of offset"),
        };
        let mut text = format!(
            "{}, {} processors\n{} on {} ({}); O_DIRECT alignment: {alignment}\n",
            environment.kernel,
            environment.processors,
            environment.file_system,
            environment.device,
            environment.directory,
        );
        for line in self.engines.iter().chain(&self.notes) {
            text.push_str(line);
            text.push('\n');
        }
        for (title, table) in [
            (
                "durable appends: medians over rounds; latency over all rounds",
                self.log_table(),
            ),
            (
                "against the raw disk: median of each round's ratio [lowest, highest]",
                self.ratio_table(),
            ),
            ("the raw disk in the same rounds", self.raw_table()),
            (
                "ends of segments: appends that waited meanwhile, and all others",
                self.roll_table(),
            ),
        ] {
            text.push_str(&format!("\n{title}\n{table}"));
        }
        text
    }

    fn log_table(&self) -> String {
        let mut table = plain_table(&[
            "engine",
            "bytes",
            "waiting",
            "appends/s",
            "MiB/s",
            "flush KiB",
            "flushes/s",
            "in flight",
            "cpu ns",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "max",
        ]);
        for case in &self.cases {
            let latency = &case.latency_us;
            table.add_row([
                case.engine.to_owned(),
                case.body_bytes.to_string(),
                case.waiting.to_string(),
                format!("{:.0}", case.appends_per_second.median),
                format!("{:.1}", case.mib_per_second.median),
                format!("{:.1}", case.flush_bytes.median / 1024.0),
                format!("{:.0}", case.flushes_per_second.median),
                format!("{:.2}", case.in_flight.median),
                format!("{:.0}", case.processor_ns_per_append.median),
                format!("{:.0}", latency.p50),
                format!("{:.0}", latency.p90),
                format!("{:.0}", latency.p99),
                format!("{:.0}", latency.p999),
                format!("{:.0}", latency.max),
            ]);
        }
        render_table(table)
    }

    fn ratio_table(&self) -> String {
        let mut table = plain_table(&[
            "engine",
            "bytes",
            "waiting",
            "bytes/s",
            "to one at a time",
            "p50",
            "p99.9",
            "back to back %",
            "covered %",
            "others' cpu %",
        ]);
        for case in &self.cases {
            let ratios = &case.ratios;
            table.add_row([
                case.engine.to_owned(),
                case.body_bytes.to_string(),
                case.waiting.to_string(),
                spread(ratios.bytes),
                spread(ratios.bytes_one_in_flight),
                spread(ratios.p50),
                format!("{:.2}", ratios.p999),
                format!("{:.1}", case.back_to_back_percent.median),
                format!("{:.1}", case.covered_percent.median),
                format!("{:.0}", case.others_percent.median),
            ]);
        }
        render_table(table)
    }

    fn raw_table(&self) -> String {
        let mut table = plain_table(&[
            "beside",
            "bytes",
            "waiting",
            "mode",
            "in flight",
            "write KiB",
            "MiB/s",
            "p50 us",
            "p99",
            "p99.9",
        ]);
        for case in &self.cases {
            for raw in &case.raw {
                table.add_row([
                    case.engine.to_owned(),
                    case.body_bytes.to_string(),
                    case.waiting.to_string(),
                    raw.mode.to_owned(),
                    format!("{:.0}", raw.in_flight),
                    format!("{:.1}", raw.write_bytes.median / 1024.0),
                    format!("{:.1}", raw.mib_per_second.median),
                    format!("{:.0}", raw.latency_us.p50),
                    format!("{:.0}", raw.latency_us.p99),
                    format!("{:.0}", raw.latency_us.p999),
                ]);
            }
        }
        render_table(table)
    }

    fn roll_table(&self) -> String {
        let mut table = plain_table(&[
            "engine",
            "bytes",
            "waiting",
            "rolls",
            "around: appends",
            "p50 us",
            "p99",
            "others: p50",
            "p99",
            "all: p99",
        ]);
        for case in self.cases.iter().filter(|case| case.rolls.count > 0) {
            let rolls = &case.rolls;
            table.add_row([
                case.engine.to_owned(),
                case.body_bytes.to_string(),
                case.waiting.to_string(),
                rolls.count.to_string(),
                rolls.around.count.to_string(),
                format!("{:.0}", rolls.around.p50),
                format!("{:.0}", rolls.around.p99),
                format!("{:.0}", rolls.elsewhere.p50),
                format!("{:.0}", rolls.elsewhere.p99),
                format!("{:.0}", case.latency_us.p99),
            ]);
        }
        render_table(table)
    }
}

fn spread(figure: Spread) -> String {
    format!(
        "{:.2} [{:.2}, {:.2}]",
        figure.median, figure.min, figure.max
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread() {
        let found = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((found.median, found.min, found.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of([]).median, 0.0);
    }

    #[test]
    fn ratios_to_nothing_are_nothing() {
        assert_eq!(ratio(1.0, 0.0), 0.0);
        assert_eq!(ratio(3.0, 2.0), 1.5);
    }
}
