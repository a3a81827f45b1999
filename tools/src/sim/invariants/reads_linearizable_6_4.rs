//! Linearizable reads (thesis section 6.4): a read sees everything committed before it began, anywhere,
//! and nothing that is not committed when it is answered.

use super::committed::{Committed, LogModel};
use super::{Checked, require};

const NAME: &str = "reads_linearizable_6_4";

/// A read of a log's ends that began when `before` was committed is answered with `found`.
///
/// # Errors
/// [`super::Violation`]
pub fn check(log_id: u64, before: LogModel, found: LogModel, committed: &Committed) -> Checked {
    let Some(now) = committed.log(log_id) else {
        // Deleted since the read began.
        return Ok(());
    };
    let sees_all = found.next_seq >= before.next_seq
        && found.first_seq >= before.first_seq
        && found.fence >= before.fence
        && (found.is_closed || !before.is_closed)
        && found.last_time_us >= before.last_time_us;
    require(sees_all, NAME, || {
        format!("log {log_id} was {before:?} before the read began, it saw {found:?}")
    })?;
    let sees_committed = found.next_seq <= now.next_seq
        && found.first_seq <= now.first_seq
        && found.fence <= now.fence
        && (now.is_closed || !found.is_closed)
        && found.last_time_us <= now.last_time_us;
    require(sees_committed, NAME, || {
        format!("log {log_id} is committed as {now:?}, the read saw {found:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::shadow::Entry;
    use super::super::tests::entry;
    use super::*;
    use drave_batch::EntryKind;

    #[test]
    fn a_stale_read_and_a_dirty_one_are_found() {
        let mut committed = Committed::default();
        let create = Entry {
            kind: EntryKind::LogCreate,
            ..entry(1, 0)
        };
        committed.push(create, 1).unwrap();
        for seq in 0..3 {
            let data = Entry {
                first_seq: seq,
                append_time_us: 10 * (seq + 1),
                ..entry(1, seq as u32 + 1)
            };
            committed.push(data, 1).unwrap();
        }
        let log = |first_seq, next_seq, last_time_us| LogModel {
            first_seq,
            next_seq,
            last_time_us,
            ..LogModel::default()
        };
        let before = log(0, 2, 20);
        let seen = |found| check(1, before, found, &committed);
        assert!(seen(log(0, 2, 20)).is_ok());
        assert!(seen(log(0, 3, 30)).is_ok());
        assert!(seen(log(0, 1, 10)).is_err());
        assert!(seen(log(0, 4, 30)).is_err());
        assert!(seen(log(1, 3, 30)).is_err());
        assert!(seen(log(0, 3, 10)).is_err(), "the last time was later");
        assert!(seen(log(0, 3, 31)).is_err(), "nobody appended then");
    }
}
