//! What stands on the client's core: batches of many callers' records, tails as streams, blocking calls.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use drave_batch::wire::MessageKind;
use drave_client::{
    Batcher, BatcherOptions, Client, ClientError, ErrorCode, ReadLimits, TailEvent, TailFrom,
    blocking,
};
use futures_util::StreamExt;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

mod support;
use support::{FakeCluster, Fault};

/// Longer than any test takes: what waits for it is seen to wait.
const LONG: Duration = Duration::from_secs(3_600);

async fn batcher(client: &Client, options: BatcherOptions) -> (u64, Batcher) {
    let log_id = client.create_log("orders", true).await.unwrap().log_id;
    let log = client.log("orders").await.unwrap();
    (log_id, log.batcher(options))
}

#[tokio::test]
async fn records_of_one_caller_share_batches_in_order() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let options = BatcherOptions {
        batch_records_max: 50,
        ..BatcherOptions::default()
    };
    let (log_id, batcher) = batcher(&client, options).await;
    let mut tickets = Vec::new();
    for number in 0..1_000 {
        tickets.push(batcher.submit(format!("record {number}")).await.unwrap());
    }
    for (number, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap(), number as u64);
    }
    let held = cluster.model().records(log_id);
    let expected: Vec<Vec<u8>> = (0..1_000).map(|n| format!("record {n}").into()).collect();
    assert_eq!(held, expected);
    let appends = cluster.model().requests(MessageKind::Append);
    assert!((20..100).contains(&appends), "{appends} batches");
}

#[tokio::test]
async fn a_record_waits_for_company() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let options = BatcherOptions {
        linger: LONG,
        batch_records_max: 2,
        ..BatcherOptions::default()
    };
    let (_, batcher) = batcher(&client, options).await;
    let first = batcher.submit("a").await.unwrap();
    // The batcher has its turn in between.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let second = batcher.submit("b").await.unwrap();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (0, 1));
    assert_eq!(cluster.model().requests(MessageKind::Append), 1);
}

#[tokio::test]
async fn a_record_waits_no_longer_than_it_may() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let options = BatcherOptions {
        linger: Duration::from_millis(5),
        ..BatcherOptions::default()
    };
    let (_, batcher) = batcher(&client, options).await;
    assert_eq!(batcher.append("alone").await.unwrap(), 0);
}

#[tokio::test]
async fn one_record_over_the_limit_does_not_refuse_its_company() {
    let cluster = FakeCluster::start(1).await;
    cluster.model().record_bytes_max = 100;
    let client = cluster.client();
    let options = BatcherOptions {
        linger: LONG,
        batch_records_max: 3,
        ..BatcherOptions::default()
    };
    let (log_id, batcher) = batcher(&client, options).await;
    let small = batcher.submit("small").await.unwrap();
    let large = batcher.submit(vec![b'l'; 101]).await.unwrap();
    let other = batcher.submit("other").await.unwrap();
    assert_eq!(small.await.unwrap(), 0);
    let error = large.await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
    assert_eq!(other.await.unwrap(), 1);
    let held = cluster.model().records(log_id);
    assert_eq!(held, [b"small".to_vec(), b"other".to_vec()]);
}

#[tokio::test]
async fn records_of_many_callers_are_each_there_once_over_lost_answers() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let (log_id, batcher) = batcher(&client, BatcherOptions::default()).await;
    let faults = [Fault::CloseAfter, Fault::CloseBefore, Fault::CloseAfter];
    cluster.model().script(MessageKind::Append, faults);
    let callers = (0..20).map(|caller| {
        let batcher = batcher.clone();
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for number in 0..20 {
                let record = format!("caller {caller} record {number}");
                seqs.push((batcher.append(record.clone()).await.unwrap(), record));
            }
            seqs
        })
    });
    let mut all = BTreeSet::new();
    for caller in callers.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap());
    }
    let held = cluster.model().records(log_id);
    assert_eq!(held.len(), 400);
    for ((seq, record), expected) in all.iter().zip(0..) {
        assert_eq!(*seq, expected);
        assert_eq!(held[*seq as usize], record.as_bytes());
    }
}

#[tokio::test]
async fn a_tail_is_a_stream_that_goes_on_after_an_error() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = client.create_log("orders", true).await.unwrap().log_id;
    cluster.put(log_id, &[b"a", b"b"]);
    let log = client.log("orders").await.unwrap();
    let tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    let fault = Fault::Refuse(ErrorCode::MalformedFrame);
    cluster.model().script(MessageKind::TailStart, [fault]);
    let mut events = tail.into_stream();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MalformedFrame));
    let rest: Vec<TailEvent> = events
        .take(3)
        .map(|event| event.unwrap())
        .collect::<Vec<_>>()
        .await;
    let seqs = rest.iter().filter_map(|event| match event {
        TailEvent::Record(record) => Some(record.seq),
        _ => None,
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [0, 1]);
    assert_eq!(rest[2], TailEvent::CaughtUp { next_seq: 2 });
}

/// Fake nodes on a thread of their own, until the sender is dropped.
fn nodes_elsewhere() -> (Vec<String>, oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let (addresses, given) = std::sync::mpsc::channel();
    let nodes = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = FakeCluster::start(3).await;
            addresses.send(cluster.addresses.clone()).unwrap();
            let _: Result<(), _> = stopped.await;
        });
    });
    (given.recv().unwrap(), stop, nodes)
}

#[test]
fn blocking_calls_from_several_threads() {
    let (addresses, stop, nodes) = nodes_elsewhere();
    let client = blocking::Client::connect(Client::builder().endpoints(addresses)).unwrap();
    assert!(client.create_log("orders", true).unwrap().created);
    let log = client.log("orders").unwrap();
    let missing = client.log("missing").err().unwrap();
    assert_eq!(missing.code(), Some(ErrorCode::LogNotFound));
    thread::scope(|scope| {
        for _ in 0..4 {
            let log = log.clone();
            scope.spawn(move || {
                for _ in 0..25 {
                    log.append("hello").unwrap();
                }
            });
        }
        let tail = log.tail(TailFrom::Seq(0)).unwrap();
        let records = tail.filter_map(|event| match event.unwrap() {
            TailEvent::Record(record) => Some(record.seq),
            _ => None,
        });
        assert!(records.take(100).eq(0..100));
    });
    let ack = log.append_if(100, ["a", "b"]).unwrap();
    assert_eq!((ack.first_seq, ack.record_count), (100, 2));
    let refused = log.append_if(100, ["c"]).unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ExpectSeq));
    let chunk = log.read(100, ReadLimits::default()).unwrap();
    assert_eq!(chunk.records[0].payload, "a");
    assert_eq!(client.trim_log("orders", 50).unwrap().first_seq, 50);
    assert_eq!(log.info().unwrap().next_seq, 102);
    assert_eq!(client.logs().unwrap().len(), 1);
    drop(stop);
    nodes.join().unwrap();
}

#[test]
fn a_blocking_client_of_nobody_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let builder = Client::builder().endpoints([address.clone()]);
    let error = blocking::Client::connect(builder).err().unwrap();
    assert!(error.why().contains(&address), "{error:?}");
    assert!(error.has_no_side_effects());
}
