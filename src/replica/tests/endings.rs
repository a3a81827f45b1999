//! Logs that are closed or deleted: what is in flight, what is truncated, what is given back.

use super::*;
use drave_batch::LogChange;

impl Cluster {
    fn change(&mut self, node: u64, request_id: u64, log_id: u64, change: LogChange) {
        self.ask(node, request_id, |r, now, to, log| {
            r.change_log(now, to, log_id, change, log)
        });
    }

    fn code_of(&mut self, request_id: u64) -> ErrorCode {
        refused(self.answer(request_id)).code
    }
}

fn described(answer: Answer) -> wire::LogDescribed {
    match answer {
        Answer::Described(described) => described,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_log_takes_no_append_and_keeps_what_it_has() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let first = batch(log, producer, 0, &[b"first"]);
    cluster.append(leader, 1, &first);
    cluster.settle(true);
    cluster.answer(1);
    // Nothing is flushed any more.
    cluster.change(leader, 2, log, LogChange::Close);
    cluster.append(leader, 3, &batch(log, 0, 0, &[b"x"]));
    cluster.settle(false);
    assert_eq!(cluster.code_of(3), ErrorCode::Busy);
    cluster.change(leader, 4, log, LogChange::Close);
    cluster.pass(100_000);
    cluster.settle(true);
    for request in [2, 4] {
        assert!(described(cluster.answer(request)).is_closed);
    }
    cluster.append(leader, 5, &batch(log, 0, 0, &[b"x"]));
    cluster.settle(true);
    let refusal = refused(cluster.answer(5));
    assert_eq!((refusal.code, refusal.expected), (ErrorCode::LogClosed, 1));
    // What was appended before is answered as before.
    cluster.append(leader, 6, &first);
    assert!(appended(cluster.answer(6)).duplicate);
    let last_index = cluster.replica(leader).raft().last().index;
    cluster.change(leader, 7, log, LogChange::Close);
    assert!(described(cluster.answer(7)).is_closed);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    // It is trimmed as any other.
    cluster.trim(leader, 8, log, 1);
    cluster.settle(true);
    assert!(matches!(cluster.answer(8), Answer::Log(info) if info.first_seq == 1));
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn the_name_of_a_deleted_log_is_free_and_its_number_is_not() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 3);
    // Nothing is flushed any more.
    cluster.change(leader, 1, log, LogChange::Delete);
    cluster.append(leader, 2, &batch(log, 0, 0, &[b"x"]));
    cluster.trim(leader, 3, log, 3);
    cluster.change(leader, 4, log, LogChange::Close);
    cluster.change(leader, 5, log, LogChange::Fence { token: 1 });
    cluster.settle(false);
    for request in 2..=5 {
        assert_eq!(cluster.code_of(request), ErrorCode::Busy, "{request}");
    }
    cluster.change(leader, 6, log, LogChange::Delete);
    assert!(cluster.answers.is_empty(), "it waits for the first one");
    cluster.pass(100_000);
    cluster.settle(true);
    for request in [1, 6] {
        assert_eq!(described(cluster.answer(request)).next_seq, 3);
    }
    cluster.append(leader, 7, &batch(log, 0, 0, &[b"x"]));
    cluster.trim(leader, 8, log, 3);
    cluster.change(leader, 9, log, LogChange::Delete);
    cluster.settle(true);
    for request in 7..=9 {
        assert_eq!(
            cluster.code_of(request),
            ErrorCode::LogNotFound,
            "{request}"
        );
    }
    let again = cluster.create(leader, "a");
    assert!(again > log);
    cluster.fill(leader, again, 1);
    cluster.pass(100_000);
    for id in 1..=3 {
        let catalogue = cluster.replica(id).catalogue();
        assert!(catalogue.log(log).is_none() && catalogue.len() == 1);
        assert_eq!(catalogue.log_named("a").unwrap().log_id, again);
    }
    cluster.check_agreement();
}

#[test]
fn an_ending_that_was_truncated_never_was() {
    for change in [LogChange::Close, LogChange::Delete] {
        let mut cluster = Cluster::new(3);
        let old = cluster.elect();
        let log = cluster.create(old, "a");
        cluster.cut = vec![old];
        cluster.change(old, 1, log, change);
        let new = cluster.elect();
        cluster.fill(new, log, 2);
        cluster.cut.clear();
        for _ in 0..20 {
            cluster.pass(100_000);
        }
        assert_eq!(cluster.code_of(1), ErrorCode::OutcomeUnknown);
        for id in 1..=3 {
            let state = cluster.replica(id).catalogue().log(log).unwrap();
            assert_eq!(state.rules, state.tail_rules, "{change:?}");
            assert_eq!(state.next_seq, 2);
        }
        let leader = cluster.elect();
        cluster.fill(leader, log, 1);
        cluster.check_agreement();
    }
}

/// Deleting the log whose records kept the group's log lets that go, and a restart from a snapshot knows of no deleted
/// log and of every closed one.
#[test]
fn a_deletion_gives_back_space() {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let [old, closed, busy] = ["old", "closed", "busy"].map(|name| cluster.create(leader, name));
    cluster.fill(leader, old, 1);
    cluster.change(leader, 1, closed, LogChange::Close);
    cluster.settle(true);
    cluster.answer(1);
    let fill_and_trim = |cluster: &mut Cluster, count| {
        cluster.fill(leader, busy, count);
        let next_seq = cluster
            .replica(leader)
            .catalogue()
            .log(busy)
            .unwrap()
            .next_seq;
        cluster.trim(leader, 2, busy, next_seq);
        cluster.settle(true);
        cluster.answer(2);
        cluster.fill(leader, busy, 1);
        cluster.pass(100_000);
    };
    fill_and_trim(&mut cluster, 60);
    let first_index = |cluster: &mut Cluster| cluster.log(leader).first_index;
    assert!(
        first_index(&mut cluster) <= old + 4,
        "one record holds it all"
    );
    cluster.change(leader, 3, old, LogChange::Delete);
    cluster.settle(true);
    cluster.answer(3);
    fill_and_trim(&mut cluster, 60);
    assert!(first_index(&mut cluster) > 60, "nothing holds it");
    for id in 1..=3 {
        cluster.restart(id);
    }
    let leader = cluster.elect();
    cluster.pass(100_000);
    let catalogue = cluster.replica(leader).catalogue();
    assert!(catalogue.log(old).is_none());
    assert!(catalogue.log(closed).unwrap().rules.is_closed);
    cluster.check_agreement();
}
