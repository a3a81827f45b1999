//! Retention, by the command line: what is kept, and what the disks hold then.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::TestCluster;

/// Snapshots after few entries, so that segments can go.
const SETTINGS: &str = "[snapshots]\nentries = 32\n";

/// How long what is given up may take to go.
const LIMIT: Duration = Duration::from_secs(30);

fn described(test: &TestCluster, log: &str) -> serde_json::Value {
    let printed = test.run(&["log", "describe", log, "-o", "json"], b"");
    serde_json::from_str(printed.assert_code(0).text()).unwrap()
}

/// Bytes of all files below a directory, as the disk holds them.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        // Segments come and go.
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| match metadata.is_dir() {
            true => disk_bytes(&path),
            false => metadata.blocks() * 512,
        })
        .sum()
}

/// Appends, one record at a time beyond what was given up, until `done`.
fn until(test: &TestCluster, log: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "{}", described(test, log));
        test.run(&["append", log, "--batch", "1"], &b"x\n".repeat(40))
            .assert_code(0);
    }
}

#[test]
fn a_log_keeps_its_newest_bytes_and_the_disks_do_not_fill() {
    let test = TestCluster::start_with(3, SETTINGS);
    let piece: Vec<u8> = [&[b'x'; 65_535], &b"\n"[..]].concat().repeat(128);
    test.run(&["append", "a", "--create", "--summary"], &piece)
        .assert_code(0);
    let set = ["log", "set-retention", "a", "--bytes", "8MiB", "-o", "json"];
    let printed = test.run(&set, b"").assert_code(0);
    assert!(printed.text().contains("\"retention_bytes\": 8388608"));
    // 8 MiB each: sixteen times what is kept.
    for _ in 0..16 {
        test.run(&["append", "a", "--summary"], &piece)
            .assert_code(0);
    }
    let held = || described(&test, "a")["held_bytes"].as_u64().unwrap();
    until(&test, "a", || held() <= 16 << 20);
    assert!(held() >= 8 << 20, "as much is kept");
    // Of 136 MiB a node holds four segments of 8 MiB (up to 12 MiB are kept, and where they begin and end a
    // segment is held for a part of it), three that are prepared, and snapshots.
    let node_bytes = |node| disk_bytes(&test.cluster.data_dir(node));
    until(&test, "a", || {
        (1..=3).all(|node| node_bytes(node) <= 64 << 20)
    });
    let first_seq = described(&test, "a")["first_seq"].as_u64().unwrap();
    for node in ["1", "2", "3"] {
        let read = test.run(&["read", "a", "--from", "0", "--node", node], b"");
        read.assert_code(3).assert_says("DRV-0203");
        let from = first_seq.to_string();
        test.run(&["read", "a", "--from", &from, "--node", node], b"")
            .assert_code(0);
    }
}

#[test]
fn a_log_forgets_with_time() {
    let test = TestCluster::start(1);
    test.run(&["append", "a", "--create"], &b"x\n".repeat(100))
        .assert_code(0);
    let set = ["log", "set-retention", "a", "--age", "1s"];
    test.run(&set, b"").assert_code(0);
    let begun = Instant::now();
    while described(&test, "a")["first_seq"] != 100 {
        assert!(begun.elapsed() < LIMIT, "{}", described(&test, "a"));
    }
    let kept = ["log", "set-retention", "a", "--unlimited"];
    test.run(&kept, b"").assert_code(0);
    assert!(described(&test, "a")["retention_age_us"].is_null());
    test.run(&["log", "set-retention", "a"], b"").assert_code(2);
    let nothing = ["log", "set-retention", "a", "--bytes", "0"];
    test.run(&nothing, b"").assert_code(2);
    let none = ["log", "set-retention", "none", "--age", "1h"];
    test.run(&none, b"").assert_code(3);
}
