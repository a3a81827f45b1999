//! What is under way between nodes and clients, and the connections it travels on.
//!
//! A node dials every other one once per lane, sends its requests there, and answers travel back on the
//! connection that brought the request, as in the product's `node::peers`. A connection is one ordered
//! stream each way: it loses nothing, unless it breaks. With [`Fault::Datagrams`] there is no order and
//! no connection that could break: the core must survive both.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use drave::raft::Message;
use drave::replica::DiskReport;
use drave_batch::wire::{AppendEntries, Lane, SnapshotChunk, SnapshotReply};

use super::client::{Reply, Request};
use super::faults::Fault;
use super::plan::Plan;
use super::random::Random;

/// What one node sends to another.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A message of the core.
    Core(Message),
    /// An append with its batches back to back.
    Append(Box<(AppendEntries, Bytes)>),
    /// A part of a snapshot.
    Chunk(Box<(SnapshotChunk, Bytes)>),
    /// The answer to one.
    ChunkReply(SnapshotReply),
    /// How the sender's disk does: in the product it is part of the answer to a heartbeat.
    Disk(DiskReport),
}

/// A message between two nodes, by their slots.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sender.
    pub from: usize,
    /// Receiver.
    pub to: usize,
    /// The connection it is on.
    pub link: LinkId,
    /// Which life of that connection; 0 without connections.
    pub epoch: u64,
    /// What it says.
    pub payload: Payload,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrives.
    Packet(Packet),
    /// A node tries to connect.
    Dial(LinkId),
    /// The dialing node learns that its connection stands.
    Dialed(LinkId, u64),
    /// An end of a connection learns that it is gone.
    Closed {
        /// The connection.
        link: LinkId,
        /// Which life of it.
        epoch: u64,
        /// Whether it is the end that dialed.
        dialer: bool,
    },
    /// A client's request arrives at a node: the client, the node.
    Request(usize, Box<(usize, Request)>),
    /// A node's answer arrives at a client.
    Reply(Box<Reply>),
    /// A client looks at what it has under way.
    Client(usize),
    /// A step of fate.
    Fate,
    /// A node that is down is started.
    Start(usize),
    /// A node loses power.
    Crash(usize),
    /// A node is cut off, alone or with one other.
    Isolate(usize),
}

#[derive(Debug)]
struct Item {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Events in order of time, then of their making.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Item>>,
    number: u64,
}

impl Queue {
    /// Lets `event` happen at `at_us`.
    pub fn push(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        let number = self.number;
        self.heap.push(Reverse(Item {
            at_us,
            number,
            event,
        }));
    }

    /// When the next one happens.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |item| item.0.at_us)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<Event> {
        self.heap.pop().map(|item| item.0.event)
    }
}

/// A connection from one node to another, by dialer, acceptor and lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkId(u32);

impl LinkId {
    /// The connection that `dialer` makes to `acceptor` for `lane`.
    #[must_use]
    pub fn new(slots: usize, dialer: usize, acceptor: usize, lane: Lane) -> Self {
        let lane = u32::from(matches!(lane, Lane::Append));
        Self(((dialer * slots + acceptor) as u32) * 2 + lane)
    }

    /// Its place in a table of all.
    #[must_use]
    pub fn position(self) -> usize {
        self.0 as usize
    }

    /// Who dials, and who accepts.
    #[must_use]
    pub fn ends(self, slots: usize) -> (usize, usize) {
        let pair = self.0 as usize / 2;
        (pair / slots, pair % slots)
    }

