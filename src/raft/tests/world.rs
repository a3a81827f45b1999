//! A simulated cluster: owners of cores with disks and a network between them, in virtual time, all
//! from one seed. Every event is followed by the checks of `oracle` and `invariants`.

use super::super::rng::Rng;
use super::super::{
    AppendEntries, AppendOutcome, AppendReply, AppendResult, Config, Configuration, Control,
    Durable, Effect, EntryId, EntryMeta, Message, NodeId, Observation, Raft, RoleKind,
    SnapshotOutcome,
};
use super::disk::{Disk, Entry, Image, Write};
use super::network::{Envelope, Network, Packet, Weather};
use super::oracle::Oracle;
use std::fmt::Write as _;
use std::string::String;
use std::vec::Vec;

pub(super) struct Node {
    /// `None` while crashed.
    pub(super) raft: Option<Raft>,
    /// The log as written, durable or not.
    pub(super) image: Image,
    pub(super) disk: Disk,
    observed: Option<Observation>,
    pub(super) flush_us_max: u64,
    /// Until then the process stands still: no timers, no messages, no completions.
    pub(super) paused_until_us: u64,
}

/// How often what is rare has happened: a profile that never gets there proves nothing.
#[derive(Copy, Clone, Default, Debug, PartialEq)]
pub(super) struct Coverage {
    pub(super) truncations: u64,
    pub(super) logs_replaced: u64,
    pub(super) joint_configurations: u64,
    pub(super) transfers: u64,
    pub(super) rejections: u64,
    pub(super) completions_out_of_date: u64,
}

pub(super) struct World {
    pub(super) coverage: Coverage,
    pub(super) rng: Rng,
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    pub(super) events: u64,
    pub(super) pre_vote: bool,
    /// Entries per append at most.
    pub(super) batch_max: u64,
    pub(super) election_spread: bool,
    payload_last: u64,
    ticket_last: u64,
}

impl Coverage {
    fn notice(&mut self, message: &Message) {
        match message {
            Message::TimeoutNow(_) => self.transfers += 1,
            Message::AppendReply(AppendReply {
                result: AppendResult::Rejected { .. },
                ..
            }) => {
                self.rejections += 1;
            }
            _ => {}
        }
    }

    pub(super) fn add(&mut self, other: Coverage) {
        self.truncations += other.truncations;
        self.logs_replaced += other.logs_replaced;
        self.joint_configurations += other.joint_configurations;
        self.transfers += other.transfers;
        self.rejections += other.rejections;
        self.completions_out_of_date += other.completions_out_of_date;
    }
}

pub(super) fn ids(range: std::ops::Range<u64>) -> Vec<NodeId> {
    range.map(NodeId).collect()
}

impl World {
    /// `voters` of `nodes` begin as the cluster; the rest know the configuration and wait.
    pub(super) fn new(seed: u64, nodes: usize, voters: u64, weather: Weather) -> World {
        let configuration = Configuration::new(ids(0..voters), []).unwrap();
        let mut world = World {
            coverage: Coverage::default(),
            rng: Rng::new(seed),
            now_us: 1,
            nodes: Vec::new(),
            network: Network::new(nodes, weather),
            oracle: Oracle::default(),
            events: 0,
            pre_vote: true,
            batch_max: 8,
            election_spread: false,
            payload_last: 0,
            ticket_last: 0,
        };
        for _ in 0..nodes {
            world.nodes.push(Node {
                raft: None,
                image: Image::new(configuration.clone()),
                disk: Disk::new(configuration.clone()),
                observed: None,
                flush_us_max: 3_000,
                paused_until_us: 0,
            });
        }
        world
    }

    pub(super) fn config(&mut self, id: usize) -> Config {
        let mut config = Config::new(NodeId(id as u64));
        config.election_timeout_us_min = 50_000;
        config.election_timeout_us_max = 100_000;
        config.heartbeat_interval_us = 8_000;
        if self.election_spread {
            config.election_timeout_us_min = self.rng.range(30_000, 90_000);
            config.election_timeout_us_max = config.election_timeout_us_min * 2;
        }
        config.window_entries_max = 4;
        config.window_bytes_max = 400;
        config.uncommitted_bytes_max = 4_000;
        config.pre_vote = self.pre_vote;
        config.check_quorum = self.pre_vote;
        config
    }

    pub(super) fn start(&mut self, id: usize) {
        let config = self.config(id);
        let seed = self.rng.next();
        let node = &mut self.nodes[id];
        node.image = node.disk.durable.clone();
        let raft = Raft::new(config, node.image.restored(), self.now_us, seed);
        node.raft = Some(raft.expect("a crash leaves what a node can start from"));
        node.observed = None;
        self.settle(id);
    }

