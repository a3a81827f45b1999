//! The loop: waits for sockets, disk, helper or a deadline, takes everything there is, lets the replica
//! decide, sends what may leave, starts the next flush.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use drave_batch::wire::{self, ErrorCode, MessageKind, Role};
use drave_net::handshake::HandshakeError;
use drave_net::{CloseReason, ConnId, DialError, Flush, Frame, Net, NetEvent};
use drave_wal::ReadError;
use tokio::time::{Instant, sleep_until};

use super::bind::bind;
use super::clock::Clock;
use super::entries::{Entries, EntriesJob};
use super::group_log::Completion;
use super::helper::Finished;
use super::peers::{Dialing, Lost, Peers, Unreadable};
use super::pins::Pins;
use super::snapshots::{Origin, SnapshotFiles};
use super::start::Opened;
use super::watch::DiskWatch;
use super::{GroupLog, Helper, JobKey, NodeError, is_damage, translate};
use crate::raft::{Durable, RoleKind};
use crate::replica::{AppendTaken, Fatal, Now, Replica, SnapshotTaken};
use crate::service::{Context, NodeFacts, Served, Service, role_name};
use crate::store::Store;

/// Events taken from the sockets in one turn, so that disk and timers get theirs.
const EVENTS_MAX: usize = 4096;

/// Between signs of life to tailing readers.
const KEEPALIVE_US: u64 = crate::service::KEEPALIVE_US;

/// How long a stopping node flushes what it owes to its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// What an operator should know, the most telling first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    /// This node is no member any more.
    Removed,
    /// A peer does not take it for a member.
    Refused(u64),
    /// Entries that a peer needed could not be read.
    Unreadable,
}

/// How long a leader whose log is damaged waits for another one to take over.
const LEAVE_PATIENCE_US: u64 = 1_000_000;

/// A replica whose log turned out to be damaged takes no part any longer than it must.
#[derive(Debug)]
struct Leaving {
    damage: ReadError,
    deadline_us: u64,
}

/// Why a node's loop ended without an error.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// Its log is damaged.
    Damaged(ReadError),
}

/// A running node.
pub(super) struct Node {
    // Dropped last: the directory stays locked while anything of the node lives.
    net: Rc<Net>,
    clock: Clock,
    log: GroupLog,
    replica: Replica,
    helper: Helper,
    peers: Peers,
    entries: Entries,
    service: Service,
    facts: NodeFacts,
    faults: BTreeMap<Fault, String>,
    pins: Rc<std::cell::RefCell<Pins>>,
    /// Where connections to peers leave from.
    source: Option<IpAddr>,
    snapshots: SnapshotFiles,
    /// Members that were still being told that they have left, when that was last looked at.
    departing: usize,
    keepalive_due_us: u64,
    /// The log is damaged: the node leaves its replica.
    damage: Option<Leaving>,
    /// Connections closed for what they sent, until they are gone: frames of theirs may be on the way.
    closing: HashSet<ConnId>,
    events: Vec<NetEvent>,
    completions: Vec<Completion>,
    _store: Rc<Store>,
}

impl Node {
    /// Binds the node's own member address and starts dialing the others.
    pub(super) fn listen(opened: Opened) -> Result<Self, NodeError> {
        let Opened {
            store,
            config,
            clock,
            log,
            replica,
            helper,
            pins,
            snapshots,
            io_engine,
        } = opened;
        let judged = Rc::clone(&pins);
        let policy =
            move |hello: &wire::Hello| judged.borrow_mut().judge(hello.node_id, hello.incarnation);
        let (net, source) = bind(&store, &config, policy)?;

        let peers = Peers::new(0, config.raft.append_bytes_max.0);
        let facts = NodeFacts {
            group_id: 0,
            node_id: store.identity.node_id,
            io_engine,
            started_us: clock.now().mono_us,
            fault: String::new(),
        };
        let mut node = Self {
            net: Rc::new(net),
            clock,
            log,
            replica,
            helper,
            peers,
            entries: Entries::new(0),
            service: Service::new(config.limits.tails_max as usize),
            facts,
            faults: BTreeMap::new(),
            pins,
            source,
            snapshots,
            departing: 0,
            keepalive_due_us: 0,
            damage: None,
            closing: HashSet::new(),
            events: Vec::new(),
            completions: Vec::new(),
            _store: store,
        };
        node.follow_members();
        Ok(node)
    }

