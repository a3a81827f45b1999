//! What nodes say of themselves, in their logs and by their status, waited for.

use std::fs;
use std::time::{Duration, Instant};

use drave_client::NodeStatus;
use drave_tools::cluster::wait;

use super::{LIMIT, TestCluster};

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(5);

/// What a node wrote to its log so far.
pub(crate) fn log_of(test: &TestCluster, node_id: u64) -> String {
    fs::read_to_string(test.cluster.log_path(node_id)).unwrap_or_default()
}

/// Waits until a node's log has `part` behind its first `mark` bytes, and gives what is behind them.
#[track_caller]
pub(crate) fn wait_for_log(test: &TestCluster, node_id: u64, mark: usize, part: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let log = log_of(test, node_id)[mark..].to_owned();
        if log.contains(part) {
            return log;
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "node {node_id} never says {part:?}");
        std::thread::sleep(PAUSE);
    }
}

#[track_caller]
pub(crate) fn wait_for_node(
    test: &mut TestCluster,
    node_id: u64,
    what: &str,
    reached: impl Fn(&NodeStatus) -> bool,
) -> NodeStatus {
    let waited = wait::until(&mut test.cluster, &test.client, what, LIMIT, |status| {
        let mut nodes = status.nodes.iter();
        let node = nodes.find(|node| node.node_id == Some(node_id))?;
        reached(node).then(|| node.clone())
    });
    let waited = test.runtime.block_on(waited);
    waited.unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for something that tells nobody when it comes.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !reached() {
        let late = Instant::now() >= deadline;
        assert!(!late, "waited {LIMIT:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
