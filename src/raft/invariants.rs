//! What must hold of one node at any time, and between any two times. For tests, the simulator and
//! debug builds: `check` walks everything, `check_delta` compares two observations.

use super::raft::Raft;
use super::role::{Role, RoleKind};
use super::types::{EntryId, HardState};
use core::fmt;

/// What [`Raft::check_delta`] compares.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Observation {
    /// Term and vote.
    pub hard_state: HardState,
    /// Role.
    pub role: RoleKind,
    /// Commit index.
    pub commit_index: u64,
    /// First entry held.
    pub first_index: u64,
    /// Last entry.
    pub last: EntryId,
}

/// A broken invariant, named.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Violation(pub &'static str);

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "broken invariant: {}", self.0)
    }
}

impl core::error::Error for Violation {}

fn require(holds: bool, name: &'static str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(name)) }
}

impl Raft {
    /// What to compare with later.
    pub fn observe(&self) -> Observation {
        Observation {
            hard_state: self.hard_state,
            role: self.role(),
            commit_index: self.commit_index,
            first_index: self.log.first_index(),
            last: self.log.last(),
        }
    }

    /// Checks everything that must hold now. Linear in peers and term runs.
    pub fn check(&self) -> Result<(), Violation> {
        let (first, last) = (self.log.first_index(), self.log.last_index());
        require(
            first > 0 && last + 1 >= first,
            "first_index - 1 <= last_index",
        )?;
        require(
            self.commit_index + 1 >= first,
            "first_index - 1 <= commit_index",
        )?;
        require(self.commit_index <= last, "commit_index <= last_index")?;
        let durable = self.log.durable_index();
        require(
            durable + 1 >= first && durable <= last,
            "durable_index is within the log",
        )?;
        require(
            self.hard_state.term >= self.log.last().term,
            "term >= last entry's term",
        )?;
        require(
            self.hard_state.covers(self.hard_state_durable),
            "durable hard state is behind",
        )?;
        let runs = self.log.runs();
        require(
            runs.is_empty() == (last < first),
            "runs exist exactly if entries do",
        )?;
        require(
            runs.first().is_none_or(|run| run.first_index == first),
            "runs start the log",
        )?;
        require(
            runs.last().is_none_or(|run| run.first_index <= last),
            "runs are in the log",
        )?;
        let ascend = runs
            .windows(2)
            .all(|pair| pair[0].term < pair[1].term && pair[0].first_index < pair[1].first_index);
        require(ascend, "runs ascend")?;
        require(
            self.configuration_index() <= last,
            "the configuration is in the log",
        )?;
        match &self.role {
            Role::Leader(_) => self.check_leader(),
            Role::Follower(follower) => {
                require(
                    follower.verified_index <= last,
                    "verified_index <= last_index",
                )?;
                require(follower.acked_index <= last, "acked_index <= last_index")?;
                require(
                    follower.leader_commit.min(follower.verified_index) <= self.commit_index,
                    "a follower commits what is verified and told",
                )
            }
            Role::PreCandidate(_) => require(self.is_promotable(), "only voters campaign"),
            Role::Candidate(_) => require(
                self.hard_state.vote == Some(self.config.id),
                "a candidate votes for itself",
            ),
        }
    }

    fn check_leader(&self) -> Result<(), Violation> {
        let Role::Leader(leader) = &self.role else {
            return Ok(());
        };
        let last = self.log.last_index();
        require(
            self.hard_state.vote == Some(self.config.id),
            "a leader voted for itself",
        )?;
        require(self.hard_state_is_durable(), "a leader's term is durable")?;
        require(self.held.len() == 0, "a leader holds nothing back")?;
        require(
            self.log.last().term == self.hard_state.term,
            "a leader's log ends in its term",
        )?;
        require(
            self.log
                .term_at(leader.term_start_index)
                .is_none_or(|term| term == self.term()),
            "a term starts with its no-op",
        )?;
        for (_, progress) in &leader.peers {
            require(
                progress.match_index < progress.next_index,
                "match_index < next_index",
            )?;
            require(
                progress.next_index <= last + 1,
                "next_index <= last_index + 1",
            )?;
            require(progress.match_index <= last, "match_index <= last_index")?;
            let replicates = progress.state == super::ProgressState::Replicate;
            require(
                replicates || progress.window.is_empty(),
                "only Replicate has a window",
            )?;
            let bounded = progress.window.messages() <= self.config.window_entries_max as usize;
            require(bounded, "the window is bounded")?;
            require(
                progress.read_round <= leader.reads.round(),
                "rounds are the leader's",
            )?;
        }
        Ok(())
    }

    /// Checks what must hold between `before` and now, without a restart in between.
    pub fn check_delta(&self, before: &Observation) -> Result<(), Violation> {
        let now = self.observe();
        require(
            now.hard_state.covers(before.hard_state),
            "terms and votes are not taken back",
        )?;
        require(
            now.commit_index >= before.commit_index,
            "the commit index does not go back",
        )?;
        require(
            now.first_index >= before.first_index,
            "first_index does not go back",
        )?;
        let led_throughout = before.role == RoleKind::Leader
            && now.role == RoleKind::Leader
            && now.hard_state.term == before.hard_state.term;
        if led_throughout {
            require(now.last >= before.last, "a leader only appends")?;
        }
        Ok(())
    }
}
