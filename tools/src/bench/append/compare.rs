//! Several targets over several rounds: medians of each, and ratios of the first to the others, round by round.

use serde::Serialize;

use super::report::Report;
use crate::bench::report::Spread;
use crate::output::{plain_table, render_table};

/// One target over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub target: &'static str,
    /// Batches acknowledged per second.
    pub batches_per_second: Spread,
    /// Records' bytes acknowledged per second.
    pub bytes_per_second: Spread,
    /// Median latency, microseconds.
    pub p50_us: Spread,
    /// See above.
    pub p99_us: Spread,
    /// See above.
    pub p999_us: Spread,
    /// Processor time of all servers per million batches; none where there are no servers.
    pub cpu_seconds_per_million: Option<Spread>,
    /// Of the largest server, MiB at the end; 0 where there are none.
    pub resident_mib: Spread,
    /// The first target's batches per second to this one's, round by round.
    pub first_to_this_batches: Spread,
    /// The first target's median latency to this one's.
    pub first_to_this_p50: Spread,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// In the order they were asked for.
    pub rows: Vec<Row>,
    /// Every run, round by round.
    pub runs: Vec<Report>,
}

impl Comparison {
    /// Of `runs`, each round having each of so many targets in the same order.
    #[must_use]
    pub fn of(runs: Vec<Report>, targets: usize) -> Self {
        let row = |place: usize| {
            let rounds = || runs.chunks_exact(targets);
            let own = |figure: fn(&Report) -> f64| {
                Spread::of(rounds().map(|round| figure(&round[place])))
            };
            let ratio = |figure: fn(&Report) -> f64| {
                let of = |round: &[Report]| figure(&round[0]) / figure(&round[place]);
                Spread::of(rounds().map(of))
            };
            let has_servers = rounds().all(|round| round[place].cpu_seconds_per_million.is_some());
            let cpu = own(|run| run.cpu_seconds_per_million.unwrap_or_default());
            Row {
                target: runs[place].target,
                batches_per_second: own(|run| run.batches_per_second),
                bytes_per_second: own(|run| run.bytes_per_second),
                p50_us: own(|run| run.latency.p50_us),
                p99_us: own(|run| run.latency.p99_us),
                p999_us: own(|run| run.latency.p999_us),
                cpu_seconds_per_million: has_servers.then_some(cpu),
                resident_mib: own(|run| {
                    let kib = run.servers.iter().map(|server| server.resident_kib).max();
                    kib.unwrap_or(0) as f64 / 1024.0
                }),
                first_to_this_batches: ratio(|run| run.batches_per_second),
                first_to_this_p50: ratio(|run| run.latency.p50_us),
            }
        };
        let rows = (0..targets).map(row).collect();
        Self { rows, runs }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = plain_table(&[
            "TARGET",
            "BATCHES/S",
            "MB/S",
            "P50 us",
            "P99 us",
            "P99.9 us",
            "CPU s/M",
            "MiB",
            "RATIO",
            "P50 RATIO",
        ]);
        let spread =
            |ratio: &Spread| format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.min, ratio.max);
        for row in &self.rows {
            let cpu = row.cpu_seconds_per_million;
            table.add_row([
                row.target.to_owned(),
                format!("{:.0}", row.batches_per_second.median),
                format!("{:.1}", row.bytes_per_second.median / 1e6),
                format!("{:.0}", row.p50_us.median),
                format!("{:.0}", row.p99_us.median),
                format!("{:.0}", row.p999_us.median),
                cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{:.1}", cpu.median)),
                format!("{:.0}", row.resident_mib.median),
                spread(&row.first_to_this_batches),
                spread(&row.first_to_this_p50),
            ]);
        }
        let first = self.rows.first().map_or("", |row| row.target);
        let rounds = self.runs.len() / self.rows.len().max(1);
        let load = self.runs.first().map(Report::load).unwrap_or_default();
        format!(
            "{load}; medians of {rounds} rounds; ratios of {first} to each, round by round [lowest, highest]\n"
        ) + &render_table(table)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::load::{Measured, Plan};
    use super::*;
    use crate::bench::{histogram, record};

    /// A run with latencies around one of so many microseconds.
    pub(in super::super) fn run(target: &'static str, us: f64) -> Report {
        let plan = Plan {
            in_flight: 1,
            record_bytes: 100,
            batch_records: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            rate: None,
            is_verified: false,
            interval: None,
            end: None,
        };
        let mut latency = histogram();
        for part in 1..=1_000 {
            let span = Duration::from_secs_f64(us / 1e6 * f64::from(part) / 500.0);
            record(&mut latency, span, 1);
        }
        let measured = Measured {
            latency,
            batches: (1e9 / us) as u64,
            elapsed: Duration::from_secs(1),
            usage: [Vec::new(), Vec::new()],
            acknowledged: Vec::new(),
            intervals: Vec::new(),
        };
        Report::of(target, &plan, 1, 1, &measured)
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let figures = [
            ("drave", 100.0),
            ("floor", 50.0),
            ("drave", 300.0),
            ("floor", 50.0),
        ];
        let runs = figures.map(|(target, us)| run(target, us)).to_vec();
        let comparison = Comparison::of(runs, 2);
        let [drave, floor] = &comparison.rows[..] else {
            panic!("{:?}", comparison.rows);
        };
        assert_eq!(drave.first_to_this_p50, Spread::of([1.0, 1.0]));
        let ratio = floor.first_to_this_p50;
        assert!(
            (ratio.min - 2.0).abs() < 0.01 && (ratio.max - 6.0).abs() < 0.01,
            "{ratio:?}"
        );
        assert!((ratio.median - 4.0).abs() < 0.01, "{ratio:?}");
        assert!(floor.cpu_seconds_per_million.is_none());
        assert!(comparison.text().contains("medians of 2 rounds"));
    }
}
