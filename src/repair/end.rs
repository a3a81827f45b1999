//! Where the log ended, when that is lost: who is asked, and whose word is taken.
//!
//! A leader of this node's own term holds every entry it ever sent this node; a leader of a later term was elected
//! without this node, and holds every entry that can have been committed before. So the log of either one, as it is
//! now, has whatever this node can have acknowledged towards a commit, and more than that nobody counts on.

use super::range::RangeState;
use super::{Gap, LastEntry};

/// The question where the log ends, and its answer.
#[derive(Debug)]
pub(super) struct EndSearch {
    /// Whom it was put to, and what they said.
    pub(super) question: RangeState,
    /// This node's term: a leader of an earlier one is not believed.
    pub(super) term_min: u64,
    /// The term of the leader whose word was taken.
    pub(super) given: Option<u64>,
}

/// What to do with a member's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndWord {
    /// The log ends there.
    Take(LastEntry),
    /// It does not lead.
    Follows,
    /// It leads in a term before this node's own.
    Earlier,
    /// It leads, and nothing of it is new.
    Known,
}

impl EndSearch {
    pub(super) fn new(open: Gap, term_min: u64) -> Self {
        assert!(open.is_open(), "only a lost end is searched for");
        Self {
            question: RangeState::new(open, 0),
            term_min,
            given: None,
        }
    }

    pub(super) fn judge(&self, term: u64, last: Option<LastEntry>) -> EndWord {
        match last {
            None => EndWord::Follows,
            Some(_) if term < self.term_min => EndWord::Earlier,
            // The log of one leader only grows: its first word was enough.
            Some(_) if self.given.is_some_and(|given| term <= given) => EndWord::Known,
            Some(last) => EndWord::Take(last),
        }
    }
}
