//! What was found that no test would notice, and is noticed now.

use super::*;

#[test]
fn an_append_with_the_wrong_group_is_refused() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let follower = 3 - leader;
    let last = cluster.replica(leader).raft().last();
    let header = BatchHeader {
        index: last.index + 1,
        term: last.term,
        group_id: 7,
        prev_crc: cluster.log(leader).last_crc(),
        ..BatchHeader::new(EntryKind::Noop, &[], 0)
    };
    let mut payload = Vec::new();
    header.encode_with_body(&[], &mut payload);
    let message = wire::AppendEntries {
        term: last.term,
        prev_term: last.term,
        prev_index: last.index,
        commit_index: 0,
        session: 1,
        batch_count: 1,
    };
    let now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&follower).unwrap();
    let taken = replica
        .on_append_entries(now, NodeId(leader), &message, &payload, log)
        .unwrap();
    let AppendTaken::Invalid(AppendProblem::Group {
        expected, found, ..
    }) = taken
    else {
        panic!("{taken:?}")
    };
    assert_eq!((expected, found), (0, 7));
}

fn follower_of(leader: u64) -> u64 {
    leader % 3 + 1
}

/// The old leader's suffix is truncated, and it leads again.
fn deposed_and_back(cluster: &mut Cluster, old: u64) {
    cluster.cut = vec![old];
    let new = cluster.elect();
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    cluster.ask(new, 700, |r, now, to, log| {
        r.transfer_leader(now, to, NodeId(old), log)
    });
    cluster.settle(true);
    assert!(cluster.replica(old).is_leader());
    cluster.answer(700);
}

#[test]
fn a_truncated_batch_is_new_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let lost = batch(log, producer, 0, &[b"lost"]);
    cluster.cut = vec![leader];
    cluster.append(leader, 1, &lost);
    deposed_and_back(&mut cluster, leader);
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::OutcomeUnknown);
    cluster.append(leader, 2, &lost);
    cluster.settle(true);
    let ack = appended(cluster.answer(2));
    assert_eq!((ack.first_seq, ack.duplicate), (0, false));
    assert_eq!(
        cluster
            .replica(leader)
            .catalogue()
            .log(log)
            .unwrap()
            .next_seq,
        1
    );
}

#[test]
fn truncated_logs_and_producers_are_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.cut = vec![leader];
    cluster.ask(leader, 1, |r, now, to, l| {
        r.create_log(now, to, "ghost", true, l)
    });
    cluster.ask(leader, 2, |r, now, to, l| {
        r.open_producer(now, to, "ghost", l)
    });
    let ghost_log = cluster.replica(leader).raft().last().index - 1;
    let ghost_producer = ghost_log + 1;
    deposed_and_back(&mut cluster, leader);
    cluster.append(leader, 3, &batch(ghost_log, 0, 0, &[b"x"]));
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::LogNotFound);
    cluster.append(leader, 4, &batch(log, ghost_producer, 0, &[b"x"]));
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(4)).code, ErrorCode::UnknownProducer);
    cluster.create(leader, "ghost");
}

#[test]
fn the_hint_on_disk_names_what_is_on_disk() {
    let config = ReplicaConfig {
        snapshot_entries: 8,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.settle(true);
    let durable = cluster.log(leader).last_index();
    for request in 1..=5 {
        cluster.append(leader, request, &batch(log, 0, 0, &[b"x"]));
        for _ in 0..4 {
            cluster.settle(false);
            for follower in (1..=3).filter(|id| *id != leader) {
                cluster.flush(follower);
            }
        }
        appended(cluster.answer(request));
    }
    assert_eq!(cluster.replica(leader).raft().commit_index(), durable + 5);
    let record = cluster.log(leader).hard_state.unwrap();
    assert!(record.commit_index_hint <= durable, "{record:?}");
    let state = cluster.replica(leader).hard_state();
    let record = cluster.replica(leader).hard_state_record(state);
    assert_eq!(record.commit_index_hint, durable);
    // The followers' own is at most an eighth of the interval behind, without any new term or vote.
    let follower = follower_of(leader);
    cluster.pass(100_000);
    let hint = cluster
        .log(follower)
        .hard_state_durable
        .unwrap()
        .commit_index_hint;
    assert_eq!(hint, cluster.replica(follower).applied_index());
    cluster.restart(leader);
}

/// A follower whose read is confirmed at an index that it has not applied.
fn confirmed_ahead(ticket: u64) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let follower = follower_of(leader);
    cluster.pass(100_000);
    cluster.starved = vec![follower];
    cluster.fill(leader, log, 1);
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&follower).unwrap();
    replica.read_index(now, ticket, store).unwrap().unwrap();
    cluster.settle(true);
    assert_eq!(cluster.replica(follower).tables.reads_waiting(), 1);
    (cluster, leader, follower)
}

