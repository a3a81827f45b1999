//! From a disk to a running node, as the product's `node::start` does it.

use drave::node::{Completion, GroupLog};
use drave::raft::{self, HardState, NodeId, TermRun};
use drave::replica::{
    EntryLog, HardStateRecord, Replica, ReplicaConfig, RestoreBase, Restorer, StateSnapshot,
};
use drave_batch::control::{Member, MemberRole, Members};
use drave_batch::{BatchRef, DecodeError};
use drave_wal::{Behaviour, MemoryDisk, Wal};

use super::plan::{Limits, Timers};
use super::shadow::{ShadowLog, read_from};
use super::snapshots::SnapshotStore;

/// The only group.
const GROUP_ID: u32 = 0;

/// What the product checks of a record.
pub const RECORD_BYTES_MAX: u32 = 4_096;

/// How far apart clocks may run where leases are on; see [`super::plan::Plan::clock_rate`].
const LEASE_DRIFT_PPM: u32 = 25_000;

/// Why a node does not start.
#[derive(Debug)]
pub enum Refused {
    /// The log cannot be opened or read: what is on the disk is damaged, or the disk failed.
    Log(String),
    /// The log was opened and its content makes no replica.
    Content(String),
}

/// What a node starts with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its place; its id is one more.
    pub slot: usize,
    /// Its timers.
    pub timers: Timers,
    /// Limits.
    pub limits: Limits,
    /// Ask before standing for election, and step down without a quorum.
    pub pre_vote: bool,
    /// Leaders answer reads under a lease.
    pub has_leases: bool,
    /// The members a cluster starts with.
    pub members: Members,
    /// Time of its disk's operations.
    pub disk_us: (u64, u64),
    /// Decides latencies, timeouts.
    pub seed: u64,
}

/// The members that a cluster of `nodes` starts with.
#[must_use]
pub fn initial_members(nodes: usize) -> Members {
    let member = |slot: usize| Member {
        node_id: slot as u64 + 1,
        role: Some(MemberRole::Voter),
        outgoing_voter: false,
        incarnation: 0,
        address: super::operator::address(slot),
    };
    Members::first((0..nodes).map(member).collect())
}

impl Setup {
    fn wal_options(&self) -> drave_wal::Options {
        drave_wal::Options {
            store_id: self.slot as u128 + 1,
            segment_bytes: self.limits.segment_bytes,
            group_bytes_max: 16 << 10,
            groups_in_flight_max: self.limits.groups_in_flight_max,
            extra_group_bytes_min: 1_000,
            queue_bytes_max: self.limits.queue_bytes_max,
            tail_bytes_max: self.limits.tail_bytes_max,
            prewrite: false,
            ..drave_wal::Options::default()
        }
    }

    fn open_wal(&self, disk: &MemoryDisk) -> Result<Wal, Refused> {
        let behaviour = Behaviour {
            seed: self.seed,
            latency_us_min: self.disk_us.0,
            latency_us_max: self.disk_us.1,
        };
        Wal::open_with(disk.engine(behaviour), self.wal_options())
            .map_err(|error| Refused::Log(error.to_string()))
    }

