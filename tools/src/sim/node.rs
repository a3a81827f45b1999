//! One node: its disk, its clocks, its process, and the product's loop around the product's replica.
//!
//! [`Node::turn`] does what `node::driver` does, in its order: completions, messages, cold reads, the
//! timer, answers, credit, messages out, appends pulled, the flush started.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use drave::node::{Carrier, CarryLimits, Completion};
use drave::raft::{Durable, HardState, Message, NodeId, RoleKind};
use drave::replica::{
    Answer, AppendTaken, Fatal, HandOverOrder, Now, Refusal, Replica, ReplyTo, SnapshotTaken,
};
use drave_batch::checksum;
use drave_batch::wire::{self, ErrorCode, Lane};
use drave_wal::{MemoryDisk, Read, ReadError, Slices};

use super::client::{Ask, Reply, Request};
use super::clock::Clock;
use super::invariants::committed::model_of;
use super::network::{LinkId, Payload};
use super::plan::Timers;
use super::shadow::ShadowLog;
use super::snapshots::{SnapshotStore, Storing};

/// Something a node takes in one of its turns.
#[derive(Debug)]
pub enum Input {
    /// A peer's message, and the slot it is from.
    Peer(usize, Payload),
    /// A connection it dialed stands.
    Dialed(LinkId, u64),
    /// A peer's connection was accepted.
    Accepted(LinkId, u64),
    /// A connection is gone.
    Closed(LinkId, u64),
    /// A client's request.
    Request(usize, Box<Request>),
}

/// What leaves a node in one of its turns.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages to peers: slot, lane, whether this node dialed that lane, what.
    pub peers: Vec<(usize, Lane, bool, Payload)>,
    /// Answers to clients.
    pub replies: Vec<Reply>,
    /// Role changes.
    pub roles: Vec<(RoleKind, u64, Option<NodeId>)>,
}

/// Why a node stopped by itself.
#[derive(Debug)]
pub enum Stop {
    /// The product says so.
    Fatal(Fatal),
    /// Something that no message or disk may bring about.
    Malformed(String),
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// A linearizable read under way at a node.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    client: usize,
    request_id: u64,
    log_id: u64,
}

/// A read of entries that are no longer in memory, on its way to a peer.
struct ColdEntries {
    peer: usize,
    term: u64,
    due_us: u64,
    /// Nothing when it could not be read: not tried again before it is due.
    slices: Option<Slices>,
}

/// Limits of what a node sends at once.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits {
    /// Bytes of one append.
    pub append_bytes_max: u64,
    /// Entries of one append.
    pub append_entries_max: u64,
    /// Bytes of a snapshot's part.
    pub chunk_bytes_max: u32,
    /// How long a read from files takes, and storing a snapshot.
    pub cold_us: u64,
}

/// A running process.
pub struct Process {
    /// The log and its shadow.
    pub log: ShadowLog,
    /// The product's replica.
    pub replica: Replica,
    /// The hard state that the log last reported durable.
    pub hard_state_flushed: HardState,
    /// Connections as this node knows them, by their position; 0 for none.
    links: Vec<u64>,
    cold: Vec<ColdEntries>,
    carrier: Carrier,
    /// What the carrier reads, and when that is done.
    carried: Option<(u64, Result<Slices, ReadError>)>,
    tickets: BTreeMap<u64, Ticket>,
    ticket_last: u64,
    completions: Vec<Completion>,
    /// It came to lead in its last turn.
    pub is_new_leader: bool,
    /// In its last turn, at this time of its clock, it began to hand over the lead because of its disk.
    pub handing_over: Option<(u64, HandOverOrder)>,
    /// What a peer needs could not be read.
    is_unreadable: bool,
    /// The snapshot that it took in its last turn.
    pub taken: Option<(u64, Bytes)>,
}

/// What becomes of a node that is not running.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Life {
    /// It runs, or will be started again.
    Alive,
    /// It never comes back.
    Dead,
}