#[test]
fn a_read_is_served_only_when_its_index_is_applied() {
    let (mut cluster, leader, follower) = confirmed_ahead(5);
    assert!(cluster.replica(follower).outputs.reads_ready.is_empty());
    cluster.starved.clear();
    for _ in 0..10 {
        cluster.pass(50_000);
    }
    assert_eq!(cluster.replica(follower).outputs.reads_ready, [5]);
    assert_eq!(
        cluster.replica(follower).applied_index(),
        cluster.replica(leader).applied_index()
    );
}

#[test]
fn a_confirmed_read_fails_when_the_leader_changes() {
    let (mut cluster, leader, follower) = confirmed_ahead(5);
    cluster.cut = vec![leader];
    cluster.elect();
    let outputs = &cluster.replica(follower).outputs;
    assert_eq!(
        (&*outputs.reads_ready, &*outputs.reads_failed),
        (&[][..], &[5][..])
    );
}

#[test]
fn a_creation_in_flight_is_waited_for_and_not_repeated() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let before = cluster.replica(leader).raft().last().index;
    for request in [1, 2] {
        cluster.ask(leader, request, |r, now, to, l| {
            r.create_log(now, to, "a", true, l)
        });
    }
    assert_eq!(cluster.replica(leader).raft().last().index, before + 1);
    cluster.settle(true);
    for (request, created) in [(1, true), (2, false)] {
        let Answer::Log(info) = cluster.answer(request) else {
            panic!("a log")
        };
        assert_eq!((info.log_id, info.created), (before + 1, created));
    }
}

#[test]
fn a_follower_takes_nothing_without_room() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.append(leader, 1, &batch(log, 0, 0, &[b"x"]));
    let follower = follower_of(leader);
    let (message, payload) = loop {
        match cluster.wire.pop_front() {
            Some((_, to, Carried::Append(m, p))) if to.0 == follower && !p.is_empty() => {
                break (m, p);
            }
            Some(_) => {}
            None => panic!("an append was sent"),
        }
    };
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&follower).unwrap();
    let before = store.last_index();
    for (full, disk_full) in [(true, false), (false, true)] {
        (store.full, store.disk_full) = (full, disk_full);
        let taken = replica.on_append_entries(now, NodeId(leader), &message, &payload, store);
        assert!(matches!(taken.unwrap(), AppendTaken::Dropped(_)));
        assert_eq!(store.last_index(), before);
    }
    (store.full, store.disk_full) = (false, false);
    let taken = replica.on_append_entries(now, NodeId(leader), &message, &payload, store);
    assert!(matches!(taken.unwrap(), AppendTaken::Stepped));
    assert_eq!(store.last_index(), before + 1);
}

/// An append from the leader of a group of two, with one entry of its own making.
fn forged(header: BatchHeader, body: &[u8]) -> Result<AppendTaken, Fatal> {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 1);
    cluster.pass(100_000);
    let last = cluster.replica(leader).raft().last();
    let header = BatchHeader {
        index: last.index + 1,
        term: last.term,
        log_id: log,
        prev_crc: cluster.log(leader).last_crc(),
        ..header
    };
    let mut payload = Vec::new();
    header.encode_with_body(body, &mut payload);
    let message = wire::AppendEntries {
        term: last.term,
        prev_term: last.term,
        prev_index: last.index,
        commit_index: 0,
        session: 2,
        batch_count: 1,
    };
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&(3 - leader)).unwrap();
    let before = store.last_index();
    let taken = replica.on_append_entries(now, NodeId(leader), &message, &payload, store);
    if matches!(taken, Ok(AppendTaken::Invalid(_))) {
        assert_eq!(store.last_index(), before);
    }
    taken
}

#[test]
fn entries_that_contradict_the_log_before_them_stop_the_node() {
    let (append, body) = batch(0, 0, 0, &[b"x"]);
    for (kind, first_seq) in [
        (EntryKind::Data, 0),
        (EntryKind::Data, 2),
        (EntryKind::LogTrim, 2),
    ] {
        let body = if kind == EntryKind::Data { &*body } else { &[] };
        let count = append.header.record_count * u32::from(kind == EntryKind::Data);
        let header = BatchHeader {
            first_seq,
            ..BatchHeader::new(kind, body, count)
        };
        let fatal = forged(header, body).unwrap_err();
        assert!(fatal.reason.contains("seq"), "{fatal}");
    }
    let header = BatchHeader {
        first_seq: 1,
        ..append.header
    };
    assert!(matches!(forged(header, &body), Ok(AppendTaken::Stepped)));
}