    /// What it is for.
    #[must_use]
    pub fn lane(self) -> Lane {
        if self.0 % 2 == 1 {
            Lane::Append
        } else {
            Lane::Control
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Link {
    epoch: u64,
    is_open: bool,
    /// When the last message arrives, by direction: the next one comes no earlier.
    last_us: [u64; 2],
    /// What stands in front of a cut, by direction: `(from dialer, to dialer)`.
    held: Vec<Packet>,
}

/// The links, and what the weather does to messages.
#[derive(Debug)]
pub struct Network {
    slots: usize,
    random: Random,
    links: Vec<Link>,
    /// `cut[from * slots + to]`: nothing passes.
    cut: Vec<bool>,
    has_connections: bool,
    delay_us: (u64, u64),
    long_us: u64,
    loss: u64,
    delay: u64,
    duplicate: u64,
    replay: u64,
    /// Messages lost, delayed, doubled, replayed, held up.
    pub counts: [u64; 5],
}

impl Network {
    /// Links between `slots` nodes, all open for dialing.
    #[must_use]
    pub fn new(plan: &Plan, slots: usize) -> Self {
        Self {
            slots,
            random: Random::new(plan.options.seed, 2),
            links: vec![Link::default(); slots * slots * 2],
            cut: vec![false; slots * slots],
            has_connections: !plan.faults.has(Fault::Datagrams),
            delay_us: plan.delay_us,
            long_us: plan.election_us * 2,
            loss: plan.loss,
            delay: plan.delay,
            duplicate: plan.duplicate,
            replay: plan.replay,
            counts: [0; 5],
        }
    }

    /// Nothing is lost or late from now on.
    pub fn calm(&mut self) {
        (self.loss, self.delay, self.duplicate, self.replay) = (0, 0, 0, 0);
    }

    /// How many connections there may be.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether messages travel on connections.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        self.has_connections
    }

    /// Whether nothing passes from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.slots + to]
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to {
            self.cut[from * self.slots + to] = true;
        }
    }

    /// Cuts every link between two of different groups; `group_of` names a node's.
    pub fn split(&mut self, group_of: impl Fn(usize) -> usize) {
        for from in 0..self.slots {
            for to in 0..self.slots {
                if group_of(from) != group_of(to) {
                    self.cut(from, to);
                }
            }
        }
    }

    /// Mends every cut; what was held up goes on.
    pub fn heal(&mut self, now_us: u64, queue: &mut Queue) {
        self.cut.fill(false);
        for position in 0..self.links.len() {
            for packet in std::mem::take(&mut self.links[position].held) {
                self.queue_in_order(now_us, queue, packet);
            }
        }
    }

    /// A one-way delay as usual, or a long one.
    pub fn delay(&mut self) -> u64 {
        if self.random.chance(self.delay) {
            self.counts[1] += 1;
            return self.random.magnitude(self.delay_us.1, self.long_us);
        }
        self.random.range(self.delay_us.0, self.delay_us.1)
    }

    /// The life of a connection, while it stands.
    #[must_use]
    pub fn epoch(&self, link: LinkId) -> Option<u64> {
        let state = &self.links[link.position()];
        state.is_open.then_some(state.epoch)
    }

    /// A connection comes to stand.
    pub fn open(&mut self, link: LinkId) -> u64 {
        let state = &mut self.links[link.position()];
        state.epoch += 1;
        state.is_open = true;
        state.last_us = [0; 2];
        state.epoch
    }

    /// A connection breaks: what is on it is lost. Gives the life that ended, if it stood.
    pub fn close(&mut self, link: LinkId) -> Option<u64> {
        let state = &mut self.links[link.position()];
        state.held.clear();
        std::mem::take(&mut state.is_open).then_some(state.epoch)
    }

    /// Whether a message that arrives is still on a connection that stands, and nothing is in its way.
    /// A message in front of a cut waits there.
    pub fn lets_through(&mut self, packet: Packet) -> Option<Packet> {
        let blocked = self.is_cut(packet.from, packet.to);
        if !self.has_connections {
            self.counts[0] += u64::from(blocked);
            return (!blocked).then_some(packet);
        }
        let state = &mut self.links[packet.link.position()];
        if !state.is_open || state.epoch != packet.epoch {
            return None;
        }
        let waits_behind = state
            .held
            .iter()
            .any(|held| (held.from, held.to) == (packet.from, packet.to));
        if blocked || waits_behind {
            self.counts[4] += 1;
            state.held.push(packet);
            return None;
        }
        Some(packet)
    }

    /// Sends a message. Without a connection it is lost, as any message may be.
    pub fn send(&mut self, now_us: u64, queue: &mut Queue, packet: Packet) {
        if self.has_connections {
            // A connection that loses a message is a connection that breaks: that is `Fault::Reset`.
            if self.epoch(packet.link) == Some(packet.epoch) {
                self.queue_in_order(now_us, queue, packet);
            }
            return;
        }
        if self.random.chance(self.loss) {
            self.counts[0] += 1;
            return;
        }
        if self.random.chance(self.duplicate) {
            self.counts[2] += 1;
            let at_us = now_us + self.delay();
            queue.push(at_us, Event::Packet(packet.clone()));
        }
        if self.random.chance(self.replay) {
            self.counts[3] += 1;
            let at_us = now_us + self.random.magnitude(self.delay_us.1, self.long_us * 2);
            queue.push(at_us, Event::Packet(packet.clone()));
        }
        let at_us = now_us + self.delay();
        queue.push(at_us, Event::Packet(packet));
    }

    fn queue_in_order(&mut self, now_us: u64, queue: &mut Queue, packet: Packet) {
        let delay_us = self.delay();
        let (dialer, _) = packet.link.ends(self.slots);
        let back = usize::from(packet.from != dialer);
        let state = &mut self.links[packet.link.position()];
        let at_us = state.last_us[back].max(now_us + delay_us);
        state.last_us[back] = at_us;
        queue.push(at_us, Event::Packet(packet));
    }

    /// What a client's or a node's message to the other meets: lost, or a delay, and perhaps a second copy.
    pub fn client_delays(&mut self) -> [Option<u64>; 2] {
        let first = if self.random.chance(self.loss / 2) {
            self.counts[0] += 1;
            None
        } else {
            Some(self.delay())
        };
        let second = self.random.chance(self.duplicate / 2).then(|| self.delay());
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Options;
    use super::*;
    use drave::raft::TimeoutNow;

    fn packet(link: LinkId, from: usize, to: usize, epoch: u64, term: u64) -> Packet {
        let payload = Payload::Core(Message::TimeoutNow(TimeoutNow { term }));
        Packet {
            from,
            to,
            link,
            epoch,
            payload,
        }
    }

    fn arrivals(network: &mut Network, queue: &mut Queue) -> Vec<u64> {
        let mut terms = Vec::new();
        while let Some(event) = queue.pop() {
            if let Event::Packet(packet) = event
                && let Some(packet) = network.lets_through(packet)
                && let Payload::Core(message) = packet.payload
            {
                terms.push(message.term());
            }
        }
        terms
    }

    #[test]
    fn a_connection_keeps_order_holds_at_a_cut_and_loses_all_when_it_breaks() {
        let mut plan = Plan::draw(&Options::of(1));
        plan.faults = FaultSet::default();
        plan.delay = 500;
        let (mut network, mut queue) = (Network::new(&plan, 3), Queue::default());
        let link = LinkId::new(3, 0, 2, Lane::Append);
        assert_eq!(link.ends(3), (0, 2));
        let epoch = network.open(link);
        for term in 0..50 {
            network.send(term, &mut queue, packet(link, 0, 2, epoch, term));
        }
        assert_eq!(
            arrivals(&mut network, &mut queue),
            (0..50).collect::<Vec<_>>()
        );
        network.cut(0, 2);
        for term in 50..60 {
            network.send(100, &mut queue, packet(link, 0, 2, epoch, term));
        }
        assert!(arrivals(&mut network, &mut queue).is_empty());
        network.heal(200, &mut queue);
        assert_eq!(
            arrivals(&mut network, &mut queue),
            (50..60).collect::<Vec<_>>()
        );
        network.send(300, &mut queue, packet(link, 0, 2, epoch, 99));
        assert_eq!(network.close(link), Some(epoch));
        assert_eq!(network.open(link), epoch + 1);
        assert!(arrivals(&mut network, &mut queue).is_empty());
    }

    use super::super::faults::FaultSet;
}
