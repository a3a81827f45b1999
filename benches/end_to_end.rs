//! From a client's append to its acknowledgement, over three nodes of one process, each with its own
//! directory, every acknowledgement flushed by a majority. For numbers of real processes see
//! `docs/benchmarks.md`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave::config::NodeConfig;
use drave::node::{self, IoChoice, NodeError, NodeOptions};
use drave::store::{FormatRequest, format_store};
use drave_client::{Client, Log, Producer, ProducerOptions};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

struct Node {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
}

struct Cluster {
    nodes: Vec<Node>,
    endpoints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(count: u64) -> Self {
        let dir = tempfile::tempdir_in(std::env::current_dir().unwrap().join("target")).unwrap();
        let held: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let endpoints: Vec<String> = held
            .iter()
            .map(|listener| listener.local_addr().unwrap().to_string())
            .collect();
        drop(held);
        let members: Vec<(u64, String)> = (1..).zip(endpoints.iter().cloned()).collect();
        let nodes = (1..=count).map(|node_id| {
            let data_dir = dir.path().join(format!("n{node_id}"));
            format_store(&FormatRequest {
                data_dir: data_dir.clone(),
                cluster_id: "bench".to_owned(),
                node_id,
                members: members.clone(),
                join: false,
            })
            .unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let options = NodeOptions {
                data_dir,
                config: NodeConfig::default(),
                io: IoChoice::Auto,
            };
            let thread =
                std::thread::spawn(move || node::run(options, async { drop(stopped.await) }));
            Node {
                stop: Some(stop),
                thread: Some(thread),
            }
        });
        Self {
            nodes: nodes.collect(),
            endpoints,
            _dir: dir,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.stop.take().unwrap().send(());
        }
        for node in &mut self.nodes {
            node.thread.take().unwrap().join().unwrap().unwrap();
        }
    }
}

/// Keeps `in_flight` appends of one record unacknowledged until `count` are acknowledged.
async fn closed_loop(
    producer: &Producer,
    log: &Log,
    record: &[u8],
    in_flight: usize,
    count: u64,
) -> Duration {
    let started = Instant::now();
    let mut tickets = std::collections::VecDeque::new();
    for _ in 0..count {
        if tickets.len() == in_flight {
            let ticket: drave_client::Ticket = tickets.pop_front().unwrap();
            ticket.await.unwrap();
        }
        tickets.push_back(producer.submit(log.id(), [record.to_vec()]).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    started.elapsed()
}

fn append(c: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = Cluster::start(3);
    let (producer, log) = runtime.block_on(async {
        let client = Client::builder()
            .endpoints(cluster.endpoints.clone())
            .build()
            .unwrap();
        client.create_log("bench", true).await.unwrap();
        let log = client.log("bench").await.unwrap();
        let options = ProducerOptions {
            in_flight_max: 1024,
            ..ProducerOptions::default()
        };
        (client.producer(options), log)
    });
    let mut group = c.benchmark_group("end_to_end");
    group.sample_size(10);
    for record_bytes in [128usize, 1024] {
        let record = vec![0x5a; record_bytes];
        for in_flight in [1usize, 16, 256] {
            group.throughput(Throughput::Elements(1));
            let id = BenchmarkId::new(
                format!("append_{record_bytes}B"),
                format!("{in_flight}_in_flight"),
            );
            group.bench_function(id, |b| {
                b.iter_custom(|count| {
                    runtime.block_on(closed_loop(&producer, &log, &record, in_flight, count))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
