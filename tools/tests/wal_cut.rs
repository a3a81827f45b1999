//! Logs of real nodes that were cut on demand: alone a node goes on, among other voters it never takes part again.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use common::disk::{copy, segments};
use common::{Ended, LIMIT, TestCluster, path_text};

/// Lines of the log, one batch each.
const LINES: usize = 300;

/// Several snapshots of it, of what is cut off, too.
const SETTINGS: &str = "[snapshots]\nentries = 64\n";

fn marker(line: usize) -> String {
    format!("line {line:06} ")
}

fn lines(from: usize, to: usize) -> Vec<u8> {
    let line = |line| format!("{}{}\n", marker(line), "x".repeat(500));
    (from..to).map(line).collect::<String>().into_bytes()
}

fn filled(node_count: u64) -> TestCluster {
    let mut test = TestCluster::start_with(node_count, SETTINGS);
    append(&test, &lines(0, LINES));
    test.caught_up();
    test
}

fn append(test: &TestCluster, lines: &[u8]) {
    let arguments = ["append", "a", "--create", "--summary", "--batch", "1"];
    test.run(&arguments, lines).assert_code(0);
}

/// Flips a bit of a line's bytes on a node's disk.
fn damage(data_dir: &Path, line: usize) {
    let marker = marker(line).into_bytes();
    for path in segments(data_dir) {
        let bytes = fs::read(&path).unwrap();
        let mut windows = bytes.windows(marker.len());
        if let Some(offset) = windows.position(|window| window == marker) {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let byte = bytes[offset + 100] ^ 4;
            file.write_all_at(&[byte], offset as u64 + 100).unwrap();
            return;
        }
    }
    panic!("line {line} is not in {}", data_dir.display());
}

fn content(data_dir: &Path) -> Vec<Vec<u8>> {
    let meta = fs::read(data_dir.join("group-0/meta")).unwrap();
    let segments = segments(data_dir).into_iter();
    let read = segments.map(|path| fs::read(path).unwrap());
    std::iter::once(meta).chain(read).collect()
}

fn cut(test: &TestCluster, data_dir: &Path, export: &str, more: &[&str]) -> Ended {
    let dir = path_text(data_dir);
    let export = path_text(&test.dir.path().join(export));
    let all = [
        "wal",
        "repair",
        dir.as_str(),
        "--cut-at-damage",
        "--export",
        export.as_str(),
    ];
    test.run(&[&all[..], more].concat(), b"")
}

/// A node does not start in this directory, since its log was cut.
fn assert_refuses(test: &TestCluster, data_dir: &Path) {
    let dir = path_text(data_dir);
    test.run(&["start", "--data-dir", &dir], b"")
        .assert_code(6)
        .assert_says("DRV-0405")
        .assert_says("drave member replace");
}

#[test]
fn alone_a_node_goes_on_with_a_log_that_was_cut() {
    let mut test = filled(1);
    let data_dir = test.cluster.data_dir(1);
    let snapshots = || fs::read_dir(data_dir.join("snapshots-0")).unwrap().count();
    test.cluster.stop(1).unwrap();
    assert!(snapshots() > 0);
    damage(&data_dir, 40);
    let dir = path_text(&data_dir);
    test.run(&["start", "--data-dir", &dir], b"").assert_code(6);
    cut(&test, &data_dir, "lost-1", &[]).assert_code(0);

    test.cluster.start(1).unwrap();
    test.leader();
    assert_eq!(snapshots(), 0, "all of them were of what was cut off");
    let held = test.read_each_node("a").remove(0);
    let kept = held.len() / (lines(0, 1).len());
    assert!((1..=40).contains(&kept), "{kept}");
    assert!(held == lines(0, kept));
    append(&test, &lines(1_000, 1_010));
    let expected = [lines(0, kept), lines(1_000, 1_010)].concat();

    // It decided, as the only voter: what comes later is as in any cluster.
    let joined = test.cluster.add_joining().unwrap();
    test.cluster.start(joined).unwrap();
    let address = test.cluster.address(joined).to_owned();
    let deadline = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(Instant::now() < deadline, "node {joined} does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let joined = joined.to_string();
    test.run(&["member", "add", &joined, &address], b"")
        .assert_code(0);
    test.run(&["member", "promote", &joined], b"")
        .assert_code(0);
    test.cluster.kill(1).unwrap();
    test.cluster.start(1).unwrap();
    test.leader();
    test.caught_up();
    for held in test.read_each_node("a") {
        assert!(held == expected);
    }

    // Now another node votes, though the directory was not made for it: the log's own entries say so.
    test.cluster.kill(1).unwrap();
    damage(&data_dir, 1_001);
    cut(&test, &data_dir, "lost-2", &[])
        .assert_code(4)
        .assert_says("DRV-0405")
        .assert_says("the nodes [2] vote, too");
}

#[test]
fn among_other_voters_a_log_is_not_cut_and_a_node_does_not_start_on_one_that_was() {
    let mut test = filled(3);
    test.cluster.kill(3).unwrap();
    let data_dir = test.cluster.data_dir(3);
    damage(&data_dir, 40);
    let before = content(&data_dir);
    for given in [data_dir.clone(), data_dir.join("group-0")] {
        cut(&test, &given, "lost", &[])
            .assert_code(4)
            .assert_says("DRV-0405")
            .assert_says("the nodes [1, 2] vote, too")
            .assert_says("--force-with-other-voters");
    }
    assert!(content(&data_dir) == before, "nothing was changed");
    assert!(!test.dir.path().join("lost").exists());
    // Without its directory nobody knows whose log it is.
    let alone = test.dir.path().join("alone");
    copy(&data_dir.join("group-0"), &alone);
    cut(&test, &alone, "lost", &[])
        .assert_code(4)
        .assert_says("it cannot be found out who else votes");

    let damaged = test.dir.path().join("damaged");
    copy(&data_dir, &damaged);
    let force = ["--force-with-other-voters"];
    cut(&test, &data_dir, "lost", &force).assert_code(0);
    assert_refuses(&test, &data_dir);
    assert_refuses(&test, &data_dir);
    let copied = test.dir.path().join("copied");
    copy(&data_dir, &copied);
    assert_refuses(&test, &copied);
    // A cut that came no further than its record: the node does not repair either what may be half cut.
    fs::copy(data_dir.join("group-0/meta"), damaged.join("group-0/meta")).unwrap();
    assert_refuses(&test, &damaged);

    // The others went on, and it can be replaced.
    append(&test, &lines(LINES, LINES + 10));
    let held = ["read", "a", "--format", "raw"];
    let held = test.run(&held, b"").assert_code(0).stdout;
    assert!(held == lines(0, LINES + 10));
}
