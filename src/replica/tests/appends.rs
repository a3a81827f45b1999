//! Appends from the request to the answer, over leaders that come and go.

use super::*;

#[test]
fn an_append_is_answered_only_when_a_majority_has_flushed_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"x", b"y"]));
    cluster.settle(false);
    assert!(
        cluster.answers.is_empty(),
        "nothing is flushed anywhere yet"
    );
    cluster.flush(leader);
    cluster.settle(false);
    assert!(
        cluster.answers.is_empty(),
        "one flush of three is no majority"
    );
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.flush(follower);
    cluster.settle(false);
    let ack = appended(cluster.answer(1));
    assert_eq!(
        (ack.first_seq, ack.record_count, ack.duplicate),
        (0, 2, false)
    );
    cluster.append(leader, 2, &batch(log, 0, 0, &[b"z"]));
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(2)).first_seq, 2);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn two_followers_commit_without_the_leaders_own_flush() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"x"]));
    for _ in 0..4 {
        cluster.settle(false);
        for follower in (1..=3).filter(|id| *id != leader) {
            cluster.flush(follower);
        }
    }
    cluster.settle(false);
    appended(cluster.answer(1));
}

#[test]
fn a_retry_gets_the_first_answer_in_flight_and_after() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let first = batch(log, producer, 0, &[b"x"]);
    cluster.append(leader, 1, &first);
    cluster.append(leader, 2, &first);
    assert!(cluster.answers.is_empty());
    cluster.settle(true);
    let (a, b) = (appended(cluster.answer(1)), appended(cluster.answer(2)));
    assert_eq!((a.first_seq, a.duplicate), (0, false));
    assert_eq!((b.first_seq, b.duplicate), (0, true));
    cluster.append(leader, 3, &first);
    cluster.outputs_of(leader);
    assert_eq!(
        appended(cluster.answer(3)),
        Appended {
            duplicate: true,
            ..a
        }
    );
    cluster.append(leader, 4, &batch(log, producer, 2, &[b"z"]));
    let refusal = refused(cluster.answer(4));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::SequenceGap, 1, 2)
    );
}

#[test]
fn a_retry_at_the_next_leader_is_not_appended_twice() {
    for committed in [false, true] {
        let mut cluster = Cluster::new(3);
        let old = cluster.elect();
        let log = cluster.create(old, "a");
        let producer = cluster.producer(old);
        let first = batch(log, producer, 0, &[b"x"]);
        cluster.append(old, 1, &first);
        // Delivered and flushed everywhere, or only delivered.
        cluster.settle(committed);
        if !committed {
            assert!(cluster.answers.is_empty());
        }
        cluster.cut = vec![old];
        let new = cluster.elect();
        assert_ne!(new, old);
        cluster.append(new, 2, &first);
        cluster.settle(true);
        let ack = appended(cluster.answer(2));
        assert_eq!((ack.first_seq, ack.duplicate), (0, true));
        cluster.append(new, 3, &batch(log, producer, 1, &[b"y"]));
        cluster.settle(true);
        assert_eq!(appended(cluster.answer(3)).first_seq, 1);
        cluster.cut.clear();
        for _ in 0..20 {
            cluster.pass(100_000);
        }
        cluster.check_agreement();
        assert_eq!(
            cluster.replicas[&old]
                .0
                .catalogue()
                .log(log)
                .unwrap()
                .next_seq,
            2
        );
    }
}

#[test]
fn what_a_lost_leader_had_in_flight_is_unknown_and_undone() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    let producer = cluster.producer(old);
    cluster.cut = vec![old];
    cluster.append(old, 1, &batch(log, producer, 0, &[b"never"]));
    cluster.ask(old, 2, |r, now, to, l| {
        r.create_log(now, to, "ghost", false, l)
    });
    cluster.ask(old, 3, |r, now, to, l| r.open_producer(now, to, "ghost", l));
    let new = cluster.elect();
    cluster.append(new, 4, &batch(log, producer, 0, &[b"other", b"two"]));
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(4)).first_seq, 0);
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    for request in [1, 2, 3] {
        assert_eq!(
            refused(cluster.answer(request)).code,
            ErrorCode::OutcomeUnknown
        );
    }
    cluster.check_agreement();
    let state = cluster.replicas[&old].0.catalogue().log(log).unwrap();
    assert_eq!((state.next_seq, state.tail_seq), (2, 2));
    assert!(
        cluster.replicas[&old]
            .0
            .catalogue()
            .log_named("ghost")
            .is_none()
    );
    // The name is free again, wherever the lead is.
    let leader = cluster.elect();
    cluster.create(leader, "ghost");
}

#[test]
fn a_replica_restored_from_its_log_decides_as_before() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    for sequence in 0..5 {
        let mut append = batch(log, producer, sequence, &[b"x", b"y"]);
        append.0.header.producer_unacked = 2;
        cluster.append(leader, 10 + sequence, &append);
    }
    cluster.settle(true);
    cluster.restart(leader);
    cluster.elect();
    cluster.settle(true);
    let state = cluster.replicas[&leader]
        .0
        .catalogue()
        .log_named("a")
        .unwrap();
    assert_eq!((state.log_id, state.next_seq), (log, 10));
    cluster.append(leader, 1, &batch(log, producer, 4, &[b"x", b"y"]));
    let again = appended(cluster.answer(1));
    assert_eq!((again.first_seq, again.duplicate), (8, true));
    cluster.append(leader, 2, &batch(log, producer, 1, &[b"x", b"y"]));
    assert_eq!(
        refused(cluster.answer(2)).code,
        ErrorCode::DuplicateForgotten
    );
    cluster.append(leader, 3, &batch(log, producer, 5, &[b"z"]));
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(3)).first_seq, 10);
}
