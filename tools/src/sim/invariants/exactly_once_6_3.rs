//! Exactly once (thesis section 6.3): an operation of a client is in the log at most once however often it
//! was sent, a producer's batches are there in order and without gaps, and what a client was told was not
//! written is not there.

use std::collections::BTreeSet;

use super::committed::Committed;
use super::{Checked, require};

const NAME: &str = "exactly_once_6_3";

/// Operations that were refused for good. The rest is checked as entries commit, in [`Committed::push`].
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    refused: BTreeSet<u64>,
}

impl ExactlyOnce {
    /// An operation that was sent once was refused with a code that says "not written".
    pub fn refused(&mut self, operation: u64) {
        self.refused.insert(operation);
    }

    /// At the end: none of those is in the log.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check_all(&self, committed: &Committed) -> Checked {
        for operation in &self.refused {
            let index = committed.index_of(*operation);
            require(index.is_none(), NAME, || {
                format!("operation {operation} was refused as not written, and is at {index:?}")
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

    fn data(operation: u64, first_seq: u64, producer_seq: u64) -> Entry {
        Entry {
            operation,
            first_seq,
            producer_id: 9,
            producer_seq,
            ..entry(1, operation as u32)
        }
    }

    fn committed() -> Committed {
        let mut committed = Committed::default();
        let create = Entry {
            kind: EntryKind::LogCreate,
            ..entry(1, 0)
        };
        committed.push(create, 1).unwrap();
        committed.push(data(1, 0, 0), 1).unwrap();
        committed
    }

    #[test]
    fn a_second_copy_a_gap_and_a_wrong_seq_are_found() {
        assert!(committed().push(data(2, 1, 1), 1).is_ok());
        for wrong in [
            data(1, 1, 1),
            data(2, 1, 2),
            data(2, 1, 0),
            data(2, 0, 1),
            data(2, 2, 1),
        ] {
            assert_eq!(
                committed().push(wrong.clone(), 1).unwrap_err().0,
                NAME,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn times_that_run_backwards_are_found() {
        let at = |append_time_us| Entry {
            append_time_us,
            ..data(2, 1, 1)
        };
        let mut committed = committed();
        assert!(committed.push(at(7), 1).is_ok());
        let earlier = Entry {
            append_time_us: 6,
            ..data(3, 2, 2)
        };
        assert!(committed.push(earlier, 1).is_err());
    }

    #[test]
    fn what_was_refused_and_is_there_is_found() {
        let mut checker = ExactlyOnce::default();
        checker.refused(7);
        assert!(checker.check_all(&committed()).is_ok());
        checker.refused(1);
        assert!(checker.check_all(&committed()).is_err());
    }
}
