//! Clients at work while processes are killed, paused and cut off from each other: every key's history has an order,
//! and nothing that was answered is lost.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::linearizable::{Did, Operation, has_order};
use common::{LIMIT, Processes, agent, request};
use ureq::Agent;

const CLIENTS: u64 = 6;
const KEYS: u64 = 4;

/// The keys change every so many operations of a client, so that each history stays short enough to be searched.
const OPERATIONS_ON_A_KEY: u64 = 40;

/// Nodes that are killed or cut off, one after the other.
const DISTURBANCES: usize = 15;

/// A linear congruential generator (Knuth): what happens is drawn, not secret.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn seed() -> u64 {
    let given = std::env::var("DRAVE_TEST_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let drawn = || {
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_nanos() as u64
    };
    let seed = given.unwrap_or_else(drawn);
    println!("DRAVE_TEST_SEED={seed}");
    seed
}

/// What all clients share.
struct Work {
    urls: Mutex<Vec<String>>,
    begun: Instant,
    is_over: AtomicBool,
    next_value: AtomicU64,
    histories: Mutex<BTreeMap<String, Vec<Operation>>>,
}

struct Worker {
    work: Arc<Work>,
    number: u64,
    random: Random,
    agent: Agent,
    /// The versions of values that were seen, for swaps.
    versions: BTreeMap<(String, u64), String>,
    /// The last value seen of a key.
    seen: BTreeMap<String, Option<u64>>,
}

enum Intent {
    Read,
    Put(u64),
    Swap { from: Option<u64>, to: u64 },
    Delete,
}

impl Worker {
    fn run(mut self) {
        let mut count = 0;
        while !self.work.is_over.load(Ordering::Relaxed) {
            let key = format!(
                "{}-{}",
                count / OPERATIONS_ON_A_KEY,
                self.random.below(KEYS)
            );
            self.operate(&key);
            count += 1;
        }
    }

    fn now(&self) -> u64 {
        self.work.begun.elapsed().as_nanos() as u64
    }

    fn operate(&mut self, key: &str) {
        let value = self.work.next_value.fetch_add(1, Ordering::Relaxed);
        let seen = self.seen.get(key).copied();
        let intent = match (self.random.below(10), seen) {
            (0..=3, _) => Intent::Read,
            (4..=5, Some(from)) => Intent::Swap { from, to: value },
            (9, _) => Intent::Delete,
            _ => Intent::Put(value),
        };
        let called = self.now();
        let did = match intent {
            Intent::Read => self.read(key),
            Intent::Put(value) => {
                Some(self.change("PUT", key, None, value, |answer| match answer {
                    Some(200) => Did::Put(value),
                    _ => Did::MayPut(value),
                }))
            }
            Intent::Swap { from, to } => {
                let condition = match from {
                    None => ("if-none-match", "*".to_owned()),
                    Some(value) => ("if-match", self.versions[&(key.to_owned(), value)].clone()),
                };
                Some(
                    self.change("PUT", key, Some(condition), to, |answer| match answer {
                        Some(200) => Did::Swapped { from, to },
                        Some(412) => Did::NotSwapped { from },
                        _ => Did::MaySwap { from, to },
                    }),
                )
            }
            Intent::Delete => {
                Some(
                    self.change("DELETE", key, None, value, |answer| match answer {
                        Some(200) => Did::Deleted(true),
                        Some(404) => Did::Deleted(false),
                        _ => Did::MayDelete,
                    }),
                )
            }
        };
        let returned = self.now();
        let Some(did) = did else { return };
        let mut histories = self.work.histories.lock().unwrap();
        histories
            .entry(key.to_owned())
            .or_default()
            .push(Operation {
                called,
                returned,
                did,
            });
    }

    fn url(&mut self, key: &str) -> String {
        let urls = self.work.urls.lock().unwrap();
        let url = &urls[self.random.below(urls.len() as u64) as usize];
        format!("{url}/kv/{key}")
    }

    /// None when nobody answered.
    fn read(&mut self, key: &str) -> Option<Did> {
        let url = self.url(key);
        let answered = request(&self.agent, "GET", &url, &[], b"").ok()?;
        let read = match answered.status {
            200 => {
                let value = answered.body.parse().unwrap();
                self.versions
                    .insert((key.to_owned(), value), answered.etag.unwrap());
                Some(value)
            }
            404 => None,
            _ => return None,
        };
        self.seen.insert(key.to_owned(), read);
        Some(Did::Read(read))
    }

