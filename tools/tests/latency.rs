//! `drave status --latency` of real nodes: the stage that a slow disk delays shows it, and no other one does.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{TestCluster, drave, run};
use serde_json::Value;

const SETTINGS: &str = "[fault]\ndisk = true\n";

/// How much longer a slow flush takes: too little for the lead to be handed over.
const SLOW_US: u64 = 20_000;

/// Half of what is not delayed takes less on any machine.
const FAST_US: u64 = SLOW_US / 2;

struct Watched {
    test: TestCluster,
    log: drave_client::Log,
}

impl Watched {
    /// Three nodes of which one flushes slowly: the leader or a follower.
    fn start(slow: fn(u64) -> u64) -> (Self, u64, u64) {
        let mut test = TestCluster::start_with(3, SETTINGS);
        test.caught_up();
        let leader = test.leader();
        let slow = slow(leader);
        // Before anything is measured: the figures are of many seconds.
        let path = test.cluster.data_dir(slow).join("fault");
        fs::write(path, format!("delay_us {SLOW_US}")).unwrap();
        let created = test.client.create_log("a", true);
        test.runtime.block_on(created).unwrap();
        let log = test.runtime.block_on(test.client.log("a")).unwrap();
        let mut watched = Self { test, log };
        watched.append_for(Duration::from_secs(2));
        assert_eq!(watched.test.leader(), leader);
        (watched, leader, slow)
    }

    fn append_for(&mut self, duration: Duration) {
        let began = Instant::now();
        while began.elapsed() < duration {
            self.test.runtime.block_on(self.log.append("x")).unwrap();
        }
    }

    fn show(&self, format: &str) -> String {
        let endpoints = self.test.cluster.endpoints().join(",");
        let arguments = [
            "status",
            "--latency",
            "--format",
            format,
            "--endpoints",
            &endpoints,
        ];
        let ended = run(&mut drave(&arguments), b"").assert_code(0);
        ended.text().to_owned()
    }

    /// What a node says of itself.
    fn node(&self, node_id: u64) -> Value {
        let shown: Value = serde_json::from_str(&self.show("json")).unwrap();
        let nodes = shown["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        let found = nodes.iter().find(|node| node["node_id"] == node_id);
        found.unwrap().clone()
    }
}

/// What half the entries took, microseconds.
#[track_caller]
fn half(node: &Value, stage: &str, peer: Option<u64>) -> u64 {
    let stages = node["stages"].as_array().unwrap();
    let found = stages
        .iter()
        .find(|found| found["stage"] == stage && found["peer"].as_u64() == peer);
    let found = found.unwrap_or_else(|| panic!("no {stage} of {peer:?}: {node}"));
    assert!(found["entries"].as_u64().unwrap() > 0);
    found["us_p50"].as_u64().unwrap()
}

/// The share of entries whose quorum this node's flush closed.
fn closed(node: &Value, closer: u64) -> f64 {
    let closed = node["quorums_closed"].as_array().unwrap();
    let count = |of: &Value| of["entries"].as_f64().unwrap();
    let all: f64 = closed.iter().map(count).sum();
    let own = closed.iter().filter(|of| of["node_id"] == closer);
    own.map(count).sum::<f64>() / all
}

#[test]
fn a_follower_with_a_slow_disk_shows_in_its_flush() {
    let (watched, leader, slow) = Watched::start(|leader| leader % 3 + 1);
    let node = watched.node(leader);
    let other = 6 - leader - slow;
    assert!(half(&node, "peer flush", Some(slow)) >= SLOW_US, "{node}");
    assert!(half(&node, "peer ack", Some(slow)) >= SLOW_US, "{node}");
    for (stage, peer) in [
        ("queue", None),
        ("encode", None),
        ("write", None),
        ("flush", None),
        ("peer wire", Some(slow)),
        ("peer wire", Some(other)),
        ("peer flush", Some(other)),
        ("commit", None),
        ("answer", None),
    ] {
        assert!(half(&node, stage, peer) < FAST_US, "{stage}: {node}");
    }
    assert!(closed(&node, slow) < 0.5, "{node}");
    // It knows itself, too, and closes nothing.
    let node = watched.node(slow);
    assert!(half(&node, "flush", None) >= SLOW_US, "{node}");
    assert_eq!(node["quorums_closed"].as_array().unwrap().len(), 0);
}

#[test]
fn a_leader_with_a_slow_disk_shows_in_its_flush_and_costs_nobody() {
    let (watched, leader, _) = Watched::start(|leader| leader);
    let node = watched.node(leader);
    assert!(half(&node, "flush", None) >= SLOW_US, "{node}");
    for peer in (1..=3).filter(|peer| *peer != leader) {
        assert!(half(&node, "peer ack", Some(peer)) < FAST_US, "{node}");
    }
    assert!(half(&node, "commit", None) < FAST_US, "{node}");
    assert!(closed(&node, leader) < 0.5, "{node}");
    let table = watched.show("table");
    assert!(table.contains("P99.9 us"), "{table}");
    assert!(table.contains("closed by"), "{table}");
}

#[test]
fn a_dead_node_is_named() {
    let mut test = TestCluster::start(3);
    test.caught_up();
    test.cluster.kill(2).unwrap();
    let asked = test.run(&["status", "--latency", "--format", "json"], b"");
    let shown: Value = serde_json::from_str(asked.assert_code(0).text()).unwrap();
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 2, "{shown}");
    let silent = shown["silent"].as_array().unwrap();
    assert_eq!(silent.len(), 1, "{shown}");
    assert_eq!(silent[0]["address"], test.cluster.address(2), "{shown}");
    assert!(silent[0]["error"].is_string(), "{shown}");
}
