//! Producers against nodes that lose connections before and after they applied a batch, refuse, cut
//! frames and change leaders: every record is in the log once, in order, where its answer says.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use drave_batch::wire::MessageKind;
use drave_client::{Client, ClientError, ErrorCode, Producer, ProducerOptions, Ticket};

mod support;
use support::{FakeCluster, Fault, Hint, Random};

fn options(in_flight_max: u32) -> ProducerOptions {
    ProducerOptions {
        in_flight_max,
        ..ProducerOptions::default()
    }
}

async fn log_id(client: &Client) -> u64 {
    client.create_log("orders", true).await.unwrap().log_id
}

fn payload(number: u64) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

async fn submit(producer: &Producer, log_id: u64, numbers: std::ops::Range<u64>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in numbers {
        tickets.push(producer.submit(log_id, [payload(number)]).await.unwrap());
    }
    tickets
}

async fn chaos(seed: u64) {
    println!("seed {seed}");
    let cluster = FakeCluster::start(3).await;
    let client = cluster
        .builder()
        .request_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let log_id = log_id(&client).await;
    let mut random = Random(seed);
    {
        let mut model = cluster.model();
        model.in_flight_max = 1 + random.below(40) as u32;
        model.chaos = Some((Random(seed ^ 0xC0FFEE), 2 + random.below(12)));
        model.chaos_elections = random.below(2) == 0;
        model.hint = [Hint::Right, Hint::Nothing][random.below(2) as usize];
    }
    let producer = client.producer(options(1 + random.below(48) as u32));
    let mut expected: Vec<Vec<u8>> = Vec::new();
    let mut tickets = Vec::new();
    for batch in 0..150 {
        let records: Vec<Vec<u8>> = (0..=random.below(4))
            .map(|record| format!("{batch}/{record}").into_bytes())
            .collect();
        let first = expected.len() as u64;
        expected.extend(records.clone());
        tickets.push((first, producer.submit(log_id, records).await.unwrap()));
    }
    producer.flush().await.unwrap();
    for (first, ticket) in tickets {
        let ack = ticket.await.unwrap();
        assert_eq!(ack.first_seq, first, "seed {seed}");
    }
    assert_eq!(cluster.model().records(log_id), expected, "seed {seed}");
    assert_eq!(cluster.model().producers_opened, 1, "seed {seed}");
}

