//! One group's replica, sans-I/O: Raft, the named logs, the producers, and who waits for what.
//!
//! It takes events, time and a handle to the group's log as arguments and leaves what is to be sent or
//! answered in [`Outputs`]. It has no clock, no socket, no file and no thread; the simulator runs it
//! unchanged. It decides duplicates and conditions when a batch is appended, over what is applied plus
//! what is in flight, so the log never holds a duplicate.
//!
//! It does not read the log: what readers and followers get is fetched by the node, from plans made here.

mod append;
mod catalogue;
mod follow;
mod hard_state;
mod pending;
mod producers;
mod restore;
mod seq_index;
mod tables;

use std::collections::VecDeque;

use drave_batch::control::Members;
use drave_batch::wire::{Appended, ErrorCode, LogInfo, ProducerOpened};
use drave_batch::{BatchHeader, BatchRef, EntryKind};
use thiserror::Error;

pub use catalogue::{Catalogue, LogState};
pub use follow::{AppendProblem, AppendTaken};
pub use hard_state::HardStateRecord;
pub use restore::{RestoreProblem, Restorer};
pub use seq_index::SeqIndex;

use crate::raft::{self, Control, Durable, Effect, EntryId, NodeId, Raft, RoleKind};
use tables::Tables;

/// The instant of an event: both clocks, read once by the shell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic microseconds: timers.
    pub mono_us: u64,
    /// Microseconds since the Unix epoch: append times, never decisions.
    pub unix_us: u64,
}

/// Whom to answer: the shell's own key of a request. The replica only gives it back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyTo {
    /// The connection.
    pub connection: u64,
    /// The request on it.
    pub request_id: u64,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The batch is on stable storage on a majority.
    Appended(Appended),
    /// The log exists.
    Log(LogInfo),
    /// The producer is registered.
    Producer(ProducerOpened),
    /// The request failed.
    Refused(Refusal),
}

/// Why a request failed, as the client is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// A number the code gives a meaning.
    pub expected: u64,
    /// Its counterpart.
    pub found: u64,
    /// What happened.
    pub message: String,
}

impl Refusal {
    /// A refusal without numbers.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            expected: 0,
            found: 0,
            message: message.into(),
        }
    }

    /// A refusal that says what was expected and what was found.
    pub fn numbers(code: ErrorCode, expected: u64, found: u64, message: impl Into<String>) -> Self {
        Self {
            code,
            expected,
            found,
            message: message.into(),
        }
    }
}

/// Why the group's log does not take an entry.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum LogRefusal {
    /// More is waiting to be flushed than it takes.
    #[error("{queued_bytes} bytes wait to be flushed")]
    Full {
        /// Bytes waiting.
        queued_bytes: u64,
    },
    /// There is no room on the disk.
    #[error("no space on the disk")]
    NoSpace,
    /// Anything else: the node cannot go on with this group.
    #[error("{0}")]
    Failed(String),
}

/// The group's log as the replica uses it. Nothing is durable when a call returns; the shell reports
/// completed flushes through [`Replica::on_log_durable`] and [`Replica::on_hard_state_durable`].
pub trait EntryLog {
    /// Whether `bytes` more are taken now.
    ///
    /// # Errors
    /// [`LogRefusal`] tells why not.
    fn has_room(&self, bytes: usize) -> Result<(), LogRefusal>;
    /// Appends a new entry, completing the header's chain.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal>;
    /// Appends an entry that another node encoded, byte for byte.
    ///
    /// # Errors
    /// [`LogRefusal`], also when index or chain do not follow the last entry.
    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal>;
    /// Drops the entries from `from_index` on.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal>;
    /// Writes the hard state; no entry appended after this call is flushed before it.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal>;
}

/// Limits and names of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The group.
    pub group_id: u32,
    /// Bytes of one record at most.
    pub record_bytes_max: u32,
    /// Named logs at most.
    pub logs_max: u32,
    /// Producers remembered at most.
    pub producers_max: u32,
}

/// The replica cannot go on: the log failed, or an invariant of the log's content is broken. The node
/// stops serving the group and says why.
#[derive(Clone, Debug, Error)]
#[error("group stopped: {reason}")]
pub struct Fatal {
    /// Why.
    pub reason: String,
}

