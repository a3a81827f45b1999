//! What every node says of itself, asked for in parallel, with the dead ones named.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use drave_batch::wire::{Message, Status, StatusReply};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::ClientError;
use crate::cluster::{Cluster, NODES_MAX, Node};
use crate::connection::cut_text;

/// One node has this long to connect and answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// All nodes together, those learned from others on the way included.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1800);

/// The cluster as its reachable nodes describe it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster_id: String,
    /// The leader that the highest term's nodes follow, if they name one.
    pub leader_id: Option<u64>,
    /// The highest term seen.
    pub term: u64,
    /// Every node known, by node id.
    pub nodes: Vec<NodeStatus>,
}

/// One node. Everything it would say of itself is `None` when it did not answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its node id, if a member list or an earlier handshake told it.
    pub node_id: Option<u64>,
    /// Its HOST:PORT.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// `leader`, `follower`, `candidate`, `pre-candidate` or `learner`.
    pub role: Option<String>,
    /// Its term.
    pub term: Option<u64>,
    /// The leader it follows; `None` also when it follows none.
    pub leader_id: Option<u64>,
    /// First Raft index held.
    pub first_index: Option<u64>,
    /// Last index held.
    pub last_index: Option<u64>,
    /// Last index on its stable storage.
    pub durable_index: Option<u64>,
    /// Commit index as it knows it.
    pub commit_index: Option<u64>,
    /// Last index applied.
    pub applied_index: Option<u64>,
    /// Logs it holds.
    pub log_count: Option<u64>,
    /// Microseconds since it started.
    pub uptime_us: Option<u64>,
    /// Half of its log's flushes of the last seconds took no longer, microseconds, to the next power of two.
    pub flush_us_p50: Option<u64>,
    /// 99 of 100 took no longer.
    pub flush_us_p99: Option<u64>,
    /// The longest of them.
    pub flush_us_max: Option<u64>,
    /// For how long the oldest flush under way has been so, 0 for none.
    pub flush_waits_us: Option<u64>,
    /// Bytes of log and snapshots that it reads again and checks in a second at most; 0 when it does not.
    pub scrub_bytes_per_second: Option<u64>,
    /// The number of its log's segment that is being checked, 0 between two passes.
    pub scrub_segment_seq: Option<u64>,
    /// Bytes checked in this pass.
    pub scrub_bytes: Option<u64>,
    /// Whole passes so far.
    pub scrub_passes: Option<u64>,
    /// When the last one ended, microseconds since 1970; 0 before the first.
    pub scrub_last_pass_unix_us: Option<u64>,
    /// How often damage was found that way.
    pub scrub_found: Option<u64>,
    /// `io_uring` or `posix`.
    pub io_engine: Option<String>,
    /// The program's version.
    pub version: Option<String>,
    /// Why it does not serve the group; `None` also when it does.
    pub fault: Option<String>,
}

impl NodeStatus {
    fn answered(node: &Node, reply: &StatusReply) -> Self {
        let some_text = |text: &str| (!text.is_empty()).then(|| cut_text(text.to_owned()));
        Self {
            node_id: Some(reply.node_id),
            address: node.address.clone(),
            reachable: true,
            error: None,
            role: some_text(&reply.role),
            term: Some(reply.term),
            leader_id: (reply.leader_id != 0).then_some(reply.leader_id),
            first_index: Some(reply.first_index),
            last_index: Some(reply.last_index),
            durable_index: Some(reply.durable_index),
            commit_index: Some(reply.commit_index),
            applied_index: Some(reply.applied_index),
            log_count: Some(reply.log_count),
            uptime_us: Some(reply.uptime_us),
            flush_us_p50: Some(reply.flush_us_p50),
            flush_us_p99: Some(reply.flush_us_p99),
            flush_us_max: Some(reply.flush_us_max),
            flush_waits_us: Some(reply.flush_waits_us),
            scrub_bytes_per_second: Some(reply.scrub.bytes_per_second),
            scrub_segment_seq: Some(reply.scrub.segment_seq),
            scrub_bytes: Some(reply.scrub.bytes),
            scrub_passes: Some(reply.scrub.passes),
            scrub_last_pass_unix_us: Some(reply.scrub.last_pass_unix_us),
            scrub_found: Some(reply.scrub.found),
            io_engine: some_text(&reply.io_engine),
            version: some_text(&reply.version),
            fault: some_text(&reply.fault),
        }
    }

    fn unreachable(node: &Node, error: &str) -> Self {
        Self {
            node_id: node.node_id(),
            address: node.address.clone(),
            error: Some(error.to_owned()),
            ..Self::default()
        }
    }
}

