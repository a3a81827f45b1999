//! From the disk back to a replica: a snapshot or nothing, the entries after it in order, then Raft.

use drave_batch::control::Members;
use drave_batch::{BatchRef, DecodeError};
use thiserror::Error;

use super::hand_over::HandOver;
use super::members::configuration_of;
use super::snapshot::{Sending, Snapshots};
use super::tables::Tables;
use super::{Fatal, HardStateRecord, Outputs, Replica, ReplicaConfig, StateSnapshot, Times};
use crate::raft::{self, ConfigurationAt, EntryId, HardState, NodeId, Raft, Restored, TermRun};

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
    /// The snapshot's last entry is another one in the log.
    #[error("the snapshot is of entry {expected}, the log holds {found} there")]
    Snapshot {
        /// The snapshot's last entry.
        expected: EntryId,
        /// The log's entry of that index.
        found: EntryId,
    },
}

/// What a replica is restored from, before the entries.
#[derive(Clone, Debug)]
pub enum RestoreBase {
    /// A cluster's first members, and a log from its first entry on. No members: a node that joins.
    Members(Members),
    /// A state, and a log that holds the entries after it, and perhaps some before.
    Snapshot(Box<StateSnapshot>),
}

impl From<Members> for RestoreBase {
    fn from(members: Members) -> Self {
        Self::Members(members)
    }
}

impl From<StateSnapshot> for RestoreBase {
    fn from(snapshot: StateSnapshot) -> Self {
        Self::Snapshot(Box::new(snapshot))
    }
}

/// Takes the entries of a log in order and makes a replica of them.
///
/// Entries up to the commit hint are applied at once, the rest wait for a leader to confirm them.
pub struct Restorer {
    config: ReplicaConfig,
    hard_state: HardStateRecord,
    /// The last entry of the snapshot; index 0 without one.
    base: EntryId,
    base_crc: u32,
    /// The members at the base, and the entry that brought them.
    members: Members,
    configuration_index: u64,
    configurations_appended: Vec<ConfigurationAt>,
    /// The first entry of the log and the term of the one before it; none given: right after the base.
    log_start: Option<(u64, u64)>,
    term_runs: Vec<TermRun>,
    /// The index that the next entry must have.
    next_index: u64,
    found: Vec<EntryId>,
    damaged: Vec<EntryId>,
    tables: Tables,
    outputs: Outputs,
}

impl Restorer {
    /// Starts from a state snapshot, or from a cluster's first members.
    ///
    /// Entries follow from the one after the snapshot on, unless [`Self::log_start`] says that the log
    /// begins before; without a snapshot from the first one on.
    #[must_use]
    pub fn new(
        config: ReplicaConfig,
        hard_state: HardStateRecord,
        base: impl Into<RestoreBase>,
    ) -> Self {
        let (tables, members, configuration_index, base, base_crc) = match base.into() {
            RestoreBase::Members(members) => {
                let tables = Tables::new(config.producers_max, members.clone());
                (tables, members, 0, EntryId::default(), 0)
            }
            RestoreBase::Snapshot(snapshot) => {
                let tables = Tables::from_snapshot(config.producers_max, &snapshot);
                let index = snapshot.configuration_index;
                let (last, crc) = (snapshot.last, snapshot.header_crc);
                (tables, snapshot.members, index, last, crc)
            }
        };
        let found = (base.index > 0).then_some(base).into_iter().collect();
        Self {
            config,
            hard_state,
            base,
            base_crc,
            members,
            configuration_index,
            configurations_appended: Vec::new(),
            log_start: None,
            term_runs: Vec::new(),
            next_index: base.index + 1,
            found,
            damaged: Vec::new(),
            tables,
            outputs: Outputs::default(),
        }
    }

    /// The log begins at `first_index`, behind an entry of `prev_term`, and the terms of its entries up to
    /// the snapshot's are those of `runs`, which may go on beyond it. Entries may then be pushed from the
    /// one after the snapshot on, which reads as little as can be; or, without `runs`, from the first on.
    pub fn log_start(&mut self, first_index: u64, prev_term: u64, runs: &[TermRun]) {
        if first_index > self.base.index {
            return;
        }
        self.log_start = Some((first_index, prev_term));
        let before = runs.iter().filter(|run| run.first_index <= self.base.index);
        self.term_runs = before.copied().collect();
        if self.term_runs.is_empty() {
            self.next_index = first_index;
        }
    }

