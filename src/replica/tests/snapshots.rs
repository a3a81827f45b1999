//! State snapshots: taken, kept, sent in chunks, installed, restored from.

use super::*;

/// A cluster that takes a snapshot after every few entries.
fn cluster(count: u64) -> Cluster {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        snapshot_chunk_bytes: 16,
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
    assert_eq!(cluster.replica(behind).members(), &members(3));
    assert_eq!(
        cluster.replica(behind).raft().configuration().voters.len(),
        3
    );
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

#[test]
fn nothing_is_let_go_before_its_snapshot_is_durable() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 5);
    cluster.trim(leader, 1, log, 5);
    cluster.settle(true);
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&leader).unwrap();
    let snapshot = replica.take_snapshot();
    let index = snapshot.last.index;
    assert_eq!(index, replica.applied_index());
    assert_eq!(replica.compaction(now), None);
    assert_eq!(replica.snapshots_kept(), []);
    replica.snapshot_stored(index - 1);
    assert_eq!(replica.compaction(now), None, "another one was stored");
    replica.snapshot_stored(index);
    assert_eq!(replica.snapshots_kept(), [snapshot.last]);
    assert_eq!(replica.compaction(now), Some(index + 1));
    store.snapshots.insert(index, snapshot.encode());
    assert_eq!(replica.compact(now, store).unwrap(), Some(index + 1));
    assert_eq!(replica.raft().first_index(), index + 1);
    assert_eq!(store.first_index, index + 1);
    assert_eq!(replica.compact(now, store).unwrap(), None);
    // One that was not stored is as if it had not been taken.
    cluster.fill(leader, log, 1);
    let replica = &mut cluster.replicas.get_mut(&leader).unwrap().0;
    let failed = replica.take_snapshot();
    replica.snapshot_not_stored(failed.last.index);
    replica.snapshot_stored(failed.last.index);
    assert_eq!(replica.snapshots_kept(), [snapshot.last]);
}

