//! Trims: decided by the leader, applied alike, and no more than what is committed.

use super::*;

fn log_info(answer: Answer) -> wire::LogInfo {
    match answer {
        Answer::Log(info) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trim_is_applied_alike_and_answered_when_committed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 10);
    cluster.trim(leader, 1, log, 4);
    assert!(cluster.answers.is_empty(), "it is not committed yet");
    let first_seq =
        |cluster: &Cluster, id| cluster.replica(id).catalogue().log(log).unwrap().first_seq;
    assert_eq!(first_seq(&cluster, leader), 0, "nor does it count before");
    cluster.settle(true);
    let info = log_info(cluster.answer(1));
    assert_eq!((info.first_seq, info.next_seq), (4, 10));
    cluster.pass(100_000);
    for id in 1..=3 {
        assert_eq!(first_seq(&cluster, id), 4);
    }
    cluster.check_agreement();
    // Asked again, or for less: there is nothing to do, and no entry says so.
    let last_index = cluster.replica(leader).raft().last().index;
    for (request, seq) in [(2, 4), (3, 0)] {
        cluster.trim(leader, request, log, seq);
        assert_eq!(log_info(cluster.answer(request)).first_seq, 4);
    }
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    cluster.trim(leader, 4, log, 10);
    cluster.settle(true);
    assert_eq!(log_info(cluster.answer(4)).first_seq, 10);
    cluster.fill(leader, log, 1);
    assert_eq!(first_seq(&cluster, leader), 10);
}

#[test]
fn nothing_is_trimmed_that_is_not_committed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 2);
    // Nothing is flushed any more.
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"in flight"]));
    cluster.trim(leader, 2, log, 3);
    assert_eq!(refused(cluster.answer(2)).code, ErrorCode::Busy);
    cluster.trim(leader, 3, log, 4);
    cluster.settle(false);
    let refusal = refused(cluster.answer(3));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::TrimBeyondTail, 2, 4)
    );
    cluster.trim(leader, 4, 99, 0);
    cluster.settle(false);
    assert_eq!(refused(cluster.answer(4)).code, ErrorCode::LogNotFound);
    // A trim that comes again waits for the first one.
    let before = cluster.replica(leader).raft().last().index;
    cluster.trim(leader, 5, log, 2);
    cluster.trim(leader, 6, log, 1);
    assert_eq!(cluster.replica(leader).raft().last().index, before + 1);
    cluster.pass(100_000);
    cluster.settle(true);
    for request in [5, 6] {
        assert_eq!(log_info(cluster.answer(request)).first_seq, 2);
    }
}

#[test]
fn a_truncated_trim_never_was() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    cluster.fill(old, log, 5);
    cluster.cut = vec![old];
    cluster.trim(old, 1, log, 5);
    let new = cluster.elect();
    cluster.fill(new, log, 1);
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::OutcomeUnknown);
    for id in 1..=3 {
        let state = cluster.replica(id).catalogue().log(log).unwrap();
        assert_eq!((state.first_seq, state.next_seq), (0, 6));
    }
    let leader = cluster.elect();
    cluster.trim(leader, 2, log, 3);
    cluster.settle(true);
    assert_eq!(log_info(cluster.answer(2)).first_seq, 3);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn a_full_disk_takes_a_trim() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 3);
    for id in 1..=3 {
        cluster.log(id).disk_full = true;
    }
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"x"]));
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::DiskFull);
    cluster.trim(leader, 2, log, 3);
    cluster.settle(true);
    assert_eq!(log_info(cluster.answer(2)).first_seq, 3);
}