    /// Stored snapshots that were found and cannot be used.
    pub fn snapshots_damaged(&mut self, damaged: impl IntoIterator<Item = EntryId>) {
        self.damaged.extend(damaged);
    }

    /// The stored snapshots that were found beside the log; the one restored from need not be named.
    pub fn snapshots_found(&mut self, found: impl IntoIterator<Item = EntryId>) {
        self.found.extend(found);
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`RestoreProblem`]
    pub fn push(&mut self, batch: &BatchRef<'_>) -> Result<(), RestoreProblem> {
        let header = &batch.header;
        if header.index != self.next_index {
            return Err(RestoreProblem::Order {
                expected: self.next_index,
                found: header.index,
            });
        }
        self.next_index += 1;
        let last_run = self.term_runs.last();
        if last_run.is_none_or(|run| run.term != header.term) {
            self.term_runs.push(TermRun {
                first_index: header.index,
                term: header.term,
            });
        }
        if header.index <= self.base.index {
            return self.check_base(batch);
        }
        let brought = self
            .tables
            .appended(header, batch.header_crc, batch.body(), None)?;
        if let Some(configuration) = brought {
            self.configurations_appended.push(ConfigurationAt {
                index: header.index,
                configuration,
            });
        }
        if header.index <= self.hard_state.commit_index_hint {
            self.tables.apply_to(header.index, &mut self.outputs);
            self.outputs.advanced.clear();
        }
        Ok(())
    }

    fn check_base(&self, batch: &BatchRef<'_>) -> Result<(), RestoreProblem> {
        let found = EntryId {
            term: batch.header.term,
            index: batch.header.index,
        };
        let is_base = found.index == self.base.index;
        if is_base && (found != self.base || batch.header_crc != self.base_crc) {
            let expected = self.base;
            return Err(RestoreProblem::Snapshot { expected, found });
        }
        Ok(())
    }

    /// The replica, all entries given. What was restored counts as durable: the log was recovered from
    /// disk and flushed before it was read.
    ///
    /// # Errors
    /// [`RestoreProblem`]
    pub fn finish(
        mut self,
        raft_config: raft::Config,
        now_us: u64,
        seed: u64,
    ) -> Result<Replica, RestoreProblem> {
        let (first_index, prev_term) = self
            .log_start
            .unwrap_or((self.base.index + 1, self.base.term));
        let last_index = self.tables.next_index() - 1;
        let configuration = configuration_of(&self.members).map_err(RestoreProblem::Members)?;
        self.term_runs.retain(|run| run.first_index <= last_index);
        let vote = (self.hard_state.vote != 0).then_some(NodeId(self.hard_state.vote));
        let hard_state = HardState {
            term: self.hard_state.term,
            vote,
        };
        let times = Times {
            election_timeout_us_min: raft_config.election_timeout_us_min,
            election_timeout_us_max: raft_config.election_timeout_us_max,
        };
        // What a snapshot holds was committed.
        let commit_index_hint = self.hard_state.commit_index_hint.max(self.base.index);
        let restored = Restored {
            hard_state,
            first_index,
            prev_term,
            term_runs: self.term_runs,
            last_index,
            commit_index_hint,
            configuration_index: self.configuration_index,
            configurations_appended: self.configurations_appended,
            ..Restored::fresh(configuration)
        };
        let raft = Raft::new(raft_config, restored, now_us, seed).map_err(RestoreProblem::Raft)?;
        self.outputs.members_changed = true;
        self.tables.members.changed = false;
        let found = std::mem::take(&mut self.found);
        Ok(Replica {
            config: self.config,
            times,
            hint_written: self.hard_state.commit_index_hint,
            hard_state_durable: hard_state,
            change: None,
            joining: None,
            transfer: None,
            hand_over: HandOver::default(),
            snapshots: Snapshots::restored(found, &self.damaged, &raft),
            sending: Sending::default(),
            receiving: None,
            receiving_pause: super::snapshot::ReceivingPause::default(),
            refusals: super::refusals::Refusals::default(),
            looks: super::retention::Looks::default(),
            quotas: super::quota::Quotas::default(),
            raft,
            tables: self.tables,
            metas: Vec::new(),
            outputs: self.outputs,
        })
    }
}
