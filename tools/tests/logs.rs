//! What is asked of a log, over the death of its leader: its description, its tail, its records by time.
#![allow(clippy::unwrap_used)]

mod common;

use common::raw::RawClient;
use common::{TestCluster, numbered_lines};
use drave_batch::wire::{ErrorCode, ErrorReply, LOCAL_READ, LogLookup};

/// Snapshots after few entries, so that restarts begin with one.
const SETTINGS: &str = "[snapshots]\nentries = 64\n";

/// The only row of a command's JSON.
fn row(test: &TestCluster, arguments: &[&str]) -> serde_json::Value {
    let printed = test.run(&[arguments, &["-o", "json"]].concat(), b"");
    serde_json::from_str(printed.assert_code(0).text()).unwrap()
}

/// When each record of a log was appended.
fn times(test: &TestCluster, log: &str) -> Vec<u64> {
    let read = test.run(&["read", log, "--format", "json"], b"");
    let read = read.assert_code(0);
    let rows = read.text().lines().map(serde_json::from_str);
    let rows: Vec<serde_json::Value> = rows.map(Result::unwrap).collect();
    rows.iter()
        .map(|row| row["time_us"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_log_is_described_and_read_by_time_over_the_death_of_its_leader() {
    let mut test = TestCluster::start_with(3, SETTINGS);
    let lines = numbered_lines(2_000);
    let append = ["append", "a", "--create", "--summary", "--batch", "3"];
    test.run(&append, &lines).assert_code(0);
    test.run(&["append", "other", "--create", "--summary"], &lines)
        .assert_code(0);
    let times = times(&test, "a");
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    let described = row(&test, &["log", "describe", "a"]);
    assert_eq!(described["next_seq"], 2_000);
    assert_eq!(described["last_time_us"], times[1_999]);
    assert!(described["held_bytes"].as_u64().unwrap() > lines.len() as u64);

    let dead = test.leader();
    test.cluster.kill(dead).unwrap();
    assert_ne!(test.leader(), dead);
    assert_eq!(row(&test, &["log", "describe", "a"]), described);
    let tail = row(&test, &["check-tail", "a"]);
    assert_eq!(tail["next_seq"], 2_000);
    assert_eq!(tail["last_time_us"], times[1_999]);
    // All nodes begin again from their snapshots, which know the times.
    test.cluster.kill_all().unwrap();
    test.cluster.start_all().unwrap();
    test.caught_up();
    assert_eq!(row(&test, &["log", "describe", "a"]), described);

    let texts: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    for seq in [0, 1, 700, 1_999] {
        let at = format!("@{}.{:06}", times[seq] / 1_000_000, times[seq] % 1_000_000);
        let first = times
            .iter()
            .position(|time_us| *time_us >= times[seq])
            .unwrap();
        for node in ["1", "2", "3"] {
            let read = test.run(&["read", "a", "--at", &at, "--node", node], b"");
            let read = read.assert_code(0);
            assert!(
                read.stdout == texts[first..].concat(),
                "from {seq} of node {node}"
            );
        }
        let tail = test.run(&["tail", "a", "--at", &at], b"").assert_code(0);
        assert!(tail.stdout == texts[first..].concat(), "from {seq}");
    }
    let later = test.run(&["read", "a", "--at", "9000-01-01T00:00:00Z"], b"");
    assert_eq!(later.assert_code(0).stdout, b"");
    let last = test.run(&["read", "a", "--last", "7"], b"").assert_code(0);
    assert!(last.stdout == texts[1_993..].concat());
    test.run(&["log", "describe", "none"], b"")
        .assert_code(3)
        .assert_says("DRV-0201");
    test.run(&["check-tail", "none"], b"")
        .assert_code(3)
        .assert_says("DRV-0201");
    let both = test.run(&["read", "a", "--last", "7", "--at", "@1"], b"");
    both.assert_code(2);
}

/// A node that is left alone cannot know whether a log was created meanwhile.
#[test]
fn what_a_node_without_a_quorum_does_not_have_is_unconfirmed() {
    let mut test = TestCluster::start(3);
    let leader = test.leader();
    let lookup = LogLookup {
        consistency: LOCAL_READ,
        name: "none".to_owned(),
    };
    let left = leader % 3 + 1;
    let mut client = RawClient::connect(test.cluster.address(left));
    client.send(1, &lookup);
    let confirmed = client.receive::<ErrorReply>().code;
    assert_eq!(confirmed, ErrorCode::LogNotFound as u32);
    for node in (1..=3).filter(|node| *node != left) {
        test.cluster.kill(node).unwrap();
    }
    client.send(2, &lookup);
    let unconfirmed = client.receive::<ErrorReply>().code;
    assert_eq!(unconfirmed, ErrorCode::ReadUnconfirmed as u32);
}

#[test]
fn codes_are_explained() {
    let explained = common::run(&mut common::drave(&["explain", "DRV-0104"]), b"");
    let text = explained.assert_code(0).text().to_owned();
    assert!(
        text.starts_with("DRV-0104  ") && text.contains("\n  exit    4\n"),
        "{text}"
    );
    let unknown = common::run(&mut common::drave(&["explain", "DRV-9999"]), b"");
    unknown.assert_code(3);
    let all = common::run(&mut common::drave(&["explain"]), b"");
    assert!(all.assert_code(0).text().lines().count() > 40);
}
