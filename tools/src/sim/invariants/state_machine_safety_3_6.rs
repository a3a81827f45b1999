//! State-machine safety (thesis section 3.6): what one node applies at an index, no node applies anything
//! else there. What was applied amounts to the same state everywhere.

use std::collections::BTreeMap;

use drave_batch::checksum;

use super::committed::{Committed, LogModel};
use super::{Checked, View, Violation, require};

const NAME: &str = "state_machine_safety_3_6";

/// What the state amounts to at each index where anybody took a snapshot: the same bytes for all.
#[derive(Debug, Default)]
pub struct States {
    known: BTreeMap<u64, u32>,
}

impl States {
    /// A node took or received the state at `index`.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn check(&mut self, slot: usize, index: u64, bytes: &[u8]) -> Checked {
        let found = checksum(bytes);
        let known = *self.known.entry(index).or_insert(found);
        require(known == found, NAME, || {
            format!(
                "the state of node {} at {index} is another than elsewhere",
                slot + 1
            )
        })
    }
}

/// A node's commit index has moved from `before`: what it now holds as committed is what everybody does.
/// Whoever is first defines it.
///
/// # Errors
/// [`Violation`]
pub fn check(view: &View<'_>, before: u64, committed: &mut Committed) -> Checked {
    let first_index = view.shadow.first_index();
    // What a snapshot stands for is known from others already.
    require(first_index - 1 <= committed.last_index(), NAME, || {
        format!(
            "node {} holds a snapshot up to {}, and {} is committed",
            view.slot + 1,
            first_index - 1,
            committed.last_index()
        )
    })?;
    for index in (before + 1).max(first_index)..=view.commit_index {
        let Some(own) = view.shadow.get(index) else {
            return Err(Violation {
                invariant: NAME,
                what: format!(
                    "node {} committed {index} and does not hold it",
                    view.slot + 1
                ),
            });
        };
        match committed.get(index) {
            Some(known) => {
                require(known.entry == *own, NAME, || {
                    format!(
                        "entry {index} is {:08x} of term {} at node {} and {:08x} of term {} elsewhere",
                        own.crc,
                        own.term,
                        view.slot + 1,
                        known.entry.crc,
                        known.entry.term
                    )
                })?;
            }
            None => {
                let pushed = committed.push(own.clone(), view.hard_state.term);
                pushed.map_err(|(invariant, what)| Violation { invariant, what })?;
            }
        }
    }
    Ok(())
}

/// What a node has applied amounts to what was committed: each log, by number. To be asked when the node has
/// applied exactly what is known as committed.
///
/// # Errors
/// [`Violation`]
pub fn check_state(slot: usize, logs: &[(u64, LogModel)], committed: &Committed) -> Checked {
    let expected: Vec<(u64, LogModel)> = committed.logs().collect();
    require(expected == logs, NAME, || {
        format!(
            "node {} applied {logs:?}, committed is {expected:?}",
            slot + 1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::shadow::Entry;
    use super::super::tests::{entry, three, view};
    use super::*;
    use crate::sim::shadow::Shadow;
    use drave_batch::EntryKind;

    fn log(entries: &[(u64, u32)]) -> Shadow {
        let mut shadow = Shadow::starting_at(1);
        for (term, crc) in entries {
            shadow.push_entry(Entry {
                kind: EntryKind::Noop,
                ..entry(*term, *crc)
            });
        }
        shadow
    }

    #[test]
    fn another_entry_at_a_committed_index_is_found() {
        let three = three();
        let mut committed = Committed::default();
        let (a, b) = (log(&[(1, 1), (1, 2)]), log(&[(1, 1), (2, 3)]));
        let commits = |shadow, index, committed: &mut Committed| {
            let mut view = view(shadow, &three);
            view.commit_index = index;
            check(&view, 0, committed)
        };
        assert!(commits(&a, 2, &mut committed).is_ok());
        assert_eq!(committed.last_index(), 2);
        assert!(commits(&b, 1, &mut committed).is_ok());
        assert!(commits(&b, 2, &mut committed).is_err());
        assert!(commits(&a, 3, &mut committed).is_err(), "not held");
    }

    #[test]
    fn other_bytes_at_the_same_index_are_found() {
        let mut states = States::default();
        assert!(states.check(0, 4, b"one").is_ok());
        assert!(states.check(1, 4, b"one").is_ok());
        assert!(states.check(1, 5, b"two").is_ok());
        assert!(states.check(2, 4, b"two").is_err());
    }

    #[test]
    fn another_state_is_found() {
        let committed = Committed::default();
        assert!(check_state(0, &[], &committed).is_ok());
        assert!(check_state(0, &[(1, LogModel::default())], &committed).is_err());
    }
}
