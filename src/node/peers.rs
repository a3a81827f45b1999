//! The other nodes: which connection carries what to and from each, and what is sent next.
//!
//! Each node dials every other one, once per lane, and sends its requests there; answers travel back on
//! the connection that brought the request. A message without a connection is lost, as any message may
//! be. Appends are pulled: a peer gets the next one when its connection has room.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bytes::Bytes;
use drave_batch::wire::{self, Lane, Message as WireMessage};
use drave_net::{ConnId, Dial, DialId, Net};
use drave_wal::{Read, ReadError, Slices};

use super::helper::{Helper, JobKey};
use super::snapshots::SnapshotFiles;
use super::translate;
use super::{GroupLog, is_damage};
use crate::raft::{AppendPlan, Message, NodeId};
use crate::replica::{DiskReport, Now, Replica, SnapshotPlan};

/// Bytes queued on a peer's append connection beyond which it is not given more: enough to keep the
/// socket busy while the loop turns, little enough that nothing old waits in front of news.
const APPEND_QUEUE_BYTES_HIGH: usize = 2 << 20;

/// The same for snapshots, which wait behind entries.
const SNAPSHOT_QUEUE_BYTES_HIGH: usize = 512 << 10;

/// How to reach a member.
#[derive(Clone, Debug)]
pub(super) struct Dialing {
    /// HOST:PORT.
    pub address: String,
    /// Where connections leave from.
    pub source: Option<IpAddr>,
    /// The incarnation it must have, if it is known.
    pub incarnation: Option<u128>,
}

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
    /// The one by which it asks for entries that its log has lost.
    catch_up_in: Option<ConnId>,
    /// A read of old entries for it is under way.
    reads_disk: bool,
    /// A read of a snapshot for it is under way.
    reads_snapshot: bool,
    /// The standing orders to be connected to it, one for each lane; none for a node that only came to us.
    dials: Vec<DialId>,
    /// Entries for it could not be read: not tried again before then.
    unreadable_until_us: u64,
}

/// Why a peer cannot be given what it needs.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The log is damaged.
    Damage(ReadError),
    /// Something else, in words.
    Other(String),
}

impl From<ReadError> for Unreadable {
    fn from(error: ReadError) -> Self {
        if is_damage(&error) {
            Self::Damage(error)
        } else {
            Self::Other(error.to_string())
        }
    }
}

/// What goes with answers to a leader: how the own disk does.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnDisk {
    pub(super) report: DiskReport,
    /// How long the entry that became durable last took from its coming to then, microseconds.
    pub(super) residence_us: u64,
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
    peers: BTreeMap<u64, Peer>,
    dials: HashMap<DialId, (u64, Lane)>,
    /// The peer behind a connection, whoever dialed it.
    connections: HashMap<ConnId, u64>,
    /// What could not be read here for a peer, since this was last taken.
    unreadable: Option<Unreadable>,
}

impl Peers {
    pub(super) fn new(group_id: u32, append_bytes_max: u64) -> Self {
        Self {
            group_id,
            append_bytes_max: append_bytes_max as usize,
            peers: BTreeMap::new(),
            dials: HashMap::new(),
            connections: HashMap::new(),
            unreadable: None,
        }
    }

    /// Dials whoever of `wanted` is not dialed yet, and stops dialing whoever is not among them.
    /// `kept` are left as they are.
    pub(super) fn follow(&mut self, net: &Net, wanted: &[(u64, Dialing)], kept: &[u64]) {
        for (node_id, dialing) in wanted {
            let peer = self.peers.entry(*node_id).or_default();
            if !peer.dials.is_empty() {
                continue;
            }
            for lane in [Lane::Control, Lane::Append] {
                let dial = net.dial(Dial {
                    node_id: *node_id,
                    lane,
                    address: dialing.address.clone(),
                    source: dialing.source,
                    incarnation: dialing.incarnation,
                });
                peer.dials.push(dial);
                self.dials.insert(dial, (*node_id, lane));
            }
        }
        for (node_id, peer) in &mut self.peers {
            if kept.contains(node_id) || wanted.iter().any(|(id, _)| id == node_id) {
                continue;
            }
            for dial in peer.dials.drain(..) {
                net.undial(dial);
                self.dials.remove(&dial);
            }
        }
        self.drop_strangers();
    }

    /// Forgets nodes that are not dialed and not connected.
    fn drop_strangers(&mut self) {
        self.peers.retain(|_, peer| {
            let connections = [
                peer.control_out,
                peer.append_out,
                peer.control_in,
                peer.append_in,
                peer.catch_up_in,
            ];
            !peer.dials.is_empty() || connections.iter().any(Option::is_some)
        });
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
        let peer = self.peers.entry(node_id).or_default();
        self.connections.insert(conn, node_id);
        match lane {
            Lane::Append => peer.append_in.replace(conn),
            Lane::Control => peer.control_in.replace(conn),
            Lane::CatchUp => peer.catch_up_in.replace(conn),
        }
    }

