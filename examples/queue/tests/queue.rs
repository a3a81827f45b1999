//! Queues on real nodes: who gets what, when it comes again, what is put aside, and that what is finished goes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use drave_client::Client;
use drave_embed::testing::TestCluster;
use drave_queue::{Consumer, Delivery, Message, Queue, QueueError, QueueOptions, Receipt};

/// No single step takes longer on any machine that is fit to run it.
const LIMIT: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(3_600);
const NOW: Duration = Duration::ZERO;

async fn start() -> (TestCluster, Client, Queue) {
    let cluster = TestCluster::start(1).unwrap();
    let client = cluster.client().unwrap();
    let queue = Queue::create(&client, "jobs", QueueOptions::default())
        .await
        .unwrap();
    (cluster, client, queue)
}

async fn send(queue: &Queue, messages: &[(&str, &str)]) {
    for (key, body) in messages {
        let mut message = Message::new(*body);
        message.key = (!key.is_empty()).then(|| (*key).to_owned());
        queue.send(&message).await.unwrap();
    }
}

async fn receive(consumer: &mut Consumer, limit: u32, visibility: Duration) -> Vec<Delivery> {
    consumer.receive(limit, visibility, LIMIT).await.unwrap()
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    let bodies = deliveries
        .iter()
        .map(|delivery| str::from_utf8(&delivery.body).unwrap());
    bodies.collect()
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt).collect()
}

#[tokio::test]
async fn a_message_goes_to_one_consumer_and_is_finished() {
    let (_cluster, _, queue) = start().await;
    let mut first = queue.consumer().await.unwrap();
    let mut second = queue.consumer().await.unwrap();
    send(&queue, &[("", "a"), ("", "b"), ("", "c")]).await;
    let mine = receive(&mut first, 2, LONG).await;
    let yours = receive(&mut second, 2, LONG).await;
    assert_eq!((bodies(&mine), bodies(&yours)), (vec!["a", "b"], vec!["c"]));
    assert_eq!(first.receive(9, LONG, NOW).await.unwrap(), []);
    let status = queue.status().await.unwrap();
    assert_eq!(
        (status.sent, status.new, status.held, status.waiting),
        (3, 0, 3, 0)
    );
    assert_eq!(
        first.acknowledge(&receipts(&mine)).await.unwrap().done,
        [true, true]
    );
    assert_eq!(
        second.acknowledge(&receipts(&mine)).await.unwrap().done,
        [false, false]
    );
    assert_eq!(
        second.release(&receipts(&yours)).await.unwrap().done,
        [true]
    );
    let again = receive(&mut first, 9, LONG).await;
    assert_eq!((bodies(&again), again[0].attempts), (vec!["c"], 2));
    assert_eq!(
        second.acknowledge(&receipts(&yours)).await.unwrap().done,
        [false]
    );
    assert_eq!(
        first.acknowledge(&receipts(&again)).await.unwrap().done,
        [true]
    );
    let status = queue.status().await.unwrap();
    assert_eq!(
        (status.sent, status.new, status.held, status.waiting),
        (3, 0, 0, 0)
    );
}

#[tokio::test]
async fn what_is_not_finished_in_time_comes_again() {
    let (_cluster, _, queue) = start().await;
    send(&queue, &[("", "a")]).await;
    let mut first = queue.consumer().await.unwrap();
    let mut second = queue.consumer().await.unwrap();
    let lost = receive(&mut first, 1, Duration::from_millis(300)).await;
    // Waits until it is free.
    let again = receive(&mut second, 1, Duration::from_millis(300)).await;
    assert_eq!((bodies(&again), again[0].attempts), (vec!["a"], 2));
    assert!(again[0].given_us >= lost[0].until_us, "{lost:?} {again:?}");
    // Held longer than it was asked for at first.
    let extended = second.extend(&receipts(&again), LONG).await.unwrap();
    if extended.done == [true] {
        assert_eq!(
            first
                .receive(1, LONG, Duration::from_millis(400))
                .await
                .unwrap(),
            []
        );
    }
}

#[tokio::test]
async fn messages_of_a_key_keep_their_order() {
    let (_cluster, _, queue) = start().await;
    send(
        &queue,
        &[
            ("k", "k1"),
            ("k", "k2"),
            ("", "x"),
            ("l", "l1"),
            ("k", "k3"),
        ],
    )
    .await;
    let mut first = queue.consumer().await.unwrap();
    let mut second = queue.consumer().await.unwrap();
    let mine = receive(&mut first, 9, LONG).await;
    assert_eq!(bodies(&mine), ["k1", "x", "l1"]);
    assert_eq!(second.receive(9, LONG, NOW).await.unwrap(), []);
    first.acknowledge(&[mine[0].receipt]).await.unwrap();
    let next = receive(&mut second, 9, LONG).await;
    assert_eq!(bodies(&next), ["k2"]);
    second.release(&receipts(&next)).await.unwrap();
    assert_eq!(bodies(&receive(&mut first, 9, LONG).await), ["k2"]);
}

