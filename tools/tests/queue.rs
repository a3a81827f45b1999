//! The message queue of `examples/queue` on nodes that are killed and cut off: what was sent is finished or put aside,
//! nobody sees a message that another holds, and messages of a key come in their order.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LIMIT, Random, TestCluster};
use drave_client::Client;
use drave_queue::{Message, Queue, QueueError, QueueOptions};

const PRODUCERS: u64 = 3;
const CONSUMERS: u64 = 4;
const MESSAGES_EACH: u64 = 400;
const KILLS: usize = 8;
const VISIBILITY: Duration = Duration::from_millis(400);

/// A message that was given out, by the log's times.
#[derive(Clone, Copy, Debug)]
struct Held {
    message: u64,
    from_us: u64,
    /// Until it was finished or released, or its time was over.
    to_us: u64,
    /// Whether it was finished then.
    is_finished: bool,
}

/// What happened to a queue.
#[derive(Clone, Debug, Default)]
struct History {
    /// Each message that was sent, its key, its body.
    sent: BTreeMap<u64, (Option<String>, String)>,
    held: Vec<Held>,
    /// Messages that were put aside.
    dead: Vec<u64>,
    /// Messages that may have been finished without anybody hearing of it.
    unheard: BTreeSet<u64>,
}

/// The first promise that a history breaks.
fn broken(history: &History) -> Option<String> {
    let bodies: BTreeSet<&String> = history.sent.values().map(|(_, body)| body).collect();
    if bodies.len() != history.sent.len() {
        return Some("a message was sent twice".to_owned());
    }
    let mut of_message: BTreeMap<u64, Vec<Held>> = BTreeMap::new();
    for held in &history.held {
        of_message.entry(held.message).or_default().push(*held);
    }
    for (message, held) in &mut of_message {
        held.sort_by_key(|held| (held.from_us, held.to_us));
        for pair in held.windows(2) {
            if pair[1].from_us < pair[0].to_us {
                return Some(format!("message {message} is held by two: {pair:?}"));
            }
            if pair[0].is_finished {
                return Some(format!(
                    "message {message} is given out after it was finished"
                ));
            }
        }
    }
    let mut over: BTreeMap<u64, u64> = BTreeMap::new();
    for message in history.sent.keys() {
        let finished = of_message.get(message).and_then(|held| held.last());
        let finished = finished.filter(|held| held.is_finished);
        let buried = history.dead.iter().filter(|dead| *dead == message).count();
        match (finished, buried) {
            (Some(held), 0) => drop(over.insert(*message, held.to_us)),
            (None, 1) => {
                let held = of_message.get(message).and_then(|held| held.last());
                over.insert(*message, held.map_or(u64::MAX, |held| held.to_us));
            }
            (finished, buried) => {
                let finished = usize::from(finished.is_some());
                return Some(format!(
                    "message {message}: finished {finished}, put aside {buried} times"
                ));
            }
        }
    }
    let mut last_of_key: BTreeMap<&str, u64> = BTreeMap::new();
    for (message, (key, _)) in &history.sent {
        let Some(key) = key else { continue };
        let earlier = last_of_key.insert(key, *message);
        let first = of_message.get(message).and_then(|held| held.first());
        if let (Some(earlier), Some(first)) = (earlier, first)
            && first.from_us < over[&earlier]
        {
            return Some(format!(
                "message {message} comes before {earlier} of the same key is over"
            ));
        }
    }
    None
}

fn history(keys: &[&str], held: &[(u64, u64, u64, bool)], dead: &[u64]) -> History {
    let sent = keys.iter().zip(0..).map(|(key, message)| {
        let key = (!key.is_empty()).then(|| (*key).to_owned());
        (message, (key, format!("body {message}")))
    });
    let held = held
        .iter()
        .map(|&(message, from_us, to_us, is_finished)| Held {
            message,
            from_us,
            to_us,
            is_finished,
        });
    History {
        sent: sent.collect(),
        held: held.collect(),
        dead: dead.to_vec(),
        unheard: BTreeSet::new(),
    }
}

