//! Quotas of logs and of clients, and logs that share a cluster with one that takes all it gets.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{RunningAppend, TestCluster, numbered_lines};

/// Records a second.
const RATE: u64 = 100;

/// Lines that take two seconds more than the one that is given at once.
const LINES: usize = 300;

/// What is beyond the first second's worth is given at the rate.
const LONGEST_FIRST: Duration = Duration::from_millis(1_990);

fn described(test: &TestCluster, log: &str) -> serde_json::Value {
    let printed = test.run(&["log", "describe", log, "-o", "json"], b"");
    serde_json::from_str(printed.assert_code(0).text()).unwrap()
}

/// Appends lines, each a batch of its own, and gives how long that took.
fn append(test: &TestCluster, log: &str, lines: usize) -> Duration {
    let begun = Instant::now();
    let arguments = ["append", log, "--batch", "1", "--create"];
    let appended = test.run(&arguments, &numbered_lines(lines)).assert_code(0);
    let seqs: Vec<usize> = appended
        .text()
        .lines()
        .map(|l| l.parse().unwrap())
        .collect();
    assert!(seqs.iter().copied().eq(0..lines), "each once, in order");
    begun.elapsed()
}

#[test]
fn a_log_takes_what_its_quota_gives_and_others_are_not_held() {
    let mut test = TestCluster::start(3);
    test.run(&["log", "create", "a"], b"").assert_code(0);
    let rate = RATE.to_string();
    let set = ["log", "set-quota", "a", "--records-per-second", &rate];
    test.run(&set, b"").assert_code(0);
    assert!(append(&test, "a", LINES) >= LONGEST_FIRST);
    // Another log, and another leader: what holds for the log is in the log.
    let unlimited = append(&test, "b", LINES);
    assert!(unlimited < LONGEST_FIRST, "{unlimited:?}");
    let leader = test.leader();
    test.cluster.kill(leader).unwrap();
    test.leader();
    assert_eq!(described(&test, "a")["quota_records_per_second"], RATE);
    assert!(described(&test, "a")["quota_bytes_per_second"].is_null());
    // Who does not wait is told by name, and has written nothing.
    let one = ["log", "set-quota", "a", "--records-per-second", "1"];
    test.run(&one, b"").assert_code(0);
    let many = numbered_lines(10);
    test.run(&["append", "a", "--batch", "10"], &many)
        .assert_code(0);
    let hurried = ["append", "a", "--timeout", "1s"];
    let refused = test.run(&hurried, b"x\n").assert_code(5);
    refused
        .assert_says("DRV-0113")
        .assert_says("not in the log")
        .assert_says("append less");
    assert_eq!(described(&test, "a")["next_seq"], LINES + 10);
    let free = ["log", "set-quota", "a", "--unlimited"];
    test.run(&free, b"").assert_code(0);
    test.run(&hurried, b"x\n").assert_code(0);
    test.run(&["log", "set-quota", "a"], b"").assert_code(2);
    let nothing = ["log", "set-quota", "a", "--bytes-per-second", "0"];
    test.run(&nothing, b"").assert_code(2);
}

#[test]
fn bytes_are_counted() {
    let test = TestCluster::start(1);
    test.run(&["log", "create", "a"], b"").assert_code(0);
    let set = ["log", "set-quota", "a", "--bytes-per-second", "64KiB"];
    test.run(&set, b"").assert_code(0);
    let begun = Instant::now();
    // 64 KiB at once, and as much in each of two seconds: overhead comes on top.
    let line = format!("{}\n", "x".repeat(4_095)).into_bytes();
    let piece = line.repeat(3 * 16);
    test.run(&["append", "a", "--batch", "1"], &piece)
        .assert_code(0);
    assert!(begun.elapsed() >= LONGEST_FIRST, "{:?}", begun.elapsed());
}

#[test]
fn each_client_has_its_own_quota() {
    let settings = format!("[limits]\nclient_records_per_second = {RATE}\n");
    let test = TestCluster::start_with(1, &settings);
    let held: Vec<Duration> = std::thread::scope(|scope| {
        let running = ["a", "b"].map(|log| scope.spawn(|| append(&test, log, LINES)));
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(held.iter().all(|took| *took >= LONGEST_FIRST), "{held:?}");
}

/// Logs that get a record now and then while one gets all it can.
const LIGHT: usize = 999;
const ROUNDS: usize = 3;

/// Without end, the heavy one would hold them for the whole timeout of a request.
const STARVED: Duration = Duration::from_secs(5);

#[test]
fn one_heavy_producer_does_not_starve_light_ones() {
    let test = TestCluster::start(3);
    test.run(&["log", "create", "heavy"], b"").assert_code(0);
    let client = test.client.clone();
    let logs: Vec<drave_client::Log> = test.runtime.block_on(async {
        let mut logs = Vec::new();
        for number in 0..LIGHT {
            let name = format!("light/{number}");
            client.create_log(&name, true).await.unwrap();
            logs.push(client.log(&name).await.unwrap());
        }
        logs
    });
    let heavy = ["append", "heavy", "--in-flight", "1024"];
    let mut running = RunningAppend::start(test.drave(&heavy));
    let mut input = running.take_input();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let feeding = std::thread::spawn(move || {
        let lines = format!("{}\n", "x".repeat(1_023))
            .repeat(1_024)
            .into_bytes();
        while !ends.load(Ordering::Relaxed) {
            input.write_all(&lines).unwrap();
        }
    });
    // It is under way, with all that it may have unanswered.
    running.wait_acknowledged(10_000);
    let mut took: Vec<Duration> = test.runtime.block_on(async {
        let mut appending = tokio::task::JoinSet::new();
        for log in logs {
            appending.spawn(async move {
                let mut took = Vec::new();
                for _ in 0..ROUNDS {
                    let begun = Instant::now();
                    log.append("x").await.unwrap();
                    took.push(begun.elapsed());
                }
                took
            });
        }
        appending.join_all().await.into_iter().flatten().collect()
    });
    is_over.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    let (ended, acknowledged) = running.finish();
    ended.assert_code(0);
    took.sort_unstable();
    let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{} light appends beside {} heavy records: half in {half:?}, all in {most:?}",
        took.len(),
        acknowledged.len(),
    );
    assert!(most < STARVED, "{most:?}");
}
