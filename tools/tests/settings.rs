//! Real nodes whose settings differ: where that would break a promise they refuse each other by name, elsewhere they
//! say so once.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::TestCluster;
use common::nodes::{log_of, wait_for_log, wait_for_node};

/// Gives every node that starts from now on other settings.
fn configure(test: &TestCluster, settings: &str) {
    let base = "[wal]\nsegment_bytes = \"8MiB\"\n";
    fs::write(
        test.dir.path().join("drave.toml"),
        format!("{base}{settings}"),
    )
    .unwrap();
}

fn restart(test: &mut TestCluster, node_id: u64) -> usize {
    test.cluster.kill(node_id).unwrap();
    let mark = log_of(test, node_id).len();
    test.cluster.start(node_id).unwrap();
    mark
}

fn append(test: &TestCluster, lines: &[u8]) {
    let append = ["append", "a", "--create", "--summary"];
    test.run(&append, lines).assert_code(0);
}

/// What a node says of another in its status, once it says something.
fn note_of(test: &mut TestCluster, node_id: u64) -> String {
    let status = wait_for_node(test, node_id, "a note", |node| {
        node.fault
            .as_deref()
            .unwrap_or_default()
            .contains("refuses")
    });
    status.fault.unwrap()
}

#[test]
fn nodes_that_would_forget_different_producers_refuse_each_other_until_they_are_alike() {
    let mut test = TestCluster::start(3);
    append(&test, b"before\n");
    configure(&test, "[limits]\nproducers_max = 1234\n");
    restart(&mut test, 3);
    for (node_id, here, there, other) in [(3, 65_536, 1_234, 3), (1, 1_234, 65_536, 1)] {
        let note = note_of(&mut test, node_id);
        let says = format!("producers_max is {here} here and {there} on node {other}");
        assert!(note.contains(&says), "node {node_id}: {note}");
    }
    // The others go on; the one that differs serves nothing meanwhile.
    append(&test, b"meanwhile\n");
    let read = ["read", "a", "--node", "3", "--timeout", "1s"];
    let read = test.run(&read, b"");
    assert_eq!(
        (read.code, read.stdout.len()),
        (Some(5), 0),
        "{}",
        read.stderr
    );
    // Changed on one node after the other, a majority of the new kind goes on, and at last all.
    for node_id in [2, 1] {
        restart(&mut test, node_id);
        test.leader();
        append(&test, format!("after node {node_id}\n").as_bytes());
    }
    test.caught_up();
    for held in test.read_each_node("a") {
        assert_eq!(held, b"before\nmeanwhile\nafter node 2\nafter node 1\n");
    }
    for node_id in 1..=3 {
        wait_for_node(&mut test, node_id, "no note", |node| node.fault.is_none());
    }
}

#[test]
fn another_election_timeout_is_told_and_under_leases_refused() {
    let mut test = TestCluster::start(3);
    configure(&test, "[raft]\nelection_timeout_min = \"310ms\"\n");
    let mark = restart(&mut test, 3);
    let says = "election_timeout_min is 310ms here and 300ms on node ";
    let log = wait_for_log(&test, 3, mark, says);
    append(&test, b"together\n");
    test.caught_up();
    assert!(!log.contains("refuse"), "{log}");
    configure(&test, "[raft]\nlease_drift_ppm = 200\n");
    restart(&mut test, 3);
    let note = note_of(&mut test, 3);
    let says = "raft.lease_drift_ppm is not set here and set on node 3";
    assert!(note.contains(says), "{note}");
    append(&test, b"without it\n");
}
