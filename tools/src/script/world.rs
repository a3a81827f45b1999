//! Nodes as their owner drives them, with nothing happening by itself: a core, a disk and a clock each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drave::raft::{
    AppendEntries, AppendOutcome, Config, Configuration, Control, Durable, Effect, EntryId,
    EntryMeta, NodeId, Observation, Raft, RoleKind, SnapshotOutcome,
};

use super::disk::{Change, Disk, Entry, Image, Part};
use super::fault::Fault;
use super::oracle::{Oracle, Witness};
use super::pool::{Envelope, Packet, Pool};

/// One node, running or not.
pub(super) struct Node {
    pub(super) raft: Option<Raft>,
    pub(super) disk: Disk,
    /// Its own monotonic clock: goes on only when the script says so.
    pub(super) now_us: u64,
    observed: Option<Observation>,
    pub(super) wiped: bool,
    /// An election deadline the script has noted.
    pub(super) deadline_noted_us: u64,
}

/// What became of a read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum ReadOutcome {
    Waiting,
    Ready { index: u64 },
    Failed,
}

/// Everything a script can touch.
pub(super) struct World {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) pool: Pool,
    pub(super) oracle: Oracle,
    /// Settings of nodes that start from now on; the id is set for each.
    pub(super) config: Config,
    /// Entries per append at most.
    pub(super) batch_max: u64,
    /// Voters and learners the cluster begins with.
    pub(super) initial: Configuration,
    /// By the name the script gave it.
    pub(super) reads: BTreeMap<String, (NodeId, u64, ReadOutcome)>,
    starts: u64,
}

impl World {
    pub(super) fn new() -> World {
        World {
            nodes: BTreeMap::new(),
            pool: Pool::default(),
            oracle: Oracle::default(),
            config: Config::new(NodeId(0)),
            batch_max: u64::MAX,
            initial: Configuration::default(),
            reads: BTreeMap::new(),
            starts: 0,
        }
    }

    // Nodes.

    /// Makes a node with this disk and starts it.
    pub(super) fn add(&mut self, id: NodeId, image: Image) -> Result<(), Fault> {
        let node = Node {
            raft: None,
            disk: Disk::new(image),
            now_us: 1_000_000,
            observed: None,
            wiped: false,
            deadline_noted_us: 0,
        };
        self.nodes.insert(id, node);
        self.start(id, 0)
    }

    /// Starts a node from what its disk holds.
    pub(super) fn start(&mut self, id: NodeId, commit_index_hint: u64) -> Result<(), Fault> {
        self.starts += 1;
        let seed = self.starts;
        let mut config = self.config.clone();
        config.id = id;
        let node = self.node_mut(id)?;
        let restored = node.disk.durable.restored(commit_index_hint);
        let raft = Raft::new(config, restored, node.now_us, seed);
        let raft = raft.map_err(|error| Fault::Refused(error.to_string()))?;
        node.raft = Some(raft);
        node.observed = None;
        self.after(id)
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        let runs = |(_, node): &(&NodeId, &Node)| node.raft.is_some();
        self.nodes.iter().filter(runs).map(|(id, _)| *id).collect()
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node, Fault> {
        let unknown = || Fault::script(format!("there is no node {id}"));
        self.nodes.get(&id).ok_or_else(unknown)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Fault> {
        let unknown = || Fault::script(format!("there is no node {id}"));
        self.nodes.get_mut(&id).ok_or_else(unknown)
    }

    pub(super) fn raft(&self, id: NodeId) -> Result<&Raft, Fault> {
        let down = || Fault::script(format!("node {id} is down"));
        self.node(id)?.raft.as_ref().ok_or_else(down)
    }

    fn raft_mut(&mut self, id: NodeId) -> Result<(&mut Raft, u64), Fault> {
        let node = self.node_mut(id)?;
        let down = || Fault::script(format!("node {id} is down"));
        let now_us = node.now_us;
        Ok((node.raft.as_mut().ok_or_else(down)?, now_us))
    }

    // Inputs.

    /// One input to one core, then everything the owner owes it.
    pub(super) fn input<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Raft, u64) -> T,
    ) -> Result<T, Fault> {
        let (raft, now_us) = self.raft_mut(id)?;
        let result = act(raft, now_us);
        self.after(id)?;
        Ok(result)
    }

