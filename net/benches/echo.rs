//! Round trips between two nodes on one thread over the loopback, per engine, payload and window: both
//! sides' work, four copies by the kernel, and no parallelism. For comparing engines and changes, not
//! for judging a network. `cargo bench -p drave-net --bench echo`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave_batch::wire::{ClusterId, ErrorCode, Hello, Lane, TimeoutNow};
use drave_net::{ConnId, Dial, Identity, IoChoice, Net, NetConfig, NetEvent, Runtime};

const EVENTS_MAX: usize = 1024;

fn anyone(_: &Hello) -> Result<(), (ErrorCode, String)> {
    Ok(())
}

fn bind(node_id: u64) -> Net {
    let identity = Identity {
        cluster_id: ClusterId::new("bench").expect("a valid name"),
        node_id,
        incarnation: 1,
    };
    let listen = "127.0.0.1:0".parse().expect("an address");
    Net::bind(NetConfig::new(listen, identity), anyone).expect("a free port")
}

struct Pair {
    asker: Net,
    conn: ConnId,
    answerer: Net,
}

async fn pair() -> Pair {
    let answerer = bind(1);
    let asker = bind(2);
    asker.dial(Dial {
        node_id: 1,
        lane: Lane::Append,
        address: answerer.local_addr().to_string(),
        source: None,
        incarnation: None,
    });
    asker.wait().await;
    let mut events = Vec::new();
    asker.drain(&mut events, 1);
    let Some(NetEvent::Dialed { conn, .. }) = events.pop() else {
        panic!("the dial succeeds at once");
    };
    Pair {
        asker,
        conn,
        answerer,
    }
}

impl Pair {
    /// `count` round trips with up to `window` of them under way.
    async fn round_trips(&self, count: u64, window: u64, payload: &Bytes) -> Duration {
        let start = Instant::now();
        let payload = std::slice::from_ref(payload);
        let message = TimeoutNow { term: 1 };
        let (mut asked, mut answered) = (0, 0);
        let (mut questions, mut answers) = (Vec::new(), Vec::new());
        while answered < count {
            while asked < count && asked < answered + window {
                self.asker
                    .send(self.conn, 1, asked, &message, payload)
                    .expect("the window is below the queue's limit");
                asked += 1;
            }
            tokio::select! {
                () = self.answerer.wait() => {
                    self.answerer.drain(&mut questions, EVENTS_MAX);
                    for event in questions.drain(..) {
                        if let NetEvent::Frame { conn, frame } = event {
                            let request_id = frame.header.request_id;
                            self.answerer
                                .send(conn, 1, request_id, &message, &[frame.payload])
                                .expect("the window is below the queue's limit");
                        }
                    }
                }
                () = self.asker.wait() => {
                    self.asker.drain(&mut answers, EVENTS_MAX);
                    answered += answers.len() as u64;
                    answers.clear();
                }
            }
        }
        start.elapsed()
    }
}

fn echo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo");
    for choice in [IoChoice::Uring, IoChoice::Posix] {
        let runtime = match Runtime::new(choice) {
            Ok(runtime) => runtime,
            Err(error) => {
                println!("skipped on {choice:?}: {error}");
                continue;
            }
        };
        let pair = runtime.block_on(pair());
        for (payload_bytes, window) in [(64, 1), (64, 16), (1024, 256), (64 << 10, 8)] {
            let payload = Bytes::from(vec![0x5A; payload_bytes]);
            let parameter = format!("{payload_bytes}B/window{window}");
            group.throughput(Throughput::Elements(1));
            group.bench_function(
                BenchmarkId::new(runtime.engine().to_string(), parameter),
                |bencher| {
                    bencher.iter_custom(|count| {
                        runtime.block_on(pair.round_trips(count, window, &payload))
                    });
                },
            );
        }
        runtime.block_on(async { tokio::join!(pair.asker.shutdown(), pair.answerer.shutdown()) });
    }
    group.finish();
}

criterion_group!(benches, echo);
criterion_main!(benches);
