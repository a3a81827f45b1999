//! What a run comes to, in a line per round and a table at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::FaultKind;
use super::proxy::Disturbed;
use crate::history;
use crate::output::{brief, plain_table, render_table, thousands};

/// One round.
#[derive(Debug, Default)]
pub struct RoundReport {
    /// Its number, from 1.
    pub number: u64,
    /// The faults that struck.
    pub kinds: Vec<FaultKind>,
    /// What the check of the history found.
    pub history: history::Report,
    /// From kills of leaders to the next leaders' first acknowledgements.
    pub failovers_us: Vec<u64>,
    /// The same for leaders that were stopped or cut off.
    pub silent_failovers_us: Vec<u64>,
    /// From healing to the next acknowledgement.
    pub recoveries_us: Vec<u64>,
    /// From the start of a dead node until all nodes took connections.
    pub starts_us: Vec<u64>,
    /// What is wrong, apart from the history.
    pub problems: Vec<String>,
}

impl RoundReport {
    /// Whether everything held.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.history.is_clean() && self.problems.is_empty()
    }

    /// The round's line.
    #[must_use]
    pub fn line(&self) -> String {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let all = |name: &str, times_us: &[u64]| {
            let times: Vec<String> = times_us.iter().map(|us| shown(*us)).collect();
            match times.len() {
                0 => String::new(),
                _ => format!("  {name} {}", times.join(" and ")),
            }
        };
        let times = [
            all("start", &self.starts_us),
            all("back", &self.recoveries_us),
            all("failover", &self.failovers_us),
            all("silent", &self.silent_failovers_us),
        ]
        .concat();
        let verdict = if self.is_good() { "ok" } else { "BROKEN" };
        format!(
            "round {:>3}  {:<44} {:>6} acked {:>4} unknown {:>3} failed {:>5} seen{times}  {verdict}",
            self.number,
            kinds.join(", "),
            self.history.acknowledged,
            self.history.unknown,
            self.history.failed,
            self.history.observations
        )
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub struct Summary {
    rounds: u64,
    broken_rounds: u64,
    faults: BTreeMap<FaultKind, u64>,
    operations: u64,
    acknowledged: u64,
    unknown: u64,
    failed: u64,
    observations: u64,
    records: u64,
    violations: u64,
    failovers_us: Vec<u64>,
    silent_failovers_us: Vec<u64>,
    recoveries_us: Vec<u64>,
    starts_us: Vec<u64>,
    /// What the proxy did, if there was one.
    pub disturbed: Option<Disturbed>,
    /// What is wrong with all of it, apart from the rounds.
    pub problems: Vec<String>,
}

impl Summary {
    /// Adds a round.
    pub fn add(&mut self, round: &RoundReport) {
        self.rounds += 1;
        self.broken_rounds += u64::from(!round.is_good());
        for kind in &round.kinds {
            *self.faults.entry(*kind).or_default() += 1;
        }
        let history = &round.history;
        self.operations += history.operations;
        self.acknowledged += history.acknowledged;
        self.unknown += history.unknown;
        self.failed += history.failed;
        self.observations += history.observations;
        self.records += history.records;
        self.violations += history.counts.values().sum::<u64>();
        self.failovers_us.extend_from_slice(&round.failovers_us);
        self.silent_failovers_us
            .extend_from_slice(&round.silent_failovers_us);
        self.recoveries_us.extend_from_slice(&round.recoveries_us);
        self.starts_us.extend_from_slice(&round.starts_us);
    }

    /// Whether everything held in all rounds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.broken_rounds == 0 && self.violations == 0 && self.problems.is_empty()
    }

    /// The table at the end. `bound` is what the time from healing to the next acknowledgement is held
    /// to.
    #[must_use]
    pub fn render(&self, bound: Duration) -> String {
        let mut table = plain_table(&[]);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        let broken = match self.broken_rounds {
            0 => String::new(),
            count => format!(", {count} of them broken"),
        };
        row("rounds", format!("{}{broken}", thousands(self.rounds)));
        for (kind, count) in &self.faults {
            row(&format!("  {}", kind.name()), thousands(*count));
        }
        if let Some(disturbed) = &self.disturbed {
            row("frames through the proxy", thousands(disturbed.frames));
            row("  delayed", thousands(disturbed.delayed));
            row("  overtaken", thousands(disturbed.overtaken));
            row("  doubled", thousands(disturbed.doubled));
            row("  connections", thousands(disturbed.connections));
            row("  not frames", thousands(disturbed.malformed));
        }
        row("operations", thousands(self.operations));
        row("  appends acknowledged", thousands(self.acknowledged));
        row("  appends unknown", thousands(self.unknown));
        row("  appends failed", thousands(self.failed));
        row("  reads and tails", thousands(self.observations));
        row("records in the end", thousands(self.records));
        row("violations", thousands(self.violations));
        row(
            "failover, from the leader's kill",
            times(&self.failovers_us),
        );
        row(
            "failover, from the leader's silence",
            times(&self.silent_failovers_us),
        );
        row("back, from healing", times(&self.recoveries_us));
        row("  allowed", brief(bound));
        row("start of a node, with its log", times(&self.starts_us));
        let verdict = if self.is_good() {
            "everything held"
        } else {
            "the promise was not kept"
        };
        row("verdict", verdict.to_owned());
        render_table(table)
    }
}

fn shown(us: u64) -> String {
    brief(Duration::from_micros(us))
}

fn times(times_us: &[u64]) -> String {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    match sorted.last() {
        None => "never measured".to_owned(),
        Some(max) => format!(
            "median {}, max {}, of {}",
            shown(sorted[sorted.len() / 2]),
            shown(*max),
            thousands(sorted.len() as u64)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ViolationKind;

    #[test]
    fn any_problem_breaks_the_verdict() {
        let round = || RoundReport {
            number: 3,
            kinds: vec![FaultKind::KillLeader],
            failovers_us: vec![412_000],
            recoveries_us: vec![9_000],
            ..RoundReport::default()
        };
        let mut summary = Summary::default();
        summary.add(&round());
        assert!(summary.is_good());
        assert!(
            round().line().contains("failover 412 ms  ok"),
            "{}",
            round().line()
        );
        let text = summary.render(Duration::from_millis(1200));
        assert!(text.contains("median 412 ms, max 412 ms, of 1"), "{text}");
        assert!(text.contains("everything held"), "{text}");

        let mut slow = round();
        slow.problems.push("slow".to_owned());
        let mut lossy = round();
        lossy.history.counts.insert(ViolationKind::Lost, 2);
        for broken in [slow, lossy] {
            assert!(broken.line().ends_with("BROKEN"));
            let mut summary = Summary::default();
            summary.add(&broken);
            assert!(!summary.is_good());
        }
        summary.problems.push("a log changed".to_owned());
        assert!(!summary.is_good());
        let text = summary.render(Duration::from_millis(1200));
        assert!(text.contains("not kept"), "{text}");
    }
}
