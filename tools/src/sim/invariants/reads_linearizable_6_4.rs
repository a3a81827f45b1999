//! Linearizable reads (thesis section 6.4): a read sees everything committed before it began, anywhere,
//! and nothing that is not committed when it is answered.

use super::committed::{Committed, LogModel};
use super::{Checked, require};

const NAME: &str = "reads_linearizable_6_4";

/// A read of a log's ends that began when `before` was committed is answered with `(first_seq, next_seq)`.
///
/// # Errors
/// [`super::Violation`]
pub fn check(log_id: u64, before: LogModel, found: (u64, u64), committed: &Committed) -> Checked {
    let now = committed.log(log_id).unwrap_or_default();
    let sees_all = found.1 >= before.next_seq && found.0 >= before.first_seq;
    require(sees_all, NAME, || {
        format!(
            "log {log_id} was [{}, {}) before the read began, it saw [{}, {})",
            before.first_seq, before.next_seq, found.0, found.1
        )
    })?;
    let sees_committed = found.1 <= now.next_seq && found.0 <= now.first_seq;
    require(sees_committed, NAME, || {
        format!(
            "log {log_id} is committed as [{}, {}), the read saw [{}, {})",
            now.first_seq, now.next_seq, found.0, found.1
        )
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
                ..entry(1, seq as u32 + 1)
            };
            committed.push(data, 1).unwrap();
        }
        let before = LogModel {
            first_seq: 0,
            next_seq: 2,
        };
        assert!(check(1, before, (0, 2), &committed).is_ok());
        assert!(check(1, before, (0, 3), &committed).is_ok());
        assert!(check(1, before, (0, 1), &committed).is_err());
        assert!(check(1, before, (0, 4), &committed).is_err());
        assert!(check(1, before, (1, 3), &committed).is_err());
    }
}