    /// Proposes an entry and stores it at the index it is given.
    pub(super) fn propose(&mut self, node: NodeId, payload: &str, bytes: u32) -> Result<(), Fault> {
        let (raft, _) = self.raft_mut(node)?;
        let proposed = raft.propose(bytes);
        let EntryId { term, index } =
            proposed.map_err(|error| Fault::Refused(error.to_string()))?;
        let entry = Entry {
            term,
            payload: payload.to_owned(),
            bytes,
            configuration: None,
        };
        self.write(node, Change::Append { index, entry })?;
        self.after(node)
    }

    /// Reads that wait at a node that stops get no answer.
    pub(super) fn fail_reads_of(&mut self, id: NodeId) -> Result<(), Fault> {
        for (node, ticket, outcome) in self.reads.values_mut() {
            if *node == id && *outcome == ReadOutcome::Waiting {
                *outcome = ReadOutcome::Failed;
                self.oracle.read_failed(*ticket)?;
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: NodeId, change: Change) -> Result<(), Fault> {
        let node = self.node_mut(id)?;
        let truncations = node.raft.as_ref().map_or(0, Raft::truncation_count);
        node.disk.write(change, truncations);
        Ok(())
    }

    /// Brings a part of what waits to the platter and tells the core. Returns whether anything waited.
    /// The flush of a hard state does not wait for the core to hear of log flushes before it.
    pub(super) fn flush(&mut self, id: NodeId, part: Part) -> Result<bool, Fault> {
        let disk = &mut self.node_mut(id)?.disk;
        let mut untold = VecDeque::new();
        if part == Part::HardState {
            untold = std::mem::take(&mut disk.completions);
        }
        let any = disk.persist(part);
        self.complete(id, true)?;
        self.node_mut(id)?.disk.completions = untold;
        Ok(any)
    }

    /// Tells the core of flushes that are over, as its owner does: not of a log flush that was
    /// overtaken by a truncation, unless `fenced` is off. Returns how many there were.
    pub(super) fn complete(&mut self, id: NodeId, fenced: bool) -> Result<usize, Fault> {
        let completions = std::mem::take(&mut self.node_mut(id)?.disk.completions);
        let count = completions.len();
        for completion in completions {
            self.input(id, |raft, now_us| {
                if let Some(hard_state) = completion.hard_state {
                    raft.on_hard_state_durable(now_us, Durable::attest(hard_state));
                }
                if let Some((last, truncations)) = completion.log
                    && (!fenced || truncations == raft.truncation_count())
                {
                    raft.on_log_durable(now_us, Durable::attest(last));
                }
            })?;
        }
        Ok(count)
    }

    /// Hands a message to its receiver, which runs.
    pub(super) fn deliver(&mut self, envelope: Envelope) -> Result<(), Fault> {
        let Envelope {
            from, to, packet, ..
        } = envelope;
        match packet {
            Packet::Control(message) => {
                self.input(to, |raft, now_us| raft.step(now_us, from, message))
            }
            Packet::Append(append, entries) => self.deliver_append(to, from, append, &entries),
            Packet::Snapshot { term, meta } => {
                let durable = Durable::attest(meta.clone());
                let (raft, now_us) = self.raft_mut(to)?;
                let outcome = raft.install_snapshot(now_us, from, term, &durable);
                let commit = self.drain(to)?;
                if outcome == SnapshotOutcome::ResetLog {
                    self.write(to, Change::Reset { start: meta })?;
                    self.node_mut(to)?.disk.persist(Part::All);
                }
                self.commit_advanced(to, commit)?;
                let installed = outcome != SnapshotOutcome::Ignored;
                self.pool
                    .send(to, from, Packet::SnapshotReply { term, installed });
                self.complete(to, true)?;
                self.after(to)
            }
            Packet::SnapshotReply { term, installed } => self.input(to, |raft, now_us| {
                if raft.term() == term {
                    raft.snapshot_finished(now_us, from, installed);
                }
            }),
        }
    }

    fn deliver_append(
        &mut self,
        to: NodeId,
        from: NodeId,
        append: AppendEntries,
        entries: &[Entry],
    ) -> Result<(), Fault> {
        let meta = |entry: &Entry| EntryMeta {
            term: entry.term,
            bytes: entry.bytes,
        };
        let metas: Vec<EntryMeta> = entries.iter().map(meta).collect();
        let (raft, now_us) = self.raft_mut(to)?;
        let outcome = raft.step_append(now_us, from, &append, &metas);
        let commit = self.drain(to)?;
        if let AppendOutcome::Store {
            truncate_from,
            lo,
            hi,
        } = outcome
        {
            if let Some(from) = truncate_from {
                self.write(to, Change::Truncate { from })?;
            }
            for index in lo..hi {
                let entry = entries[(index - append.prev.index - 1) as usize].clone();
                let configuration = entry.configuration.clone();
                self.write(to, Change::Append { index, entry })?;
                if let Some(configuration) = configuration {
                    let (raft, _) = self.raft_mut(to)?;
                    raft.on_configuration_stored(index, configuration);
                }
            }
        }
        self.commit_advanced(to, commit)?;
        self.after(to)
    }

    // What the owner owes after each input.

    fn after(&mut self, id: NodeId) -> Result<(), Fault> {
        let commit = self.drain(id)?;
        self.commit_advanced(id, commit)?;
        self.send_appends(id)?;
        self.check(id)
    }

    /// Executes effects; a commit is given back, to be looked at once entries are stored.
    fn drain(&mut self, id: NodeId) -> Result<Option<u64>, Fault> {
        let mut commit = None;
        loop {
            let (raft, _) = self.raft_mut(id)?;
            let Some(effect) = raft.poll_effect() else {
                return Ok(commit);
            };
            match effect {
                Effect::SaveHardState(hard_state) => {
                    self.write(id, Change::HardState(hard_state))?;
                }
                Effect::Send { to, message } => {
                    if self.nodes.get(&to).is_some_and(|node| node.raft.is_some()) {
                        self.pool.send(id, to, Packet::Control(message));
                    }
                }
                Effect::AppendControl { id: at, control } => {
                    let configuration = match control {
                        Control::Noop => None,
                        Control::Configuration(configuration) => Some(configuration),
                    };
                    let entry = Entry {
                        term: at.term,
                        payload: String::new(),
                        bytes: 0,
                        configuration,
                    };
                    let index = at.index;
                    self.write(id, Change::Append { index, entry })?;
                }
                Effect::RoleChanged {
                    role: RoleKind::Leader,
                    term,
                    ..
                } => {
                    let Some(node) = self.nodes.get(&id) else {
                        continue;
                    };
                    self.oracle.leader_elected(id, term, &node.disk.written)?;
                }
                Effect::RoleChanged { .. } => {}
                Effect::CommitAdvanced { commit_index } => commit = Some(commit_index),
                Effect::ReadReady { ticket, index } => {
                    self.read_answered(ticket, ReadOutcome::Ready { index });
                    self.oracle.read_ready(ticket, index)?;
                }
                Effect::ReadFailed { ticket } => {
                    self.read_answered(ticket, ReadOutcome::Failed);
                    self.oracle.read_failed(ticket)?;
                }
            }
        }
    }

    fn read_answered(&mut self, ticket: u64, outcome: ReadOutcome) {
        for (_, known, answer) in self.reads.values_mut() {
            if *known == ticket {
                *answer = outcome;
            }
        }
    }

    fn commit_advanced(&mut self, id: NodeId, commit: Option<u64>) -> Result<(), Fault> {
        let (Some(commit_index), Some(node)) = (commit, self.nodes.get(&id)) else {
            return Ok(());
        };
        let Some(raft) = &node.raft else {
            return Ok(());
        };
        self.oracle.commit_advanced(
            id,
            commit_index,
            raft.term(),
            &node.disk.written,
            raft.configuration(),
        )
    }

    /// Appends are pulled: as many as the core plans, each into the pool.
    fn send_appends(&mut self, id: NodeId) -> Result<(), Fault> {
        const MESSAGES_MAX: usize = 10_000;
        for peer in self.ids() {
            let mut messages = 0;
            loop {
                messages += 1;
                if messages > MESSAGES_MAX {
                    return Err(Fault::invariant(
                        "the appends to send do not come to an end",
                    ));
                }
                let batch_max = self.batch_max;
                let node = self.node(id)?;
                let plan = self.raft(id)?.plan_append(node.now_us, peer);
                let Some(plan) = plan else {
                    break;
                };
                let (mut hi, mut bytes) = (plan.lo, 0);
                let mut entries = Vec::new();
                while hi < plan.hi_max && hi - plan.lo < batch_max {
                    let Some(entry) = node.disk.written.get(hi) else {
                        return Err(Fault::invariant(format!("entry {hi} to send is not held")));
                    };
                    let entry_bytes = u64::from(entry.bytes);
                    if hi > plan.lo && bytes + entry_bytes > plan.bytes_max {
                        break;
                    }
                    bytes += entry_bytes;
                    entries.push(entry.clone());
                    hi += 1;
                }
                let append = AppendEntries {
                    term: plan.term,
                    prev: plan.prev,
                    commit_index: plan.commit_index,
                    session: plan.session,
                };
                if self.nodes[&peer].raft.is_some() {
                    self.pool.send(id, peer, Packet::Append(append, entries));
                }
                let (raft, now_us) = self.raft_mut(id)?;
                raft.append_sent(now_us, peer, &plan, hi, bytes);
            }
        }
        Ok(())
    }

    // Checks.

    /// What must hold of one node after every input.
    fn check(&mut self, id: NodeId) -> Result<(), Fault> {
        let node = self.node_mut(id)?;
        let Some(raft) = &node.raft else {
            return Ok(());
        };
        let broken =
            |violation: drave::raft::Violation| Fault::invariant(format!("node {id}: {violation}"));
        raft.check().map_err(broken)?;
        if let Some(before) = &node.observed {
            raft.check_delta(before).map_err(broken)?;
        }
        node.observed = Some(raft.observe());
        let written = &node.disk.written;
        let same = raft.last().index == written.last_index()
            && written
                .indexed()
                .all(|(index, entry)| raft.term_at(index) == Some(entry.term));
        if !same {
            return Err(Fault::invariant(format!(
                "node {id}: core and log hold different entries"
            )));
        }
        // What the core takes for durable is on the platter.
        let held = raft.durable_index();
        let durable = &node.disk.durable;
        let on_platter = (durable.start.last.index + 1..=held)
            .filter(|index| *index > written.start.last.index)
            .all(|index| durable.get(index) == written.get(index));
        if !on_platter || held > durable.last_index() {
            return Err(Fault::invariant(format!(
                "node {id}: entry {held} counts as durable and is not on the disk"
            )));
        }
        Ok(())
    }

    /// What must hold of the cluster after every command.
    pub(super) fn check_cluster(&self) -> Result<(), Fault> {
        let witness = |(id, node): (&NodeId, &'_ Node)| -> (NodeId, bool) { (*id, node.wiped) };
        let facts: Vec<(NodeId, bool)> = self.nodes.iter().map(witness).collect();
        let witnesses: Vec<Witness<'_>> = facts
            .into_iter()
            .map(|(id, wiped)| Witness {
                id,
                written: &self.nodes[&id].disk.written,
                durable: &self.nodes[&id].disk.durable,
                wiped,
            })
            .collect();
        Oracle::check_log_matching(&witnesses)?;
        self.oracle.check_durable(&witnesses)
    }

    /// Lets everything happen that needs no timer: flushes and messages, among these nodes.
    pub(super) fn settle(&mut self, among: &BTreeSet<NodeId>) -> Result<(), Fault> {
        const ROUNDS_MAX: usize = 1_000;
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            for id in among {
                if self.node(*id)?.raft.is_some() && self.node(*id)?.disk.is_busy() {
                    busy = true;
                    self.flush(*id, Part::All)?;
                }
            }
            let keys: Vec<u64> = self.pool.envelopes.keys().copied().collect();
            for key in keys {
                let Some(envelope) = self.pool.envelopes.get(&key) else {
                    continue;
                };
                let between = among.contains(&envelope.from) && among.contains(&envelope.to);
                if !between || envelope.held || self.pool.is_cut(envelope) {
                    continue;
                }
                busy = true;
                self.deliver_key(key)?;
            }
            if !busy {
                return Ok(());
            }
        }
        Err(Fault::invariant(format!(
            "{ROUNDS_MAX} rounds of messages did not come to an end"
        )))
    }

    /// Takes a message out of the pool and delivers it; what a node that is down gets is lost.
    pub(super) fn deliver_key(&mut self, key: u64) -> Result<(), Fault> {
        let Some(envelope) = self.pool.envelopes.remove(&key) else {
            return Ok(());
        };
        if self.node(envelope.to)?.raft.is_none() {
            return Ok(());
        }
        self.deliver(envelope)
    }
}
