//! The commit index of a process never goes back, and what is committed is applied at once and in order.

use super::{Checked, View, require};

const NAME: &str = "commit_never_regresses";

/// The commit index of each node's process when it was last seen.
#[derive(Debug, Default)]
pub struct CommitNeverRegresses {
    seen: Vec<(u64, u64)>,
}

impl CommitNeverRegresses {
    /// A node after its turn. Gives its commit index before that turn; 0 for a new process.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(&mut self, view: &View<'_>) -> Result<u64, super::Violation> {
        if self.seen.len() <= view.slot {
            self.seen.resize(view.slot + 1, (0, 0));
        }
        let seen = &mut self.seen[view.slot];
        let before = if seen.0 == view.start { seen.1 } else { 0 };
        *seen = (view.start, view.commit_index);
        let holds: Checked = require(view.commit_index >= before, NAME, || {
            format!(
                "node {} went from {before} to {}",
                view.slot + 1,
                view.commit_index
            )
        });
        holds?;
        require(view.applied_index == view.commit_index, NAME, || {
            format!(
                "node {} has committed {} and applied {}",
                view.slot + 1,
                view.commit_index,
                view.applied_index
            )
        })?;
        Ok(before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;

    #[test]
    fn a_commit_index_that_goes_back_is_found() {
        let (entries, three) = (shadow(&[(1, 1), (1, 2)]), three());
        let mut checker = CommitNeverRegresses::default();
        let mut node = view(&entries, &three);
        (node.commit_index, node.applied_index) = (2, 2);
        assert_eq!(checker.check(&node), Ok(0));
        assert_eq!(checker.check(&node), Ok(2));
        (node.commit_index, node.applied_index) = (1, 1);
        assert!(checker.check(&node).is_err());
        node.start = 2;
        assert_eq!(checker.check(&node), Ok(0));
        node.applied_index = 2;
        assert!(checker.check(&node).is_err());
    }
}
