//! Twice what the cluster takes, at a constant rate whatever comes back: what is acknowledged keeps a bounded
//! latency, the excess is refused by name at once, and no node's memory grows with it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::TestCluster;
use common::raw::RawClient;
use drave_batch::wire::{
    Append, EXPECT_SEQ_NONE, ErrorCode, ErrorReply, FENCE_NONE, LogCreate, LogInfo, MessageKind,
    decode_head,
};
use drave_batch::{BatchHeader, BodyBuilder, EntryKind};

/// Disks that take a few groups in 50 ms, so that it is not the processors that end first.
const SETTINGS: &str = "[raft]\nuncommitted_bytes_max = \"5MiB\"\n[fault]\ndisk = true\n";
const FAULT: &str = "delay_us 50000";
const UNCOMMITTED_BYTES_MAX: f64 = (5 << 20) as f64;

const RECORD_BYTES: usize = 8 << 10;

/// A closed loop that fills the groups and stays below the limit.
const IN_FLIGHT: u64 = 384;

/// What a node keeps in memory of its log's end: filled before anything is measured.
const TAIL_BYTES: u64 = 64 << 20;

/// Memory of each node that may come with the load: what is on its way and in buffers.
const GROWTH_BYTES_MAX: u64 = 16 << 20;

/// One request's answer, and how long it took from when it should have left.
#[derive(Clone, Copy, Debug)]
struct Answer {
    took: Duration,
    is_refused: bool,
}

struct Load {
    request: Append,
    body: Vec<u8>,
}

impl Load {
    fn new(log_id: u64) -> Self {
        let mut builder = BodyBuilder::new();
        builder.push(&vec![7; RECORD_BYTES]);
        let (record_count, mut body) = (builder.record_count(), Vec::new());
        builder.drain_into(&mut body);
        let header = BatchHeader {
            log_id,
            ..BatchHeader::new(EntryKind::Data, &body, record_count)
        };
        let request = Append {
            header,
            expect_seq: EXPECT_SEQ_NONE,
            fence: FENCE_NONE,
        };
        Self { request, body }
    }

    fn send(&self, raw: &mut RawClient, request_id: u64) {
        raw.send_with(request_id, &self.request, &self.body);
    }

    /// Appends acknowledged each second when a fixed number is in flight, over so long and so many.
    fn closed_loop(&self, raw: &mut RawClient, duration: Duration, count_min: u64) -> f64 {
        (0..IN_FLIGHT).for_each(|id| self.send(raw, id));
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < duration || count < count_min {
            assert!(!receive(raw).1, "a closed loop stays below the limit");
            self.send(raw, IN_FLIGHT + count);
            count += 1;
        }
        let elapsed = began.elapsed();
        for _ in 0..IN_FLIGHT {
            receive(raw);
        }
        count as f64 / elapsed.as_secs_f64()
    }

    /// Sends `count` appends at a constant rate, and takes as many answers, in the order in which they come.
    fn open_loop(&self, raw: &mut RawClient, per_second: f64, count: u64) -> Vec<Answer> {
        let mut receiver = raw.other_end();
        let began = Instant::now();
        let due = move |at: u64| began + Duration::from_secs_f64(at as f64 / per_second);
        let receiving = thread::spawn(move || {
            let answer = |_| {
                let (request_id, is_refused) = receive(&mut receiver);
                let took = due(request_id).elapsed();
                Answer { took, is_refused }
            };
            (0..count).map(answer).collect()
        });
        for at in 0..count {
            thread::sleep(due(at).saturating_duration_since(Instant::now()));
            self.send(raw, at);
        }
        receiving.join().unwrap()
    }
}

/// Which request was answered, and whether it was refused because the node has too much waiting.
fn receive(raw: &mut RawClient) -> (u64, bool) {
    let (header, head) = raw.next_frame();
    if header.kind == MessageKind::Appended {
        return (header.request_id, false);
    }
    let reply: ErrorReply = decode_head(&header, &head).unwrap();
    assert_eq!(reply.code, ErrorCode::Busy as u32, "{}", reply.message);
    (header.request_id, true)
}

