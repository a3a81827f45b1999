//! Many tailers on one hot log, all served by the leader: what it costs grows with the bytes sent, and tailers that
//! read nothing from their sockets change neither the others' latency nor the leader's memory.
//!
//! Small by default. The large run: `DRAVE_TEST_TAILERS=1000 cargo test --release -p drave-tools --test many_tailers
//! -- --nocapture`
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::raw::RawClient;
use common::{LIMIT, TestCluster};
use drave_batch::wire::TailStart;
use drave_client::{Client, TailEvent, TailFrom};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

/// Connections that the tailers share.
const CLIENTS: usize = 8;

/// Each batch is so many records of so many bytes.
const RECORDS: usize = 4;
const RECORD_BYTES: usize = 4096;
const BATCH_BYTES: u64 = (RECORDS * RECORD_BYTES) as u64;

/// Batches between two measurements.
const BATCHES: usize = 64;

/// Batches while some tailers are stuck: their bytes times the stuck tailers are far more than `GROWN_BYTES_MAX`.
const BATCHES_STUCK: usize = 1024;

/// Connections of which nothing is read, each with as much credit as can be given.
const STUCK: usize = 24;

/// The leader's memory grows by no more meanwhile. A copy of what each stuck tailer is owed would be 384 MiB.
const GROWN_BYTES_MAX: u64 = 128 << 20;

/// Of a process: nanoseconds of processor time, all threads.
fn processor_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("schedstat")).ok())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Of a process: bytes of memory that it holds.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// The tailers and what they share with the appender.
struct Tailers {
    count: usize,
    /// One permit for each tailer that has caught up, and then for each batch that a tailer has in full.
    have: Arc<Semaphore>,
    running: thread::JoinHandle<()>,
}

impl Tailers {
    /// Starts them at the leader on a thread of their own, and waits until all have caught up.
    fn start(test: &TestCluster, leader: u64, count: usize) -> Self {
        let endpoints = test.cluster.endpoints();
        let have = Arc::new(Semaphore::new(0));
        let shared = Arc::clone(&have);
        let running = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let clients: Vec<Client> = (0..CLIENTS)
                    .map(|_| Client::builder().endpoints(endpoints.clone()))
                    .map(|builder| builder.request_timeout(LIMIT).build().unwrap())
                    .collect();
                let tasks: Vec<_> = (0..count)
                    .map(|number| clients[number % CLIENTS].clone())
                    .map(|client| tokio::spawn(follow(client, leader, Arc::clone(&shared))))
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
        let tailers = Self {
            count,
            have,
            running,
        };
        test.runtime.block_on(tailers.all_have());
        tailers
    }

    /// Waits until each tailer gave one permit more.
    async fn all_have(&self) {
        let count = self.count as u32;
        let acquired = tokio::time::timeout(LIMIT, self.have.acquire_many(count)).await;
        acquired
            .expect("every tailer gets everything")
            .unwrap()
            .forget();
    }

    /// Appends batches, each when every tailer has the one before; how long each took to be at all of them.
    fn feed(&self, test: &TestCluster, batches: usize) -> Vec<Duration> {
        let payload = vec![7; RECORD_BYTES];
        test.runtime.block_on(async {
            let log = test.client.log("hot").await.unwrap();
            let mut took = Vec::new();
            for _ in 0..batches {
                let began = Instant::now();
                log.append_batch((0..RECORDS).map(|_| &payload))
                    .await
                    .unwrap();
                self.all_have().await;
                took.push(began.elapsed());
            }
            took.sort_unstable();
            took
        })
    }

    /// Ends them all by an empty record. The next batch begins at a multiple of its records again.
    fn end(self, test: &TestCluster) {
        test.runtime.block_on(async {
            let log = test.client.log("hot").await.unwrap();
            log.append_batch([""; RECORDS]).await.unwrap();
        });
        self.running.join().unwrap();
    }
}