/// Asks one node, for no longer than it may take.
pub(crate) async fn ask<A: Message>(
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    request: impl Message,
) -> Result<A, String> {
    let deadline = Instant::now() + NODE_TIMEOUT;
    let answer = timeout_at(deadline, async {
        let connection = cluster.connection(&node).await.map_err(|e| e.to_string())?;
        let reservation = connection.reserve(0).await;
        let reservation = reservation.map_err(|_| "no credit for a request".to_owned())?;
        let receiver = connection
            .send(reservation, &request, &[])
            .map_err(|e| e.to_string())?;
        let frame = receiver.await.map_err(|_| "closed".to_owned())?;
        let frame = frame.map_err(|e| e.to_string())?;
        frame.decode::<A>().map_err(|e| e.to_string())
    });
    match answer.await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", NODE_TIMEOUT.as_millis())),
    }
}

/// Asks every known node, and those that the answers name.
pub(crate) async fn status(cluster: &Arc<Cluster>) -> Result<ClusterStatus, ClientError> {
    let deadline = Instant::now() + STATUS_TIMEOUT;
    let mut asked: HashSet<String> = HashSet::new();
    let mut answers: BTreeMap<String, Result<StatusReply, String>> = BTreeMap::new();
    let mut asking = JoinSet::new();
    loop {
        for node in cluster.nodes() {
            if asked.len() < NODES_MAX && asked.insert(node.address.clone()) {
                let cluster = Arc::clone(cluster);
                asking.spawn(async move {
                    let address = node.address.clone();
                    (address, ask(cluster, node, Status {}).await)
                });
            }
        }
        match timeout_at(deadline, asking.join_next()).await {
            Ok(Some(Ok((address, answer)))) => {
                if let Ok(reply) = &answer {
                    cluster.learn_members(reply);
                }
                answers.insert(address, answer);
            }
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    summarize(cluster, &answers)
}

fn summarize(
    cluster: &Cluster,
    answers: &BTreeMap<String, Result<StatusReply, String>>,
) -> Result<ClusterStatus, ClientError> {
    let replies = || answers.values().filter_map(|answer| answer.as_ref().ok());
    if replies().next().is_none() {
        let causes: Vec<&str> = answers
            .values()
            .filter_map(|answer| answer.as_ref().err().map(String::as_str))
            .collect();
        return Err(ClientError::Unavailable {
            code: None,
            cause: causes.join("; "),
            attempts: u32::try_from(answers.len()).unwrap_or(u32::MAX),
            leader: None,
        });
    }
    // A node may be known under several addresses: the one that answers stands for it.
    let mut nodes: Vec<NodeStatus> = Vec::new();
    for node in cluster.nodes() {
        match answers.get(&node.address) {
            Some(Ok(reply)) if !nodes.iter().any(|n| n.node_id == Some(reply.node_id)) => {
                nodes.push(NodeStatus::answered(&node, reply));
            }
            _ => {}
        }
    }
    for node in cluster.nodes() {
        let error = match answers.get(&node.address) {
            Some(Ok(_)) => continue,
            Some(Err(error)) => error.as_str(),
            None => "no answer in time",
        };
        let known = node
            .node_id()
            .is_some_and(|node_id| nodes.iter().any(|n| n.node_id == Some(node_id)));
        if !known {
            nodes.push(NodeStatus::unreachable(&node, error));
        }
    }
    nodes.sort_by(|a, b| {
        let key = |n: &NodeStatus| (n.node_id.unwrap_or(u64::MAX), n.address.clone());
        key(a).cmp(&key(b))
    });
    Ok(ClusterStatus {
        cluster_id: cluster
            .cluster_id()
            .map_or(String::new(), ToString::to_string),
        leader_id: leader(replies()),
        term: replies().map(|reply| reply.term).max().unwrap_or(0),
        nodes,
    })
}

/// The leader claimed in the highest term in which one is claimed, by most nodes. A deposed leader that
/// still believes in itself does so in a lower term.
fn leader<'a>(replies: impl Iterator<Item = &'a StatusReply>) -> Option<u64> {
    let mut claims: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for reply in replies.filter(|reply| reply.leader_id != 0) {
        *claims.entry((reply.term, reply.leader_id)).or_default() += 1;
    }
    let best = claims
        .into_iter()
        .max_by_key(|((term, _), count)| (*term, *count));
    best.map(|((_, leader_id), _)| leader_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(node_id: u64, term: u64, leader_id: u64) -> StatusReply {
        StatusReply {
            node_id,
            term,
            leader_id,
            ..StatusReply::default()
        }
    }

    #[test]
    fn the_highest_term_names_the_leader() {
        let deposed = [reply(1, 4, 1), reply(2, 5, 2), reply(3, 5, 2)];
        assert_eq!(leader(deposed.iter()), Some(2));
        let electing = [reply(1, 4, 1), reply(2, 5, 0), reply(3, 5, 0)];
        assert_eq!(leader(electing.iter()), Some(1));
        assert_eq!(leader([reply(1, 4, 0)].iter()), None);
    }
}
