//! What was read against the log as it was at last, and against what was known when.

use super::appends::Positioned;
use super::check::{LogView, Report};
use super::{Action, AppendOutcome, Operation, Read, ReadOutcome, TailOutcome, ViolationKind};

/// A read or look at the tail that succeeded.
#[derive(Clone, Copy)]
struct Seen<'a> {
    at: usize,
    operation: &'a Operation,
    tail: u64,
}

/// That the log has reached a seq was known to someone from a time on.
#[derive(Clone, Copy)]
struct Floor {
    completed_us: u64,
    seq: u64,
    at: usize,
    kind: ViolationKind,
}

/// Checks a log's reads and looks at the tail. `positioned` are its appends in its order.
pub(super) fn check(view: &LogView<'_>, positioned: &[Positioned<'_>], report: &mut Report) {
    let mut seen = Vec::with_capacity(view.observations.len());
    for (at, operation) in &view.observations {
        let tail = match &operation.action {
            Action::Read(read) => slice(view, *at, read, report),
            Action::CheckTail(check) => match check.outcome {
                TailOutcome::Ok { tail } => Some(tail),
                TailOutcome::Failed => None,
            },
            Action::Append(_) => None,
        };
        if let Some(tail) = tail {
            let (at, operation) = (*at, *operation);
            seen.push(Seen {
                at,
                operation,
                tail,
            });
        }
    }
    report.observations += seen.len() as u64;
    not_gone(view, &seen, report);
    not_before_it_began(view, positioned, &seen, report);
    nothing_missed(view, positioned, seen, report);
}

/// A read is a slice of the final log. Gives the tail that it showed.
fn slice(view: &LogView<'_>, at: usize, read: &Read, report: &mut Report) -> Option<u64> {
    let ReadOutcome::Ok { tail, records } = &read.outcome else {
        return None;
    };
    let end = read.from.saturating_add(records.len() as u64);
    let nothing_shown = records.is_empty() && read.count > 0 && read.from < *tail;
    if nothing_shown || (!records.is_empty() && end > *tail) {
        report.add(ViolationKind::ReadTail, view.log, &[at], || {
            format!("seqs [{}, {end}) shown, the tail is {tail}", read.from)
        });
    }
    let differing = (read.from..).zip(records).find(|(seq, payload)| {
        // What was trimmed since cannot be compared; what is beyond the end is there no more.
        *seq >= view.first_seq && view.record(*seq) != Some(**payload)
    });
    if let Some((seq, payload)) = differing {
        report.add(ViolationKind::ReadMismatch, view.log, &[at], || {
            let held = match view.record(seq) {
                Some(held) => format!("the log has {held} there"),
                None => format!("the log ends at {}", view.end_seq()),
            };
            format!("payload {payload} was shown at {seq}; {held}")
        });
    }
    Some(*tail)
}

fn not_gone(view: &LogView<'_>, seen: &[Seen<'_>], report: &mut Report) {
    for entry in seen.iter().filter(|entry| entry.tail > view.end_seq()) {
        report.add(ViolationKind::ShownThenGone, view.log, &[entry.at], || {
            format!(
                "tail {}, but the log ends at {}",
                entry.tail,
                view.end_seq()
            )
        });
    }
}

/// Everything below a tail was begun before the tail was shown.
fn not_before_it_began(
    view: &LogView<'_>,
    positioned: &[Positioned<'_>],
    seen: &[Seen<'_>],
    report: &mut Report,
) {
    // For each append the one begun last up to it.
    let mut latest: Vec<Positioned<'_>> = Vec::with_capacity(positioned.len());
    for entry in positioned {
        let later = match latest.last() {
            Some(known)
                if known.append.operation.invoked_us > entry.append.operation.invoked_us =>
            {
                *known
            }
            _ => *entry,
        };
        latest.push(later);
    }
    for entry in seen {
        let below = positioned.partition_point(|append| append.seq < entry.tail);
        let Some(append) = below.checked_sub(1).map(|at| latest[at]) else {
            continue;
        };
        if append.append.operation.invoked_us > entry.operation.completed_us {
            let operations = [entry.at, append.append.at];
            report.add(ViolationKind::FutureRead, view.log, &operations, || {
                let (tail, seq) = (entry.tail, append.seq);
                format!("tail {tail} was shown before the append at {seq} began")
            });
        }
    }
}

/// A tail is not below what had been acknowledged, or shown to anybody, before it was asked for.
fn nothing_missed(
    view: &LogView<'_>,
    positioned: &[Positioned<'_>],
    mut seen: Vec<Seen<'_>>,
    report: &mut Report,
) {
    let acknowledged = positioned
        .iter()
        .filter(|entry| matches!(entry.append.append.outcome, AppendOutcome::Ok { .. }));
    let mut floors: Vec<Floor> = acknowledged
        .map(|entry| Floor {
            completed_us: entry.append.operation.completed_us,
            seq: entry.seq + u64::from(entry.append.append.count),
            at: entry.append.at,
            kind: ViolationKind::StaleRead,
        })
        .collect();
    floors.extend(seen.iter().map(|entry| Floor {
        completed_us: entry.operation.completed_us,
        seq: entry.tail,
        at: entry.at,
        kind: ViolationKind::TailWentBack,
    }));
    floors.sort_unstable_by_key(|floor| floor.completed_us);
    seen.sort_unstable_by_key(|entry| entry.operation.invoked_us);
    let mut floors = floors.into_iter().peekable();
    let mut acknowledged: Option<Floor> = None;
    let mut shown: Option<Floor> = None;
    for entry in seen {
        while let Some(floor) =
            floors.next_if(|floor| floor.completed_us < entry.operation.invoked_us)
        {
            let highest = match floor.kind {
                ViolationKind::StaleRead => &mut acknowledged,
                _ => &mut shown,
            };
            if highest.is_none_or(|known| known.seq < floor.seq) {
                *highest = Some(floor);
            }
        }
        for floor in [acknowledged, shown].into_iter().flatten() {
            if entry.tail < floor.seq {
                report.add(floor.kind, view.log, &[entry.at, floor.at], || {
                    let (tail, seq) = (entry.tail, floor.seq);
                    format!("tail {tail}, although {seq} had been reached before it was asked for")
                });
            }
        }
    }
}
