//! From a data directory to a node ready to listen: identity, log, replica, pins.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use drave_batch::{BatchRef, Batches, DecodeError};
use drave_net::Runtime;
use drave_wal::{EngineChoice, Read, Slices, Wal};

use super::clock::Clock;
use super::pins::Pins;
use super::scrub::Scrubber;
use super::snapshots::{Origin, SnapshotFiles};
use super::{GroupLog, Helper, IoChoice, NodeError, NodeOptions, cut};
use crate::config::NodeConfig;
use crate::raft::{self, EntryId, NodeId, TermRun};
use crate::replica::{
    Fatal, HardStateRecord, Replica, ReplicaConfig, RestoreBase, Restorer, StateSnapshot,
};
use crate::store::{Store, StoreError, group_dir};

/// The only group of this version.
pub(super) const GROUP_ID: u32 = 0;

/// Bytes of the log read at once while it is replayed.
const REPLAY_BYTES: usize = 8 << 20;

/// How long a predecessor may take to let go of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Everything a node needs before it has a socket.
pub(super) struct Opened {
    pub store: Rc<Store>,
    pub config: NodeConfig,
    pub clock: Clock,
    pub log: GroupLog,
    pub replica: Replica,
    pub helper: Helper,
    pub keeper: Helper,
    pub scrubber: Scrubber,
    pub pins: Rc<RefCell<Pins>>,
    pub snapshots: SnapshotFiles,
    pub io_engine: String,
}

/// The data directory, locked.
pub(super) fn open_store(options: &NodeOptions, runtime: &Runtime) -> Result<Rc<Store>, NodeError> {
    let cluster_id = options.config.cluster.id.as_deref();
    let store = Store::open(&options.data_dir, cluster_id, LOCK_PATIENCE)?;
    let identity = &store.identity;
    tracing::info!(
        cluster = %identity.cluster_id,
        node = identity.node_id,
        incarnation = format!("{:032x}", identity.incarnation),
        sockets = ?runtime.engine(),
        reason = runtime.reason(),
        "node starting"
    );
    Ok(Rc::new(store))
}

/// How the group's log is opened.
pub(super) fn wal_options(options: &NodeOptions, store: &Store) -> drave_wal::Options {
    let config = &options.config;
    drave_wal::Options {
        store_id: store.identity.incarnation,
        segment_bytes: config.wal.segment_bytes.0,
        group_bytes_max: config.wal.group_bytes_max.0 as u32,
        engine: match options.io {
            IoChoice::Auto => EngineChoice::Auto,
            IoChoice::Uring => EngineChoice::IoUring,
            IoChoice::Posix => EngineChoice::Posix,
        },
        fault_file: config.fault.disk.then(|| store.dir().join("fault")),
        ..drave_wal::Options::default()
    }
}