#[test]
fn what_a_peer_that_answers_is_about_to_need_stays() {
    let config = ReplicaConfig {
        snapshot_entries: u64::MAX,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let slow = leader % 3 + 1;
    cluster.starved = vec![slow];
    cluster.fill(leader, log, 20);
    cluster.trim(leader, 1, log, 20);
    cluster.settle(true);
    let has = cluster.replica(slow).raft().last().index;
    let now = cluster.now;
    let (replica, store) = cluster.replicas.get_mut(&leader).unwrap();
    let snapshot = replica.take_snapshot();
    let index = snapshot.last.index;
    store.snapshots.insert(index, snapshot.encode());
    replica.snapshot_stored(index);
    assert!(has < index);
    assert_eq!(
        replica.compaction(now),
        None,
        "it answers, and goes on from there"
    );
    let later = Now {
        mono_us: now.mono_us + 500_001,
        ..now
    };
    assert_eq!(
        replica.compaction(later),
        Some(index + 1),
        "it does not answer"
    );
}

#[test]
fn a_snapshot_of_what_the_log_holds_keeps_the_log() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 10);
    cluster.pass(100_000);
    let snapshot = cluster.replicas.get_mut(&leader).unwrap().0.take_snapshot();
    let bytes = snapshot.encode();
    // A follower that holds everything and remembers no commit.
    let follower = leader % 3 + 1;
    let store = cluster.log(follower);
    for record in [&mut store.hard_state, &mut store.hard_state_durable] {
        record.as_mut().unwrap().commit_index_hint = 0;
    }
    cluster.starved = vec![follower];
    cluster.restart(follower);
    cluster.pass(100_000);
    assert_eq!(cluster.replica(follower).applied_index(), 0);
    let chunk = wire::SnapshotChunk {
        term: cluster.replica(leader).raft().term(),
        session: 1,
        snapshot_term: snapshot.last.term,
        snapshot_index: snapshot.last.index,
        total_bytes: bytes.len() as u64,
        offset: 0,
        payload_crc: drave_batch::checksum(&bytes),
    };
    let replica = &mut cluster.replicas.get_mut(&follower).unwrap().0;
    replica.on_snapshot_chunk(NodeId(leader), &chunk, &bytes);
    cluster.flush(follower);
    let replica = cluster.replica(follower);
    assert_eq!(replica.applied_index(), snapshot.last.index);
    assert_eq!(replica.snapshots_kept(), [snapshot.last]);
    assert_eq!(replica.raft().first_index(), 1, "its entries are as good");
    assert!(!replica.outputs.log_replaced);
    assert!(replica.outputs.snapshot_replies.last().unwrap().1.installed);
    assert_eq!(StateSnapshot::of(0, &replica.tables), snapshot);
    cluster.starved.clear();
    cluster.fill(leader, log, 1);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn a_record_that_was_not_trimmed_holds_the_log_and_is_sent_with_it() {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let busy = cluster.create(leader, "busy");
    let behind = leader % 3 + 1;
    cluster.cut = vec![behind];
    cluster.fill(leader, busy, 40);
    let quiet = cluster.create(leader, "quiet");
    cluster.fill(leader, quiet, 1);
    let kept_index = cluster.replica(leader).applied_index();
    cluster.fill(leader, busy, 100);
    cluster.trim(leader, 1, busy, 140);
    for _ in 0..30 {
        cluster.pass(50_000);
    }
    let first_index = cluster.log(leader).first_index;
    assert!(
        (17..=kept_index).contains(&first_index),
        "{first_index} {kept_index}"
    );
    let kept = cluster.replica(leader).snapshots_kept();
    assert!(
        kept.last().unwrap().index > kept_index,
        "later ones are there: {kept:?}"
    );
    cluster.cut.clear();
    for _ in 0..40 {
        cluster.pass(50_000);
    }
    let first_index = cluster.log(behind).first_index;
    assert!(
        (2..=kept_index).contains(&first_index),
        "{first_index} {kept_index}"
    );
    let bytes = &cluster.log(behind).slice(kept_index, kept_index + 1)[0];
    assert_eq!(BatchRef::decode(bytes).unwrap().header.log_id, quiet);
    cluster.check_agreement();
}

/// A leader whose log begins after a snapshot of many chunks, and a node that was away meanwhile.
pub(super) fn with_one_behind() -> (Cluster, u64, u64) {
    let mut cluster = cluster(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let behind = leader % 3 + 1;
    cluster.cut = vec![behind];
    compacted(&mut cluster, leader, log);
    cluster.cut.clear();
    (cluster, leader, behind)
}

/// Lets time pass until the first chunk is on its way, and gives it.
fn first_chunk(cluster: &mut Cluster) -> (NodeId, NodeId, wire::SnapshotChunk, Vec<u8>) {
    for _ in 0..1_000 {
        cluster.now.mono_us += 10_000;
        let now = cluster.now;
        for (replica, log) in cluster.replicas.values_mut() {
            replica.tick(now, log).unwrap();
        }
        for _ in 0..100 {
            let ids: Vec<u64> = cluster.replicas.keys().copied().collect();
            for id in ids {
                cluster.outputs_of(id);
            }
            let is_chunk = |carried: &Carried| matches!(carried, Carried::Chunk(..));
            if let Some(at) = cluster.wire.iter().position(|(_, _, c)| is_chunk(c)) {
                let (from, to, Carried::Chunk(chunk, payload)) = cluster.wire.remove(at).unwrap()
                else {
                    panic!("just seen")
                };
                cluster.wire.retain(|(_, _, carried)| !is_chunk(carried));
                return (from, to, chunk, payload);
            }
            cluster.deliver_one();
        }
    }
    panic!("no chunk was sent")
}

pub(super) fn caught_up(cluster: &mut Cluster, behind: u64) {
    caught_up_after(cluster, behind, 0);
}

fn caught_up_after(cluster: &mut Cluster, behind: u64, invalid_chunks_max: u32) {
    for _ in 0..200 {
        cluster.pass(50_000);
    }
    assert!(cluster.invalid_chunks <= invalid_chunks_max);
    assert!(cluster.log(behind).first_index > 1, "it has the snapshot");
    cluster.check_agreement();
    assert!(
        cluster.replica(behind).receiving.is_none(),
        "nothing is left in memory"
    );
}

#[test]
fn a_transfer_goes_on_where_it_was_cut() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, _, chunk, payload) = first_chunk(&mut cluster);
    assert_eq!((from.0, chunk.offset, payload.len()), (leader, 0, 16));
    let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
    replica.on_snapshot_chunk(from, &chunk, &payload);
    let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
    assert_eq!((reply.next_offset, reply.installed), (16, false));
    // A gap is answered with where to go on, a repetition and an older session with nothing new.
    let later = wire::SnapshotChunk {
        offset: 48,
        ..chunk.clone()
    };
    replica.on_snapshot_chunk(from, &later, &payload);
    replica.on_snapshot_chunk(from, &chunk, &payload);
    for _ in 0..2 {
        let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
        assert_eq!(reply.next_offset, 16);
    }
    let newer = wire::SnapshotChunk {
        session: chunk.session + 1,
        ..later
    };
    replica.on_snapshot_chunk(from, &newer, &payload);
    let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
    assert_eq!(
        (reply.session, reply.next_offset),
        (newer.session, 16),
        "it keeps what it has"
    );
    let taken = replica.on_snapshot_chunk(from, &chunk, &payload);
    assert!(
        matches!(taken, SnapshotTaken::Ignored),
        "a session that is over: {taken:?}"
    );
    // The link breaks and comes back: only what was not answered is sent again.
    cluster.link(leader, behind, false);
    cluster.link(leader, behind, true);
    caught_up(&mut cluster, behind);
}

