//! Damaged logs of real nodes: bits flipped on disk are found, given back by the other members and written back;
//! what nobody holds is named, and nothing is served as if it were fine.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{LIMIT, TestCluster, path_text};
use drave_batch::BatchRef;
use drave_batch::wire::{
    ErrorCode, ErrorReply, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAck, LOCAL_READ, Lane,
    LogLookup, Message, PROTOCOL_VERSION, Role, decode_head, encode_frame,
};
use drave_client::NodeStatus;
use drave_tools::cluster::wait;

/// Lines of the log that the tests damage, one batch for each: more than the first segment's 64 MiB.
const LINES: usize = 4_300;
const LINE_BYTES: usize = 16 << 10;

/// All of the log is read at a start.
const SETTINGS: &str = "[snapshots]\nlog_bytes = \"1GiB\"\n";

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(5);

fn marker(line: usize) -> String {
    format!("line {line:06} ")
}

fn lines() -> Vec<u8> {
    let mut text = Vec::with_capacity(LINES * LINE_BYTES);
    for line in 0..LINES {
        text.extend_from_slice(marker(line).as_bytes());
        text.resize((line + 1) * LINE_BYTES - 1, b'a' + (line % 26) as u8);
        text.push(b'\n');
    }
    text
}

fn filled(node_count: u64) -> (TestCluster, Vec<u8>) {
    let mut test = TestCluster::start_with(node_count, SETTINGS);
    let lines = lines();
    let arguments = ["append", "a", "--create", "--summary", "--batch", "1"];
    test.run(&arguments, &lines).assert_code(0);
    test.caught_up();
    (test, lines)
}

/// Where a line is on a node's disk.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    offset: u64,
    index: u64,
    is_last_segment: bool,
}

impl Place {
    fn find(test: &TestCluster, node_id: u64, line: usize) -> Self {
        let dir = test.cluster.data_dir(node_id).join("group-0");
        let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("seg-")
        };
        let mut segments: Vec<PathBuf> = files.filter(is_segment).collect();
        segments.sort();
        assert!(segments.len() > 1, "{segments:?}");
        for (at, path) in segments.iter().enumerate() {
            let bytes = fs::read(path).unwrap();
            let marker = marker(line);
            // In the first segment no line begins before the bytes of those before it.
            let from = if at == 0 { line * LINE_BYTES } else { 0 };
            let mut windows = bytes.get(from..).unwrap_or_default().windows(marker.len());
            let Some(found) = windows.position(|window| window == marker.as_bytes()) else {
                continue;
            };
            let offset = from + found;
            // The batch of one record begins a header and the record's length before it.
            let batch = (0..16).find_map(|length| {
                let start = offset.checked_sub(drave_batch::BATCH_HEADER_BYTES + length)?;
                BatchRef::decode(&bytes[start..]).ok()
            });
            return Self {
                path: path.clone(),
                offset: offset as u64 + 1_000,
                index: batch.unwrap().header.index,
                is_last_segment: at == segments.len() - 1,
            };
        }
        panic!("line {line} is on no disk of node {node_id}");
    }

    fn flip(&self) {
        let mut byte = [0];
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        file.read_exact_at(&mut byte, self.offset).unwrap();
        byte[0] ^= 0x04;
        file.write_all_at(&byte, self.offset).unwrap();
        file.sync_all().unwrap();
    }

    fn file(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

fn flip(test: &TestCluster, node_id: u64, line: usize) -> Place {
    let place = Place::find(test, node_id, line);
    place.flip();
    place
}

/// What a node wrote to its log so far.
fn log_of(test: &TestCluster, node_id: u64) -> String {
    fs::read_to_string(test.cluster.log_path(node_id)).unwrap_or_default()
}

/// Waits until a node's log has `part` behind its first `mark` bytes, and gives what is behind them.
#[track_caller]
fn wait_for_log(test: &TestCluster, node_id: u64, mark: usize, part: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let log = log_of(test, node_id)[mark..].to_owned();
        if log.contains(part) {
            return log;
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "node {node_id} never says {part:?}");
        std::thread::sleep(PAUSE);
    }
}

