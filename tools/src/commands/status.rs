//! `drave status`: every node as it sees itself, also when some are dead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drave_client::{ClusterStatus, NodeStatus};
use serde::Serialize;

use super::latency;
use crate::cli::{ResultFormat, StatusArgs};
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::{plain_table, print, render_table};

/// Runs the command.
///
/// # Errors
/// [`CliError`] when no node answers at all.
pub fn run(arguments: &StatusArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let status = client.status().await;
        let status = status.map_err(|error| {
            client_error("no node answers", &error)
                .with("asked", arguments.connect.endpoints.join(", "))
        })?;
        if arguments.latency {
            let nodes = client.latency().await;
            let nodes = nodes.map_err(|error| client_error("no node tells its latency", &error))?;
            let view = latency::View::new(&status, nodes);
            return print(&latency::render(&view, arguments.format)).await;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_unix_us = now.unwrap_or_default().as_micros() as u64;
        print(&render(&View::from(status), arguments.format, now_unix_us)).await
    })
}

/// What is printed; the JSON keys are a promise.
#[derive(Debug, Serialize)]
struct View {
    cluster_id: String,
    leader_id: Option<u64>,
    term: u64,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Default, Serialize)]
struct NodeView {
    node_id: Option<u64>,
    address: String,
    reachable: bool,
    role: Option<String>,
    term: Option<u64>,
    first_index: Option<u64>,
    last_index: Option<u64>,
    durable_index: Option<u64>,
    commit_index: Option<u64>,
    applied_index: Option<u64>,
    io_engine: Option<String>,
    log_count: Option<u64>,
    uptime_us: Option<u64>,
    flush_us_p50: Option<u64>,
    flush_us_p99: Option<u64>,
    flush_us_max: Option<u64>,
    flush_waits_us: Option<u64>,
    scrub_bytes_per_second: Option<u64>,
    scrub_segment_seq: Option<u64>,
    scrub_bytes: Option<u64>,
    scrub_passes: Option<u64>,
    scrub_last_pass_unix_us: Option<u64>,
    scrub_found: Option<u64>,
    version: Option<String>,
    fault: Option<String>,
    error: Option<String>,
}

impl From<ClusterStatus> for View {
    fn from(status: ClusterStatus) -> Self {
        let mut nodes: Vec<NodeView> = status.nodes.into_iter().map(NodeView::from).collect();
        nodes.sort_by(|a, b| {
            (a.node_id.is_none(), a.node_id, &a.address).cmp(&(
                b.node_id.is_none(),
                b.node_id,
                &b.address,
            ))
        });
        Self {
            cluster_id: status.cluster_id,
            leader_id: status.leader_id,
            term: status.term,
            nodes,
        }
    }
}

impl From<NodeStatus> for NodeView {
    fn from(node: NodeStatus) -> Self {
        Self {
            node_id: node.node_id,
            address: node.address,
            reachable: node.reachable,
            role: node.role,
            term: node.term,
            first_index: node.first_index,
            last_index: node.last_index,
            durable_index: node.durable_index,
            commit_index: node.commit_index,
            applied_index: node.applied_index,
            io_engine: node.io_engine,
            log_count: node.log_count,
            uptime_us: node.uptime_us,
            flush_us_p50: node.flush_us_p50,
            flush_us_p99: node.flush_us_p99,
            flush_us_max: node.flush_us_max,
            flush_waits_us: node.flush_waits_us,
            scrub_bytes_per_second: node.scrub_bytes_per_second,
            scrub_segment_seq: node.scrub_segment_seq,
            scrub_bytes: node.scrub_bytes,
            scrub_passes: node.scrub_passes,
            scrub_last_pass_unix_us: node.scrub_last_pass_unix_us,
            scrub_found: node.scrub_found,
            version: node.version,
            fault: node.fault.filter(|fault| !fault.is_empty()),
            error: node.error,
        }
    }
}

/// How the node's disk does, microseconds: flushes of the last seconds; a flush that hangs says so.
fn flushes(node: &NodeView) -> String {
    /// From here on a flush under way is worth a word.
    const HANGS_US: u64 = 1_000_000;
    match (node.flush_us_p50, node.flush_us_p99, node.flush_waits_us) {
        (_, _, Some(waits_us)) if waits_us >= HANGS_US => {
            format!("hangs for {} s", waits_us / 1_000_000)
        }
        (Some(0), Some(0), _) => "-".to_owned(),
        (Some(p50), Some(p99), _) => format!("{p50}/{p99}"),
        _ => "-".to_owned(),
    }
}

/// How long ago the disk was last checked whole, or how far the first pass is.
fn scrubbed(node: &NodeView, now_unix_us: u64) -> String {
    match (node.scrub_bytes_per_second, node.scrub_last_pass_unix_us) {
        (None, _) => "-".to_owned(),
        (Some(0), _) => "off".to_owned(),
        (_, None | Some(0)) => {
            let bytes = bytesize::ByteSize(node.scrub_bytes.unwrap_or(0));
            format!("first, {bytes}")
        }
        (_, Some(last_us)) => {
            let ago = Duration::from_secs(now_unix_us.saturating_sub(last_us) / 1_000_000);
            format!("{} ago", humantime::format_duration(ago))
        }
    }
}

