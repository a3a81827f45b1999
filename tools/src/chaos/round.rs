//! One round: faults strike and end at their times, everything heals, the cluster must be back in time,
//! and what the clients did must be explained by the logs.

use std::collections::BTreeSet;
use std::net::TcpStream;

use drave_client::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::network;
use super::plan::{Fault, FaultKind, Link, Plan, Shape, Victim, links};
use super::random::Random;
use super::recorder::{Acked, Interrupted, Recorder, first_after};
use crate::cluster::{Cluster, wait};
use crate::errors::CliError;
use crate::exit::Exit;

/// How long a node may take from its start until it takes connections.
const START_US_MAX: u64 = 60_000_000;

/// Between two attempts to connect to a node that was started.
const LISTENING_PAUSE_US: u64 = 5_000;

/// How a leader was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Its process was killed: its connections end, so that everybody knows at once.
    Killed,
    /// It was stopped or cut off both ways: only its silence tells.
    Silenced,
}

/// A leader that was lost while nothing else was wrong.
#[derive(Clone, Copy, Debug)]
pub struct LostLeader {
    /// How.
    pub loss: Loss,
    at_us: u64,
    /// The lost leader's term: only an acknowledgement of a later one is a new leader's.
    term: u64,
    /// When something else happened; from then on the time says nothing.
    until_us: u64,
}

impl LostLeader {
    /// From the loss to the first acknowledgement of the next leader.
    #[must_use]
    pub fn failover_us(&self, acks: &[Acked]) -> Option<u64> {
        let later = |acked: &&Acked| acked.at_us > self.at_us && acked.term > self.term;
        let first = acks.iter().find(later)?;
        (first.at_us < self.until_us).then(|| first.at_us - self.at_us)
    }
}

/// A moment from which on nothing was wrong any more.
#[derive(Clone, Copy, Debug)]
pub struct Healing {
    at_us: u64,
    /// When the next fault struck.
    until_us: u64,
}

/// What became of a healing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recovery {
    /// The first acknowledgement came so long after it.
    After(u64),
    /// The next fault struck before it was due.
    Disturbed,
    /// None came, or none in time before the next fault.
    Never,
}

impl Healing {
    /// When it was.
    #[must_use]
    pub fn at_us(&self) -> u64 {
        self.at_us
    }

    /// From the healing to the next acknowledgement, which is due after `due_us`.
    #[must_use]
    pub fn recovery(&self, acks: &[Acked], due_us: u64) -> Recovery {
        let first = first_after(acks, self.at_us).filter(|acked| acked.at_us < self.until_us);
        match first {
            Some(acked) => Recovery::After(acked.at_us - self.at_us),
            None if self.until_us - self.at_us < due_us => Recovery::Disturbed,
            None => Recovery::Never,
        }
    }
}

/// What was done in a round.
#[derive(Debug, Default)]
pub struct Struck {
    /// The faults that struck, in order.
    pub kinds: Vec<FaultKind>,
    /// Losses of leaders that can be timed.
    pub lost_leaders: Vec<LostLeader>,
    /// When everything was well again, time after time; the last one is the end of the round's faults.
    pub healings: Vec<Healing>,
    /// From the start of a dead node, the last of several, until all nodes took connections.
    pub starts_us: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Strike(Fault),
    Restart(u64),
    Resume(u64),
    Heal(usize),
}

/// A leader, if there is one that everybody can speak to.
#[derive(Clone, Copy)]
struct Leader {
    node_id: u64,
    term: u64,
    is_live: bool,
}

/// Carries out a plan.
pub struct Striker<'a> {
    /// The nodes.
    pub cluster: &'a mut Cluster,
    /// To ask who leads.
    pub client: &'a Client,
    /// Drives the client.
    pub runtime: &'a Runtime,
    /// The clock.
    pub recorder: &'a Recorder,
    /// For the order of restarts.
    pub random: &'a mut Random,
    /// Events to come, by time.
    events: Vec<(u64, Event)>,
    dead: BTreeSet<u64>,
    paused: BTreeSet<u64>,
    cuts: Vec<Vec<Link>>,
    /// Dead nodes were started since everything was well last.
    had_starts: bool,
    struck: Struck,
}