pub(super) fn open(
    options: &NodeOptions,
    store: &Rc<Store>,
    clock: Clock,
) -> Result<Opened, NodeError> {
    let config = options.config.clone();
    let wal_options = wal_options(options, store);
    let queue_bytes_max = wal_options.queue_bytes_max;
    let group_path = group_dir(store.dir(), GROUP_ID);
    let wal = Wal::open(&group_path, wal_options)?;
    tracing::info!(
        engine = wal.engine_name(),
        reason = wal.engine_reason(),
        first_index = wal.first_index(),
        last_index = wal.last_index(),
        recovery = ?wal.recovery(),
        "log opened"
    );
    let io_engine = wal.engine_name().to_owned();
    // A directory that was formatted has a hard state; one without it lost its log.
    let Some(meta) = wal.meta() else {
        let reason = "the log holds no hard state: it was replaced or lost".to_owned();
        return Err(StoreError::Inconsistent {
            path: group_path,
            reason,
        }
        .into());
    };
    let hard_state = HardStateRecord::decode(meta).map_err(|source| StoreError::Damaged {
        path: group_path,
        source,
    })?;
    let mut snapshots =
        SnapshotFiles::open(store.dir(), GROUP_ID).map_err(|source| NodeError::Io {
            what: "opening the snapshots",
            source,
        })?;
    let given_up = cut::hide_snapshots(&hard_state, &mut snapshots);
    let mut log = GroupLog::new(wal, queue_bytes_max);
    let base = restore_base(store, &mut log, &mut snapshots)?;
    let replica = restore(store, &config, &log, base, &snapshots, hard_state, &clock)?;
    cut::check(store.identity.node_id, &hard_state, replica.members())?;
    if let Some(cut) = hard_state.cut {
        let next_index = cut.next_index;
        tracing::warn!(
            next_index,
            "the log was cut on demand: alone, the node goes on without what it gave up"
        );
        snapshots
            .remove_hidden(&given_up)
            .map_err(|source| NodeError::Io {
                what: "removing the snapshots of what was cut off",
                source,
            })?;
    }
    let pins = Pins::load(store.dir(), replica.members().clone())?;
    let pins = Rc::new(RefCell::new(pins));
    let start_helper = |name| {
        Helper::start(name, || {}).map_err(|source| NodeError::Io {
            what: "starting a helper thread",
            source,
        })
    };
    let (helper, keeper) = (start_helper("drave-helper")?, start_helper("drave-keeper")?);
    let scrubber = Scrubber::start(
        &config.scrub,
        group_dir(store.dir(), GROUP_ID),
        store.identity.incarnation,
        clock.now(),
    );
    let scrubber = scrubber.map_err(|source| NodeError::Io {
        what: "starting the scrubber's thread",
        source,
    })?;
    Ok(Opened {
        store: Rc::clone(store),
        config,
        clock,
        log,
        replica,
        helper,
        keeper,
        scrubber,
        pins,
        snapshots,
        io_engine,
    })
}

/// What the replica begins with: the newest snapshot that the log goes on from, else the founding members.
///
/// A snapshot that a leader sent may be durable while the log was not yet replaced by what follows it: the
/// log is replaced now. A damaged snapshot is reported and another one, or the log alone, is used.
fn restore_base(
    store: &Store,
    log: &mut GroupLog,
    snapshots: &mut SnapshotFiles,
) -> Result<RestoreBase, NodeError> {
    let mut base = None;
    for (id, origin) in snapshots.present().to_vec().into_iter().rev() {
        let Some(snapshot) = read_snapshot(snapshots, id) else {
            snapshots.leave_out(id);
            continue;
        };
        if base.is_some() {
            continue;
        }
        if log.wal.term(id.index) == Some(id.term) {
            base = Some(snapshot);
            continue;
        }
        if id.index + 1 < log.wal.first_index() {
            continue;
        }
        let last_index = log.wal.last_index();
        if origin == Origin::Own {
            // It was taken of entries that were on disk here.
            let reason = format!(
                "the log ends at entry {last_index} and lacks entry {id}, of which there is a snapshot: \
                 it lost entries"
            );
            let path = group_dir(store.dir(), GROUP_ID);
            return Err(StoreError::Inconsistent { path, reason }.into());
        }
        tracing::warn!(snapshot = %id, last_index, "log replaced by a received snapshot");
        replace_log(log, &snapshot)?;
        base = Some(snapshot);
    }
    if let Some(snapshot) = base {
        tracing::info!(snapshot = %snapshot.last, "replica restored from a snapshot");
        return Ok(snapshot.into());
    }
    if log.wal.first_index() > 1 {
        let reason = format!(
            "the log begins at entry {} and there is no snapshot to begin with",
            log.wal.first_index()
        );
        return Err(StoreError::Inconsistent {
            path: store.dir().to_owned(),
            reason,
        }
        .into());
    }
    Ok(store.identity.members.clone().into())
}

