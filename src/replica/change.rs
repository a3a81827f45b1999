//! Changes of members: what is asked for, whether it may be, and the answer once it is committed.

use drave_batch::control::{ADDRESS_BYTES_MAX, MEMBERS_MAX, Member, MemberRole, address_error};
use drave_batch::wire::{ErrorCode, MemberChange, MemberListed, MemberOperation, MemberStatus};

use super::{Answer, EntryLog, Fatal, LogRefusal, Now, Refusal, Replica, ReplyTo};
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{Configuration, ConfigurationChangeError, ConfigurationError, NodeId};

/// In [`MemberChange::expected_configuration_index`]: whatever configuration is in force.
const ANY_CONFIGURATION: u64 = u64::MAX;

/// Requests that wait for one change at most.
const WAITERS_MAX: usize = 16;

/// Bytes that any configuration entry fits in.
const CONFIGURATION_BYTES_MAX: usize = 128 + MEMBERS_MAX * (32 + ADDRESS_BYTES_MAX);

/// A change that is on its way, and who waits for it.
#[derive(Debug)]
pub(super) struct PendingChange {
    /// The simple configuration that it ends with.
    target: Configuration,
    waiters: Vec<ReplyTo>,
}

impl Replica {
    /// The members as this node knows them, and, on the leader, how far they are.
    #[must_use]
    pub fn member_status(&self, now: Now) -> MemberListed {
        let configuration_index = self.tables.members.current_index();
        let members = self.members().members.iter();
        MemberListed {
            term: self.raft.term(),
            leader_id: self.raft.leader().map_or(0, |leader| leader.0),
            commit_index: self.raft.commit_index(),
            configuration_index,
            is_committed: configuration_index <= self.raft.commit_index(),
            node_id_max: self.members().node_id_max,
            members: members.map(|m| self.status_of(now, m)).collect(),
        }
    }

    fn status_of(&self, now: Now, member: &Member) -> MemberStatus {
        let last_index = self.raft.last().index;
        let id = NodeId(member.node_id);
        let own = id == self.raft.id();
        let view = self.raft.progress().find(|view| view.peer == id);
        let match_index = match view {
            _ if own => self.raft.durable_index(),
            Some(view) => view.match_index,
            None => 0,
        };
        let last_active_ms = match view {
            _ if own => 0,
            Some(view) => now.mono_us.saturating_sub(view.last_active_us) / 1_000,
            None => u64::MAX,
        };
        MemberStatus {
            member: member.clone(),
            match_index,
            lag_entries: last_index.saturating_sub(match_index),
            last_active_ms,
            is_caught_up: own || self.raft.is_caught_up(id),
        }
    }

    /// Changes the members. Answered with [`Answer::Members`] once the configuration that it ends with,
    /// never a joint one, is committed; at once when it is already.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer.
    pub fn change_members(
        &mut self,
        now: Now,
        reply: ReplyTo,
        change: &MemberChange,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        if let Err(refusal) = self.check_authority(now) {
            self.refuse(reply, refusal);
            return Ok(());
        }
        let in_force = self.raft.configuration();
        let under_way =
            in_force.is_joint() || self.raft.configuration_index() > self.raft.commit_index();
        // What a change that is under way ends with, whoever began it.
        let ends_with = Configuration {
            voters_outgoing: Vec::new(),
            ..in_force.clone()
        };
        if self.is_in_effect(change, &ends_with) {
            if under_way {
                self.wait_for_change(reply, ends_with);
            } else {
                let listed = self.member_status(now);
                self.outputs.replies.push((reply, Answer::Members(listed)));
            }
            return Ok(());
        }
        let target = match self.target_of(now, change, &ends_with, under_way) {
            Ok(target) => target,
            Err(refusal) => {
                self.refuse(reply, refusal);
                return Ok(());
            }
        };
        self.propose_members(now, reply, change, target, log)
    }

