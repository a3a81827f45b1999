//! Snapshots and trims of real nodes: restarts from a snapshot, nodes that join behind a compacted log,
//! transfers and installs that are killed in the middle, and a disk that was wiped.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{LIMIT, Random, TestCluster, drave, numbered_lines, path_text, run};
use drave_client::{ClientError, ErrorCode, LogInfo, NodeStatus, ReadLimits, TailEvent, TailFrom};
use drave_tools::cluster::wait;
use tokio::task::JoinSet;

/// Snapshots after few entries, so that little has to be written.
const SETTINGS: &str = "[snapshots]\nentries = 64\n";

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `reached` holds for what a node says of itself.
#[track_caller]
fn wait_for_node(
    test: &mut TestCluster,
    node_id: u64,
    what: &str,
    reached: impl Fn(&NodeStatus) -> bool,
) {
    let waited = wait::until(&mut test.cluster, &test.client, what, LIMIT, |status| {
        let nodes = status.nodes.iter();
        let mut found = nodes.filter(|node| node.node_id == Some(node_id));
        found.any(&reached).then_some(())
    });
    test.runtime
        .block_on(waited)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What a node wrote to its log so far.
fn log_of(test: &TestCluster, node_id: u64) -> String {
    fs::read_to_string(test.cluster.log_path(node_id)).unwrap_or_default()
}

/// Waits until a node's log has `part` behind its first `mark` bytes.
#[track_caller]
fn wait_for_log(test: &TestCluster, node_id: u64, mark: usize, part: &str) {
    let deadline = Instant::now() + LIMIT;
    while !log_of(test, node_id)[mark..].contains(part) {
        assert!(
            Instant::now() < deadline,
            "node {node_id} never says {part:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

fn append(test: &TestCluster, log: &str, lines: &[u8], batch: &str) {
    let arguments = ["append", log, "--create", "--summary", "--batch", batch];
    test.run(&arguments, lines).assert_code(0);
}

fn trim(test: &TestCluster, log: &str, first_seq: u64) {
    let trimmed = test.client.trim_log(log, first_seq);
    let info = test.runtime.block_on(trimmed).unwrap();
    assert_eq!(info.first_seq, first_seq);
}

fn last_index(test: &TestCluster, node_id: u64) -> u64 {
    let status = test.runtime.block_on(test.client.status()).unwrap();
    let mut nodes = status.nodes.into_iter();
    let node = nodes.find(|node| node.node_id == Some(node_id)).unwrap();
    node.last_index.unwrap()
}

/// Every node gives the log's lines from `first` on, and says that those before were trimmed.
fn assert_holds_from(test: &mut TestCluster, log: &str, lines: &[u8], first: usize) {
    test.caught_up();
    let kept: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let kept = kept[first..].concat();
    for (held, node_id) in test.read_each_node(log).into_iter().zip(1..) {
        assert!(held == kept, "node {node_id} differs from the input");
    }
    for node in test.cluster.node_ids() {
        let node = node.to_string();
        test.run(&["read", log, "--from", "0", "--node", &node], b"")
            .assert_code(3)
            .assert_says("DRV-0203");
    }
}

/// Appends some thousand entries, trims most of them, and waits until every node's log begins later.
fn compacted(node_count: u64) -> (TestCluster, Vec<u8>) {
    let mut test = TestCluster::start_with(node_count, SETTINGS);
    let lines = numbered_lines(6_000);
    append(&test, "a", &lines, "2");
    trim(&test, "a", 5_001);
    for node_id in 1..=node_count {
        wait_for_node(&mut test, node_id, "log that begins later", |node| {
            node.first_index > Some(1)
        });
    }
    (test, lines)
}

#[test]
fn nodes_restart_from_a_snapshot_and_the_log_behind_it() {
    let (mut test, mut lines) = compacted(3);
    assert_holds_from(&mut test, "a", &lines, 5_001);
    let marks: Vec<usize> = (1..=3).map(|id| log_of(&test, id).len()).collect();
    test.cluster.kill_all().unwrap();
    test.cluster.start_all().unwrap();
    test.leader();
    for (node_id, mark) in (1..).zip(&marks) {
        wait_for_log(&test, node_id, *mark, "replica restored from a snapshot");
    }
    assert_holds_from(&mut test, "a", &lines, 5_001);
    append(&test, "a", b"behind it\n", "1");
    lines.extend_from_slice(b"behind it\n");
    assert_holds_from(&mut test, "a", &lines, 5_001);
}

#[test]
fn readers_before_the_first_seq_are_told_where_the_log_begins() {
    let (test, _) = compacted(1);
    let told = async {
        let log = test.client.log("a").await?;
        let refused = log.read(0, ReadLimits::default()).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Trimmed), "{refused}");
        assert!(refused.to_string().contains("5001"), "{refused}");
        let mut tail = log.tail(TailFrom::Seq(0)).await?;
        let first = tail.next().await?;
        let TailEvent::Trimmed { first_seq: 5_001 } = first else {
            panic!("expected where the log begins, found {first:?}");
        };
        let second = tail.next().await?;
        let TailEvent::Record(record) = &second else {
            panic!("expected a record, found {second:?}");
        };
        assert_eq!(record.seq, 5_001);
        Ok::<_, ClientError>(())
    };
    test.runtime.block_on(told).unwrap();
}

#[test]
fn a_damaged_snapshot_is_reported_and_an_older_one_is_used() {
    let (mut test, lines) = compacted(3);
    test.cluster.kill(3).unwrap();
    let dir = test.cluster.data_dir(3).join("snapshots-0");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    let newest = files.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(newest, &bytes).unwrap();
    fs::write(dir.join("snapshot-half.tmp"), b"left behind").unwrap();
    let mark = log_of(&test, 3).len();
    test.cluster.start(3).unwrap();
    wait_for_log(&test, 3, mark, "a snapshot is damaged");
    wait_for_log(&test, 3, mark, "replica restored from a snapshot");
    assert_holds_from(&mut test, "a", &lines, 5_001);
    assert!(!dir.join("snapshot-half.tmp").exists());
}

#[test]
fn a_node_without_anything_joins_by_a_snapshot_and_then_the_log() {
    let (mut test, mut lines) = compacted(3);
    let (new, address) = start_joining(&mut test);
    test.run(&["member", "add", &new.to_string(), &address], b"")
        .assert_code(0);
    wait_for_log(&test, new, 0, "snapshot received");
    // It gets what is appended meanwhile, too.
    append(&test, "a", b"while it joins\n", "1");
    lines.extend_from_slice(b"while it joins\n");
    test.run(&["member", "promote", &new.to_string()], b"")
        .assert_code(0);
    assert_holds_from(&mut test, "a", &lines, 5_001);
    // What it was sent is its own now: it starts again from that.
    let mark = log_of(&test, new).len();
    test.cluster.kill(new).unwrap();
    test.cluster.start(new).unwrap();
    wait_for_log(&test, new, mark, "replica restored from a snapshot");
    assert_holds_from(&mut test, "a", &lines, 5_001);
    // And its vote counts: of four voters, three are a majority.
    test.cluster.kill(1).unwrap();
    append(&test, "a", b"without the first\n", "1");
}

/// The node died when what it was sent was durable and its log not yet replaced.
#[test]
fn a_snapshot_stored_before_a_crash_replaces_the_log_at_the_start() {
    let (mut test, mut lines) = compacted(3);
    test.caught_up();
    let leader = test.leader();
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    let last = last_index(&test, behind);
    test.cluster.kill(behind).unwrap();
    let more = numbered_lines(6_000);
    append(&test, "a", &more, "2");
    lines.extend_from_slice(&more);
    trim(&test, "a", 11_000);
    wait_for_node(&mut test, leader, "log that begins later", |node| {
        node.first_index > Some(last + 1)
    });
    // The leader's log begins behind its oldest snapshot, which is the one it sends.
    let [from, to] = [leader, behind].map(|id| test.cluster.data_dir(id).join("snapshots-0"));
    let deadline = Instant::now() + LIMIT;
    loop {
        let files = fs::read_dir(&from).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let oldest = names.filter(|name| !name.ends_with(".tmp")).min().unwrap();
        let index: u64 = oldest.split('-').nth(1).unwrap().parse().unwrap();
        let received = oldest.replace("snapshot-", "received-");
        // The leader may remove it meanwhile, since a later one is where its log begins.
        if index > last && fs::copy(from.join(&oldest), to.join(received)).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "{oldest} is never removed");
        std::thread::sleep(PAUSE);
    }
    let mark = log_of(&test, behind).len();
    test.cluster.start(behind).unwrap();
    wait_for_log(&test, behind, mark, "log replaced by a received snapshot");
    assert_holds_from(&mut test, "a", &lines, 11_000);
}

/// Formats and starts a node that knows nobody; gives its id and address once it listens.
fn start_joining(test: &mut TestCluster) -> (u64, String) {
    let node_id = test.cluster.add_joining().unwrap();
    test.cluster.start(node_id).unwrap();
    wait_for_log(test, node_id, 0, "listening");
    (node_id, test.cluster.address(node_id).to_owned())
}

/// A catalogue so large that its snapshot takes several chunks: this many names of 200 letters.
const LOGS: usize = 6_000;

fn create_many_logs(test: &TestCluster) {
    let client = &test.client;
    test.runtime.block_on(async {
        let mut creating: JoinSet<Result<LogInfo, ClientError>> = JoinSet::new();
        for number in 0..LOGS {
            if creating.len() >= 64 {
                creating.join_next().await.unwrap().unwrap().unwrap();
            }
            let client = client.clone();
            creating.spawn(async move {
                let name = format!("{number:0200}");
                client.create_log(&name, true).await
            });
        }
        while let Some(created) = creating.join_next().await {
            created.unwrap().unwrap();
        }
    });
}

/// Each round the log is trimmed and compacted behind what node 3 has, and node 3, which then needs the
/// snapshot, is killed at some moment of getting, storing and installing it.
#[test]
fn a_node_killed_while_it_is_sent_a_snapshot_ends_up_with_everything() {
    const ROUNDS: usize = 10;
    let mut random = Random::new();
    let mut test = TestCluster::start_with(3, SETTINGS);
    create_many_logs(&test);
    let lines = numbered_lines(100_000);
    let mut next_seq = 0;
    let (mut installed, mut repaired) = (0, 0);
    for round in 0..ROUNDS {
        let last = last_index(&test, 3);
        test.cluster.kill(3).unwrap();
        let leader = test.leader();
        // A snapshot is due only when the log has grown by several times the last one's size.
        loop {
            append(&test, "a", &lines, "200");
            next_seq += 100_000;
            trim(&test, "a", next_seq);
            let status = test.runtime.block_on(test.client.status()).unwrap();
            let mut nodes = status.nodes.iter();
            let led = nodes.find(|node| node.node_id == Some(leader)).unwrap();
            if led.first_index > Some(last + 1) {
                break;
            }
        }
        let mark = log_of(&test, 3).len();
        test.cluster.start(3).unwrap();
        wait_for_log(&test, 3, mark, "listening");
        let delay_ms = random.between(0, 1_000);
        std::thread::sleep(Duration::from_millis(delay_ms as u64));
        test.cluster.kill(3).unwrap();
        let said = log_of(&test, 3)[mark..].to_owned();
        installed += usize::from(said.contains("snapshot received"));
        repaired += usize::from(said.contains("log replaced by a received snapshot"));
        eprintln!("round {round}: killed after {delay_ms} ms, {installed} installed so far");
        test.cluster.start(3).unwrap();
        wait_for_node(&mut test, 3, "node 3", |node| node.last_index.is_some());
    }
    eprintln!("{installed} of {ROUNDS} killed after the install, {repaired} repaired at the start");
    append(&test, "a", b"the last one\n", "1");
    test.caught_up();
    for held in test.read_each_node("a") {
        assert_eq!(held, b"the last one\n");
    }
    // The new majority has all logs.
    let other = test.cluster.node_ids().into_iter().find(|id| *id != 3);
    test.cluster.kill(other.unwrap()).unwrap();
    test.leader();
    let logs = test.runtime.block_on(test.client.logs()).unwrap();
    assert_eq!(logs.len(), LOGS + 1);
}

#[test]
fn a_wiped_node_does_not_vote_under_its_old_id_and_is_replaced_by_a_new_one() {
    let (mut test, lines) = compacted(3);
    let leader = test.leader();
    let [wiped, other] = {
        let mut ids = (1..=3).filter(|id| *id != leader);
        [ids.next().unwrap(), ids.next().unwrap()]
    };
    test.cluster.kill(wiped).unwrap();
    fs::remove_dir_all(test.cluster.data_dir(wiped)).unwrap();
    let mut format = drave(&["format", "--cluster-id", "test"]);
    format.args(["--node-id", &wiped.to_string()]);
    format.args(["--data-dir", &path_text(&test.cluster.data_dir(wiped))]);
    for node_id in 1..=3 {
        let address = test.cluster.address(node_id);
        format.args(["--member", &format!("{node_id}={address}")]);
    }
    run(&mut format, b"").assert_code(0);
    let marks = [leader, wiped].map(|id| log_of(&test, id).len());
    test.cluster.start(wiped).unwrap();
    // Both sides say it: who was wiped, and who refuses it.
    wait_for_log(&test, wiped, marks[1], "refuses this node");
    wait_for_log(&test, wiped, marks[1], "its store was replaced");
    wait_for_log(&test, leader, marks[0], "DRV-0704");
    // With the other one gone, two of three processes run, and one vote is left.
    let term = leader_term(&test);
    test.cluster.kill(other).unwrap();
    test.run(&["append", "a", "--timeout", "3s"], b"too few\n")
        .assert_code(5);
    test.cluster.start(other).unwrap();
    test.leader();
    let passed = leader_term(&test) - term;
    assert!(passed <= 3, "the wiped node raised the term by {passed}");
    // A new id brings the third replica back, the old one is gone for good.
    let (new, address) = start_joining(&mut test);
    let (old, new_text) = (wiped.to_string(), new.to_string());
    test.run(&["member", "replace", &old, &new_text, &address], b"")
        .assert_code(0);
    test.cluster.kill(wiped).unwrap();
    test.cluster.kill(other).unwrap();
    test.leader();
    let held = test.run(&["read", "a", "--node", &new_text], b"");
    let kept: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(
        held.assert_code(0)
            .stdout
            .starts_with(&kept[5_001..].concat())
    );
    append(&test, "a", b"after all\n", "1");
}

fn leader_term(test: &TestCluster) -> u64 {
    test.runtime.block_on(test.client.status()).unwrap().term
}
