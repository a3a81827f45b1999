//! Fencing tokens: one writer at a time, whatever is in flight and whoever leads.

use super::*;
use drave_batch::{FENCE_NEXT, LogChange};

impl Cluster {
    fn fence(&mut self, node: u64, request_id: u64, log_id: u64, token: u64) {
        let change = LogChange::Fence { token };
        self.ask(node, request_id, |r, now, to, log| {
            r.change_log(now, to, log_id, change, log)
        });
    }

    fn fenced(&mut self, node: u64, log_id: u64, token: u64) -> wire::LogDescribed {
        self.fence(node, 903, log_id, token);
        self.settle(true);
        described(self.answer(903))
    }

    fn append_fenced(&mut self, node: u64, request_id: u64, log_id: u64, token: u64) {
        self.append(node, request_id, &fenced_batch(log_id, token));
    }
}

fn fenced_batch(log_id: u64, token: u64) -> (Append, Vec<u8>) {
    let mut append = batch(log_id, 0, 0, &[b"fenced"]);
    append.0.fence = token;
    append
}

fn described(answer: Answer) -> wire::LogDescribed {
    match answer {
        Answer::Described(described) => described,
        other => panic!("{other:?}"),
    }
}

fn next_seq(cluster: &Cluster, id: u64, log: u64) -> u64 {
    cluster.replica(id).catalogue().log(log).unwrap().next_seq
}

#[test]
fn only_the_token_of_the_last_fence_appends() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (log, other) = (cluster.create(leader, "a"), cluster.create(leader, "b"));
    cluster.fill(leader, log, 2);
    let first = cluster.fenced(leader, log, FENCE_NEXT);
    assert_eq!((first.fence, first.fence_seq), (1, 2));
    assert_eq!(cluster.fenced(leader, log, 41).fence, 41);
    // Given again it changes nothing; a lower one is too late.
    let last_index = cluster.replica(leader).raft().last().index;
    assert_eq!(cluster.fenced(leader, log, 41).fence, 41);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    cluster.fence(leader, 1, log, 40);
    cluster.settle(true);
    let refusal = refused(cluster.answer(1));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::Fenced, 41, 40)
    );
    assert_eq!(cluster.fenced(leader, log, FENCE_NEXT).fence, 42);
    for token in [FENCE_NONE, 1, 41, 43] {
        cluster.append_fenced(leader, 2, log, token);
        cluster.settle(true);
        let refusal = refused(cluster.answer(2));
        assert_eq!((refusal.code, refusal.expected), (ErrorCode::Fenced, 42));
    }
    cluster.append_fenced(leader, 3, log, 42);
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(3)).first_seq, 2);
    // The other log is nobody's.
    cluster.fill(leader, other, 1);
    cluster.append_fenced(leader, 4, other, 1);
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(4)).code, ErrorCode::Fenced);
    cluster.pass(100_000);
    for id in 1..=3 {
        assert_eq!(
            next_seq(&cluster, id, log),
            3,
            "what was refused is nowhere"
        );
    }
    cluster.check_agreement();
}

#[test]
fn a_fence_in_flight_refuses_nothing_for_good() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fenced(leader, log, 5);
    // Nothing is flushed any more.
    cluster.fence(leader, 1, log, 7);
    cluster.append_fenced(leader, 2, log, 5);
    cluster.settle(false);
    assert_eq!(refused(cluster.answer(2)).code, ErrorCode::Busy);
    cluster.append_fenced(leader, 3, log, 4);
    cluster.settle(false);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::Fenced);
    cluster.append_fenced(leader, 4, log, 7);
    cluster.fence(leader, 5, log, 6);
    assert_eq!(refused(cluster.answer(5)).code, ErrorCode::Busy);
    cluster.fence(leader, 6, log, 7);
    assert!(cluster.answers.is_empty(), "they wait for the first one");
    cluster.pass(100_000);
    cluster.settle(true);
    for request in [1, 6] {
        assert_eq!(described(cluster.answer(request)).fence, 7);
    }
    assert_eq!(appended(cluster.answer(4)).first_seq, 0);
}

/// Two writers, each believing to hold the log, over a change of leaders: the one whose fence is committed wins, and
/// the other has written nothing.
#[test]
fn a_fence_that_was_truncated_never_was() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    cluster.fenced(old, log, FENCE_NEXT);
    cluster.cut = vec![old];
    cluster.fence(old, 1, log, FENCE_NEXT);
    cluster.append_fenced(old, 2, log, 2);
    let new = cluster.elect();
    // The writer of before is still the one.
    cluster.append_fenced(new, 3, log, 1);
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(3)).first_seq, 0);
    let rival = cluster.fenced(new, log, FENCE_NEXT);
    assert_eq!((rival.fence, rival.fence_seq), (2, 1));
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    for request in [1, 2] {
        assert_eq!(
            refused(cluster.answer(request)).code,
            ErrorCode::OutcomeUnknown
        );
    }
    for id in 1..=3 {
        let state = cluster.replica(id).catalogue().log(log).unwrap();
        assert_eq!((state.rules.fence, state.next_seq), (2, 1));
        assert_eq!(state.rules, state.tail_rules);
    }
    cluster.check_agreement();
}

/// A batch that is in the log is acknowledged again though its writer was fenced since: its outcome does not change.
#[test]
fn a_repeated_batch_gets_its_first_answer_behind_a_fence() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let first = batch(log, producer, 0, &[b"mine"]);
    cluster.append(leader, 1, &first);
    cluster.settle(true);
    cluster.answer(1);
    cluster.fenced(leader, log, FENCE_NEXT);
    cluster.append(leader, 2, &first);
    cluster.settle(true);
    let again = appended(cluster.answer(2));
    assert!(again.duplicate && again.first_seq == 0);
    cluster.append(leader, 3, &batch(log, producer, 1, &[b"late"]));
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::Fenced);
}

#[test]
fn a_fence_outlives_a_restart_from_a_snapshot() {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let (log, other) = (cluster.create(leader, "a"), cluster.create(leader, "b"));
    cluster.fenced(leader, log, 9);
    cluster.fill(leader, other, 60);
    cluster.pass(100_000);
    for id in 1..=3 {
        cluster.restart(id);
        assert!(cluster.replica(id).applied_index() >= 32);
    }
    let leader = cluster.elect();
    cluster.append_fenced(leader, 1, log, FENCE_NONE);
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::Fenced);
    assert_eq!(cluster.fenced(leader, log, FENCE_NEXT).fence, 10);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn the_last_token_of_all_is_the_last() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fenced(leader, log, u64::MAX);
    cluster.fence(leader, 1, log, FENCE_NEXT);
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::Fenced);
    cluster.append_fenced(leader, 2, log, u64::MAX);
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(2)).first_seq, 0);
}
