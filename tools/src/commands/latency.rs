//! `drave status --latency`: where every node's entries spent their time lately.

use drave_client::{ClusterStatus, NodeLatency, NodeStatus};
use serde::Serialize;

use crate::cli::ResultFormat;
use crate::output::{plain_table, render_table};

/// What is printed; the JSON keys are a promise.
#[derive(Debug, Serialize)]
pub(super) struct View {
    cluster_id: String,
    leader_id: Option<u64>,
    term: u64,
    nodes: Vec<NodeView>,
    /// Members that did not tell.
    silent: Vec<SilentView>,
}

#[derive(Debug, Serialize)]
struct SilentView {
    node_id: Option<u64>,
    address: String,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    node_id: u64,
    address: String,
    span_us: u64,
    stages: Vec<StageView>,
    quorums_closed: Vec<ClosedView>,
}

#[derive(Debug, Serialize)]
struct StageView {
    stage: String,
    peer: Option<u64>,
    entries: u64,
    us_p50: u64,
    us_p99: u64,
    us_p999: u64,
    us_max: u64,
}

#[derive(Debug, Serialize)]
struct ClosedView {
    node_id: u64,
    entries: u64,
}

impl View {
    pub(super) fn new(status: &ClusterStatus, nodes: Vec<NodeLatency>) -> Self {
        let is_silent =
            |known: &&NodeStatus| nodes.iter().all(|told| told.address != known.address);
        let silent = status.nodes.iter().filter(is_silent);
        let silent = silent.map(|known| SilentView {
            node_id: known.node_id,
            address: known.address.clone(),
            error: known.error.clone(),
        });
        Self {
            cluster_id: status.cluster_id.clone(),
            leader_id: status.leader_id,
            term: status.term,
            silent: silent.collect(),
            nodes: nodes.into_iter().map(NodeView::from).collect(),
        }
    }
}

impl From<NodeLatency> for NodeView {
    fn from(node: NodeLatency) -> Self {
        let stages = node.stages.into_iter().map(|stage| StageView {
            stage: stage.stage,
            peer: (stage.peer != 0).then_some(stage.peer),
            entries: stage.entries,
            us_p50: stage.us_p50,
            us_p99: stage.us_p99,
            us_p999: stage.us_p999,
            us_max: stage.us_max,
        });
        let closed = node.closed.into_iter().map(|closed| ClosedView {
            node_id: closed.node_id,
            entries: closed.entries,
        });
        Self {
            node_id: node.node_id,
            address: node.address,
            span_us: node.span_us,
            stages: stages.collect(),
            quorums_closed: closed.collect(),
        }
    }
}

pub(super) fn render(view: &View, format: ResultFormat) -> String {
    if format == ResultFormat::Json {
        let mut text =
            serde_json::to_string_pretty(view).expect("plain fields into memory cannot fail");
        text.push('\n');
        return text;
    }
    let leader = view
        .leader_id
        .map_or_else(|| "none".to_owned(), |leader| format!("node {leader}"));
    let mut text = format!(
        "cluster {}  leader {leader}  term {}\n",
        view.cluster_id, view.term
    );
    let mut table = plain_table(&[
        "NODE", "STAGE", "PEER", "ENTRIES", "P50 us", "P99 us", "P99.9 us", "MAX us",
    ]);
    for node in &view.nodes {
        for stage in &node.stages {
            table.add_row([
                node.node_id.to_string(),
                stage.stage.clone(),
                stage
                    .peer
                    .map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
                stage.entries.to_string(),
                stage.us_p50.to_string(),
                stage.us_p99.to_string(),
                stage.us_p999.to_string(),
                stage.us_max.to_string(),
            ]);
        }
    }
    text += &render_table(table);
    for node in &view.nodes {
        if node.quorums_closed.is_empty() {
            continue;
        }
        let all: u64 = node
            .quorums_closed
            .iter()
            .map(|closed| closed.entries)
            .sum();
        let shares: Vec<String> = node
            .quorums_closed
            .iter()
            .map(|closed| format!("node {} {}%", closed.node_id, share(closed.entries, all)))
            .collect();
        text += &format!(
            "node {}: quorums of {all} entries closed by {}\n",
            node.node_id,
            shares.join(", ")
        );
    }
    for node in &view.silent {
        let name = match node.node_id {
            Some(node_id) => format!("node {node_id} ({})", node.address),
            None => node.address.clone(),
        };
        let error = node
            .error
            .as_deref()
            .unwrap_or("no answer to this question");
        text += &format!("{name} does not tell: {error}\n");
    }
    text
}

/// In percent, rounded.
fn share(part: u64, all: u64) -> u64 {
    let percent = (u128::from(part) * 100 + u128::from(all) / 2) / u128::from(all.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let stage = |stage: &str, peer: Option<u64>, us: u64| StageView {
            stage: stage.to_owned(),
            peer,
            entries: 400,
            us_p50: us,
            us_p99: 2 * us,
            us_p999: 3 * us,
            us_max: 4 * us,
        };
        let closed = |node_id, entries| ClosedView { node_id, entries };
        let leader = NodeView {
            node_id: 1,
            address: "127.0.0.1:4436".to_owned(),
            span_us: 31_000_000,
            stages: vec![stage("flush", None, 90), stage("peer ack", Some(2), 150)],
            quorums_closed: vec![closed(1, 100), closed(2, 300)],
        };
        let follower = NodeView {
            node_id: 2,
            address: "127.0.0.1:4446".to_owned(),
            span_us: 31_000_000,
            stages: vec![stage("flush", None, 80)],
            quorums_closed: Vec::new(),
        };
        View {
            cluster_id: "prod".to_owned(),
            leader_id: Some(1),
            term: 4,
            nodes: vec![leader, follower],
            silent: vec![SilentView {
                node_id: Some(3),
                address: "127.0.0.1:4456".to_owned(),
                error: Some("connection refused".to_owned()),
            }],
        }
    }

    #[test]
    fn the_table() {
        let expected = "\
cluster prod  leader node 1  term 4
NODE  STAGE     PEER  ENTRIES  P50 us  P99 us  P99.9 us  MAX us
1     flush     -     400      90      180     270       360
1     peer ack  2     400      150     300     450       600
2     flush     -     400      80      160     240       320
node 1: quorums of 400 entries closed by node 1 25%, node 2 75%
node 3 (127.0.0.1:4456) does not tell: connection refused
";
        assert_eq!(render(&view(), ResultFormat::Table), expected);
    }

    #[test]
    fn the_json_keys_are_kept() {
        let value: serde_json::Value =
            serde_json::from_str(&render(&view(), ResultFormat::Json)).unwrap();
        let node = &value["nodes"][0];
        assert_eq!(
            (&node["node_id"], &node["span_us"]),
            (&1.into(), &31_000_000.into())
        );
        assert!(node["stages"][0]["peer"].is_null());
        let stage = &node["stages"][1];
        for (key, expected) in [
            ("peer", 2),
            ("entries", 400),
            ("us_p50", 150),
            ("us_p99", 300),
            ("us_p999", 450),
            ("us_max", 600),
        ] {
            assert_eq!(stage[key], expected, "{key}");
        }
        assert_eq!(node["quorums_closed"][1]["node_id"], 2);
        assert_eq!(node["quorums_closed"][1]["entries"], 300);
        let silent = &value["silent"][0];
        assert_eq!(silent["node_id"], 3);
        assert_eq!(silent["address"], "127.0.0.1:4456");
        assert_eq!(silent["error"], "connection refused");
    }
}
