//! Which configuration is in force, by log position: the latest one in the log, committed or not.

use super::configuration::{Configuration, ConfigurationError};
use super::effect::Control;
use super::error::ConfigurationChangeError;
use super::marks::{Mark, mark};
use super::mutants::{Mutant, is_planted};
use super::progress::Progress;
use super::raft::Raft;
use super::role::Role;
use super::types::{EntryId, NodeId};
use super::window::Window;
use alloc::vec::Vec;

/// A configuration and the index of the entry that brought it.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct ConfigurationAt {
    /// Index of the configuration entry; 0 for the one a cluster starts with.
    pub index: u64,
    /// The configuration.
    pub configuration: Configuration,
}

/// Invariants: `base` is at or below the commit index or is what the node started with;
/// `appended` ascends above it.
pub(super) struct Membership {
    base: ConfigurationAt,
    appended: Vec<ConfigurationAt>,
}

impl Membership {
    pub(super) fn new(base: ConfigurationAt, appended: Vec<ConfigurationAt>) -> Membership {
        Membership { base, appended }
    }

    fn latest(&self) -> &ConfigurationAt {
        if is_planted(Mutant::ConfigurationWhenCommitted) {
            return &self.base;
        }
        self.appended.last().unwrap_or(&self.base)
    }

    pub(super) fn current(&self) -> &Configuration {
        &self.latest().configuration
    }

    pub(super) fn current_index(&self) -> u64 {
        self.latest().index
    }

    /// The configuration in force can no longer be rolled back.
    pub(super) fn is_committed(&self) -> bool {
        self.appended.is_empty()
    }

    /// `node` votes in an earlier configuration that the one in force has not yet replaced for good.
    pub(super) fn removal_is_open(&self, node: NodeId) -> bool {
        let Some((_, earlier)) = self.appended.split_last() else {
            return false;
        };
        let votes = |at: &ConfigurationAt| at.configuration.is_voter(node);
        votes(&self.base) || earlier.iter().any(votes)
    }

    pub(super) fn append(&mut self, at: ConfigurationAt) {
        assert!(
            at.index > self.current_index() || is_planted(Mutant::ConfigurationNotRolledBack),
            "configurations ascend with the log"
        );
        self.appended.push(at);
    }

    /// Entries from `index` on are gone, and the configurations in them.
    /// Returns whether the one in force changed.
    pub(super) fn truncate_from(&mut self, index: u64) -> bool {
        let count = self.appended.len();
        self.appended.retain(|at| at.index < index);
        count != self.appended.len()
    }

    /// What is committed can no longer be rolled back.
    pub(super) fn committed(&mut self, commit_index: u64) {
        while self
            .appended
            .first()
            .is_some_and(|at| at.index <= commit_index)
        {
            self.base = self.appended.remove(0);
        }
    }

    /// The log was replaced by a snapshot.
    pub(super) fn reset(&mut self, base: ConfigurationAt) {
        self.base = base;
        self.appended.clear();
    }
}

impl Raft {
    /// Moves the cluster to `target`, a simple configuration. Takes effect when appended.
    ///
    /// One voter more or fewer is one step; anything else goes through a joint configuration, which
    /// whoever leads leaves by itself once it is committed. One change at a time. A node becomes a
    /// learner first and a voter when it has caught up.
    pub fn propose_configuration(
        &mut self,
        now_us: u64,
        target: Configuration,
    ) -> Result<EntryId, ConfigurationChangeError> {
        self.advance_clock(now_us);
        self.assert_controls_polled();
        self.check_may_propose()
            .map_err(ConfigurationChangeError::Propose)?;
        target
            .validate()
            .map_err(ConfigurationChangeError::Invalid)?;
        if target.is_joint() {
            return Err(ConfigurationChangeError::Joint);
        }
        if target.voters.is_empty() {
            return Err(ConfigurationChangeError::Invalid(
                ConfigurationError::NoVoters,
            ));
        }
        let Role::Leader(leader) = &self.role else {
            unreachable!("just checked")
        };
        // Before that, an unseen change of an earlier leader could overlap with this one.
        if self.commit_index < leader.term_start_index
            && !is_planted(Mutant::ChangeBeforeTermCommit)
        {
            return Err(ConfigurationChangeError::TermNotCommitted {
                term_start_index: leader.term_start_index,
            });
        }
        let current = self.membership.current();
        let configuration_index = self.membership.current_index();
        if configuration_index > self.commit_index && !is_planted(Mutant::ConcurrentChanges)
            || current.is_joint()
        {
            return Err(ConfigurationChangeError::Uncommitted {
                configuration_index,
            });
        }
        if *current == target {
            return Err(ConfigurationChangeError::Unchanged);
        }
        for node in target
            .voters
            .iter()
            .filter(|node| !current.is_voter(**node))
        {
            let match_index = match leader.progress(*node) {
                Some(progress) if current.contains(*node) => progress.match_index,
                _ => 0,
            };
            if match_index == 0 || !self.is_caught_up(*node) {
                return Err(ConfigurationChangeError::NotCaughtUp {
                    node: *node,
                    match_index,
                });
            }
        }
        self.check_keeps_quorum(&target)?;
        let next = step_towards(self.membership.current(), target)?;
        let index = self.append_configuration(next);
        Ok(EntryId {
            term: self.hard_state.term,
            index,
        })
    }

