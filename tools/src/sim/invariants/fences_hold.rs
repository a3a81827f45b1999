//! Fencing tokens hold: what is acknowledged was appended while its log had the token that it carried, and tokens
//! only rise.

use super::committed::Committed;
use super::{Checked, require};

const NAME: &str = "fences_hold";

/// An append whose attempts carried `fences` is acknowledged as the entry of this index, 0 when that is not known.
///
/// # Errors
/// [`super::Violation`]
pub fn check(index: u64, fences: &[u64], committed: &Committed) -> Checked {
    // What is acknowledged and not committed is another invariant's to find.
    let Some(fence) = committed.fence_at(index) else {
        return Ok(());
    };
    require(fences.contains(&fence), NAME, || {
        format!("entry {index} was appended with token {fences:?} to a log fenced with {fence}")
    })
}

#[cfg(test)]
mod tests {
    use drave_batch::{EntryKind, LogChange};

    use super::super::super::shadow::Entry;
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn an_append_with_another_token_and_a_token_that_falls_are_found() {
        let mut committed = Committed::default();
        let create = Entry {
            kind: EntryKind::LogCreate,
            log_id: 0,
            ..entry(1, 0)
        };
        committed.push(create, 1).unwrap();
        let data = |first_seq| Entry {
            first_seq,
            ..entry(1, first_seq as u32 + 1)
        };
        let fence = |token| Entry {
            kind: EntryKind::LogChange,
            change: Some(LogChange::Fence { token }),
            ..entry(1, 2)
        };
        committed.push(data(0), 1).unwrap();
        committed.push(fence(4), 1).unwrap();
        committed.push(data(1), 1).unwrap();
        assert!(check(2, &[0], &committed).is_ok());
        assert!(check(2, &[4], &committed).is_err());
        assert!(check(4, &[0, 4], &committed).is_ok());
        assert!(check(4, &[0], &committed).is_err());
        assert!(committed.push(fence(4), 1).is_err());
    }
}
