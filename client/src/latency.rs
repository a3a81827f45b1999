//! Where each node's entries spent their time lately, asked for in parallel.

use std::sync::Arc;

use drave_batch::wire::{Latency, LatencyReply, QuorumsClosed, StageLatency};
use tokio::task::JoinSet;

use crate::ClientError;
use crate::cluster::Cluster;
use crate::connection::cut_text;
use crate::status::{self, ask};

/// What one node measured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeLatency {
    /// The node.
    pub node_id: u64,
    /// Its HOST:PORT.
    pub address: String,
    /// All of it is of the last so many microseconds.
    pub span_us: u64,
    /// In the order in which an entry passes them; those that none passed are left out.
    pub stages: Vec<StageLatency>,
    /// Whose flush was the last one that a quorum needed, ascending by node.
    pub closed: Vec<QuorumsClosed>,
}

/// Asks every node that answers what it measured.
pub(crate) async fn latency(cluster: &Arc<Cluster>) -> Result<Vec<NodeLatency>, ClientError> {
    // Tells who the nodes are, and which of them are worth asking.
    let status = status::status(cluster).await?;
    let mut asking = JoinSet::new();
    for node in cluster.nodes() {
        let reaches = |known: &crate::NodeStatus| known.reachable && known.address == node.address;
        if status.nodes.iter().any(reaches) {
            let cluster = Arc::clone(cluster);
            asking.spawn(async move {
                let address = node.address.clone();
                let reply = ask::<LatencyReply>(cluster, node, Latency {}).await;
                reply.map(|reply| told(address, reply))
            });
        }
    }
    let mut nodes = Vec::new();
    let mut causes = Vec::new();
    while let Some(answer) = asking.join_next().await {
        match answer {
            Ok(Ok(node)) => nodes.push(node),
            Ok(Err(cause)) => causes.push(cause),
            Err(error) => causes.push(error.to_string()),
        }
    }
    if nodes.is_empty() {
        return Err(ClientError::Unavailable {
            code: None,
            attempts: u32::try_from(causes.len()).unwrap_or(u32::MAX),
            cause: causes.join("; "),
            leader: None,
        });
    }
    nodes.sort_by_key(|node| node.node_id);
    Ok(nodes)
}

fn told(address: String, reply: LatencyReply) -> NodeLatency {
    let stages = reply.stages.into_iter().map(|stage| StageLatency {
        stage: cut_text(stage.stage),
        ..stage
    });
    NodeLatency {
        node_id: reply.node_id,
        address,
        span_us: reply.span_us,
        stages: stages.collect(),
        closed: reply.closed,
    }
}