#[test]
fn control_entries_that_do_not_decode_are_refused_before_anything_is_taken() {
    for kind in [
        EntryKind::Configuration,
        EntryKind::LogCreate,
        EntryKind::ProducerRegister,
    ] {
        let body = [9, 9, 9];
        let taken = forged(BatchHeader::new(kind, &body, 0), &body);
        assert!(matches!(taken, Ok(AppendTaken::Invalid(_))), "{taken:?}");
    }
    let nobody = Members::default().encode();
    let taken = forged(
        BatchHeader::new(EntryKind::Configuration, &nobody, 0),
        &nobody,
    );
    assert!(matches!(taken, Ok(AppendTaken::Invalid(_))), "{taken:?}");
}

#[test]
fn append_times_do_not_run_backwards() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.now.unix_us = 5_000_000;
    cluster.fill(leader, log, 1);
    cluster.now.unix_us = 1;
    cluster.fill(leader, log, 1);
    cluster.pass(100_000);
    cluster.now.unix_us = 2;
    cluster.ask(leader, 1, |r, now, to, l| {
        r.transfer_leader(now, to, NodeId(follower_of(leader)), l)
    });
    cluster.settle(true);
    cluster.fill(follower_of(leader), log, 1);
    let times: Vec<u64> = cluster
        .log(follower_of(leader))
        .batches
        .iter()
        .map(|bytes| BatchRef::decode(bytes).unwrap().header.append_time_us)
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    assert_eq!(times.last(), Some(&5_000_000));
}

#[test]
fn what_one_producer_and_one_entry_may_ask_for_is_bounded() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let producer = cluster.producer(leader);
    let mut append = batch(log, producer, 0, &[b"x"]);
    append.0.header.producer_unacked = 4096;
    cluster.append(leader, 1, &append);
    let refusal = refused(cluster.answer(1));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::Busy, 4096, 4096)
    );
    append.0.header.producer_unacked = 4095;
    cluster.cut = vec![leader];
    for request in 0..=17 {
        cluster.append(leader, 10 + request, &append);
    }
    assert_eq!(
        cluster.answers.len(),
        1,
        "one was appended, sixteen wait with it"
    );
    assert_eq!(refused(cluster.answer(27)).code, ErrorCode::Busy);
    cluster.cut.clear();
    cluster.pass(100_000);
    for request in 0..=16 {
        assert_eq!(
            appended(cluster.answer(10 + request)).duplicate,
            request > 0
        );
    }
}

#[test]
fn logs_in_flight_count_towards_their_limit() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.create(leader, "a");
    for (request, name) in [(1, "b"), (2, "c"), (3, "d")] {
        cluster.ask(leader, request, |r, now, to, l| {
            r.create_log(now, to, name, true, l)
        });
    }
    cluster.settle(false);
    let refusal = refused(cluster.answer(3));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::LogLimit, 3, 3)
    );
}

#[test]
fn a_leader_that_nobody_answers_says_nothing_final() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let mut conditional = batch(log, 0, 0, &[b"x"]);
    conditional.0.expect_seq = 9;
    let requests = [
        (batch(99, 0, 0, &[b"x"]), ErrorCode::LogNotFound),
        (batch(log, 99, 0, &[b"x"]), ErrorCode::UnknownProducer),
        (conditional, ErrorCode::ExpectSeq),
    ];
    for (request, expected) in &requests {
        cluster.append(leader, 1, request);
        assert!(cluster.answers.is_empty(), "a round comes first");
        cluster.settle(true);
        assert_eq!(refused(cluster.answer(1)).code, *expected);
    }
    cluster.pass(50_000);
    cluster.cut = vec![leader];
    // Longer than others stick to it, and it has not looked yet who answers.
    cluster.now.mono_us += 500_001;
    assert!(cluster.replica(leader).is_leader());
    for (request, _) in &requests {
        cluster.append(leader, 2, request);
        assert_eq!(refused(cluster.answer(2)).code, ErrorCode::NoQuorum);
    }
    for (request, log_id, first_seq) in [(3, log, 4), (4, 99, 0)] {
        cluster.trim(leader, request, log_id, first_seq);
        assert_eq!(refused(cluster.answer(request)).code, ErrorCode::NoQuorum);
    }
}

