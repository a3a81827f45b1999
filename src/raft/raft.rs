//! The struct, its construction, its clock and its outputs. What it decides is in the files beside.

use super::config::Config;
use super::configuration::Configuration;
use super::effect::{Control, Effect};
use super::held::Held;
use super::log::Log;
use super::membership::{ConfigurationAt, Membership};
use super::message::Message;
use super::mutants::{Mutant, is_planted};
use super::progress::ProgressView;
use super::read_forward::ForwardedReads;
use super::restored::{RestoreError, Restored};
use super::rng::Rng;
use super::role::{Follower, Role, RoleKind};
use super::types::{Durable, EntryId, HardState, NUMBER_MAX, NodeId, TermRun};
use alloc::collections::VecDeque;

/// One node's part in one Raft group. See the module's documentation for how to drive it.
///
/// Not synchronised: one owner, one thread.
pub struct Raft {
    pub(super) config: Config,
    /// The latest time any input has brought; never goes back.
    pub(super) now_us: u64,
    pub(super) rng: Rng,

    /// Term and vote as decided. Moves first; `hard_state_durable` follows by completions.
    pub(super) hard_state: HardState,
    pub(super) hard_state_durable: HardState,
    /// `hard_state` changed since `SaveHardState` was last polled.
    pub(super) hard_state_unsaved: bool,
    /// Messages that wait for `hard_state_durable`.
    pub(super) held: Held,

    pub(super) role: Role,
    /// Meaningful unless leader.
    pub(super) election_deadline_us: u64,
    /// When a current leader was last heard, if one is known.
    pub(super) leader_contact_us: u64,
    /// What `RoleChanged` last said.
    role_reported: (RoleKind, u64, Option<NodeId>),

    pub(super) log: Log,
    pub(super) membership: Membership,
    /// `first_index - 1 <= commit_index <= last.index`. Moves in `advance_commit` only.
    pub(super) commit_index: u64,
    /// What `CommitAdvanced` last said.
    commit_reported: u64,
    /// Advertised to leaders, see `set_credit`.
    pub(super) credit_bytes: u64,
    pub(super) forwarded: ForwardedReads,

    pub(super) effects: VecDeque<Effect>,
    /// Control entries in `effects`: they precede anything proposed later.
    pub(super) control_pending: u32,
}

impl Raft {
    /// A node as found on disk; everything restored counts as durable. It starts as a follower; the
    /// only voter of its configuration is due to elect itself at once.
    pub fn new(
        config: Config,
        restored: Restored,
        now_us: u64,
        seed: u64,
    ) -> Result<Raft, RestoreError> {
        #[cfg(all(test, feature = "mutants"))]
        super::tests::plant_from_environment();
        config.validate().map_err(RestoreError::Config)?;
        restored.validate()?;
        let Restored {
            hard_state,
            first_index,
            prev_term,
            term_runs,
            last_index,
            ..
        } = restored;
        let commit_index = restored.commit_index_hint;
        let base = ConfigurationAt {
            index: restored.configuration_index,
            configuration: restored.configuration,
        };
        let mut membership = Membership::new(base, restored.configurations_appended);
        membership.committed(commit_index);
        // The node's own id salts the seed, so that nodes given one seed still differ.
        let mut rng = Rng::new(seed ^ config.id.0.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut raft = Raft {
            forwarded: ForwardedReads::new(&mut rng),
            rng,
            config,
            now_us,
            hard_state,
            hard_state_durable: hard_state,
            hard_state_unsaved: false,
            held: Held::default(),
            role: Role::Follower(Follower::new(None, commit_index)),
            election_deadline_us: now_us,
            leader_contact_us: 0,
            role_reported: (RoleKind::Follower, hard_state.term, None),
            log: Log::restore(first_index, prev_term, term_runs, last_index),
            membership,
            commit_index,
            commit_reported: commit_index,
            credit_bytes: u64::MAX,
            effects: VecDeque::new(),
            control_pending: 0,
        };
        let with_leases = raft.config.lease_drift_ppm.is_some();
        // As long as the configuration is not known to be committed, the leader that brought it may
        // still hold a lease that stands on this node.
        let may_have_promised = with_leases && !raft.membership.is_committed();
        if !raft.is_only_voter() || may_have_promised {
            raft.arm_election();
            if with_leases {
                // What was promised before the restart is not known: it is kept in full.
                raft.leader_contact_us = now_us.max(1);
            }
        }
        Ok(raft)
    }

    // Inputs.

    /// Lets time pass. To be called at [`Raft::next_deadline_us`] or any time earlier or later.
    pub fn tick(&mut self, now_us: u64) {
        self.advance_clock(now_us);
        if let Role::Leader(_) = self.role {
            self.tick_leader();
            return;
        }
        self.tick_forwarded_reads();
        if self.now_us >= self.election_deadline_us {
            self.election_timeout();
        }
    }

    /// Handles a message. Anything stale, duplicated or nonsensical is ignored or answered, never
    /// fatal, with one exception: a second leader in one term means that safety is already lost,
    /// and stops the node.
    pub fn step(&mut self, now_us: u64, from: NodeId, message: Message) {
        self.advance_clock(now_us);
        if from == self.config.id || message.term() > NUMBER_MAX {
            return;
        }
        match message {
            Message::VoteRequest(request) => self.on_vote_request(from, request),
            Message::VoteReply(reply) => self.on_vote_reply(from, reply),
            Message::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat),
            Message::HeartbeatReply(reply) => self.on_heartbeat_reply(from, reply),
            Message::AppendReply(reply) => self.on_append_reply(from, reply),
            Message::TimeoutNow(timeout) => self.on_timeout_now(from, timeout),
            Message::ReadIndexRequest(request) => self.on_read_index_request(from, request),
            Message::ReadIndexReply(reply) => self.on_read_index_reply(from, reply),
        }
    }

