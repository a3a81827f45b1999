//! Waits until a cluster of processes has reached a state, by asking its nodes.
//!
//! The nodes tell nobody when an election or a catch-up is done, so their status is asked for again and
//! again until a deadline. A node that ends meanwhile ends the wait.

use std::time::{Duration, Instant};

use drave_client::{Client, ClusterStatus};

use super::Cluster;
use crate::errors::CliError;
use crate::exit::Exit;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(25);

/// Waits until `reached` gives something for the cluster's status.
///
/// # Errors
/// [`CliError`] at the deadline, with what was waited for and what was seen last, or when a node ended
/// that was running.
pub async fn until<T>(
    cluster: &mut Cluster,
    client: &Client,
    what: &str,
    timeout: Duration,
    mut reached: impl FnMut(&ClusterStatus) -> Option<T>,
) -> Result<T, CliError> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some((node_id, status)) = cluster.take_ended()?.into_iter().next() {
            return Err(cluster.ended_error(node_id, status));
        }
        let seen = match client.status().await {
            Ok(status) => match reached(&status) {
                Some(found) => return Ok(found),
                None => describe(&status),
            },
            Err(error) => error.why(),
        };
        if Instant::now() >= deadline {
            return Err(CliError::new(
                Exit::Unavailable,
                format!("no {what} within {} s", timeout.as_secs()),
            )
            .why(seen)
            .with("logs", cluster.options.dir.display())
            .next("look at the nodes' logs"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for a leader that answers and has committed an entry of its own term; gives its node id.
///
/// # Errors
/// As [`until`].
pub async fn leader(
    cluster: &mut Cluster,
    client: &Client,
    timeout: Duration,
) -> Result<u64, CliError> {
    until(cluster, client, "leader", timeout, live_leader).await
}

/// Waits until `node_count` nodes answer, follow one leader, and have applied all that it has committed.
///
/// # Errors
/// As [`until`].
pub async fn caught_up(
    cluster: &mut Cluster,
    client: &Client,
    node_count: usize,
    timeout: Duration,
) -> Result<(), CliError> {
    until(
        cluster,
        client,
        "cluster in which all nodes have caught up",
        timeout,
        |status| {
            let leader_id = live_leader(status)?;
            let leader = status
                .nodes
                .iter()
                .find(|node| node.node_id == Some(leader_id))?;
            // All that the leader holds, so that nothing is on its way any more.
            let level = |node: &&drave_client::NodeStatus| {
                node.reachable
                    && node.leader_id == Some(leader_id)
                    && node.commit_index == leader.last_index
                    && node.applied_index == leader.last_index
                    && node.last_index == leader.last_index
            };
            (status.nodes.iter().filter(level).count() == node_count).then_some(())
        },
    )
    .await
}

/// The leader, if it answers, says so itself, and has committed something.
#[must_use]
pub fn live_leader(status: &ClusterStatus) -> Option<u64> {
    let leader_id = status.leader_id?;
    let leader = status
        .nodes
        .iter()
        .find(|node| node.node_id == Some(leader_id))?;
    let leads = leader.reachable && leader.role.as_deref() == Some("leader");
    (leads && leader.commit_index > Some(0)).then_some(leader_id)
}

fn describe(status: &ClusterStatus) -> String {
    let mut rows = vec![format!(
        "leader {:?}, term {}",
        status.leader_id, status.term
    )];
    for node in &status.nodes {
        rows.push(format!(
            "{}: {}, last {:?}, commit {:?}, applied {:?}",
            node.address,
            node.role
                .as_deref()
                .or(node.error.as_deref())
                .unwrap_or("silent"),
            node.last_index.unwrap_or(0),
            node.commit_index.unwrap_or(0),
            node.applied_index.unwrap_or(0)
        ));
    }
    rows.join("\n")
}
