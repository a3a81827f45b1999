//! Three nodes, some of which die: nothing acknowledged is lost, nothing comes twice, and what cannot be
//! known is said to be unknown.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::thread;
use std::time::Duration;

use common::{Random, RunningAppend, TestCluster, numbered_lines};

#[test]
fn every_replica_holds_the_same() {
    let mut test = TestCluster::start(3);
    let input = numbered_lines(20_000);
    let seqs = test
        .run(&["append", "a", "--create"], &input)
        .assert_code(0);
    assert!(
        seqs.text()
            .lines()
            .map(|seq| seq.parse::<usize>().unwrap())
            .eq(0..20_000)
    );
    test.caught_up();
    for held in test.read_each_node("a") {
        assert!(held == input, "a replica differs from the input");
    }
    assert!(test.run(&["read", "a"], b"").assert_code(0).stdout == input);
}

/// Appends while `harm` is done after random numbers of acknowledgements; then everything must be on every
/// node as it was put in.
fn append_through(harms: usize, lines: usize, mut harm: impl FnMut(&mut TestCluster)) {
    let mut random = Random::new();
    let mut test = TestCluster::start(3);
    let input = numbered_lines(lines);
    let mut append = RunningAppend::start(test.drave(&["append", "a", "--create", "--batch", "8"]));
    let mut stdin = append.take_input();
    let bytes = input.clone();
    // A command that ends early says itself why.
    let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
    let part = lines / (harms + 1);
    for number in 0..harms {
        let moment = number * part + random.between(1, part);
        append.wait_acknowledged(moment);
        harm(&mut test);
    }
    writer.join().unwrap();
    let (ended, acknowledged) = append.finish();
    ended.assert_code(0);
    assert!(
        acknowledged.iter().copied().eq(0..lines as u64),
        "each line once, in order"
    );
    test.caught_up();
    for held in test.read_each_node("a") {
        assert!(held == input, "a replica differs from the input");
    }
}

#[test]
fn leaders_die_under_load() {
    append_through(3, 40_000, |test| {
        let leader = test.leader();
        test.cluster.kill(leader).unwrap();
        // The others must agree on a new one before the dead one comes back.
        assert_ne!(test.leader(), leader);
        test.cluster.start(leader).unwrap();
    });
}

#[test]
fn all_nodes_die_at_once_under_load() {
    let rounds = std::env::var("DRAVE_TEST_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    append_through(rounds, 10_000 * rounds, |test| {
        test.cluster.kill_all().unwrap();
        test.cluster.start_all().unwrap();
    });
}

#[test]
fn one_dead_of_three_does_no_harm() {
    let mut test = TestCluster::start(3);
    let leader = test.leader();
    let follower = test
        .cluster
        .node_ids()
        .into_iter()
        .find(|node_id| *node_id != leader)
        .unwrap();
    test.cluster.kill(follower).unwrap();
    let input = numbered_lines(5_000);
    test.run(&["append", "a", "--create", "--summary"], &input)
        .assert_code(0);
    let status = test
        .run(&["status", "--format", "json"], b"")
        .assert_code(0);
    assert!(
        status.elapsed < Duration::from_secs(4),
        "{:?} for status",
        status.elapsed
    );
    let value: serde_json::Value = serde_json::from_str(status.text()).unwrap();
    assert_eq!(value["leader_id"], leader);
    for node in value["nodes"].as_array().unwrap() {
        assert_eq!(node["reachable"], node["node_id"] != follower, "{node}");
    }
    let table = test.run(&["status"], b"").assert_code(0);
    assert!(table.text().contains("unreachable"), "{}", table.text());
    test.cluster.start(follower).unwrap();
    test.caught_up();
    for held in test.read_each_node("a") {
        assert!(held == input, "a replica differs from the input");
    }
}

#[test]
fn without_a_majority_the_outcome_is_unknown() {
    let mut test = TestCluster::start(3);
    let leader = test.leader();
    let mut append =
        RunningAppend::start(test.drave(&["append", "a", "--create", "--timeout", "2s"]));
    append.write(b"first\n");
    append.wait_acknowledged(1);
    for node_id in test.cluster.node_ids() {
        if node_id != leader {
            test.cluster.kill(node_id).unwrap();
        }
    }
    append.write(b"second\n");
    let (ended, acknowledged) = append.finish();
    let ended = ended.assert_code(5).assert_says("error[DRV-0103]");
    assert!(
        ended.stderr.contains("line 2: unknown, may be in the log"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.elapsed < Duration::from_secs(20),
        "{:?}",
        ended.elapsed
    );
    assert_eq!(acknowledged, [0]);

    let late = test
        .run(&["append", "a", "--timeout", "1s"], b"third\n")
        .assert_code(5);
    assert!(
        late.stdout.is_empty() && late.elapsed < Duration::from_secs(20),
        "{late:?}"
    );
    test.run(&["log", "create", "b", "--timeout", "1s"], b"")
        .assert_code(5);
    let status = test.run(&["status"], b"").assert_code(0);
    assert!(
        status.elapsed < Duration::from_secs(4),
        "{:?} for status",
        status.elapsed
    );

    test.cluster.start_all().unwrap();
    test.caught_up();
    let whole = test.run(&["read", "a"], b"").assert_code(0);
    let lines: Vec<&str> = whole.text().lines().collect();
    assert_eq!(lines[0], "first");
    for line in ["second", "third"] {
        assert!(
            lines.iter().filter(|found| **found == line).count() <= 1,
            "{lines:?}"
        );
    }
}

#[test]
fn tailing_goes_on_over_the_death_of_leaders() {
    let mut test = TestCluster::start(3);
    test.run(&["log", "create", "a"], b"").assert_code(0);
    let mut tail = RunningAppend::start(test.drave(&["tail", "a", "--follow", "--from", "0"]));
    let mut count = 0_u64;
    for round in 0..3 {
        let text: String = (count..count + 2_000)
            .map(|number| format!("{number}\n"))
            .collect();
        test.run(
            &["append", "a", "--batch", "16", "--summary"],
            text.as_bytes(),
        )
        .assert_code(0);
        count += 2_000;
        let leader = test.leader();
        test.cluster.kill(leader).unwrap();
        tail.wait_acknowledged(count as usize);
        test.cluster.start(leader).unwrap();
        test.caught_up();
        assert_eq!(tail.acknowledged.len() as u64, count, "round {round}");
    }
    assert!(
        tail.acknowledged.iter().copied().eq(0..count),
        "every record once, in order"
    );
}
