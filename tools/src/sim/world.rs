//! The run: one time, one queue of events, and after each the checks.

use drave::node::CarryLimits;
use drave::raft::RoleKind;
use drave::replica::Answer;
use drave_batch::control::Members;
use drave_batch::wire::Lane;
use drave_wal::{CrashMode, MemoryDisk};

use super::client::{Client, Purpose, Reply, Settled};
use super::clock::Clock;
use super::fate::Fate;
use super::faults::Fault;
use super::invariants::bounded_queues::Bounds;
use super::invariants::{Violation, fences_hold, reads_linearizable_6_4};
use super::network::{Event, LinkId, Network, Packet, Payload, Queue};
use super::node::{Input, Life, Node, Outbox, Process, SendLimits, Stop};
use super::operator::OPERATOR;
use super::oracle::Oracle;
use super::plan::Plan;
use super::random::Random;
use super::snapshots::SnapshotStore;
use super::start::{RECORD_BYTES_MAX, Refused, Setup, hard_state, initial_members};
use super::tally::Tally;
use super::trace::Trace;

/// A run that takes more events than so many, hundreds of times the usual, goes round in circles.
const EVENTS_MAX: u64 = 5_000_000;

/// A cluster and everything around it.
pub struct World {
    /// What was drawn.
    pub plan: Plan,
    /// True time.
    pub now_us: u64,
    /// What is to happen.
    pub queue: Queue,
    /// Links.
    pub network: Network,
    /// Nodes, spare places included.
    pub nodes: Vec<Node>,
    /// Clients.
    pub clients: Vec<Client>,
    /// Checkers.
    pub oracle: Oracle,
    /// What goes wrong next.
    pub fate: Fate,
    /// Counts.
    pub tally: Tally,
    /// Hash and timeline.
    pub trace: Trace,
    /// Places that are or were a member's: those before it.
    pub used: usize,
    /// Numbers of operations.
    operations: u64,
    random: Random,
    members: Members,
    out: Outbox,
}