#[test]
fn a_leader_that_was_replaced_while_it_stood_still_says_nothing_final() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    cluster.pass(50_000);
    // It has heard of everybody just now; others have a leader by the time it goes on.
    cluster.cut = vec![old];
    cluster.append(old, 1, &batch(log, 99, 0, &[b"x"]));
    cluster.append(old, 2, &batch(99, 0, 0, &[b"x"]));
    assert!(cluster.answers.is_empty());
    let new = cluster.elect();
    assert_ne!(new, old);
    cluster.cut = Vec::new();
    cluster.pass(200_000);
    for request in [1, 2] {
        let code = refused(cluster.answer(request)).code;
        assert!(
            matches!(code, ErrorCode::NotLeader | ErrorCode::NoQuorum),
            "{code:?}"
        );
    }
}

#[test]
fn a_leader_that_has_committed_nothing_says_nothing_final() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let log = cluster.create(old, "a");
    cluster.pass(100_000);
    // The next leader's first entry is flushed nowhere.
    let new = follower_of(old);
    cluster.ask(old, 1, |r, now, to, l| {
        r.transfer_leader(now, to, NodeId(new), l)
    });
    for _ in 0..10 {
        cluster.settle(false);
        for id in 1..=3 {
            let now = cluster.now;
            let (replica, store) = cluster.replicas.get_mut(&id).unwrap();
            if let Some(state) = store.flush_hard_state() {
                let state = Durable::attest(state);
                replica.on_hard_state_durable(now, state, store).unwrap();
            }
        }
    }
    assert!(cluster.replica(new).is_leader());
    for request in [batch(99, 0, 0, &[b"x"]), batch(log, 99, 0, &[b"x"])] {
        cluster.append(new, 2, &request);
        assert_eq!(refused(cluster.answer(2)).code, ErrorCode::Busy);
    }
    cluster.settle(true);
    cluster.append(new, 3, &batch(99, 0, 0, &[b"x"]));
    cluster.settle(true);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::LogNotFound);
}

#[test]
fn a_disk_that_is_full_stops_no_node() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.cut = vec![old];
    for id in (1..=3).filter(|id| *id != old) {
        cluster.log(id).reserve_used = true;
    }
    for _ in 0..300 {
        cluster.pass(10_000);
    }
    for id in (1..=3).filter(|id| *id != old) {
        let replica = cluster.replica(id);
        assert_eq!(
            replica.raft().role(),
            RoleKind::Follower,
            "it does not campaign"
        );
        assert!(
            replica.next_deadline_us() > cluster.now.mono_us,
            "nor spins"
        );
    }
    // Nor is it made to by being told.
    let (told, term) = (follower_of(old), cluster.replica(old).raft().term());
    let timeout = Message::TimeoutNow(raft::TimeoutNow { term });
    cluster.ask(told, 0, |r, now, _, log| {
        r.step(now, NodeId(old), timeout, log)
    });
    assert_eq!(cluster.replica(told).raft().role(), RoleKind::Follower);
    // What is kept back is enough to lead, and to say that there is no room for records.
    for id in (1..=3).filter(|id| *id != old) {
        (cluster.log(id).reserve_used, cluster.log(id).disk_full) = (false, true);
    }
    let leader = cluster.elect();
    cluster.ask(leader, 1, |r, now, to, l| {
        r.create_log(now, to, "a", true, l)
    });
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::DiskFull);
}

#[test]
fn a_leader_without_room_for_the_entry_that_its_term_begins_with_gives_up_the_lead() {
    // The only voter wins when its vote is on the disk, which fills up meanwhile.
    let mut cluster = Cluster::new(1);
    while cluster.replica(1).raft().role() != RoleKind::Candidate {
        cluster.now.mono_us += 10_000;
        cluster.ask(1, 0, |r, now, _, log| r.tick(now, log));
    }
    let last = cluster.replica(1).raft().last();
    cluster.log(1).reserve_used = true;
    cluster.settle(true);
    assert_eq!(cluster.replica(1).raft().role(), RoleKind::Follower);
    assert_eq!(cluster.replica(1).raft().last(), last, "nothing was stored");
    let given_up = cluster
        .replicas
        .get_mut(&1)
        .unwrap()
        .0
        .outputs
        .lead_given_up
        .take();
    assert_eq!(given_up, Some(LogRefusal::NoSpace));
    for _ in 0..300 {
        cluster.pass(10_000);
    }
    assert_eq!(cluster.replica(1).raft().role(), RoleKind::Follower);
    cluster.log(1).reserve_used = false;
    assert_eq!(cluster.elect(), 1);
    cluster.create(1, "a");
    cluster.check_agreement();
}
