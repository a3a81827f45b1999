//! Replicas over logs in memory, driven by hand: what they decide, and that they agree.

use std::collections::{BTreeMap, VecDeque};

use drave_batch::control::{Member, MemberRole, Members};
use drave_batch::wire::{self, Append, Appended, EXPECT_SEQ_NONE, ErrorCode, FENCE_NONE};
use drave_batch::{BatchHeader, BatchRef, BodyBuilder, EntryKind};

use super::*;
use disk::MemoryLog;

mod appends;
mod carries;
mod descriptions;
mod disk;
mod edges;
mod endings;
mod fences;
mod hand_overs;
mod holes;
mod members;
mod pauses;
mod quotas;
mod retention;
mod snapshots;
mod together;
mod transfers;
mod trims;

struct Cluster {
    now: Now,
    config: ReplicaConfig,
    replicas: BTreeMap<u64, (Replica, MemoryLog)>,
    wire: VecDeque<(NodeId, NodeId, Carried)>,
    /// Nodes that nothing reaches or leaves.
    cut: Vec<u64>,
    /// Nodes that get messages, and no entries.
    starved: Vec<u64>,
    answers: Vec<(u64, Answer)>,
    /// Chunks of snapshots that were not valid.
    invalid_chunks: u32,
}

enum Carried {
    Message(Message),
    Append(wire::AppendEntries, Vec<u8>),
    Chunk(wire::SnapshotChunk, Vec<u8>),
    SnapshotReply(wire::SnapshotReply),
}

fn member(node_id: u64) -> Member {
    Member {
        node_id,
        role: Some(MemberRole::Voter),
        outgoing_voter: false,
        incarnation: 0,
        address: format!("127.0.0.{node_id}:1"),
    }
}

fn members(count: u64) -> Members {
    Members::first((1..=count).map(member).collect())
}

fn config() -> ReplicaConfig {
    ReplicaConfig {
        record_bytes_max: 1000,
        logs_max: 3,
        producers_max: 8,
        ..ReplicaConfig::default()
    }
}

fn raft_config(node_id: u64) -> raft::Config {
    raft::Config::new(NodeId(node_id))
}

/// What a node is made of what is on its disk: the newest snapshot, the log.
fn restored(node_id: u64, config: &ReplicaConfig, log: &MemoryLog, now: Now) -> Replica {
    let hard_state = log.hard_state_durable.unwrap_or_default();
    let newest = log.snapshots.values().next_back();
    let base = match newest {
        Some(bytes) => RestoreBase::from(StateSnapshot::decode(bytes).unwrap()),
        None => RestoreBase::from(log.members.clone()),
    };
    let mut restorer = Restorer::new(config.clone(), hard_state, base);
    restorer.log_start(log.first_index, log.prev_term, &[]);
    let found = log.snapshots.values();
    restorer.snapshots_found(found.map(|bytes| StateSnapshot::decode(bytes).unwrap().last));
    for bytes in &log.batches {
        restorer.push(&BatchRef::decode(bytes).unwrap()).unwrap();
    }
    restorer
        .finish(raft_config(node_id), now.mono_us, node_id)
        .unwrap()
}

impl Cluster {
    fn new(count: u64) -> Self {
        Self::with(count, config())
    }

    fn with(count: u64, config: ReplicaConfig) -> Self {
        let now = Now {
            mono_us: 0,
            unix_us: 1_000,
        };
        let mut cluster = Self {
            now,
            config,
            replicas: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: Vec::new(),
            starved: Vec::new(),
            answers: Vec::new(),
            invalid_chunks: 0,
        };
        for id in 1..=count {
            cluster.start(id, MemoryLog::new(members(count)));
        }
        cluster
    }

    /// Starts a node from its disk, and connects it with all others.
    fn start(&mut self, id: u64, log: MemoryLog) {
        let replica = restored(id, &self.config, &log, self.now);
        self.replicas.insert(id, (replica, log));
        let ids: Vec<u64> = self.replicas.keys().copied().collect();
        for other in ids.into_iter().filter(|other| *other != id) {
            self.link(id, other, true);
            self.link(other, id, true);
        }
    }