impl From<LogRefusal> for Fatal {
    fn from(refusal: LogRefusal) -> Self {
        Self {
            reason: format!("the log refused an entry: {refusal}"),
        }
    }
}

/// What a replica wants done. The shell takes everything out after each event, or several.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Messages to peers, in order. What they depend on is durable.
    pub sends: VecDeque<(NodeId, raft::Message)>,
    /// Answers to clients.
    pub replies: Vec<(ReplyTo, Answer)>,
    /// Logs whose committed end has moved; the same log may be named more than once.
    pub advanced: Vec<u64>,
    /// Linearizable reads that may be served now.
    pub reads_ready: Vec<u64>,
    /// Linearizable reads that could not be confirmed.
    pub reads_failed: Vec<u64>,
    /// Role changes, in order.
    pub roles: Vec<(RoleKind, u64, Option<NodeId>)>,
}

/// One group's replica.
pub struct Replica {
    config: ReplicaConfig,
    raft: Raft,
    members: Members,
    tables: Tables,
    metas: Vec<raft::EntryMeta>,
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

    /// The members of the configuration in use.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The last index applied.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.tables.applied_index
    }

    /// Whether what is missing here may still be on its way: entries wait to be applied, or no leader
    /// has told how far the group is.
    #[must_use]
    pub fn may_lag(&self) -> bool {
        self.raft.leader().is_none() || self.tables.applied_index < self.raft.last().index
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
        let member = self
            .members
            .members
            .iter()
            .find(|member| member.node_id == leader.0)?;
        Some((leader, &member.address))
    }

    /// When [`Self::tick`] is due at the latest, in monotonic microseconds.
    #[must_use]
    pub fn next_deadline_us(&self) -> u64 {
        self.raft.next_deadline_us()
    }

    /// Lets timers fire.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn tick(&mut self, now: Now, log: &mut impl EntryLog) -> Result<(), Fatal> {
        self.raft.tick(now.mono_us);
        self.drain_effects(now, log)
    }

    /// A peer's message, anything but AppendEntries.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn step(
        &mut self,
        now: Now,
        from: NodeId,
        message: raft::Message,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
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
        self.raft.on_hard_state_durable(now.mono_us, state);
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
    /// committed before this call is applied here, or in [`Outputs::reads_failed`].
    ///
    /// # Errors
    /// A refusal at once when this node does not lead or has too many reads waiting.
    pub fn read_index(
        &mut self,
        now: Now,
        ticket: u64,
        log: &mut impl EntryLog,
    ) -> Result<Result<(), Refusal>, Fatal> {
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
            commit_index_hint: self.raft.commit_index_durable(),
        }
    }

    fn not_leader(&self) -> Refusal {
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

    fn drain_effects(&mut self, now: Now, log: &mut impl EntryLog) -> Result<(), Fatal> {
        while let Some(commit_index) = self.drain_effects_but_commit(now, log)? {
            self.tables.apply_to(commit_index, &mut self.outputs);
        }
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
                Effect::SaveHardState(state) => {
                    log.write_hard_state(self.hard_state_record(state))?;
                }
                Effect::Send { to, message } => self.outputs.sends.push_back((to, message)),
                Effect::AppendControl { id, control } => {
                    self.append_control(now, id, &control, log)?;
                }
                Effect::RoleChanged { role, term, leader } => {
                    if role != RoleKind::Leader {
                        self.tables.release_waiters(&mut self.outputs);
                    }
                    self.outputs.roles.push((role, term, leader));
                }
                Effect::CommitAdvanced { commit_index } => return Ok(Some(commit_index)),
                Effect::ReadReady { ticket, index } => {
                    self.tables.read_ready(index, ticket, &mut self.outputs);
                }
                Effect::ReadFailed { ticket } => self.outputs.reads_failed.push(ticket),
            }
        }
        Ok(None)
    }

    fn append_control(
        &mut self,
        now: Now,
        id: EntryId,
        control: &Control,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        match control {
            Control::Noop => {
                let header = BatchHeader::new(EntryKind::Noop, &[], 0);
                self.append_entry(now, id, header, &[], None, log)
            }
            Control::Configuration(_) => Err(Fatal {
                reason: "membership changes are not part of this version".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
