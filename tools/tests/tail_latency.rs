//! From the acknowledgement of an append to its record at a subscribed tailer, at low load.
//! `cargo test --release -p drave-tools --test tail_latency -- --nocapture` prints the figures.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, TestCluster};
use drave_client::{Client, TailEvent, TailFrom};
use tokio::runtime::Builder;

const RECORDS: u64 = 1_000;

/// Between appends: nothing waits for anything else.
const INTERVAL: Duration = Duration::from_millis(2);

/// Half of the records are at the tailer by then on any machine: far below a timer's tick, a keep-alive, or
/// another append, one of which would be what a tailer waits for that is not told at once.
const HALF_US_MAX: i64 = 1_500;

/// Follows the log on a thread and a connection of its own; when each record came.
fn follow(endpoints: Vec<String>) -> (mpsc::Receiver<()>, thread::JoinHandle<Vec<Instant>>) {
    let (ready, is_ready) = mpsc::channel();
    let following = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::builder()
                .endpoints(endpoints)
                .request_timeout(LIMIT);
            let log = client.build().unwrap().log("a").await.unwrap();
            let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
            let mut came = Vec::new();
            while (came.len() as u64) < RECORDS {
                match tail.next().await.unwrap() {
                    TailEvent::Record(record) => {
                        assert_eq!(record.seq, came.len() as u64);
                        came.push(Instant::now());
                    }
                    _ => {
                        // The other end may have gone on without waiting for more than the first.
                        let _ = ready.send(());
                    }
                }
            }
            came
        })
    });
    (is_ready, following)
}

/// How much later, microseconds; negative when it was earlier.
fn micros(from: Instant, to: Instant) -> i64 {
    let span = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as i64;
    span(from, to) - span(to, from)
}

#[test]
fn a_record_is_at_a_tailer_right_after_its_acknowledgement() {
    let mut test = TestCluster::start(3);
    test.caught_up();
    let created = test.client.create_log("a", true);
    test.runtime.block_on(created).unwrap();
    let (is_ready, following) = follow(test.cluster.endpoints());
    is_ready.recv_timeout(LIMIT).unwrap();
    let acknowledged = test.runtime.block_on(async {
        let log = test.client.log("a").await.unwrap();
        let mut interval = tokio::time::interval(INTERVAL);
        let mut acknowledged = Vec::new();
        for _ in 0..RECORDS {
            interval.tick().await;
            let began = Instant::now();
            log.append(vec![7; 100]).await.unwrap();
            acknowledged.push((began, Instant::now()));
        }
        acknowledged
    });
    let came = following.join().unwrap();
    let pairs = || acknowledged.iter().zip(&came);
    let mut after: Vec<i64> = pairs().map(|((_, at), came)| micros(*at, *came)).collect();
    let mut whole: Vec<i64> = pairs()
        .map(|((began, _), came)| micros(*began, *came))
        .collect();
    after.sort_unstable();
    whole.sort_unstable();
    let at = |times: &[i64], percent: usize| times[times.len() * percent / 100];
    for (name, times) in [("acknowledgement", &after), ("append", &whole)] {
        let (p50, p90, p99) = (at(times, 50), at(times, 90), at(times, 99));
        println!("from {name} to tailer: p50 {p50} us, p90 {p90} us, p99 {p99} us");
    }
    assert!(at(&after, 50) < HALF_US_MAX, "{} us", at(&after, 50));
    // Nothing is shown before it is asked for.
    assert!(whole[0] > 0);
}
