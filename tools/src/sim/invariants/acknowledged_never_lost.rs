//! What a client was told is there: committed when it is told, at the seq it is told, and for ever.

use drave_batch::wire::Appended;

use super::committed::Committed;
use super::{Checked, require};

const NAME: &str = "acknowledged_never_lost";

/// Every acknowledged operation, and where.
#[derive(Debug, Default)]
pub struct AcknowledgedNeverLost {
    acknowledged: Vec<(u64, u64)>,
}

impl AcknowledgedNeverLost {
    /// A node answers an append: the entry is committed already, and it is that operation's.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, operation: u64, appended: &Appended, committed: &Committed) -> Checked {
        let index = committed.index_of(operation);
        require(index.is_some(), NAME, || {
            format!(
                "operation {operation} is acknowledged at {} and not committed",
                appended.index
            )
        })?;
        let index = index.unwrap_or(0);
        let entry = committed.get(index).map(|known| &known.entry);
        let same = entry.is_some_and(|entry| {
            (appended.index == 0 || appended.index == index)
                && entry.first_seq == appended.first_seq
                && entry.log_id == appended.log_id
                && entry.record_count == appended.record_count
        });
        require(same, NAME, || {
            format!(
                "operation {operation} is at {index} ({entry:?}), the client was told {appended:?}"
            )
        })?;
        self.acknowledged.push((operation, index));
        Ok(())
    }

    /// Acknowledged operations so far, each as often as it was.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// At the end, of one recovered disk: every acknowledged operation is there, once. `operation_at`
    /// gives what it holds at an index, none for what a snapshot stands for.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check_recovered(
        &self,
        slot: usize,
        first_index: u64,
        committed: &Committed,
        operation_at: impl Fn(u64) -> Option<u64>,
    ) -> Checked {
        for (operation, index) in &self.acknowledged {
            if *index < first_index {
                let is_carried = committed
                    .carried_to(*index)
                    .is_some_and(|carried_to| carried_to >= first_index);
                require(is_carried || committed.is_trimmed(*index), NAME, || {
                    format!(
                        "operation {operation} was acknowledged at {index}; the log of node {} begins at \
                         {first_index}, and it was neither trimmed nor carried over",
                        slot + 1
                    )
                })?;
                continue;
            }
            let found = operation_at(*index);
            require(found == Some(*operation), NAME, || {
                format!(
                    "operation {operation} was acknowledged at {index}; node {} holds {found:?} there",
                    slot + 1
                )
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::shadow::Entry;
    use super::super::tests::entry;
    use super::*;
    use drave_batch::EntryKind;

    fn appended(index: u64, first_seq: u64) -> Appended {
        Appended {
            log_id: 1,
            first_seq,
            record_count: 1,
            duplicate: false,
            producer_seq: 0,
            term: 1,
            index,
        }
    }

    #[test]
    fn an_answer_before_commitment_or_with_another_place_is_found() {
        let mut committed = Committed::default();
        let create = Entry {
            kind: EntryKind::LogCreate,
            ..entry(1, 0)
        };
        committed.push(create, 1).unwrap();
        let data = Entry {
            first_seq: 0,
            ..entry(1, 5)
        };
        committed.push(data, 1).unwrap();
        let mut checker = AcknowledgedNeverLost::default();
        assert!(checker.check(5, &appended(2, 0), &committed).is_ok());
        assert!(checker.check(6, &appended(3, 1), &committed).is_err());
        assert!(checker.check(5, &appended(3, 0), &committed).is_err());
        assert!(checker.check(5, &appended(2, 1), &committed).is_err());
        let recovered = |first_index, operation: Option<u64>| {
            let at = |index| operation.filter(|_| index == 2);
            checker.check_recovered(0, first_index, &committed, at)
        };
        assert!(recovered(1, Some(5)).is_ok());
        assert!(recovered(1, None).is_err());
        assert!(recovered(1, Some(4)).is_err());
        assert!(recovered(3, None).is_err(), "it was not trimmed");
        let trim = Entry {
            kind: EntryKind::LogTrim,
            first_seq: 1,
            ..entry(1, 9)
        };
        committed.push(trim, 1).unwrap();
        assert!(checker.check_recovered(0, 3, &committed, |_| None).is_ok());
    }
}
