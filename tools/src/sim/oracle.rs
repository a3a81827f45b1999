//! The checkers together, fed by the world after each turn of a node.

use drave::raft::{AppendResult, Configuration, HardState, Message, NodeId, RoleKind};
use drave_batch::control::Members;
use drave_batch::wire::Appended;

use super::invariants::acknowledged_never_lost::AcknowledgedNeverLost;
use super::invariants::bounded_queues::{self, Bounds, Held};
use super::invariants::commit_never_regresses::CommitNeverRegresses;
use super::invariants::committed::{Committed, model_of};
use super::invariants::election_safety_3_2::ElectionSafety;
use super::invariants::exactly_once_6_3::ExactlyOnce;
use super::invariants::flushed_is_kept::Reported;
use super::invariants::hand_overs_are_rare::HandOversAreRare;
use super::invariants::leader_append_only::LeaderAppendOnly;
use super::invariants::log_matching_3_5::LogMatching;
use super::invariants::state_machine_safety_3_6::States;
use super::invariants::terms_and_votes_never_regress_3_8::TermsAndVotes;
use super::invariants::{
    Checked, View, committed_on_durable_majority, configuration_safety_4, flushed_is_kept,
    leader_completeness_3_6, records_are_found, state_machine_safety_3_6, times_are_found,
};
use super::network::Payload;
use super::node::{Node, Outbox, Process};
use super::shadow::Shadow;

/// All checkers of a run.
pub struct Oracle {
    /// The one log.
    pub committed: Committed,
    /// Acknowledgements.
    pub acknowledged: AcknowledgedNeverLost,
    /// Refusals.
    pub exactly_once: ExactlyOnce,
    elections: ElectionSafety,
    append_only: LeaderAppendOnly,
    matching: LogMatching,
    states: States,
    commits: CommitNeverRegresses,
    votes: TermsAndVotes,
    hand_overs: HandOversAreRare,
    bounds: Bounds,
    initial: Members,
    /// What each node went by after its last turn.
    configurations: Vec<Option<Configuration>>,
    /// What each node's log had reported when its process ended.
    reported: Vec<Option<Reported>>,
    turns: u64,
}

/// Turns between two looks at everything of a node.
const LOOK_EVERY: u64 = 64;

fn view_of<'a>(
    node: &Node,
    process: &Process,
    configuration: &'a Configuration,
    shadow: &'a Shadow,
) -> View<'a> {
    let raft = process.replica.raft();
    View {
        slot: node.slot,
        start: node.starts,
        role: raft.role(),
        hard_state: raft.hard_state(),
        commit_index: raft.commit_index(),
        applied_index: process.replica.applied_index(),
        last: raft.last(),
        configuration: (configuration, raft.configuration_index()),
        shadow,
        durable_index: process
            .log
            .log
            .wal
            .durable_index()
            .max(node.snapshots.received_index()),
    }
}

impl Oracle {
    /// Checkers for a cluster that begins with these members.
    #[must_use]
    pub fn new(bounds: Bounds, initial: Members) -> Self {
        Self {
            committed: Committed::default(),
            acknowledged: AcknowledgedNeverLost::default(),
            exactly_once: ExactlyOnce::default(),
            elections: ElectionSafety::default(),
            append_only: LeaderAppendOnly::default(),
            matching: LogMatching::default(),
            states: States::default(),
            commits: CommitNeverRegresses::default(),
            votes: TermsAndVotes::default(),
            hand_overs: HandOversAreRare::default(),
            bounds,
            initial,
            configurations: Vec::new(),
            reported: Vec::new(),
            turns: 0,
        }
    }