/// A node.
pub struct Node {
    /// Its place in the table of nodes; its id is one more.
    pub slot: usize,
    /// Its disk.
    pub disk: MemoryDisk,
    /// The snapshots on it.
    pub snapshots: SnapshotStore,
    /// Its clocks.
    pub clock: Clock,
    /// Its timers.
    pub timers: Timers,
    /// Nothing while it is down.
    pub process: Option<Process>,
    /// How many processes it has had.
    pub starts: u64,
    /// What waits for its next turn.
    pub inbox: VecDeque<Input>,
    /// Until then it does not look: a turn takes time, or it is paused.
    pub busy_until_us: u64,
    /// When it has something to do by itself.
    pub wake_us: u64,
    /// Whether it comes back.
    pub life: Life,
    /// Stored bits of it were changed.
    pub is_damaged: bool,
    /// Time of its disk's operations, `[lo, hi)`.
    pub disk_us: (u64, u64),
}

impl Node {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.slot as u64 + 1)
    }

    /// When it has something to do by itself, given what it is doing.
    pub fn schedule(&mut self) {
        let Some(process) = &self.process else {
            self.wake_us = u64::MAX;
            return;
        };
        let timer_us = self.clock.when(process.replica.next_deadline_us());
        let disk_us = self.disk.next_due_us().unwrap_or(u64::MAX);
        let cold_us = process.cold.iter().map(|cold| cold.due_us).min();
        let carry_us = self
            .clock
            .when(process.carrier.deadline_us(&process.replica));
        let carried_us = process.carried.as_ref().map_or(u64::MAX, |read| read.0);
        let inbox_us = if self.inbox.is_empty() { u64::MAX } else { 0 };
        self.wake_us = timer_us
            .min(disk_us)
            .min(cold_us.unwrap_or(u64::MAX))
            .min(carry_us)
            .min(carried_us)
            .min(self.snapshots.due_us())
            .min(inbox_us)
            .max(self.busy_until_us);
    }

    /// Takes all there is and does all that follows from it.
    ///
    /// # Errors
    /// [`Stop`]: the node stops.
    pub fn turn(
        &mut self,
        now_us: u64,
        slots: usize,
        limits: SendLimits,
        out: &mut Outbox,
    ) -> Result<(), Stop> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let now = self.clock.now(now_us);
        self.disk.set_now_us(now_us);
        process.is_new_leader = false;
        process.taken = None;
        process.take_completions(now)?;
        while let Some(input) = self.inbox.pop_front() {
            process.take(now, slots, input, out)?;
        }
        process.take_cold(now, now_us, out);
        process.take_stored(now, now_us, &mut self.snapshots)?;
        if process.replica.next_deadline_us() <= now.mono_us {
            process.replica.tick(now, &mut process.log)?;
        }
        process.carry_over(now, now_us, limits)?;
        process.answer(out);
        process.keep_snapshots(now, now_us, limits, &mut self.snapshots)?;
        let credit_bytes = process.log.log.credit_bytes();
        process.replica.set_credit(credit_bytes);
        let disk = process.log.log.disk();
        let order = process.replica.mind_disk(now, disk, &mut process.log)?;
        process.handing_over = order.map(|order| (now.mono_us, order));
        process.send_messages(out);
        // Appends leave before the own write starts: the two run in parallel (thesis section 10.2.1).
        process.pull(now, now_us, slots, self.slot, limits, out);
        process.pull_snapshots(now, slots, self.slot, limits, &mut self.snapshots, out);
        if std::mem::take(&mut process.is_unreadable) {
            // A leader that cannot read what a peer needs lets one lead that can.
            process.replica.hand_over(now, &mut process.log)?;
        }
        process.log.log.wal.submit();
        process.tell_roles(out);
        Ok(())
    }
}

fn slot_of(node: NodeId) -> usize {
    (node.0 as usize).saturating_sub(1)
}

impl Process {
    /// A process that has just restored its replica.
    #[must_use]
    pub fn new(
        log: ShadowLog,
        replica: Replica,
        hard_state: HardState,
        links: usize,
        carried: CarryLimits,
    ) -> Self {
        Self {
            log,
            replica,
            hard_state_flushed: hard_state,
            links: vec![0; links],
            cold: Vec::new(),
            carrier: Carrier::new(carried),
            carried: None,
            tickets: BTreeMap::new(),
            ticket_last: 0,
            completions: Vec::new(),
            is_new_leader: false,
            handing_over: None,
            is_unreadable: false,
            taken: None,
        }
    }