#[track_caller]
fn wait_for_node(
    test: &mut TestCluster,
    node_id: u64,
    what: &str,
    reached: impl Fn(&NodeStatus) -> bool,
) -> NodeStatus {
    let waited = wait::until(&mut test.cluster, &test.client, what, LIMIT, |status| {
        let mut nodes = status.nodes.iter();
        let node = nodes.find(|node| node.node_id == Some(node_id))?;
        reached(node).then(|| node.clone())
    });
    let waited = test.runtime.block_on(waited);
    waited.unwrap_or_else(|error| panic!("{error}"))
}

/// The ranges `[lo, hi)` that a node's log names as lost there.
fn lost_ranges(log: &str) -> Vec<(u64, u64)> {
    let lost = log.lines().filter(|line| line.contains("are lost here"));
    let number = |line: &str, key: &str| {
        let at = line.find(key).unwrap() + key.len();
        let digits = line[at..].chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap()
    };
    lost.map(|line| (number(line, "lo="), number(line, "hi=")))
        .collect()
}

/// The log names each place by file, offset and a range that holds the entry, and says that it is repaired.
#[track_caller]
fn assert_named_and_repaired(log: &str, places: &[&Place]) {
    let ranges = lost_ranges(log);
    for place in places {
        let named = |line: &str| line.contains(place.file()) && line.contains("offset=");
        assert!(log.lines().any(named), "{} in\n{log}", place.file());
        let range = ranges
            .iter()
            .find(|(lo, hi)| (*lo..*hi).contains(&place.index));
        let range = range.unwrap_or_else(|| panic!("entry {} in {ranges:?}", place.index));
        assert!(
            range.1 - range.0 < 200,
            "no more than a group is lost: {range:?}"
        );
    }
    assert!(log.contains("the log is repaired"), "{log}");
}

#[track_caller]
fn assert_all_hold(test: &mut TestCluster, lines: &[u8]) {
    test.caught_up();
    for (held, node_id) in test.read_each_node("a").into_iter().zip(1..) {
        assert!(held == lines, "node {node_id} differs from the input");
    }
}

/// Who asks this node for anything is told that it repairs its log.
#[track_caller]
fn assert_refused(test: &TestCluster, node_id: u64) {
    let node = node_id.to_string();
    let read = ["read", "a", "--node", &node, "--timeout", "1s"];
    let refused = test.run(&read, b"").assert_code(5);
    assert!(refused.stdout.is_empty());
    let mut stream = TcpStream::connect(test.cluster.address(node_id)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let hello = Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        role: Role::Client,
        lane: Lane::Control,
        node_id: 0,
        incarnation: 0,
        to_node_id: 0,
        cluster_id: None,
    };
    let lookup = LogLookup {
        consistency: LOCAL_READ,
        name: "a".to_owned(),
    };
    let mut frames = Vec::new();
    encode_frame(&mut frames, 0, 0, &hello, 0);
    encode_frame(&mut frames, 0, 1, &lookup, 0);
    stream.write_all(&frames).unwrap();
    receive::<HelloAck>(&mut stream);
    let reply: ErrorReply = receive(&mut stream);
    assert_eq!(reply.code, ErrorCode::Repairing as u32, "{reply:?}");
    assert!(reply.message.contains("missing entr"), "{reply:?}");
}

fn receive<M: Message>(stream: &mut TcpStream) -> M {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = FrameHeader::decode(&header).unwrap();
    let mut head = vec![0; header.head_len.into()];
    stream.read_exact(&mut head).unwrap();
    decode_head(&header, &head).unwrap()
}

#[test]
fn one_replica_damaged_in_a_sealed_and_in_the_active_segment() {
    let (mut test, mut lines) = filled(3);
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
    let (mut test, lines) = filled(3);
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
    let (mut test, lines) = filled(3);
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
        assert!((lo..hi).contains(&places[0].index), "{lo} {hi}");
        assert_eq!(status.durable_index, Some(lo - 1));
        let missing = if hi - lo == 1 {
            format!("missing entry {lo}: ")
        } else {
            format!("missing entries {lo} to {}: ", hi - 1)
        };
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
fn what_every_member_has_lost_is_said_to_be_lost() {
    let (mut test, _) = filled(3);
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
    let (mut test, lines) = filled(3);
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
    let (mut test, _) = filled(1);
    test.cluster.kill(1).unwrap();
    let place = flip(&test, 1, 40);
    let dir = path_text(&test.cluster.data_dir(1));
    let refused = test.run(&["start", "--data-dir", &dir], b"");
    refused
        .assert_code(6)
        .assert_says(place.file())
        .assert_says("drave wal repair");
}
