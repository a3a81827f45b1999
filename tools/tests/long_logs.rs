//! Many logs and many producers while leaders are killed: every log reads back dense, and each producer's
//! records are there once and in its order.
//!
//! Small by default. The large run, for five minutes:
//! `DRAVE_TEST_LOGS=10000 DRAVE_TEST_PRODUCERS=1000 DRAVE_TEST_SECONDS=300 DRAVE_TEST_KILL_MS=5000
//! DRAVE_TEST_PACE_MS=500 cargo test --release -p drave-tools --test long_logs -- --nocapture`;
//! nothing is trimmed, so that its disks fill with what is appended, a few GiB.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Random, TestCluster};
use drave_client::{Ack, Client, Log, ProducerOptions, Ticket};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Connections that the producers share: many producers of one service, in several services.
const CLIENTS: usize = 8;

/// Batches of one producer on their way.
const IN_FLIGHT: usize = 4;

/// Requests of the test's own at a time, while it creates and reads logs.
const AT_ONCE: usize = 64;

/// Between two looks at the count of acknowledgements.
const PAUSE: Duration = Duration::from_millis(5);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
struct Size {
    logs: usize,
    producers: usize,
    /// The load goes on for so long and until `kills_min` leaders were killed.
    seconds: u64,
    kills_min: usize,
    kill_ms: u64,
    /// What a producer waits between two batches.
    pace_ms: u64,
}

impl Size {
    fn from_environment() -> Self {
        Self {
            logs: given("DRAVE_TEST_LOGS", 200) as usize,
            producers: given("DRAVE_TEST_PRODUCERS", 20) as usize,
            seconds: given("DRAVE_TEST_SECONDS", 1),
            kills_min: 2,
            kill_ms: given("DRAVE_TEST_KILL_MS", 500),
            pace_ms: given("DRAVE_TEST_PACE_MS", 1),
        }
    }
}

fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// What the producers and the test tell each other.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    acknowledged: AtomicU64,
    duplicates: AtomicU64,
    /// The longest wait for one acknowledgement, milliseconds.
    wait_ms_max: AtomicU64,
}

/// What one producer was told: for each of its counts, the log's number and the seq.
type Told = Vec<(usize, u64)>;

/// What all producers have in common.
#[derive(Clone)]
struct Load {
    size: Size,
    logs: Arc<Vec<u64>>,
    shared: Arc<Shared>,
}

/// A batch on its way: its log's number, when it went, how many records it has.
struct Sent {
    log: usize,
    at: Instant,
    ticket: Ticket,
}

async fn settle(sent: Sent, shared: &Shared, told: &mut Told) {
    let ack: Ack = sent.ticket.await.unwrap();
    let wait_ms = sent.at.elapsed().as_millis() as u64;
    shared.wait_ms_max.fetch_max(wait_ms, Ordering::Relaxed);
    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    let duplicates = u64::from(ack.duplicate);
    shared.duplicates.fetch_add(duplicates, Ordering::Relaxed);
    told.extend((0..u64::from(ack.record_count)).map(|part| (sent.log, ack.first_seq + part)));
}

/// Appends one to three records at a time to one log after the other, until the test says that it is over.
async fn produce(number: usize, client: Client, load: Load) -> Told {
    let Load { size, logs, shared } = load;
    let producer = client.producer(ProducerOptions::default());
    let (mut told, mut on_the_way) = (Told::new(), VecDeque::new());
    let mut count = 0;
    for round in 0.. {
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        // Neighbours write to the same logs, and come back to each.
        let log = (number * 7 + round * 3) % logs.len();
        let records = 1 + (number + round) % 3;
        let payloads = (count..count + records).map(|count| format!("{number} {count}"));
        count += records;
        let at = Instant::now();
        let ticket = producer.submit(logs[log], payloads).await.unwrap();
        on_the_way.push_back(Sent { log, at, ticket });
        tokio::time::sleep(Duration::from_millis(size.pace_ms)).await;
        if on_the_way.len() == IN_FLIGHT {
            settle(on_the_way.pop_front().unwrap(), &shared, &mut told).await;
        }
    }
    for sent in on_the_way {
        settle(sent, &shared, &mut told).await;
    }
    assert_eq!(told.len(), count, "each record has its answer");
    told
}

/// Runs all producers on a thread of their own.
fn start_load(test: &TestCluster, load: Load) -> thread::JoinHandle<Vec<Told>> {
    let endpoints = test.cluster.endpoints();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = |_| {
                let builder = Client::builder().endpoints(endpoints.clone());
                builder.request_timeout(LIMIT).build().unwrap()
            };
            let clients: Vec<Client> = (0..CLIENTS).map(client).collect();
            let tasks: Vec<_> = (0..load.size.producers)
                .map(|number| {
                    let client = clients[number % CLIENTS].clone();
                    tokio::spawn(produce(number, client, load.clone()))
                })
                .collect();
            let mut told = Vec::new();
            for task in tasks {
                told.push(task.await.unwrap());
            }
            told
        })
    })
}

