//! A search for a time begins before the first record of that time, and near it.

use drave::replica::SeqIndex;
use drave_batch::EntryKind;

use super::committed::Committed;
use super::{Checked, require};

const NAME: &str = "times_are_found";

/// Entries of the group that a search may look at: those in the reach of one mark, and the next mark.
const LOOKED_AT_MAX: u64 = 512 + 1;

/// Committed entries from the end on whose times are searched for.
const TIMES: u64 = 16;

/// A node that has applied all that is committed finds, in what it knows of a log, where its last records of
/// different times are.
///
/// # Errors
/// [`super::Violation`]
pub fn check(slot: usize, log_id: u64, index: &SeqIndex, committed: &Committed) -> Checked {
    let first_seq = committed.log(log_id).unwrap_or_default().first_seq;
    // The first entry of a time, by walking back over all of it.
    let (mut at, mut times) = (committed.last_index(), 0);
    let mut first: Option<(u64, u64, u64)> = None;
    while let Some(known) = committed.get(at)
        && times < TIMES
    {
        let entry = &known.entry;
        if let Some((index_of, seq, time_us)) = first
            && entry.append_time_us < time_us
        {
            check_one(slot, log_id, index, (index_of, seq.max(first_seq), time_us))?;
            first = None;
            times += 1;
        }
        let end = entry.first_seq + u64::from(entry.record_count);
        if entry.kind == EntryKind::Data && entry.log_id == log_id && end > first_seq {
            first = Some((at, entry.first_seq, entry.append_time_us));
        }
        at -= 1;
    }
    Ok(())
}

fn check_one(
    slot: usize,
    log_id: u64,
    index: &SeqIndex,
    (index_of, seq, time_us): (u64, u64, u64),
) -> Checked {
    let from = index.locate_time(time_us);
    let looked_at = from
        .filter(|from| *from <= seq)
        .and_then(|from| entries_looked_at(index, from, index_of));
    let is_found = looked_at.is_some_and(|entries| entries <= LOOKED_AT_MAX);
    require(is_found, NAME, || {
        format!(
            "node {} looks for {time_us} us in log {log_id} from seq {from:?} on, at {looked_at:?} entries; it is \
             seq {seq} at {index_of}",
            slot + 1
        )
    })
}

/// How many entries a reader looks at from a seq on until it is at `index_of`, if it comes there.
fn entries_looked_at(index: &SeqIndex, from: u64, index_of: u64) -> Option<u64> {
    if index.is_carried(from) {
        // What is looked at then are entries of their own, which `records_are_found` looks after.
        return Some(0);
    }
    let mut looked_at = 0;
    let mut range = index.locate(from);
    while let Some((lo, hi)) = range
        && lo <= index_of
    {
        looked_at += hi.min(index_of + 1) - lo;
        if index_of < hi {
            return Some(looked_at);
        }
        range = index.resume(hi);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::shadow::Entry;
    use super::super::tests::entry;
    use super::*;
    use drave::replica::Mark;

    #[test]
    fn a_search_that_begins_behind_its_record_is_found() {
        let mut committed = Committed::default();
        let create = Entry {
            kind: EntryKind::LogCreate,
            ..entry(1, 0)
        };
        committed.push(create, 1).unwrap();
        let mut index = SeqIndex::default();
        let mut behind = SeqIndex::default();
        for seq in 0..6 {
            let data = Entry {
                first_seq: seq,
                append_time_us: 10 + seq / 2,
                ..entry(1, seq as u32 + 1)
            };
            committed.push(data, 1).unwrap();
            let mark = Mark {
                seq,
                index: seq + 2,
                time_us: 10 + seq / 2,
                bytes_before: 0,
            };
            index.push(mark);
            if seq > 3 {
                behind.push(mark);
            }
        }
        assert!(check(0, 1, &index, &committed).is_ok());
        assert!(check(0, 1, &behind, &committed).is_err());
        assert!(check(0, 1, &SeqIndex::default(), &committed).is_err());
    }
}