    /// Dials and judges peers by the members in force, and by those that are still told they have left.
    fn follow_members(&mut self) {
        self.replica.outputs.members_changed = false;
        let members = self.replica.members().clone();
        let departing: Vec<u64> = self.departing_peers().collect();
        self.departing = departing.len();
        self.pins
            .borrow_mut()
            .follow(members.clone(), departing.clone());
        let pins = self.pins.borrow();
        let mut wanted = Vec::new();
        for member in &members.members {
            if member.node_id != self.facts.node_id {
                let dialing = Dialing {
                    address: member.address.clone(),
                    source: self.source,
                    incarnation: pins.known(member.node_id),
                };
                wanted.push((member.node_id, dialing));
            }
        }
        self.peers.follow(&self.net, &wanted, &departing);
        drop(pins);
        let own = self.facts.node_id;
        let is_member = members.members.iter().any(|member| member.node_id == own);
        // A node that joins reads of times before it was added: its id is above all ids of then.
        if !is_member && own <= members.node_id_max {
            let fault = "this node has been removed from its group";
            if self
                .faults
                .insert(Fault::Removed, fault.to_owned())
                .is_none()
            {
                tracing::warn!("{fault}: it can be stopped");
            }
        }
    }

    /// Runs until `stop` completes, the log is found to be damaged, or the group cannot be served.
    pub(super) async fn run(
        mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Ended, NodeError> {
        let disk = DiskWatch::new(self.log.wal.event_fd()).map_err(|source| NodeError::Io {
            what: "watching the log's completions",
            source,
        })?;
        let net = Rc::clone(&self.net);
        loop {
            if let Err(fatal) = self.turn() {
                tracing::error!(reason = %fatal.reason, "the group cannot be served: node stopping");
                self.net.shutdown().await;
                return Err(fatal.into());
            }
            if self.is_time_to_leave() {
                self.shut_down().await;
                let leaving = self.damage.expect("it is why it is time");
                return Ok(Ended::Damaged(leaving.damage));
            }
            if self.service.has_work() {
                tokio::select! {
                    biased;
                    () = &mut stop => break,
                    () = drave_net::rest() => continue,
                }
            }
            let leave_us = self.damage.as_ref().map_or(u64::MAX, |it| it.deadline_us);
            let deadline = self.replica.next_deadline_us().min(self.keepalive_due_us);
            let deadline = deadline.min(leave_us);
            let deadline = Instant::from_std(self.clock.instant(deadline));
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = net.wait() => {}
                () = disk.ready() => {}
                () = self.helper.finished() => {}
                () = sleep_until(deadline) => {}
            }
        }
        tracing::info!("stopping");
        self.stop().await.map(|()| Ended::Stopped)
    }

    async fn shut_down(&self) {
        if tokio::time::timeout(STOP_TIMEOUT, self.net.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("connections were cut after {STOP_TIMEOUT:?}");
        }
    }

    /// A clean stop: connections are closed, what is in the log is flushed, with the commit index as a
    /// hint for the next start.
    async fn stop(mut self) -> Result<(), NodeError> {
        self.shut_down().await;
        let state = self.replica.hard_state();
        let record = self.replica.hard_state_record(state);
        if let Err(error) = crate::replica::EntryLog::write_hard_state(&mut self.log, record) {
            tracing::warn!(%error, "the commit hint was not written");
            return Ok(());
        }
        loop {
            self.log.wal.submit();
            self.log.poll(&mut self.completions);
            for completion in self.completions.drain(..) {
                match completion {
                    Completion::HardState(durable) if *durable.get() == state => {
                        tracing::info!("stopped");
                        return Ok(());
                    }
                    Completion::Failed(reason) => {
                        tracing::error!(reason, "the log failed while stopping");
                        return Err(Fatal { reason }.into());
                    }
                    _ => {}
                }
            }
            self.log.wal.wait();
        }
    }