    fn propose_members(
        &mut self,
        now: Now,
        reply: ReplyTo,
        change: &MemberChange,
        target: Configuration,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        match log.has_room_for_control(CONFIGURATION_BYTES_MAX) {
            Ok(()) => {}
            Err(refusal) => {
                self.refuse(reply, refusal_of_room(refusal)?);
                return Ok(());
            }
        }
        let proposed = self.raft.propose_configuration(now.mono_us, target.clone());
        if let Err(error) = proposed {
            let refusal = self.refused_change(change, &error);
            self.refuse(reply, refusal);
            return self.drain_effects(now, log);
        }
        self.joining = Some(Member {
            node_id: change.node_id,
            role: Some(MemberRole::Learner),
            outgoing_voter: false,
            incarnation: change.incarnation,
            address: change.address.clone(),
        });
        self.change = Some(PendingChange {
            target,
            waiters: vec![reply],
        });
        let drained = self.drain_effects(now, log);
        self.joining = None;
        drained
    }

    fn wait_for_change(&mut self, reply: ReplyTo, target: Configuration) {
        let change = self.change.get_or_insert_with(|| PendingChange {
            target,
            waiters: Vec::new(),
        });
        if change.waiters.len() < WAITERS_MAX {
            change.waiters.push(reply);
        } else {
            let message = "the change is under way and asked for too often";
            self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
        }
    }

    /// Whether what is asked for holds in `configuration`.
    fn is_in_effect(&self, change: &MemberChange, configuration: &Configuration) -> bool {
        let id = NodeId(change.node_id);
        let other = NodeId(change.other_node_id);
        let was_member = |id: NodeId| id.0 != 0 && id.0 <= self.members().node_id_max;
        match change.operation {
            MemberOperation::AddLearner => configuration.contains(id) && self.is_same_store(change),
            MemberOperation::Promote => configuration.voters.contains(&id),
            MemberOperation::Remove => was_member(id) && !configuration.contains(id),
            MemberOperation::Replace => {
                configuration.voters.contains(&id)
                    && was_member(other)
                    && !configuration.contains(other)
            }
        }
    }

    fn member(&self, node_id: u64) -> Option<&Member> {
        let mut members = self.members().members.iter();
        members.find(|member| member.node_id == node_id)
    }

    fn is_same_store(&self, change: &MemberChange) -> bool {
        self.member(change.node_id).is_some_and(|member| {
            member.address == change.address && member.incarnation == change.incarnation
        })
    }

    /// The configuration that is asked for, if the request makes sense in the one in force.
    fn target_of(
        &self,
        now: Now,
        change: &MemberChange,
        current: &Configuration,
        under_way: bool,
    ) -> Result<Configuration, Refusal> {
        let (expected, found) = (
            change.expected_configuration_index,
            self.raft.configuration_index(),
        );
        let under_way = under_way && !is_planted(Mutant::ConcurrentChanges);
        if under_way || (expected != ANY_CONFIGURATION && expected != found) {
            let message = if under_way {
                format!("the change of members at entry {found} is under way")
            } else {
                format!("expected the configuration of entry {expected}, it is that of {found}")
            };
            return Err(Refusal::numbers(
                ErrorCode::MembershipConflict,
                expected,
                found,
                message,
            ));
        }
        let (id, other) = (NodeId(change.node_id), NodeId(change.other_node_id));
        let mut target = current.clone();
        match change.operation {
            MemberOperation::AddLearner => {
                self.check_new_member(now, change)?;
                target.learners.push(id);
                target.learners.sort_unstable();
            }
            MemberOperation::Promote => {
                self.check_member(id)?;
                promote(&mut target, id);
            }
            MemberOperation::Remove => {
                self.check_member(id)?;
                remove(&mut target, id)?;
            }
            MemberOperation::Replace => {
                self.check_member(id)?;
                self.check_member(other)?;
                if id == other {
                    let message = format!("node {} cannot replace itself", id.0);
                    return Err(Refusal::new(ErrorCode::InvalidMembers, message));
                }
                promote(&mut target, id);
                remove(&mut target, other)?;
            }
        }
        Ok(target)
    }

    fn check_member(&self, id: NodeId) -> Result<(), Refusal> {
        if self.member(id.0).is_some() {
            return Ok(());
        }
        let message = format!("node {} is not a member", id.0);
        Err(Refusal::new(ErrorCode::MemberUnknown, message))
    }

