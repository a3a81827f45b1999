//! Logs that end, by the command line: closed, and deleted.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{TestCluster, numbered_lines};

/// Snapshots after few entries, so that what is not needed can be seen to go.
const SETTINGS: &str = "[snapshots]\nentries = 64\n";

#[test]
fn who_follows_a_log_gets_its_last_record_and_its_end() {
    let test = TestCluster::start(3);
    let lines = numbered_lines(100);
    test.run(&["append", "a", "--create"], &lines)
        .assert_code(0);
    let followers: Vec<_> = ["1", "2", "3"]
        .map(|node| {
            let mut command = test.drave(&["tail", "a", "-f", "--from", "0", "--node", node]);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut follower = command.spawn().unwrap();
            let mut output = BufReader::new(follower.stdout.take().unwrap());
            let mut first = String::new();
            output.read_line(&mut first).unwrap();
            (follower, output, first)
        })
        .into();
    test.run(&["log", "fence", "a"], b"").assert_code(0);
    test.run(&["append", "a", "--fence", "1"], b"last\n")
        .assert_code(0);
    test.run(&["log", "close", "a"], b"").assert_code(0);
    let expected = [&lines[..], b"last\n"].concat();
    for (follower, mut output, first) in followers {
        let mut printed = first.into_bytes();
        std::io::Read::read_to_end(&mut output, &mut printed).unwrap();
        assert!(printed == expected);
        let ended = follower.wait_with_output().unwrap();
        assert!(ended.status.success());
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("token 1 at seq 100"), "{said}");
        assert!(said.contains("closed at seq 101"), "{said}");
    }
    let late = test.run(&["append", "a", "--fence", "1"], b"late\n");
    late.assert_code(4).assert_says("DRV-0209");
    test.run(&["log", "close", "a"], b"").assert_code(0);
    let read = test.run(&["read", "a"], b"").assert_code(0);
    assert!(read.stdout == expected, "it stays to be read");
}

#[test]
fn a_deleted_log_gives_back_its_name_and_its_space() {
    let mut test = TestCluster::start_with(3, SETTINGS);
    let lines = numbered_lines(1_000);
    // More than two segments, of 8 MiB each.
    let large: Vec<u8> = [&[b'x'; 65_535], &b"\n"[..]].concat().repeat(320);
    for (log, input) in [("a", &large), ("b", &lines)] {
        let append = ["append", log, "--create", "--summary"];
        test.run(&append, input).assert_code(0);
    }
    let unconfirmed = test.run(&["log", "delete", "a"], b"").assert_code(2);
    unconfirmed.assert_says("320 records");
    let first_index = |test: &TestCluster| {
        let status = test.run(&["status", "--format", "json"], b"");
        let status: serde_json::Value = serde_json::from_str(status.assert_code(0).text()).unwrap();
        let nodes = status["nodes"].as_array().unwrap().iter();
        nodes
            .map(|node| node["first_index"].as_u64().unwrap())
            .max()
            .unwrap()
    };
    let before = first_index(&test);
    test.run(&["log", "delete", "a", "--yes"], b"")
        .assert_code(0);
    test.run(&["read", "a"], b"").assert_code(3);
    test.run(&["log", "delete", "a", "--yes"], b"")
        .assert_code(3)
        .assert_says("DRV-0201");
    // What is appended meanwhile makes nodes look at what they need.
    test.run(
        &["append", "a", "--create", "--summary", "--batch", "1"],
        &lines,
    )
    .assert_code(0);
    let leader = test.leader();
    test.cluster.kill(leader).unwrap();
    test.leader();
    test.cluster.start(leader).unwrap();
    test.caught_up();
    assert!(first_index(&test) > before, "no node let anything go");
    let read = test.run(&["read", "a"], b"").assert_code(0);
    assert!(read.stdout == lines, "the new log has its own records only");
    let other = test.run(&["read", "b"], b"").assert_code(0);
    assert!(other.stdout == lines);
}