#[test]
fn chunks_that_are_lost_are_sent_again() {
    let (mut cluster, _, behind) = with_one_behind();
    for _ in 0..6 {
        first_chunk(&mut cluster);
    }
    caught_up(&mut cluster, behind);
}

#[test]
fn an_answer_that_others_overtook_sends_nothing_again() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (_, _, chunk, payload) = first_chunk(&mut cluster);
    let reply = |next_offset| wire::SnapshotReply {
        term: chunk.term,
        session: chunk.session,
        snapshot_index: chunk.snapshot_index,
        next_offset,
        installed: false,
        pause_us: 0,
    };
    let (now, peer) = (cluster.now, NodeId(behind));
    let (replica, log) = cluster.replicas.get_mut(&leader).unwrap();
    let taken = reply(payload.len() as u64);
    replica.on_snapshot_reply(now, peer, &taken, log).unwrap();
    let plan = replica.plan_snapshot_chunk(now, peer);
    replica
        .on_snapshot_reply(now, peer, &reply(0), log)
        .unwrap();
    assert_eq!(replica.plan_snapshot_chunk(now, peer), plan);
}

#[test]
fn a_receiver_that_was_restarted_begins_anew() {
    let (mut cluster, leader, behind) = with_one_behind();
    for _ in 0..2 {
        let (from, _, chunk, payload) = first_chunk(&mut cluster);
        let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
        replica.on_snapshot_chunk(from, &chunk, &payload);
        cluster.outputs_of(behind);
        while cluster.deliver_one() {}
    }
    assert!(cluster.replica(behind).receiving.is_some());
    cluster.restart(behind);
    assert!(cluster.replica(leader).is_leader());
    caught_up(&mut cluster, behind);
}

#[test]
fn the_next_leader_sends_its_own() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, _, chunk, payload) = first_chunk(&mut cluster);
    let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
    replica.on_snapshot_chunk(from, &chunk, &payload);
    cluster.cut = vec![leader];
    let next = cluster.elect();
    assert_ne!(next, leader);
    caught_up(&mut cluster, behind);
    // A late chunk of the old leader is not looked at.
    let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
    let taken = replica.on_snapshot_chunk(from, &chunk, &payload);
    assert!(matches!(taken, SnapshotTaken::Ignored), "{taken:?}");
}

