//! Three replicas over logs in memory, driven by hand: what they decide, and that they agree.

use std::collections::{BTreeMap, VecDeque};

use drave_batch::control::{Member, MemberRole, Members};
use drave_batch::wire::{self, Append, Appended, EXPECT_SEQ_NONE, ErrorCode};
use drave_batch::{BatchHeader, BatchRef, BodyBuilder, EntryKind};

use super::*;

mod edges;

/// A log that keeps encoded batches; `flush` makes what there is durable.
#[derive(Default)]
struct MemoryLog {
    batches: Vec<Vec<u8>>,
    last_crc: u32,
    durable: usize,
    hard_state: Option<HardStateRecord>,
    hard_state_unflushed: bool,
    full: bool,
}

impl MemoryLog {
    fn refresh_crc(&mut self) {
        self.last_crc = self
            .batches
            .last()
            .map_or(0, |b| BatchRef::decode(b).unwrap().header_crc);
    }
}

impl EntryLog for MemoryLog {
    fn has_room(&self, _: usize) -> Result<(), LogRefusal> {
        if self.full {
            Err(LogRefusal::Full { queued_bytes: 1 })
        } else {
            Ok(())
        }
    }

    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal> {
        assert_eq!(header.index, self.batches.len() as u64 + 1);
        header.prev_crc = self.last_crc;
        let mut out = Vec::new();
        header.encode_with_body(body, &mut out);
        self.batches.push(out);
        self.refresh_crc();
        Ok(())
    }

    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal> {
        assert_eq!(batch.header.index, self.batches.len() as u64 + 1);
        assert_eq!(batch.header.prev_crc, self.last_crc, "the chain holds");
        self.batches.push(batch.encoded().to_vec());
        self.refresh_crc();
        Ok(())
    }

    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal> {
        self.batches.truncate(from_index as usize - 1);
        self.durable = self.durable.min(self.batches.len());
        self.refresh_crc();
        Ok(())
    }

    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal> {
        self.hard_state = Some(record);
        self.hard_state_unflushed = true;
        Ok(())
    }
}

struct Cluster {
    now: Now,
    replicas: BTreeMap<u64, (Replica, MemoryLog)>,
    wire: VecDeque<(NodeId, NodeId, Carried)>,
    /// Nodes that nothing reaches or leaves.
    cut: Vec<u64>,
    answers: Vec<(u64, Answer)>,
}

enum Carried {
    Message(raft::Message),
    Append(wire::AppendEntries, Vec<u8>),
}

fn members(count: u64) -> Members {
    let member = |node_id| Member {
        node_id,
        role: Some(MemberRole::Voter),
        outgoing_voter: false,
        incarnation: 0,
        address: format!("127.0.0.{node_id}:1"),
    };
    Members::first((1..=count).map(member).collect())
}

fn config() -> ReplicaConfig {
    ReplicaConfig {
        group_id: 0,
        record_bytes_max: 1000,
        logs_max: 3,
        producers_max: 8,
    }
}

fn restored(node_id: u64, count: u64, log: &MemoryLog, now: Now) -> Replica {
    let hard_state = log.hard_state.unwrap_or_default();
    let mut restorer = Restorer::new(config(), hard_state, members(count));
    for bytes in &log.batches {
        let batch = BatchRef::decode(bytes).unwrap();
        restorer.push(&batch.header, batch.body()).unwrap();
    }
    restorer
        .finish(raft::Config::new(NodeId(node_id)), now.mono_us, node_id)
        .unwrap()
}

impl Cluster {
    fn new(count: u64) -> Self {
        let now = Now {
            mono_us: 0,
            unix_us: 1_000,
        };
        let replicas = (1..=count)
            .map(|id| {
                let log = MemoryLog::default();
                (id, (restored(id, count, &log, now), log))
            })
            .collect();
        let mut cluster = Self {
            now,
            replicas,
            wire: VecDeque::new(),
            cut: Vec::new(),
            answers: Vec::new(),
        };
        for id in 1..=count {
            for other in (1..=count).filter(|other| *other != id) {
                let (replica, log) = cluster.replicas.get_mut(&id).unwrap();
                replica.on_peer_link(now, NodeId(other), true, log).unwrap();
            }
        }
        cluster
    }

