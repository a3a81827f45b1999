//! The leader's disk becomes slow, or hangs for ever: another node leads within a second, appends go on as fast
//! as before, the reason is told, and the lead does not go back and forth.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{LIMIT, TestCluster};
use drave_client::NodeStatus;

/// Flushes of the log wait as a file in each data directory says.
const SETTINGS: &str = "[fault]\ndisk = true\n";

/// What an append takes on any machine when no disk is slow: far below a slow flush.
const FLUSH_SLOW_US: u64 = 100_000;

struct Disks {
    test: TestCluster,
    log: drave_client::Log,
}

impl Disks {
    fn start() -> Self {
        let mut test = TestCluster::start_with(3, SETTINGS);
        test.caught_up();
        test.runtime
            .block_on(test.client.create_log("a", true))
            .unwrap();
        let log = test.runtime.block_on(test.client.log("a")).unwrap();
        let mut disks = Self { test, log };
        // Every node says how its disk does only when it has flushed something.
        disks.append_for(Duration::from_millis(300));
        disks
    }

    /// From now on flushes of this node do what `fault` says.
    fn set(&self, node: u64, fault: &str) {
        let path = self.test.cluster.data_dir(node).join("fault");
        // A flush must not find it half written.
        let half = path.with_extension("new");
        fs::write(&half, fault).unwrap();
        fs::rename(&half, &path).unwrap();
    }

    /// How long one append takes.
    fn append(&mut self) -> Duration {
        let began = Instant::now();
        let appended = self.test.runtime.block_on(self.log.append("x"));
        appended.unwrap();
        began.elapsed()
    }

    /// Appends one after another for so long; how long each took.
    fn append_for(&mut self, duration: Duration) -> Vec<Duration> {
        let began = Instant::now();
        let mut took = Vec::new();
        while began.elapsed() < duration {
            took.push(self.append());
        }
        took.sort_unstable();
        took
    }

    fn status(&mut self, node: u64) -> NodeStatus {
        let status = self.test.runtime.block_on(self.test.client.status());
        let mut nodes = status.unwrap().nodes.into_iter();
        nodes.find(|status| status.node_id == Some(node)).unwrap()
    }

    /// Who leads, and in which term, as that node says.
    fn lead(&mut self) -> (u64, u64) {
        let leader = self.test.leader();
        (leader, self.status(leader).term.unwrap())
    }

    /// Appends until another node than `old` leads; how long that took, and who it is.
    fn append_until_handed_over(&mut self, old: u64) -> (Duration, u64) {
        let began = Instant::now();
        loop {
            self.append();
            let status = self.test.runtime.block_on(self.test.client.status());
            let status = status.unwrap();
            if let Some(leader) = status.leader_id.filter(|leader| *leader != old) {
                return (began.elapsed(), leader);
            }
            assert!(began.elapsed() < LIMIT, "node {old} keeps the lead");
        }
    }

    /// What a node's log says of hand-overs.
    fn hand_overs(&self, node: u64) -> usize {
        let log = fs::read_to_string(self.test.cluster.log_path(node)).unwrap();
        let told = log
            .lines()
            .filter(|line| line.contains("handing the lead over"));
        told.count()
    }
}

/// Whether the 99th of 100 is below.
fn p99_is_below(sorted: &[Duration], limit: Duration) -> bool {
    sorted[sorted.len() * 99 / 100] < limit
}

fn hands_over_and_goes_on(fault: &str, reason: &str) -> (Disks, u64, u64) {
    let mut disks = Disks::start();
    let (old, _) = disks.lead();
    disks.set(old, fault);
    let (after, new) = disks.append_until_handed_over(old);
    assert!(after < Duration::from_secs(1), "it took {after:?}");
    let took = disks.append_for(Duration::from_secs(1));
    let limit = Duration::from_micros(FLUSH_SLOW_US / 2);
    assert!(p99_is_below(&took, limit), "{took:?}");
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{fault}: handed over after {after:?}, then p99 {p99:?} of {} appends",
        took.len()
    );
    let told = disks.status(old).fault.unwrap();
    assert!(
        told.contains(&format!("handed the lead to node {new}")),
        "{told}"
    );
    assert!(told.contains(reason), "{told}");
    let log = fs::read_to_string(disks.test.cluster.log_path(old)).unwrap();
    assert!(log.contains(reason), "{log}");
    assert_eq!(disks.hand_overs(old), 1);
    (disks, old, new)
}

#[test]
fn slow_flushes_hand_the_lead_over_once() {
    let fault = format!("delay_us {FLUSH_SLOW_US}");
    let (mut disks, old, new) =
        hands_over_and_goes_on(&fault, "this node's disk is slow: flushes take 1");
    let (leader, term) = disks.lead();
    assert_eq!(leader, new);
    // Now its disk is slow, and the first one's is not: it keeps what it was given.
    disks.set(new, &fault);
    disks.set(old, "");
    let took = disks.append_for(Duration::from_secs(3));
    assert_eq!(disks.lead(), (new, term));
    assert_eq!((disks.hand_overs(old), disks.hand_overs(new)), (1, 0));
    // It commits through the other two meanwhile.
    let limit = Duration::from_micros(FLUSH_SLOW_US / 2);
    assert!(p99_is_below(&took, limit), "{took:?}");
}

#[test]
fn a_disk_that_hangs_hands_the_lead_over() {
    let (mut disks, old, new) = hands_over_and_goes_on("hang", "this node's disk hangs");
    // It hangs still, for as long as it likes.
    disks.append_for(Duration::from_secs(2));
    assert_eq!(disks.lead().0, new);
    assert!(disks.status(old).flush_waits_us.unwrap() > 1_000_000);
    assert_eq!(disks.hand_overs(new), 0);
    // When it comes back, so does its replica.
    disks.set(old, "");
    disks.test.caught_up();
}