    /// Takes all there is and does all that follows from it.
    fn turn(&mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        self.take_completions(now)?;
        self.take_events(now)?;
        self.take_helper_results(now)?;
        if self.replica.next_deadline_us() <= now.mono_us {
            self.replica.tick(now, &mut self.log)?;
        }
        let keepalive_is_due = self.keepalive_due_us <= now.mono_us;
        if keepalive_is_due {
            self.keepalive_due_us = now.mono_us + KEEPALIVE_US;
        }
        let (service, mut context) = self.lend(now);
        if keepalive_is_due {
            service.keepalive(&mut context);
        }
        service.turn(&mut context);
        self.turn_snapshots(now)?;
        if self.replica.outputs.members_changed || self.departing != self.departing_peers().count()
        {
            self.follow_members();
        }
        self.replica.set_credit(self.log.credit_bytes());
        self.send_messages();
        // Appends leave before the own write starts: the two run in parallel (thesis section 10.2.1).
        self.peers
            .pull(now, &self.net, &mut self.replica, &self.log, &self.helper);
        self.peers.pull_snapshots(
            now,
            &self.net,
            &mut self.replica,
            &mut self.snapshots,
            &self.helper,
        );
        self.hand_over_if_unreadable(now)?;
        let fault = self.faults.values().next().map_or("", String::as_str);
        if self.facts.fault != fault {
            self.facts.fault = fault.to_owned();
        }
        self.log.wal.submit();
        self.tell_roles();
        Ok(())
    }

    /// A leader that cannot read what a peer needs lets one lead that can.
    fn hand_over_if_unreadable(&mut self, now: Now) -> Result<(), Fatal> {
        let reason = match self.peers.take_unreadable() {
            None => return Ok(()),
            Some(Unreadable::Damage(damage)) => return self.on_damage(now, damage),
            Some(Unreadable::Other(reason)) => reason,
        };
        self.faults.insert(
            Fault::Unreadable,
            format!("part of the log cannot be read: {reason}"),
        );
        self.hand_over(now, &reason)
    }

    fn hand_over(&mut self, now: Now, reason: &str) -> Result<(), Fatal> {
        if self.replica.hand_over(now, &mut self.log)? {
            tracing::error!(
                reason,
                "handing the lead over: a peer needs what cannot be read here"
            );
        }
        Ok(())
    }

    /// The log is damaged: the lead is handed over, and the node leaves its replica to repair it. Alone, with
    /// nobody to repair it from, it goes on as well as it can.
    fn on_damage(&mut self, now: Now, damage: ReadError) -> Result<(), Fatal> {
        if self.damage.is_some() {
            return Ok(());
        }
        let reason = damage.to_string();
        tracing::error!(reason, "the log is damaged");
        let fault = format!("the log is damaged: {reason}");
        self.faults.insert(Fault::Unreadable, fault);
        self.hand_over(now, &reason)?;
        let own = self.facts.node_id;
        let members = &self.replica.members().members;
        if members.iter().any(|member| member.node_id != own) {
            let deadline_us = now.mono_us + LEAVE_PATIENCE_US;
            self.damage = Some(Leaving {
                damage,
                deadline_us,
            });
        }
        Ok(())
    }

    fn is_time_to_leave(&self) -> bool {
        self.damage.as_ref().is_some_and(|leaving| {
            !self.replica.is_leader() || leaving.deadline_us <= self.clock.now().mono_us
        })
    }

    fn take_completions(&mut self, now: Now) -> Result<(), Fatal> {
        self.log.poll(&mut self.completions);
        for completion in std::mem::take(&mut self.completions) {
            match completion {
                Completion::Log(durable) => {
                    self.replica.on_log_durable(now, durable, &mut self.log)?;
                }
                Completion::HardState(durable) => {
                    self.replica
                        .on_hard_state_durable(now, durable, &mut self.log)?;
                }
                Completion::Space { ok: false } => {
                    tracing::warn!("the disk is full: appends are refused until there is room");
                }
                Completion::Space { ok: true } => tracing::info!("the disk has room again"),
                Completion::Failed(reason) => {
                    return Err(Fatal {
                        reason: format!("the log failed: {reason}"),
                    });
                }
            }
        }
        Ok(())
    }

    fn take_events(&mut self, now: Now) -> Result<(), Fatal> {
        let mut events = std::mem::take(&mut self.events);
        self.net.drain(&mut events, EVENTS_MAX);
        for event in events.drain(..) {
            self.on_event(now, event)?;
        }
        self.events = events;
        Ok(())
    }