/// Runs `job` for each number, some at a time, and gives the results in the numbers' order.
async fn for_each<F: Future<Output: Send + 'static> + Send + 'static>(
    count: usize,
    job: impl Fn(usize) -> F,
) -> Vec<F::Output> {
    let (mut running, mut results) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        let future = job(number);
        running.spawn(async move { (number, future.await) });
        if running.len() == AT_ONCE {
            results.push(running.join_next().await.unwrap().unwrap());
        }
    }
    results.extend(running.join_all().await);
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

async fn create(client: Client, number: usize) -> Log {
    let name = format!("long/{number:05}");
    // A retry after an answer that was lost finds the log there.
    client.create_log(&name, true).await.unwrap();
    client.log(&name).await.unwrap()
}

/// Kills leaders until the time is over; how many.
fn kill_leaders(test: &mut TestCluster, size: Size, shared: &Shared) -> usize {
    let (begun, mut random) = (Instant::now(), Random::new());
    let mut kills = 0;
    while kills < size.kills_min || begun.elapsed() < Duration::from_secs(size.seconds) {
        let before = shared.acknowledged.load(Ordering::Relaxed);
        let span = size.kill_ms as usize;
        let kill_at =
            Instant::now() + Duration::from_millis(random.between(span / 2, span * 3 / 2) as u64);
        let give_up_at = Instant::now() + LIMIT;
        // Leaders that serve are killed, not ones that only came to be.
        while Instant::now() < kill_at || shared.acknowledged.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < give_up_at, "nothing is acknowledged");
            thread::sleep(PAUSE);
        }
        let leader = test.leader();
        test.cluster.kill(leader).unwrap();
        assert_ne!(test.leader(), leader);
        test.cluster.start(leader).unwrap();
        kills += 1;
    }
    kills
}

/// Producer and count of a record.
fn parsed(payload: &[u8]) -> (usize, usize) {
    let (producer, count) = std::str::from_utf8(payload)
        .unwrap()
        .split_once(' ')
        .unwrap();
    (producer.parse().unwrap(), count.parse().unwrap())
}

/// All records of a log, their seqs checked to begin at 0 and to have no gap.
async fn read_all(log: Log) -> Vec<(usize, usize)> {
    let (mut reader, mut records) = (log.reader(0), Vec::new());
    while let Some(chunk) = reader.next().await.unwrap() {
        for record in chunk.records {
            assert_eq!(record.seq, records.len() as u64, "{} is dense", log.name());
            records.push(parsed(&record.payload));
        }
    }
    records
}

/// Every record that was acknowledged is where it was said to be, and nothing else is anywhere.
fn check(held: &[Vec<(usize, usize)>], told: &[Told]) {
    for (log, records) in held.iter().enumerate() {
        let mut last = HashMap::new();
        for (seq, &(producer, count)) in records.iter().enumerate() {
            assert_eq!(
                told[producer][count],
                (log, seq as u64),
                "{producer}'s record {count}"
            );
            let before = last.insert(producer, count);
            assert!(
                before < Some(count),
                "{producer}'s {count} after {before:?} in {log}"
            );
        }
    }
    // As many as were told, each at the one place that its producer was told of: none is missing.
    let held: usize = held.iter().map(Vec::len).sum();
    assert_eq!(held, told.iter().map(Vec::len).sum::<usize>());
}

#[test]
fn logs_are_whole_after_many_leaders_died() {
    let size = Size::from_environment();
    let mut test = TestCluster::start(3);
    let client = test.client.clone();
    let logs = for_each(size.logs, |number| create(client.clone(), number));
    let logs = test.runtime.block_on(logs);
    let shared = Arc::new(Shared::default());
    let load = Load {
        size,
        logs: Arc::new(logs.iter().map(Log::id).collect()),
        shared: Arc::clone(&shared),
    };
    let begun = Instant::now();
    let loading = start_load(&test, load);
    let kills = kill_leaders(&mut test, size, &shared);
    shared.is_over.store(true, Ordering::Relaxed);
    let told = loading.join().unwrap();
    let elapsed = begun.elapsed();
    let held = for_each(logs.len(), |number| read_all(logs[number].clone()));
    let held = test.runtime.block_on(held);
    check(&held, &told);
    let records: usize = held.iter().map(Vec::len).sum();
    println!(
        "{size:?}: {kills} leaders killed in {elapsed:.1?}, {records} records in {} batches, of which {} were \
         answered as there already, longest wait {} ms",
        shared.acknowledged.load(Ordering::Relaxed),
        shared.duplicates.load(Ordering::Relaxed),
        shared.wait_ms_max.load(Ordering::Relaxed),
    );
    test.caught_up();
    for log in [0, size.logs / 2, size.logs - 1] {
        let name = format!("long/{log:05}");
        let whole = test.run(&["read", &name], b"").assert_code(0).stdout;
        for held in test.read_each_node(&name) {
            assert!(held == whole, "a replica differs in {name}");
        }
    }
}