#[tokio::test]
async fn what_fails_too_often_is_put_aside_once() {
    let (_cluster, client, _) = start().await;
    let mut options = QueueOptions::default();
    options.attempts_max = 2;
    let queue = Queue::create(&client, "picky", options).await.unwrap();
    send(&queue, &[("k", "bad"), ("k", "good"), ("", "bad too")]).await;
    let mut first = queue.consumer().await.unwrap();
    let mut second = queue.consumer().await.unwrap();
    for attempts in 1..=2 {
        let bad = receive(&mut first, 9, LONG).await;
        assert_eq!(
            (bodies(&bad), bad[0].attempts),
            (vec!["bad", "bad too"], attempts)
        );
        first.release(&receipts(&bad)).await.unwrap();
    }
    // Both find them at the same time.
    let (mine, yours) = tokio::join!(first.receive(9, LONG, NOW), second.receive(9, LONG, NOW));
    let given = [mine.unwrap(), yours.unwrap()].concat();
    assert_eq!(bodies(&given), ["good"]);
    let letters = queue.dead_letters(0).await.unwrap();
    let letters: Vec<_> = letters
        .iter()
        .map(|it| (it.message, it.attempts, it.key.as_deref(), &it.body[..]))
        .collect();
    assert_eq!(
        letters,
        [(0, 2, Some("k"), &b"bad"[..]), (2, 2, None, b"bad too")]
    );
    assert_eq!(queue.status().await.unwrap().dead, 2);
    assert_eq!(queue.dead_letters(1).await.unwrap()[0].message, 2);
}

#[tokio::test]
async fn what_is_over_is_trimmed_and_late_consumers_go_on_from_a_snapshot() {
    let (_cluster, client, queue) = start().await;
    let mut consumer = queue.consumer().await.unwrap();
    let mut late = queue.consumer().await.unwrap();
    let mut seen = Vec::new();
    let sends = (0..1_200).map(|number: u32| {
        let queue = queue.clone();
        async move { queue.send(&Message::new(number.to_string())).await.unwrap() }
    });
    futures_util::future::join_all(sends).await;
    // An event for each receive and each acknowledgement.
    while seen.len() < 1_200 {
        let given = receive(&mut consumer, 2, LONG).await;
        seen.extend(given.iter().map(|it| it.receipt.message));
        consumer.acknowledge(&receipts(&given)).await.unwrap();
    }
    assert!(seen.iter().copied().eq(0..1_200), "{seen:?}");
    let events = client
        .log("jobs.consumers")
        .await
        .unwrap()
        .info()
        .await
        .unwrap();
    assert!(events.first_seq >= 1_000, "{events:?}");
    let messages = client
        .log("jobs.messages")
        .await
        .unwrap()
        .info()
        .await
        .unwrap();
    assert!(messages.first_seq >= 1_000, "{messages:?}");
    send(&queue, &[("", "after that")]).await;
    let mut new = queue.consumer().await.unwrap();
    assert_eq!(new.receive(9, NOW, NOW).await.unwrap().len(), 1);
    let given = receive(&mut late, 9, LONG).await;
    assert_eq!((bodies(&given), given[0].attempts), (vec!["after that"], 2));
    consumer.acknowledge(&receipts(&given)).await.unwrap();
    late.acknowledge(&receipts(&given)).await.unwrap();
    let whole = queue.consumer().await.unwrap().state().clone();
    for consumer in [&mut consumer, &mut late] {
        consumer.receive(0, NOW, NOW).await.unwrap();
        assert_eq!(consumer.state(), &whole);
    }
}

#[tokio::test]
async fn many_consumers_share_the_work() {
    let (_cluster, _, queue) = start().await;
    let consume = |queue: Queue| async move {
        let mut consumer = queue.consumer().await.unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&"end".to_owned()) {
            let given = receive(&mut consumer, 5, LONG).await;
            seen.extend(bodies(&given).into_iter().map(str::to_owned));
            consumer.acknowledge(&receipts(&given)).await.unwrap();
        }
        seen
    };
    let mut consuming = tokio::task::JoinSet::new();
    for _ in 0..4 {
        consuming.spawn(consume(queue.clone()));
    }
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..400 {
        let queue = queue.clone();
        sending.spawn(async move { queue.send(&Message::new(number.to_string())).await.unwrap() });
    }
    let seqs: BTreeSet<u64> = sending.join_all().await.into_iter().collect();
    assert!(seqs.iter().copied().eq(0..400));
    for _ in 0..4 {
        // One each: what else is given with it is at most what is left.
        queue
            .send(&Message::new("end").with_key("end"))
            .await
            .unwrap();
    }
    let seen = consuming.join_all().await.concat();
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(
        (seen.len(), once.len()),
        (404, 401),
        "each of them once, and four ends"
    );
}

#[tokio::test]
async fn what_no_queue_wrote_is_named_or_put_aside() {
    let (_cluster, client, queue) = start().await;
    client
        .log("jobs.messages")
        .await
        .unwrap()
        .append("foreign")
        .await
        .unwrap();
    send(&queue, &[("", "a")]).await;
    let mut consumer = queue.consumer().await.unwrap();
    assert_eq!(bodies(&receive(&mut consumer, 9, NOW).await), ["a"]);
    for _ in 0..10 {
        consumer.receive(9, NOW, NOW).await.unwrap();
    }
    let letters = queue.dead_letters(0).await.unwrap();
    let bodies: Vec<_> = letters.iter().map(|letter| &letter.body[..]).collect();
    assert_eq!(bodies, [&b"foreign"[..], b"a"]);
    client
        .log("jobs.consumers")
        .await
        .unwrap()
        .append("foreign")
        .await
        .unwrap();
    let Err(QueueError::Format { log, wrong, .. }) = consumer.receive(1, NOW, LIMIT).await else {
        panic!("it is taken");
    };
    assert_eq!(
        (log.as_str(), wrong.what),
        ("jobs.consumers", "version of a record")
    );
}