    /// Terms that had a leader.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.elections.count()
    }

    /// How often a leader began to hand over because of its disk.
    #[must_use]
    pub fn hand_overs(&self) -> u64 {
        self.hand_overs.count()
    }

    /// A node's process has ended, by whatever cause.
    pub fn ended(&mut self, slot: usize, process: Process) {
        if self.reported.len() <= slot {
            self.reported.resize_with(slot + 1, || None);
        }
        let durable_index = process.log.log.wal.durable_index();
        self.reported[slot] = Some(Reported {
            shadow: process.log.shadow,
            durable_index,
            hard_state: process.hard_state_flushed,
        });
    }

    /// A node has recovered its log.
    ///
    /// # Errors
    /// [`super::invariants::Violation`]
    pub fn recovered(&mut self, slot: usize, shadow: &Shadow, state: HardState) -> Checked {
        match self.reported.get_mut(slot).and_then(Option::take) {
            Some(reported) => flushed_is_kept::check(slot, &reported, shadow, state),
            None => Ok(()),
        }
    }

    /// Whether recovering this would lose what was reported: damage that looks like an interrupted write.
    #[must_use]
    pub fn would_lose(&self, slot: usize, shadow: &Shadow, state: HardState) -> bool {
        let reported = self.reported.get(slot).and_then(Option::as_ref);
        reported
            .is_some_and(|reported| flushed_is_kept::check(slot, reported, shadow, state).is_err())
    }

    /// Whether a node that is down, or runs, has an entry on stable storage.
    fn holds(&self, nodes: &[Node], id: NodeId, index: u64, crc: u32) -> bool {
        let Some(node) = nodes.get((id.0 as usize).wrapping_sub(1)) else {
            return false;
        };
        let (shadow, durable_index) = match &node.process {
            Some(process) => (&process.log.shadow, process.log.log.wal.durable_index()),
            None => match self.reported.get(node.slot).and_then(Option::as_ref) {
                Some(reported) => (&reported.shadow, reported.durable_index),
                None => return false,
            },
        };
        let own = shadow.get(index);
        // What a snapshot stands for was compared when it was taken.
        index < shadow.first_index()
            || (index <= durable_index && own.is_some_and(|own| own.crc == crc))
    }

    /// A node after its turn, with what it sent.
    ///
    /// # Errors
    /// [`super::invariants::Violation`]
    pub fn after_turn(&mut self, nodes: &[Node], slot: usize, out: &Outbox) -> Checked {
        let node = &nodes[slot];
        let Some(process) = &node.process else {
            return Ok(());
        };
        self.turns += 1;
        let raft = process.replica.raft();
        let view = view_of(node, process, raft.configuration(), &process.log.shadow);
        self.votes.check(&view)?;
        for (to, _, _, payload) in &out.peers {
            if let Payload::Core(message) = payload {
                self.votes
                    .check_sent(slot, NodeId(*to as u64 + 1), message)?;
                check_acknowledged(&view, message)?;
            }
        }
        if let Some((at_us, order)) = &process.handing_over {
            let when = (node.starts, view.hard_state.term, *at_us);
            self.hand_overs.check(slot, when, order)?;
        }
        self.append_only.check(&view)?;
        self.matching.check(&view)?;
        if view.leads() {
            self.elections.check(&view)?;
        }
        if process.is_new_leader && view.leads() {
            leader_completeness_3_6::check(&view, &self.committed)?;
        }
        let before = self.commits.check(&view)?;
        if view.commit_index > before {
            state_machine_safety_3_6::check(&view, before, &mut self.committed)?;
            if view.leads() {
                let holds = |id, index, entry: &super::shadow::Entry| {
                    self.holds(nodes, id, index, entry.crc)
                };
                let before = self.configurations.get(slot).and_then(Option::as_ref);
                committed_on_durable_majority::check(&view, before, holds)?;
            }
        }
        self.remember_configuration(slot, raft.configuration());
        if let Some((index, bytes)) = &process.taken {
            self.states.check(slot, *index, bytes)?;
        }
        let shadow = &process.log.shadow;
        let changed = shadow.configuration_appended || shadow.truncated_from.is_some();
        if changed && !shadow.configurations.is_empty() {
            configuration_safety_4::check(&view, &self.initial)?;
        }
        let queued_bytes = process.log.log.wal.queued_bytes();
        if view.role == RoleKind::Leader {
            bounded_queues::check(slot, Held::of(raft, queued_bytes), &self.bounds)?;
        }
        if self.turns.is_multiple_of(LOOK_EVERY) {
            bounded_queues::check_core(slot, raft)?;
        }
        Ok(())
    }

    fn remember_configuration(&mut self, slot: usize, configuration: &Configuration) {
        if self.configurations.len() <= slot {
            self.configurations.resize(slot + 1, None);
        }
        if self.configurations[slot].as_ref() != Some(configuration) {
            self.configurations[slot] = Some(configuration.clone());
        }
    }

    /// A node answers an append.
    ///
    /// # Errors
    /// [`super::invariants::Violation`]
    pub fn acknowledges(&mut self, operation: u64, appended: &Appended) -> Checked {
        self.acknowledged
            .check(operation, appended, &self.committed)
    }

    /// The whole state of a node, as bytes.
    ///
    /// # Errors
    /// [`super::invariants::Violation`]
    pub fn check_state(&mut self, slot: usize, index: u64, bytes: &[u8]) -> Checked {
        self.states.check(slot, index, bytes)
    }

    /// Everything of a node that is compared in full only now and then.
    ///
    /// # Errors
    /// [`super::invariants::Violation`]
    pub fn look_at_all_of(&self, node: &Node) -> Checked {
        let Some(process) = &node.process else {
            return Ok(());
        };
        bounded_queues::check_core(node.slot, process.replica.raft())?;
        if process.replica.applied_index() != self.committed.last_index() {
            return Ok(());
        }
        let catalogue = process.replica.catalogue();
        let logs = catalogue.logs_after("");
        let mut logs: Vec<_> = logs.map(|log| (log.log_id, model_of(log))).collect();
        logs.sort_unstable_by_key(|(log_id, _)| *log_id);
        state_machine_safety_3_6::check_state(node.slot, &logs, &self.committed)?;
        for log in catalogue.logs_after("") {
            times_are_found::check(node.slot, log.log_id, &log.index, &self.committed)?;
            let first_index = process.log.shadow.first_index();
            records_are_found::check(node.slot, log, first_index, &self.committed)?;
        }
        Ok(())
    }
}

/// What a follower tells of its stable storage is so.
fn check_acknowledged(view: &View<'_>, message: &Message) -> Checked {
    match message {
        Message::AppendReply(reply) => match reply.result {
            AppendResult::Accepted { match_index, .. } => {
                committed_on_durable_majority::check_acknowledgement(view, match_index)
            }
            AppendResult::Rejected { .. } => Ok(()),
        },
        Message::HeartbeatReply(reply) => {
            committed_on_durable_majority::check_acknowledgement(view, reply.match_index)
        }
        _ => Ok(()),
    }
}
