//! A real node that needs a snapshot and cannot store it: it says so, is not sent it again and again, and gets it when
//! it can.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::disk::segments;
use common::nodes::{log_of, wait_for_log, wait_for_node};
use common::{LIMIT, TestCluster};
/// Snapshots after few entries, so that little has to be written.
const SETTINGS: &str = "[snapshots]\nentries = 64\n";

fn append(test: &TestCluster, lines: &[u8]) {
    let arguments = ["append", "a", "--create", "--summary", "--batch", "2"];
    test.run(&arguments, lines).assert_code(0);
}

/// Waits until the segment that a log began with is gone. Until then a node that is killed has all of its log again.
fn wait_until_gone(first_segment: &Path) {
    let deadline = Instant::now() + LIMIT;
    while first_segment.exists() {
        assert!(
            Instant::now() < deadline,
            "{} stays",
            first_segment.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_snapshot_that_cannot_be_stored_is_told_and_sent_seldom_until_it_can() {
    let mut test = TestCluster::start_with(3, SETTINGS);
    // More than a segment of 8 MiB.
    let lines: Vec<Vec<u8>> = (0..1_500)
        .map(|number| format!("{number:016384}\n").into_bytes())
        .collect();
    let whole: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    append(&test, &whole[..100].concat());
    test.caught_up();
    let first_segments = [1, 2].map(|node_id| segments(&test.cluster.data_dir(node_id)).remove(0));
    test.cluster.kill(3).unwrap();
    append(&test, &whole[100..].concat());
    let trimmed = test.client.trim_log("a", 1_401);
    test.runtime.block_on(trimmed).unwrap();
    for segment in &first_segments {
        wait_until_gone(segment);
    }
    // With nobody who could send it a snapshot, it starts, and where it would store one goes.
    for node_id in [1, 2] {
        test.cluster.kill(node_id).unwrap();
    }
    let mark = log_of(&test, 3).len();
    test.cluster.start(3).unwrap();
    wait_for_log(&test, 3, mark, "listening");
    let dir = test.cluster.data_dir(3).join("snapshots-0");
    let aside = test.cluster.data_dir(3).join("aside");
    fs::rename(&dir, &aside).unwrap();
    for node_id in [1, 2] {
        test.cluster.start(node_id).unwrap();
    }
    let status = wait_for_node(&mut test, 3, "what it waits for", |node| {
        let fault = node.fault.as_deref().unwrap_or_default();
        fault.contains("the leader sends it again in 4 s")
    });
    let fault = status.fault.unwrap();
    assert!(fault.contains("was not stored: No such file"), "{fault}");
    // After 0, 1 and 3 seconds.
    let log = log_of(&test, 3)[mark..].to_owned();
    let sent = log.matches("snapshot received and not stored").count();
    assert_eq!(sent, 3, "{log}");
    let said = |node_id| log_of(&test, node_id).contains("cannot keep the snapshot that it needs");
    assert!(said(1) || said(2), "its leader says so, too");
    fs::rename(&aside, &dir).unwrap();
    wait_for_log(
        &test,
        3,
        mark,
        "the log was replaced by a snapshot of the leader",
    );
    test.caught_up();
    for held in test.read_each_node("a") {
        assert!(held == whole[1_401..].concat());
    }
    wait_for_node(&mut test, 3, "no fault", |node| node.fault.is_none());
}
