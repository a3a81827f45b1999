//! What was appended against the log as it was at last: nothing lost, nothing twice, in order.

use super::check::{LogView, PlacedAppend, Report};
use super::{AppendOutcome, ViolationKind};

/// An append that has a place in the log.
#[derive(Clone, Copy)]
pub(super) struct Positioned<'a> {
    pub(super) seq: u64,
    pub(super) append: PlacedAppend<'a>,
}

/// A record of the final log: which append it is of, which record of it, and where it is.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Found {
    at: usize,
    record: u64,
    seq: u64,
}

/// Checks a log's appends; gives those that have a place in it, in its order. `by_payload` are all
/// appends of the history in the order of their payload ids.
pub(super) fn check<'a>(
    view: &LogView<'a>,
    by_payload: &[PlacedAppend<'a>],
    report: &mut Report,
) -> Vec<Positioned<'a>> {
    let found = find(view, by_payload, report);
    let mut positioned = Vec::with_capacity(view.appends.len());
    for append in &view.appends {
        let begin = found.partition_point(|entry| entry.at < append.at);
        let end = begin + found[begin..].partition_point(|entry| entry.at == append.at);
        if let Some(seq) = place(view, *append, &found[begin..end], report) {
            positioned.push(Positioned {
                seq,
                append: *append,
            });
        }
    }
    positioned.sort_unstable_by_key(|entry| (entry.seq, entry.append.at));
    seqs_are_unique(view, &positioned, report);
    real_time_order(view, &positioned, report);
    producer_order(view, report);
    positioned
}

/// Names the append of every record in the final log.
fn find(view: &LogView<'_>, by_payload: &[PlacedAppend<'_>], report: &mut Report) -> Vec<Found> {
    let mut found = Vec::with_capacity(view.records.len());
    for (seq, payload) in (view.first_seq..).zip(&view.records) {
        let candidate = by_payload
            .partition_point(|placed| placed.append.payload_id <= *payload)
            .checked_sub(1)
            .map(|at| by_payload[at])
            .filter(|placed| payload - placed.append.payload_id < u64::from(placed.append.count));
        match candidate {
            Some(placed) if placed.operation.log == view.log => found.push(Found {
                at: placed.at,
                record: payload - placed.append.payload_id,
                seq,
            }),
            Some(placed) => report.add(ViolationKind::Stranger, view.log, &[placed.at], || {
                let log = placed.operation.log;
                format!("payload {payload} at {seq} was appended to log {log}")
            }),
            None => report.add(ViolationKind::Stranger, view.log, &[], || {
                format!("payload {payload} at {seq} was appended by nobody")
            }),
        }
    }
    found.sort_unstable();
    found
}

/// Where an append is, given its records in the log, in order.
fn place(
    view: &LogView<'_>,
    placed: PlacedAppend<'_>,
    found: &[Found],
    report: &mut Report,
) -> Option<u64> {
    for pair in found.windows(2) {
        if pair[0].record == pair[1].record {
            report.add(ViolationKind::Duplicated, view.log, &[placed.at], || {
                let payload = placed.append.payload_id + pair[0].record;
                format!("payload {payload} at {} and {}", pair[0].seq, pair[1].seq)
            });
        }
    }
    match placed.append.outcome {
        AppendOutcome::Ok { first_seq } => {
            acknowledged(view, placed, first_seq, found, report);
            Some(first_seq)
        }
        AppendOutcome::Failed => {
            let entry = found.first()?;
            report.add(ViolationKind::FailedPresent, view.log, &[placed.at], || {
                let payload = placed.append.payload_id + entry.record;
                format!("payload {payload} at {}", entry.seq)
            });
            None
        }
        AppendOutcome::Unknown => unknown(view, placed, found, report),
    }
}