    /// Why entries that a peer needs could not be read, if that happened since the last call.
    pub(super) fn take_unreadable(&mut self) -> Option<Unreadable> {
        self.unreadable.take()
    }

    /// The peer behind a connection, if it is a peer's.
    pub(super) fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        self.connections.get(&conn).copied().map(NodeId)
    }

    /// Whether a peer asks for entries that its log has lost by this connection.
    pub(super) fn is_catch_up(&self, conn: ConnId) -> bool {
        let node_id = self.connections.get(&conn);
        let peer = node_id.and_then(|node_id| self.peers.get(node_id));
        peer.is_some_and(|peer| peer.catch_up_in == Some(conn))
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
            &mut peer.catch_up_in,
        ] {
            if *slot == Some(conn) {
                *slot = None;
            }
        }
        self.drop_strangers();
        Some(lost)
    }

    /// Sends a message of the core, requests where we dialed, answers where they were asked.
    pub(super) fn send(&self, net: &Net, to: NodeId, message: &Message, own: OwnDisk) {
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
                let reply = translate::heartbeat_reply(m, &own.report);
                self.put(net, peer.control_in, &reply);
            }
            Message::AppendReply(m) => {
                let reply = translate::append_reply(m, own.residence_us);
                self.put(net, peer.append_in, &reply);
            }
        }
    }

    /// Answers a chunk of a snapshot, where it came from.
    pub(super) fn answer_snapshot(&self, net: &Net, to: NodeId, reply: &wire::SnapshotReply) {
        if let Some(peer) = self.peers.get(&to.0) {
            self.put(net, peer.append_in, reply);
        }
    }

    /// Has the next piece of a snapshot read for each peer that needs one and whose connection has room:
    /// less than for entries, which go first.
    pub(super) fn pull_snapshots(
        &mut self,
        now: Now,
        net: &Net,
        replica: &mut Replica,
        files: &mut SnapshotFiles,
        helper: &Helper,
    ) {
        if !replica.is_leader() {
            return;
        }
        for (node_id, peer) in &mut self.peers {
            let Some(conn) = peer.append_out else {
                continue;
            };
            if now.mono_us < peer.unreadable_until_us
                || peer.reads_snapshot
                || net.queued_bytes(conn) >= SNAPSHOT_QUEUE_BYTES_HIGH
            {
                continue;
            }
            let to = NodeId(*node_id);
            let Some(plan) = replica.plan_snapshot_chunk(now, to) else {
                continue;
            };
            let read = files.read(plan.snapshot, plan.offset, plan.bytes_max);
            peer.reads_snapshot =
                helper.run(move || super::helper::Finished::SnapshotRead(to, plan, read()));
        }
    }

    /// A piece of a snapshot was read: it goes to the peer if it is still what it needs.
    pub(super) fn on_snapshot_read(
        &mut self,
        now: Now,
        net: &Net,
        replica: &mut Replica,
        to: NodeId,
        plan: &SnapshotPlan,
        piece: std::io::Result<(Bytes, u64)>,
    ) {
        let Some(peer) = self.peers.get_mut(&to.0) else {
            return;
        };
        peer.reads_snapshot = false;
        let (bytes, total_bytes) = match piece {
            Ok(read) => read,
            Err(error) => {
                peer.unreadable_until_us = now.mono_us + UNREADABLE_RETRY_US;
                let id = plan.snapshot;
                tracing::error!(snapshot = %id, %error, "a snapshot for a peer cannot be read");
                let reason = format!("snapshot {id}: {error}");
                self.unreadable = Some(Unreadable::Other(reason));
                return;
            }
        };
        let Some(conn) = peer.append_out else {
            return;
        };
        let chunk = wire::SnapshotChunk {
            term: plan.term,
            session: plan.session,
            snapshot_term: plan.snapshot.term,
            snapshot_index: plan.snapshot.index,
            total_bytes,
            offset: plan.offset,
            payload_crc: drave_batch::checksum(&bytes),
        };
        let sent = bytes.len() as u64;
        match net.send(conn, self.group_id, 0, &chunk, &[bytes]) {
            Ok(()) => replica.snapshot_chunk_sent(now, to, plan, sent, total_bytes),
            Err(error) => tracing::debug!(%conn, %error, "chunk of a snapshot not queued"),
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
                        self.unreadable = Some(error.into());
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
                self.unreadable = Some(error.into());
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