impl<'a> Striker<'a> {
    /// Everything is well so far.
    pub fn new(
        cluster: &'a mut Cluster,
        client: &'a Client,
        runtime: &'a Runtime,
        recorder: &'a Recorder,
        random: &'a mut Random,
    ) -> Self {
        Self {
            cluster,
            client,
            runtime,
            recorder,
            random,
            events: Vec::new(),
            dead: BTreeSet::new(),
            paused: BTreeSet::new(),
            cuts: Vec::new(),
            had_starts: false,
            struck: Struck::default(),
        }
    }

    /// Carries the plan out, and heals everything when `round_ms` are over. At least one healing is noted.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses, when a node ends by itself, or when interrupted.
    pub fn carry_out(mut self, plan: &Plan, round_ms: u64) -> Result<Struck, CliError> {
        let begin_us = self.recorder.now_us();
        let end_us = begin_us + round_ms * 1000;
        for (at_ms, fault) in &plan.faults {
            self.at(begin_us + at_ms * 1000, Event::Strike(*fault));
        }
        while let Some((due_us, event)) = self.next_event(end_us) {
            self.recorder.wait_until(due_us).map_err(interrupted)?;
            self.happen(event)?;
            self.expect_alive()?;
        }
        self.recorder.wait_until(end_us).map_err(interrupted)?;
        self.heal_all()?;
        self.expect_alive()?;
        Ok(self.struck)
    }

    fn at(&mut self, due_us: u64, event: Event) {
        self.events.push((due_us, event));
    }

    fn next_event(&mut self, end_us: u64) -> Option<(u64, Event)> {
        let due = self.events.iter().enumerate();
        let (at, (due_us, _)) = due.min_by_key(|(_, (due_us, _))| *due_us)?;
        (*due_us < end_us).then(|| self.events.remove(at))
    }

    fn happen(&mut self, event: Event) -> Result<(), CliError> {
        let was_well = self.is_well();
        let started_us = matches!(event, Event::Restart(_)).then(|| self.recorder.now_us());
        match event {
            Event::Strike(fault) => self.strike(fault)?,
            Event::Restart(node_id) => self.restart(node_id)?,
            Event::Resume(node_id) => self.resume(node_id)?,
            Event::Heal(cut) => {
                self.cuts[cut].clear();
                self.set_cuts()?;
            }
        }
        if self.is_well() && !was_well {
            self.note_healing(started_us)?;
        }
        Ok(())
    }

    /// Everything is well once every node takes connections: one that was started reads its log first.
    /// `started_us` is when, if it was the start of the last dead node that healed everything.
    fn note_healing(&mut self, started_us: Option<u64>) -> Result<(), CliError> {
        let healed_us = self.recorder.now_us();
        let had_starts = std::mem::take(&mut self.had_starts);
        for node_id in self.cluster.node_ids() {
            self.wait_listening(node_id)?;
        }
        let listening_us = self.recorder.now_us();
        let starts_us = &mut self.struck.starts_us;
        starts_us.extend(started_us.map(|started_us| listening_us - started_us));
        let at_us = if had_starts { listening_us } else { healed_us };
        self.struck.healings.push(Healing {
            at_us,
            until_us: u64::MAX,
        });
        Ok(())
    }

    fn wait_listening(&mut self, node_id: u64) -> Result<(), CliError> {
        let deadline_us = self.recorder.now_us() + START_US_MAX;
        while let Err(error) = TcpStream::connect(self.cluster.address(node_id)) {
            self.expect_alive()?;
            let now_us = self.recorder.now_us();
            if now_us >= deadline_us {
                let seconds = START_US_MAX / 1_000_000;
                let what =
                    format!("node {node_id} takes no connections {seconds} s after its start");
                return Err(CliError::new(Exit::Unavailable, what).why(error.to_string()));
            }
            self.recorder
                .wait_until(now_us + LISTENING_PAUSE_US)
                .map_err(interrupted)?;
        }
        Ok(())
    }

