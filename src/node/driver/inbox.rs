//! What reaches a running node: completions of its disk, events of its sockets, results of its helper. Each is
//! given to the part that it is for.

use drave_batch::wire::{self, ErrorCode, MessageKind, Role};
use drave_net::handshake::HandshakeError;
use drave_net::{CloseReason, ConnId, DialError, Flush, Frame, NetEvent};

use super::{Fault, Node};
use crate::node::entries::{EntriesJob, log_end};
use crate::node::group_log::Completion;
use crate::node::helper::Finished;
use crate::node::peers::Lost;
use crate::node::snapshots::Origin;
use crate::node::{JobKey, is_damage, translate};
use crate::raft::{Durable, NodeId};
use crate::replica::{AppendTaken, Fatal, Now, SnapshotTaken};
use crate::service::Served;

/// Events taken from the sockets in one turn, so that disk and timers get theirs.
const EVENTS_MAX: usize = 4096;

impl Node {
    pub(super) fn take_completions(&mut self, now: Now) -> Result<(), Fatal> {
        self.log.poll(&mut self.completions);
        for completion in std::mem::take(&mut self.completions) {
            match completion {
                Completion::Log(durable) => {
                    let index = durable.get().index;
                    self.latency.durable(now.mono_us, index);
                    self.replica.on_log_durable(now, durable, &mut self.log)?;
                    self.note_committed(now, NodeId(self.facts.node_id));
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

    pub(super) fn take_events(&mut self, now: Now) -> Result<(), Fatal> {
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
                let saved = self.pins.borrow_mut().save();
                saved.map_err(pins_not_saved)?;
            }
            NetEvent::Dialed { dial, conn, ack } => {
                let admitted = self.pins.borrow_mut().admit(&self.net, conn, &ack);
                if !admitted.map_err(pins_not_saved)? {
                    return Ok(());
                }
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

    /// A peer that does not take this node for a member, or has other settings, knows something that an operator
    /// should.
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
            Some(
                ErrorCode::UnknownMember | ErrorCode::WrongIncarnation | ErrorCode::SettingsDiffer
            )
        ) {
            return;
        }
        let fault = format!("node {peer} refuses this node: {message}");
        let known = self.faults.insert(Fault::Refused(peer), fault.clone());
        if known.is_none_or(|known| known != fault) {
            tracing::error!("{fault}");
        }
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
        if frame.header.kind == MessageKind::LogEndRequest && self.peers.is_catch_up(conn) {
            let reply = log_end(&self.log, self.replica.raft());
            let (group_id, number) = (frame.header.group_id, frame.header.request_id);
            if let Err(error) = self.net.send(conn, group_id, number, &reply, &[]) {
                tracing::debug!(%conn, %error, "the log's end for a member not queued");
            }
            return Ok(());
        }
        let problem = match self.on_peer_frame(now, peer, frame) {
            Ok(done) => return done,
            Err(problem) => problem,
        };
        tracing::error!(peer = peer.0, problem, "malformed message from a peer");
        self.net
            .close_with(conn, ErrorCode::MalformedFrame, &problem);
        Ok(())
    }

    /// A message of Raft goes to the replica. The outer error says what is wrong with the message.
    fn on_peer_frame(
        &mut self,
        now: Now,
        peer: NodeId,
        frame: &Frame,
    ) -> Result<Result<(), Fatal>, String> {
        match frame.header.kind {
            MessageKind::AppendEntries => {
                let message = decode::<wire::AppendEntries>(frame)?;
                let payload = &frame.payload;
                let log = &mut self.log;
                let taken = self
                    .replica
                    .on_append_entries(now, peer, &message, payload, log);
                match taken {
                    Ok(AppendTaken::Stepped) => Ok(Ok(())),
                    Ok(AppendTaken::Dropped(refusal)) => {
                        tracing::warn!(peer = peer.0, %refusal, "append dropped: no room in the log");
                        Ok(Ok(()))
                    }
                    Ok(AppendTaken::Invalid(problem)) => Err(problem.to_string()),
                    Err(fatal) => Ok(Err(fatal)),
                }
            }
            MessageKind::SnapshotChunk => {
                let chunk = decode::<wire::SnapshotChunk>(frame)?;
                match self.replica.on_snapshot_chunk(peer, &chunk, &frame.payload) {
                    SnapshotTaken::Stepped | SnapshotTaken::Ignored => Ok(Ok(())),
                    SnapshotTaken::Invalid(problem) => Err(problem.to_string()),
                }
            }
            MessageKind::SnapshotReply => {
                let reply = decode::<wire::SnapshotReply>(frame)?;
                if reply.pause_us > 0 {
                    let (peer, pause_us) = (peer.0, reply.pause_us);
                    tracing::warn!(
                        peer,
                        pause_us,
                        "the peer cannot keep the snapshot that it needs"
                    );
                }
                let replica = &mut self.replica;
                Ok(replica.on_snapshot_reply(now, peer, &reply, &mut self.log))
            }
            MessageKind::HeartbeatReply => {
                let reply = decode::<wire::HeartbeatReply>(frame)?;
                self.replica
                    .on_disk_report(peer, translate::disk_report(&reply));
                let message = translate::from_wire(frame).map_err(|error| error.to_string())?;
                let done = self.replica.step(now, peer, message, &mut self.log);
                self.note_committed(now, peer);
                Ok(done)
            }
            MessageKind::AppendReply => {
                let reply = decode::<wire::AppendReply>(frame)?;
                self.note_acknowledged(now, peer, &reply);
                let message = translate::from_wire(frame).map_err(|error| error.to_string())?;
                let done = self.replica.step(now, peer, message, &mut self.log);
                self.note_committed(now, peer);
                Ok(done)
            }
            _ => {
                let message = translate::from_wire(frame).map_err(|error| error.to_string())?;
                Ok(self.replica.step(now, peer, message, &mut self.log))
            }
        }
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

    pub(super) fn take_helper_results(&mut self, now: Now) -> Result<(), Fatal> {
        while let Some(finished) = self.helper.take().or_else(|| self.keeper.take()) {
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
                Finished::Read(JobKey::Carry, result) => {
                    let error = result.as_ref().err();
                    let damage = error.filter(|error| is_damage(error)).cloned();
                    self.carrier.on_read(now, result);
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
                    self.tell_of_snapshot("the log has no room to begin behind it");
                }
                Finished::ReceivedStored(id, Err(error)) => {
                    tracing::warn!(snapshot = %id, %error, "snapshot received and not stored");
                    self.replica.on_snapshot_not_durable(now, id);
                    self.tell_of_snapshot(&error.to_string());
                }
                Finished::Removed(Ok(())) => {}
                Finished::Removed(Err(error)) => {
                    tracing::warn!(%error, "an old snapshot was not removed");
                }
            }
        }
        Ok(())
    }
}

fn decode<M: wire::Message>(frame: &Frame) -> Result<M, String> {
    wire::decode_head(&frame.header, &frame.head).map_err(|error| error.to_string())
}

fn pins_not_saved(error: std::io::Error) -> Fatal {
    Fatal {
        reason: format!("recording a peer's incarnation: {error}"),
    }
}