    /// The life of a connection as this node knows it.
    #[must_use]
    pub fn link(&self, link: LinkId) -> Option<u64> {
        let epoch = self.links[link.position()];
        (epoch > 0).then_some(epoch)
    }

    fn take_completions(&mut self, now: Now) -> Result<(), Stop> {
        let mut completions = std::mem::take(&mut self.completions);
        self.log.poll(&mut completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Log(durable) => {
                    self.replica.on_log_durable(now, durable, &mut self.log)?;
                }
                Completion::HardState(durable) => {
                    self.hard_state_flushed = *durable.get();
                    self.replica
                        .on_hard_state_durable(now, durable, &mut self.log)?;
                }
                Completion::Space { .. } => {}
                Completion::Failed(reason) => {
                    let reason = format!("the log failed: {reason}");
                    return Err(Fatal { reason }.into());
                }
            }
        }
        self.completions = completions;
        Ok(())
    }

    fn take(&mut self, now: Now, slots: usize, input: Input, out: &mut Outbox) -> Result<(), Stop> {
        match input {
            Input::Peer(from, payload) => self.take_message(now, from, payload),
            Input::Dialed(link, epoch) => {
                self.links[link.position()] = epoch;
                if link.lane() == Lane::Append {
                    let peer = NodeId(link.ends(slots).1 as u64 + 1);
                    self.replica.on_peer_link(now, peer, true, &mut self.log)?;
                }
                Ok(())
            }
            Input::Accepted(link, epoch) => {
                self.links[link.position()] = epoch;
                Ok(())
            }
            Input::Closed(link, epoch) => self.on_closed(now, slots, link, epoch),
            Input::Request(client, request) => self.take_request(now, client, &request, out),
        }
    }

    fn on_closed(&mut self, now: Now, slots: usize, link: LinkId, epoch: u64) -> Result<(), Stop> {
        if self.links[link.position()] != epoch {
            return Ok(());
        }
        self.links[link.position()] = 0;
        let (dialer, acceptor) = link.ends(slots);
        if slot_of(self.replica.raft().id()) == acceptor {
            let peer = NodeId(dialer as u64 + 1);
            self.replica.on_peer_closed(now, peer, &mut self.log)?;
        } else if link.lane() == Lane::Append {
            let peer = NodeId(acceptor as u64 + 1);
            self.replica.on_peer_link(now, peer, false, &mut self.log)?;
        }
        Ok(())
    }

    fn take_message(&mut self, now: Now, from: usize, payload: Payload) -> Result<(), Stop> {
        let from = NodeId(from as u64 + 1);
        match payload {
            Payload::Core(message) => {
                self.replica.step(now, from, message, &mut self.log)?;
            }
            Payload::Append(append) => {
                let (message, bytes) = &*append;
                let taken =
                    self.replica
                        .on_append_entries(now, from, message, bytes, &mut self.log)?;
                if let AppendTaken::Invalid(problem) = taken {
                    return Err(Stop::Malformed(problem.to_string()));
                }
            }
            Payload::Chunk(part) => {
                let (chunk, bytes) = &*part;
                let taken = self.replica.on_snapshot_chunk(from, chunk, bytes);
                if let SnapshotTaken::Invalid(problem) = taken {
                    return Err(Stop::Malformed(problem.to_string()));
                }
            }
            Payload::Disk(report) => self.replica.on_disk_report(from, report),
            Payload::ChunkReply(reply) => {
                self.replica
                    .on_snapshot_reply(now, from, &reply, &mut self.log)?;
            }
        }
        Ok(())
    }

    fn take_request(
        &mut self,
        now: Now,
        client: usize,
        request: &Request,
        out: &mut Outbox,
    ) -> Result<(), Stop> {
        let reply = ReplyTo {
            connection: client as u64,
            request_id: request.request_id,
        };
        let (replica, log) = (&mut self.replica, &mut self.log);
        match &request.ask {
            Ask::Create { name } => replica.create_log(now, reply, name, true, log)?,
            Ask::OpenProducer => replica.open_producer(now, reply, "", log)?,
            Ask::Append { append, body } => replica.append(now, reply, append, body, log)?,
            Ask::Members(change) => replica.change_members(now, reply, change, log)?,
            Ask::Transfer { to } => replica.transfer_leader(now, reply, NodeId(*to), log)?,
            Ask::Change { log_id, change } => {
                replica.change_log(now, reply, *log_id, *change, log)?;
            }
            Ask::Trim { log_id, first_seq } => {
                replica.trim_log(now, reply, *log_id, *first_seq, log)?;
            }
            Ask::Tail { log_id } => {
                self.ticket_last += 1;
                let ticket = self.ticket_last;
                let taken = replica.read_index(now, ticket, log)?;
                let asked = Ticket {
                    client,
                    request_id: request.request_id,
                    log_id: *log_id,
                };
                match taken {
                    Ok(()) => {
                        self.tickets.insert(ticket, asked);
                    }
                    Err(refusal) => out.replies.push(self.refused(asked, refusal)),
                }
            }
        }
        Ok(())
    }

    fn refused(&self, ticket: Ticket, refusal: Refusal) -> Reply {
        Reply {
            client: ticket.client,
            request_id: ticket.request_id,
            answer: Answer::Refused(refusal),
            tail: None,
            node: slot_of(self.replica.raft().id()),
            leader: self.replica.raft().leader().map(slot_of),
        }
    }

    /// Answers to clients, writes first, then reads that were confirmed.
    fn answer(&mut self, out: &mut Outbox) {
        let node = slot_of(self.replica.raft().id());
        let leader = self.replica.raft().leader().map(slot_of);
        for (reply, answer) in self.replica.outputs.replies.drain(..) {
            out.replies.push(Reply {
                client: reply.connection as usize,
                request_id: reply.request_id,
                answer,
                tail: None,
                node,
                leader,
            });
        }
        self.replica.outputs.advanced.clear();
        for ticket in std::mem::take(&mut self.replica.outputs.reads_ready) {
            let Some(asked) = self.tickets.remove(&ticket) else {
                continue;
            };
            let Some(state) = self.replica.catalogue().log(asked.log_id) else {
                let refusal = Refusal::new(ErrorCode::LogNotFound, "");
                out.replies.push(self.refused(asked, refusal));
                continue;
            };
            let info = state.info(false);
            out.replies.push(Reply {
                client: asked.client,
                request_id: asked.request_id,
                tail: Some(model_of(state)),
                answer: Answer::Log(info),
                node,
                leader,
            });
        }
        for ticket in std::mem::take(&mut self.replica.outputs.reads_failed) {
            if let Some(asked) = self.tickets.remove(&ticket) {
                let refusal = Refusal::new(ErrorCode::ReadUnconfirmed, "");
                out.replies.push(self.refused(asked, refusal));
            }
        }
    }

    /// Requests where this node dialed, answers where they were asked.
    fn send_messages(&mut self, out: &mut Outbox) {
        while let Some((to, message)) = self.replica.outputs.sends.pop_front() {
            let (lane, dialed) = match message {
                Message::VoteRequest(_)
                | Message::Heartbeat(_)
                | Message::TimeoutNow(_)
                | Message::ReadIndexRequest(_) => (Lane::Control, true),
                Message::VoteReply(_) | Message::HeartbeatReply(_) | Message::ReadIndexReply(_) => {
                    (Lane::Control, false)
                }
                Message::AppendReply(_) => (Lane::Append, false),
            };
            if let Message::HeartbeatReply(_) = message {
                let report = Payload::Disk(self.replica.disk_report());
                out.peers.push((slot_of(to), lane, dialed, report));
            }
            out.peers
                .push((slot_of(to), lane, dialed, Payload::Core(message)));
        }
        for (to, reply) in self.replica.outputs.snapshot_replies.drain(..) {
            out.peers
                .push((slot_of(to), Lane::Append, false, Payload::ChunkReply(reply)));
        }
    }

    /// Snapshots that have become durable.
    fn take_stored(
        &mut self,
        now: Now,
        now_us: u64,
        snapshots: &mut SnapshotStore,
    ) -> Result<(), Stop> {
        while let Some(stored) = snapshots.complete(now_us) {
            if stored.is_received {
                let durable = Durable::attest(stored.id);
                self.replica
                    .on_snapshot_durable(now, durable, &mut self.log)?;
            } else {
                self.replica.snapshot_stored(stored.id.index);
            }
        }
        Ok(())
    }

    /// Goes on with carrying over what holds back space.
    fn carry_over(&mut self, now: Now, now_us: u64, limits: SendLimits) -> Result<(), Stop> {
        if let Some((_, read)) = self.carried.take_if(|read| read.0 <= now_us) {
            self.carrier.on_read(now, read);
        }
        let job = self.carrier.turn(now, &mut self.replica, &mut self.log)?;
        if let Some(job) = job {
            self.carried = Some((now_us + limits.cold_us, job.run()));
        }
        Ok(())
    }

    /// Takes a snapshot when one is due, stores one that came, lets the log begin later.
    fn keep_snapshots(
        &mut self,
        now: Now,
        now_us: u64,
        limits: SendLimits,
        snapshots: &mut SnapshotStore,
    ) -> Result<(), Stop> {
        let due_us = now_us + limits.cold_us;
        if self.replica.snapshot_due() {
            let snapshot = self.replica.take_snapshot();
            let bytes = Bytes::from(snapshot.encode());
            self.taken = Some((snapshot.last.index, bytes.clone()));
            snapshots.begin(Storing {
                id: snapshot.last,
                bytes,
                due_us,
                is_received: false,
            });
        }
        if let Some((id, bytes)) = self.replica.outputs.store_snapshot.take() {
            self.taken = Some((id.index, bytes.clone().into()));
            snapshots.begin(Storing {
                id,
                bytes: bytes.into(),
                due_us,
                is_received: true,
            });
        }
        let replaced = std::mem::take(&mut self.replica.outputs.log_replaced);
        let compacted = self.replica.compact(now, &mut self.log)?.is_some();
        if replaced || compacted {
            snapshots.retain(self.replica.snapshots_kept());
        }
        Ok(())
    }

    /// Gives every peer that is behind the log the next part of a snapshot.
    fn pull_snapshots(
        &mut self,
        now: Now,
        slots: usize,
        own_slot: usize,
        limits: SendLimits,
        snapshots: &mut SnapshotStore,
        out: &mut Outbox,
    ) {
        if !self.replica.is_leader() {
            return;
        }
        for peer in (0..slots).filter(|peer| *peer != own_slot) {
            if self
                .link(LinkId::new(slots, own_slot, peer, Lane::Append))
                .is_none()
            {
                continue;
            }
            let to = NodeId(peer as u64 + 1);
            while let Some(plan) = self.replica.plan_snapshot_chunk(now, to) {
                let Some(bytes) = snapshots.get(plan.snapshot) else {
                    self.replica.snapshot_lost(plan.snapshot);
                    break;
                };
                let total_bytes = bytes.len() as u64;
                let bytes_max = u64::from(plan.bytes_max.min(limits.chunk_bytes_max));
                let end = total_bytes.min(plan.offset + bytes_max);
                let part = bytes.slice(plan.offset.min(end) as usize..end as usize);
                let chunk = wire::SnapshotChunk {
                    term: plan.term,
                    session: plan.session,
                    snapshot_term: plan.snapshot.term,
                    snapshot_index: plan.snapshot.index,
                    total_bytes,
                    offset: plan.offset,
                    payload_crc: checksum(&part),
                };
                let sent = part.len() as u64;
                let payload = Payload::Chunk(Box::new((chunk, part)));
                out.peers.push((peer, Lane::Append, true, payload));
                self.replica
                    .snapshot_chunk_sent(now, to, &plan, sent, total_bytes);
            }
        }
    }

    /// Gives every peer whose connection has room what it needs next.
    fn pull(
        &mut self,
        now: Now,
        now_us: u64,
        slots: usize,
        own_slot: usize,
        limits: SendLimits,
        out: &mut Outbox,
    ) {
        if !self.replica.is_leader() {
            return;
        }
        for peer in (0..slots).filter(|peer| *peer != own_slot) {
            let link = LinkId::new(slots, own_slot, peer, Lane::Append);
            if self.link(link).is_none() {
                continue;
            }
            while !self.cold.iter().any(|cold| cold.peer == peer) {
                let Some(plan) = self.replica.plan_append(now, NodeId(peer as u64 + 1)) else {
                    break;
                };
                let entries = match self.next_entries(&plan, limits) {
                    Ok(Read::Ready(slices)) => slices,
                    Ok(Read::Cold(job)) => {
                        let slices = job.run().ok();
                        let wait_us = if slices.is_some() {
                            limits.cold_us
                        } else {
                            RETRY_US
                        };
                        self.cold.push(ColdEntries {
                            peer,
                            term: plan.term,
                            due_us: now_us + wait_us,
                            slices,
                        });
                        break;
                    }
                    Err(_) => {
                        self.is_unreadable = true;
                        self.cold.push(ColdEntries {
                            peer,
                            term: plan.term,
                            due_us: now_us + RETRY_US,
                            slices: None,
                        });
                        break;
                    }
                };
                self.send_append(now, peer, &plan, &entries, out);
            }
        }
    }

    fn next_entries(
        &self,
        plan: &drave::raft::AppendPlan,
        limits: SendLimits,
    ) -> Result<Read, ReadError> {
        let hi = plan
            .hi_max
            .min(plan.lo.saturating_add(limits.append_entries_max));
        if plan.lo == hi {
            return Ok(Read::Ready(Slices {
                lo: plan.lo,
                hi,
                bytes: 0,
                pieces: Vec::new(),
            }));
        }
        let bytes_max = limits.append_bytes_max.min(plan.bytes_max);
        self.log.log.wal.read(
            plan.lo,
            hi,
            usize::try_from(bytes_max).unwrap_or(usize::MAX),
        )
    }

    fn send_append(
        &mut self,
        now: Now,
        peer: usize,
        plan: &drave::raft::AppendPlan,
        entries: &Slices,
        out: &mut Outbox,
    ) {
        let message = wire::AppendEntries {
            term: plan.term,
            prev_term: plan.prev.term,
            prev_index: plan.prev.index,
            commit_index: plan.commit_index,
            session: plan.session,
            batch_count: (entries.hi - entries.lo) as u32,
        };
        let payload = Payload::Append(Box::new((message, joined(&entries.pieces))));
        out.peers.push((peer, Lane::Append, true, payload));
        self.replica.append_sent(
            now,
            NodeId(peer as u64 + 1),
            plan,
            entries.hi,
            entries.bytes as u64,
        );
    }

    /// Reads of old entries for peers that have finished: sent if they are still what is needed.
    fn take_cold(&mut self, now: Now, now_us: u64, out: &mut Outbox) {
        while let Some(position) = self.cold.iter().position(|cold| cold.due_us <= now_us) {
            let cold = self.cold.remove(position);
            let Some(slices) = cold.slices else {
                self.is_unreadable = true;
                continue;
            };
            // A leader never truncates its own log, so within one term the entries read are the log's.
            if !self.replica.is_leader() || self.replica.raft().term() != cold.term {
                continue;
            }
            let peer = NodeId(cold.peer as u64 + 1);
            if let Some(plan) = self.replica.plan_append(now, peer)
                && plan.lo == slices.lo
                && slices.hi <= plan.hi_max
            {
                self.send_append(now, cold.peer, &plan, &slices, out);
            }
        }
    }

    fn tell_roles(&mut self, out: &mut Outbox) {
        for change in self.replica.outputs.roles.drain(..) {
            self.is_new_leader |= change.0 == RoleKind::Leader;
            out.roles.push(change);
        }
    }
}

/// Between attempts to read entries that could not be read.
const RETRY_US: u64 = 100_000;

/// What a receiver sees of several pieces: one.
fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [one] => one.clone(),
        several => {
            let mut bytes = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
            several
                .iter()
                .for_each(|piece| bytes.extend_from_slice(piece));
            bytes.freeze()
        }
    }
}