#[test]
fn a_snapshot_is_acknowledged_when_it_is_durable_and_not_before() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, _, first, _) = first_chunk(&mut cluster);
    let bytes = cluster.log(leader).snapshots[&first.snapshot_index].clone();
    let now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&behind).unwrap();
    for (at, piece) in bytes.chunks(100).enumerate() {
        let chunk = wire::SnapshotChunk {
            offset: at as u64 * 100,
            payload_crc: drave_batch::checksum(piece),
            ..first.clone()
        };
        replica.on_snapshot_chunk(from, &chunk, piece);
        let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
        assert!(!reply.installed, "{reply:?}");
        assert_eq!(reply.next_offset, chunk.offset + piece.len() as u64);
    }
    let (last, stored) = replica.outputs.store_snapshot.take().unwrap();
    assert_eq!(stored, bytes);
    assert_eq!(
        replica.raft().first_index(),
        1,
        "nor does the log go before"
    );
    // Asked again meanwhile: everything came, nothing is installed, and nothing is stored twice.
    let poke = wire::SnapshotChunk {
        offset: first.total_bytes,
        payload_crc: drave_batch::checksum(&[]),
        ..first.clone()
    };
    replica.on_snapshot_chunk(from, &poke, &[]);
    let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
    assert_eq!(
        (reply.next_offset, reply.installed),
        (first.total_bytes, false)
    );
    assert!(replica.outputs.store_snapshot.is_none());
    log.snapshots.insert(last.index, stored);
    // The completion of another one says nothing.
    let other = Durable::attest(EntryId { term: 9, index: 9 });
    replica.on_snapshot_durable(now, other, log).unwrap();
    assert!(replica.outputs.snapshot_replies.is_empty());
    let last = Durable::attest(last);
    replica.on_snapshot_durable(now, last, log).unwrap();
    let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
    assert!(reply.installed);
    assert_eq!(replica.applied_index(), last.get().index);
    assert_eq!(replica.raft().first_index(), last.get().index + 1);
    assert_eq!(replica.snapshots_kept(), [*last.get()]);
    // Sent once more, it is of no use any more, and that is said.
    replica.on_snapshot_chunk(from, &poke, &[]);
    assert!(replica.outputs.snapshot_replies.pop().unwrap().1.installed);
    caught_up(&mut cluster, behind);
}

#[test]
fn a_snapshot_waits_for_its_term_and_for_room() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, _, first, _) = first_chunk(&mut cluster);
    let bytes = cluster.log(leader).snapshots[&first.snapshot_index].clone();
    let whole = wire::SnapshotChunk {
        payload_crc: drave_batch::checksum(&bytes),
        ..first
    };
    let mut now = cluster.now;
    let (replica, log) = cluster.replicas.get_mut(&behind).unwrap();
    let durable = std::mem::take(&mut replica.hard_state_durable);
    replica.on_snapshot_chunk(from, &whole, &bytes);
    assert!(
        replica.outputs.store_snapshot.is_none(),
        "its term could be forgotten"
    );
    replica
        .on_hard_state_durable(now, Durable::attest(durable), log)
        .unwrap();
    let (last, stored) = replica.outputs.store_snapshot.take().unwrap();
    log.reserve_used = true;
    let durable = Durable::attest(last);
    replica.on_snapshot_durable(now, durable, log).unwrap();
    assert_eq!(
        replica.raft().first_index(),
        1,
        "there is no room to begin the log anew"
    );
    assert_eq!(replica.snapshots_kept(), [], "the shell deletes it");
    log.reserve_used = false;
    // It is not sent again at once, and longer each time not.
    for pause_us in [1_000_000, 2_000_000] {
        let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
        assert_eq!((reply.next_offset, reply.pause_us), (0, pause_us));
        assert_eq!(replica.snapshot_not_kept(), Some((last, pause_us)));
        replica.on_snapshot_chunk(from, &whole, &stored);
        let (_, reply) = replica.outputs.snapshot_replies.pop().unwrap();
        assert_eq!((reply.next_offset, reply.pause_us), (0, pause_us));
        assert!(replica.receiving.is_none(), "nothing is taken meanwhile");
        assert!(replica.next_deadline_us() <= now.mono_us + pause_us);
        now.mono_us += pause_us;
        replica.tick_receiving(now);
        replica.on_snapshot_chunk(from, &whole, &stored);
        assert!(replica.outputs.store_snapshot.take().is_some());
        replica.outputs.snapshot_replies.clear();
        replica.on_snapshot_not_durable(now, last);
        assert!(replica.receiving.is_none());
    }
    caught_up(&mut cluster, behind);
    assert_eq!(cluster.replica(behind).snapshot_not_kept(), None);
}