impl World {
    /// A cluster at time 0, its nodes about to start.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn new(plan: Plan, lines: bool) -> Result<Self, Violation> {
        let slots = plan.nodes + plan.spares;
        let members = initial_members(plan.nodes);
        let mut random = Random::new(plan.options.seed, 3);
        let limits = &plan.limits;
        let item = u64::from(RECORD_BYTES_MAX) * plan.records_max + limits.append_bytes_max;
        let bounds = Bounds {
            uncommitted_bytes_max: limits.uncommitted_bytes_max,
            window_entries_max: limits.window_entries_max,
            window_bytes_max: limits.window_bytes_max,
            queue_bytes_max: limits.queue_bytes_max,
            item_bytes_max: item + 1_000,
        };
        let nodes = (0..slots)
            .map(|slot| Node {
                slot,
                disk: MemoryDisk::new(),
                snapshots: SnapshotStore::default(),
                clock: Clock::new(0, plan.clock_rate(&mut random)),
                timers: plan.timers_of(&mut random),
                process: None,
                starts: 0,
                inbox: std::collections::VecDeque::new(),
                busy_until_us: 0,
                wake_us: u64::MAX,
                life: Life::Alive,
                is_damaged: false,
                disk_us: plan.disk_us,
            })
            .collect();
        let mut world = Self {
            now_us: 0,
            queue: Queue::default(),
            network: Network::new(&plan, slots),
            nodes,
            clients: (0..plan.clients as usize)
                .map(|slot| Client::new(slot, &plan))
                .collect(),
            oracle: Oracle::new(bounds, members.clone()),
            fate: Fate::new(&plan),
            tally: Tally::default(),
            trace: Trace::new(lines),
            used: plan.nodes,
            operations: 0,
            random,
            members,
            out: Outbox::default(),
            plan,
        };
        for slot in 0..slots {
            let setup = world.setup(slot);
            let formatted = setup.format(&world.nodes[slot].disk);
            formatted.map_err(|refused| world.broken("a new disk", &refused))?;
            world.queue.push(0, Event::Start(slot));
        }
        for client in 0..world.clients.len() {
            let at_us = world.random.range(0, world.plan.think_us.1);
            world.queue.push(at_us, Event::Client(client));
        }
        Ok(world)
    }

    fn broken(&self, what: &str, refused: &Refused) -> Violation {
        Violation {
            invariant: "recovery",
            what: format!("{what}: {refused:?}"),
        }
    }

    /// Places of nodes.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// What a node would start with now.
    pub fn setup(&mut self, slot: usize) -> Setup {
        let seed = self.random.next();
        let node = &self.nodes[slot];
        Setup {
            slot,
            timers: node.timers,
            limits: self.plan.limits,
            pre_vote: !self.plan.faults.has(Fault::NoPreVote),
            has_leases: self.plan.faults.has(Fault::Lease),
            // A node that joins knows no members.
            members: if slot < self.plan.nodes {
                self.members.clone()
            } else {
                Members::first(Vec::new())
            },
            disk_us: node.disk_us,
            seed,
        }
    }

    /// The running leader of the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let led = self.nodes.iter().filter_map(|node| {
            let raft = node.process.as_ref()?.replica.raft();
            (raft.role() == RoleKind::Leader).then_some((raft.term(), node.slot))
        });
        led.max().map(|(_, slot)| slot)
    }

    /// When something happens next.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        let nodes = self.nodes.iter().map(|node| node.wake_us).min();
        self.queue.next_us().min(nodes.unwrap_or(u64::MAX))
    }

    /// Lets the next thing happen.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn step(&mut self) -> Result<(), Violation> {
        let queued_us = self.queue.next_us();
        let (mut slot, mut wake_us) = (0, u64::MAX);
        for node in &self.nodes {
            if node.wake_us < wake_us {
                (slot, wake_us) = (node.slot, node.wake_us);
            }
        }
        self.tally.events += 1;
        if self.tally.events > EVENTS_MAX {
            return Err(Violation {
                invariant: "liveness",
                what: format!("{EVENTS_MAX} events and no end: messages beget messages"),
            });
        }
        if queued_us <= wake_us {
            self.now_us = self.now_us.max(queued_us);
            return match self.queue.pop() {
                Some(event) => self.happen(event),
                None => Ok(()),
            };
        }
        self.now_us = self.now_us.max(wake_us);
        self.turn(slot)
    }

    /// Runs until `until_us` or an error.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn run_until(&mut self, until_us: u64) -> Result<(), Violation> {
        while self.next_us() < until_us {
            self.step()?;
        }
        self.now_us = self.now_us.max(until_us);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Packet(packet) => self.arrive(packet),
            Event::Dial(link) => {
                self.dial(link);
                Ok(())
            }
            Event::Dialed(link, epoch) => {
                if self.network.epoch(link) != Some(epoch) {
                    return Ok(());
                }
                let (dialer, acceptor) = link.ends(self.slots());
                self.trace.line(self.now_us, || {
                    format!(
                        "n{} reached n{} for {:?}",
                        dialer + 1,
                        acceptor + 1,
                        link.lane()
                    )
                });
                self.put(dialer, Input::Dialed(link, epoch))
            }
            Event::Closed {
                link,
                epoch,
                dialer,
            } => {
                let ends = link.ends(self.slots());
                let slot = if dialer { ends.0 } else { ends.1 };
                self.trace.line(self.now_us, || {
                    let (a, b) = (ends.0 + 1, ends.1 + 1);
                    format!(
                        "n{} lost the connection of n{a} to n{b} for {:?}",
                        slot + 1,
                        link.lane()
                    )
                });
                self.put(slot, Input::Closed(link, epoch))
            }
            Event::Request(client, request) => {
                let node = request.0;
                self.put(node, Input::Request(client, Box::new(request.1)))
            }
            Event::Reply(reply) => self.reply(&reply),
            Event::Client(client) => self.client(client),
            Event::Fate => Fate::step(self),
            Event::Start(slot) => self.start(slot),
            Event::Isolate(slot) => {
                if !self.fate.is_over() {
                    Fate::isolate(self, slot);
                }
                Ok(())
            }
            Event::Crash(slot) => {
                Fate::crash(self, slot);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, packet: Packet) -> Result<(), Violation> {
        let to = packet.to;
        let Some(packet) = self.network.lets_through(packet) else {
            return Ok(());
        };
        if self.nodes[to].process.is_none() {
            return Ok(());
        }
        self.trace_packet(&packet);
        self.put(to, Input::Peer(packet.from, packet.payload))
    }

    fn trace_packet(&mut self, packet: &Packet) {
        let numbers = match &packet.payload {
            Payload::Core(message) => [self.now_us, packet.to as u64, message.term(), 1],
            Payload::Append(append) => {
                let (message, bytes) = &**append;
                [
                    self.now_us,
                    message.prev_index,
                    message.term,
                    bytes.len() as u64,
                ]
            }
            Payload::Chunk(part) => [
                self.now_us,
                part.0.snapshot_index,
                part.0.offset,
                part.0.session,
            ],
            Payload::ChunkReply(reply) => [self.now_us, reply.snapshot_index, reply.next_offset, 2],
            Payload::Disk(disk) => [self.now_us, disk.flush_us, disk.waits_us, 3],
        };
        self.trace.note(numbers);
        self.trace.line(self.now_us, || {
            let text = match &packet.payload {
                Payload::Core(message) => format!("{message:?}"),
                Payload::Chunk(part) => format!("{:?}", part.0),
                Payload::ChunkReply(reply) => format!("{reply:?}"),
                Payload::Disk(disk) => format!("{disk:?}"),
                Payload::Append(append) => {
                    let (m, bytes) = &**append;
                    format!(
                        "Append {{ term {}, after {}@{}, {} entries, {} bytes, commit {}, session {} }}",
                        m.term, m.prev_index, m.prev_term, m.batch_count, bytes.len(), m.commit_index, m.session
                    )
                }
            };
            format!("n{} -> n{} {text}", packet.from + 1, packet.to + 1)
        });
    }

    /// A node takes something, now or when it is free again.
    pub fn put(&mut self, slot: usize, input: Input) -> Result<(), Violation> {
        let node = &mut self.nodes[slot];
        if node.process.is_none() {
            return Ok(());
        }
        node.inbox.push_back(input);
        if node.busy_until_us > self.now_us {
            node.wake_us = node.wake_us.min(node.busy_until_us);
            return Ok(());
        }
        self.turn(slot)
    }

    /// A node's turn, what it sends, and the checks.
    fn turn(&mut self, slot: usize) -> Result<(), Violation> {
        let limits = SendLimits {
            append_bytes_max: self.plan.limits.append_bytes_max,
            append_entries_max: self.plan.limits.append_entries_max,
            chunk_bytes_max: self.plan.limits.chunk_bytes_max,
            cold_us: self.plan.disk_us.1,
        };
        let slots = self.slots();
        let mut out = std::mem::take(&mut self.out);
        let node = &mut self.nodes[slot];
        let turned = node.turn(self.now_us, slots, limits, &mut out);
        if let Err(stop) = turned {
            self.out = Outbox::default();
            return self.stopped(slot, stop);
        }
        self.oracle.after_turn(&self.nodes, slot, &out)?;
        let node = &mut self.nodes[slot];
        if let Some(process) = &mut node.process {
            let raft = process.replica.raft();
            let numbers = [
                slot as u64,
                raft.term(),
                raft.commit_index(),
                raft.last().index,
            ];
            self.trace.note(numbers);
            process.log.shadow.looked();
        }
        if self.plan.turn_us > 0 {
            node.busy_until_us = node.busy_until_us.max(self.now_us + self.plan.turn_us);
        }
        self.deliver(slot, &mut out)?;
        self.nodes[slot].schedule();
        self.out = out;
        if self.tally.events.is_multiple_of(4096) {
            self.oracle.look_at_all_of(&self.nodes[slot])?;
        }
        Ok(())
    }

    fn deliver(&mut self, slot: usize, out: &mut Outbox) -> Result<(), Violation> {
        let slots = self.slots();
        for (to, lane, dialed, payload) in out.peers.drain(..) {
            if to >= slots || to == slot {
                continue;
            }
            let link = if dialed {
                LinkId::new(slots, slot, to, lane)
            } else {
                LinkId::new(slots, to, slot, lane)
            };
            let known = self.nodes[slot].process.as_ref().and_then(|p| p.link(link));
            let Some(epoch) = known else {
                continue;
            };
            let packet = Packet {
                from: slot,
                to,
                link,
                epoch,
                payload,
            };
            self.network.send(self.now_us, &mut self.queue, packet);
        }
        for (role, term, leader) in out.roles.drain(..) {
            Fate::role_changed(self, slot, role == RoleKind::Leader);
            self.trace.line(self.now_us, || {
                format!(
                    "n{} is {role:?} in term {term}, leader {leader:?}",
                    slot + 1
                )
            });
        }
        for reply in out.replies.drain(..) {
            if let Answer::Appended(appended) = &reply.answer {
                self.oracle.acknowledges(reply.request_id, appended)?;
            }
            self.trace.line(self.now_us, || {
                format!(
                    "n{} -> c{} {} {:?}",
                    slot + 1,
                    reply.client,
                    reply.request_id,
                    reply.answer
                )
            });
            // A second copy of an answer changes nothing for a client, so only the first is sent.
            if let [Some(delay_us), _] = self.network.client_delays() {
                self.queue
                    .push(self.now_us + delay_us, Event::Reply(Box::new(reply)));
            }
        }
        Ok(())
    }

    /// A node stopped by itself. Only a failed disk, or damaged bytes, may bring that about.
    fn stopped(&mut self, slot: usize, stop: Stop) -> Result<(), Violation> {
        let reason = match stop {
            Stop::Fatal(fatal) => fatal.reason,
            Stop::Malformed(what) => {
                return Err(Violation {
                    invariant: "peers_are_understood",
                    what: format!("node {}: {what}", slot + 1),
                });
            }
        };
        self.trace
            .line(self.now_us, || format!("n{} stops: {reason}", slot + 1));
        let node = &self.nodes[slot];
        if !self.fate.excuses(self.now_us, slot) && !node.is_damaged {
            return Err(Violation {
                invariant: "node_keeps_serving",
                what: format!("node {} stopped: {reason}", slot + 1),
            });
        }
        self.tally.stops += 1;
        self.kill(slot);
        let at_us = self.now_us + self.random.range(1_000, self.plan.election_us);
        self.queue.push(at_us, Event::Start(slot));
        Ok(())
    }

    /// A node's process ends; its disk goes on. Its machine closes its connections.
    pub fn kill(&mut self, slot: usize) {
        self.end(slot, true);
    }

    /// A node loses power, and any part of what its disk had not flushed. Nobody is told.
    pub fn crash(&mut self, slot: usize, mode: CrashMode, seed: u64) {
        self.end(slot, false);
        self.nodes[slot].disk.crash(mode, seed);
    }

    fn end(&mut self, slot: usize, tells: bool) {
        let node = &mut self.nodes[slot];
        node.inbox.clear();
        let Some(process) = node.process.take() else {
            return;
        };
        node.snapshots.crash(&mut self.random);
        node.schedule();
        self.oracle.ended(slot, process);
        self.trace
            .line(self.now_us, || format!("n{} is gone", slot + 1));
        self.trace.note([self.now_us, slot as u64, 0, 99]);
        for peer in 0..self.slots() {
            for lane in [Lane::Control, Lane::Append] {
                for (dialer, acceptor) in [(slot, peer), (peer, slot)] {
                    if dialer != acceptor {
                        let link = LinkId::new(self.slots(), dialer, acceptor, lane);
                        self.break_link(link, tells);
                    }
                }
            }
        }
    }

    /// A connection breaks. Its ends learn it soon, or, if nobody tells them, when they have waited long.
    pub fn break_link(&mut self, link: LinkId, tells: bool) {
        let Some(epoch) = self.network.close(link) else {
            return;
        };
        let patience_us = if tells {
            self.plan.delay_us.1
        } else {
            self.plan.election_us * 2
        };
        let closed = |dialer| Event::Closed {
            link,
            epoch,
            dialer,
        };
        let dialer_us = self.now_us + self.random.range(1, patience_us + 1);
        let acceptor_us = self.now_us + self.random.range(1, patience_us + 1);
        self.queue.push(acceptor_us, closed(false));
        self.queue.push(dialer_us, closed(true));
        let again_us = dialer_us + self.random.range(1, self.plan.delay_us.1 * 10 + 2);
        self.queue.push(again_us, Event::Dial(link));
    }

    fn dial(&mut self, link: LinkId) {
        let (dialer, acceptor) = link.ends(self.slots());
        if self.network.epoch(link).is_some() || self.nodes[dialer].process.is_none() {
            return;
        }
        let reachable = self.nodes[acceptor].process.is_some()
            && !self.network.is_cut(dialer, acceptor)
            && !self.network.is_cut(acceptor, dialer);
        if !reachable {
            let again_us = self.now_us + self.random.range(1, self.plan.election_us / 2 + 2);
            self.queue.push(again_us, Event::Dial(link));
            return;
        }
        let epoch = self.network.open(link);
        let dialed_us = self.now_us + self.network.delay();
        self.queue.push(dialed_us, Event::Dialed(link, epoch));
        let node = &mut self.nodes[acceptor];
        node.inbox.push_back(Input::Accepted(link, epoch));
        node.wake_us = node.wake_us.min(node.busy_until_us.max(self.now_us));
    }

    /// A node is started, if it is down and may come back.
    pub fn start(&mut self, slot: usize) -> Result<(), Violation> {
        if self.nodes[slot].process.is_some() || self.nodes[slot].life == Life::Dead {
            return Ok(());
        }
        let now_us = self.now_us;
        self.nodes[slot].disk.set_now_us(now_us);
        let setup = self.setup(slot);
        let node = &mut self.nodes[slot];
        let recovered = setup.recover(&node.disk);
        let (mut log, record) = match recovered {
            Ok(recovered) => recovered,
            Err(refused) => return self.refused(slot, &refused),
        };
        let state = hard_state(record);
        self.oracle.recovered(slot, &log.shadow, state)?;
        let restored = setup.restore(&mut log, record, &self.nodes[slot].snapshots);
        let replica = match restored {
            Ok(replica) => replica,
            Err(refused) => return self.refused(slot, &refused),
        };
        let node = &mut self.nodes[slot];
        node.starts += 1;
        node.clock.restart(now_us);
        // Recovery took its time; the disk's clock says how much.
        node.busy_until_us = now_us;
        let links = self.network.links();
        let plan = &self.plan.limits;
        let carried = CarryLimits {
            entry_bytes: plan.append_bytes_max.min(plan.segment_bytes / 8) as usize,
            batch_bytes_max: 16 << 10,
        };
        node.process = Some(Process::new(log, replica, state, links, carried));
        node.wake_us = now_us;
        self.tally.starts += 1;
        self.trace
            .line(now_us, || format!("n{} starts with {record:?}", slot + 1));
        self.connect(slot);
        Ok(())
    }

    /// A node dials everybody, and everybody it.
    fn connect(&mut self, slot: usize) {
        for peer in (0..self.slots()).filter(|peer| *peer != slot) {
            for lane in [Lane::Control, Lane::Append] {
                let own = LinkId::new(self.slots(), slot, peer, lane);
                let at_us = self.now_us + self.random.range(1, self.plan.delay_us.1 + 2);
                if self.network.has_connections() {
                    self.queue.push(at_us, Event::Dial(own));
                    continue;
                }
                // Without connections every link counts as up for ever.
                let theirs = LinkId::new(self.slots(), peer, slot, lane);
                for input in [Input::Dialed(own, 1), Input::Accepted(theirs, 1)] {
                    self.nodes[slot].inbox.push_back(input);
                }
                // A process that was started again is noticed: whoever sends to it connects anew.
                if self.nodes[peer].process.is_some() {
                    self.nodes[peer].inbox.push_back(Input::Dialed(theirs, 1));
                    self.nodes[peer].schedule();
                }
            }
        }
    }

    fn refused(&mut self, slot: usize, refused: &Refused) -> Result<(), Violation> {
        self.trace.line(self.now_us, || {
            format!("n{} does not start: {refused:?}", slot + 1)
        });
        if self.nodes[slot].is_damaged {
            // As it must: nothing that is damaged is served.
            self.tally.refusals += 1;
            self.nodes[slot].life = Life::Dead;
            return Ok(());
        }
        if self.fate.excuses(self.now_us, slot) {
            // A failing or full disk may refuse a start too; it is tried again.
            let at_us = self.now_us + self.random.range(1_000, self.plan.election_us);
            self.queue.push(at_us, Event::Start(slot));
            return Ok(());
        }
        Err(self.broken(&format!("node {} does not start", slot + 1), refused))
    }

    fn client(&mut self, slot: usize) -> Result<(), Violation> {
        let mut sendings = Vec::new();
        let client = &mut self.clients[slot];
        let committed = &self.oracle.committed;
        let settled = client.turn(
            self.now_us,
            &self.plan,
            self.used,
            &mut self.operations,
            &|log_id| committed.log(log_id),
            &mut sendings,
        );
        self.tally.unknown += settled.len() as u64;
        let pause_us = client.pause_us(&self.plan);
        let mut last_us = 0;
        for sending in sendings {
            self.tally.requests += 1;
            let delays = self.network.client_delays();
            for (copy, delay_us) in delays.into_iter().enumerate() {
                let Some(delay_us) = delay_us else { continue };
                if copy > 0 && !sending.may_repeat {
                    continue;
                }
                let request = (sending.node, sending.request.clone());
                // What is sent together travels on one connection, copies apart.
                let mut at_us = self.now_us + delay_us;
                if copy == 0 {
                    at_us = at_us.max(last_us);
                    last_us = at_us;
                }
                self.queue
                    .push(at_us, Event::Request(slot, Box::new(request)));
            }
        }
        self.queue.push(self.now_us + pause_us, Event::Client(slot));
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) -> Result<(), Violation> {
        if reply.client == OPERATOR {
            return Ok(());
        }
        let client = &mut self.clients[reply.client];
        client
            .check(reply, &self.plan, self.oracle.committed.producers_opened())
            .map_err(|what| Violation {
                invariant: "exactly_once_6_3",
                what,
            })?;
        if let (Some(found), Some(operation)) = (reply.tail, client.operation(reply.request_id))
            && let Purpose::Read(before) = operation.purpose
            && let Answer::Log(info) = &reply.answer
        {
            let committed = &self.oracle.committed;
            reads_linearizable_6_4::check(info.log_id, before, found, committed)?;
            self.tally.reads += 1;
        }
        if let (Answer::Appended(appended), Some(operation)) =
            (&reply.answer, client.operation(reply.request_id))
        {
            let committed = &self.oracle.committed;
            fences_hold::check(appended.index, &operation.fences, committed)?;
        }
        match client.take(self.now_us, self.used, reply) {
            Some(Settled::Done) => self.tally.done += 1,
            Some(Settled::NotWritten) => self.oracle.exactly_once.refused(reply.request_id),
            Some(Settled::Unknown) => self.tally.unknown += 1,
            None => {}
        }
        Ok(())
    }

    /// Whether bits of this node's disk may be changed.
    #[must_use]
    pub fn fate_allows_damage(&self, slot: usize) -> bool {
        let node = &self.nodes[slot];
        !node.is_damaged && node.life == Life::Alive
    }

    /// A number for an operation.
    pub fn next_operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    /// Whether no client waits for anything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.clients.iter().all(|client| client.under_way() == 0)
    }
}
