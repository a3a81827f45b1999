//! Who votes, who only listens: validated member sets, simple or joint.

use super::types::NodeId;
use alloc::vec::Vec;
use core::fmt;

/// Members a configuration may name, over all its sets.
pub const MEMBERS_MAX: usize = 32;

/// A cluster configuration. Sets are sorted and without duplicates.
///
/// While `voters_outgoing` is not empty the configuration is joint: elections, commits and reads
/// need a majority of `voters` **and** a majority of `voters_outgoing`.
/// The empty configuration belongs to a node that has not been told of its cluster: it never
/// campaigns.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct Configuration {
    /// Voting members.
    pub voters: Vec<NodeId>,
    /// Voting members of the configuration being left; empty unless joint.
    pub voters_outgoing: Vec<NodeId>,
    /// Members that receive the log and do not count.
    pub learners: Vec<NodeId>,
}

impl Configuration {
    /// A simple configuration of these voters and learners, in any order.
    pub fn new(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Result<Configuration, ConfigurationError> {
        let mut configuration = Configuration {
            voters: voters.into_iter().take(MEMBERS_MAX + 1).collect(),
            voters_outgoing: Vec::new(),
            learners: learners.into_iter().take(MEMBERS_MAX + 1).collect(),
        };
        configuration.voters.sort_unstable();
        configuration.learners.sort_unstable();
        configuration.validate()?;
        Ok(configuration)
    }

    /// Checks order, uniqueness, size, and that learners do not vote.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        let count = self.voters.len() + self.voters_outgoing.len() + self.learners.len();
        if count > MEMBERS_MAX {
            return Err(ConfigurationError::TooMany { found: count });
        }
        for set in [&self.voters, &self.voters_outgoing, &self.learners] {
            if let Some(pair) = set.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(ConfigurationError::Unsorted { node: pair[1] });
            }
        }
        if let Some(node) = self.learners.iter().find(|node| self.is_voter(**node)) {
            return Err(ConfigurationError::LearnerVotes { node: *node });
        }
        if self.voters.is_empty() && count > 0 {
            return Err(ConfigurationError::NoVoters);
        }
        Ok(())
    }

    /// Whether both majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `node` votes in either set.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.binary_search(&node).is_ok()
            || self.voters_outgoing.binary_search(&node).is_ok()
    }

    /// Whether `node` is in any set.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.binary_search(&node).is_ok()
    }

    /// Every member once, ascending.
    pub fn members(&self) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = Vec::with_capacity(MEMBERS_MAX);
        members.extend(&self.voters);
        members.extend(&self.voters_outgoing);
        members.extend(&self.learners);
        members.sort_unstable();
        members.dedup();
        members
    }

    /// The same without the configuration being left.
    pub(super) fn without_outgoing(&self) -> Configuration {
        Configuration {
            voters: self.voters.clone(),
            voters_outgoing: Vec::new(),
            learners: self.learners.clone(),
        }
    }
}

/// Why a [`Configuration`] is refused.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ConfigurationError {
    /// More than [`MEMBERS_MAX`] members.
    TooMany {
        /// How many it names.
        found: usize,
    },
    /// A set is not ascending or names a node twice.
    Unsorted {
        /// The node out of place.
        node: NodeId,
    },
    /// A node is both voter and learner.
    LearnerVotes {
        /// That node.
        node: NodeId,
    },
    /// Members, but nobody to vote.
    NoVoters,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationError::TooMany { found } => {
                write!(formatter, "at most {MEMBERS_MAX} members, found {found}")
            }
            ConfigurationError::Unsorted { node } => {
                write!(formatter, "{node} is out of order or named twice")
            }
            ConfigurationError::LearnerVotes { node } => {
                write!(formatter, "{node} is both voter and learner")
            }
            ConfigurationError::NoVoters => write!(formatter, "a configuration needs a voter"),
        }
    }
}

impl core::error::Error for ConfigurationError {}