    /// Enough of the voters to be have answered lately: the change can be committed, and the group
    /// goes on after it.
    fn check_keeps_quorum(&self, target: &Configuration) -> Result<(), ConfigurationChangeError> {
        let Role::Leader(leader) = &self.role else {
            unreachable!("just checked")
        };
        let since_us = self
            .now_us
            .saturating_sub(self.config.election_timeout_us_max);
        let answers = |node: &NodeId| {
            *node == self.config.id
                || leader.progress(*node).is_some_and(|progress| {
                    progress.match_index > 0 && progress.last_active_us >= since_us
                })
        };
        let answering = target.voters.iter().filter(|node| answers(node)).count();
        let needed = target.voters.len() / 2 + 1;
        if answering < needed {
            return Err(ConfigurationChangeError::WouldLoseQuorum {
                needed: needed as u32,
                answering: answering as u32,
            });
        }
        Ok(())
    }

    /// A configuration entry among those that `step_append` had stored. It is in force from now on.
    ///
    /// # Panics
    /// When the configuration is not valid: a leader never appends such an entry, and there is no
    /// going on without knowing who votes.
    pub fn on_configuration_stored(&mut self, index: u64, configuration: Configuration) {
        assert!(
            configuration.validate().is_ok(),
            "a leader appends valid configurations only"
        );
        assert!(index <= self.log.last_index(), "the entry is in the log");
        if index <= self.membership.current_index() {
            return;
        }
        self.membership.append(ConfigurationAt {
            index,
            configuration,
        });
        self.membership.committed(self.commit_index);
    }

    fn append_configuration(&mut self, configuration: Configuration) -> u64 {
        let index = self.append_control(Control::Configuration(configuration.clone()));
        self.membership.append(ConfigurationAt {
            index,
            configuration,
        });
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.push(index, 0);
        }
        self.add_new_peers();
        self.abort_impossible_transfer();
        let before = self.commit_index;
        // The new majority may already have what the old one lacked.
        self.advance_commit_by_quorum();
        if self.commit_index > before {
            mark(Mark::CommittedByRemoval);
        }
        index
    }

    /// A node that joins starts with a session of its own: replies that an earlier membership of
    /// the same node left behind do not speak for it.
    fn add_new_peers(&mut self) {
        let next_index = self.log.last_index() + 1;
        let now_us = self.now_us;
        for node in self.membership.current().members() {
            let Role::Leader(leader) = &mut self.role else {
                return;
            };
            let is_there = |progress: &Progress| progress.departs_at_us.is_none();
            if node == self.config.id || leader.progress(node).is_some_and(is_there) {
                continue;
            }
            leader.peers.retain(|(peer, _)| *peer != node);
            let session = leader.next_session();
            let window = Window::new(&self.config);
            leader
                .peers
                .push((node, Progress::new(next_index, session, now_us, window)));
            leader.peers.sort_unstable_by_key(|(peer, _)| *peer);
        }
    }

    /// Called on a leader when the commit index has moved: drops peers that have left, leaves a
    /// committed joint configuration, steps down when this node is no longer in it.
    pub(super) fn continue_membership_change(&mut self) {
        let own = self.config.id;
        let configuration_index = self.membership.current_index();
        let configuration = self.membership.current();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        // A leader's commit index moves by entries of its own term only, so its no-op is committed.
        if configuration_index > self.commit_index {
            return;
        }
        let departs_at_us = self.now_us + self.config.election_timeout_us_max;
        for (peer, progress) in &mut leader.peers {
            if !configuration.contains(*peer) {
                progress.departs_at_us.get_or_insert(departs_at_us);
            }
        }
        if is_planted(Mutant::JointNotLeft) && configuration_index < leader.term_start_index {
            return;
        }
        if configuration.is_joint() {
            if configuration_index < leader.term_start_index {
                mark(Mark::JointLeftByNewLeader);
            }
            let next = configuration.without_outgoing();
            self.append_configuration(next);
            return;
        }
        if !configuration.is_voter(own) {
            mark(Mark::LeaderRemoved);
            self.hand_over_to_best();
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// Forgets members that have left and know it, or had an election timeout to learn it: whoever was
    /// not told would go on asking for votes (thesis section 4.2.3).
    pub(super) fn drop_departed(&mut self) {
        let configuration_index = self.membership.current_index();
        let now_us = self.now_us;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.peers.retain(|(_, progress)| {
            let Some(departs_at_us) = progress.departs_at_us else {
                return true;
            };
            let knows = progress.match_index >= configuration_index
                && progress.commit_sent >= configuration_index;
            if knows {
                mark(Mark::DepartingTold);
            }
            !knows && now_us < departs_at_us
        });
    }
}

/// One voter more or fewer keeps every old majority in touch with every new one; more does not.
fn step_towards(
    current: &Configuration,
    target: Configuration,
) -> Result<Configuration, ConfigurationChangeError> {
    let added = target
        .voters
        .iter()
        .filter(|node| !current.is_voter(**node))
        .count();
    let removed = current
        .voters
        .iter()
        .filter(|node| !target.is_voter(**node))
        .count();
    if added + removed <= 1 || is_planted(Mutant::TwoVoterStep) {
        return Ok(target);
    }
    // While it votes in the set being left, a node cannot be listed as a learner.
    if let Some(node) = target.learners.iter().find(|node| current.is_voter(**node)) {
        return Err(ConfigurationChangeError::DemotionNotAlone { node: *node });
    }
    let voters_outgoing = current.voters.clone();
    let next = Configuration {
        voters: target.voters,
        voters_outgoing,
        learners: target.learners,
    };
    next.validate().map_err(ConfigurationChangeError::Invalid)?;
    Ok(next)
}
