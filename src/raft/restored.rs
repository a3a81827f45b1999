//! What a node starts from, and why it may refuse to.

use super::config::ConfigError;
use super::configuration::{Configuration, ConfigurationError};
use super::membership::ConfigurationAt;
use super::types::{HardState, NUMBER_MAX, TermRun};
use alloc::vec::Vec;
use core::fmt;

/// What was found on disk. All of it counts as durable.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// First entry held; 1 when nothing was compacted.
    pub first_index: u64,
    /// Term of entry `first_index - 1`, 0 if there is none.
    pub prev_term: u64,
    /// Terms of the entries held, the first run starting at `first_index`.
    pub term_runs: Vec<TermRun>,
    /// Last entry held; `first_index - 1` when none is.
    pub last_index: u64,
    /// A commit index that was once reached, at least `first_index - 1`.
    pub commit_index_hint: u64,
    /// Configuration at the start of the log: of the snapshot, or the one the cluster began with.
    pub configuration: Configuration,
    /// Index of the entry that brought it, 0 for the one the cluster began with.
    pub configuration_index: u64,
    /// Configuration entries found in the log up to its end, ascending.
    pub configurations_appended: Vec<ConfigurationAt>,
}

impl Restored {
    /// A node that has never run, in a cluster that begins with `configuration`.
    pub fn fresh(configuration: Configuration) -> Restored {
        Restored {
            hard_state: HardState::default(),
            first_index: 1,
            prev_term: 0,
            term_runs: Vec::new(),
            last_index: 0,
            commit_index_hint: 0,
            configuration,
            configuration_index: 0,
            configurations_appended: Vec::new(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), RestoreError> {
        if self.first_index == 0
            || self.last_index > NUMBER_MAX
            || self.last_index + 1 < self.first_index
        {
            return Err(RestoreError::Bounds {
                first_index: self.first_index,
                last_index: self.last_index,
            });
        }
        self.validate_runs()?;
        if self.commit_index_hint > self.last_index || self.commit_index_hint + 1 < self.first_index
        {
            return Err(RestoreError::Commit {
                found: self.commit_index_hint,
                lo: self.first_index - 1,
                hi: self.last_index + 1,
            });
        }
        self.validate_configurations()
    }

    fn validate_runs(&self) -> Result<(), RestoreError> {
        let mut expected_first = Some(self.first_index);
        let mut index_min = self.first_index;
        let mut term_before = self.prev_term;
        for (position, run) in self.term_runs.iter().enumerate() {
            let first_fits = match expected_first.take() {
                Some(first) => run.first_index == first,
                None => run.first_index >= index_min,
            };
            let term_fits = if position == 0 {
                run.term >= term_before && run.term > 0
            } else {
                run.term > term_before
            };
            if !first_fits || !term_fits || run.first_index > self.last_index {
                return Err(RestoreError::Runs { found: *run });
            }
            term_before = run.term;
            index_min = run.first_index + 1;
        }
        if self.term_runs.is_empty() && self.last_index >= self.first_index {
            return Err(RestoreError::RunsMissing {
                first_index: self.first_index,
            });
        }
        if self.hard_state.term > NUMBER_MAX {
            return Err(RestoreError::TermTooHigh {
                found: self.hard_state.term,
            });
        }
        // Term and vote are flushed before an entry of that term is written.
        if self.hard_state.term < term_before {
            return Err(RestoreError::TermBehindLog {
                hard_state_term: self.hard_state.term,
                log_term: term_before,
            });
        }
        Ok(())
    }

    fn validate_configurations(&self) -> Result<(), RestoreError> {
        self.configuration
            .validate()
            .map_err(RestoreError::Configuration)?;
        let mut index_before = self.configuration_index;
        for at in &self.configurations_appended {
            at.configuration
                .validate()
                .map_err(RestoreError::Configuration)?;
            if at.index <= index_before || at.index > self.last_index {
                return Err(RestoreError::ConfigurationOrder { index: at.index });
            }
            index_before = at.index;
        }
        Ok(())
    }
}

/// Why a node refuses to start from what it found.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RestoreError {
    /// The settings are not usable.
    Config(ConfigError),
    /// A stored configuration is not valid.
    Configuration(ConfigurationError),
    /// First and last index contradict each other.
    Bounds {
        /// As given.
        first_index: u64,
        /// As given.
        last_index: u64,
    },
    /// A term run is out of order or out of bounds.
    Runs {
        /// The run.
        found: TermRun,
    },
    /// There are entries but no terms.
    RunsMissing {
        /// First entry without a term.
        first_index: u64,
    },
    /// The log holds an entry of a term that was never recorded: term and vote were lost.
    TermBehindLog {
        /// Recorded term.
        hard_state_term: u64,
        /// Last entry's term.
        log_term: u64,
    },
    /// The recorded term is beyond what any cluster reaches: the record is damaged.
    TermTooHigh {
        /// Recorded term.
        found: u64,
    },
    /// What was committed is not in the log: the store has lost data.
    Commit {
        /// The recorded commit index.
        found: u64,
        /// It must be in `[lo, hi)`.
        lo: u64,
        /// It must be in `[lo, hi)`.
        hi: u64,
    },
    /// Configuration entries do not ascend within the log.
    ConfigurationOrder {
        /// Index of the one out of place.
        index: u64,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Config(error) => error.fmt(formatter),
            RestoreError::Configuration(error) => error.fmt(formatter),
            RestoreError::Bounds {
                first_index,
                last_index,
            } => {
                write!(
                    formatter,
                    "log from {first_index} cannot end at {last_index}"
                )
            }
            RestoreError::Runs { found } => write!(
                formatter,
                "term {} from index {} does not fit the terms around it",
                found.term, found.first_index
            ),
            RestoreError::RunsMissing { first_index } => {
                write!(formatter, "entries from {first_index} on have no term")
            }
            RestoreError::TermBehindLog {
                hard_state_term,
                log_term,
            } => write!(
                formatter,
                "recorded term is {hard_state_term} but the log holds term {log_term}"
            ),
            RestoreError::TermTooHigh { found } => {
                write!(formatter, "recorded term {found} is beyond {NUMBER_MAX}")
            }
            RestoreError::Commit { found, lo, hi } => {
                write!(
                    formatter,
                    "commit index must be in [{lo}, {hi}), found {found}"
                )
            }
            RestoreError::ConfigurationOrder { index } => {
                write!(formatter, "configuration at {index} is out of order")
            }
        }
    }
}

impl core::error::Error for RestoreError {}
