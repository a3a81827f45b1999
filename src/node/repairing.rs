//! A node whose log is damaged: it takes no part in its group until the other members have given back what is
//! lost.
//!
//! It answers clients with `DRV-0404` and the state of the repair, serves other members that repair theirs from
//! what it still holds, and refuses every connection that Raft would use: to the others it is as if it were
//! down. `crate::repair` decides whom to ask for what; what comes is proven by the log's own chain. Nothing else
//! runs on its thread, so that it reads and writes its files there.

mod clients;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use drave_batch::control::Members;
use drave_batch::wire::{self, EntriesHeld, ErrorCode, Hello, Lane, MessageKind, Role};
use drave_net::{ConnId, Dial, DialId, Frame, Net, NetEvent};
use drave_wal::Salvage;
use tokio::time::{Instant, sleep_until};

use super::bind::bind;
use super::clock::Clock;
use super::patient::{Patient, members_known};
use super::pins::Pins;
use super::start::{GROUP_ID, wal_options};
use super::{NodeError, NodeOptions, cut};
use crate::repair::{
    Answer, Finding, Gap, LastEntry, Patient as _, Repair, RepairConfig, Request, Verdict,
};
use crate::replica::{Fatal, HardStateRecord};
use crate::store::{Store, StoreError, group_dir};

/// Events taken from the sockets in one turn.
const EVENTS_MAX: usize = 1024;

/// How a repair ended.
#[derive(Debug)]
pub(super) enum After {
    /// The node was told to stop.
    Stopped,
    /// The log is whole again.
    Repaired,
    /// A look at all of it found no damage.
    FoundWhole,
}

