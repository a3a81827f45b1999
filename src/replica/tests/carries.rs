//! Carrying over: planned when it pays, applied alike, found and needed from then on where it was carried to.

use super::*;
use crate::replica::CarryPlan;
use drave_batch::decode_carried;

/// A cluster that takes a snapshot after every few entries.
fn cluster() -> (Cluster, u64) {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        snapshot_chunk_bytes: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    (cluster, leader)
}

impl Cluster {
    fn plan(&mut self, node: u64) -> Option<CarryPlan> {
        let (replica, log) = &self.replicas[&node];
        replica.carry_plan(log)
    }

    /// What a plan names, as the leader's log holds it.
    fn planned_batches(&mut self, node: u64, plan: &CarryPlan) -> Vec<u8> {
        let log = self.log(node);
        let entries = log.slice(log.first_index, log.last_index() + 1);
        let mut batches = Vec::new();
        for (log_id, from, to) in &plan.logs {
            for entry in entries {
                let header = BatchRef::decode(entry).unwrap().header;
                let is_in = header.next_seq() > *from && header.first_seq < *to;
                if header.kind == EntryKind::Data && header.log_id == *log_id && is_in {
                    batches.extend_from_slice(entry);
                }
            }
        }
        batches
    }

    /// Carries over what a plan says, or tries to.
    fn carry(&mut self, node: u64, plan: &CarryPlan) -> bool {
        let batches = self.planned_batches(node, plan);
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&node).unwrap();
        replica.carry_over(now, &batches, log).unwrap()
    }

    /// The batch that holds a seq, where the node's tables say that it is.
    fn batch_at(&mut self, node: u64, log_id: u64, seq: u64) -> Vec<u8> {
        let index = &self.replica(node).catalogue().log(log_id).unwrap().index;
        let ((lo, _), is_carried) = (index.locate(seq).unwrap(), index.is_carried(seq));
        let log = self.log(node);
        assert!(
            lo >= log.first_index,
            "{lo} is before {} on node {node}",
            log.first_index
        );
        let entry = log.slice(lo, lo + 1)[0].clone();
        let entry = BatchRef::decode(&entry).unwrap();
        let mut held = vec![entry.clone()];
        if is_carried {
            held = decode_carried(&entry.header, entry.body()).unwrap();
        }
        let is_it = |batch: &&BatchRef<'_>| {
            let header = &batch.header;
            header.log_id == log_id && (header.first_seq..header.next_seq()).contains(&seq)
        };
        let batch = held.iter().find(is_it).expect("the batch is there");
        batch.body().to_vec()
    }
}

/// Two records of a slow log, then many of a busy one, of which the last few are kept.
fn slow_and_busy(cluster: &mut Cluster, leader: u64) -> (u64, u64) {
    let (slow, busy) = (
        cluster.create(leader, "slow"),
        cluster.create(leader, "busy"),
    );
    for text in [b"one" as &[u8], b"two"] {
        cluster.append(leader, 1, &batch(slow, 0, 0, &[text]));
        cluster.settle(true);
        appended(cluster.answer(1));
    }
    // A busy log is given up at marks, which are 512 entries apart.
    cluster.fill(leader, busy, 1_100);
    cluster.trim(leader, 2, busy, 1_090);
    cluster.settle(true);
    cluster.answer(2);
    cluster.fill(leader, busy, 20);
    for _ in 0..10 {
        cluster.pass(100_000);
    }
    (slow, busy)
}

#[test]
fn a_log_with_old_records_lets_the_others_space_go() {
    let (mut cluster, leader) = cluster();
    let (slow, busy) = slow_and_busy(&mut cluster, leader);
    let before: Vec<_> = (0..2)
        .map(|seq| cluster.batch_at(leader, slow, seq))
        .collect();
    assert_eq!(cluster.log(leader).first_index, 1, "two records hold all");
    let plan = cluster.plan(leader).unwrap();
    assert_eq!(plan.logs, [(slow, 0, 2)]);
    assert!(plan.limit > 512 && plan.limit < 1_100, "{plan:?}");
    assert!(plan.bytes * 4 < plan.frees_bytes, "{plan:?}");
    assert!(cluster.carry(leader, &plan));
    assert!(cluster.replica(leader).is_carrying());
    assert_eq!(cluster.plan(leader), None, "one is under way");
    for _ in 0..10 {
        cluster.pass(100_000);
    }
    cluster.check_agreement();
    for node in 1..=3 {
        assert!(cluster.log(node).first_index > plan.limit);
        for seq in 0..2 {
            assert_eq!(cluster.batch_at(node, slow, seq), before[seq as usize]);
        }
    }
    assert_eq!(cluster.plan(leader), None, "there is nothing left to carry");
    // The state knows of it, and a node that starts from the state.
    let snapshot = StateSnapshot::of(0, &cluster.replica(leader).tables);
    let bytes = snapshot.encode();
    assert_eq!(bytes.len() as u64, snapshot.encoded_bytes());
    assert_eq!(StateSnapshot::decode(&bytes).unwrap(), snapshot);
    cluster.fill(leader, busy, 40);
    for node in 1..=3 {
        cluster.restart(node);
    }
    let leader = cluster.elect();
    cluster.fill(leader, slow, 1);
    for node in 1..=3 {
        for seq in 0..2 {
            assert_eq!(cluster.batch_at(node, slow, seq), before[seq as usize]);
        }
        cluster.batch_at(node, slow, 2);
    }
    // What was carried is in the way again in time, and is carried again, with what came since.
    cluster.fill(leader, busy, 1_100);
    cluster.trim(leader, 3, busy, 2_200);
    cluster.settle(true);
    cluster.answer(3);
    cluster.fill(leader, busy, 60);
    let plan = cluster.plan(leader).unwrap();
    assert_eq!(plan.logs, [(slow, 0, 3)]);
}

