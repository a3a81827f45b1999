//! The other nodes: which connection carries what to and from each, and what is sent next.
//!
//! Each node dials every other one, once per lane, and sends its requests there; answers travel back on
//! the connection that brought the request. A message without a connection is lost, as any message may
//! be. Appends are pulled: a peer gets the next one when its connection has room.

use std::collections::HashMap;

use bytes::Bytes;
use drave_batch::wire::{self, Lane, Message as WireMessage};
use drave_net::{ConnId, DialId, Net};
use drave_wal::{Read, ReadError, Slices};

use super::GroupLog;
use super::helper::{Helper, JobKey};
use super::translate;
use crate::raft::{AppendPlan, Message, NodeId};
use crate::replica::{Now, Replica};

/// Bytes queued on a peer's append connection beyond which it is not given more: enough to keep the
/// socket busy while the loop turns, little enough that nothing old waits in front of news.
const APPEND_QUEUE_BYTES_HIGH: usize = 2 << 20;

/// Between attempts to read entries that could not be read.
const UNREADABLE_RETRY_US: u64 = 1_000_000;

#[derive(Debug, Default)]
struct Peer {
    /// Connections that this node dialed, by lane.
    control_out: Option<ConnId>,
    append_out: Option<ConnId>,
    /// Connections that the peer dialed.
    control_in: Option<ConnId>,
    append_in: Option<ConnId>,
    /// A read of old entries for it is under way.
    reads_disk: bool,
    /// Entries for it could not be read: not tried again before then.
    unreadable_until_us: u64,
}

/// What a closed connection was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lost {
    /// The connection that carried our appends to this peer.
    AppendLane(NodeId),
    /// A connection that this peer had dialed.
    FromPeer(NodeId),
    /// Another one.
    Other,
}

/// All peers of the group.
pub(super) struct Peers {
    group_id: u32,
    append_bytes_max: usize,
    peers: HashMap<u64, Peer>,
    dials: HashMap<DialId, (u64, Lane)>,
    /// The peer behind a connection, whoever dialed it.
    connections: HashMap<ConnId, u64>,
}

impl Peers {
    pub(super) fn new(
        group_id: u32,
        append_bytes_max: u64,
        node_ids: impl Iterator<Item = u64>,
    ) -> Self {
        Self {
            group_id,
            append_bytes_max: append_bytes_max as usize,
            peers: node_ids.map(|id| (id, Peer::default())).collect(),
            dials: HashMap::new(),
            connections: HashMap::new(),
        }
    }

    pub(super) fn dialing(&mut self, dial: DialId, node_id: u64, lane: Lane) {
        self.dials.insert(dial, (node_id, lane));
    }

    /// The node that a dial is meant for.
    pub(super) fn dialed_node(&self, dial: DialId) -> Option<(u64, Lane)> {
        self.dials.get(&dial).copied()
    }

    /// A dialed connection stands. Gives the peer when it is the one for appends.
    pub(super) fn dialed(&mut self, dial: DialId, conn: ConnId) -> Option<NodeId> {
        let (node_id, lane) = self.dialed_node(dial)?;
        let peer = self.peers.get_mut(&node_id)?;
        self.connections.insert(conn, node_id);
        match lane {
            Lane::Append => {
                peer.append_out = Some(conn);
                Some(NodeId(node_id))
            }
            Lane::Control | Lane::CatchUp => {
                peer.control_out = Some(conn);
                None
            }
        }
    }

    /// A peer dialed us. Gives the connection that this one takes the place of: a peer that connects
    /// anew has given that one up, though nothing of it may have arrived here.
    pub(super) fn accepted(&mut self, node_id: u64, lane: Lane, conn: ConnId) -> Option<ConnId> {
        let peer = self.peers.get_mut(&node_id)?;
        self.connections.insert(conn, node_id);
        match lane {
            Lane::Append => peer.append_in.replace(conn),
            Lane::Control | Lane::CatchUp => peer.control_in.replace(conn),
        }
    }