fn render(view: &View, format: ResultFormat, now_unix_us: u64) -> String {
    if format == ResultFormat::Json {
        let mut text =
            serde_json::to_string_pretty(view).expect("plain fields into memory cannot fail");
        text.push('\n');
        return text;
    }
    let leader = view
        .leader_id
        .map_or_else(|| "none".to_owned(), |leader| format!("node {leader}"));
    let header = format!(
        "cluster {}  leader {leader}  term {}\n",
        view.cluster_id, view.term
    );
    let mut table = plain_table(&[
        "NODE", "ADDRESS", "ROLE", "TERM", "FIRST", "LAST", "DURABLE", "COMMIT", "APPLIED",
        "ENGINE", "FLUSH", "SCRUBBED", "NOTE",
    ]);
    let number =
        |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    for node in &view.nodes {
        let role = if node.reachable {
            text(&node.role)
        } else {
            "unreachable".to_owned()
        };
        let note = node.fault.as_ref().or(node.error.as_ref());
        table.add_row([
            number(node.node_id),
            node.address.clone(),
            role,
            number(node.term),
            number(node.first_index),
            number(node.last_index),
            number(node.durable_index),
            number(node.commit_index),
            number(node.applied_index),
            text(&node.io_engine),
            flushes(node),
            scrubbed(node, now_unix_us),
            note.cloned().unwrap_or_default(),
        ]);
    }
    header + &render_table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_700_000_000_000_000;

    fn view() -> View {
        let leader = NodeView {
            node_id: Some(1),
            address: "127.0.0.1:4436".to_owned(),
            reachable: true,
            role: Some("leader".to_owned()),
            term: Some(4),
            first_index: Some(1),
            last_index: Some(128_440),
            durable_index: Some(128_440),
            commit_index: Some(128_440),
            applied_index: Some(128_439),
            io_engine: Some("io_uring".to_owned()),
            flush_us_p50: Some(128),
            flush_us_p99: Some(1_024),
            flush_waits_us: Some(90),
            scrub_bytes_per_second: Some(1 << 24),
            scrub_last_pass_unix_us: Some(NOW_US - 7_200_000_000),
            ..NodeView::default()
        };
        let dead = NodeView {
            node_id: Some(2),
            address: "127.0.0.1:4446".to_owned(),
            error: Some("refused".to_owned()),
            ..NodeView::default()
        };
        View {
            cluster_id: "prod".to_owned(),
            leader_id: Some(1),
            term: 4,
            nodes: vec![leader, dead],
        }
    }

    #[test]
    fn the_table() {
        let expected = "\
cluster prod  leader node 1  term 4
NODE  ADDRESS         ROLE         TERM  FIRST  LAST    DURABLE  COMMIT  APPLIED  ENGINE    FLUSH     SCRUBBED  NOTE
1     127.0.0.1:4436  leader       4     1      128440  128440   128440  128439   io_uring  128/1024  2h ago
2     127.0.0.1:4446  unreachable  -     -      -       -        -       -        -         -         -         refused
";
        assert_eq!(render(&view(), ResultFormat::Table, NOW_US), expected);
        let nobody = View {
            leader_id: None,
            nodes: Vec::new(),
            ..view()
        };
        assert!(
            render(&nobody, ResultFormat::Table, NOW_US)
                .starts_with("cluster prod  leader none  term 4\n")
        );
    }

    #[test]
    fn a_node_that_was_never_scrubbed_says_how_far_it_is() {
        let mut view = view();
        view.nodes[0].scrub_last_pass_unix_us = Some(0);
        view.nodes[0].scrub_bytes = Some(300 << 20);
        assert!(render(&view, ResultFormat::Table, NOW_US).contains("first, 300.0 MiB"));
        view.nodes[0].scrub_bytes_per_second = Some(0);
        assert!(render(&view, ResultFormat::Table, NOW_US).contains(" off"));
    }

    #[test]
    fn a_flush_that_hangs_is_named() {
        let mut view = view();
        view.nodes[0].flush_waits_us = Some(7_400_000);
        assert!(render(&view, ResultFormat::Table, NOW_US).contains("hangs for 7 s"));
    }

    #[test]
    fn the_json_keys_are_kept() {
        let value: serde_json::Value =
            serde_json::from_str(&render(&view(), ResultFormat::Json, NOW_US)).unwrap();
        assert_eq!(value["cluster_id"], "prod");
        assert_eq!(
            (&value["leader_id"], &value["term"]),
            (&1.into(), &4.into())
        );
        let keys = [
            "node_id",
            "address",
            "reachable",
            "role",
            "term",
            "first_index",
            "last_index",
            "durable_index",
            "commit_index",
            "applied_index",
            "io_engine",
        ];
        for node in value["nodes"].as_array().unwrap() {
            for key in keys {
                assert!(node.get(key).is_some(), "{key} is missing in {node}");
            }
        }
        assert_eq!(value["nodes"][0]["applied_index"], 128_439);
        assert_eq!(value["nodes"][1]["reachable"], false);
        assert!(value["nodes"][1]["role"].is_null());
    }
}
