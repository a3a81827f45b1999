//! Writers that take a log over from one another while its leaders die: at each time one of them writes.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use common::{TestCluster, numbered_lines};
use drave_client::{Client, ErrorCode, Log};

/// Takeovers of each of two writers.
const TAKEOVERS: u32 = 12;

/// Appends of each of them, unless it is fenced before.
const APPENDS: u32 = 200;

/// Leaders that die meanwhile.
const DEATHS: u32 = 3;

/// Takes the log over again and again, and writes until it is fenced. Each record says the token it was written
/// under. Gives the tokens it held, and the records that were refused.
async fn write(log: Log) -> (Vec<u64>, Vec<String>) {
    let (mut tokens, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..TAKEOVERS {
        let fenced = log.fence().await.unwrap();
        let token = fenced.fence_token();
        tokens.push(token);
        for number in 0..APPENDS {
            let record = format!("{token} {number}");
            match fenced.append(&record).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(ErrorCode::Fenced) => {
                    assert!(error.has_no_side_effects());
                    refused.push(record);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (tokens, refused)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
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

#[test]
fn one_of_two_writers_writes_while_leaders_die() {
    let mut test = TestCluster::start(3);
    test.run(&["log", "create", "a"], b"").assert_code(0);
    let endpoints = test.cluster.endpoints();
    let open = async |endpoints: Vec<String>| {
        let client = Client::builder()
            .endpoints(endpoints)
            .request_timeout(Duration::from_secs(30));
        client.build().unwrap().log("a").await.unwrap()
    };
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let endpoints = endpoints.clone();
            thread::spawn(move || runtime().block_on(async { write(open(endpoints).await).await }))
        })
        .collect();
    for _ in 0..DEATHS {
        let dead = test.leader();
        test.cluster.kill(dead).unwrap();
        assert_ne!(test.leader(), dead);
        test.cluster.start(dead).unwrap();
    }
    let outcomes: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    let records = runtime().block_on(async { records(&open(endpoints).await).await });
    let held: Vec<u64> = records
        .iter()
        .map(|record| record.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(held.is_sorted(), "a writer wrote after it was fenced");
    let mut holders = BTreeMap::new();
    for (writer, (tokens, refused)) in outcomes.iter().enumerate() {
        for token in tokens {
            let other = holders.insert(*token, writer);
            assert_eq!(other, None, "token {token} was given twice");
        }
        for record in refused {
            assert!(!records.contains(record), "{record} was refused");
        }
    }
    assert!(!records.is_empty());
    let numbers = |token: u64| {
        let of_token = records
            .iter()
            .filter(move |record| record.starts_with(&format!("{token} ")));
        of_token.collect::<Vec<_>>()
    };
    for token in holders.keys() {
        let found = numbers(*token);
        let expected = (0..found.len()).map(|number| format!("{token} {number}"));
        assert!(found.into_iter().eq(expected.collect::<Vec<_>>().iter()));
    }
}

#[test]
fn the_token_is_printed_and_appended_with() {
    let test = TestCluster::start(1);
    let lines = numbered_lines(5);
    test.run(&["append", "a", "--create"], &lines)
        .assert_code(0);
    let token = test.run(&["log", "fence", "a"], b"").assert_code(0);
    assert_eq!(token.text(), "1\n");
    let late = test.run(&["append", "a"], &lines).assert_code(4);
    late.assert_says("DRV-0112");
    test.run(&["append", "a", "--fence", "1"], &lines)
        .assert_code(0);
    let set = test.run(&["log", "fence", "a", "--token", "7"], b"");
    assert_eq!(set.assert_code(0).text(), "7\n");
    let low = test.run(&["log", "fence", "a", "--token", "6"], b"");
    low.assert_code(4).assert_says("DRV-0112");
    test.run(&["append", "a", "--fence", "1"], &lines)
        .assert_code(4);
    let described = test.run(&["log", "describe", "a", "-o", "json"], b"");
    let described: serde_json::Value =
        serde_json::from_str(described.assert_code(0).text()).unwrap();
    assert_eq!(described["fence"], 7);
    assert_eq!(described["fence_seq"], 10);
    assert_eq!(described["next_seq"], 10);
    test.run(&["log", "fence", "none"], b"").assert_code(3);
    test.run(&["append", "a", "--fence", "0"], b"")
        .assert_code(2);
}