fn acknowledged(
    view: &LogView<'_>,
    placed: PlacedAppend<'_>,
    first_seq: u64,
    found: &[Found],
    report: &mut Report,
) {
    // Records below the log's start were trimmed: nothing can be said of them.
    let mut expected = view.first_seq.saturating_sub(first_seq);
    for entry in found {
        if entry.record == expected && entry.seq == first_seq + entry.record {
            expected += 1;
        }
    }
    if expected >= placed.append.count.into() {
        return;
    }
    let (payload, seq) = (placed.append.payload_id + expected, first_seq + expected);
    let elsewhere = found.iter().find(|entry| entry.record == expected);
    match elsewhere {
        Some(entry) => report.add(ViolationKind::Misplaced, view.log, &[placed.at], || {
            format!(
                "payload {payload} was acknowledged at {seq} and is at {}",
                entry.seq
            )
        }),
        None => report.add(ViolationKind::Lost, view.log, &[placed.at], || {
            let instead = match view.record(seq) {
                Some(other) => format!("payload {other} is there"),
                None => format!("the log ends at {}", view.end_seq()),
            };
            format!("payload {payload} was acknowledged at {seq}; {instead}")
        }),
    }
}

fn unknown(
    view: &LogView<'_>,
    placed: PlacedAppend<'_>,
    found: &[Found],
    report: &mut Report,
) -> Option<u64> {
    let entry = found.first()?;
    // The beginning may have been trimmed, but only up to the start of the log.
    let is_cut = entry.seq == view.first_seq && entry.record <= view.first_seq;
    let mut expected = if is_cut { entry.record } else { 0 };
    for follower in found {
        let follows = follower.seq + entry.record == entry.seq + follower.record;
        if follower.record == expected && follows {
            expected += 1;
        }
    }
    if expected < placed.append.count.into() {
        report.add(ViolationKind::Torn, view.log, &[placed.at], || {
            let payload = placed.append.payload_id + expected;
            format!(
                "payload {payload} does not follow the others from {} on",
                entry.seq
            )
        });
    }
    Some(entry.seq.saturating_sub(entry.record))
}

fn seqs_are_unique(view: &LogView<'_>, positioned: &[Positioned<'_>], report: &mut Report) {
    let acknowledged = positioned
        .iter()
        .filter(|entry| matches!(entry.append.append.outcome, AppendOutcome::Ok { .. }));
    let mut highest: Option<(u64, usize)> = None;
    for entry in acknowledged {
        let end = entry.seq + u64::from(entry.append.append.count);
        match highest {
            Some((known, at)) if known > entry.seq => {
                let operations = [at, entry.append.at];
                report.add(ViolationKind::SeqReused, view.log, &operations, || {
                    format!("seq {} was acknowledged twice", entry.seq)
                });
            }
            _ => {}
        }
        if highest.is_none_or(|(known, _)| known < end) {
            highest = Some((end, entry.append.at));
        }
    }
}

fn real_time_order(view: &LogView<'_>, positioned: &[Positioned<'_>], report: &mut Report) {
    // Of those with lower seqs the one that was begun last.
    let mut latest: Option<(u64, Positioned<'_>)> = None;
    for entry in positioned {
        let operation = entry.append.operation;
        // An unknown outcome may have come about at any time after it was begun.
        let has_ended = matches!(entry.append.append.outcome, AppendOutcome::Ok { .. });
        match latest {
            Some((invoked_us, lower)) if has_ended && operation.completed_us < invoked_us => {
                let operations = [entry.append.at, lower.append.at];
                report.add(ViolationKind::OutOfOrder, view.log, &operations, || {
                    format!(
                        "the append at {} had ended before the one at {} began",
                        entry.seq, lower.seq
                    )
                });
            }
            _ => {}
        }
        if latest.is_none_or(|(invoked_us, _)| invoked_us < operation.invoked_us) {
            latest = Some((operation.invoked_us, *entry));
        }
    }
}

/// Only what was acknowledged is in the producer's order: an unknown outcome may come about behind
/// appends that were made after it.
fn producer_order(view: &LogView<'_>, report: &mut Report) {
    let mut acknowledged: Vec<(u64, u64, u64, usize)> = Vec::new();
    for placed in &view.appends {
        if let AppendOutcome::Ok { first_seq } = placed.append.outcome {
            let append = placed.append;
            acknowledged.push((append.producer, append.producer_seq, first_seq, placed.at));
        }
    }
    acknowledged.sort_unstable();
    for pair in acknowledged.windows(2) {
        let ((producer, _, seq, at), (next_producer, _, next_seq, next_at)) = (pair[0], pair[1]);
        if producer == next_producer && seq > next_seq {
            report.add(
                ViolationKind::ProducerOrder,
                view.log,
                &[at, next_at],
                || format!("producer {producer}: {seq}, and its next append at {next_seq}"),
            );
        }
    }
}
