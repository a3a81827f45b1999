//! A record that is held is where its log's index says, in an entry that the node holds, also once it was carried over.

use drave::replica::LogState;
use drave_batch::EntryKind;

use super::committed::Committed;
use super::{Checked, require};

const NAME: &str = "records_are_found";

/// Entries looked at in one check: the last ones, and the oldest of those carried over.
const ENTRIES: usize = 64;

/// Looks where a log's index says that its records are, on a node that has applied all that is committed and whose log
/// begins at `first_index`.
///
/// # Errors
/// [`super::Violation`]
pub fn check(slot: usize, log: &LogState, first_index: u64, committed: &Committed) -> Checked {
    let last = committed.last_index();
    let latest = (1..=last).rev().take(ENTRIES);
    for at in latest.chain(committed.carried().take(ENTRIES)) {
        let Some(entry) = committed.get(at).map(|known| &known.entry) else {
            continue;
        };
        let end = entry.first_seq + u64::from(entry.record_count);
        let is_held = entry.kind == EntryKind::Data && end > log.first_seq;
        if !is_held || entry.log_id != log.log_id {
            continue;
        }
        let seq = entry.first_seq.max(log.first_seq);
        let range = log.index.locate(seq);
        let is_found = range.is_some_and(|(lo, hi)| {
            let carrier = committed
                .get(lo)
                .and_then(|known| known.entry.carried.as_ref());
            let carries = carrier.is_some_and(|batches| batches.iter().any(|it| it.index == at));
            match log.index.is_carried(seq) {
                true => hi == lo + 1 && carries && lo >= first_index,
                false => lo <= at && at >= first_index,
            }
        });
        require(is_found, NAME, || {
            format!(
                "node {} looks for seq {seq} of log {} at {range:?}; it is the entry {at}, carried over to {:?}, its \
                 log begins at {first_index}",
                slot + 1,
                log.log_id,
                committed.carried_to(at)
            )
        })?;
    }
    Ok(())
}
