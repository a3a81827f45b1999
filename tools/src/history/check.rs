//! The check: the log read back at the end is put together, then `appends` and `observations` are held
//! against it.

use std::collections::BTreeMap;
use std::fmt;

use super::{
    Action, Append, AppendOutcome, History, Operation, Violation, ViolationKind, appends,
    observations,
};

/// Violations of one kind that are told in full; the others are counted.
const TOLD_PER_KIND_MAX: u64 = 10;

/// A history that cannot be checked: the recorder's fault, not the cluster's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HistoryError {
    /// An operation ends before it begins, or appends nothing, or more than payload ids and seqs reach.
    Operation {
        /// Its place.
        operation: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Two appends share a payload id or a producer's number.
    Ambiguous {
        /// Their places.
        operations: [usize; 2],
        /// What they share.
        what: &'static str,
    },
    /// A piece of a final log does not begin where the one before ended.
    FinalGap {
        /// The log.
        log: u64,
        /// The seq expected.
        expected: u64,
        /// The seq found.
        found: u64,
    },
    /// There are operations on a log that was not read back.
    NoFinal {
        /// The log.
        log: u64,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation { operation, what } => write!(f, "operation {operation}: {what}"),
            Self::Ambiguous {
                operations: [one, other],
                what,
            } => write!(f, "operations {one} and {other} share {what}"),
            Self::FinalGap {
                log,
                expected,
                found,
            } => {
                write!(
                    f,
                    "final log {log}: expected a piece from {expected}, found {found}"
                )
            }
            Self::NoFinal { log } => write!(f, "log {log} was not read back at the end"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Operations in the history.
    pub operations: u64,
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Appends that certainly failed.
    pub failed: u64,
    /// Appends whose outcome their clients do not know.
    pub unknown: u64,
    /// Reads and looks at the tail that succeeded.
    pub observations: u64,
    /// Records in the final logs.
    pub records: u64,
    /// Violations of each kind.
    pub counts: BTreeMap<ViolationKind, u64>,
    /// The first of each kind.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether every rule holds.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// Violations of this kind.
    #[must_use]
    pub fn count(&self, kind: ViolationKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn add(
        &mut self,
        kind: ViolationKind,
        log: u64,
        operations: &[usize],
        detail: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD_PER_KIND_MAX {
            self.violations.push(Violation {
                kind,
                log,
                detail: detail(),
                operations: operations.to_vec(),
            });
        }
    }
}

/// An append and its place in the history.
#[derive(Clone, Copy)]
pub(super) struct PlacedAppend<'a> {
    pub(super) at: usize,
    pub(super) operation: &'a Operation,
    pub(super) append: &'a Append,
}

/// A log as it was at last, and what was done to it.
pub(super) struct LogView<'a> {
    pub(super) log: u64,
    /// The first seq still held.
    pub(super) first_seq: u64,
    pub(super) records: Vec<u64>,
    pub(super) appends: Vec<PlacedAppend<'a>>,
    /// Reads and looks at the tail.
    pub(super) observations: Vec<(usize, &'a Operation)>,
}

impl LogView<'_> {
    pub(super) fn end_seq(&self) -> u64 {
        self.first_seq + self.records.len() as u64
    }

    pub(super) fn record(&self, seq: u64) -> Option<u64> {
        let at = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.records.get(at).copied()
    }
}

/// Checks everything.
///
/// # Errors
/// [`HistoryError`] when the history itself makes no sense; then nothing was checked.
pub fn check(history: &History) -> Result<Report, HistoryError> {
    let mut report = Report {
        operations: history.operations.len() as u64,
        ..Report::default()
    };
    let mut views = finals(history, &mut report)?;
    let mut appends = Vec::new();
    for (at, operation) in history.operations.iter().enumerate() {
        check_operation(at, operation)?;
        let Some(view) = views.get_mut(&operation.log) else {
            return Err(HistoryError::NoFinal { log: operation.log });
        };
        if let Action::Append(append) = &operation.action {
            let placed = PlacedAppend {
                at,
                operation,
                append,
            };
            appends.push(placed);
            view.appends.push(placed);
            match append.outcome {
                AppendOutcome::Ok { .. } => report.acknowledged += 1,
                AppendOutcome::Failed => report.failed += 1,
                AppendOutcome::Unknown => report.unknown += 1,
            }
        } else {
            view.observations.push((at, operation));
        }
    }
    unique_producer_numbers(&mut appends)?;
    // Left in the order of the payload ids, to find the append of a record in.
    unique_payload_ids(&mut appends)?;
    for view in views.values() {
        report.records += view.records.len() as u64;
        let positioned = appends::check(view, &appends, &mut report);
        observations::check(view, &positioned, &mut report);
    }
    Ok(report)
}

fn check_operation(at: usize, operation: &Operation) -> Result<(), HistoryError> {
    let wrong = |what| {
        Err(HistoryError::Operation {
            operation: at,
            what,
        })
    };
    if operation.completed_us < operation.invoked_us {
        return wrong("ends before it begins");
    }
    if let Action::Append(append) = &operation.action {
        let count = u64::from(append.count);
        if count == 0 {
            return wrong("appends nothing");
        }
        if append.payload_id.checked_add(count).is_none() {
            return wrong("runs out of payload ids");
        }
        if let AppendOutcome::Ok { first_seq } = append.outcome
            && first_seq.checked_add(count).is_none()
        {
            return wrong("runs out of seqs");
        }
    }
    Ok(())
}

fn unique_producer_numbers(appends: &mut [PlacedAppend<'_>]) -> Result<(), HistoryError> {
    appends.sort_unstable_by_key(|placed| (placed.append.producer, placed.append.producer_seq));
    let same = appends.windows(2).find(|pair| {
        (pair[0].append.producer, pair[0].append.producer_seq)
            == (pair[1].append.producer, pair[1].append.producer_seq)
    });
    ambiguous(same, "a producer's number")
}

fn unique_payload_ids(appends: &mut [PlacedAppend<'_>]) -> Result<(), HistoryError> {
    appends.sort_unstable_by_key(|placed| placed.append.payload_id);
    let same = appends.windows(2).find(|pair| {
        let end = pair[0].append.payload_id + u64::from(pair[0].append.count);
        end > pair[1].append.payload_id
    });
    ambiguous(same, "a payload id")
}

fn ambiguous(same: Option<&[PlacedAppend<'_>]>, what: &'static str) -> Result<(), HistoryError> {
    match same {
        Some([one, other]) => Err(HistoryError::Ambiguous {
            operations: [one.at.min(other.at), one.at.max(other.at)],
            what,
        }),
        _ => Ok(()),
    }
}

/// Puts the final logs together. The first source of each log is the one that all is held against; the
/// others must be the same.
fn finals<'a>(
    history: &History,
    report: &mut Report,
) -> Result<BTreeMap<u64, LogView<'a>>, HistoryError> {
    let mut sources: BTreeMap<(u64, Option<u64>), (u64, Vec<u64>)> = BTreeMap::new();
    for slice in &history.finals {
        let overflow = || HistoryError::FinalGap {
            log: slice.log,
            expected: 0,
            found: slice.from,
        };
        slice
            .from
            .checked_add(slice.records.len() as u64)
            .ok_or_else(overflow)?;
        let source = sources.entry((slice.log, slice.node));
        let (first_seq, records) = source.or_insert_with(|| (slice.from, Vec::new()));
        let expected = *first_seq + records.len() as u64;
        if slice.from != expected {
            return Err(HistoryError::FinalGap {
                log: slice.log,
                expected,
                found: slice.from,
            });
        }
        records.extend_from_slice(&slice.records);
    }
    let mut views: BTreeMap<u64, LogView<'a>> = BTreeMap::new();
    for ((log, node), (first_seq, records)) in sources {
        if let Some(view) = views.get(&log) {
            if let Some(what) = difference(view, first_seq, &records) {
                report.add(ViolationKind::ReplicasDiffer, log, &[], || {
                    let name =
                        node.map_or_else(|| "one reading".to_owned(), |id| format!("node {id}"));
                    format!("{name}: {what}")
                });
            }
            continue;
        }
        let view = LogView {
            log,
            first_seq,
            records,
            appends: Vec::new(),
            observations: Vec::new(),
        };
        views.insert(log, view);
    }
    Ok(views)
}

/// How another reading of the same log differs. Replicas may have trimmed differently far.
fn difference(view: &LogView<'_>, first_seq: u64, records: &[u64]) -> Option<String> {
    let end_seq = first_seq + records.len() as u64;
    if end_seq != view.end_seq() {
        return Some(format!(
            "ends at {end_seq}, another reading at {}",
            view.end_seq()
        ));
    }
    let common = first_seq.max(view.first_seq);
    (common..end_seq).find_map(|seq| {
        let found = records[(seq - first_seq) as usize];
        let expected = view.record(seq)?;
        (found != expected)
            .then(|| format!("payload {found} at {seq}, in another reading {expected}"))
    })
}
