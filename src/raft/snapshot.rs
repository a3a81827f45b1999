//! Where snapshots meet the log. Storing, shipping and checking them is the owner's.

use super::effect::SnapshotOutcome;
use super::marks::{Mark, mark};
use super::membership::ConfigurationAt;
use super::mutants::{Mutant, is_planted};
use super::progress::ProgressState;
use super::raft::Raft;
use super::role::Role;
use super::types::{Durable, EntryId, NUMBER_MAX, NodeId, SnapshotMeta};

impl Raft {
    /// Whether what `peer` needs next is no longer in the leader's log and no snapshot is under way.
    pub fn needs_snapshot(&self, peer: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.progress(peer).is_some_and(|progress| {
            !matches!(progress.state, ProgressState::Snapshot { .. })
                && progress.next_index < self.log.first_index()
        })
    }

    /// The owner has begun to send `peer` a snapshot that ends at `last`. Appends pause.
    pub fn snapshot_started(&mut self, peer: NodeId, last: EntryId) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(progress) = leader.progress_mut(peer) {
            progress.window.clear();
            progress.probe_sent_us = None;
            progress.state = ProgressState::Snapshot { index: last.index };
        }
    }

    /// Sending has ended, well or not: appends are probed again from what is known, and
    /// [`Raft::needs_snapshot`] says whether another attempt is due.
    pub fn snapshot_finished(&mut self, now_us: u64, peer: NodeId, installed: bool) {
        self.advance_clock(now_us);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(peer) else {
            return;
        };
        let ProgressState::Snapshot { index } = progress.state else {
            return;
        };
        if installed {
            // A hint only: the probe that starts there has to be accepted first.
            progress.received_index = progress.received_index.max(index);
        }
        progress.resume();
    }

    /// The owner has received, checked and flushed a snapshot that the leader `from` of `term` sent.
    ///
    /// With [`SnapshotOutcome::ResetLog`] the log goes on after the snapshot; the owner drops its
    /// own, after the snapshot is durable and before anything else is written.
    pub fn install_snapshot(
        &mut self,
        now_us: u64,
        from: NodeId,
        term: u64,
        snapshot: &Durable<SnapshotMeta>,
    ) -> SnapshotOutcome {
        self.advance_clock(now_us);
        let SnapshotMeta {
            last,
            configuration_index,
            configuration,
        } = snapshot.get();
        let well_formed = last.term <= term
            && term <= NUMBER_MAX
            && last.index <= NUMBER_MAX
            && last.index > 0
            && *configuration_index <= last.index
            && configuration.validate().is_ok()
            && !configuration.voters.is_empty();
        if from == self.config.id || term < self.hard_state.term || !well_formed {
            return SnapshotOutcome::Ignored;
        }
        self.follow(term, from);
        self.follower_mut().ack_due = true;
        if last.index <= self.commit_index && !is_planted(Mutant::SnapshotBelowCommit) {
            self.send_ack_due();
            return SnapshotOutcome::Ignored;
        }
        let keeps =
            is_planted(Mutant::SnapshotKeepsConflict) && last.index <= self.log.last_index();
        let outcome = if keeps || self.log.term_at(last.index) == Some(last.term) {
            mark(Mark::SnapshotKeptLog);
            SnapshotOutcome::KeepLog
        } else {
            mark(Mark::SnapshotReplacedLog);
            if self.membership.current_index() > self.commit_index {
                mark(Mark::SnapshotDuringChange);
            }
            // The snapshot is committed: whatever the log holds instead is of no leader.
            self.log.reset(*last);
            let configuration = configuration.clone();
            self.membership.reset(ConfigurationAt {
                index: *configuration_index,
                configuration,
            });
            SnapshotOutcome::ResetLog
        };
        let follower = self.follower_mut();
        follower.verified_index = follower.verified_index.max(last.index);
        self.advance_commit(last.index);
        self.send_ack_due();
        outcome
    }
}
