//! What must not happen at the edges: new leaders, refusals, damage, reads, what is in flight.

use super::*;

#[test]
fn a_leader_that_has_applied_nothing_yet_knows_the_logs_in_its_log() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    let producer = cluster.producer(old);
    cluster.append(old, 1, &batch(log, producer, 0, &[b"x"]));
    cluster.settle(true);
    let first = appended(cluster.answer(1));
    // All three restart with no commit hint: everything is in the logs, nothing is applied.
    for id in 1..=3 {
        let store = cluster.log(id);
        for record in [&mut store.hard_state, &mut store.hard_state_durable] {
            record.as_mut().unwrap().commit_index_hint = 0;
        }
        cluster.restart(id);
    }
    let leader = loop {
        // No flush of entries completes, so the no-op cannot commit.
        cluster.now.mono_us += 10_000;
        let now = cluster.now;
        for (replica, store) in cluster.replicas.values_mut() {
            replica.tick(now, store).unwrap();
            if let Some(state) = store.flush_hard_state() {
                replica
                    .on_hard_state_durable(now, Durable::attest(state), store)
                    .unwrap();
            }
        }
        cluster.settle(false);
        if let Some((id, _)) = cluster.replicas.iter().find(|(_, (r, _))| r.is_leader()) {
            break *id;
        }
    };
    assert_eq!(cluster.replicas[&leader].0.applied_index(), 0);
    let replica = &cluster.replicas[&leader].0;
    assert!(replica.applied_index() < replica.raft().last().index);
    cluster.append(leader, 2, &batch(log, producer, 0, &[b"x"]));
    cluster.append(leader, 3, &batch(log, producer, 1, &[b"y"]));
    assert!(cluster.answers.is_empty(), "{:?}", cluster.answers);
    cluster.settle(true);
    let again = appended(cluster.answer(2));
    assert_eq!((again.first_seq, again.duplicate), (first.first_seq, true));
    assert_eq!(appended(cluster.answer(3)).first_seq, 1);
}

#[test]
fn refusals_have_names_and_change_nothing() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let code = |cluster: &mut Cluster, append: (Append, Vec<u8>)| {
        cluster.append(leader, 1, &append);
        refused(cluster.answer(1)).code
    };
    assert_eq!(
        code(&mut cluster, batch(99, 0, 0, &[b"x"])),
        ErrorCode::LogNotFound
    );
    assert_eq!(
        code(&mut cluster, batch(log, 77, 0, &[b"x"])),
        ErrorCode::UnknownProducer
    );
    assert_eq!(
        code(&mut cluster, batch(log, 0, 0, &[&[0; 1001]])),
        ErrorCode::TooLarge
    );
    let mut append = batch(log, 0, 0, &[b"x"]);
    append.0.expect_seq = 5;
    assert_eq!(code(&mut cluster, append), ErrorCode::ExpectSeq);
    let mut append = batch(log, 0, 0, &[b"x"]);
    append.1[4] ^= 1;
    assert_eq!(code(&mut cluster, append), ErrorCode::MalformedBatch);
    let mut append = batch(log, 0, 0, &[b"x"]);
    append.0.header.kind = EntryKind::Noop;
    assert_eq!(code(&mut cluster, append), ErrorCode::MalformedBatch);
    cluster.replicas.get_mut(&leader).unwrap().1.full = true;
    assert_eq!(
        code(&mut cluster, batch(log, 0, 0, &[b"x"])),
        ErrorCode::Busy
    );
    cluster.replicas.get_mut(&leader).unwrap().1.full = false;
    for name in ["b", "c"] {
        cluster.create(leader, name);
    }
    for (name, expected) in [
        ("a", ErrorCode::LogExists),
        ("d", ErrorCode::LogLimit),
        ("/", ErrorCode::LogName),
        (&*"n".repeat(256), ErrorCode::LogName),
    ] {
        cluster.ask(leader, 1, |r, now, to, l| {
            r.create_log(now, to, name, false, l)
        });
        cluster.outputs_of(leader);
        assert_eq!(refused(cluster.answer(1)).code, expected, "{name}");
    }
    cluster.append(leader, 2, &batch(log, 0, 0, &[b"ok"]));
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(2)).first_seq, 0);
}

#[test]
fn a_damaged_append_is_refused_whole() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let follower = 3 - leader;
    let log = cluster.create(leader, "a");
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"record"]));
    let (from, to, carried) = cluster.wire.pop_back().unwrap();
    assert_eq!(to.0, follower);
    let Carried::Append(message, payload) = carried else {
        panic!("an append was sent")
    };
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&follower).unwrap();
    let before = store.batches.len();
    let mut take = |message: &wire::AppendEntries, payload: &[u8]| match replica
        .on_append_entries(now, from, message, payload, store)
        .unwrap()
    {
        AppendTaken::Invalid(problem) => problem,
        other => panic!("{other:?}"),
    };
    for at in 0..payload.len() {
        let mut bad = payload.clone();
        bad[at] ^= 4;
        take(&message, &bad);
    }
    let two = wire::AppendEntries {
        batch_count: 2,
        ..message.clone()
    };
    assert!(matches!(take(&two, &payload), AppendProblem::Count { .. }));
    let later = wire::AppendEntries {
        prev_index: message.prev_index + 1,
        ..message.clone()
    };
    assert!(matches!(
        take(&later, &payload),
        AppendProblem::Order { .. }
    ));
    let future = wire::AppendEntries {
        term: 0,
        ..message.clone()
    };
    assert!(matches!(
        take(&future, &payload),
        AppendProblem::Term { .. }
    ));
    assert_eq!(store.batches.len(), before);
}

#[test]
fn a_linearizable_read_waits_for_a_quorum() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&leader).unwrap();
    replica.read_index(now, 42, log).unwrap().unwrap();
    assert!(replica.outputs.reads_ready.is_empty());
    cluster.settle(true);
    assert_eq!(cluster.replicas[&leader].0.outputs.reads_ready, [42]);
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let (replica, log) = cluster.replicas.get_mut(&follower).unwrap();
    replica.read_index(now, 43, log).unwrap().unwrap();
    assert!(replica.outputs.reads_ready.is_empty());
    cluster.settle(true);
    assert_eq!(cluster.replicas[&follower].0.outputs.reads_ready, [43]);
}

#[test]
fn what_is_in_flight_refuses_nothing_for_good() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    // Nothing is flushed any more.
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"may be lost"]));
    let conditional = |expect_seq| {
        let mut append = batch(log, 0, 0, &[b"x"]);
        append.0.expect_seq = expect_seq;
        append
    };
    cluster.append(leader, 2, &conditional(0));
    cluster.settle(false);
    assert_eq!(refused(cluster.answer(2)).code, ErrorCode::Busy);
    cluster.append(leader, 3, &conditional(7));
    cluster.settle(false);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::ExpectSeq);
    cluster.append(leader, 4, &conditional(1));
    assert!(
        cluster.answers.is_empty(),
        "the tail is the condition's to meet"
    );
    for request in [5, 6] {
        cluster.ask(leader, request, |r, now, to, l| {
            r.create_log(now, to, "b", false, l)
        });
        cluster.outputs_of(leader);
    }
    assert_eq!(refused(cluster.answer(6)).code, ErrorCode::Busy);
}