/// The time that a part of the answers did not take longer than.
fn quantile<'a>(answers: impl Iterator<Item = &'a Answer>, part: f64) -> Duration {
    let mut took: Vec<Duration> = answers.map(|answer| answer.took).collect();
    took.sort_unstable();
    took[(took.len() as f64 * part) as usize]
}

/// Memory of each node that is its own, not of mapped files.
fn own_bytes(test: &TestCluster) -> Vec<u64> {
    let bytes = |node_id: u64| {
        let pid = test.cluster.pid(node_id).unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    };
    test.cluster.node_ids().into_iter().map(bytes).collect()
}

#[test]
fn past_the_knee_latency_is_bounded_and_the_excess_is_refused_by_name() {
    let mut test = TestCluster::start_with(3, SETTINGS);
    test.caught_up();
    let leader = test.leader();
    let mut raw = RawClient::connect(test.cluster.address(leader));
    let (if_missing, name) = (true, "a".to_owned());
    raw.send(0, &LogCreate { if_missing, name });
    let load = Load::new(raw.receive::<LogInfo>().log_id);
    load.closed_loop(
        &mut raw,
        Duration::ZERO,
        TAIL_BYTES / RECORD_BYTES as u64 + IN_FLIGHT,
    );
    for node_id in test.cluster.node_ids() {
        fs::write(test.cluster.data_dir(node_id).join("fault"), FAULT).unwrap();
    }
    let capacity = load.closed_loop(&mut raw, Duration::from_secs(3), 0);
    let before = own_bytes(&test);

    let seconds = 4.0;
    let count = (2.0 * capacity * seconds) as u64;
    let answers = load.open_loop(&mut raw, 2.0 * capacity, count);

    let (refused, taken): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.is_refused);
    println!(
        "capacity {capacity:.0}/s; of {count}: {} taken, p50 {:?}, p99 {:?}; {} refused, p50 {:?}, p99 {:?}",
        taken.len(),
        quantile(taken.iter().copied(), 0.5),
        quantile(taken.iter().copied(), 0.99),
        refused.len(),
        quantile(refused.iter().copied(), 0.5),
        quantile(refused.iter().copied(), 0.99),
    );
    // As much as before is taken, and the rest is refused.
    assert!(taken.len() as f64 > 0.6 * capacity * seconds);
    assert!(refused.len() as f64 > 0.2 * capacity * seconds);
    // What is taken waits for what may be uncommitted at most, not for all that was ever sent.
    let full = UNCOMMITTED_BYTES_MAX / (capacity * RECORD_BYTES as f64);
    let p99 = quantile(taken.iter().copied(), 0.99);
    assert!(p99.as_secs_f64() < 2.0 * full + 0.5, "{p99:?}, {full} s");
    let half = taken.len() / 2;
    let early = quantile(taken[half / 2..half].iter().copied(), 0.5);
    let late = quantile(taken[half + half / 2..].iter().copied(), 0.5);
    assert!(late < 2 * early, "{early:?} and then {late:?}");
    let refusals = quantile(refused.iter().copied(), 0.5);
    assert!(refusals < early / 4, "{refusals:?}");

    for (node, (before, after)) in before.iter().zip(own_bytes(&test)).enumerate() {
        let grown = after.saturating_sub(*before);
        println!("node {}: {before} bytes before, {after} after", node + 1);
        assert!(
            grown < GROWTH_BYTES_MAX,
            "node {} grew by {grown}",
            node + 1
        );
    }
    // And it goes on as if nothing had been.
    assert_eq!(test.leader(), leader);
    assert!(load.closed_loop(&mut raw, Duration::from_secs(1), 0) > 0.6 * capacity);
}