    fn on_event(&mut self, now: Now, event: NetEvent) -> Result<(), Fatal> {
        match event {
            NetEvent::Accepted {
                conn,
                hello,
                remote,
            } if hello.role == Role::Peer => {
                tracing::info!(peer = hello.node_id, lane = ?hello.lane, %remote, "peer connected");
                if let Some(older) = self.peers.accepted(hello.node_id, hello.lane, conn) {
                    self.net.close(older, Flush::Nothing);
                }
                self.save_pins()?;
            }
            NetEvent::Dialed { dial, conn, ack } => {
                let judged = self.pins.borrow_mut().judge(ack.node_id, ack.incarnation);
                if let Err((code, message)) = judged {
                    tracing::error!(peer = ack.node_id, %code, message, "peer refused");
                    self.net.close_with(conn, code, &message);
                    return Ok(());
                }
                self.save_pins()?;
                self.faults.remove(&Fault::Refused(ack.node_id));
                if let Some(peer) = self.peers.dialed(dial, conn) {
                    tracing::info!(peer = peer.0, "connected to peer");
                    self.replica.on_peer_link(now, peer, true, &mut self.log)?;
                }
            }
            NetEvent::DialFailed { dial, reason } => {
                let peer = self
                    .peers
                    .dialed_node(dial)
                    .map_or(0, |(node_id, _)| node_id);
                tracing::warn!(peer, %reason, "peer not reached; trying on");
                self.note_refusal(peer, &reason);
            }
            NetEvent::Frame { conn, .. } if self.closing.contains(&conn) => {}
            NetEvent::Frame { conn, frame } => self.on_frame(now, conn, &frame)?,
            NetEvent::Closed { conn, reason } => {
                self.closing.remove(&conn);
                self.on_closed(now, conn, &reason)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn on_closed(&mut self, now: Now, conn: ConnId, reason: &CloseReason) -> Result<(), Fatal> {
        self.entries.closed(conn);
        match self.peers.closed(conn) {
            Some(Lost::AppendLane(peer)) => {
                tracing::warn!(peer = peer.0, %reason, "connection to peer lost");
                self.replica.on_peer_link(now, peer, false, &mut self.log)?;
            }
            Some(Lost::FromPeer(peer)) if !matches!(reason, CloseReason::Local) => {
                self.replica.on_peer_closed(now, peer, &mut self.log)?;
            }
            Some(_) => {}
            None => self.service.on_closed(conn),
        }
        Ok(())
    }

    /// A peer that does not take this node for a member knows something that an operator should.
    fn note_refusal(&mut self, peer: u64, reason: &DialError) {
        let DialError::Refused {
            error: HandshakeError::Rejected { code, message, .. },
            ..
        } = reason
        else {
            return;
        };
        if !matches!(
            code,
            Some(ErrorCode::UnknownMember | ErrorCode::WrongIncarnation)
        ) {
            return;
        }
        let fault = format!("node {peer} refuses this node: {message}");
        let known = self.faults.insert(Fault::Refused(peer), fault.clone());
        if known.is_none_or(|known| known != fault) {
            tracing::error!("{fault}");
        }
    }

    /// A peer's incarnation is on disk before anything it says counts.
    fn save_pins(&mut self) -> Result<(), Fatal> {
        self.pins.borrow_mut().save().map_err(|error| Fatal {
            reason: format!("recording a peer's incarnation: {error}"),
        })
    }

    fn on_frame(&mut self, now: Now, conn: ConnId, frame: &Frame) -> Result<(), Fatal> {
        let Some(peer) = self.peers.node_of(conn) else {
            let (service, mut context) = self.lend(now);
            if service.on_frame(&mut context, conn, frame)? == Served::Closing {
                self.closing.insert(conn);
            }
            return Ok(());
        };
        if frame.header.group_id != self.facts.group_id {
            let message = format!("this node has no group {}", frame.header.group_id);
            self.net
                .close_with(conn, ErrorCode::UnexpectedMessage, &message);
            return Ok(());
        }
        if frame.header.kind == MessageKind::EntriesRequest {
            return self.on_entries_request(now, conn, frame);
        }
        let problem = if frame.header.kind == MessageKind::AppendEntries {
            match wire::decode_head::<wire::AppendEntries>(&frame.header, &frame.head) {
                Ok(message) => {
                    let taken = self.replica.on_append_entries(
                        now,
                        peer,
                        &message,
                        &frame.payload,
                        &mut self.log,
                    )?;
                    match taken {
                        AppendTaken::Stepped => return Ok(()),
                        AppendTaken::Dropped(refusal) => {
                            tracing::warn!(peer = peer.0, %refusal, "append dropped: no room in the log");
                            return Ok(());
                        }
                        AppendTaken::Invalid(problem) => problem.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            }
        } else if frame.header.kind == MessageKind::SnapshotChunk {
            match wire::decode_head::<wire::SnapshotChunk>(&frame.header, &frame.head) {
                Ok(chunk) => match self.replica.on_snapshot_chunk(peer, &chunk, &frame.payload) {
                    SnapshotTaken::Stepped | SnapshotTaken::Ignored => return Ok(()),
                    SnapshotTaken::Invalid(problem) => problem.to_string(),
                },
                Err(error) => error.to_string(),
            }
        } else if frame.header.kind == MessageKind::SnapshotReply {
            match wire::decode_head::<wire::SnapshotReply>(&frame.header, &frame.head) {
                Ok(reply) => {
                    return self
                        .replica
                        .on_snapshot_reply(now, peer, &reply, &mut self.log);
                }
                Err(error) => error.to_string(),
            }
        } else {
            match translate::from_wire(frame) {
                Ok(message) => return self.replica.step(now, peer, message, &mut self.log),
                Err(error) => error.to_string(),
            }
        };
        tracing::error!(peer = peer.0, problem, "malformed message from a peer");
        self.net
            .close_with(conn, ErrorCode::MalformedFrame, &problem);
        Ok(())
    }

    /// A member that repairs its log asks for entries.
    fn on_entries_request(&mut self, now: Now, conn: ConnId, frame: &Frame) -> Result<(), Fatal> {
        let decoded = wire::decode_head::<wire::EntriesRequest>(&frame.header, &frame.head);
        let request = match decoded {
            Ok(request) if self.peers.is_catch_up(conn) && request.lo < request.hi => request,
            Ok(request) => {
                let message = format!("{request:?} on this connection");
                tracing::error!(%conn, message, "malformed message from a peer");
                self.net
                    .close_with(conn, ErrorCode::UnexpectedMessage, &message);
                return Ok(());
            }
            Err(error) => {
                tracing::error!(%conn, %error, "malformed message from a peer");
                self.net
                    .close_with(conn, ErrorCode::MalformedFrame, &error.to_string());
                return Ok(());
            }
        };
        let job = EntriesJob {
            conn,
            request_id: frame.header.request_id,
            lo: request.lo,
        };
        let commit_index = self.replica.raft().commit_index();
        let served = self.entries.serve(
            &self.net,
            &self.log,
            &self.helper,
            commit_index,
            job,
            &request,
        );
        match served {
            Ok(()) => Ok(()),
            Err(damage) => self.on_damage(now, damage),
        }
    }

    /// What a request may touch, and who serves it.
    fn lend(&mut self, now: Now) -> (&mut Service, Context<'_>) {
        let context = Context {
            now,
            net: &self.net,
            replica: &mut self.replica,
            log: &mut self.log,
            helper: &self.helper,
            facts: &self.facts,
        };
        (&mut self.service, context)
    }

    /// Members no more that the leader still sends to: they are told of the entry by which they left, and
    /// already before it is committed.
    fn departing_peers(&self) -> impl Iterator<Item = u64> {
        let members = &self.replica.members().members;
        let peers = self.replica.raft().progress().map(|peer| peer.peer.0);
        peers.filter(|id| !members.iter().any(|member| member.node_id == *id))
    }

    fn take_helper_results(&mut self, now: Now) -> Result<(), Fatal> {
        while let Some(finished) = self.helper.take() {
            match finished {
                Finished::Read(JobKey::Peer { node_id, term }, result) => {
                    self.peers
                        .on_cold(now, &self.net, &mut self.replica, node_id, term, result);
                }
                Finished::Read(JobKey::Scan(key), result) => {
                    let damage = result
                        .as_ref()
                        .err()
                        .filter(|error| is_damage(error))
                        .cloned();
                    self.service.on_cold(key, result);
                    if let Some(damage) = damage {
                        self.on_damage(now, damage)?;
                    }
                }
                Finished::Read(JobKey::Entries(job), result) => {
                    let commit_index = self.replica.raft().commit_index();
                    let done = self.entries.done(&self.net, commit_index, job, result);
                    if let Err(damage) = done {
                        self.on_damage(now, damage)?;
                    }
                }
                Finished::SnapshotRead(to, plan, piece) => {
                    self.peers.on_snapshot_read(
                        now,
                        &self.net,
                        &mut self.replica,
                        to,
                        &plan,
                        piece,
                    );
                }
                Finished::SnapshotStored(id, Ok(())) => {
                    tracing::info!(snapshot = %id, "snapshot stored");
                    self.snapshots.stored(id, Origin::Own);
                    self.replica.snapshot_stored(id.index);
                    self.forget_snapshots();
                }
                Finished::SnapshotStored(id, Err(error)) => {
                    tracing::warn!(snapshot = %id, %error, "snapshot not stored");
                    self.replica.snapshot_not_stored(id.index);
                }
                Finished::ReceivedStored(id, Ok(())) => {
                    tracing::info!(snapshot = %id, "snapshot received");
                    self.snapshots.stored(id, Origin::Received);
                    let durable = Durable::attest(id);
                    self.replica
                        .on_snapshot_durable(now, durable, &mut self.log)?;
                    self.forget_snapshots();
                }
                Finished::ReceivedStored(id, Err(error)) => {
                    tracing::warn!(snapshot = %id, %error, "snapshot received and not stored");
                    self.replica.on_snapshot_not_durable(id);
                }
                Finished::Removed(Ok(())) => {}
                Finished::Removed(Err(error)) => {
                    tracing::warn!(%error, "an old snapshot was not removed");
                }
            }
        }
        Ok(())
    }

    /// Takes a snapshot when one is due, stores what a leader sent, lets the log begin later when it may.
    fn turn_snapshots(&mut self, now: Now) -> Result<(), Fatal> {
        if self.replica.snapshot_due() {
            let snapshot = self.replica.take_snapshot();
            let id = snapshot.last;
            let store = self.snapshots.store(id, Origin::Own, snapshot.encode());
            if !self
                .helper
                .run(move || Finished::SnapshotStored(id, store()))
            {
                self.replica.snapshot_not_stored(id.index);
            }
        }
        if let Some((id, bytes)) = self.replica.outputs.store_snapshot.take() {
            let store = self.snapshots.store(id, Origin::Received, bytes);
            if !self
                .helper
                .run(move || Finished::ReceivedStored(id, store()))
            {
                self.replica.on_snapshot_not_durable(id);
            }
        }
        if let Some(first_index) = self.replica.compact(now, &mut self.log)? {
            tracing::info!(first_index, "log compacted");
            self.forget_snapshots();
        }
        if std::mem::take(&mut self.replica.outputs.log_replaced) {
            tracing::warn!("the log was replaced by a snapshot of the leader");
        }
        for (to, reply) in std::mem::take(&mut self.replica.outputs.snapshot_replies) {
            self.peers.answer_snapshot(&self.net, to, &reply);
        }
        Ok(())
    }

    fn forget_snapshots(&mut self) {
        if let Some(remove) = self.snapshots.forget_others(self.replica.snapshots_kept()) {
            // When too many jobs wait, the files stay until the next start looks at them.
            self.helper.run(move || Finished::Removed(remove()));
        }
    }

    fn send_messages(&mut self) {
        while let Some((to, message)) = self.replica.outputs.sends.pop_front() {
            self.peers.send(&self.net, to, &message);
        }
    }

    fn tell_roles(&mut self) {
        for (role, term, leader) in self.replica.outputs.roles.drain(..) {
            let leader = leader.map_or(0, |leader| leader.0);
            if matches!(role, RoleKind::PreCandidate) {
                tracing::debug!(term, "asking for pre-votes");
            } else {
                tracing::info!(role = role_name(role), term, leader, "role");
            }
        }
    }
}