/// Follows the log until a record says that it is over.
async fn follow(client: Client, leader: u64, have: Arc<Semaphore>) {
    let log = client.replica(leader).log("hot").await.unwrap();
    let mut tail = log.tail(TailFrom::End).await.unwrap();
    let (mut next_seq, mut is_ready) = (None, false);
    loop {
        match tail.next().await.unwrap() {
            TailEvent::Record(record) if record.payload.is_empty() => return,
            TailEvent::Record(record) => {
                assert!(
                    next_seq.is_none_or(|next_seq| record.seq == next_seq),
                    "no gap"
                );
                next_seq = Some(record.seq + 1);
                if (record.seq + 1).is_multiple_of(RECORDS as u64) {
                    have.add_permits(1);
                }
            }
            _ if !is_ready => {
                is_ready = true;
                have.add_permits(1);
            }
            _ => {}
        }
    }
}

/// Subscribes from the beginning on connections of which nothing is read.
fn stuck(test: &TestCluster, leader: u64) -> Vec<RawClient> {
    let log_id = test.runtime.block_on(test.client.log("hot")).unwrap().id();
    let start = TailStart {
        log_id,
        from_seq: 0,
        credit_bytes: u32::MAX,
    };
    let connect = |_| {
        let mut raw = RawClient::connect(test.cluster.address(leader));
        raw.send(1, &start);
        raw
    };
    (0..STUCK).map(connect).collect()
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}

#[test]
fn what_tailers_cost_is_the_bytes_sent_and_stuck_ones_harm_nobody() {
    let given = std::env::var("DRAVE_TEST_TAILERS");
    let most: usize = given.map_or(50, |count| count.parse().unwrap());
    let mut test = TestCluster::start(3);
    let created = test.client.create_log("hot", true);
    test.runtime.block_on(created).unwrap();
    let leader = test.leader();
    let pid = test.cluster.pid(leader).unwrap();
    let mut counts: Vec<usize> = [10, 100]
        .into_iter()
        .filter(|count| *count < most)
        .collect();
    counts.push(most);
    let mut per_byte = Vec::new();
    let mut alone = Vec::new();
    for &count in &counts {
        let tailers = Tailers::start(&test, leader, count);
        tailers.feed(&test, BATCHES);
        let before = processor_ns(pid);
        alone = tailers.feed(&test, BATCHES);
        let spent = processor_ns(pid) - before;
        let sent = BATCH_BYTES * (BATCHES * count) as u64;
        let cost = spent as f64 / sent as f64;
        println!(
            "{count} tailers: {cost:.3} ns of the leader's processor time per byte sent, a batch is at all in p50 \
             {:?}, p99 {:?}",
            at(&alone, 50),
            at(&alone, 99),
        );
        per_byte.push(cost);
        if count == most {
            check_stuck(&test, &tailers, leader, &alone);
        }
        tailers.end(&test);
    }
    assert_eq!(alone.len(), BATCHES);
    // With few tailers a byte carries more of what an append itself costs; it must never cost more with many.
    assert!(
        per_byte.last() < per_byte.first().map(|cost| cost * 2.0).as_ref(),
        "{per_byte:?}"
    );
}

/// Feeds on while some read nothing: everybody else is as fast as `alone`, and memory stays.
fn check_stuck(test: &TestCluster, tailers: &Tailers, leader: u64, alone: &[Duration]) {
    let pid = test.cluster.pid(leader).unwrap();
    let before = resident_bytes(pid);
    let connections = stuck(test, leader);
    let took = tailers.feed(test, BATCHES_STUCK);
    let after = resident_bytes(pid);
    println!(
        "{STUCK} stuck beside {}: p50 {:?}, p99 {:?}, the leader holds {} MiB, before {} MiB",
        tailers.count,
        at(&took, 50),
        at(&took, 99),
        after >> 20,
        before >> 20,
    );
    // Generous for a loaded machine; a wait for a stuck tailer has no end at all, or a time-out's.
    let limit = at(alone, 50) * 4 + Duration::from_millis(100);
    assert!(
        at(&took, 50) < limit,
        "{:?}, limit {limit:?}",
        at(&took, 50)
    );
    assert!(
        after < before + GROWN_BYTES_MAX,
        "{after} bytes, before {before}"
    );
    drop(connections);
}