#[test]
fn promises_that_are_broken_are_found() {
    let good = history(
        &["a", "a", ""],
        &[(0, 1, 5, false), (0, 5, 9, true), (1, 9, 10, true)],
        &[2],
    );
    assert_eq!(broken(&good), None);
    let cases = [
        (history(&[""], &[], &[]), "finished 0"),
        (history(&[""], &[(0, 1, 2, true)], &[0]), "put aside 1"),
        (history(&[""], &[], &[0, 0]), "put aside 2"),
        (
            history(&[""], &[(0, 1, 5, false), (0, 4, 6, true)], &[]),
            "held by two",
        ),
        (
            history(&[""], &[(0, 1, 5, true), (0, 6, 7, true)], &[]),
            "after it was finished",
        ),
        (
            history(&["a", "a"], &[(0, 1, 5, true), (1, 4, 6, true)], &[]),
            "same key",
        ),
        (
            history(&["a", "a"], &[(1, 1, 2, true), (0, 3, 4, true)], &[]),
            "same key",
        ),
    ];
    for (history, says) in cases {
        let found = broken(&history).unwrap_or_default();
        assert!(found.contains(says), "{says}: {found:?}");
    }
    let mut twice = history(&["", ""], &[(0, 1, 2, true), (1, 1, 2, true)], &[]);
    twice.sent.get_mut(&1).unwrap().1 = "body 0".to_owned();
    assert_eq!(broken(&twice).unwrap(), "a message was sent twice");
}

/// What producers and consumers share.
struct Work {
    history: Mutex<History>,
    /// Messages that are known as finished.
    finished: AtomicU64,
    is_over: AtomicBool,
}

async fn produce(queue: Queue, work: Arc<Work>, producer: u64, mut random: Random) {
    for number in 0..MESSAGES_EACH {
        let key = match random.between(0, 4) {
            0 => None,
            key => Some(format!("{producer}.{key}")),
        };
        let body = format!("{producer}.{number}");
        let message = Message {
            key: key.clone(),
            body: body.clone().into_bytes(),
        };
        let seq = queue.send(&message).await.unwrap();
        let replaced = work.history.lock().unwrap().sent.insert(seq, (key, body));
        assert!(replaced.is_none(), "two messages at {seq}");
    }
}

async fn consume(client: Client, work: Arc<Work>, mut random: Random) {
    let queue = Queue::open(&client, "work").await.unwrap();
    'crash: loop {
        // One that crashed is followed by a new one, which knows nothing of it.
        let Ok(mut consumer) = queue.consumer().await else {
            continue;
        };
        loop {
            if work.is_over.load(Ordering::Relaxed) {
                return;
            }
            let wait = Duration::from_millis(300);
            let Ok(given) = consumer.receive(8, VISIBILITY, wait).await else {
                continue 'crash;
            };
            for delivery in &given {
                work.history.lock().unwrap().held.push(Held {
                    message: delivery.receipt.message,
                    from_us: delivery.given_us,
                    to_us: delivery.until_us,
                    is_finished: false,
                });
            }
            let receipts: Vec<_> = given.iter().map(|delivery| delivery.receipt).collect();
            let (is_finished, settled) = match random.between(0, 20) {
                // Crashes with what it has.
                0 => continue 'crash,
                1 => (false, consumer.release(&receipts).await),
                _ => (true, consumer.acknowledge(&receipts).await),
            };
            let settled = match settled {
                Ok(settled) => settled,
                // Done, and not heard of: what became of them is seen in the end.
                Err(QueueError::Behind { .. }) => {
                    let messages = receipts.iter().map(|receipt| receipt.message);
                    work.history.lock().unwrap().unheard.extend(messages);
                    continue 'crash;
                }
                Err(error) => panic!("{error}"),
            };
            let mut history = work.history.lock().unwrap();
            for (delivery, done) in given.iter().zip(&settled.done) {
                if !done {
                    continue;
                }
                let mut held = history.held.iter_mut();
                let held = held.find(|it| {
                    (it.message, it.from_us) == (delivery.receipt.message, delivery.given_us)
                });
                let held = held.unwrap();
                // Late, but before anybody else: it was nobody's meanwhile.
                held.to_us = settled.time_us.min(held.to_us);
                held.is_finished = is_finished;
                work.finished
                    .fetch_add(u64::from(is_finished), Ordering::Relaxed);
            }
        }
    }
}

/// What may have been finished without anybody hearing of it, and was not put aside, was finished by whoever had it
/// last: nothing is unfinished in the end.
fn finish_what_was_not_heard_of(history: &mut History) {
    let finished = history.held.iter().filter(|held| held.is_finished);
    let finished: BTreeSet<u64> = finished.map(|held| held.message).collect();
    let mut last: BTreeMap<u64, &mut Held> = BTreeMap::new();
    for held in &mut history.held {
        let is_known = finished.contains(&held.message) || history.dead.contains(&held.message);
        if is_known || !history.unheard.contains(&held.message) {
            continue;
        }
        if last
            .get(&held.message)
            .is_none_or(|known| known.from_us < held.from_us)
        {
            last.insert(held.message, held);
        }
    }
    for held in last.into_values() {
        held.is_finished = true;
        // When is not known: as soon as it was given out, for all that others can tell.
        held.to_us = held.from_us;
    }
}

