//! Real nodes that lost where their log ended: one takes its end from the leader before it says another word; a
//! majority of them waits, and says so.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::disk::{BLOCK, groups, segments, wait_idle};
use common::nodes::{log_of, wait_for_log, wait_for_node};
use common::{TestCluster, path_text};

const LINES: usize = 700;
const LINE_BYTES: usize = 16 << 10;
const SETTINGS: &str = "[snapshots]\nlog_bytes = \"1GiB\"\n";

fn lines() -> Vec<u8> {
    let mut text = Vec::with_capacity(LINES * LINE_BYTES);
    for line in 0..LINES {
        text.extend_from_slice(format!("line {line:06} ").as_bytes());
        text.resize((line + 1) * LINE_BYTES - 1, b'a' + (line % 26) as u8);
        text.push(b'\n');
    }
    text
}

fn filled(node_count: u64) -> (TestCluster, Vec<u8>) {
    let mut test = TestCluster::start_with(node_count, SETTINGS);
    let lines = lines();
    append(&test, &lines);
    test.caught_up();
    for node_id in test.cluster.node_ids() {
        wait_idle(&test.cluster.data_dir(node_id));
    }
    (test, lines)
}

fn append(test: &TestCluster, lines: &[u8]) {
    let arguments = ["append", "a", "--create", "--summary", "--batch", "1"];
    test.run(&arguments, lines).assert_code(0);
}

/// Takes the last segment away; what is before it stays.
fn remove_last(data_dir: &Path) {
    let segments = segments(data_dir);
    assert!(segments.len() > 1, "{segments:?}");
    fs::remove_file(segments.last().unwrap()).unwrap();
}

fn change_last(data_dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let last = segments(data_dir).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    change(&mut bytes);
    fs::write(last, bytes).unwrap();
}

/// A file that ends in its middle, where nothing says any more that there was more.
fn shorten_last(data_dir: &Path) {
    change_last(data_dir, |bytes| {
        let groups = groups(bytes);
        bytes.truncate(groups[groups.len() / 2]);
    });
}

/// The header of the last segment.
fn zero_last_header(data_dir: &Path) {
    change_last(data_dir, |bytes| bytes[..BLOCK].fill(0));
}

/// The last batches that a later group knew durable, and the header that says how long the group is.
fn flip_last_durable(data_dir: &Path) {
    change_last(data_dir, |bytes| {
        // The very last one is the idle group.
        let groups = groups(bytes);
        let at = groups[groups.len() - 2];
        bytes[at + 100] ^= 4;
        bytes[at + 41] ^= 4;
    });
}

#[track_caller]
fn assert_all_hold(test: &mut TestCluster, lines: &[u8]) {
    test.caught_up();
    for (held, node_id) in test.read_each_node("a").into_iter().zip(1..) {
        assert!(held == lines, "node {node_id} differs from the input");
    }
}

/// The node comes back, with what was acknowledged before and while it was away, and its word counts again.
fn comes_back(damage: impl FnOnce(&Path), takes_end: bool) {
    let (mut test, mut lines) = filled(3);
    // The others elect anew if need be: the damaged one has no say in it.
    let node_id = test.leader();
    test.cluster.kill(node_id).unwrap();
    damage(&test.cluster.data_dir(node_id));
    let more = b"while it was away\n";
    append(&test, more);
    lines.extend_from_slice(more);
    let mark = log_of(&test, node_id).len();
    test.cluster.start(node_id).unwrap();
    let log = wait_for_log(&test, node_id, mark, "the log is repaired");
    assert_eq!(
        log.contains("the log is to end with entry"),
        takes_end,
        "{log}"
    );
    assert_all_hold(&mut test, &lines);
    let other = node_id % 3 + 1;
    test.cluster.kill(other).unwrap();
    let more = b"with the repaired one\n";
    append(&test, more);
    lines.extend_from_slice(more);
    test.cluster.start(other).unwrap();
    // And it starts on what it wrote.
    test.cluster.kill(node_id).unwrap();
    let mark = log_of(&test, node_id).len();
    test.cluster.start(node_id).unwrap();
    assert_all_hold(&mut test, &lines);
    assert!(!log_of(&test, node_id)[mark..].contains("damage"));
}

