//! Election safety (thesis figure 3.2): at most one leader in a term, and that one once: a process that
//! was started again does not lead its old term.

use std::collections::BTreeMap;

use super::{Checked, View, require};

const NAME: &str = "election_safety_3_2";

/// Who led which term, for ever.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<u64, (usize, u64)>,
}

impl ElectionSafety {
    /// A node leads.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, view: &View<'_>) -> Checked {
        let term = view.hard_state.term;
        let own = (view.slot, view.start);
        let first = *self.leaders.entry(term).or_insert(own);
        require(first == own, NAME, || {
            format!(
                "term {term} is led by node {} (process {}) and was led by node {} (process {})",
                own.0 + 1,
                own.1,
                first.0 + 1,
                first.1
            )
        })
    }

    /// Terms that had a leader.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.leaders.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_found_and_a_second_process_too() {
        let (shadow, three) = (shadow(&[]), three());
        let mut safety = ElectionSafety::default();
        let mut view = view(&shadow, &three);
        assert!(safety.check(&view).is_ok());
        assert!(safety.check(&view).is_ok());
        view.start = 2;
        assert!(safety.check(&view).is_err());
        view.start = 1;
        view.slot = 1;
        assert!(safety.check(&view).is_err());
        view.hard_state.term = 2;
        assert!(safety.check(&view).is_ok());
    }
}
