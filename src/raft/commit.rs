//! Where the commit index moves, and what follows from it.

use super::marks::{Mark, mark};
use super::mutants::{Mutant, is_planted};
use super::quorum::quorum_value;
use super::raft::Raft;
use super::role::Role;

impl Raft {
    /// A leader's rule: a quorum has it on disk, and it is of this term; what is before it follows.
    ///
    /// The leader counts itself only as far as its own flushes go and does not wait for them.
    pub(super) fn advance_commit_by_quorum(&mut self) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let own = self.config.id;
        let counted_own = if is_planted(Mutant::LeaderCountsUnflushed) {
            self.log.last_index()
        } else {
            self.log.durable_index()
        };
        let quorum_index = quorum_value(self.membership.current(), |node| {
            let stands_for_own = is_planted(Mutant::LeaderOutsideCounts)
                && !self.is_voter()
                && self.membership.current().voters.first() == Some(&node);
            if node == own || stands_for_own {
                counted_own
            } else {
                leader
                    .progress(node)
                    .map_or(0, |progress| progress.match_index)
            }
        });
        if self.log.term_at(quorum_index) == Some(self.hard_state.term)
            || is_planted(Mutant::CommitPriorTerm)
        {
            if quorum_index > self.log.durable_index() {
                mark(Mark::CommitBeforeOwnFlush);
            }
            if self.log.term_at(self.commit_index + 1) != Some(self.hard_state.term)
                && quorum_index > self.commit_index
            {
                mark(Mark::EarlierTermFollowed);
            }
            self.advance_commit(quorum_index);
        }
    }

    /// The one place where the commit index moves.
    pub(super) fn advance_commit(&mut self, commit_index: u64) {
        if commit_index <= self.commit_index {
            return;
        }
        assert!(
            commit_index <= self.log.last_index(),
            "commits only what is in the log"
        );
        self.commit_index = commit_index;
        self.membership.committed(commit_index);
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.committed(commit_index);
            self.resolve_reads();
            self.continue_membership_change();
        }
    }
}