    /// Carries out everything that can be without time passing; `flush` completes flushes too.
    fn settle(&mut self, flush: bool) {
        loop {
            let mut moved = false;
            let ids: Vec<u64> = self.replicas.keys().copied().collect();
            for id in ids {
                moved |= self.outputs_of(id);
                if flush {
                    moved |= self.flush(id);
                }
            }
            while let Some((from, to, carried)) = self.wire.pop_front() {
                moved = true;
                if self.cut.contains(&from.0) || self.cut.contains(&to.0) {
                    continue;
                }
                let now = self.now;
                let (replica, log) = self.replicas.get_mut(&to.0).unwrap();
                match carried {
                    Carried::Message(message) => replica.step(now, from, message, log).unwrap(),
                    Carried::Append(message, payload) => {
                        let taken = replica
                            .on_append_entries(now, from, &message, &payload, log)
                            .unwrap();
                        assert!(matches!(taken, AppendTaken::Stepped), "{taken:?}");
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn outputs_of(&mut self, id: u64) -> bool {
        let now = self.now;
        let peers: Vec<u64> = self
            .replicas
            .keys()
            .copied()
            .filter(|peer| *peer != id)
            .collect();
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        let mut moved = false;
        while let Some((to, message)) = replica.outputs.sends.pop_front() {
            self.wire
                .push_back((NodeId(id), to, Carried::Message(message)));
            moved = true;
        }
        for (to, answer) in replica.outputs.replies.drain(..) {
            self.answers.push((to.request_id, answer));
        }
        if replica.is_leader() {
            for peer in peers {
                while let Some(plan) = replica.plan_append(now, NodeId(peer)) {
                    let payload =
                        log.batches[plan.lo as usize - 1..plan.hi_max as usize - 1].concat();
                    let message = wire::AppendEntries {
                        term: plan.term,
                        prev_term: plan.prev.term,
                        prev_index: plan.prev.index,
                        commit_index: plan.commit_index,
                        session: plan.session,
                        batch_count: (plan.hi_max - plan.lo) as u32,
                    };
                    replica.append_sent(
                        now,
                        NodeId(peer),
                        &plan,
                        plan.hi_max,
                        payload.len() as u64,
                    );
                    self.wire.push_back((
                        NodeId(id),
                        NodeId(peer),
                        Carried::Append(message, payload),
                    ));
                    moved = true;
                }
            }
        }
        moved
    }

    fn flush(&mut self, id: u64) -> bool {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        let mut moved = false;
        if std::mem::take(&mut log.hard_state_unflushed) {
            let record = log.hard_state.unwrap();
            let vote = (record.vote != 0).then_some(NodeId(record.vote));
            let state = Durable::attest(raft::HardState {
                term: record.term,
                vote,
            });
            replica.on_hard_state_durable(now, state, log).unwrap();
            moved = true;
        }
        if log.durable < log.batches.len() {
            log.durable = log.batches.len();
            let last = BatchRef::decode(log.batches.last().unwrap())
                .unwrap()
                .header;
            let id = Durable::attest(EntryId {
                term: last.term,
                index: last.index,
            });
            replica.on_log_durable(now, id, log).unwrap();
            moved = true;
        }
        moved
    }

    fn pass(&mut self, micros: u64) {
        self.now.mono_us += micros;
        self.now.unix_us += micros;
        let now = self.now;
        for (replica, log) in self.replicas.values_mut() {
            replica.tick(now, log).unwrap();
        }
        self.settle(true);
    }

    /// Lets time pass until a node other than those cut leads.
    fn elect(&mut self) -> u64 {
        for _ in 0..1_000 {
            self.pass(10_000);
            let cut = self.cut.clone();
            if let Some(id) = self
                .replicas
                .iter()
                .find(|(id, (r, _))| r.is_leader() && !cut.contains(id))
                .map(|(id, _)| *id)
            {
                self.settle(true);
                return id;
            }
        }
        panic!("no leader after 10 s");
    }

    fn ask(
        &mut self,
        node: u64,
        request_id: u64,
        ask: impl FnOnce(&mut Replica, Now, ReplyTo, &mut MemoryLog) -> Result<(), Fatal>,
    ) {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&node).unwrap();
        ask(
            replica,
            now,
            ReplyTo {
                connection: 1,
                request_id,
            },
            log,
        )
        .unwrap();
    }

    fn answer(&mut self, request_id: u64) -> Answer {
        let at = self.answers.iter().position(|(id, _)| *id == request_id);
        self.answers
            .remove(at.unwrap_or_else(|| panic!("no answer to {request_id}")))
            .1
    }

    fn create(&mut self, node: u64, name: &str) -> u64 {
        self.ask(node, 900, |r, now, to, log| {
            r.create_log(now, to, name, true, log)
        });
        self.settle(true);
        match self.answer(900) {
            Answer::Log(info) => info.log_id,
            other => panic!("{other:?}"),
        }
    }

    fn producer(&mut self, node: u64) -> u64 {
        self.ask(node, 901, |r, now, to, log| {
            r.open_producer(now, to, "test", log)
        });
        self.settle(true);
        match self.answer(901) {
            Answer::Producer(opened) => opened.producer_id,
            other => panic!("{other:?}"),
        }
    }

    fn append(&mut self, node: u64, request_id: u64, append: &(Append, Vec<u8>)) {
        self.ask(node, request_id, |r, now, to, log| {
            r.append(now, to, &append.0, &append.1, log)
        });
        self.outputs_of(node);
    }

    /// What the replicas agree on must be the same bytes and the same tables.
    fn check_agreement(&self) {
        let commit = self
            .replicas
            .values()
            .map(|(r, _)| r.applied_index())
            .min()
            .unwrap() as usize;
        let mut logs = self
            .replicas
            .values()
            .map(|(_, log)| &log.batches[..commit]);
        let first = logs.next().unwrap();
        assert!(logs.all(|log| log == first), "committed bytes differ");
    }
}

fn batch(log_id: u64, producer_id: u64, sequence: u64, records: &[&[u8]]) -> (Append, Vec<u8>) {
    let mut builder = BodyBuilder::new();
    for record in records {
        builder.push(record);
    }
    let count = builder.record_count();
    let mut body = Vec::new();
    builder.drain_into(&mut body);
    let header = BatchHeader {
        log_id,
        producer_id,
        producer_seq: sequence,
        ..BatchHeader::new(EntryKind::Data, &body, count)
    };
    (
        Append {
            header,
            expect_seq: EXPECT_SEQ_NONE,
        },
        body,
    )
}

fn appended(answer: Answer) -> Appended {
    match answer {
        Answer::Appended(appended) => appended,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

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
    let (_, log_store) = cluster.replicas.remove(&leader).unwrap();
    let replica = restored(leader, 1, &log_store, cluster.now);
    cluster.replicas.insert(leader, (replica, log_store));
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
