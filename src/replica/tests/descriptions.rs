//! What is told of a log: the same on every replica, after a restart from a snapshot too.

use super::*;
use drave_batch::Writer;

fn described(cluster: &Cluster, id: u64, log: u64) -> wire::LogDescribed {
    cluster.replica(id).catalogue().log(log).unwrap().describe()
}

#[test]
fn the_time_of_the_last_record_and_the_bytes_held_are_one_everywhere() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    assert_eq!(described(&cluster, leader, log).last_time_us, 0);
    cluster.fill(leader, log, 3);
    let before = described(&cluster, leader, log);
    assert_eq!(before.last_time_us, cluster.now.unix_us);
    assert_eq!(before.held_bytes % 3, 0);
    cluster.pass(100_000);
    cluster.fill(leader, log, 1);
    let after = described(&cluster, leader, log);
    assert!(after.last_time_us > before.last_time_us, "{after:?}");
    assert_eq!(3 * after.held_bytes, 4 * before.held_bytes);
    // A trim takes bytes and leaves the time.
    cluster.trim(leader, 1, log, 4);
    cluster.settle(true);
    cluster.answer(1);
    cluster.pass(100_000);
    for id in 1..=3 {
        let log = described(&cluster, id, log);
        assert_eq!((log.first_seq, log.held_bytes), (4, 0));
        assert_eq!(log.last_time_us, after.last_time_us);
    }
    // What is counted goes on from there.
    cluster.fill(leader, log, 2);
    let again = described(&cluster, leader, log);
    assert_eq!(2 * again.held_bytes, after.held_bytes);
}

#[test]
fn a_restart_from_a_snapshot_forgets_no_time() {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let logs = ["a", "b"].map(|name| cluster.create(leader, name));
    for _ in 0..10 {
        for log in logs {
            cluster.fill(leader, log, 2);
            cluster.pass(1_000);
        }
    }
    // One is empty, and has a time all the same.
    cluster.trim(leader, 1, logs[1], 20);
    cluster.settle(true);
    cluster.fill(leader, logs[0], 40);
    cluster.pass(100_000);
    let before = logs.map(|log| described(&cluster, leader, log));
    assert!(before[1].last_time_us > 0 && before[1].held_bytes == 0);
    for id in 1..=3 {
        cluster.restart(id);
        assert!(
            cluster.replica(id).applied_index() >= 32,
            "no replay from the start"
        );
    }
    let leader = cluster.elect();
    cluster.pass(100_000);
    cluster.check_agreement();
    for (log, before) in logs.into_iter().zip(before) {
        assert_eq!(described(&cluster, leader, log), before);
    }
    let index = &cluster
        .replica(leader)
        .catalogue()
        .log(logs[0])
        .unwrap()
        .index;
    assert!(index.locate_time(1).is_some());
}

/// The layout before times and bytes, as `docs/format.md` says: it is read, and everything that it does not hold is
/// not known.
#[test]
fn a_snapshot_of_version_1_is_read() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 5);
    let now = StateSnapshot::of(0, &cluster.replica(leader).tables);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(b"DRAVESNP");
    writer.u32(1);
    writer.u32(0);
    writer.u64(now.last.term);
    writer.u64(now.last.index);
    writer.u32(now.header_crc);
    writer.u32(0);
    writer.u64(now.append_time_us);
    writer.u64(now.configuration_index);
    let members = now.members.encode();
    writer.u32(members.len() as u32);
    writer.bytes(&members);
    writer.u32(1);
    writer.u64(log);
    writer.text("a");
    for number in [0, 5, 4, log + 5] {
        writer.u64(number);
    }
    writer.u32(1);
    writer.u64(0);
    writer.u64(log + 1);
    writer.u32(0);
    let crc = drave_batch::checksum(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let read = StateSnapshot::decode(&bytes).unwrap();
    let tables = Tables::from_snapshot(8, &read);
    let old = tables.catalogue.log(log).unwrap();
    assert_eq!((old.first_seq, old.next_seq, old.last_time_us), (0, 5, 0));
    assert_eq!(old.index.locate(3), Some((log + 1, log + 6)));
    // What is appended from then on is known, and found by time from the beginning on.
    let mut old = old.clone();
    old.committed(1, 128, log + 6, 7_000);
    assert_eq!(
        (old.last_time_us, old.index.locate_time(7_000)),
        (7_000, Some(0))
    );
}