    /// Makes an empty disk a node's: what `drave format` leaves.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn format(&self, disk: &MemoryDisk) -> Result<(), Refused> {
        let wal = self.open_wal(disk)?;
        let mut log = GroupLog::new(wal, self.limits.queue_bytes_max);
        let failed = |error: &dyn std::fmt::Display| Refused::Log(error.to_string());
        log.write_hard_state(HardStateRecord::default())
            .map_err(|error| failed(&error))?;
        log.wal
            .flush(&mut Vec::new())
            .map_err(|error| failed(&error))
    }

    /// Opens the log and reads it, for a start or only to look.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn recover(&self, disk: &MemoryDisk) -> Result<(ShadowLog, HardStateRecord), Refused> {
        let wal = self.open_wal(disk)?;
        // A directory that was formatted has a hard state; one without it lost its log.
        let Some(meta) = wal.meta() else {
            return Err(Refused::Log("the log holds no hard state".to_owned()));
        };
        let record = HardStateRecord::decode(meta);
        let record = record.map_err(|error: DecodeError| Refused::Log(error.to_string()))?;
        let log = GroupLog::new(wal, self.limits.queue_bytes_max);
        let log = ShadowLog::open(log).map_err(|error| Refused::Log(error.to_string()))?;
        Ok((log, record))
    }

    /// Makes a replica of what was recovered.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn restore(
        &self,
        log: &mut ShadowLog,
        record: HardStateRecord,
        snapshots: &SnapshotStore,
    ) -> Result<Replica, Refused> {
        let config = ReplicaConfig {
            group_id: GROUP_ID,
            record_bytes_max: RECORD_BYTES_MAX,
            logs_max: 64,
            producers_max: self.limits.producers_max,
            snapshot_entries: self.limits.snapshot_entries,
            ..ReplicaConfig::default()
        };
        let content = |error: &dyn std::fmt::Display| Refused::Content(error.to_string());
        let base = self.base(log, snapshots)?;
        let (first_index, last_index) = (log.log.wal.first_index(), log.log.wal.last_index());
        let base_index = base.as_ref().map_or(0, |snapshot| snapshot.last.index);
        if first_index > base_index + 1 {
            let what =
                format!("the log begins at {first_index}, the snapshot ends at {base_index}");
            return Err(Refused::Content(what));
        }
        let has_base = base.is_some();
        let base = base.map_or_else(
            || RestoreBase::from(self.members.clone()),
            RestoreBase::from,
        );
        let mut restorer = Restorer::new(config, record, base);
        let mut push_from = first_index;
        if has_base {
            let prev_term = log.log.wal.term(first_index - 1).unwrap_or(0);
            let mut runs = Vec::new();
            // Both ways of a restart: reading the log from its start, or only after the snapshot.
            if self.seed.is_multiple_of(2) {
                let known = log.log.wal.term_runs();
                runs = known
                    .iter()
                    .map(|run| TermRun {
                        first_index: run.first_index,
                        term: run.term,
                    })
                    .collect();
                push_from = base_index + 1;
            }
            restorer.log_start(first_index, prev_term, &runs);
            restorer.snapshots_found(snapshots.iter().map(|(id, ..)| id));
            push_from = push_from.max(first_index).min(last_index + 1);
        }
        let mut problem = None;
        let push = |batch: &BatchRef<'_>| {
            if problem.is_none() {
                problem = restorer.push(batch).err();
            }
        };
        read_from(&log.log, push_from, push).map_err(|error| Refused::Log(error.to_string()))?;
        if let Some(problem) = problem {
            return Err(content(&problem));
        }
        restorer
            .finish(self.raft_config(), 0, self.seed)
            .map_err(|error| content(&error))
    }

    /// The snapshot to begin with: the newest that the log goes on from. One that came from a leader and
    /// that the log does not hold was made durable and its log not yet replaced: that is made up for.
    fn base(
        &self,
        log: &mut ShadowLog,
        snapshots: &SnapshotStore,
    ) -> Result<Option<StateSnapshot>, Refused> {
        let failed = |error: &dyn std::fmt::Display| Refused::Log(error.to_string());
        for (id, bytes, is_received) in snapshots.iter().rev() {
            let Ok(snapshot) = StateSnapshot::decode(bytes) else {
                continue;
            };
            if log.log.wal.term(id.index) == Some(id.term) {
                return Ok(Some(snapshot));
            }
            if id.index + 1 < log.log.wal.first_index() {
                continue;
            }
            if !is_received {
                let last_index = log.log.wal.last_index();
                let what = format!(
                    "the log is of [{}, {last_index}] and holds term {:?} where {id} was, of which there is a snapshot",
                    log.log.wal.first_index(),
                    log.log.wal.term(id.index)
                );
                return Err(Refused::Content(what));
            }
            log.reset(id.index + 1, id.term, snapshot.header_crc)
                .map_err(|error| failed(&error))?;
            log.log
                .wal
                .flush(&mut Vec::new())
                .map_err(|error| failed(&error))?;
            return Ok(Some(snapshot));
        }
        Ok(None)
    }

    fn raft_config(&self) -> raft::Config {
        raft::Config {
            election_timeout_us_min: self.timers.election_us_min,
            election_timeout_us_max: self.timers.election_us_max,
            heartbeat_interval_us: self.timers.heartbeat_us,
            window_entries_max: self.limits.window_entries_max,
            // Small enough that windows have somewhere to grow to.
            window_bytes_min: self.limits.window_bytes_max / 8,
            window_bytes_max: self.limits.window_bytes_max,
            uncommitted_bytes_max: self.limits.uncommitted_bytes_max,
            pre_vote: self.pre_vote,
            check_quorum: self.pre_vote,
            lease_drift_ppm: self.has_leases.then_some(LEASE_DRIFT_PPM),
            ..raft::Config::new(NodeId(self.slot as u64 + 1))
        }
    }
}

/// The hard state of a record.
#[must_use]
pub fn hard_state(record: HardStateRecord) -> HardState {
    HardState {
        term: record.term,
        vote: (record.vote != 0).then_some(NodeId(record.vote)),
    }
}

/// Completions that only a process that serves has use for.
pub fn discard(log: &mut ShadowLog) {
    let mut completions: Vec<Completion> = Vec::new();
    log.poll(&mut completions);
}
