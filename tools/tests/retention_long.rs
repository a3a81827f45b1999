//! Retention under load until each segment was recycled several times, with two logs that get a record now and then,
//! one that forgets them soon and one that keeps them for ever: what the disks hold stays within twice what retention
//! allows, which is the limit and what comes between two looks. What is kept is there at the end, also after a restart.
//!
//! Small by default. The large run: `DRAVE_TEST_NODES=3 DRAVE_TEST_RECYCLED=10 DRAVE_TEST_RETENTION_MIB=256
//! cargo test --release -p drave-tools --test retention_long -- --nocapture`
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::TestCluster;
use drave_client::{ProducerOptions, Retention};
use tokio::time::MissedTickBehavior;

/// What the busy log gets in a second: retention is looked at once a second, and what came since is held too.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// Batches of the busy log on their way.
const IN_FLIGHT: usize = 4;

/// Half a GiB of these is between two places at which the slow logs can be given up: their records are carried over.
const BATCH_BYTES: u64 = 1 << 20;

/// Batches between two looks at the disks.
const LOOK_BATCHES: u64 = 4;

/// Between two records of the slow logs, and how long the one keeps them.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// Snapshots after few bytes, so that segments can go.
const SETTINGS: &str = "[snapshots]\nlog_bytes = \"8MiB\"\n";

fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Bytes of all files below a directory, as the disk holds them.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        // Segments come and go.
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| match metadata.is_dir() {
            true => disk_bytes(&path),
            false => metadata.blocks() * 512,
        })
        .sum()
}

/// How many segment files a node has, and the number of the newest: each use of a file gets the next number.
fn segments(data_dir: &Path) -> (u64, u64) {
    let files = fs::read_dir(data_dir.join("group-0")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let numbers: Vec<u64> = names
        .filter_map(|name| name.strip_suffix(".wal")?.rsplit('-').next()?.parse().ok())
        .collect();
    (numbers.len() as u64, numbers.into_iter().max().unwrap())
}

/// The most that was seen at once.
#[derive(Debug, Default)]
struct Most {
    disk_bytes: u64,
    files: u64,
}

/// Appends until every node has used each of its segments so often.
async fn load(test: &TestCluster, recycled: u64, bytes_max: u64) -> (Most, u64, u64) {
    let client = &test.client;
    let busy = client.log("busy").await.unwrap().id();
    let slow = client.log("slow").await.unwrap();
    let kept = client.log("kept").await.unwrap();
    let producer = client.producer(ProducerOptions::default());
    let pace = Duration::from_secs(1) * BATCH_BYTES as u32 / BYTES_PER_SECOND as u32;
    let mut ticks = tokio::time::interval(pace);
    // What was missed is not made up for: that would be a higher rate.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let dirs: Vec<_> = test.cluster.node_ids();
    let dirs: Vec<_> = dirs
        .into_iter()
        .map(|id| test.cluster.data_dir(id))
        .collect();
    let payload = vec![b'x'; BATCH_BYTES as usize / 4];
    let (mut most, mut batches) = (Most::default(), 0);
    let mut records = 0;
    let (mut tickets, mut slow_at) = (std::collections::VecDeque::new(), Instant::now());
    loop {
        ticks.tick().await;
        if slow_at <= Instant::now() {
            slow.append("now and then").await.unwrap();
            kept.append(records.to_string()).await.unwrap();
            records += 1;
            slow_at += SLOW_INTERVAL;
        }
        let records = [&payload; 4];
        tickets.push_back(producer.submit(busy, records).await.unwrap());
        if tickets.len() == IN_FLIGHT {
            tickets.pop_front().unwrap().await.unwrap();
        }
        batches += 1;
        if batches % LOOK_BATCHES != 0 {
            continue;
        }
        let mut is_done = true;
        for dir in &dirs {
            most.disk_bytes = most.disk_bytes.max(disk_bytes(dir));
            let (files, newest) = segments(dir);
            most.files = most.files.max(files);
            assert!(most.disk_bytes <= bytes_max, "{most:?}");
            is_done &= newest >= (recycled + 1) * most.files;
        }
        if is_done {
            break;
        }
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    (most, batches * BATCH_BYTES, records)
}

/// Where the first node's segments are.
fn dir_of_group(test: &TestCluster) -> String {
    let node = test.cluster.node_ids()[0];
    common::path_text(&test.cluster.data_dir(node).join("group-0"))
}

#[test]
fn the_disks_hold_at_most_twice_what_retention_allows() {
    let recycled = given("DRAVE_TEST_RECYCLED", 1);
    let nodes = given("DRAVE_TEST_NODES", 1);
    let retention_bytes = given("DRAVE_TEST_RETENTION_MIB", 96) << 20;
    let allowed = retention_bytes + BYTES_PER_SECOND;
    let mut test = TestCluster::start_with(nodes, SETTINGS);
    let busy = Retention {
        bytes: Some(retention_bytes),
        age: None,
    };
    let slow = Retention {
        bytes: None,
        age: Some(SLOW_INTERVAL),
    };
    test.runtime.block_on(async {
        for (name, retention) in [
            ("busy", busy),
            ("slow", slow),
            ("kept", Retention::default()),
        ] {
            test.client.create_log(name, true).await.unwrap();
            test.client.set_retention(name, retention).await.unwrap();
        }
    });
    let begun = Instant::now();
    let (most, appended, records) = test.runtime.block_on(load(&test, recycled, 2 * allowed));
    println!(
        "{nodes} nodes, each segment recycled {recycled} times: {} MiB appended in {:.1?}, {} MiB retained, a disk \
         held at most {} MiB in {} segments",
        appended >> 20,
        begun.elapsed(),
        retention_bytes >> 20,
        most.disk_bytes >> 20,
        most.files,
    );
    assert!(most.disk_bytes > retention_bytes, "as much is kept");
    let lines: String = (0..records).map(|number| format!("{number}\n")).collect();
    let has_all = |test: &mut TestCluster| {
        test.caught_up();
        for found in test.read_each_node("kept") {
            assert!(found == lines.as_bytes(), "{} of {records}", found.len());
        }
    };
    has_all(&mut test);
    for node in test.cluster.node_ids() {
        test.cluster.kill(node).unwrap();
    }
    for node in test.cluster.node_ids() {
        test.cluster.start(node).unwrap();
    }
    has_all(&mut test);
    let carried = test.run(&["wal", "dump", &dir_of_group(&test)], b"");
    let carried = carried.text().matches("carry-over").count();
    println!("{records} records of each slow log, {carried} entries hold what was carried over");
    assert!(carried > 0);
}