#[tokio::test]
async fn every_record_once_in_order_under_random_faults() {
    for seed in 0..24 {
        chaos(seed).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_resending_the_same_sequence() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    cluster
        .model()
        .script(MessageKind::Append, [Fault::CloseAfter]);
    let log = client.log("orders").await.unwrap();
    let ack = log.append("once").await.unwrap();
    assert!(ack.duplicate && ack.first_seq == 0);
    assert_eq!(cluster.model().records(log_id), [b"once"]);
    assert_eq!(cluster.model().requests(MessageKind::Append), 2);
}

#[tokio::test]
async fn a_dead_leader_is_followed_by_the_next_one() {
    let mut cluster = FakeCluster::start(3).await;
    // Only one endpoint is given: the others are learned.
    let first = cluster.addresses[0].clone();
    let client = cluster.builder().endpoints([first]).build().unwrap();
    let log_id = log_id(&client).await;
    let producer = client.producer(options(16));
    for ticket in submit(&producer, log_id, 0..50).await {
        ticket.await.unwrap();
    }
    let tickets = submit(&producer, log_id, 50..60).await;
    cluster.elect(2);
    cluster.kill(0).await;
    for ticket in tickets {
        ticket.await.unwrap();
    }
    for ticket in submit(&producer, log_id, 60..100).await {
        ticket.await.unwrap();
    }
    let expected: Vec<Vec<u8>> = (0..100).map(payload).collect();
    assert_eq!(cluster.model().records(log_id), expected);
}

#[tokio::test]
async fn the_deadline_of_a_sent_append_is_unknown_and_of_an_unsent_one_is_not() {
    let mut cluster = FakeCluster::start(2).await;
    let timeout = Duration::from_millis(700);
    let client = cluster.builder().request_timeout(timeout).build().unwrap();
    log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    log.append("first").await.unwrap();
    cluster
        .model()
        .script(MessageKind::Append, vec![Fault::Silent; 100]);
    let started = Instant::now();
    let error = log.append("second").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    assert!(!error.has_no_side_effects() && error.is_retryable());
    assert_eq!(error.code(), Some(ErrorCode::OutcomeUnknown));

    cluster.kill(0).await;
    cluster.kill(1).await;
    let error = log.append("third").await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(error.has_no_side_effects());
}

#[tokio::test]
async fn refusals_for_good_in_the_middle_of_a_pipeline_fail_alone() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let producer = client.producer(options(64));
    let missing = 77;
    let mut tickets = Vec::new();
    for number in 0..60 {
        let to = if number % 7 == 3 { missing } else { log_id };
        tickets.push(producer.submit(to, [payload(number)]).await.unwrap());
    }
    let mut next_seq = 0;
    for (number, ticket) in (0..60).zip(tickets) {
        match ticket.await {
            Ok(ack) => {
                assert!(number % 7 != 3);
                assert_eq!(ack.first_seq, next_seq);
                next_seq += 1;
            }
            Err(error) => {
                assert_eq!(number % 7, 3);
                assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
                assert!(error.has_no_side_effects());
            }
        }
    }
    let expected: Vec<Vec<u8>> = (0..60).filter(|n| n % 7 != 3).map(payload).collect();
    assert_eq!(cluster.model().records(log_id), expected);
    assert_eq!(
        cluster.model().producers_opened,
        1,
        "renumbered, not renewed"
    );
    let error = producer.flush().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn refusals_for_good_under_random_faults_keep_the_rest_once_and_in_order() {
    let mut acked_in_all = 0;
    for seed in 0..16 {
        println!("seed {seed}");
        let cluster = FakeCluster::start(2).await;
        let client = cluster.client();
        let log_id = log_id(&client).await;
        cluster.model().chaos = Some((Random(seed), 8));
        cluster.model().chaos_elections = seed % 2 == 0;
        let producer = client.producer(options(24));
        let mut tickets = Vec::new();
        for number in 0..120 {
            let to = if number % 11 == 5 { 77 } else { log_id };
            tickets.push(producer.submit(to, [payload(number)]).await.unwrap());
        }
        let mut acked = Vec::new();
        for (number, ticket) in (0..120).zip(tickets) {
            match ticket.await {
                Ok(ack) => acked.push((number, ack.first_seq)),
                Err(error) if error.has_no_side_effects() => {
                    assert_eq!(error.code(), Some(ErrorCode::LogNotFound), "seed {seed}");
                    assert_eq!(number % 11, 5, "seed {seed}");
                }
                // Behind a refusal of a batch that is itself open, more is open.
                Err(error) => assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}"),
            }
        }
        let records = cluster.model().records(log_id);
        for pair in acked.windows(2) {
            assert!(pair[0].1 < pair[1].1, "seed {seed}: {pair:?}");
        }
        for (number, seq) in &acked {
            assert_eq!(records[*seq as usize], payload(*number), "seed {seed}");
        }
        let mut sorted = records.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), records.len(), "seed {seed}: none twice");
        acked_in_all += acked.len();
    }
    assert!(acked_in_all > 16 * 120 / 4, "{acked_in_all} acknowledged");
}

#[tokio::test]
async fn a_producer_that_was_forgotten_while_idle_goes_on_under_a_new_id() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    log.append("a").await.unwrap();
    cluster.model().producers.clear();
    let ack = log.append("b").await.unwrap();
    assert_eq!(ack.first_seq, 1);
    assert_eq!(cluster.model().producers_opened, 2);
    assert_eq!(cluster.model().records(log_id), [b"a", b"b"]);
}

