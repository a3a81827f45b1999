//! Damaged logs of real nodes: bits flipped on disk are found, given back by the other members and written back;
//! what nobody holds is named, and nothing is served as if it were fine.
#![allow(clippy::unwrap_used)]

mod common;

use common::damage::{
    LINES, assert_all_hold, assert_named_and_repaired, filled, flip, lines, lost_ranges,
};
use common::nodes::{log_of, wait_for_log, wait_for_node};
use common::raw::RawClient;
use common::{TestCluster, path_text};
use drave_batch::wire::{ErrorCode, ErrorReply, LOCAL_READ, LogLookup};

/// All of the log is read at a start.
const SETTINGS: &str = "[snapshots]\nlog_bytes = \"1GiB\"\n";

/// Who asks this node for anything is told that it repairs its log.
#[track_caller]
fn assert_refused(test: &TestCluster, node_id: u64) {
    let node = node_id.to_string();
    let read = ["read", "a", "--node", &node, "--timeout", "1s"];
    let refused = test.run(&read, b"").assert_code(5);
    assert!(refused.stdout.is_empty());
    let mut client = RawClient::connect(test.cluster.address(node_id));
    let lookup = LogLookup {
        consistency: LOCAL_READ,
        name: "a".to_owned(),
    };
    client.send(1, &lookup);
    let reply: ErrorReply = client.receive();
    assert_eq!(reply.code, ErrorCode::Repairing as u32, "{reply:?}");
    assert!(reply.message.contains("missing entr"), "{reply:?}");
}

#[test]
fn one_replica_damaged_in_a_sealed_and_in_the_active_segment() {
    let (mut test, mut lines) = filled(3, SETTINGS);
    test.cluster.kill(3).unwrap();
    let sealed = flip(&test, 3, 40);
    let active = flip(&test, 3, LINES - 40);
    assert!(!sealed.is_last_segment && active.is_last_segment);
    let mark = log_of(&test, 3).len();
    test.cluster.start(3).unwrap();
    let log = wait_for_log(&test, 3, mark, "the log is repaired");
    assert_named_and_repaired(&log, &[&sealed, &active]);
    assert_all_hold(&mut test, &lines);
    // It takes part again, its word counts, and its log is as any other's at the next start.
    test.cluster.kill(1).unwrap();
    let more = b"with the repaired one\n";
    test.run(&["append", "a", "--summary"], more).assert_code(0);
    lines.extend_from_slice(more);
    test.cluster.start(1).unwrap();
    test.cluster.kill(3).unwrap();
    let mark = log_of(&test, 3).len();
    test.cluster.start(3).unwrap();
    assert_all_hold(&mut test, &lines);
    assert!(!log_of(&test, 3)[mark..].contains("damage"));
}

#[test]
fn two_replicas_damaged_at_different_places_repair_each_other() {
    let (mut test, lines) = filled(3, SETTINGS);
    test.cluster.kill_all().unwrap();
    let first = flip(&test, 1, 40);
    let second = flip(&test, 2, 700);
    let third = flip(&test, 2, LINES - 40);
    // The third replica stays away: what one lacks only the other holds.
    let marks = [1, 2].map(|node_id| log_of(&test, node_id).len());
    test.cluster.start(1).unwrap();
    test.cluster.start(2).unwrap();
    let log = wait_for_log(&test, 1, marks[0], "the log is repaired");
    assert_named_and_repaired(&log, &[&first]);
    assert!(log.contains("fetched from node 2"), "{log}");
    let log = wait_for_log(&test, 2, marks[1], "the log is repaired");
    assert_named_and_repaired(&log, &[&second, &third]);
    assert!(log.contains("fetched from node 1"), "{log}");
    test.leader();
    test.cluster.start(3).unwrap();
    assert_all_hold(&mut test, &lines);
}

#[test]
fn what_a_majority_has_lost_is_named_and_nothing_is_served_until_it_is_back() {
    let (mut test, lines) = filled(3, SETTINGS);
    test.cluster.kill_all().unwrap();
    let places = [1, 2].map(|node_id| flip(&test, node_id, 300));
    assert_eq!(places[0].index, places[1].index);
    let marks = [1, 2].map(|node_id| log_of(&test, node_id).len());
    test.cluster.start(1).unwrap();
    test.cluster.start(2).unwrap();
    for (node_id, other) in [(1, 2), (2, 1)] {
        let says = format!("node {other} does not hold entr");
        let status = wait_for_node(&mut test, node_id, "what is lost", |node| {
            let fault = node.fault.as_deref().unwrap_or_default();
            fault.contains(&says) && fault.contains("node 3 is not reached")
        });
        assert_eq!(status.role.as_deref(), Some("repairing"));
        let log = log_of(&test, node_id)[marks[node_id as usize - 1]..].to_owned();
        let [(lo, hi)] = lost_ranges(&log)[..] else {
            panic!("{log}");
        };
        assert_eq!((lo, hi), (places[0].index, places[0].index + 1));
        assert_eq!(status.durable_index, Some(lo - 1));
        let missing = format!("missing entry {lo}: ");
        let fault = status.fault.unwrap();
        assert!(fault.starts_with(&missing), "{fault}");
        // Neither what is damaged nor what is whole is served by a node that takes no part.
        assert_refused(&test, node_id);
    }
    let append = ["append", "a", "--summary", "--timeout", "1s"];
    let refused = test.run(&append, b"to nobody\n");
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    for node_id in [1, 2] {
        let log = log_of(&test, node_id)[marks[node_id as usize - 1]..].to_owned();
        assert!(!log.contains("role="), "no vote, no lead: {log}");
    }
    test.cluster.start(3).unwrap();
    for (node_id, place) in (1..).zip(&places) {
        let log = wait_for_log(
            &test,
            node_id,
            marks[node_id as usize - 1],
            "the log is repaired",
        );
        assert_named_and_repaired(&log, &[place]);
    }
    test.leader();
    assert_all_hold(&mut test, &lines);
}

