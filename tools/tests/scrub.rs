//! Damage on the disks of running nodes that nobody reads: it is found in the background and repaired from the others.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;

use common::damage::{assert_all_hold, assert_named_and_repaired, filled, flip};
use common::nodes::{log_of, wait_for_log, wait_for_node};
use common::{TestCluster, path_text};
use drave_client::NodeStatus;

/// One pass after the other, and all of the log kept and read at a start.
const SETTINGS: &str = "\
[snapshots]
log_bytes = \"1GiB\"

[scrub]
bytes_per_second = \"1GiB\"
interval = \"100ms\"
";

#[track_caller]
fn wait_for_passes(test: &mut TestCluster, node_id: u64, passes: u64) {
    wait_for_node(test, node_id, "a whole pass", |node| {
        node.scrub_passes >= Some(passes)
    });
}

/// A node's disk, looked at while the node does not run.
#[track_caller]
fn assert_whole(test: &TestCluster, node_id: u64) {
    let directory = test.cluster.data_dir(node_id).join("group-0");
    let verified = test.run(&["wal", "verify", &path_text(&directory)], b"");
    verified.assert_code(0);
}

#[test]
fn damage_that_nobody_reads_is_found_and_repaired_on_follower_and_leader() {
    let (mut test, mut lines) = filled(3, SETTINGS);
    let leader = test.leader();
    let follower = (1..=3).find(|node_id| *node_id != leader).unwrap();
    for (node_id, line) in [(follower, 200), (leader, 300), (follower, 400)] {
        let mark = log_of(&test, node_id).len();
        let place = flip(&test, node_id, line);
        assert!(!place.is_last_segment);
        let log = wait_for_log(&test, node_id, mark, "the log is repaired");
        assert_named_and_repaired(&log, &[&place]);
        let found = wait_for_node(&mut test, node_id, "that it was found", |node| {
            node.scrub_found > Some(0) && node.fault.is_none()
        });
        // Two on the follower, in the end: what was found is remembered over its repair.
        assert_eq!(found.scrub_found, Some(1 + u64::from(line == 400)));
        let more = format!("acknowledged after line {line} was damaged\n");
        test.run(&["append", "a", "--summary"], more.as_bytes())
            .assert_code(0);
        lines.extend_from_slice(more.as_bytes());
    }
    assert_all_hold(&mut test, &lines);
    for node_id in 1..=3 {
        test.cluster.kill(node_id).unwrap();
        assert_whole(&test, node_id);
    }
}

#[test]
fn a_node_alone_names_damage_and_goes_on_with_what_it_has() {
    let (mut test, _) = filled(1, SETTINGS);
    let place = flip(&test, 1, 200);
    let status = wait_for_node(&mut test, 1, "what is damaged", |node| node.fault.is_some());
    let fault = status.fault.unwrap();
    assert!(fault.contains(place.file()), "{fault}");
    assert!(fault.contains("was durable and is not valid"), "{fault}");
    let (_, rest) = fault.split_once("(entries from ").unwrap();
    let (first, _) = rest.split_once(" on)").unwrap();
    let first: u64 = first.parse().unwrap();
    // Its group has 512 KiB at most.
    assert!((place.index - 32..=place.index).contains(&first), "{fault}");
    test.run(&["append", "a", "--summary"], b"taken all the same\n")
        .assert_code(0);
    // It does not stay at the place.
    let passes = wait_for_node(&mut test, 1, "damage", |node| node.scrub_found > Some(0));
    wait_for_passes(&mut test, 1, passes.scrub_passes.unwrap() + 2);
}

#[test]
fn a_pass_goes_on_after_a_restart_where_it_was() {
    // 8 MiB, a segment, take four seconds.
    let settings = "\
[snapshots]
log_bytes = \"1GiB\"

[scrub]
bytes_per_second = \"2MiB\"
interval = \"100ms\"
";
    let (mut test, _) = filled(1, settings);
    let before = wait_for_node(&mut test, 1, "the second segment", |node| {
        node.scrub_segment_seq >= Some(2)
    });
    // The place is stored with a piece read after it was reached.
    wait_for_node(&mut test, 1, "another piece", |node| {
        (node.scrub_passes, node.scrub_bytes) > (before.scrub_passes, before.scrub_bytes)
    });
    test.cluster.kill(1).unwrap();
    test.cluster.start(1).unwrap();
    let after = wait_for_node(&mut test, 1, "an answer", |node| {
        node.scrub_passes.is_some()
    });
    // Not at the first segment again, unless a pass has ended meanwhile.
    let place = |node: &NodeStatus| (node.scrub_passes, node.scrub_segment_seq, node.scrub_bytes);
    assert!(place(&after) >= place(&before), "{before:?} {after:?}");
}

#[test]
fn a_damaged_snapshot_is_replaced() {
    // One snapshot of the 400 entries: the next one stored is the answer to the damage.
    let settings = "\
[snapshots]
entries = 300

[scrub]
bytes_per_second = \"1GiB\"
interval = \"100ms\"
";
    let mut test = TestCluster::start_with(1, settings);
    let lines = common::numbered_lines(400);
    let append = ["append", "a", "--create", "--summary", "--batch", "1"];
    test.run(&append, &lines).assert_code(0);
    wait_for_log(&test, 1, 0, "snapshot stored");
    wait_for_passes(&mut test, 1, 1);
    let directory = test.cluster.data_dir(1).join("snapshots-0");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let damaged = files.pop().unwrap();
    let mark = log_of(&test, 1).len();
    let file = fs::OpenOptions::new().write(true).open(damaged).unwrap();
    file.write_all_at(&[0xA5; 7], 20).unwrap();
    let log = wait_for_log(&test, 1, mark, "snapshot stored");
    assert!(log.contains("a stored snapshot is damaged"), "{log}");
    assert!(log.contains("checksum: expected"), "{log}");
    // With the damaged one gone a restart has what it needs.
    let status = wait_for_node(&mut test, 1, "that it was found", |node| {
        node.scrub_found > Some(0)
    });
    wait_for_passes(&mut test, 1, status.scrub_passes.unwrap() + 2);
    let mark = log_of(&test, 1).len();
    test.cluster.kill(1).unwrap();
    test.cluster.start(1).unwrap();
    assert!(test.read_each_node("a")[0] == lines);
    assert!(!log_of(&test, 1)[mark..].contains("damage"));
}