    /// Sends a change until it is answered or everybody was asked a few times, always as the same request.
    fn change(
        &mut self,
        method: &str,
        key: &str,
        condition: Option<(&str, String)>,
        value: u64,
        did: impl Fn(Option<u16>) -> Did,
    ) -> Did {
        let id = format!("{:016x}{value:016x}", self.number);
        let mut headers = vec![("idempotency-key", id.as_str())];
        headers.extend(
            condition
                .as_ref()
                .map(|(name, text)| (*name, text.as_str())),
        );
        let body = if method == "PUT" {
            value.to_string()
        } else {
            String::new()
        };
        for _ in 0..6 {
            let url = self.url(key);
            match request(&self.agent, method, &url, &headers, body.as_bytes()) {
                Ok(answered) if [200, 404, 412].contains(&answered.status) => {
                    if let Some(tag) = answered.etag {
                        self.versions.insert((key.to_owned(), value), tag);
                        self.seen.insert(key.to_owned(), Some(value));
                    }
                    return did(Some(answered.status));
                }
                Ok(answered) => assert!([503, 504].contains(&answered.status), "{answered:?}"),
                // Killed, or cut off.
                Err(_) => {}
            }
        }
        did(None)
    }
}

#[test]
fn histories_have_an_order_while_processes_are_killed_paused_and_cut_off() {
    let seed = seed();
    let mut random = Random(seed);
    let mut processes = Processes::start(3, &["--snapshot-commands", "200", "--timeout-ms", "900"]);
    let work = Arc::new(Work {
        urls: Mutex::new((1..=3).map(|node_id| processes.url(node_id)).collect()),
        begun: Instant::now(),
        is_over: AtomicBool::new(false),
        next_value: AtomicU64::new(1),
        histories: Mutex::default(),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let worker = Worker {
                work: Arc::clone(&work),
                number,
                random: Random(random.below(u64::MAX)),
                agent: agent(Duration::from_secs(1)),
                versions: BTreeMap::new(),
                seen: BTreeMap::new(),
            };
            thread::spawn(move || worker.run())
        })
        .collect();
    let done = |work: &Work| work.next_value.load(Ordering::Relaxed);
    for _ in 0..DISTURBANCES {
        // Let them work for a while, counted in operations rather than in time.
        let enough = done(&work) + 100 + random.below(200);
        common::wait_until("operations go on", || done(&work) >= enough);
        let node_id = random.below(3) as usize + 1;
        let go_on = |least: u64, more: u64| {
            let enough = done(&work) + least + more;
            common::wait_until("operations go on without one node", || {
                done(&work) >= enough
            });
        };
        match random.below(5) {
            0 => {
                processes.pause(node_id);
                go_on(20, random.below(20));
                processes.go_on(node_id);
            }
            // It serves its own clients all the time, and hears nobody else.
            1 => {
                processes.links.isolate(node_id as u64);
                go_on(40, random.below(60));
                processes.links.heal();
            }
            // One other node is not heard, or not reached.
            2 => {
                let other = node_id as u64 % 3 + 1;
                let ends = [node_id as u64, other];
                let from = random.below(2) as usize;
                processes.links.cut(ends[from], ends[1 - from]);
                go_on(40, random.below(60));
                processes.links.heal();
            }
            _ => {
                processes.kill(node_id);
                go_on(0, random.below(60));
                let url = processes.restart(node_id);
                work.urls.lock().unwrap()[node_id - 1] = url;
            }
        }
    }
    work.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }

    // What every node says in the end belongs to the histories as well.
    let mut histories = std::mem::take(&mut *work.histories.lock().unwrap());
    let agent = agent(LIMIT);
    for (key, history) in &mut histories {
        for node_id in 1..=3 {
            let called = work.begun.elapsed().as_nanos() as u64;
            let url = format!("{}/kv/{key}", processes.url(node_id));
            let answered = request(&agent, "GET", &url, &[], b"").unwrap();
            let read = match answered.status {
                200 => Some(answered.body.parse().unwrap()),
                404 => None,
                _ => panic!("{answered:?}"),
            };
            let returned = work.begun.elapsed().as_nanos() as u64;
            history.push(Operation {
                called,
                returned,
                did: Did::Read(read),
            });
        }
    }
    let count: usize = histories.values().map(Vec::len).sum();
    let unknown = histories.values().flatten();
    let unknown = unknown
        .filter(|it| {
            matches!(
                it.did,
                Did::MayPut(_) | Did::MaySwap { .. } | Did::MayDelete
            )
        })
        .count();
    println!(
        "{count} operations on {} keys, {unknown} without an answer",
        histories.len()
    );
    assert!(
        count > 1_000,
        "{count} operations are too few to tell anything"
    );
    assert!(
        unknown < count / 2,
        "{unknown} of {count} operations have no answer"
    );
    for (key, history) in &histories {
        assert!(
            has_order(history),
            "key {key} has no order, seed {seed}: {history:#?}"
        );
    }
}
