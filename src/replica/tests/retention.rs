//! Retention: what the leader gives up, and what it never does.

use super::*;
use drave_batch::{LogChange, Retention};

impl Cluster {
    fn retain(&mut self, node: u64, log_id: u64, bytes: u64, age_us: u64) {
        let change = LogChange::Retain(Retention { bytes, age_us });
        self.ask(node, 904, |r, now, to, log| {
            r.change_log(now, to, log_id, change, log)
        });
        self.settle(true);
        match self.answer(904) {
            Answer::Described(log) => {
                assert_eq!((log.retention_bytes, log.retention_age_us), (bytes, age_us));
            }
            other => panic!("{other:?}"),
        }
    }

    fn described(&self, log: u64) -> wire::LogDescribed {
        let leader = self.replicas.values().find(|(r, _)| r.is_leader());
        leader.unwrap().0.catalogue().log(log).unwrap().describe()
    }

    /// So many looks of the leader, a second each.
    fn looks(&mut self, count: u64) {
        for _ in 0..10 * count {
            self.pass(100_000);
        }
    }
}

/// The group's other log lets marks of the first one be far apart in entries.
fn two_logs() -> (Cluster, u64, u64, u64) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (log, other) = (cluster.create(leader, "a"), cluster.create(leader, "b"));
    (cluster, leader, log, other)
}

#[test]
fn what_is_older_than_the_age_goes_and_nothing_younger() {
    let (mut cluster, leader, log, other) = two_logs();
    // A mark at each of these.
    for _ in 0..4 {
        cluster.fill(leader, log, 2);
        cluster.fill(leader, other, 512);
        cluster.looks(1);
    }
    cluster.retain(leader, log, 0, 2_500_000);
    let oldest_kept_us = |cluster: &Cluster| cluster.now.unix_us - 2_500_000;
    cluster.looks(1);
    let first = cluster.described(log);
    assert!(first.first_seq > 0, "{first:?}");
    let state = cluster.replica(leader).catalogue().log(log).unwrap();
    let next_mark = state.index.locate_time(oldest_kept_us(&cluster));
    assert!(first.first_seq <= next_mark.unwrap_or(first.next_seq));
    assert_eq!(cluster.described(other).first_seq, 0, "it has no limit");
    // In time all of it is too old.
    cluster.looks(4);
    assert_eq!(cluster.described(log).first_seq, 8);
    // Nothing more is said about an empty log.
    let last_index = cluster.replica(leader).raft().last().index;
    cluster.looks(3);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    for id in 1..=3 {
        let state = cluster.replica(id).catalogue().log(log).unwrap();
        assert_eq!((state.first_seq, state.next_seq), (8, 8));
    }
    cluster.check_agreement();
}

#[test]
fn what_is_beyond_the_bytes_goes_and_as_many_stay() {
    let (mut cluster, leader, log, other) = two_logs();
    cluster.fill(leader, log, 1);
    let bytes = cluster.described(log).held_bytes;
    cluster.retain(leader, log, 10 * bytes, 0);
    for _ in 0..8 {
        cluster.fill(leader, log, 5);
        cluster.fill(leader, other, 512);
        cluster.looks(1);
        let held = cluster.described(log);
        let records = held.next_seq - held.first_seq;
        assert!(records >= 10 || held.first_seq == 0, "{held:?}");
        assert!(records <= 15, "a stretch between marks is 5: {held:?}");
    }
    assert_eq!(cluster.described(log).next_seq, 41);
    // Without the limit nothing more goes.
    cluster.retain(leader, log, 0, 0);
    cluster.fill(leader, log, 40);
    let first_seq = cluster.described(log).first_seq;
    cluster.looks(2);
    assert_eq!(cluster.described(log).first_seq, first_seq);
    cluster.check_agreement();
}

#[test]
fn another_leader_goes_on_with_it_after_a_restart() {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.retain(leader, log, 0, 3_000_000);
    cluster.fill(leader, log, 40);
    cluster.pass(100_000);
    for id in 1..=3 {
        cluster.restart(id);
        assert!(cluster.replica(id).applied_index() >= 32);
    }
    cluster.elect();
    cluster.looks(5);
    assert_eq!(cluster.described(log).first_seq, 40);
    cluster.check_agreement();
}