#[tokio::test]
async fn a_producer_that_was_forgotten_with_an_answer_lost_says_unknown() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    log.append("a").await.unwrap();
    let unknown_producer = Fault::Refuse(ErrorCode::UnknownProducer);
    cluster
        .model()
        .script(MessageKind::Append, [Fault::CloseAfter, unknown_producer]);
    let error = log.append("b").await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    log.append("c").await.unwrap();
    assert_eq!(cluster.model().records(log_id), [b"a", b"b", b"c"]);
    assert_eq!(cluster.model().producers_opened, 2);
}

#[tokio::test]
async fn conditional_appends_say_what_the_log_has() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    log.append_if(0, ["a", "b"]).await.unwrap();
    let error = log.append_if(0, ["c"]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ExpectSeq));
    let ClientError::Refused {
        expected, found, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((expected, found), (0, 2));
    // A condition that held, with its answer lost, is a success: the batch is recognised.
    cluster
        .model()
        .script(MessageKind::Append, [Fault::CloseAfter]);
    assert_eq!(log.append_if(2, ["c"]).await.unwrap().first_seq, 2);
}

#[tokio::test]
async fn limits_are_checked_before_anything_is_sent() {
    let cluster = FakeCluster::start(1).await;
    cluster.model().record_bytes_max = 1000;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let log = client.log("orders").await.unwrap();
    let error = log.append(vec![0; 1001]).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::TooLarge {
                limit: 1000,
                found: 1001,
                ..
            }
        ),
        "{error:?}"
    );
    let none: [&[u8]; 0] = [];
    let error = log.append_batch(none).await.unwrap_err();
    assert!(matches!(error, ClientError::Argument { .. }), "{error:?}");
    let producer = client.producer(ProducerOptions {
        batch_bytes_max: 500,
        ..ProducerOptions::default()
    });
    let error = producer.submit(log_id, [[0_u8; 300]; 2]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TooLarge));
    assert_eq!(cluster.model().requests(MessageKind::Append), 0);
    log.append([]).await.unwrap();
    log.append(vec![7; 1000]).await.unwrap();
    assert_eq!(cluster.model().records(log_id), [vec![], vec![7; 1000]]);
}

#[tokio::test]
async fn the_node_s_credit_bounds_what_is_under_way() {
    let cluster = FakeCluster::start(1).await;
    cluster.model().credit_bytes = 3000;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let producer = client.producer(options(64));
    let mut tickets = Vec::new();
    for _ in 0..40 {
        tickets.push(producer.submit(log_id, [[1_u8; 2000]]).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(cluster.model().records(log_id).len(), 40);
    // What no credit can ever cover fails by name, and nothing else with it.
    let large = producer.submit(log_id, [[1_u8; 4000]]).await.unwrap();
    let after = producer.submit(log_id, ["after"]).await.unwrap();
    assert_eq!(large.await.unwrap_err().code(), Some(ErrorCode::TooLarge));
    assert_eq!(after.await.unwrap().first_seq, 40);
}

#[tokio::test]
async fn dropped_producers_and_tickets_do_not_recall_batches() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let log_id = log_id(&client).await;
    let producer = client.producer(options(4));
    let tickets = submit(&producer, log_id, 0..20).await;
    drop(tickets);
    let last = submit(&producer, log_id, 20..21).await.pop().unwrap();
    drop(producer);
    assert_eq!(last.await.unwrap().first_seq, 20);
    let expected: Vec<Vec<u8>> = (0..21).map(payload).collect();
    assert_eq!(cluster.model().records(log_id), expected);
}

/// Only sending tells that a connection broke while nothing was under way: the batch goes out on another at once, and
/// not when its time is up.
#[tokio::test]
async fn a_connection_that_broke_at_rest_is_replaced() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    client.create_log("orders", true).await.unwrap();
    let log = client.log("orders").await.unwrap();
    for seq in 0..3 {
        assert_eq!(log.append("x").await.unwrap().first_seq, seq);
        cluster
            .model()
            .script(MessageKind::LogLookup, [Fault::CloseAfter]);
        log.info().await.unwrap();
    }
}
