//! One group's replica, sans-I/O: Raft, the named logs, the producers, and who waits for what.
//!
//! It takes events, time and a handle to the group's log as arguments and leaves what is to be sent or
//! answered in [`Outputs`]. It has no clock, no socket, no file and no thread; the simulator runs it
//! unchanged. It decides duplicates and conditions when a batch is appended, over what is applied plus
//! what is in flight, so the log never holds a duplicate.
//!
//! It does not read the log: what readers and followers get is fetched by the node, from plans made here.

mod append;
mod carry;
mod catalogue;
mod change;
mod disk;
mod follow;
mod hand_over;
mod hard_state;
mod log;
mod members;
mod outputs;
mod pending;
mod producers;
mod quota;
mod refusals;
mod restore;
mod retention;
mod rules;
mod seq_index;
mod snapshot;
mod tables;
mod together;
mod transfer;
mod trim;

use drave_batch::control::{Member, Members};
use drave_batch::wire::ErrorCode;
use drave_batch::{BatchHeader, EntryKind};

pub use carry::CarryPlan;
pub use catalogue::{Catalogue, LogState};
pub use follow::{AppendProblem, AppendTaken};
pub use hand_over::{
    DiskReport, DiskState, HandOverOrder, HandOverReason, RETRY_US as HAND_OVER_RETRY_US,
    SLOW_QUIET_US as HAND_OVER_SLOW_QUIET_US, STUCK_QUIET_US as HAND_OVER_STUCK_QUIET_US,
};
pub use hard_state::{HardStateRecord, LogCut};
pub use log::{EntryLog, LogRefusal};
pub use outputs::{Answer, Fatal, Now, Outputs, Refusal, ReplyTo};
pub(crate) use quota::{Bucket, used_up};
pub use restore::{RestoreBase, RestoreProblem, Restorer};
pub use rules::LogRules;
pub(crate) use rules::closed;
pub use seq_index::{Carried, Mark, SeqIndex};
pub use snapshot::{SnapshotPlan, SnapshotProblem, SnapshotTaken, StateSnapshot};

use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{self, Control, Durable, Effect, EntryId, Message, NodeId, Raft, RoleKind};
use change::PendingChange;
use hand_over::HandOver;
use quota::Quotas;
use refusals::Refusals;
use retention::Looks;
use snapshot::{Receiving, ReceivingPause, Sending, Snapshots};
use tables::{READS_WAITING_MAX, Tables};
use transfer::PendingTransfer;

/// Bytes that the entry a term begins with needs in the log.
const NOOP_BYTES: usize = 128;

/// Limits and names of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The group.
    pub group_id: u32,
    /// Bytes of one record at most.
    pub record_bytes_max: u32,
    /// Named logs at most.
    pub logs_max: u32,
    /// Producers remembered at most. The same on every node: all forget the same one.
    pub producers_max: u32,
    /// Entries applied after which a snapshot is due. An eighth of it is how far the commit index on disk
    /// is behind at most.
    pub snapshot_entries: u64,
    /// Bytes of entries applied after which one is due, if that is sooner.
    pub snapshot_log_bytes: u64,
    /// Bytes of one chunk of a snapshot on its way to a peer; four are in flight at most.
    pub snapshot_chunk_bytes: u32,
    /// Bytes of a snapshot that this node takes from a leader, into its memory, at most.
    pub snapshot_bytes_max: u64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            group_id: 0,
            record_bytes_max: 1 << 20,
            logs_max: 10_000,
            producers_max: 10_000,
            snapshot_entries: 65_536,
            snapshot_log_bytes: 256 << 20,
            snapshot_chunk_bytes: 256 << 10,
            snapshot_bytes_max: 256 << 20,
        }
    }
}

/// How long this node's core waits, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    election_timeout_us_min: u64,
    election_timeout_us_max: u64,
}

/// One group's replica.
pub struct Replica {
    config: ReplicaConfig,
    times: Times,
    raft: Raft,
    tables: Tables,
    metas: Vec<raft::EntryMeta>,
    /// What the hard state on its way to the disk, or there, remembers of the commit index.
    hint_written: u64,
    /// Term and vote that are on disk.
    hard_state_durable: raft::HardState,
    change: Option<PendingChange>,
    /// Whom the configuration being proposed adds.
    joining: Option<Member>,
    transfer: Option<PendingTransfer>,
    hand_over: HandOver,
    snapshots: Snapshots,
    sending: Sending,
    receiving: Option<Receiving>,
    receiving_pause: ReceivingPause,
    refusals: Refusals,
    looks: Looks,
    quotas: Quotas,
    /// What is to be done.
    pub outputs: Outputs,
}