    /// Takes a node away, with what of its disk was flushed.
    fn crash(&mut self, id: u64) -> MemoryLog {
        let (_, mut log) = self.replicas.remove(&id).unwrap();
        log.crash();
        self.wire.retain(|(from, to, _)| from.0 != id && to.0 != id);
        let ids: Vec<u64> = self.replicas.keys().copied().collect();
        for other in ids {
            self.link(other, id, false);
        }
        log
    }

    fn restart(&mut self, id: u64) {
        let log = self.crash(id);
        self.start(id, log);
    }

    fn link(&mut self, id: u64, peer: u64, up: bool) {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        replica.on_peer_link(now, NodeId(peer), up, log).unwrap();
    }

    fn replica(&self, id: u64) -> &Replica {
        &self.replicas[&id].0
    }

    fn log(&mut self, id: u64) -> &mut MemoryLog {
        &mut self.replicas.get_mut(&id).unwrap().1
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
            while self.deliver_one() {
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Delivers the oldest message, unless one of its ends is cut off or gone.
    fn deliver_one(&mut self) -> bool {
        let Some((from, to, carried)) = self.wire.pop_front() else {
            return false;
        };
        let is_starved = self.starved.contains(&to.0) && matches!(carried, Carried::Append(..));
        let is_cut = is_starved || self.cut.contains(&from.0) || self.cut.contains(&to.0);
        let now = self.now;
        let Some((replica, log)) = self.replicas.get_mut(&to.0).filter(|_| !is_cut) else {
            return true;
        };
        match carried {
            Carried::Message(message) => replica.step(now, from, message, log).unwrap(),
            Carried::Append(message, payload) => {
                let taken = replica.on_append_entries(now, from, &message, &payload, log);
                let taken = taken.unwrap();
                assert!(matches!(taken, AppendTaken::Stepped), "{taken:?}");
            }
            Carried::Chunk(chunk, payload) => {
                let taken = replica.on_snapshot_chunk(from, &chunk, &payload);
                self.invalid_chunks += u32::from(matches!(taken, SnapshotTaken::Invalid(_)));
            }
            Carried::SnapshotReply(reply) => {
                replica.on_snapshot_reply(now, from, &reply, log).unwrap();
            }
        }
        true
    }

    fn outputs_of(&mut self, id: u64) -> bool {
        let peers: Vec<u64> = self.replicas.keys().copied().collect();
        let (replica, _) = self.replicas.get_mut(&id).unwrap();
        let own = NodeId(id);
        let mut moved = false;
        while let Some((to, message)) = replica.outputs.sends.pop_front() {
            self.wire.push_back((own, to, Carried::Message(message)));
            moved = true;
        }
        for (to, reply) in replica.outputs.snapshot_replies.drain(..) {
            self.wire
                .push_back((own, to, Carried::SnapshotReply(reply)));
            moved = true;
        }
        for (to, answer) in replica.outputs.replies.drain(..) {
            self.answers.push((to.request_id, answer));
        }
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            while self.send_appends(id, peer) || self.send_chunk(id, peer) {
                moved = true;
            }
        }
        moved
    }

    fn send_appends(&mut self, id: u64, peer: u64) -> bool {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        let Some(plan) = replica.plan_append(now, NodeId(peer)) else {
            return false;
        };
        let payload = log.slice(plan.lo, plan.hi_max).concat();
        let message = wire::AppendEntries {
            term: plan.term,
            prev_term: plan.prev.term,
            prev_index: plan.prev.index,
            commit_index: plan.commit_index,
            session: plan.session,
            batch_count: (plan.hi_max - plan.lo) as u32,
        };
        let bytes = payload.len() as u64;
        replica.append_sent(now, NodeId(peer), &plan, plan.hi_max, bytes);
        let carried = Carried::Append(message, payload);
        self.wire.push_back((NodeId(id), NodeId(peer), carried));
        true
    }

    fn send_chunk(&mut self, id: u64, peer: u64) -> bool {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        let Some(plan) = replica.plan_snapshot_chunk(now, NodeId(peer)) else {
            return false;
        };
        let bytes = &log.snapshots[&plan.snapshot.index];
        let end = bytes
            .len()
            .min(plan.offset as usize + plan.bytes_max as usize);
        let payload = bytes[plan.offset as usize..end].to_vec();
        let total_bytes = bytes.len() as u64;
        let chunk = wire::SnapshotChunk {
            term: plan.term,
            session: plan.session,
            snapshot_term: plan.snapshot.term,
            snapshot_index: plan.snapshot.index,
            total_bytes,
            offset: plan.offset,
            payload_crc: drave_batch::checksum(&payload),
        };
        let sent = payload.len() as u64;
        replica.snapshot_chunk_sent(now, NodeId(peer), &plan, sent, total_bytes);
        let carried = Carried::Chunk(chunk, payload);
        self.wire.push_back((NodeId(id), NodeId(peer), carried));
        true
    }

    /// Completes everything that a node's disk has to do, snapshots included.
    fn flush(&mut self, id: u64) -> bool {
        let now = self.now;
        let (replica, log) = self.replicas.get_mut(&id).unwrap();
        let mut moved = false;
        if let Some(state) = log.flush_hard_state() {
            let state = Durable::attest(state);
            replica.on_hard_state_durable(now, state, log).unwrap();
            moved = true;
        }
        if let Some(last) = log.flush_entries() {
            let last = Durable::attest(last);
            replica.on_log_durable(now, last, log).unwrap();
            moved = true;
        }
        if let Some((last, bytes)) = replica.outputs.store_snapshot.take() {
            if log.refuses_snapshots {
                replica.on_snapshot_not_durable(self.now, last);
            } else {
                log.snapshots.insert(last.index, bytes);
                let last = Durable::attest(last);
                replica.on_snapshot_durable(now, last, log).unwrap();
            }
            moved = true;
        }
        if replica.snapshot_due() {
            let snapshot = replica.take_snapshot();
            log.snapshots.insert(snapshot.last.index, snapshot.encode());
            replica.snapshot_stored(snapshot.last.index);
            moved = true;
        }
        moved |= replica.compact(now, log).unwrap().is_some();
        let kept = replica.snapshots_kept();
        log.snapshots
            .retain(|index, _| kept.iter().any(|id| id.index == *index));
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
            let leads = |(id, (replica, _)): &(&u64, &(Replica, MemoryLog))| {
                replica.is_leader() && !self.cut.contains(id)
            };
            if let Some((id, _)) = self.replicas.iter().find(leads) {
                let id = *id;
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
        let to = ReplyTo {
            connection: 1,
            request_id,
        };
        ask(replica, now, to, log).unwrap();
        self.outputs_of(node);
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
    }

    /// Appends one record at a time to a log, until it has grown by `count`.
    fn fill(&mut self, node: u64, log_id: u64, count: u64) {
        for _ in 0..count {
            self.append(node, 902, &batch(log_id, 0, 0, &[b"some record or other"]));
            self.settle(true);
            appended(self.answer(902));
        }
    }

    fn trim(&mut self, node: u64, request_id: u64, log_id: u64, first_seq: u64) {
        self.ask(node, request_id, |r, now, to, log| {
            r.trim_log(now, to, log_id, first_seq, log)
        });
    }

    /// What the replicas agree on must be the same bytes and the same tables.
    fn check_agreement(&self) {
        let all = || self.replicas.values();
        let commit = all().map(|(r, _)| r.applied_index()).min().unwrap();
        let first = all().map(|(_, log)| log.first_index).max().unwrap();
        let mut logs = all().map(|(_, log)| log.slice(first, commit + 1));
        let one = logs.next().unwrap();
        assert!(logs.all(|log| log == one), "committed bytes differ");
        let states: Vec<StateSnapshot> = all()
            .filter(|(r, _)| r.applied_index() == commit)
            .map(|(r, _)| StateSnapshot::of(0, &r.tables))
            .collect();
        assert!(
            states.windows(2).all(|pair| pair[0] == pair[1]),
            "the same entries were applied and the states differ: {states:#?}"
        );
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
    let append = Append {
        header,
        expect_seq: EXPECT_SEQ_NONE,
        fence: FENCE_NONE,
    };
    (append, body)
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