    fn is_well(&self) -> bool {
        self.dead.is_empty() && self.paused.is_empty() && self.cuts.iter().all(Vec::is_empty)
    }

    fn strike(&mut self, fault: Fault) -> Result<(), CliError> {
        let was_well = self.is_well();
        let leader = self.leader()?;
        let now_us = self.recorder.now_us();
        for lost in &mut self.struck.lost_leaders {
            lost.until_us = lost.until_us.min(now_us);
        }
        for healing in &mut self.struck.healings {
            healing.until_us = healing.until_us.min(now_us);
        }
        let lost = |loss, until_us| LostLeader {
            loss,
            at_us: now_us,
            term: leader.term,
            until_us,
        };
        let over_us = now_us + fault.lasts_ms() * 1000;
        match fault {
            Fault::Kill { victim, .. } => {
                let Some(node_id) = self.resolve(victim, leader) else {
                    return Ok(());
                };
                self.kill(node_id)?;
                self.at(over_us, Event::Restart(node_id));
                if was_well && leader.is_live && leader.node_id == node_id {
                    // Its coming back disturbs nobody.
                    let lost = lost(Loss::Killed, u64::MAX);
                    self.struck.lost_leaders.push(lost);
                }
            }
            Fault::KillAll { dead_ms } => {
                self.cluster.kill_all()?;
                self.paused.clear();
                let mut nodes = self.cluster.node_ids();
                self.dead = nodes.iter().copied().collect();
                self.events
                    .retain(|(_, event)| !matches!(event, Event::Restart(_) | Event::Resume(_)));
                self.random.shuffle(&mut nodes);
                for node_id in nodes {
                    let after_us = self.random.between(0, dead_ms * 1000 + 1);
                    self.at(now_us + after_us, Event::Restart(node_id));
                }
            }
            Fault::Pause { victim, .. } => {
                let Some(node_id) = self.resolve(victim, leader) else {
                    return Ok(());
                };
                self.cluster.signal(node_id, Signal::STOP)?;
                self.paused.insert(node_id);
                self.at(over_us, Event::Resume(node_id));
                if was_well && leader.is_live && leader.node_id == node_id {
                    let lost = lost(Loss::Silenced, over_us);
                    self.struck.lost_leaders.push(lost);
                }
            }
            Fault::Cut { shape, .. } => {
                let nodes = self.cluster.node_ids();
                self.cuts.push(links(shape, &nodes, leader.node_id));
                self.set_cuts()?;
                self.at(over_us, Event::Heal(self.cuts.len() - 1));
                if was_well && leader.is_live && shape == Shape::LeaderAlone {
                    let lost = lost(Loss::Silenced, over_us);
                    self.struck.lost_leaders.push(lost);
                }
            }
        }
        self.struck.kinds.push(fault.kind());
        Ok(())
    }

    /// The node meant, if it runs and goes on.
    fn resolve(&self, victim: Victim, leader: Leader) -> Option<u64> {
        let node_id = match victim {
            Victim::Leader => leader.node_id,
            Victim::Any(number) => {
                let nodes = self.cluster.node_ids();
                nodes[(number % nodes.len() as u64) as usize]
            }
        };
        let is_up = !self.dead.contains(&node_id) && !self.paused.contains(&node_id);
        is_up.then_some(node_id)
    }

    /// Who leads, as far as can be told: with part of the cluster silent that is a guess.
    fn leader(&mut self) -> Result<Leader, CliError> {
        let first = self.cluster.node_ids()[0];
        let found = match self.runtime.block_on(self.client.status()) {
            Ok(status) => {
                let live = wait::live_leader(&status);
                Leader {
                    node_id: live.or(status.leader_id).unwrap_or(first),
                    term: status.term,
                    is_live: live.is_some(),
                }
            }
            Err(_) => Leader {
                node_id: first,
                term: 0,
                is_live: false,
            },
        };
        // Asking takes a while when nodes are silent.
        if self.recorder.is_interrupted() {
            return Err(interrupted(Interrupted));
        }
        Ok(found)
    }

