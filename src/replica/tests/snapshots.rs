//! State snapshots: taken, kept, sent in chunks, installed, restored from.

use super::*;

/// A cluster that takes a snapshot after every few entries.
fn cluster(count: u64) -> Cluster {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    Cluster::with(count, config)
}

/// Records until a snapshot that holds them is stored, then trimmed, so that the log begins after it.
fn compacted(cluster: &mut Cluster, leader: u64, log: u64) {
    cluster.fill(leader, log, 40);
    let next_seq = cluster
        .replica(leader)
        .catalogue()
        .log(log)
        .unwrap()
        .next_seq;
    cluster.trim(leader, 1, log, next_seq);
    cluster.settle(true);
    cluster.answer(1);
    cluster.fill(leader, log, 20);
    for _ in 0..30 {
        cluster.pass(50_000);
    }
    assert!(
        cluster.log(leader).first_index > 16,
        "the log was compacted"
    );
}

#[test]
fn a_snapshot_survives_its_bytes_and_no_others() {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    cluster.append(leader, 1, &batch(log, producer, 0, &[b"x", b"y"]));
    cluster.fill(leader, log, 10);
    let snapshot = StateSnapshot::of(0, &cluster.replica(leader).tables);
    let bytes = snapshot.encode();
    assert_eq!(bytes.len() as u64, snapshot.encoded_bytes());
    assert_eq!(StateSnapshot::decode(&bytes).unwrap(), snapshot);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert!(StateSnapshot::decode(&bad).is_err(), "byte {at}");
        assert!(StateSnapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    let mut other_version = bytes.clone();
    other_version[8] = 9;
    let error = StateSnapshot::decode(&other_version).unwrap_err();
    assert!(error.to_string().contains("version"), "{error}");
}

#[test]
fn a_snapshot_is_due_after_so_many_entries_and_says_the_same_everywhere() {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 60);
    cluster.pass(100_000);
    let stored: Vec<BTreeMap<u64, Vec<u8>>> = (1..=3)
        .map(|id| cluster.log(id).snapshots.clone())
        .collect();
    assert!(stored.iter().all(|snapshots| snapshots.len() >= 2));
    let mut compared = 0;
    for (index, bytes) in &stored[0] {
        for other in &stored[1..] {
            if let Some(others) = other.get(index) {
                assert_eq!(bytes, others, "the state at {index} is one");
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "some were taken at the same index");
    for id in 1..=3 {
        assert_eq!(
            cluster.log(id).first_index,
            1,
            "no record was trimmed, so nothing goes"
        );
    }
}

#[test]
fn a_restart_from_a_snapshot_decides_as_before() {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let first = batch(log, producer, 0, &[b"x"]);
    cluster.append(leader, 1, &first);
    cluster.settle(true);
    let ack = appended(cluster.answer(1));
    compacted(&mut cluster, leader, log);
    let before: Vec<StateSnapshot> = (1..=3)
        .map(|id| StateSnapshot::of(0, &cluster.replica(id).tables))
        .collect();
    for id in 1..=3 {
        cluster.restart(id);
        assert!(
            cluster.replica(id).applied_index() >= 32,
            "no replay from the start"
        );
    }
    let leader = cluster.elect();
    cluster.append(leader, 2, &first);
    let again = appended(cluster.answer(2));
    assert_eq!((again.first_seq, again.duplicate), (ack.first_seq, true));
    cluster.append(leader, 3, &batch(log, producer, 1, &[b"y"]));
    cluster.settle(true);
    appended(cluster.answer(3));
    cluster.pass(100_000);
    cluster.check_agreement();
    let after = StateSnapshot::of(0, &cluster.replica(leader).tables);
    assert_eq!(after.members, before[0].members);
    assert_eq!(after.logs[0].first_seq, before[0].logs[0].first_seq);
    assert_eq!(after.logs[0].next_seq, before[0].logs[0].next_seq + 1);
}

#[test]
fn a_node_behind_the_log_gets_the_snapshot_and_then_the_log() {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let behind = leader % 3 + 1;
    cluster.cut = vec![behind];
    let first = batch(log, producer, 0, &[b"x"]);
    cluster.append(leader, 1, &first);
    compacted(&mut cluster, leader, log);
    assert!(cluster.replica(behind).raft().last().index < cluster.log(leader).first_index);
    cluster.cut.clear();
    for _ in 0..40 {
        cluster.pass(50_000);
    }
    assert!(cluster.log(behind).first_index > 1, "it has the snapshot");
    assert!(cluster.replica(behind).outputs.log_replaced);
    assert!(cluster.replica(behind).outputs.advanced.contains(&log));
    cluster.check_agreement();
    // It knows everything that was before: it can lead.
    cluster.ask(leader, 2, |r, now, to, l| {
        r.transfer_leader(now, to, NodeId(behind), l)
    });
    cluster.settle(true);
    assert!(cluster.replica(behind).is_leader());
    cluster.append(behind, 3, &first);
    assert!(appended(cluster.answer(3)).duplicate);
    cluster.append(behind, 4, &batch(log, producer, 1, &[b"y"]));
    cluster.settle(true);
    appended(cluster.answer(4));
    cluster.pass(100_000);
    cluster.check_agreement();
    cluster.restart(behind);
    cluster.elect();
    cluster.check_agreement();
}
