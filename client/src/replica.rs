//! Reads from one node alone: what that replica knows to be committed, without a round to the others.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::{Call, Target};
use crate::catalogue;
use crate::cluster::{Cluster, Node};
use crate::connection::LinkError;
use crate::read::{Reader, Source, read, seq_at};
use crate::tail::Tail;
use crate::{ClientError, LogInfo, ReadChunk, ReadLimits, TailFrom, status};

/// How the caller names a node.
#[derive(Clone, Debug)]
pub(crate) enum NodeName {
    Id(u64),
    Address(String),
}

impl NodeName {
    /// The node, looked up among the members that reachable nodes name if it is not known yet.
    pub(crate) async fn find(&self, cluster: &Arc<Cluster>) -> Result<Arc<Node>, LinkError> {
        let known = |cluster: &Cluster| match self {
            Self::Id(node_id) => cluster.node_with_id(*node_id),
            Self::Address(address) => {
                cluster.learn(address, 0);
                cluster.node_at(address)
            }
        };
        if let Some(node) = known(cluster) {
            return Ok(node);
        }
        if matches!(self, Self::Id(_)) {
            // Whatever it says, the members are learned on the way.
            drop(status::status(cluster).await);
        }
        known(cluster).ok_or_else(|| LinkError::Connect {
            address: match self {
                Self::Id(node_id) => format!("node {node_id}"),
                Self::Address(address) => address.clone(),
            },
            cause: "no reachable node knows it as a member".to_owned(),
        })
    }
}

/// One node, read alone. From [`Client::replica`](crate::Client::replica).
///
/// Its answers may lag behind the leader's; they never contradict them. Clones share the client's
/// connections.
#[derive(Clone)]
pub struct Replica {
    cluster: Arc<Cluster>,
    target: Target,
}

impl Replica {
    pub(crate) fn new(cluster: Arc<Cluster>, name: NodeName) -> Self {
        Self {
            cluster,
            target: Target::Node(name),
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            cluster: &self.cluster,
            target: &self.target,
            deadline: Instant::now() + self.cluster.settings.request_timeout,
            writes: false,
        }
    }

    /// The logs that this replica knows of, in order of their names.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when the node does not answer.
    pub async fn logs(&self) -> Result<Vec<LogInfo>, ClientError> {
        catalogue::list(&self.call()).await
    }

    /// A log by name, as this replica knows it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `LogNotFound`; [`ClientError::Unavailable`] when the node does not
    /// answer.
    pub async fn log(&self, name: &str) -> Result<ReplicaLog, ClientError> {
        let info = catalogue::lookup(&self.call(), name).await?;
        Ok(ReplicaLog {
            source: Source {
                cluster: Arc::clone(&self.cluster),
                target: self.target.clone(),
                log_id: info.log_id,
            },
            info,
        })
    }
}

/// A log on one node, read alone. From [`Replica::log`].
#[derive(Clone)]
pub struct ReplicaLog {
    source: Source,
    info: LogInfo,
}

impl ReplicaLog {
    /// The log as the node described it when it was looked up.
    #[must_use]
    pub fn info(&self) -> &LogInfo {
        &self.info
    }

    /// The log's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.info.log_id
    }

    /// Reads from `from_seq` on, as far as this replica knows records to be committed.
    ///
    /// # Errors
    /// As [`Log::read`](crate::Log::read); damaged bytes are reported at once, since no other replica
    /// may stand in.
    pub async fn read(&self, from_seq: u64, limits: ReadLimits) -> Result<ReadChunk, ClientError> {
        read(&self.source, from_seq, limits).await
    }

    /// Reads chunk by chunk up to this replica's tail as of the first chunk.
    #[must_use]
    pub fn reader(&self, from_seq: u64) -> Reader {
        Reader::new(self.source.clone(), from_seq)
    }

    /// The seq of the first record appended at `time_us` or after it, as far as this replica knows; see
    /// [`Log::seq_at`](crate::Log::seq_at).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn seq_at(&self, time_us: u64) -> Result<u64, ClientError> {
        seq_at(&self.source, time_us).await
    }

    /// Tails this replica alone.
    ///
    /// # Errors
    /// As [`Log::tail`](crate::Log::tail).
    pub async fn tail(&self, from: TailFrom) -> Result<Tail, ClientError> {
        Tail::start(self.source.clone(), &self.info.name, from).await
    }
}