#[test]
fn a_snapshot_that_is_not_what_was_announced_is_thrown_away() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, _, first, payload) = first_chunk(&mut cluster);
    let bytes = cluster.log(leader).snapshots[&first.snapshot_index].clone();
    let whole = wire::SnapshotChunk {
        payload_crc: drave_batch::checksum(&bytes),
        ..first.clone()
    };
    let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
    let mut take = |chunk: &wire::SnapshotChunk, payload: &[u8]| {
        let taken = replica.on_snapshot_chunk(from, chunk, payload);
        assert!(replica.outputs.store_snapshot.is_none());
        match taken {
            SnapshotTaken::Invalid(problem) => problem,
            other => panic!("{other:?}"),
        }
    };
    let large = wire::SnapshotChunk {
        total_bytes: (256 << 20) + 1,
        ..first.clone()
    };
    assert!(matches!(
        take(&large, &payload),
        SnapshotProblem::TooLarge { .. }
    ));
    let beyond = wire::SnapshotChunk {
        offset: u64::MAX,
        ..first.clone()
    };
    assert!(matches!(
        take(&beyond, &payload),
        SnapshotProblem::Bounds { .. }
    ));
    assert!(matches!(
        take(&first, b"other"),
        SnapshotProblem::Checksum { .. }
    ));
    let renamed = wire::SnapshotChunk {
        snapshot_index: first.snapshot_index + 1,
        ..whole.clone()
    };
    assert!(matches!(
        take(&renamed, &bytes),
        SnapshotProblem::Other { .. }
    ));
    let mut damaged = bytes.clone();
    damaged[30] ^= 1;
    let rotten = wire::SnapshotChunk {
        payload_crc: drave_batch::checksum(&damaged),
        ..whole
    };
    assert!(matches!(
        take(&rotten, &damaged),
        SnapshotProblem::Content(_)
    ));
    assert!(cluster.replica(behind).receiving.is_none());
    let stranger = NodeId(77);
    let replica = &mut cluster.replicas.get_mut(&behind).unwrap().0;
    let taken = replica.on_snapshot_chunk(stranger, &first, &payload);
    assert!(matches!(taken, SnapshotTaken::Ignored), "{taken:?}");
    caught_up(&mut cluster, behind);
}

#[test]
fn nonsense_about_snapshots_is_survived() {
    let (mut cluster, leader, behind) = with_one_behind();
    let (from, to, chunk, payload) = first_chunk(&mut cluster);
    let now = cluster.now;
    let numbers = [0, 1, 15, 16, 17, u64::MAX / 2, u64::MAX];
    for field in 0..6 {
        for number in numbers {
            if field == 1 && number > chunk.session {
                // Only the leader itself could end its session by a later one.
                continue;
            }
            let mut bad = chunk.clone();
            *[
                &mut bad.term,
                &mut bad.session,
                &mut bad.snapshot_term,
                &mut bad.snapshot_index,
                &mut bad.total_bytes,
                &mut bad.offset,
            ][field] = number;
            let (replica, _) = cluster.replicas.get_mut(&behind).unwrap();
            replica.on_snapshot_chunk(from, &bad, &payload);
            let mut reply = wire::SnapshotReply {
                term: chunk.term,
                session: chunk.session,
                snapshot_index: chunk.snapshot_index,
                next_offset: 0,
                installed: false,
                pause_us: 0,
            };
            *[
                &mut reply.term,
                &mut reply.session,
                &mut reply.snapshot_index,
                &mut reply.next_offset,
                &mut reply.pause_us,
            ][field % 5] = number;
            let (replica, log) = cluster.replicas.get_mut(&leader).unwrap();
            replica.on_snapshot_reply(now, to, &reply, log).unwrap();
        }
    }
    // The right bytes in the wrong place are found when all are there, and it begins anew.
    caught_up_after(&mut cluster, behind, 1);
}