/// The snapshot in a file, if it is sound; else its damage is reported. The file is left as it is.
pub(super) fn read_snapshot(snapshots: &SnapshotFiles, id: EntryId) -> Option<StateSnapshot> {
    match snapshots
        .load(id)
        .map(|bytes| StateSnapshot::decode(&bytes))
    {
        Ok(Ok(snapshot)) if snapshot.last == id && snapshot.group_id == GROUP_ID => {
            return Some(snapshot);
        }
        Ok(Ok(snapshot)) => {
            let found = snapshot.last;
            tracing::error!(snapshot = %id, %found, "a snapshot's file holds another one");
        }
        Ok(Err(error)) => tracing::error!(snapshot = %id, %error, "a snapshot is damaged"),
        Err(error) => tracing::error!(snapshot = %id, %error, "a snapshot cannot be read"),
    }
    None
}

fn replace_log(log: &mut GroupLog, snapshot: &StateSnapshot) -> Result<(), NodeError> {
    let (last, crc) = (snapshot.last, snapshot.header_crc);
    let mut events = Vec::new();
    let replaced = log
        .wal
        .reset(last.index + 1, last.term, crc)
        .and_then(|()| log.wal.flush(&mut events));
    replaced.map_err(|error| {
        let reason = format!("replacing the log by the snapshot {last}: {error}");
        NodeError::Stopped(Fatal { reason })
    })
}

fn restore(
    store: &Store,
    config: &NodeConfig,
    log: &GroupLog,
    base: RestoreBase,
    snapshots: &SnapshotFiles,
    hard_state: HardStateRecord,
    clock: &Clock,
) -> Result<Replica, NodeError> {
    let replica_config = ReplicaConfig {
        group_id: GROUP_ID,
        record_bytes_max: config.limits.record_bytes_max.0 as u32,
        logs_max: config.limits.logs_max,
        producers_max: config.limits.producers_max,
        snapshot_entries: config.snapshots.entries,
        snapshot_log_bytes: config.snapshots.log_bytes.0,
        snapshot_bytes_max: config.snapshots.bytes_max.0,
        ..ReplicaConfig::default()
    };
    let (first_index, end) = (log.wal.first_index(), log.wal.last_index() + 1);
    let mut at = match &base {
        RestoreBase::Members(_) => first_index,
        RestoreBase::Snapshot(snapshot) => snapshot.last.index + 1,
    };
    let mut restorer = Restorer::new(replica_config, hard_state, base);
    if at > first_index {
        let prev_term = log.wal.term(first_index - 1).unwrap_or(0);
        let runs: Vec<TermRun> = log
            .wal
            .term_runs()
            .into_iter()
            .map(|run| TermRun {
                first_index: run.first_index,
                term: run.term,
            })
            .collect();
        restorer.log_start(first_index, prev_term, &runs);
    }
    restorer.snapshots_damaged(snapshots.damaged().iter().copied());
    let usable = snapshots.present().iter().map(|(id, _)| *id);
    restorer.snapshots_found(usable);
    while at < end {
        let slices: Slices = match log.wal.read(at, end, REPLAY_BYTES)? {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run()?,
        };
        for piece in &slices.pieces {
            for batch in Batches::new(piece) {
                let batch: BatchRef<'_> = batch.map_err(|error: DecodeError| Fatal {
                    reason: format!("entries from {at} on: {error}"),
                })?;
                restorer.push(&batch)?;
            }
        }
        at = slices.hi;
    }
    let raft = &config.raft;
    let raft_config = raft::Config {
        election_timeout_us_min: raft.election_timeout_min.as_us(),
        election_timeout_us_max: raft.election_timeout_max.as_us(),
        heartbeat_interval_us: raft.heartbeat_interval.as_us(),
        window_entries_max: raft.window_appends_max,
        window_bytes_max: raft.window_bytes_max.0,
        uncommitted_bytes_max: raft.uncommitted_bytes_max.0,
        lease_drift_ppm: raft.lease_drift_ppm,
        ..raft::Config::new(NodeId(store.identity.node_id))
    };
    let now = clock.now();
    // Nodes must not draw the same timeouts; nothing else depends on the seed.
    let seed = (store.identity.incarnation as u64) ^ now.unix_us;
    Ok(restorer.finish(raft_config, now.mono_us, seed)?)
}