/// Producers and consumers at work on these nodes, and `disturb` after every so many messages: it is given what lets
/// it wait until so many more are finished.
fn check(
    endpoints: &[String],
    mut random: Random,
    mut disturb: impl FnMut(&mut Random, &dyn Fn(u64)),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = Arc::new(Work {
        history: Mutex::default(),
        finished: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    });
    let own_client = || {
        Client::builder()
            .endpoints(endpoints.to_vec())
            .request_timeout(LIMIT)
    };
    let client = runtime.block_on(async { own_client().build() }).unwrap();
    let mut options = QueueOptions::default();
    // Few enough that some are put aside.
    options.attempts_max = 3;
    let created = Queue::create(&client, "work", options);
    let queue = runtime.block_on(created).unwrap();
    // Each a thread with a runtime of its own, so that they go on while this one kills.
    let mut threads = Vec::new();
    for producer in 0..PRODUCERS {
        let (work, client, random) = (Arc::clone(&work), own_client(), random.fork());
        threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let queue = Queue::open(&client.build().unwrap(), "work").await.unwrap();
                produce(queue, work, producer, random).await;
            });
        }));
    }
    for _ in 0..CONSUMERS {
        let (work, client, random) = (Arc::clone(&work), own_client(), random.fork());
        threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap()
                .block_on(consume(client.build().unwrap(), work, random));
        }));
    }
    let all = PRODUCERS * MESSAGES_EACH;
    for kill in 1..=KILLS as u64 {
        // Spread over the work, not over time. Less than half of it may be put aside.
        let enough = all / 2 * kill / KILLS as u64;
        common::nodes::wait_for("messages to be finished", || {
            work.finished.load(Ordering::Relaxed) >= enough
        });
        disturb(&mut random, &|count| {
            let enough = work.finished.load(Ordering::Relaxed) + count;
            common::nodes::wait_for("messages to be finished meanwhile", || {
                work.finished.load(Ordering::Relaxed) >= enough
            });
        });
    }
    common::nodes::wait_for("everything to be over", || {
        let status = runtime.block_on(queue.status());
        status.is_ok_and(|it| it.sent == all && it.new + it.held + it.waiting == 0)
    });
    work.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let mut history = work.history.lock().unwrap().clone();
    let mut from = 0;
    loop {
        let letters = runtime.block_on(queue.dead_letters(from)).unwrap();
        from += letters.len() as u64;
        history
            .dead
            .extend(letters.iter().map(|letter| letter.message));
        if letters.is_empty() {
            break;
        }
    }
    assert_eq!(history.sent.len() as u64, all);
    finish_what_was_not_heard_of(&mut history);
    println!(
        "{all} messages, given out {} times, {} put aside",
        history.held.len(),
        history.dead.len()
    );
    assert_eq!(broken(&history), None);
}

#[test]
fn nothing_is_lost_or_seen_by_two_while_nodes_are_killed() {
    let mut test = TestCluster::start(3);
    let endpoints = test.cluster.endpoints();
    check(&endpoints, Random::new(), |random, _| {
        let node_id = random.between(1, 4) as u64;
        test.cluster.kill(node_id).unwrap();
        test.leader();
        test.cluster.start(node_id).unwrap();
    });
}

/// The nodes are in this process, with links between them that are cut.
#[test]
fn nothing_is_lost_or_seen_by_two_while_nodes_are_cut_off() {
    let mut nodes = drave_embed::testing::TestCluster::start_linked(3).unwrap();
    let endpoints = nodes.endpoints();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    check(&endpoints, Random::new(), |random, go_on| {
        let leader = runtime.block_on(nodes.leader()).unwrap();
        let links = nodes.links().unwrap();
        let other = leader % 3 + 1;
        match random.between(0, 3) {
            0 => links.isolate(leader),
            1 => links.isolate(other),
            // It goes on to lead, and hears only one of the others.
            _ => links.cut(other, leader),
        }
        go_on(random.between(4, 20) as u64);
        nodes.links().unwrap().heal();
    });
}