#[test]
fn a_snapshot_given_up_lets_the_log_go_and_is_begun_again() {
    let (mut cluster, leader, behind) = with_one_behind();
    first_chunk(&mut cluster);
    let is_sending = |cluster: &Cluster| cluster.replica(leader).sending.deadline_us(1) < u64::MAX;
    assert!(is_sending(&cluster));
    cluster.cut = vec![behind];
    let mut given_up = 0;
    for _ in 0..200 {
        cluster.pass(100_000);
        given_up += u32::from(!is_sending(&cluster));
        assert!(cluster.replica(leader).next_deadline_us() > cluster.now.mono_us);
    }
    assert!(cluster.replica(leader).is_leader());
    assert!(given_up > 0 || cluster.replica(leader).sending.sessions_begun() > 1);
    cluster.cut.clear();
    caught_up(&mut cluster, behind);
}

#[test]
fn what_is_kept_is_bounded_and_ends_stay() {
    let mut snapshots = Snapshots::default();
    for index in (10..1_000).step_by(10) {
        snapshots.keep(EntryId { term: 1, index });
    }
    let kept: Vec<u64> = snapshots.kept().iter().map(|id| id.index).collect();
    assert_eq!(kept.len(), 16);
    assert_eq!((kept[0], kept[14], kept[15]), (10, 980, 990));
    assert!(
        kept.windows(2)
            .all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= 200)
    );
}

#[test]
fn a_fast_start_reads_only_what_follows_the_snapshot() {
    let mut cluster = cluster(1);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 60);
    let runs = cluster.replica(leader).raft().term_runs().to_vec();
    let state = StateSnapshot::of(0, &cluster.replica(leader).tables);
    let store = cluster.crash(leader);
    let newest = store.snapshots.values().next_back().unwrap();
    let newest = StateSnapshot::decode(newest).unwrap();
    let from = newest.last.index + 1;
    let restorer = |base: StateSnapshot, runs: &[raft::TermRun]| {
        let mut restorer = Restorer::new(config(), store.hard_state_durable.unwrap(), base);
        restorer.log_start(1, 0, runs);
        restorer
    };
    let mut fast = restorer(newest.clone(), &runs);
    for bytes in store.slice(from, store.last_index() + 1) {
        fast.push(&BatchRef::decode(bytes).unwrap()).unwrap();
    }
    let fast = fast.finish(raft_config(1), 0, 1).unwrap();
    let whole = restored(1, &config(), &store, cluster.now);
    assert_eq!(fast.raft().term_runs(), whole.raft().term_runs());
    assert_eq!(fast.raft().first_index(), 1);
    assert_eq!(fast.raft().last(), whole.raft().last());
    for mut replica in [fast, whole] {
        let index = state.last.index;
        replica.tables.apply_to(index, &mut replica.outputs);
        assert_eq!(StateSnapshot::of(0, &replica.tables), state);
    }
    // A snapshot of another history is not gone on from.
    let mut other = newest;
    other.header_crc ^= 1;
    let mut wrong = restorer(other, &[]);
    let pushed: Result<Vec<()>, RestoreProblem> = store
        .batches
        .iter()
        .map(|bytes| wrong.push(&BatchRef::decode(bytes).unwrap()))
        .collect();
    assert!(
        matches!(pushed, Err(RestoreProblem::Snapshot { .. })),
        "{pushed:?}"
    );
}