#[test]
fn nothing_is_carried_that_costs_more_than_it_gives() {
    let (mut cluster, leader) = cluster();
    let (slow, busy) = slow_and_busy(&mut cluster, leader);
    for follower in (1..=3).filter(|id| *id != leader) {
        assert_eq!(cluster.plan(follower), None, "a leader decides");
    }
    let plan = cluster.plan(leader).unwrap();
    let batches = cluster.planned_batches(leader, &plan);
    let now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&leader).unwrap();
    let last = replica.raft().last().index;
    for wrong in [&batches[1..], &batches[..batches.len() - 8], &[]] {
        assert!(!replica.carry_over(now, wrong, log).unwrap());
    }
    log.disk_full = true;
    assert!(!replica.carry_over(now, &batches, log).unwrap());
    assert_eq!(replica.raft().last().index, last, "no entry was made of it");
    log.disk_full = false;
    cluster.trim(leader, 3, slow, 2);
    cluster.trim(leader, 4, busy, 0);
    cluster.settle(true);
    for _ in 0..10 {
        cluster.pass(100_000);
    }
    assert_eq!(cluster.plan(leader), None, "it was given up meanwhile");
}

#[test]
fn what_is_live_by_more_than_a_fifth_stays() {
    for (busy_each, is_planned) in [(3, false), (12, true)] {
        let (mut cluster, leader) = cluster();
        let (kept, busy) = (
            cluster.create(leader, "kept"),
            cluster.create(leader, "busy"),
        );
        for _ in 0..40 {
            cluster.fill(leader, kept, 1);
            cluster.fill(leader, busy, busy_each);
        }
        cluster.trim(leader, 3, busy, 40 * busy_each);
        cluster.settle(true);
        cluster.answer(3);
        for _ in 0..10 {
            cluster.pass(100_000);
        }
        assert_eq!(
            cluster.plan(leader).is_some(),
            is_planned,
            "one of {busy_each}"
        );
    }
}

#[test]
fn what_was_carried_in_an_entry_that_was_truncated_is_where_it_was() {
    let (mut cluster, old) = cluster();
    let (slow, _) = slow_and_busy(&mut cluster, old);
    let located = |cluster: &Cluster, node| {
        let log = cluster.replica(node).catalogue().log(slow).unwrap();
        log.index.locate(0)
    };
    let before = located(&cluster, old);
    let plan = cluster.plan(old).unwrap();
    cluster.cut = vec![old];
    assert!(cluster.carry(old, &plan));
    assert_eq!(located(&cluster, old), before, "it is not committed");
    let new = cluster.elect();
    cluster.fill(new, slow, 1);
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    let again = located(&cluster, old).map(|range| range.0);
    assert_eq!(again, before.map(|range| range.0));
    assert!(!cluster.replica(old).is_carrying());
    cluster.check_agreement();
    let leader = cluster.elect();
    let plan = cluster.plan(leader).unwrap();
    assert!(cluster.carry(leader, &plan));
    for _ in 0..10 {
        cluster.pass(100_000);
    }
    assert!(cluster.log(leader).first_index > plan.limit);
    cluster.batch_at(old, slow, 0);
}

#[test]
fn a_node_that_was_away_gets_the_snapshot_before_and_finds_what_was_carried() {
    let (mut cluster, leader) = cluster();
    let away = (1..=3).find(|id| *id != leader).unwrap();
    cluster.cut = vec![away];
    let (slow, busy) = slow_and_busy(&mut cluster, leader);
    let plan = cluster.plan(leader).unwrap();
    assert!(cluster.carry(leader, &plan));
    for _ in 0..50 {
        cluster.pass(100_000);
    }
    cluster.fill(leader, busy, 5);
    assert!(cluster.log(leader).first_index > plan.limit);
    cluster.cut.clear();
    for _ in 0..50 {
        cluster.pass(100_000);
    }
    cluster.check_agreement();
    assert!(
        cluster.log(away).first_index > plan.limit,
        "it got a snapshot"
    );
    let text = cluster.batch_at(leader, slow, 1);
    assert_eq!(cluster.batch_at(away, slow, 1), text);
    // A log that is deleted holds nothing back.
    cluster.ask(leader, 7, |r, now, to, log| {
        r.change_log(now, to, slow, drave_batch::LogChange::Delete, log)
    });
    for _ in 0..10 {
        cluster.pass(100_000);
    }
    assert_eq!(cluster.plan(leader), None);
}
