//! From a data directory to a node ready to listen: identity, log, replica, pins.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use drave_batch::{BatchRef, Batches, DecodeError};
use drave_net::Runtime;
use drave_wal::{EngineChoice, Read, Slices, Wal};

use super::clock::Clock;
use super::pins::Pins;
use super::{GroupLog, Helper, IoChoice, NodeError, NodeOptions};
use crate::config::NodeConfig;
use crate::raft::{self, NodeId};
use crate::replica::{Fatal, HardStateRecord, Replica, ReplicaConfig, Restorer};
use crate::store::{Store, StoreError, group_dir};

/// The only group of this version.
const GROUP_ID: u32 = 0;

/// Bytes of the log read at once while it is replayed.
const REPLAY_BYTES: usize = 8 << 20;

/// How long a predecessor may take to let go of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Everything a node needs before it has a socket.
pub(super) struct Opened {
    pub store: Store,
    pub config: NodeConfig,
    pub clock: Clock,
    pub log: GroupLog,
    pub replica: Replica,
    pub helper: Helper,
    pub pins: Rc<RefCell<Pins>>,
    pub io_engine: String,
}

pub(super) fn open(options: &NodeOptions, runtime: &Runtime) -> Result<Opened, NodeError> {
    let config = options.config.clone();
    let store = Store::open(
        &options.data_dir,
        config.cluster.id.as_deref(),
        LOCK_PATIENCE,
    )?;
    let clock = Clock::start();
    let identity = &store.identity;
    tracing::info!(
        cluster = %identity.cluster_id,
        node = identity.node_id,
        incarnation = format!("{:032x}", identity.incarnation),
        sockets = ?runtime.engine(),
        reason = runtime.reason(),
        "node starting"
    );
    let wal_options = drave_wal::Options {
        store_id: identity.incarnation,
        segment_bytes: config.wal.segment_bytes.0,
        group_bytes_max: config.wal.group_bytes_max.0 as u32,
        engine: match options.io {
            IoChoice::Auto => EngineChoice::Auto,
            IoChoice::Uring => EngineChoice::IoUring,
            IoChoice::Posix => EngineChoice::Posix,
        },
        ..drave_wal::Options::default()
    };
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
    let log = GroupLog::new(wal, queue_bytes_max);
    let replica = restore(&store, &config, &log, hard_state, &clock)?;
    let members = identity
        .members
        .members
        .iter()
        .map(|member| member.node_id)
        .collect();
    let pins = Rc::new(RefCell::new(Pins::load(store.dir(), members)?));
    let helper = Helper::start().map_err(|source| NodeError::Io {
        what: "starting the helper thread",
        source,
    })?;
    Ok(Opened {
        store,
        config,
        clock,
        log,
        replica,
        helper,
        pins,
        io_engine,
    })
}

fn restore(
    store: &Store,
    config: &NodeConfig,
    log: &GroupLog,
    hard_state: HardStateRecord,
    clock: &Clock,
) -> Result<Replica, NodeError> {
    let replica_config = ReplicaConfig {
        group_id: GROUP_ID,
        record_bytes_max: config.limits.record_bytes_max.0 as u32,
        logs_max: config.limits.logs_max,
        producers_max: config.limits.producers_max,
        ..ReplicaConfig::default()
    };
    let mut restorer = Restorer::new(replica_config, hard_state, store.identity.members.clone());
    let (mut at, end) = (log.wal.first_index(), log.wal.last_index() + 1);
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
        ..raft::Config::new(NodeId(store.identity.node_id))
    };
    let now = clock.now();
    // Nodes must not draw the same timeouts; nothing else depends on the seed.
    let seed = (store.identity.incarnation as u64) ^ now.unix_us;
    Ok(restorer.finish(raft_config, now.mono_us, seed)?)
}