#[test]
fn a_majority_that_lost_what_the_third_never_had_says_exactly_what_is_lost() {
    let mut test = TestCluster::start_with(3, SETTINGS);
    test.run(&["log", "create", "a"], b"").assert_code(0);
    test.caught_up();
    // What is acknowledged from here on only nodes 1 and 2 hold.
    test.cluster.kill(3).unwrap();
    let append = ["append", "a", "--summary", "--batch", "1"];
    test.run(&append, &lines()).assert_code(0);
    test.cluster.kill_all().unwrap();
    let places = [1, 2].map(|node_id| flip(&test, node_id, 300));
    let index = places[0].index;
    assert_eq!(index, places[1].index);
    let marks = [1, 2, 3].map(|node_id| log_of(&test, node_id).len());
    for node_id in 1..=3 {
        test.cluster.start(node_id).unwrap();
    }
    for (node_id, other) in [(1, 2), (2, 1)] {
        let status = wait_for_node(&mut test, node_id, "that it is lost", |node| {
            let fault = node.fault.as_deref().unwrap_or_default();
            fault.contains("no other member holds")
        });
        assert_eq!(status.role.as_deref(), Some("repairing"));
        let fault = status.fault.unwrap();
        assert!(
            fault.contains(&format!("node {other} does not hold")),
            "{fault}"
        );
        assert!(fault.contains("node 3 holds nothing from entry"), "{fault}");
        let log = wait_for_log(
            &test,
            node_id,
            marks[node_id as usize - 1],
            "no other member holds",
        );
        let [(lo, hi)] = lost_ranges(&log)[..] else {
            panic!("{log}");
        };
        assert_eq!((lo, hi), (index, index + 1));
        assert!(
            fault.starts_with(&format!("missing entry {index}: ")),
            "{fault}"
        );
        assert!(!log.contains("role="), "no vote, no lead: {log}");
        assert_refused(&test, node_id);
    }
    // The operator reads the same.
    let shown = test.run(&["status"], b"");
    assert!(shown.text().contains("no other member holds"), "{shown:?}");
    // The third is whole, and cannot lead: what it lacks was acknowledged by a majority without it.
    let log = &log_of(&test, 3)[marks[2]..];
    assert!(!log.contains("role=\"leader\""), "{log}");
    let refused = ["append", "a", "--summary", "--timeout", "1s"];
    assert_eq!(test.run(&refused, b"to nobody\n").code, Some(5));
    let read = ["read", "a", "--timeout", "1s"];
    let read = test.run(&read, b"");
    assert_eq!(
        (read.code, read.stdout.len()),
        (Some(5), 0),
        "{}",
        read.stderr
    );
}

#[test]
fn what_every_member_has_lost_is_said_to_be_lost() {
    let (mut test, _) = filled(3, SETTINGS);
    test.cluster.kill_all().unwrap();
    let places = [1, 2, 3].map(|node_id| flip(&test, node_id, 300));
    for node_id in 1..=3 {
        test.cluster.start(node_id).unwrap();
    }
    for node_id in 1..=3 {
        let status = wait_for_node(&mut test, node_id, "what is lost", |node| {
            let fault = node.fault.as_deref().unwrap_or_default();
            fault.contains("no other member holds")
        });
        assert_eq!(status.role.as_deref(), Some("repairing"));
        let log = wait_for_log(&test, node_id, 0, "no other member holds");
        let ranges = lost_ranges(&log);
        let index = places[0].index;
        assert!(ranges.iter().any(|(lo, hi)| (*lo..*hi).contains(&index)));
    }
}

#[test]
fn a_leader_that_finds_damage_hands_over_and_repairs_itself_without_a_restart() {
    let (mut test, lines) = filled(3, SETTINGS);
    // What was appended is in memory; after a start it is read from the disk.
    test.cluster.kill_all().unwrap();
    for node_id in 1..=3 {
        test.cluster.start(node_id).unwrap();
    }
    test.caught_up();
    let leader = test.leader();
    let pid = test.cluster.pid(leader);
    let place = flip(&test, leader, 40);
    assert!(!place.is_last_segment);
    let mark = log_of(&test, leader).len();
    let node = leader.to_string();
    // Whoever reads there is told; what it gets is sound or nothing.
    let read = test.run(&["read", "a", "--format", "raw", "--node", &node], b"");
    assert!(lines.starts_with(&read.stdout), "what is read is sound");
    let log = wait_for_log(&test, leader, mark, "the log is repaired");
    assert_named_and_repaired(&log, &[&place]);
    assert_ne!(test.leader(), 0);
    assert_all_hold(&mut test, &lines);
    assert_eq!(test.cluster.pid(leader), pid, "the same process");
}

#[test]
fn alone_a_node_does_not_start_on_a_damaged_log() {
    let (mut test, _) = filled(1, SETTINGS);
    test.cluster.kill(1).unwrap();
    let place = flip(&test, 1, 40);
    let dir = path_text(&test.cluster.data_dir(1));
    let refused = test.run(&["start", "--data-dir", &dir], b"");
    refused
        .assert_code(6)
        .assert_says(place.file())
        .assert_says("drave wal repair");
}