    fn check_new_member(&self, now: Now, change: &MemberChange) -> Result<(), Refusal> {
        let (node_id, node_id_max) = (change.node_id, self.members().node_id_max);
        let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidMembers, message));
        if let Some(member) = self.member(node_id) {
            let message = format!(
                "node {node_id} is a member at {} with incarnation {:032x}",
                member.address, member.incarnation
            );
            return Err(Refusal::new(ErrorCode::MemberExists, message));
        }
        if node_id <= node_id_max {
            let message =
                format!("ids up to {node_id_max} were used: a new node needs a higher one");
            return Err(Refusal::numbers(
                ErrorCode::NodeIdUsed,
                node_id_max.saturating_add(1),
                node_id,
                message,
            ));
        }
        if node_id > u64::MAX / 2 {
            return invalid(format!("{node_id} is no node id"));
        }
        if let Some(reason) = address_error(&change.address) {
            return invalid(format!("{reason}, {:?} is none", change.address));
        }
        let mut members = self.members().members.iter();
        let taken = members.find(|member| member.address == change.address);
        if let Some(taken) = taken.filter(|taken| self.is_active(now, NodeId(taken.node_id))) {
            return invalid(format!(
                "node {} answers at {}",
                taken.node_id, taken.address
            ));
        }
        if self.members().members.len() >= MEMBERS_MAX {
            return invalid(format!("a group has at most {MEMBERS_MAX} members"));
        }
        Ok(())
    }

    fn refused_change(&self, change: &MemberChange, error: &ConfigurationChangeError) -> Refusal {
        use ConfigurationChangeError as E;
        let found = self.raft.configuration_index();
        let code = match error {
            E::Propose(error) => return self.refused_proposal(error),
            E::TermNotCommitted { .. } => ErrorCode::Busy,
            E::Uncommitted { .. } => ErrorCode::MembershipConflict,
            E::NotCaughtUp { .. } => ErrorCode::NotCaughtUp,
            E::Invalid(ConfigurationError::NoVoters) => ErrorCode::LastVoter,
            E::WouldLoseQuorum { .. } => ErrorCode::WouldLoseQuorum,
            E::Invalid(_) | E::Joint | E::Unchanged | E::DemotionNotAlone { .. } => {
                ErrorCode::InvalidMembers
            }
        };
        let expected = change.expected_configuration_index;
        Refusal::numbers(code, expected, found, error.to_string())
    }

    /// Answers who waits for a change, if it is complete.
    pub(super) fn settle_change(&mut self, now: Now) {
        if !self.change_is_complete() {
            return;
        }
        if let Some(change) = self.change.take() {
            let listed = self.member_status(now);
            for reply in change.waiters {
                let answer = Answer::Members(listed.clone());
                self.outputs.replies.push((reply, answer));
            }
        }
    }

    fn change_is_complete(&self) -> bool {
        let index = self.raft.configuration_index();
        self.change.as_ref().is_some_and(|change| {
            *self.raft.configuration() == change.target
                && index <= self.raft.commit_index()
                && index == self.tables.members.current_index()
        })
    }

    /// The lead is lost: what a change came to is seen by asking the next leader. A leader that removed
    /// itself loses the lead by that, and knows.
    pub(super) fn release_change(&mut self, now: Now) {
        self.settle_change(now);
        if let Some(change) = self.change.take() {
            let message = "this node lost the lead before the change of members was committed";
            for reply in change.waiters {
                self.refuse(reply, Refusal::new(ErrorCode::OutcomeUnknown, message));
            }
        }
    }
}

/// What a log without room tells whoever asked. A log that failed tells nobody: the node stops, clients see their
/// connections break, and ask the others.
pub(super) fn refusal_of_room(refusal: LogRefusal) -> Result<Refusal, Fatal> {
    let code = match &refusal {
        LogRefusal::Full { .. } => ErrorCode::Busy,
        LogRefusal::NoSpace => ErrorCode::DiskFull,
        LogRefusal::Failed(_) => return Err(refusal.into()),
    };
    Ok(Refusal::new(code, refusal.to_string()))
}

fn promote(target: &mut Configuration, id: NodeId) {
    target.learners.retain(|learner| *learner != id);
    if !target.voters.contains(&id) {
        target.voters.push(id);
        target.voters.sort_unstable();
    }
}

fn remove(target: &mut Configuration, id: NodeId) -> Result<(), Refusal> {
    target.learners.retain(|learner| *learner != id);
    target.voters.retain(|voter| *voter != id);
    if target.voters.is_empty() {
        let message = format!("node {} is the last voter", id.0);
        return Err(Refusal::new(ErrorCode::LastVoter, message));
    }
    Ok(())
}
