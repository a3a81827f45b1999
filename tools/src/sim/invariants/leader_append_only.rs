//! Leader append-only (thesis figure 3.2): a leader never overwrites or deletes entries of its own log.

use super::{Checked, View, require};

const NAME: &str = "leader_append_only";

/// The term each node led when it was last seen, by process.
#[derive(Debug, Default)]
pub struct LeaderAppendOnly {
    led: Vec<Option<(u64, u64)>>,
}

impl LeaderAppendOnly {
    /// A node after its turn.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, view: &View<'_>) -> Checked {
        if self.led.len() <= view.slot {
            self.led.resize(view.slot + 1, None);
        }
        let leads = view.leads().then_some((view.start, view.hard_state.term));
        let led_before = std::mem::replace(&mut self.led[view.slot], leads);
        let led_throughout = leads.is_some() && led_before == leads;
        let cut = view.shadow.truncated_from.is_some() || view.shadow.was_reset;
        require(!(led_throughout && cut), NAME, || {
            format!(
                "node {} leads term {} and cut its own log at {:?}",
                view.slot + 1,
                view.hard_state.term,
                view.shadow.truncated_from
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;
    use drave::raft::RoleKind;

    #[test]
    fn a_leader_that_cuts_is_found_and_a_follower_may() {
        let (mut entries, three) = (shadow(&[(1, 1), (1, 2)]), three());
        let mut checker = LeaderAppendOnly::default();
        let mut leader = view(&entries, &three);
        leader.role = RoleKind::Leader;
        assert!(checker.check(&leader).is_ok());
        entries.truncate(2);
        assert!(checker.check(&view(&entries, &three)).is_ok());
        let mut leader = view(&entries, &three);
        leader.role = RoleKind::Leader;
        assert!(checker.check(&leader).is_ok(), "it has just come to lead");
        assert!(checker.check(&leader).is_err());
    }
}