    fn kill(&mut self, node_id: u64) -> Result<(), CliError> {
        self.cluster.kill(node_id)?;
        self.dead.insert(node_id);
        Ok(())
    }

    fn restart(&mut self, node_id: u64) -> Result<(), CliError> {
        if self.dead.remove(&node_id) {
            self.had_starts = true;
            self.cluster.start(node_id)?;
        }
        Ok(())
    }

    fn resume(&mut self, node_id: u64) -> Result<(), CliError> {
        if self.paused.remove(&node_id) {
            self.cluster.signal(node_id, Signal::CONT)?;
        }
        Ok(())
    }

    fn set_cuts(&self) -> Result<(), CliError> {
        let all: BTreeSet<Link> = self.cuts.iter().flatten().copied().collect();
        let all: Vec<Link> = all.into_iter().collect();
        network::cut(&all)
    }

    fn heal_all(&mut self) -> Result<(), CliError> {
        let was_well = self.is_well();
        if self.cuts.iter().any(|cut| !cut.is_empty()) {
            self.cuts.clear();
            self.set_cuts()?;
        }
        for node_id in self.paused.clone() {
            self.resume(node_id)?;
        }
        let mut dead: Vec<u64> = self.dead.iter().copied().collect();
        self.random.shuffle(&mut dead);
        let started_us = (!dead.is_empty()).then(|| self.recorder.now_us());
        for node_id in dead {
            self.restart(node_id)?;
        }
        if !was_well || self.struck.healings.is_empty() {
            self.note_healing(started_us)?;
        }
        Ok(())
    }

    fn expect_alive(&mut self) -> Result<(), CliError> {
        expect_alive(self.cluster)
    }
}

/// A node that nobody killed runs.
///
/// # Errors
/// [`CliError`] with the end of the node's log.
pub fn expect_alive(cluster: &mut Cluster) -> Result<(), CliError> {
    match cluster.take_ended()?.into_iter().next() {
        Some((node_id, status)) => Err(cluster.ended_error(node_id, status)),
        None => Ok(()),
    }
}

/// The error for a wait that was ended.
#[must_use]
pub fn interrupted(_: Interrupted) -> CliError {
    CliError::new(Exit::Interrupted, "interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(at_us: u64, term: u64) -> Acked {
        Acked { at_us, term }
    }

    #[test]
    fn failover_is_timed_to_the_next_leaders_acknowledgement() {
        let lost = LostLeader {
            loss: Loss::Killed,
            at_us: 100,
            term: 3,
            until_us: u64::MAX,
        };
        // What the dead leader had sent is none of the next one's.
        let acks = [acked(90, 3), acked(101, 3), acked(400, 4), acked(401, 4)];
        assert_eq!(lost.failover_us(&acks), Some(300));
        assert_eq!(lost.failover_us(&acks[..2]), None);
        let disturbed = LostLeader {
            until_us: 300,
            ..lost
        };
        assert_eq!(disturbed.failover_us(&acks), None);
    }

    #[test]
    fn recovery_is_timed_to_the_next_acknowledgement_unless_disturbed() {
        let healing = |until_us| Healing {
            at_us: 100,
            until_us,
        };
        let acks = [acked(100, 3), acked(400, 4)];
        assert_eq!(healing(u64::MAX).recovery(&acks, 50), Recovery::After(300));
        assert_eq!(healing(u64::MAX).recovery(&acks[..1], 50), Recovery::Never);
        assert_eq!(healing(300).recovery(&acks, 200), Recovery::Never);
        assert_eq!(healing(300).recovery(&acks, 201), Recovery::Disturbed);
    }
}