    /// Term and vote have reached the disk. Releases what waited for them.
    pub fn on_hard_state_durable(&mut self, now_us: u64, durable: Durable<HardState>) {
        self.advance_clock(now_us);
        let durable = *durable.get();
        assert!(
            self.hard_state.covers(durable),
            "only what was asked for is flushed"
        );
        if durable == self.hard_state_durable || self.hard_state_durable.covers(durable) {
            return;
        }
        self.hard_state_durable = durable;
        while let Some((to, message)) = self.held.pop_covered(durable) {
            self.emit(Effect::Send { to, message });
        }
        // A vote given or asked for takes effect only now, and a leader is answered only now: the
        // wait was this disk's. A new term alone is no reason to wait longer.
        let waits_for_another = self.hard_state.vote.is_some() || self.leader().is_some();
        if waits_for_another && self.hard_state_is_durable() {
            self.arm_election();
        }
        if self.hard_state_is_durable() {
            self.count_own_vote();
            self.send_ack_due();
        }
    }

    /// Entries up to `durable` have reached the disk. Ignored when that entry is no longer in the
    /// log (it was replaced while the flush was under way); a later completion makes up for it.
    pub fn on_log_durable(&mut self, now_us: u64, durable: Durable<EntryId>) {
        self.advance_clock(now_us);
        if !self.log.flushed(*durable.get()) {
            return;
        }
        match &self.role {
            Role::Leader(_) => self.advance_commit_by_quorum(),
            Role::Follower(follower) if follower.leader.is_some() => {
                // The time the flush took is this disk's, not the leader's.
                self.arm_election();
                self.acknowledge_flush();
            }
            _ => {}
        }
    }

    /// Bytes of appends this node is ready to have in flight; goes out with every reply.
    pub fn set_credit(&mut self, credit_bytes: u64) {
        self.credit_bytes = credit_bytes;
    }

    /// The owner has dropped entries before `first_index`; they must be committed and durable.
    pub fn log_compacted(&mut self, first_index: u64) {
        assert!(
            first_index <= self.commit_index_durable() + 1,
            "only what is committed and durable is compacted"
        );
        self.log.compact(first_index);
    }

    // Outputs.