#[test]
fn a_node_whose_last_segment_is_gone_comes_back() {
    comes_back(remove_last, true);
}

#[test]
fn a_node_whose_last_segment_ends_early_comes_back() {
    comes_back(shorten_last, true);
}

#[test]
fn a_node_whose_last_segment_lost_its_header_comes_back() {
    // Its groups still say where they ended.
    comes_back(zero_last_header, false);
}

#[test]
fn a_node_whose_last_durable_batches_are_damaged_comes_back() {
    comes_back(flip_last_durable, false);
}

#[test]
fn two_of_three_without_an_end_wait_and_say_for_what() {
    let (mut test, lines) = filled(3);
    test.cluster.kill_all().unwrap();
    let last_whole = test.cluster.data_dir(2);
    let kept = fs::read(segments(&last_whole).pop().unwrap()).unwrap();
    let kept_at = segments(&last_whole).pop().unwrap();
    for node_id in [1, 2] {
        remove_last(&test.cluster.data_dir(node_id));
    }
    let marks: Vec<usize> = (1..=3).map(|id| log_of(&test, id).len()).collect();
    for node_id in 1..=3 {
        test.cluster.start(node_id).unwrap();
    }
    for (node_id, other) in [(1, 2), (2, 1)] {
        let follows = format!("node {other} does not lead");
        let status = wait_for_node(&mut test, node_id, "that it waits", |node| {
            let fault = node.fault.as_deref().unwrap_or_default();
            fault.contains(&follows) && fault.contains("node 3 does not lead")
        });
        assert_eq!(status.role.as_deref(), Some("repairing"));
        let fault = status.fault.unwrap();
        let durable = status.durable_index.unwrap();
        let says = format!("missing what follows entry {durable}: where the log ended is lost");
        assert!(fault.starts_with(&says), "{fault}");
        assert!(fault.contains("waiting for a leader of term "), "{fault}");
        let log = &log_of(&test, node_id)[marks[node_id as usize - 1]..];
        assert!(log.contains("are lost here: what follows entry"), "{log}");
        assert!(!log.contains("role="), "no vote, no lead: {log}");
    }
    // Nobody leads, though one holds everything: it cannot know that.
    let log = &log_of(&test, 3)[marks[2]..];
    assert!(!log.contains("role=\"leader\""), "{log}");
    let refused = ["append", "a", "--summary", "--timeout", "1s"];
    assert_eq!(test.run(&refused, b"to nobody\n").code, Some(5));
    // One of the two gets its disk back: that is a majority, and the other takes its end from it.
    test.cluster.kill(2).unwrap();
    fs::write(kept_at, kept).unwrap();
    let mark = log_of(&test, 1).len();
    test.cluster.start(2).unwrap();
    let log = wait_for_log(&test, 1, mark, "the log is repaired");
    assert!(log.contains("the log is to end with entry"), "{log}");
    assert_all_hold(&mut test, &lines);
}

#[test]
fn without_an_end_and_with_half_a_meta_a_node_does_not_start() {
    let (mut test, _) = filled(3);
    test.cluster.kill(3).unwrap();
    let data_dir = test.cluster.data_dir(3);
    let meta = data_dir.join("group-0/meta");
    let mut bytes = fs::read(&meta).unwrap();
    bytes[BLOCK + 100] ^= 1;
    fs::write(&meta, &bytes).unwrap();
    remove_last(&data_dir);
    let dir = path_text(&data_dir);
    test.run(&["start", "--data-dir", &dir], b"")
        .assert_code(6)
        .assert_says("may be an older term and vote")
        .assert_says("drave member replace");
}
