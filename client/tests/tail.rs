//! Tails: no gap and no repeat over the loss of nodes, silence, damage; credit; events.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use drave_batch::wire::MessageKind;
use drave_client::{Client, ClientError, ErrorCode, Tail, TailEvent, TailFrom};
use tokio::time::timeout;

mod support;
use support::{FakeCluster, Fault, TAIL_CREDIT};

async fn log_id(client: &Client) -> u64 {
    client.create_log("orders", true).await.unwrap().log_id
}

fn put(cluster: &FakeCluster, log_id: u64, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        cluster.put(log_id, &[format!("record {seq}").as_bytes()]);
    }
}

async fn next(tail: &mut Tail) -> TailEvent {
    let limit = Duration::from_secs(20);
    timeout(limit, tail.next())
        .await
        .expect("an event in time")
        .unwrap()
}

/// The next records must be exactly these; being caught up in between is no matter.
async fn expect_records(tail: &mut Tail, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let record = loop {
            match next(tail).await {
                TailEvent::Record(record) => break record,
                TailEvent::CaughtUp { .. } => {}
                other => panic!("{other:?} before seq {seq}"),
            }
        };
        assert_eq!(record.seq, seq);
        assert_eq!(record.payload, format!("record {seq}"));
    }
}

#[tokio::test]
async fn records_then_caught_up_once_then_new_records() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..5);
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(2)).await.unwrap();
    for seq in 2..5 {
        assert!(matches!(next(&mut tail).await, TailEvent::Record(r) if r.seq == seq));
    }
    assert_eq!(next(&mut tail).await, TailEvent::CaughtUp { next_seq: 5 });
    // Many signs of life later there is still nothing to say. Dropping the future loses nothing.
    let quiet = timeout(Duration::from_millis(300), tail.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    log.append("record 5").await.unwrap();
    expect_records(&mut tail, 5..6).await;
    assert_eq!(tail.next_seq(), 6);
    assert_eq!(next(&mut tail).await, TailEvent::CaughtUp { next_seq: 6 });
}

#[tokio::test]
async fn the_beginnings() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..10);
    let log = client.log("orders").await.unwrap();
    for (from, first) in [
        (TailFrom::Last(3), 7),
        (TailFrom::Last(100), 0),
        (TailFrom::Last(0), 10),
        (TailFrom::End, 10),
        (TailFrom::Seq(10), 10),
    ] {
        let tail = log.tail(from).await.unwrap();
        assert_eq!(tail.next_seq(), first, "{from:?}");
    }
    let Err(error) = log.tail(TailFrom::Seq(11)).await else {
        panic!("seq 11 is beyond the tail");
    };
    assert_eq!(error.code(), Some(ErrorCode::BeyondTail));
}

#[tokio::test]
async fn a_tail_begins_inside_a_batch() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    cluster.put(log_id, &[b"record 0", b"record 1", b"record 2"]);
    put(&cluster, log_id, 3..4);
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(1)).await.unwrap();
    expect_records(&mut tail, 1..4).await;
}

#[tokio::test]
async fn the_death_of_the_serving_node_leaves_no_gap_and_no_repeat() {
    let mut cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..50);
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    expect_records(&mut tail, 0..20).await;
    cluster.elect(1);
    cluster.kill(0).await;
    put(&cluster, log_id, 50..100);
    expect_records(&mut tail, 20..100).await;
    cluster.kill(1).await;
    put(&cluster, log_id, 100..120);
    expect_records(&mut tail, 100..120).await;
    let starts = cluster.model().tail_starts.clone();
    assert!(starts.len() >= 2, "{starts:?}");
}

#[tokio::test]
async fn damaged_and_cut_deliveries_are_fetched_again_elsewhere() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..30);
    cluster.model().tail_payload_bytes_max = 600;
    let log = client.log("orders").await.unwrap();
    for fault in [Fault::Damage, Fault::CloseAfter, Fault::DamageHead] {
        cluster.model().tail_starts.clear();
        cluster.model().script(MessageKind::TailData, [fault]);
        let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
        expect_records(&mut tail, 0..30).await;
        let starts = cluster.model().tail_starts.clone();
        assert!(starts.len() >= 2, "{fault:?}: {starts:?}");
        assert_ne!(starts[0].0, starts[1].0, "{fault:?}: {starts:?}");
    }
}

