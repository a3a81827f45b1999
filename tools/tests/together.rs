//! Appends to several logs at once, while leaders die: each is in all its logs or in none, and once.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use common::{TestCluster, numbered_lines};
use drave_client::{Client, ClientError, ErrorCode, Log};

const LOGS: [&str; 3] = ["a", "b", "c"];

/// Writers that append at the same time, and appends of each.
const WRITERS: u32 = 3;
const APPENDS: u32 = 300;

/// Leaders that die meanwhile.
const DEATHS: u32 = 3;

fn client(endpoints: &[String]) -> Client {
    let builder = Client::builder()
        .endpoints(endpoints.to_vec())
        .request_timeout(Duration::from_secs(30));
    builder.build().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn open(client: &Client) -> Vec<Log> {
    let mut logs = Vec::new();
    for name in LOGS {
        logs.push(client.log(name).await.unwrap());
    }
    logs
}

async fn records(log: &Log) -> Vec<String> {
    let mut reader = log.reader(0);
    let mut records = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        let texts = chunk.records.iter().map(|record| record.payload.to_vec());
        records.extend(texts.map(|text| String::from_utf8(text).unwrap()));
    }
    records
}

/// Waits until one of the logs has so many records.
async fn reach(client: &Client, count: u64) {
    let log = client.log("c").await.unwrap();
    while log.check_tail().await.unwrap().next_seq < count {}
}

/// Appends to all logs, in another order each time. Gives what was acknowledged and what is unknown.
async fn write(client: Client, writer: u32) -> (Vec<String>, Vec<String>) {
    let logs = open(&client).await;
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for number in 0..APPENDS {
        let record = format!("{writer} {number}");
        let mut together = client.together();
        for at in 0..logs.len() {
            let log = &logs[(at + number as usize) % logs.len()];
            together = together.push(log, [&record]);
        }
        match together.append().await {
            Ok(_) => acknowledged.push(record),
            Err(ClientError::Unknown { .. }) => unknown.push(record),
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, unknown)
}

/// Counts with a condition in two logs, against rivals: whoever is refused has written to neither.
async fn count(client: Client, writer: u32) -> u32 {
    let (a, b) = (
        client.log("a").await.unwrap(),
        client.log("b").await.unwrap(),
    );
    let mut won = 0;
    for number in 0..50 {
        let next_seq = a.check_tail().await.unwrap().next_seq;
        let record = format!("{writer} {number}");
        let together = client.together().push(&b, [&record]);
        match together.push_if(&a, next_seq, [&record]).append().await {
            Ok(ack) => {
                assert_eq!(ack.logs[1].first_seq, next_seq);
                won += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::ExpectSeq), "{error}");
                assert!(error.has_no_side_effects());
            }
        }
    }
    won
}

#[test]
fn what_is_appended_together_is_in_all_logs_or_in_none_while_leaders_die() {
    let mut test = TestCluster::start(3);
    for log in LOGS {
        test.run(&["log", "create", log], b"").assert_code(0);
    }
    let endpoints = test.cluster.endpoints();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let endpoints = endpoints.clone();
            thread::spawn(move || {
                runtime().block_on(async { write(client(&endpoints), writer).await })
            })
        })
        .collect();
    let watching = client(&endpoints);
    for death in 1..=DEATHS {
        // In the middle of it: a quarter of the appends between one death and the next.
        let enough = u64::from(WRITERS * APPENDS / (DEATHS + 1) * death);
        runtime().block_on(async { reach(&watching, enough).await });
        let dead = test.leader();
        test.cluster.kill(dead).unwrap();
        assert_ne!(test.leader(), dead);
        test.cluster.start(dead).unwrap();
    }
    let outcomes: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    let all = runtime().block_on(async {
        let mut all = Vec::new();
        for log in open(&client(&endpoints)).await {
            all.push(records(&log).await);
        }
        all
    });
    // One entry after another: each log has the same records in the same order.
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
    let there: BTreeSet<&String> = all[0].iter().collect();
    assert_eq!(there.len(), all[0].len(), "none is there twice");
    let mut maybe = 0;
    for (acknowledged, unknown) in &outcomes {
        assert!(!acknowledged.is_empty());
        for record in acknowledged {
            assert!(there.contains(record), "{record} was acknowledged");
        }
        maybe += unknown
            .iter()
            .filter(|record| there.contains(record))
            .count();
    }
    let acknowledged: usize = outcomes
        .iter()
        .map(|(acknowledged, _)| acknowledged.len())
        .sum();
    assert_eq!(there.len(), acknowledged + maybe);
    // What the disks hold says the same.
    for node in 1..=3 {
        test.cluster.kill(node).unwrap();
    }
    for node in 1..=3 {
        test.cluster.start(node).unwrap();
    }
    let again = runtime().block_on(async {
        let logs = open(&client(&endpoints)).await;
        records(&logs[1]).await
    });
    assert_eq!(again, all[1]);
}

#[test]
fn a_condition_holds_for_all_logs_at_once() {
    let test = TestCluster::start(3);
    for log in LOGS {
        test.run(&["log", "create", log], b"").assert_code(0);
    }
    let endpoints = test.cluster.endpoints();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let endpoints = endpoints.clone();
            thread::spawn(move || {
                runtime().block_on(async { count(client(&endpoints), writer).await })
            })
        })
        .collect();
    let won: u32 = writers.into_iter().map(|w| w.join().unwrap()).sum();
    let logs = runtime().block_on(async {
        let logs = open(&client(&endpoints)).await;
        (records(&logs[0]).await, records(&logs[1]).await)
    });
    assert_eq!(logs.0, logs.1);
    assert_eq!(logs.0.len(), won as usize);
    assert!(won > 0);
}

#[test]
fn the_command_appends_to_all_or_says_why_to_none() {
    let test = TestCluster::start(1);
    for log in ["a", "b"] {
        test.run(&["append", log, "--create"], &numbered_lines(3))
            .assert_code(0);
    }
    let appended = test.run(
        &[
            "append-together",
            "b=one",
            "a=two",
            "b=three",
            "-o",
            "jsonl",
        ],
        b"",
    );
    let lines: Vec<serde_json::Value> = appended
        .assert_code(0)
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["log"], "b");
    assert_eq!(
        (&lines[0]["first_seq"], &lines[0]["record_count"]),
        (&3.into(), &2.into())
    );
    assert_eq!(
        (&lines[1]["first_seq"], &lines[1]["record_count"]),
        (&3.into(), &1.into())
    );
    let together = |more: &[&str]| {
        let arguments = [&["append-together", "a=x", "b=y"], more].concat();
        test.run(&arguments, b"")
    };
    together(&["--expect-seq", "a=3"])
        .assert_code(4)
        .assert_says("DRV-0104");
    test.run(&["log", "fence", "b"], b"").assert_code(0);
    together(&[]).assert_code(4).assert_says("DRV-0112");
    together(&["--fence", "b=1", "--expect-seq", "a=4"]).assert_code(0);
    together(&["--fence", "c=1"]).assert_code(2);
    test.run(&["append-together", "a=x", "none=y"], b"")
        .assert_code(3)
        .assert_says("DRV-0201");
    test.run(&["log", "close", "b"], b"").assert_code(0);
    together(&["--fence", "b=1"])
        .assert_code(4)
        .assert_says("DRV-0209");
    let a = test.run(&["read", "a", "--from", "3"], b"").assert_code(0);
    assert_eq!(a.text(), "two\nx\n");
    let b = test.run(&["read", "b", "--from", "3"], b"").assert_code(0);
    assert_eq!(b.text(), "one\nthree\ny\n");
}
