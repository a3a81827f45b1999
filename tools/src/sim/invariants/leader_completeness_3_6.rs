//! Leader completeness (thesis section 3.6): an entry committed in a term is in the logs of the leaders of
//! all later terms. Only of later ones: a leader of an older term may be elected late and lack it.

use super::committed::Committed;
use super::{Checked, View, require};

const NAME: &str = "leader_completeness_3_6";

/// A node has come to lead.
///
/// # Errors
/// [`super::Violation`]
pub fn check(view: &View<'_>, committed: &Committed) -> Checked {
    let term = view.hard_state.term;
    // By the chain the last such entry stands for all before it.
    for index in (view.shadow.first_index()..=committed.last_index()).rev() {
        let Some(known) = committed.get(index) else {
            continue;
        };
        if known.commit_term >= term {
            continue;
        }
        let own = view.shadow.get(index);
        return require(
            own.is_some_and(|own| own.crc == known.entry.crc && own.term == known.entry.term),
            NAME,
            || {
                format!(
                    "node {} leads term {term} without entry {index} of term {}, committed in term {}: it has {:?}",
                    view.slot + 1,
                    known.entry.term,
                    known.commit_term,
                    own.map(|own| own.term)
                )
            },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::shadow::Entry;
    use super::super::tests::{entry, shadow, three, view};
    use super::*;
    use drave_batch::EntryKind;

    #[test]
    fn a_leader_that_lacks_a_committed_entry_is_found() {
        let three = three();
        let mut committed = Committed::default();
        let noop = |term, crc| Entry {
            kind: EntryKind::Noop,
            ..entry(term, crc)
        };
        committed.push(noop(1, 1), 1).unwrap();
        committed.push(noop(2, 2), 2).unwrap();
        let (whole, other, short) = (
            shadow(&[(1, 1), (2, 2), (3, 3)]),
            shadow(&[(1, 1), (1, 9)]),
            shadow(&[(1, 1)]),
        );
        let led = |shadow, term| {
            let mut view = view(shadow, &three);
            view.hard_state.term = term;
            check(&view, &committed)
        };
        assert!(led(&whole, 3).is_ok());
        assert!(led(&other, 3).is_err());
        assert!(led(&short, 3).is_err());
        assert!(
            led(&short, 2).is_ok(),
            "a leader of the term it was committed in may lack it"
        );
    }
}
