//! The loop: waits for sockets, disk, helper or a deadline, takes everything there is, lets the replica
//! decide, sends what may leave, starts the next flush.

mod damage;
mod disk;
mod inbox;
mod stages;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use drave_batch::wire;
use drave_net::{ConnId, Net, NetEvent};
use drave_wal::ReadError;
use tokio::time::{Instant, sleep_until};

use damage::Leaving;

use super::bind::bind;
use super::clock::Clock;
use super::entries::Entries;
use super::group_log::Completion;
use super::helper::Finished;
use super::peers::{Dialing, Peers};
use super::pins::Pins;
use super::scrub::{Found, Scrubber};
use super::snapshots::{Origin, SnapshotFiles};
use super::start::Opened;
use super::watch::DiskWatch;
use super::{Carrier, GroupLog, Helper, JobKey, Latency, NodeError, settings};
use crate::raft::RoleKind;
use crate::replica::{Fatal, Now, Replica};
use crate::service::{Context, NodeFacts, Service, role_name};
use crate::store::Store;

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
    /// A snapshot that this node needs could not be kept.
    NotKept,
    /// The lead was handed over because of this node's disk.
    Disk,
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
    /// Reads what is not in memory.
    helper: Helper,
    /// Stores and removes snapshots, which may take long: nobody's reads wait behind that.
    keeper: Helper,
    scrubber: Scrubber,
    carrier: Carrier,
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
    latency: Latency,
    /// Until when status tells why the lead was handed over.
    disk_told_until_us: u64,
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
            keeper,
            scrubber,
            pins,
            snapshots,
            io_engine,
        } = opened;
        let judged = Rc::clone(&pins);
        let settings = settings::Judge::new(settings::of(&config));
        let policy = move |hello: &wire::Hello| {
            judged
                .borrow_mut()
                .judge(hello.node_id, hello.incarnation)?;
            settings.judge(hello.node_id, hello.settings.as_ref())
        };
        let (net, source) = bind(&store, &config, policy)?;

        let next_index = replica.raft().last().index + 1;
        let latency = Latency::new(clock.now().mono_us, next_index);
        let peers = Peers::new(0, config.raft.append_bytes_max.0);
        let facts = NodeFacts {
            group_id: 0,
            node_id: store.identity.node_id,
            io_engine,
            started_us: clock.now().mono_us,
            fault: String::new(),
            scrub: scrubber.status(),
        };
        let mut node = Self {
            net: Rc::new(net),
            clock,
            log,
            replica,
            helper,
            keeper,
            scrubber,
            carrier: Carrier::default(),
            peers,
            entries: Entries::new(0),
            service: Service::new(
                config.limits.tails_max as usize,
                config.limits.client_quota(),
            ),
            facts,
            faults: BTreeMap::new(),
            pins,
            source,
            snapshots,
            departing: 0,
            keepalive_due_us: 0,
            damage: None,
            latency,
            disk_told_until_us: 0,
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
            let deadline = deadline.min(leave_us).min(self.scrubber.deadline_us());
            let deadline = deadline.min(self.carrier.deadline_us(&self.replica));
            let deadline = Instant::from_std(self.clock.instant(deadline));
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = net.wait() => {}
                () = disk.ready() => {}
                () = self.helper.finished() => {}
                () = self.keeper.finished() => {}
                () = self.scrubber.finished() => {}
                () = sleep_until(deadline) => {}
            }
        }
        tracing::info!("stopping");
        Box::pin(self.stop()).await.map(|()| Ended::Stopped)
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

    /// Goes on with carrying over what holds back space.
    fn carry_over(&mut self, now: Now) -> Result<(), Fatal> {
        let job = self.carrier.turn(now, &mut self.replica, &mut self.log)?;
        if let Some(job) = job
            && !self.helper.submit(JobKey::Carry, job)
        {
            self.carrier.on_not_read(now);
        }
        Ok(())
    }

    /// Takes all there is and does all that follows from it.
    fn turn(&mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        self.latency.begin_turn(now.mono_us);
        let since_us = self.waiting_since_us(now);
        self.take_completions(now)?;
        self.take_events(now)?;
        self.take_helper_results(now)?;
        if self.replica.next_deadline_us() <= now.mono_us {
            self.replica.tick(now, &mut self.log)?;
        }
        self.carry_over(now)?;
        self.note_appended(since_us, now);
        let keepalive_is_due = self.keepalive_due_us <= now.mono_us;
        if keepalive_is_due {
            self.keepalive_due_us = now.mono_us + KEEPALIVE_US;
        }
        let (service, mut context) = self.lend(now);
        if keepalive_is_due {
            service.keepalive(&mut context);
        }
        service.turn(&mut context);
        self.note_answered(now);
        self.turn_snapshots(now)?;
        if self.replica.outputs.members_changed || self.departing != self.departing_peers().count()
        {
            self.follow_members();
        }
        self.replica.set_credit(self.log.credit_bytes());
        self.mind_disk(now)?;
        self.send_messages();
        let sent_us = self.clock.mono_us();
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
        self.scrub(now)?;
        let fault = self.faults.values().next().map_or("", String::as_str);
        if self.facts.fault != fault {
            self.facts.fault = fault.to_owned();
        }
        self.log.wal.submit();
        self.note_sent(sent_us);
        self.tell_roles();
        Ok(())
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
            latency: &self.latency,
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

    /// Takes a snapshot when one is due, stores what a leader sent, lets the log begin later when it may.
    fn turn_snapshots(&mut self, now: Now) -> Result<(), Fatal> {
        if self.replica.snapshot_due() {
            let snapshot = self.replica.take_snapshot();
            let id = snapshot.last;
            let (bytes, limit) = (snapshot.encoded_bytes(), self.replica.snapshot_bytes_max());
            if bytes > limit {
                tracing::warn!(
                    bytes,
                    limit,
                    "the state has grown beyond snapshots.bytes_max: a member that needs a snapshot \
                     refuses it until the limit is raised there, and trimming logs makes it smaller"
                );
            }
            let encode = move || snapshot.encode();
            let store = self.snapshots.store(id, Origin::Own, encode);
            if !self
                .keeper
                .run(move || Finished::SnapshotStored(id, store()))
            {
                self.replica.snapshot_not_stored(id.index);
            }
        }
        if let Some((id, bytes)) = self.replica.outputs.store_snapshot.take() {
            let store = self.snapshots.store(id, Origin::Received, || bytes);
            if !self
                .keeper
                .run(move || Finished::ReceivedStored(id, store()))
            {
                self.replica.on_snapshot_not_durable(now, id);
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
            self.keeper.run(move || Finished::Removed(remove()));
        }
    }

    fn send_messages(&mut self) {
        let own = self.own_disk();
        while let Some((to, message)) = self.replica.outputs.sends.pop_front() {
            self.peers.send(&self.net, to, &message, own);
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
