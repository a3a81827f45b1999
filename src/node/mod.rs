//! The shell of a node: sockets, disk completions and the clock to the replica, and its effects back.
//!
//! One thread owns the group: its sockets, its replica and its log's ring. Nothing on it blocks; cold
//! pages go to a helper thread, snapshots to another, segment files to the log's own. It decides nothing
//! that the replica could decide.

mod bind;
mod carrying;
mod clock;
mod cut;
mod driver;
mod entries;
mod group_log;
mod helper;
mod latency;
mod life;
mod patient;
mod peers;
mod pins;
mod repairing;
mod scrub;
mod settings;
mod snapshots;
mod start;
mod translate;
mod watch;

use std::future::Future;
use std::path::PathBuf;

use drave_batch::wire::ErrorCode;
use drave_wal::CorruptionKind;
use thiserror::Error;

pub use carrying::{Carrier, CarryLimits};
pub use cut::{CutPlan, OtherVoters, plan_cut};
pub use drave_net::IoChoice;
pub use group_log::{Completion, GroupLog};
pub(crate) use helper::{Helper, JobKey};
pub(crate) use latency::Latency;

use crate::config::{ConfigError, NodeConfig};
use crate::replica::{Fatal, RestoreProblem};
use crate::store::StoreError;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its formatted directory.
    pub data_dir: PathBuf,
    /// Its configuration.
    pub config: NodeConfig,
    /// How it talks to disk and sockets.
    pub io: IoChoice,
}

/// Why a node did not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The group's log cannot be opened.
    #[error("the group's log: {0}")]
    Log(#[from] drave_wal::OpenError),
    /// The log's content cannot be made into a replica.
    #[error("the group's log: {0}")]
    Restore(#[from] RestoreProblem),
    /// The log cannot be read.
    #[error("the group's log: {0}")]
    Read(#[from] drave_wal::ReadError),
    /// The log was cut on demand, and other members vote.
    #[error(
        "{}: entries from {next_index} on, which may have been acknowledged, were cut off the log on demand \
         (`drave wal repair --cut-at-damage`), and other members vote: among them this node would break what it \
         promised",
        ErrorCode::LogCut
    )]
    Cut {
        /// The first index that was given up.
        next_index: u64,
    },
    /// The end of the log is lost, and a slot of its meta record is damaged.
    #[error(
        "the end of the log is lost, and a slot of its `meta` is damaged: what was there may be an older term and vote"
    )]
    TermUncertain,
    /// io_uring was asked for and is refused, or no runtime can be had.
    #[error("{0}")]
    Runtime(#[from] drave_net::RuntimeError),
    /// It cannot listen on its own member's address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
    /// It cannot go on with the group.
    #[error("{0}")]
    Stopped(#[from] Fatal),
}

impl NodeError {
    /// The exit code of a program that ends for this reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Config(error) => error.exit_code(),
            Self::Log(error) => match error {
                drave_wal::OpenError::Version { .. } => 7,
                drave_wal::OpenError::Locked { .. } => 4,
                drave_wal::OpenError::Io { .. }
                | drave_wal::OpenError::Engine { .. }
                | drave_wal::OpenError::NoSpace(_) => 1,
                _ => 6,
            },
            Self::Restore(_) | Self::Read(_) | Self::Cut { .. } | Self::TermUncertain => 6,
            Self::Runtime(_) | Self::Listen { .. } | Self::Io { .. } | Self::Stopped(_) => 1,
        }
    }

    /// Whether it is damage to the log's entries, which other members may hold.
    fn is_damage(&self) -> bool {
        match self {
            Self::Log(drave_wal::OpenError::Corrupt(corruption)) => !matches!(
                corruption.kind,
                CorruptionKind::Meta | CorruptionKind::MetaOld { .. } | CorruptionKind::MetaMissing
            ),
            Self::Read(error) => is_damage(error),
            _ => false,
        }
    }

    /// What it did.
    #[must_use]
    pub fn effect(&self) -> &'static str {
        match self {
            Self::Stopped(_) => {
                "the node stopped serving; what it acknowledged is on a majority's disks"
            }
            _ => "the node did not start; its data was left as it was",
        }
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Store(error) => error.advice(),
            Self::Config(_) => "correct the configuration file; every key is optional",
            _ if self.is_damage() => {
                "do not delete anything: with other members a node repairs its log from them, and its own log says \
                 why not; alone, `drave wal repair` shows and saves what can be saved; see docs/operations.md"
            }
            Self::Log(_) | Self::Restore(_) | Self::Read(_) => {
                "do not delete anything: the other replicas hold what is committed; see docs/operations.md"
            }
            Self::TermUncertain => {
                "replace it by a new node: `drave member replace`; nobody else knows whom it voted for"
            }
            Self::Cut { .. } => {
                "replace it by a new node: `drave member replace`; `drave wal dump` still shows what its log holds"
            }
            Self::Runtime(_) => {
                "start with --io posix, or allow io_uring (container seccomp profile)"
            }
            Self::Listen { .. } => {
                "check that the address is this machine's and that nothing else listens on it"
            }
            Self::Io { .. } => "see the system's error above",
            Self::Stopped(_) => "check the disk and its logs before starting the node again",
        }
    }
}

/// Whether a read failed because what was durable is damaged, and not for a passing reason.
fn is_damage(error: &drave_wal::ReadError) -> bool {
    match error {
        drave_wal::ReadError::Corrupt(_) => true,
        // A sector that the disk gives up, and a file that lost its end.
        drave_wal::ReadError::Io { source, .. } => {
            source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
                || source.kind() == std::io::ErrorKind::UnexpectedEof
        }
        _ => false,
    }
}

/// Runs a node on the calling thread until `stop` completes or it cannot go on.
///
/// `stop` is polled on the node's own runtime, inside which tokio's signals and timers work. When it
/// completes, the node stops taking requests, flushes what is queued and returns.
///
/// # Errors
/// [`NodeError`]
pub fn run(
    options: NodeOptions,
    stop: impl Future<Output = ()> + 'static,
) -> Result<(), NodeError> {
    options.config.check()?;
    let runtime = drave_net::Runtime::new(options.io)?;
    let store = start::open_store(&options, &runtime)?;
    runtime.block_on(life::live(options, store, stop))
}
