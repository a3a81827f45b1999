//! Why a request to the core is refused.

use super::configuration::ConfigurationError;
use super::types::NodeId;
use core::fmt;

/// Why a proposal is refused. Nothing was appended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ProposeError {
    /// Only a leader appends.
    NotLeader {
        /// Whom to ask, if known.
        leader: Option<NodeId>,
    },
    /// Too much is proposed and not yet committed; try again after the next commit.
    Busy {
        /// Uncommitted bytes now.
        uncommitted_bytes: u64,
        /// Uncommitted entries now.
        uncommitted_entries: u64,
    },
    /// Leadership is being handed over.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// This leader is leaving the configuration.
    Leaving,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NotLeader {
                leader: Some(leader),
            } => {
                write!(formatter, "not the leader; {leader} is")
            }
            ProposeError::NotLeader { leader: None } => {
                write!(formatter, "not the leader; none is known")
            }
            ProposeError::Busy {
                uncommitted_bytes,
                uncommitted_entries,
            } => write!(
                formatter,
                "{uncommitted_entries} entries of {uncommitted_bytes} bytes wait to be committed"
            ),
            ProposeError::Transferring { to } => write!(formatter, "leadership moves to {to}"),
            ProposeError::Leaving => write!(formatter, "the leader leaves the configuration"),
        }
    }
}

impl core::error::Error for ProposeError {}

/// Why a read is refused at once. A read that was admitted may still fail later, by effect.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ReadError {
    /// Only a leader confirms reads.
    NotLeader {
        /// Whom to ask, if known.
        leader: Option<NodeId>,
    },
    /// Too many reads wait.
    Busy {
        /// How many.
        waiting: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotLeader {
                leader: Some(leader),
            } => {
                write!(formatter, "not the leader; {leader} is")
            }
            ReadError::NotLeader { leader: None } => {
                write!(formatter, "not the leader; none is known")
            }
            ReadError::Busy { waiting } => write!(formatter, "{waiting} reads wait already"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Why leadership is not handed over.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum TransferError {
    /// Only a leader hands over.
    NotLeader {
        /// Whom to ask, if known.
        leader: Option<NodeId>,
    },
    /// The target does not vote, is this node, or has not answered for an election timeout.
    NotEligible {
        /// The target.
        to: NodeId,
    },
    /// One at a time.
    InProgress {
        /// The earlier target.
        to: NodeId,
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::NotLeader {
                leader: Some(leader),
            } => {
                write!(formatter, "not the leader; {leader} is")
            }
            TransferError::NotLeader { leader: None } => {
                write!(formatter, "not the leader; none is known")
            }
            TransferError::NotEligible { to } => write!(formatter, "{to} cannot take over"),
            TransferError::InProgress { to } => write!(formatter, "already moving to {to}"),
        }
    }
}

impl core::error::Error for TransferError {}

/// Why a configuration change is refused. Nothing was appended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ConfigurationChangeError {
    /// Only a leader that takes proposals changes the configuration.
    Propose(ProposeError),
    /// The leader has not yet committed an entry of its own term.
    TermNotCommitted {
        /// The entry that must be committed first.
        term_start_index: u64,
    },
    /// An earlier change is not yet committed or the joint configuration not yet left.
    Uncommitted {
        /// Index of the latest configuration entry.
        configuration_index: u64,
    },
    /// The target is not a valid simple configuration.
    Invalid(ConfigurationError),
    /// The target is joint; joint configurations are made by the core.
    Joint,
    /// The target is what is in force.
    Unchanged,
    /// A new voter must be a learner that has caught up first.
    NotCaughtUp {
        /// The node.
        node: NodeId,
        /// What it has, 0 when it is not a learner.
        match_index: u64,
    },
    /// Too few of the voters to be have answered lately: the change could stop the group.
    WouldLoseQuorum {
        /// Voters that must answer.
        needed: u32,
        /// Voters that do.
        answering: u32,
    },
    /// A voter becomes a learner in a change of its own, or not at all.
    DemotionNotAlone {
        /// The node.
        node: NodeId,
    },
}

impl fmt::Display for ConfigurationChangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigurationChangeError::Propose(error) => error.fmt(formatter),
            ConfigurationChangeError::TermNotCommitted { term_start_index } => {
                write!(
                    formatter,
                    "entry {term_start_index} of this term is not yet committed"
                )
            }
            ConfigurationChangeError::Uncommitted {
                configuration_index,
            } => {
                write!(
                    formatter,
                    "the change at {configuration_index} is not yet complete"
                )
            }
            ConfigurationChangeError::Invalid(error) => error.fmt(formatter),
            ConfigurationChangeError::Joint => write!(formatter, "name a simple configuration"),
            ConfigurationChangeError::Unchanged => write!(formatter, "already in force"),
            ConfigurationChangeError::NotCaughtUp { node, match_index } => {
                write!(
                    formatter,
                    "{node} is not a learner that has caught up (at {match_index})"
                )
            }
            ConfigurationChangeError::WouldLoseQuorum { needed, answering } => {
                write!(
                    formatter,
                    "{needed} of the voters to be must answer, {answering} do"
                )
            }
            ConfigurationChangeError::DemotionNotAlone { node } => {
                write!(
                    formatter,
                    "{node} becomes a learner in a change of its own first"
                )
            }
        }
    }
}

impl core::error::Error for ConfigurationChangeError {}
