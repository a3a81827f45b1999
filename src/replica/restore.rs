//! From the log on disk back to a replica: every entry once, in order, then Raft.

use drave_batch::control::Members;
use drave_batch::{BatchHeader, DecodeError};
use thiserror::Error;

use super::tables::Tables;
use super::{Fatal, HardStateRecord, Outputs, Replica, ReplicaConfig};
use crate::raft::{self, Configuration, HardState, NodeId, Raft, Restored, TermRun};

/// Why a replica cannot be restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreProblem {
    /// The log's content contradicts itself.
    #[error("{0}")]
    Content(#[from] Fatal),
    /// Raft refuses what was found.
    #[error("{0}")]
    Raft(raft::RestoreError),
    /// The members are no configuration.
    #[error("{0}")]
    Members(raft::ConfigurationError),
    /// The hard state does not decode.
    #[error("{0}")]
    HardState(#[from] DecodeError),
    /// An entry was skipped.
    #[error("expected entry {expected}, found {found}")]
    Order {
        /// The index that follows.
        expected: u64,
        /// The index found.
        found: u64,
    },
}

/// Takes the entries of a log in order and makes a replica of them.
///
/// Entries up to the commit hint are applied at once, the rest wait for a leader to confirm them.
pub struct Restorer {
    config: ReplicaConfig,
    hard_state: HardStateRecord,
    members: Members,
    term_runs: Vec<TermRun>,
    tables: Tables,
    outputs: Outputs,
}

impl Restorer {
    /// Starts with an empty log whose first entry has index 1.
    #[must_use]
    pub fn new(config: ReplicaConfig, hard_state: HardStateRecord, members: Members) -> Self {
        let tables = Tables::new(config.producers_max);
        let term_runs = Vec::new();
        Self {
            config,
            hard_state,
            members,
            term_runs,
            tables,
            outputs: Outputs::default(),
        }
    }

    /// The next entry. The body is looked at for control entries only; data entries may come without.
    ///
    /// # Errors
    /// [`RestoreProblem`]
    pub fn push(&mut self, header: &BatchHeader, body: &[u8]) -> Result<(), RestoreProblem> {
        let expected = self.tables.next_index();
        if header.index != expected {
            return Err(RestoreProblem::Order {
                expected,
                found: header.index,
            });
        }
        if self
            .term_runs
            .last()
            .is_none_or(|run| run.term != header.term)
        {
            self.term_runs.push(TermRun {
                first_index: header.index,
                term: header.term,
            });
        }
        self.tables.appended(header, body, None)?;
        if header.index <= self.hard_state.commit_index_hint {
            self.tables.apply_to(header.index, &mut self.outputs);
            self.outputs.advanced.clear();
        }
        Ok(())
    }

    /// The replica, all entries given. What was restored counts as durable: the log was recovered from
    /// disk and flushed before it was read.
    ///
    /// # Errors
    /// [`RestoreProblem`]
    pub fn finish(
        self,
        raft_config: raft::Config,
        now_us: u64,
        seed: u64,
    ) -> Result<Replica, RestoreProblem> {
        let voters = self
            .members
            .members
            .iter()
            .map(|member| NodeId(member.node_id));
        let configuration = Configuration::new(voters, []).map_err(RestoreProblem::Members)?;
        let vote = (self.hard_state.vote != 0).then_some(NodeId(self.hard_state.vote));
        let restored = Restored {
            hard_state: HardState {
                term: self.hard_state.term,
                vote,
            },
            term_runs: self.term_runs,
            last_index: self.tables.next_index() - 1,
            commit_index_hint: self.hard_state.commit_index_hint,
            ..Restored::fresh(configuration)
        };
        let raft = Raft::new(raft_config, restored, now_us, seed).map_err(RestoreProblem::Raft)?;
        Ok(Replica {
            config: self.config,
            raft,
            members: self.members,
            tables: self.tables,
            metas: Vec::new(),
            outputs: Outputs::default(),
        })
    }
}