    /// The next thing to do. To be drained after every input, before the next one.
    #[must_use]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.hard_state_unsaved {
            self.hard_state_unsaved = false;
            return Some(Effect::SaveHardState(self.hard_state));
        }
        if let Some(effect) = self.effects.pop_front() {
            if let Effect::AppendControl { .. } = effect {
                self.control_pending -= 1;
            }
            return Some(effect);
        }
        if self.commit_index > self.commit_reported {
            self.commit_reported = self.commit_index;
            return Some(Effect::CommitAdvanced {
                commit_index: self.commit_index,
            });
        }
        None
    }

    /// When [`Raft::tick`] is due; `u64::MAX` when nothing is. May change with every input.
    pub fn next_deadline_us(&self) -> u64 {
        match &self.role {
            Role::Leader(leader) => {
                let mut deadline_us = leader.heartbeat_deadline_us;
                if self.config.check_quorum {
                    deadline_us = deadline_us.min(leader.quorum_deadline_us);
                }
                if let Some(transfer) = &leader.transfer {
                    deadline_us = deadline_us.min(transfer.deadline_us);
                }
                deadline_us
            }
            _ if self.is_promotable() => self
                .election_deadline_us
                .min(self.forwarded.next_deadline_us()),
            _ => self.forwarded.next_deadline_us(),
        }
    }

    // Views.

    /// This node.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// What this node is.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The latest term seen.
    pub fn term(&self) -> u64 {
        self.hard_state.term
    }

    /// Term and vote as decided, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The leader of this term, if known; this node itself when it leads.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.id),
        }
    }

    /// Whether this node leads and has committed an entry of its term: its view of what is
    /// committed is then complete.
    pub fn is_established_leader(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => self.commit_index >= leader.term_start_index,
            _ => false,
        }
    }

    /// Entries up to here are committed.
    pub fn commit_index(&self) -> u64 {
        self.commit_index
    }

    /// Committed and on this node's disk: what may be persisted as a commit hint.
    pub fn commit_index_durable(&self) -> u64 {
        self.commit_index.min(self.log.durable_index())
    }

    /// Last entry of the log, durable or not.
    pub fn last(&self) -> EntryId {
        self.log.last()
    }

    /// Entries up to here are on this node's disk.
    pub fn durable_index(&self) -> u64 {
        self.log.durable_index()
    }

    /// First entry held.
    pub fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    /// Term of a held entry, or of the one before the first.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.log.term_at(index)
    }

    /// The terms of the log, as runs.
    pub fn term_runs(&self) -> &[TermRun] {
        self.log.runs()
    }

    /// How often a suffix of the log was dropped or the log replaced. An owner remembers it when it
    /// starts a flush and does not attest that flush if it has changed since.
    pub fn truncation_count(&self) -> u64 {
        self.log.truncation_count()
    }

    /// The configuration in force: the latest in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.membership.current()
    }

    /// Index of the entry that brought it.
    pub fn configuration_index(&self) -> u64 {
        self.membership.current_index()
    }

    /// A leader's view of its peers, ascending; empty on others.
    pub fn progress(&self) -> impl Iterator<Item = ProgressView> + '_ {
        let peers = match &self.role {
            Role::Leader(leader) => leader.peers.as_slice(),
            _ => &[],
        };
        peers.iter().map(|(peer, progress)| progress.view(*peer))
    }

    /// Whether a leader knows `node` to have kept up: its last round of replication took less than
    /// the shortest election timeout (thesis section 4.2.1), and it has answered within that time. Only then
    /// is it made a voter.
    pub fn is_caught_up(&self, node: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let round_us_max = self.config.election_timeout_us_min;
        let last_index = self.log.last_index();
        leader.progress(node).is_some_and(|progress| {
            let (now_us, match_index) = (self.now_us, progress.match_index);
            // One that is dead has all there is for as long as nothing is appended.
            let answers = now_us.saturating_sub(progress.last_active_us) < round_us_max;
            answers
                && progress
                    .catch_up
                    .is_caught_up(now_us, match_index, last_index, round_us_max)
        })
    }

    /// Bytes and entries a leader has proposed and not yet committed; zero on others.
    pub fn uncommitted(&self) -> (u64, u64) {
        match &self.role {
            Role::Leader(leader) => (leader.uncommitted.bytes(), leader.uncommitted.entries()),
            _ => (0, 0),
        }
    }

    // Shared by the files beside.

    pub(super) fn advance_clock(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    pub(super) fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// The one way a control entry gets into the log. Returns its index.
    pub(super) fn append_control(&mut self, control: Control) -> u64 {
        let term = self.hard_state.term;
        let index = self.log.append(term);
        self.control_pending += 1;
        self.emit(Effect::AppendControl {
            id: EntryId { term, index },
            control,
        });
        index
    }

    pub(super) fn assert_controls_polled(&self) {
        assert!(
            self.control_pending == 0,
            "control entries are polled and appended before anything is proposed"
        );
    }

    /// Sends a message that depends on term and vote: now if they are durable, else once they are.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let too_early = match message {
            Message::VoteReply(_) => is_planted(Mutant::VoteBeforeFlush),
            Message::VoteRequest(_) => is_planted(Mutant::VoteRequestBeforeFlush),
            _ => false,
        };
        if self.hard_state_is_durable() || too_early {
            self.emit(Effect::Send { to, message });
        } else {
            self.held.push(self.hard_state, to, message);
        }
    }

    pub(super) fn hard_state_is_durable(&self) -> bool {
        self.hard_state_durable.covers(self.hard_state)
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(
            hard_state.term > before.term
                || (hard_state.term == before.term
                    && (before.vote.is_none() || before.vote == hard_state.vote))
                || is_planted(Mutant::SecondVote),
            "terms do not go back and a vote given stays given"
        );
        if hard_state.term > before.term {
            self.held.clear();
        }
        if hard_state != before {
            self.hard_state = hard_state;
            self.hard_state_unsaved = true;
        }
    }

    /// Redraws the election timeout and starts it now.
    pub(super) fn arm_election(&mut self) {
        let mut timeout_us = self.rng.range(
            self.config.election_timeout_us_min,
            self.config.election_timeout_us_max,
        );
        if is_planted(Mutant::TimersNotRandom) {
            timeout_us = self.config.election_timeout_us_min;
        }
        self.election_deadline_us = self.now_us.saturating_add(timeout_us);
    }

    pub(super) fn is_voter(&self) -> bool {
        self.membership.current().is_voter(self.config.id)
    }

    /// A voter, or one whose removal is not yet known to be committed: it may hold the only copy of
    /// the entry that removes it, and be the only one that can be elected. Its own vote counts only
    /// where it is a voter.
    pub(super) fn is_promotable(&self) -> bool {
        self.is_voter() || self.membership.removal_is_open(self.config.id)
    }

    fn is_only_voter(&self) -> bool {
        let configuration = self.membership.current();
        !configuration.is_joint() && configuration.voters == [self.config.id]
    }

    pub(super) fn report_role(&mut self) {
        let role = (self.role(), self.term(), self.leader());
        if role != self.role_reported {
            self.role_reported = role;
            self.emit(Effect::RoleChanged {
                role: role.0,
                term: role.1,
                leader: role.2,
            });
        }
    }
}
