//! The loop: waits for sockets, disk, helper or a deadline, takes everything there is, lets the replica
//! decide, sends what may leave, starts the next flush.

use std::collections::HashSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use drave_batch::wire::{self, ErrorCode, Lane, MessageKind, Role};
use drave_net::handshake::Limits;
use drave_net::{CloseReason, ConnId, Dial, Flush, Frame, Identity, Net, NetConfig, NetEvent};
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::group_log::Completion;
use super::peers::{Lost, Peers};
use super::pins::Pins;
use super::start::Opened;
use super::watch::DiskWatch;
use super::{GroupLog, Helper, JobKey, NodeError, translate};
use crate::raft::RoleKind;
use crate::replica::{AppendTaken, Fatal, Now, Replica};
use crate::service::{Context, NodeFacts, Served, Service, role_name};
use crate::store::Store;

/// Events taken from the sockets in one turn, so that disk and timers get theirs.
const EVENTS_MAX: usize = 4096;

/// Between signs of life to tailing readers.
const KEEPALIVE_US: u64 = crate::service::KEEPALIVE_US;

/// How long a stopping node flushes what it owes to its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node.
pub(super) struct Node {
    // Dropped last: the directory stays locked while anything of the node lives.
    net: Rc<Net>,
    clock: Clock,
    log: GroupLog,
    replica: Replica,
    helper: Helper,
    peers: Peers,
    service: Service,
    facts: NodeFacts,
    pins: Rc<std::cell::RefCell<Pins>>,
    keepalive_due_us: u64,
    /// Connections closed for what they sent, until they are gone: frames of theirs may be on the way.
    closing: HashSet<ConnId>,
    events: Vec<NetEvent>,
    completions: Vec<Completion>,
    _store: Store,
}

impl Node {
    /// Binds the node's own member address and starts dialing the others.
    pub(super) async fn listen(opened: Opened) -> Result<Self, NodeError> {
        let Opened {
            store,
            config,
            clock,
            log,
            replica,
            helper,
            pins,
            io_engine,
        } = opened;
        let identity = &store.identity;
        let own = identity
            .members
            .members
            .iter()
            .find(|member| member.node_id == identity.node_id);
        let address = own.map_or(String::new(), |member| member.address.clone());
        let listen = resolve(&address).map_err(|source| NodeError::Listen {
            address: address.clone(),
            source,
        })?;
        let mut net_config = NetConfig::new(
            listen,
            Identity {
                cluster_id: identity.cluster_id.clone(),
                node_id: identity.node_id,
                incarnation: identity.incarnation,
            },
        );
        net_config.limits = Limits {
            record_bytes_max: config.limits.record_bytes_max.0 as u32,
            credit_bytes: config.limits.client_credit_bytes.0 as u32,
            ..Limits::DEFAULT
        };
        net_config.handshake_timeout = config.limits.handshake_timeout.0;
        if let Some(connections_max) = config.limits.connections_max {
            net_config.connections_max = connections_max;
            net_config.peer_connections_reserved = (connections_max / 4).min(64);
        }
        let judged = Rc::clone(&pins);
        let policy =
            move |hello: &wire::Hello| judged.borrow_mut().judge(hello.node_id, hello.incarnation);
        let net = Net::bind(net_config, policy).map_err(|source| NodeError::Listen {
            address: address.clone(),
            source,
        })?;
        tracing::info!(address, "listening");

        let others = identity
            .members
            .members
            .iter()
            .filter(|m| m.node_id != identity.node_id);
        let ids: Vec<u64> = others.clone().map(|member| member.node_id).collect();
        let mut peers = Peers::new(0, config.raft.append_bytes_max.0, ids.into_iter());
        for member in others {
            for lane in [Lane::Control, Lane::Append] {
                let dial = net.dial(Dial {
                    node_id: member.node_id,
                    lane,
                    address: member.address.clone(),
                    source: source_address(listen),
                    incarnation: pins.borrow().known(member.node_id),
                });
                peers.dialing(dial, member.node_id, lane);
            }
        }
        let facts = NodeFacts {
            group_id: 0,
            node_id: identity.node_id,
            io_engine,
            started_us: clock.now().mono_us,
        };
        Ok(Self {
            net: Rc::new(net),
            clock,
            log,
            replica,
            helper,
            peers,
            service: Service::new(config.limits.tails_max as usize),
            facts,
            pins,
            keepalive_due_us: 0,
            closing: HashSet::new(),
            events: Vec::new(),
            completions: Vec::new(),
            _store: store,
        })
    }

    /// Runs until `stop` completes or the group cannot be served.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let mut stop = pin!(stop);
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
            if self.service.has_work() {
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.replica.next_deadline_us().min(self.keepalive_due_us);
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
        self.stop().await
    }

    /// A clean stop: connections are closed, what is in the log is flushed, with the commit index as a
    /// hint for the next start.
    async fn stop(mut self) -> Result<(), NodeError> {
        if tokio::time::timeout(STOP_TIMEOUT, self.net.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("connections were cut after {STOP_TIMEOUT:?}");
        }
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
        self.take_helper_results(now);
        if self.replica.next_deadline_us() <= now.mono_us {
            self.replica.tick(now, &mut self.log)?;
        }
        let mut context = Context {
            now,
            net: &self.net,
            replica: &mut self.replica,
            log: &mut self.log,
            helper: &self.helper,
            facts: &self.facts,
        };
        if self.keepalive_due_us <= now.mono_us {
            self.keepalive_due_us = now.mono_us + KEEPALIVE_US;
            self.service.keepalive(&mut context);
        }
        self.service.turn(&mut context);
        self.replica.set_credit(self.log.credit_bytes());
        self.send_messages();
        // Appends leave before the own write starts: the two run in parallel (thesis section 10.2.1).
        self.peers
            .pull(now, &self.net, &mut self.replica, &self.log, &self.helper);
        self.log.wal.submit();
        self.tell_roles();
        Ok(())
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

    /// A peer's incarnation is on disk before anything it says counts.
    fn save_pins(&mut self) -> Result<(), Fatal> {
        self.pins.borrow_mut().save().map_err(|error| Fatal {
            reason: format!("recording a peer's incarnation: {error}"),
        })
    }

    fn on_frame(&mut self, now: Now, conn: ConnId, frame: &Frame) -> Result<(), Fatal> {
        let Some(peer) = self.peers.node_of(conn) else {
            let mut context = Context {
                now,
                net: &self.net,
                replica: &mut self.replica,
                log: &mut self.log,
                helper: &self.helper,
                facts: &self.facts,
            };
            if self.service.on_frame(&mut context, conn, frame)? == Served::Closing {
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

    fn take_helper_results(&mut self, now: Now) {
        while let Some((key, result)) = self.helper.take() {
            match key {
                JobKey::Peer { node_id, term } => {
                    self.peers
                        .on_cold(now, &self.net, &mut self.replica, node_id, term, result);
                }
                JobKey::Scan(key) => {
                    let context = Context {
                        now,
                        net: &self.net,
                        replica: &mut self.replica,
                        log: &mut self.log,
                        helper: &self.helper,
                        facts: &self.facts,
                    };
                    self.service.on_cold(&context, key, result);
                }
            }
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

fn resolve(address: &str) -> std::io::Result<SocketAddr> {
    address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Outgoing connections leave from the address the node listens on, so that a firewall rule can name
/// it; a wildcard leaves the choice to the system.
fn source_address(listen: SocketAddr) -> Option<IpAddr> {
    (!listen.ip().is_unspecified()).then_some(listen.ip())
}