#[tokio::test]
async fn a_silent_replica_is_left_after_the_watchdog_s_time() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    assert_eq!(next(&mut tail).await, TailEvent::CaughtUp { next_seq: 0 });
    let serving = cluster.model().tail_starts[0].0;
    cluster.model().tail_silent.push(serving);
    put(&cluster, log_id, 0..3);
    let started = Instant::now();
    expect_records(&mut tail, 0..3).await;
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "not before the watchdog"
    );
    let starts = cluster.model().tail_starts.clone();
    assert_ne!(starts.last().unwrap().0, serving, "{starts:?}");
}

#[tokio::test]
async fn a_replica_that_is_cut_off_but_alive_is_found_out() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    assert_eq!(next(&mut tail).await, TailEvent::CaughtUp { next_seq: 0 });
    let serving = cluster.model().tail_starts[0].0;
    cluster.model().tail_stale.insert(serving, 0);
    cluster.elect(1 - serving);
    put(&cluster, log_id, 0..3);
    expect_records(&mut tail, 0..3).await;
    let starts = cluster.model().tail_starts.clone();
    assert_eq!(starts.last().unwrap().0, 1 - serving, "{starts:?}");
}

#[tokio::test]
async fn a_slow_reader_holds_no_more_than_its_credit() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let payload = vec![5_u8; 100_000];
    let count = 200;
    for _ in 0..count {
        cluster.put(log_id, &[payload.as_slice()]);
    }
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    assert!(matches!(next(&mut tail).await, TailEvent::Record(r) if r.seq == 0));
    // The node has sent all that it may; nothing more comes until the reader reads on.
    let outstanding = || cluster.model().tail_outstanding_max;
    let waited = Instant::now();
    while outstanding() < u64::from(TAIL_CREDIT) / 2 && waited.elapsed() < Duration::from_secs(5) {
        tokio::task::yield_now().await;
    }
    for seq in 1..count {
        let event = next(&mut tail).await;
        assert!(matches!(event, TailEvent::Record(r) if r.seq == seq && r.payload == payload));
    }
    let outstanding = outstanding();
    // By less than one frame more: the last one is sent whole.
    assert!(
        outstanding < u64::from(TAIL_CREDIT) + (1 << 20),
        "{outstanding}"
    );
    assert!(outstanding > u64::from(TAIL_CREDIT) / 2, "{outstanding}");
    assert_eq!(
        cluster.model().tail_starts.len(),
        1,
        "one subscription served it all"
    );
}

#[tokio::test]
async fn trimmed_records_are_named() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..10);
    cluster.model().logs.get_mut(&log_id).unwrap().first_seq = 4;
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    assert_eq!(next(&mut tail).await, TailEvent::Trimmed { first_seq: 4 });
    expect_records(&mut tail, 4..10).await;
}

#[tokio::test]
async fn without_any_replica_the_tail_says_so_and_goes_on_later() {
    let mut cluster = FakeCluster::start(2).await;
    let timeout = Duration::from_millis(400);
    let client = cluster.builder().request_timeout(timeout).build().unwrap();
    let log_id = log_id(&client).await;
    put(&cluster, log_id, 0..2);
    let log = client.log("orders").await.unwrap();
    let mut tail = log.tail(TailFrom::Seq(0)).await.unwrap();
    expect_records(&mut tail, 0..2).await;
    cluster.kill(0).await;
    cluster.kill(1).await;
    let failed = loop {
        match tail.next().await {
            Ok(TailEvent::CaughtUp { .. }) => {}
            other => break other,
        }
    };
    let error = failed.unwrap_err();
    assert!(
        matches!(error, ClientError::Unavailable { .. }),
        "{error:?}"
    );
    assert_eq!(tail.next_seq(), 2, "the position is kept");
}