    pub(super) fn crash(&mut self, id: usize) {
        self.nodes[id].raft = None;
        self.nodes[id].disk.crash(&mut self.rng);
    }

    pub(super) fn raft(&self, id: usize) -> &Raft {
        self.nodes[id].raft.as_ref().expect("the node runs")
    }

    fn raft_mut(&mut self, id: usize) -> &mut Raft {
        self.nodes[id].raft.as_mut().expect("the node runs")
    }

    pub(super) fn runs(&self, id: usize) -> bool {
        self.nodes[id].raft.is_some()
    }

    /// The running leader of the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |id: &usize| self.runs(*id) && self.raft(*id).role() == RoleKind::Leader;
        (0..self.nodes.len())
            .filter(leads)
            .max_by_key(|id| self.raft(*id).term())
    }

    /// When the next thing happens by itself.
    fn next_us(&self) -> u64 {
        let timers = self.nodes.iter().map(|node| {
            let deadline_us = node.raft.as_ref().map_or(u64::MAX, Raft::next_deadline_us);
            let flush_us = node
                .disk
                .flush
                .as_ref()
                .map_or(u64::MAX, |flush| flush.done_us);
            deadline_us.min(flush_us).max(node.paused_until_us)
        });
        timers.min().unwrap_or(u64::MAX).min(self.network.next_us())
    }

    /// Lets everything happen that happens before `until_us`.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while self.next_us() < until_us {
            self.now_us = self.now_us.max(self.next_us());
            self.happen();
        }
        self.now_us = self.now_us.max(until_us);
    }

    pub(super) fn run_for(&mut self, us: u64) {
        self.run_until(self.now_us + us);
    }

    /// Runs until `done` or the time is over; returns whether it was done.
    pub(super) fn run_until_done(&mut self, us: u64, done: impl Fn(&World) -> bool) -> bool {
        let end_us = self.now_us + us;
        while !done(self) {
            if self.now_us >= end_us {
                return false;
            }
            self.run_for(1_000);
        }
        true
    }

    fn happen(&mut self) {
        self.events += 1;
        if self.network.next_us() <= self.now_us {
            let (_, envelope) = self.network.in_flight.pop_first().unwrap();
            let awake_us = self.nodes[envelope.to].paused_until_us;
            if awake_us > self.now_us {
                self.network.postpone(awake_us, envelope);
            } else if self.runs(envelope.to) && !self.network.cut[envelope.from][envelope.to] {
                self.deliver(envelope);
            }
            return;
        }
        let now_us = self.now_us;
        for id in 0..self.nodes.len() {
            if self.nodes[id].paused_until_us > now_us {
                continue;
            }
            if self.nodes[id]
                .disk
                .flush
                .as_ref()
                .is_some_and(|flush| flush.done_us <= now_us)
            {
                self.flush_done(id);
                return;
            }
            if self.runs(id) && self.raft(id).next_deadline_us() <= now_us {
                self.raft_mut(id).tick(now_us);
                self.settle(id);
                return;
            }
        }
    }

    fn flush_done(&mut self, id: usize) {
        let now_us = self.now_us;
        let (flush, flushed) = self.nodes[id].disk.finish_flush();
        let raft = self.raft_mut(id);
        if let Some(hard_state) = flushed.hard_state {
            raft.on_hard_state_durable(now_us, Durable::attest(hard_state));
        }
        let out_of_date = flush.truncation_count != raft.truncation_count();
        if let Some(id) = flushed.log.filter(|_| !out_of_date) {
            raft.on_log_durable(now_us, Durable::attest(id));
        }
        self.coverage.completions_out_of_date += u64::from(out_of_date);
        self.settle(id);
    }

    fn deliver(&mut self, envelope: Envelope) {
        let (now_us, to) = (self.now_us, envelope.to);
        let from = NodeId(envelope.from as u64);
        match envelope.packet {
            Packet::Control(message) => self.raft_mut(to).step(now_us, from, message),
            Packet::Append(append, entries) => self.deliver_append(to, from, append, entries),
            Packet::Snapshot { term, meta } => {
                // Received snapshots are durable before they are installed.
                let durable = Durable::attest(meta.clone());
                let outcome = self
                    .raft_mut(to)
                    .install_snapshot(now_us, from, term, &durable);
                self.drain(to);
                if outcome == SnapshotOutcome::ResetLog {
                    self.coverage.logs_replaced += 1;
                    let write = Write::Snapshot {
                        start: meta,
                        keep_log: false,
                    };
                    self.nodes[to].image.apply(write.clone());
                    self.nodes[to].disk.write(write);
                    self.nodes[to].disk.flush_through();
                    let hard_state = self.nodes[to].image.hard_state;
                    self.raft_mut(to)
                        .on_hard_state_durable(now_us, Durable::attest(hard_state));
                }
            }
        }
        self.settle(to);
    }

    fn deliver_append(
        &mut self,
        to: usize,
        from: NodeId,
        append: AppendEntries,
        entries: Vec<Entry>,
    ) {
        let meta = |entry: &Entry| EntryMeta {
            term: entry.term,
            bytes: entry.bytes(),
        };
        let metas: Vec<EntryMeta> = entries.iter().map(meta).collect();
        let now_us = self.now_us;
        let outcome = self.raft_mut(to).step_append(now_us, from, &append, &metas);
        let AppendOutcome::Store {
            truncate_from,
            lo,
            hi,
        } = outcome
        else {
            return;
        };
        let held_commits = self.drain(to);
        if let Some(from) = truncate_from {
            self.coverage.truncations += 1;
            self.write(to, Write::Truncate { from });
        }
        for index in lo..hi {
            let entry = entries[(index - append.prev.index - 1) as usize].clone();
            let configuration = entry.configuration.clone();
            self.write(to, Write::Append { index, entry });
            if let Some(configuration) = configuration {
                self.raft_mut(to)
                    .on_configuration_stored(index, configuration);
            }
        }
        if let Some(commit_index) = held_commits {
            self.commit_advanced(to, commit_index);
        }
    }

    fn write(&mut self, id: usize, write: Write) {
        self.nodes[id].image.apply(write.clone());
        self.nodes[id].disk.write(write);
    }

    /// Executes effects; a commit is given back, to be looked at once entries are stored.
    fn drain(&mut self, id: usize) -> Option<u64> {
        let mut commit = None;
        while let Some(effect) = self.raft_mut(id).poll_effect() {
            match effect {
                Effect::SaveHardState(hard_state) => self.write(id, Write::HardState(hard_state)),
                Effect::Send { to, message } => {
                    self.coverage.notice(&message);
                    let to = to.0 as usize;
                    let envelope = Envelope {
                        from: id,
                        to,
                        packet: Packet::Control(message),
                    };
                    self.network.send(&mut self.rng, self.now_us, envelope);
                }
                Effect::AppendControl { id: at, control } => {
                    let configuration = match control {
                        Control::Noop => None,
                        Control::Configuration(configuration) => {
                            let joint = configuration.is_joint();
                            self.coverage.joint_configurations += u64::from(joint);
                            Some(configuration)
                        }
                    };
                    let entry = Entry {
                        term: at.term,
                        payload: 0,
                        configuration,
                    };
                    self.write(
                        id,
                        Write::Append {
                            index: at.index,
                            entry,
                        },
                    );
                }
                Effect::RoleChanged {
                    role: RoleKind::Leader,
                    term,
                    ..
                } => {
                    self.oracle.leader_elected(id, term, &self.nodes[id].image);
                }
                Effect::RoleChanged { .. } => {}
                Effect::CommitAdvanced { commit_index } => commit = Some(commit_index),
                Effect::ReadReady { ticket, index } => self.oracle.read_ready(ticket, index),
                Effect::ReadFailed { ticket } => self.oracle.read_failed(ticket),
            }
        }
        commit
    }

    fn commit_advanced(&mut self, id: usize, commit_index: u64) {
        let disks: Vec<&Image> = self.nodes.iter().map(|node| &node.disk.durable).collect();
        let node = &self.nodes[id];
        let raft = node.raft.as_ref().unwrap();
        let leads = raft.role() == RoleKind::Leader;
        self.oracle.commit_advanced(
            commit_index,
            raft.term(),
            &node.image,
            leads,
            raft.configuration(),
            &disks,
        );
    }

    /// After an input: effects, flush, appends, checks.
    pub(super) fn settle(&mut self, id: usize) {
        if let Some(commit_index) = self.drain(id) {
            self.commit_advanced(id, commit_index);
        }
        self.send_appends(id);
        let flush_us = self.rng.range(50, self.nodes[id].flush_us_max);
        let done_us = self.now_us + flush_us;
        let node = &mut self.nodes[id];
        let raft = node.raft.as_ref().unwrap();
        node.disk.start_flush(done_us, raft.truncation_count());
        raft.check().unwrap();
        if let Some(before) = &node.observed {
            raft.check_delta(before).unwrap();
        }
        node.observed = Some(raft.observe());
        let last = raft.last();
        assert_eq!(
            last.index,
            node.image.last_index(),
            "core and log have the same entries"
        );
        assert_eq!(raft.term_at(last.index), Some(last.term));
        assert!(
            raft.durable_index() <= node.disk.durable.last_index(),
            "durable is on the disk"
        );
    }

    fn send_appends(&mut self, id: usize) {
        for peer in 0..self.nodes.len() {
            let now_us = self.now_us;
            while let Some(plan) = self.raft(id).plan_append(now_us, NodeId(peer as u64)) {
                let (mut hi, mut bytes) = (plan.lo, 0);
                let mut entries = Vec::new();
                while hi < plan.hi_max && hi - plan.lo < self.batch_max {
                    let entry = self.nodes[id].image.get(hi).unwrap();
                    if hi > plan.lo && bytes + u64::from(entry.bytes()) > plan.bytes_max {
                        break;
                    }
                    bytes += u64::from(entry.bytes());
                    entries.push(entry.clone());
                    hi += 1;
                }
                let append = AppendEntries {
                    term: plan.term,
                    prev: plan.prev,
                    commit_index: plan.commit_index,
                    session: plan.session,
                };
                let envelope = Envelope {
                    from: id,
                    to: peer,
                    packet: Packet::Append(append, entries),
                };
                self.network.send(&mut self.rng, now_us, envelope);
                self.raft_mut(id)
                    .append_sent(now_us, NodeId(peer as u64), &plan, hi, bytes);
            }
            if self.raft(id).needs_snapshot(NodeId(peer as u64)) {
                self.send_snapshot(id, peer);
            }
        }
    }

    fn send_snapshot(&mut self, id: usize, peer: usize) {
        let raft = self.raft(id);
        let term = raft.term();
        let meta = self.nodes[id]
            .image
            .snapshot_at(raft.commit_index_durable());
        self.raft_mut(id)
            .snapshot_started(NodeId(peer as u64), meta.last);
        let envelope = Envelope {
            from: id,
            to: peer,
            packet: Packet::Snapshot { term, meta },
        };
        self.network.send(&mut self.rng, self.now_us, envelope);
    }

    // What clients and operators do.

    pub(super) fn propose(&mut self, id: usize) -> Option<EntryId> {
        let payload = self.payload_last + 1;
        let mut entry = Entry {
            term: 0,
            payload,
            configuration: None,
        };
        let at = self.raft_mut(id).propose(entry.bytes()).ok()?;
        self.payload_last = payload;
        entry.term = at.term;
        self.write(
            id,
            Write::Append {
                index: at.index,
                entry,
            },
        );
        self.settle(id);
        Some(at)
    }

    pub(super) fn read(&mut self, id: usize) -> Option<u64> {
        let ticket = self.ticket_last + 1;
        self.oracle.read_started(ticket);
        let now_us = self.now_us;
        if self.raft_mut(id).read_index(now_us, ticket).is_err() {
            self.oracle.read_failed(ticket);
            return None;
        }
        self.ticket_last = ticket;
        self.settle(id);
        Some(ticket)
    }

    pub(super) fn with_raft<T>(&mut self, id: usize, act: impl FnOnce(&mut Raft, u64) -> T) -> T {
        let now_us = self.now_us;
        let result = act(self.raft_mut(id), now_us);
        self.settle(id);
        result
    }

    /// Drops the log up to the durable commit index, leaving `keep` entries.
    pub(super) fn compact(&mut self, id: usize, keep: u64) {
        let index = self.raft(id).commit_index_durable().saturating_sub(keep);
        if index <= self.nodes[id].image.start.last.index {
            return;
        }
        let start = self.nodes[id].image.snapshot_at(index);
        self.write(
            id,
            Write::Snapshot {
                start,
                keep_log: true,
            },
        );
        self.with_raft(id, |raft, _| raft.log_compacted(index + 1));
    }

    /// The connection between two nodes breaks and is made again, known to both.
    pub(super) fn reconnect(&mut self, a: usize, b: usize) {
        self.network.break_connection(a, b);
        for (id, peer) in [(a, b), (b, a)] {
            if self.runs(id) {
                let peer = NodeId(peer as u64);
                self.with_raft(id, |raft, now_us| {
                    raft.on_peer_disconnected(now_us, peer);
                    raft.snapshot_finished(now_us, peer, false);
                    raft.on_peer_connected(now_us, peer);
                });
            }
        }
    }

    /// For the message of a failed liveness check.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(raft) = &node.raft else {
                let _ = writeln!(text, "n{id}: down, {:?}", node.disk.durable.hard_state);
                continue;
            };
            let (role, leader, last) = (raft.role(), raft.leader(), raft.last());
            let (hard_state, commit) = (raft.hard_state(), raft.commit_index());
            let configuration = raft.configuration();
            let _ = writeln!(
                text,
                "n{id}: {role:?} of {leader:?} {hard_state:?} last {last} commit {commit} {configuration:?}"
            );
            for view in raft.progress() {
                let _ = writeln!(text, "    {view:?}");
            }
        }
        text
    }

    pub(super) fn check_logs(&self) {
        let images: Vec<&Image> = self.nodes.iter().map(|node| &node.image).collect();
        Oracle::log_matching(&images);
    }
}