    /// The peer behind a connection, if it is a peer's.
    pub(super) fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        self.connections.get(&conn).copied().map(NodeId)
    }

    /// A connection is gone; `None` when it was no peer's.
    pub(super) fn closed(&mut self, conn: ConnId) -> Option<Lost> {
        let node_id = self.connections.remove(&conn)?;
        let peer = self.peers.get_mut(&node_id)?;
        let lost = if peer.append_out == Some(conn) {
            Lost::AppendLane(NodeId(node_id))
        } else if peer.append_in == Some(conn) || peer.control_in == Some(conn) {
            Lost::FromPeer(NodeId(node_id))
        } else {
            Lost::Other
        };
        for slot in [
            &mut peer.append_out,
            &mut peer.control_out,
            &mut peer.append_in,
            &mut peer.control_in,
        ] {
            if *slot == Some(conn) {
                *slot = None;
            }
        }
        Some(lost)
    }

    /// Sends a message of the core, requests where we dialed, answers where they were asked.
    pub(super) fn send(&self, net: &Net, to: NodeId, message: &Message) {
        let Some(peer) = self.peers.get(&to.0) else {
            return;
        };
        match message {
            Message::VoteRequest(m) => self.put(net, peer.control_out, &translate::vote_request(m)),
            Message::Heartbeat(m) => self.put(net, peer.control_out, &translate::heartbeat(m)),
            Message::TimeoutNow(m) => {
                self.put(net, peer.control_out, &wire::TimeoutNow { term: m.term });
            }
            Message::ReadIndexRequest(m) => {
                self.put(net, peer.control_out, &translate::read_index_request(m));
            }
            Message::ReadIndexReply(m) => {
                self.put(net, peer.control_in, &translate::read_index_reply(m));
            }
            Message::VoteReply(m) => self.put(net, peer.control_in, &translate::vote_reply(m)),
            Message::HeartbeatReply(m) => {
                self.put(net, peer.control_in, &translate::heartbeat_reply(m));
            }
            Message::AppendReply(m) => self.put(net, peer.append_in, &translate::append_reply(m)),
        }
    }

    fn put<M: WireMessage>(&self, net: &Net, conn: Option<ConnId>, message: &M) {
        if let Some(conn) = conn
            && let Err(error) = net.send(conn, self.group_id, 0, message, &[])
        {
            tracing::debug!(%conn, %error, "message to a peer lost");
        }
    }

    /// Gives every peer whose connection has room what it needs next.
    pub(super) fn pull(
        &mut self,
        now: Now,
        net: &Net,
        replica: &mut Replica,
        log: &GroupLog,
        helper: &Helper,
    ) {
        if !replica.is_leader() {
            return;
        }
        for (node_id, peer) in &mut self.peers {
            let Some(conn) = peer.append_out else {
                continue;
            };
            if now.mono_us < peer.unreadable_until_us {
                continue;
            }
            while !peer.reads_disk && net.queued_bytes(conn) < APPEND_QUEUE_BYTES_HIGH {
                let Some(plan) = replica.plan_append(now, NodeId(*node_id)) else {
                    break;
                };
                let entries = match next_entries(log, &plan, self.append_bytes_max) {
                    Ok(Read::Ready(slices)) => Some(slices),
                    Ok(Read::Cold(job)) => {
                        let key = JobKey::Peer {
                            node_id: *node_id,
                            term: plan.term,
                        };
                        peer.reads_disk = helper.submit(key, job);
                        None
                    }
                    Err(error) => {
                        peer.unreadable_until_us = now.mono_us + UNREADABLE_RETRY_US;
                        tracing::error!(peer = node_id, %error, "entries for a peer cannot be read");
                        None
                    }
                };
                let Some(entries) = entries else {
                    break;
                };
                if !send_append(
                    self.group_id,
                    now,
                    net,
                    replica,
                    conn,
                    NodeId(*node_id),
                    &plan,
                    &entries,
                ) {
                    break;
                }
            }
        }
    }

    /// A read of old entries for a peer has finished: they are sent if they are still what it needs.
    pub(super) fn on_cold(
        &mut self,
        now: Now,
        net: &Net,
        replica: &mut Replica,
        node_id: u64,
        term: u64,
        result: Result<Slices, ReadError>,
    ) {
        let Some(peer) = self.peers.get_mut(&node_id) else {
            return;
        };
        peer.reads_disk = false;
        let slices = match result {
            Ok(slices) => slices,
            Err(error) => {
                peer.unreadable_until_us = now.mono_us + UNREADABLE_RETRY_US;
                tracing::error!(peer = node_id, %error, "entries for a peer cannot be read");
                return;
            }
        };
        // A leader never truncates its own log, so within one term the entries read are the log's.
        if !replica.is_leader() || replica.raft().term() != term {
            return;
        }
        if let Some(conn) = peer.append_out
            && let Some(plan) = replica.plan_append(now, NodeId(node_id))
            && plan.lo == slices.lo
            && slices.hi <= plan.hi_max
        {
            send_append(
                self.group_id,
                now,
                net,
                replica,
                conn,
                NodeId(node_id),
                &plan,
                &slices,
            );
        }
    }
}

fn next_entries(
    log: &GroupLog,
    plan: &AppendPlan,
    append_bytes_max: usize,
) -> Result<Read, ReadError> {
    if plan.lo == plan.hi_max {
        let (lo, hi) = (plan.lo, plan.hi_max);
        return Ok(Read::Ready(Slices {
            lo,
            hi,
            bytes: 0,
            pieces: Vec::new(),
        }));
    }
    let bytes_max = append_bytes_max.min(usize::try_from(plan.bytes_max).unwrap_or(usize::MAX));
    log.wal.read(plan.lo, plan.hi_max, bytes_max)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one send, all of it borrowed from its callers"
)]
fn send_append(
    group_id: u32,
    now: Now,
    net: &Net,
    replica: &mut Replica,
    conn: ConnId,
    to: NodeId,
    plan: &AppendPlan,
    entries: &Slices,
) -> bool {
    let message = wire::AppendEntries {
        term: plan.term,
        prev_term: plan.prev.term,
        prev_index: plan.prev.index,
        commit_index: plan.commit_index,
        session: plan.session,
        batch_count: (entries.hi - entries.lo) as u32,
    };
    let pieces: &[Bytes] = &entries.pieces;
    if let Err(error) = net.send(conn, group_id, 0, &message, pieces) {
        tracing::debug!(%conn, %error, "append to a peer not queued");
        return false;
    }
    replica.append_sent(now, to, plan, entries.hi, entries.bytes as u64);
    true
}