impl Replica {
    /// Raft's view.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The named logs, as applied.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.tables.catalogue
    }

    /// The members of the configuration in force, and the highest id that ever was one. Empty on a node
    /// that joins and has not heard of any.
    #[must_use]
    pub fn members(&self) -> &Members {
        self.tables.members.current()
    }

    /// The last index applied.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.tables.applied.id.index
    }

    /// Whether this node leads the group.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.role() == RoleKind::Leader
    }

    /// The leader as this node knows it, and its address.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, &str)> {
        let leader = self.raft.leader()?;
        let mut members = self.members().members.iter();
        let member = members.find(|member| member.node_id == leader.0)?;
        Some((leader, &member.address))
    }

    /// When [`Self::tick`] is due at the latest, in monotonic microseconds.
    #[must_use]
    pub fn next_deadline_us(&self) -> u64 {
        let transfer = self.transfer.as_ref();
        let transfer_us = transfer.map_or(u64::MAX, PendingTransfer::deadline_us);
        let sending_us = self.sending.deadline_us(self.times.election_timeout_us_max);
        self.raft
            .next_deadline_us()
            .min(transfer_us)
            .min(sending_us)
            .min(self.receiving_pause.deadline_us())
            .min(self.retention_due_us())
    }

    /// Lets timers fire.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn tick(&mut self, now: Now, log: &mut impl EntryLog) -> Result<(), Fatal> {
        if !self.may_lead(log) {
            self.raft.postpone_election(now.mono_us);
        }
        self.tick_sending(now);
        self.tick_receiving(now);
        self.raft.tick(now.mono_us);
        self.drain_effects(now, log)?;
        self.retain(now, log)?;
        self.drain_effects(now, log)
    }

    /// A term begins with an entry. Where not even that has room, because the disk is full beyond what the
    /// log keeps back for it, leading would stop the node: it stays a follower until there is room.
    fn may_lead(&self, log: &impl EntryLog) -> bool {
        log.has_room_for_control(NOOP_BYTES) != Err(LogRefusal::NoSpace)
    }

    /// A peer's message, anything but AppendEntries.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn step(
        &mut self,
        now: Now,
        from: NodeId,
        message: Message,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if matches!(message, Message::TimeoutNow(_)) {
            self.hand_over.lead_offered(now.mono_us);
        }
        let makes_leader = matches!(message, Message::TimeoutNow(_) | Message::VoteReply(_));
        if makes_leader && !self.may_lead(log) {
            return Ok(());
        }
        self.raft.step(now.mono_us, from, message);
        self.drain_effects(now, log)
    }

    /// The log's flush reached `id`.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_log_durable(
        &mut self,
        now: Now,
        id: Durable<EntryId>,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        self.raft.on_log_durable(now.mono_us, id);
        self.drain_effects(now, log)
    }

    /// The hard state's flush completed.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_hard_state_durable(
        &mut self,
        now: Now,
        state: Durable<raft::HardState>,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        self.hard_state_durable = *state.get();
        self.raft.on_hard_state_durable(now.mono_us, state);
        self.store_complete();
        self.drain_effects(now, log)
    }

    /// The lane that carries appends to `peer` came up or went down.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_peer_link(
        &mut self,
        now: Now,
        peer: NodeId,
        up: bool,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        self.sending.on_link(peer);
        if up {
            self.raft.on_peer_connected(now.mono_us, peer);
        } else {
            self.raft.on_peer_disconnected(now.mono_us, peer);
        }
        self.drain_effects(now, log)
    }

    /// `peer` closed a connection that it had dialed: its process has probably died. When it led, this
    /// node's election comes soon instead of after the timeout; pre-vote guards a leader that lives.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_peer_closed(
        &mut self,
        now: Now,
        peer: NodeId,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if self.raft.leader() == Some(peer) {
            self.raft.on_leader_connection_lost(now.mono_us);
        }
        self.drain_effects(now, log)
    }

    /// What to send to `peer` next, if anything; see [`Raft::plan_append`].
    #[must_use]
    pub fn plan_append(&mut self, now: Now, peer: NodeId) -> Option<raft::AppendPlan> {
        self.raft.plan_append(now.mono_us, peer)
    }

    /// Entries `[plan.lo, hi)` of `bytes` went to the peer's connection.
    pub fn append_sent(
        &mut self,
        now: Now,
        peer: NodeId,
        plan: &raft::AppendPlan,
        hi: u64,
        bytes: u64,
    ) {
        self.raft.append_sent(now.mono_us, peer, plan, hi, bytes);
    }

    /// Asks for a linearizable read: `ticket` comes back in [`Outputs::reads_ready`] once everything
    /// committed before this call is applied here, or in [`Outputs::reads_failed`]. A follower asks its
    /// leader how far that is, and serves the read itself.
    ///
    /// # Errors
    /// A refusal at once when no leader is known or too many reads wait.
    pub fn read_index(
        &mut self,
        now: Now,
        ticket: u64,
        log: &mut impl EntryLog,
    ) -> Result<Result<(), Refusal>, Fatal> {
        if self.tables.reads_waiting() >= READS_WAITING_MAX {
            let message = "too many reads wait for this node to catch up";
            return Ok(Err(Refusal::new(ErrorCode::Busy, message)));
        }
        let asked = self.raft.read_index(now.mono_us, ticket);
        self.drain_effects(now, log)?;
        Ok(match asked {
            Ok(()) => Ok(()),
            Err(raft::ReadError::NotLeader { .. }) => Err(self.not_leader()),
            Err(error @ raft::ReadError::Busy { .. }) => {
                Err(Refusal::new(ErrorCode::Busy, error.to_string()))
            }
        })
    }

    /// Term and vote as decided.
    #[must_use]
    pub fn hard_state(&self) -> raft::HardState {
        self.raft.hard_state()
    }

    /// Tells leaders how many bytes of appends this node's log takes.
    pub fn set_credit(&mut self, credit_bytes: u64) {
        self.raft.set_credit(credit_bytes);
    }

    /// The hard state to record now, with the commit index as a hint.
    #[must_use]
    pub fn hard_state_record(&self, state: raft::HardState) -> HardStateRecord {
        HardStateRecord {
            term: state.term,
            vote: state.vote.map_or(0, |vote| vote.0),
            commit_index_hint: if is_planted(Mutant::HintBeyondDurable) {
                self.raft.commit_index()
            } else {
                self.raft.commit_index_durable()
            },
            cut: None,
        }
    }

    /// Whether what this node does not have in its log may be said not to be there, and what it has may be
    /// said to be all: it leads, has committed in its term, and a quorum answers it. A leader that was
    /// deposed without knowing answers requests as refused for now, so that they are asked again.
    ///
    /// # Errors
    /// The refusal to give instead.
    pub fn check_authority(&self, now: Now) -> Result<(), Refusal> {
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        if !self.raft.is_established_leader() && !is_planted(Mutant::ChangeBeforeTermCommit) {
            let message =
                "this node has just taken the lead and does not know yet what is committed";
            return Err(Refusal::new(ErrorCode::Busy, message));
        }
        let configuration = self.raft.configuration();
        let answers = |voters: &[NodeId]| {
            let active = voters.iter().filter(|voter| self.is_active(now, **voter));
            voters.is_empty() || active.count() > voters.len() / 2
        };
        if !answers(&configuration.voters) || !answers(&configuration.voters_outgoing) {
            let message = "a quorum has not answered this leader lately";
            return Err(Refusal::new(ErrorCode::NoQuorum, message));
        }
        Ok(())
    }

    /// Whether a leader has heard of a member within the time for which followers stick to a leader.
    fn is_active(&self, now: Now, member: NodeId) -> bool {
        let since_us = self.active_since_us(now);
        let mut views = self.raft.progress();
        member == self.raft.id()
            || views.any(|view| view.peer == member && view.last_active_us >= since_us)
    }

    fn active_since_us(&self, now: Now) -> u64 {
        now.mono_us
            .saturating_sub(self.times.election_timeout_us_min)
    }

    pub(crate) fn not_leader(&self) -> Refusal {
        match self.raft.leader() {
            Some(leader) => Refusal::new(
                ErrorCode::NotLeader,
                format!("node {} leads the group", leader.0),
            ),
            None => Refusal::new(
                ErrorCode::NoQuorum,
                "this node knows no leader with a quorum",
            ),
        }
    }

    fn refuse(&mut self, reply: ReplyTo, refusal: Refusal) {
        self.outputs.replies.push((reply, Answer::Refused(refusal)));
    }

    /// Has a request wait for the entry at `index`, which does what it asks for. `false` when too many do.
    fn wait_for(&mut self, index: u64, reply: ReplyTo, producer_seq: u64) -> bool {
        let term = self.tables.pending.term(index);
        term.is_some_and(|term| {
            self.tables
                .waiters
                .repeated(index, term, reply, producer_seq)
        })
    }

    fn drain_effects(&mut self, now: Now, log: &mut impl EntryLog) -> Result<(), Fatal> {
        while let Some(commit_index) = self.drain_effects_but_commit(now, log)? {
            self.tables.apply_to(commit_index, &mut self.outputs);
        }
        self.settle_change(now);
        self.settle_transfer(now);
        self.outputs.members_changed |= std::mem::take(&mut self.tables.members.changed);
        let hint = self.raft.commit_index_durable();
        let interval = (self.config.snapshot_entries / 8).max(1);
        if hint >= self.hint_written.saturating_add(interval) {
            self.write_hard_state(self.raft.hard_state(), log)?;
        }
        Ok(())
    }

    fn write_hard_state(
        &mut self,
        state: raft::HardState,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let record = self.hard_state_record(state);
        log.write_hard_state(record)?;
        self.hint_written = record.commit_index_hint;
        Ok(())
    }

    /// Carries out effects up to the next move of the commit index, and returns that.
    fn drain_effects_but_commit(
        &mut self,
        now: Now,
        log: &mut impl EntryLog,
    ) -> Result<Option<u64>, Fatal> {
        while let Some(effect) = self.raft.poll_effect() {
            match effect {
                Effect::SaveHardState(state) => self.write_hard_state(state, log)?,
                Effect::Send { to, message } => self.outputs.sends.push_back((to, message)),
                Effect::AppendControl { id, control } => {
                    self.append_control(now, id, &control, log)?;
                }
                Effect::RoleChanged { role, term, leader } => {
                    self.on_role_changed(now, role, term, leader);
                }
                Effect::CommitAdvanced { commit_index } => return Ok(Some(commit_index)),
                Effect::ReadReady { ticket, index } => {
                    if !self.settle_refusal(ticket, true) {
                        self.tables.read_ready(index, ticket, &mut self.outputs);
                    }
                }
                Effect::ReadFailed { ticket } => {
                    if !self.settle_refusal(ticket, false) {
                        self.outputs.reads_failed.push(ticket);
                    }
                }
            }
        }
        Ok(None)
    }

    fn on_role_changed(&mut self, now: Now, role: RoleKind, term: u64, leader: Option<NodeId>) {
        if role != RoleKind::Leader {
            self.tables.release_waiters(&mut self.outputs);
            self.release_change(now);
            self.hand_over.lead_lost(now.mono_us);
            self.sending.clear();
        }
        self.leave_session(term, leader);
        self.outputs.roles.push((role, term, leader));
    }

    fn append_control(
        &mut self,
        now: Now,
        id: EntryId,
        control: &Control,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let (kind, body) = match control {
            Control::Noop => (EntryKind::Noop, Vec::new()),
            Control::Configuration(configuration) => {
                let members = &self.tables.members;
                let Some(named) = members.named(configuration, self.joining.as_ref()) else {
                    let reason = format!("entry {id}: a member's address is not known");
                    return Err(Fatal { reason });
                };
                (EntryKind::Configuration, named.encode())
            }
        };
        let header = BatchHeader::new(kind, &body, 0);
        match log.has_room_for_control(header.encoded_bytes()) {
            Ok(()) => self.append_entry(now, id, header, &body, None, log),
            Err(refusal @ LogRefusal::Failed(_)) => Err(refusal.into()),
            // The disk filled up after the vote was won, or while members were being changed.
            Err(refusal) => {
                self.outputs.lead_given_up = Some(refusal);
                self.raft.on_control_refused(id);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