/// Repairs the group's log from its other members. Gives `damage` back as the reason not to start where nobody
/// else is a member.
pub(super) async fn repair(
    options: &NodeOptions,
    store: &Rc<Store>,
    clock: Clock,
    damage: NodeError,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<After, NodeError> {
    tracing::error!(reason = %damage, "the log is damaged: the node takes no part until it is repaired");
    let salvage = Salvage::open(
        &group_dir(store.dir(), GROUP_ID),
        wal_options(options, store),
    )?;
    for found in salvage.damage() {
        tracing::error!(file = %found.file, offset = found.offset, what = %found.kind, "damage");
    }
    let patient = Patient::new(salvage);
    for gap in patient.missing() {
        let (lo, hi) = (gap.lo, gap.hi);
        tracing::error!(
            lo,
            hi,
            "these entries were durable and are lost here: {gap}"
        );
    }
    if patient.salvage().damage().is_empty() && patient.missing().is_empty() {
        tracing::warn!("all of the log was read, and no damage found");
        return Ok(After::FoundWhole);
    }
    let (members_index, members) = members_known(store, patient.salvage())?;
    let own = store.identity.node_id;
    let hard_state = hard_state_of(store, &patient)?;
    // A cut that a crash interrupted: what is left of the log need not be what it was.
    cut::check(own, &hard_state, &members)?;
    if !patient.salvage().is_meta_certain() {
        return Err(NodeError::TermUncertain);
    }
    let is_other = |id: u64| id != own;
    if !patient.missing().is_empty() && !members.members.iter().any(|m| is_other(m.node_id)) {
        return Err(damage);
    }
    let mut repairing = Repairing::listen(options, store, clock, patient, members_index, members)?;
    let is_whole = repairing.run(stop).await;
    repairing.net.shutdown().await;
    if !is_whole? {
        return Ok(After::Stopped);
    }
    repairing.write_back()?;
    Ok(After::Repaired)
}

fn hard_state_of(store: &Store, patient: &Patient) -> Result<HardStateRecord, NodeError> {
    let meta = patient.salvage().meta_value().unwrap_or_default();
    let decoded = HardStateRecord::decode(&meta).map_err(|source| StoreError::Damaged {
        path: group_dir(store.dir(), GROUP_ID),
        source,
    });
    Ok(decoded?)
}

struct Repairing {
    net: Net,
    clock: Clock,
    node_id: u64,
    source: Option<IpAddr>,
    pins: Rc<RefCell<Pins>>,
    patient: Patient,
    repair: Repair,
    hard_state: HardStateRecord,
    members_index: u64,
    members: Members,
    dials: BTreeMap<u64, DialId>,
    dialed: HashMap<DialId, u64>,
    /// Connections by which others are asked.
    to_members: BTreeMap<u64, ConnId>,
    /// Connections by which others ask.
    from_members: HashMap<ConnId, u64>,
    /// Connections closed for what they sent, until they are gone.
    closing: HashSet<ConnId>,
    started_us: u64,
}

impl Repairing {
    fn listen(
        options: &NodeOptions,
        store: &Rc<Store>,
        clock: Clock,
        patient: Patient,
        members_index: u64,
        members: Members,
    ) -> Result<Self, NodeError> {
        let hard_state = hard_state_of(store, &patient)?;
        let pins = Rc::new(RefCell::new(Pins::load(store.dir(), members.clone())?));
        let judged = Rc::clone(&pins);
        let policy = move |hello: &Hello| {
            judged
                .borrow_mut()
                .judge(hello.node_id, hello.incarnation)?;
            if hello.lane == Lane::CatchUp {
                return Ok(());
            }
            let message = "the node repairs its damaged log and takes no part meanwhile";
            Err((ErrorCode::Repairing, message.to_owned()))
        };
        let (net, source) = bind(store, &options.config, policy)?;
        let repair = Repair::new(RepairConfig::default(), hard_state.term, &patient);
        let mut repairing = Self {
            net,
            clock,
            node_id: store.identity.node_id,
            source,
            pins,
            patient,
            repair,
            hard_state,
            members_index,
            members,
            dials: BTreeMap::new(),
            dialed: HashMap::new(),
            to_members: BTreeMap::new(),
            from_members: HashMap::new(),
            closing: HashSet::new(),
            started_us: clock.now().mono_us,
        };
        repairing.follow_members();
        Ok(repairing)
    }

    /// Dials and asks whoever else is a member.
    fn follow_members(&mut self) {
        let others: Vec<_> = self
            .members
            .members
            .iter()
            .filter(|member| member.node_id != self.node_id)
            .map(|member| (member.node_id, member.address.clone()))
            .collect();
        self.pins
            .borrow_mut()
            .follow(self.members.clone(), Vec::new());
        self.repair.set_members(others.iter().map(|(id, _)| *id));
        for (node_id, address) in &others {
            if self.dials.contains_key(node_id) {
                continue;
            }
            let dial = self.net.dial(Dial {
                node_id: *node_id,
                lane: Lane::CatchUp,
                address: address.clone(),
                source: self.source,
                incarnation: self.pins.borrow().known(*node_id),
            });
            self.dials.insert(*node_id, dial);
            self.dialed.insert(dial, *node_id);
        }
        self.dials.retain(|node_id, dial| {
            let stays = others.iter().any(|(id, _)| id == node_id);
            if !stays {
                self.net.undial(*dial);
                self.dialed.remove(dial);
            }
            stays
        });
    }

    /// Runs until everything missing has come, or `stop` completes; whether the former.
    async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<bool, NodeError> {
        let mut events = Vec::new();
        loop {
            self.net.drain(&mut events, EVENTS_MAX);
            for event in events.drain(..) {
                self.on_event(event)?;
            }
            self.tell();
            if let Some(reason) = self.repair.failure() {
                let reason = format!("what was fetched cannot be kept: {reason}");
                return Err(Fatal { reason }.into());
            }
            if self.repair.is_done() {
                return Ok(true);
            }
            self.ask();
            let deadline = self.repair.next_deadline_us().unwrap_or(u64::MAX);
            let deadline = Instant::from_std(self.clock.instant(deadline));
            tokio::select! {
                biased;
                () = &mut stop => return Ok(false),
                () = self.net.wait() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Sends what may be asked now.
    fn ask(&mut self) {
        let now_us = self.clock.now().mono_us;
        while let Some(request) = self.repair.poll(now_us) {
            if !self.send(request) {
                self.repair.on_link(now_us, request.to, false);
            }
        }
    }

    fn send(&self, request: Request) -> bool {
        let Some(conn) = self.to_members.get(&request.to) else {
            return false;
        };
        let (net, number) = (&self.net, request.number);
        if request.gap.is_open() {
            let sent = net.send(*conn, GROUP_ID, number, &wire::LogEndRequest {}, &[]);
            return sent.is_ok();
        }
        let message = wire::EntriesRequest {
            lo: request.gap.lo,
            hi: request.gap.hi,
            bytes_max: request.bytes_max,
        };
        net.send(*conn, GROUP_ID, number, &message, &[]).is_ok()
    }

    fn on_event(&mut self, event: NetEvent) -> Result<(), NodeError> {
        let now_us = self.clock.now().mono_us;
        match event {
            NetEvent::Accepted {
                conn,
                hello,
                remote,
            } if hello.role == Role::Peer => {
                tracing::info!(peer = hello.node_id, %remote, "a member that repairs its log connected");
                self.from_members.insert(conn, hello.node_id);
                let saved = self.pins.borrow_mut().save();
                saved.map_err(pins_not_saved)?;
            }
            NetEvent::Dialed { dial, conn, ack } => {
                let admitted = self.pins.borrow_mut().admit(&self.net, conn, &ack);
                if !admitted.map_err(pins_not_saved)? {
                    return Ok(());
                }
                if let Some(node_id) = self.dialed.get(&dial) {
                    tracing::info!(peer = node_id, "connected to peer");
                    self.to_members.insert(*node_id, conn);
                    self.repair.on_link(now_us, *node_id, true);
                }
            }
            NetEvent::DialFailed { dial, reason } => {
                let peer = self.dialed.get(&dial).copied().unwrap_or(0);
                tracing::warn!(peer, %reason, "peer not reached; trying on");
            }
            NetEvent::Frame { conn, .. } if self.closing.contains(&conn) => {}
            NetEvent::Frame { conn, frame } => self.on_frame(conn, &frame),
            NetEvent::Closed { conn, .. } => self.on_closed(now_us, conn),
            _ => {}
        }
        Ok(())
    }

    fn on_closed(&mut self, now_us: u64, conn: ConnId) {
        self.closing.remove(&conn);
        self.from_members.remove(&conn);
        let lost = self.to_members.iter().find(|(_, own)| **own == conn);
        if let Some(node_id) = lost.map(|(node_id, _)| *node_id) {
            self.to_members.remove(&node_id);
            self.repair.on_link(now_us, node_id, false);
        }
    }

    fn on_frame(&mut self, conn: ConnId, frame: &Frame) {
        if frame.header.group_id != GROUP_ID {
            let message = format!("this node has no group {}", frame.header.group_id);
            return self.close(conn, ErrorCode::UnexpectedMessage, &message);
        }
        let member = self.to_members.iter().find(|(_, own)| **own == conn);
        let handled = if let Some(node_id) = member.map(|(node_id, _)| *node_id) {
            self.on_answer(node_id, frame)
        } else if self.from_members.contains_key(&conn) {
            self.on_request(conn, frame)
        } else {
            self.on_client(conn, frame)
        };
        if let Err((code, message)) = handled {
            tracing::warn!(%conn, %code, message, "connection closed");
            self.close(conn, code, &message);
        }
    }

    fn close(&mut self, conn: ConnId, code: ErrorCode, message: &str) {
        self.closing.insert(conn);
        self.net.close_with(conn, code, message);
    }

    /// What was asked of a member comes back.
    fn on_answer(&mut self, from: u64, frame: &Frame) -> Result<(), (ErrorCode, String)> {
        if frame.header.kind == MessageKind::LogEndReply {
            let reply: wire::LogEndReply = decode(frame, MessageKind::LogEndReply)?;
            let last = reply.leads.then_some(LastEntry {
                index: reply.last_index,
                term: reply.last_term,
                crc: reply.last_crc,
            });
            let term = reply.term;
            self.take_answer(from, frame, Answer::End { term, last });
            return Ok(());
        }
        let reply: wire::EntriesReply = decode(frame, MessageKind::EntriesReply)?;
        let gap = Gap {
            lo: reply.lo,
            hi: reply.hi,
        };
        let answer = match reply.held {
            EntriesHeld::Held => Answer::Held {
                gap,
                batches: &frame.payload,
                commit_index: reply.commit_index,
            },
            EntriesHeld::NotHeld => Answer::NotHeld(gap),
            EntriesHeld::Trimmed => Answer::Trimmed(reply.hi),
            EntriesHeld::Busy => Answer::Busy,
        };
        self.take_answer(from, frame, answer);
        Ok(())
    }

    fn take_answer(&mut self, from: u64, frame: &Frame, answer: Answer<'_>) {
        let now_us = self.clock.now().mono_us;
        let number = frame.header.request_id;
        self.repair
            .on_answer(now_us, from, number, answer, &mut self.patient);
    }

    /// Another member that repairs its log asks for what this one still holds.
    fn on_request(&mut self, conn: ConnId, frame: &Frame) -> Result<(), (ErrorCode, String)> {
        let request_id = frame.header.request_id;
        if frame.header.kind == MessageKind::LogEndRequest {
            let reply = wire::LogEndReply {
                term: self.hard_state.term,
                ..wire::LogEndReply::default()
            };
            if let Err(error) = self.net.send(conn, GROUP_ID, request_id, &reply, &[]) {
                tracing::debug!(%conn, %error, "no end of a log for a member not queued");
            }
            return Ok(());
        }
        let request: wire::EntriesRequest = decode(frame, MessageKind::EntriesRequest)?;
        if request.lo >= request.hi {
            let message = format!("{request:?} asks for nothing");
            return Err((ErrorCode::MalformedFrame, message));
        }
        let commit_index = self.hard_state.commit_index_hint;
        let (reply, pieces) = self.patient.answer(&request, commit_index);
        if let Err(error) = self.net.send(conn, GROUP_ID, request_id, &reply, &pieces) {
            tracing::debug!(%conn, %error, "entries for a member not queued");
        }
        Ok(())
    }

    /// Says what happened since it last did, and follows the members that came to light.
    fn tell(&mut self) {
        let mut has_fetched = false;
        for finding in self.repair.take_findings() {
            match finding {
                Finding::Fetched { gap, from } => {
                    has_fetched = true;
                    let (lo, hi) = (gap.lo, gap.hi);
                    tracing::info!(lo, hi, from, "{gap} fetched from node {from}");
                }
                Finding::Said { gap, member, said } => {
                    let (lo, hi) = (gap.lo, gap.hi);
                    tracing::warn!(lo, hi, "asked for {gap}, node {member} {said}");
                }
                Finding::Verdict {
                    verdict: Verdict::Open,
                    ..
                } => {}
                Finding::End {
                    from,
                    term,
                    last_index,
                } => {
                    tracing::warn!(
                        from,
                        term,
                        last_index,
                        "the log is to end with entry {last_index}: node {from} leads in term {term}, and ends there"
                    );
                }
                Finding::Verdict { gap, verdict } => {
                    let (lo, hi) = (gap.lo, gap.hi);
                    tracing::error!(lo, hi, "{gap}: {verdict}; asking on");
                }
            }
        }
        if has_fetched
            && let Some((index, members)) = self.patient.take_members()
            && index > self.members_index
        {
            (self.members_index, self.members) = (index, members);
            self.follow_members();
        }
    }

    /// Writes the damaged segments anew.
    fn write_back(self) -> Result<(), NodeError> {
        let given: Vec<String> = self
            .repair
            .given()
            .map(|(member, entries)| format!("{entries} entries from node {member}"))
            .collect();
        let mut salvage = self.patient.into_salvage();
        if let Some(term) = self.repair.end_term().filter(|t| *t > self.hard_state.term) {
            // No entry of a term is in the log before that term is known to be.
            let entered = HardStateRecord {
                term,
                vote: 0,
                ..self.hard_state
            };
            salvage.write_meta(&entered.encode())?;
        }
        let report = salvage.repair()?;
        tracing::info!(from = given.join(", "), ?report, "the log is repaired");
        Ok(())
    }
}

fn decode<M: wire::Message>(frame: &Frame, kind: MessageKind) -> Result<M, (ErrorCode, String)> {
    let found = frame.header.kind;
    if found != kind {
        let message = format!("expected {kind:?}, found {found:?}");
        return Err((ErrorCode::UnexpectedMessage, message));
    }
    let decoded = wire::decode_head(&frame.header, &frame.head);
    decoded.map_err(|error| (ErrorCode::MalformedFrame, error.to_string()))
}

fn pins_not_saved(source: std::io::Error) -> NodeError {
    NodeError::Io {
        what: "recording a peer's incarnation",
        source,
    }
}
