//! The receiving side of replication: AppendEntries, heartbeats, acknowledgements.

use super::effect::AppendOutcome;
use super::marks::{Mark, mark};
use super::message::{AppendReply, AppendResult, Heartbeat, HeartbeatReply, Message};
use super::mutants::{Mutant, is_planted};
use super::raft::Raft;
use super::role::{Follower, Role};
use super::types::{AppendEntries, EntryMeta, NUMBER_MAX, NodeId};

impl Raft {
    /// Handles AppendEntries. `entries` describes what the message carries, in order, from
    /// `append.prev.index + 1` on.
    ///
    /// On [`AppendOutcome::Store`] the core already counts the entries as part of the log (not as
    /// durable); the owner must store exactly them, then report each configuration entry among them
    /// by [`Raft::on_configuration_stored`].
    ///
    /// # Panics
    /// When the message contradicts a committed entry: safety is already lost, and going on would
    /// destroy the evidence.
    pub fn step_append(
        &mut self,
        now_us: u64,
        from: NodeId,
        append: &AppendEntries,
        entries: &[EntryMeta],
    ) -> AppendOutcome {
        self.advance_clock(now_us);
        if from == self.config.id || !is_well_formed(append, entries) {
            return AppendOutcome::Nothing;
        }
        if append.term < self.hard_state.term
            && is_planted(Mutant::StaleAppendAccepted)
            && matches!(self.role, Role::Follower(_))
        {
            return self.accept_entries(append.prev.index, entries);
        }
        if append.term < self.hard_state.term {
            // A leader of the past learns of the present by the reply's term.
            self.send_reject(from, append.prev.index, append.prev.term);
            return AppendOutcome::Nothing;
        }
        self.follow(append.term, from);
        let prev = append.prev;
        let follower = self.follower_mut();
        follower.session = follower.session.max(append.session);
        // An entry before the first one held is committed, and so is in every leader's log.
        let prev_matches = prev.index + 1 < self.log.first_index()
            || self.log.term_at(prev.index) == Some(prev.term)
            || is_planted(Mutant::PrevTermIgnored) && prev.index <= self.log.last_index();
        if !prev_matches {
            assert!(
                prev.index > self.commit_index,
                "leader {from} contradicts committed entry {} with term {}",
                prev.index,
                prev.term
            );
            self.send_reject(from, prev.index, prev.term);
            return AppendOutcome::Nothing;
        }
        let outcome = self.accept_entries(prev.index, entries);
        let verified_index = prev.index + entries.len() as u64;
        let follower = self.follower_mut();
        follower.verified_index = follower.verified_index.max(verified_index);
        follower.leader_commit = follower.leader_commit.max(append.commit_index);
        self.advance_commit_as_follower();
        if outcome == AppendOutcome::Nothing || is_planted(Mutant::AckBeforeFlush) {
            self.follower_mut().ack_due = true;
            self.send_ack_due();
        }
        outcome
    }

    /// Skips what is there already; truncates only at an entry that differs, because an append that
    /// was delayed may well end before the log does.
    fn accept_entries(&mut self, prev_index: u64, entries: &[EntryMeta]) -> AppendOutcome {
        let mut index = prev_index + 1;
        let mut truncate_from = None;
        let compacted = self
            .log
            .first_index()
            .saturating_sub(index)
            .min(entries.len() as u64);
        let mut rest = &entries[compacted as usize..];
        index += compacted;
        while let Some((entry, after)) = rest.split_first() {
            let Some(term) = self.log.term_at(index) else {
                break;
            };
            let keeps_own = is_planted(Mutant::NoTruncateOnConflict);
            let cuts_all = is_planted(Mutant::TruncateWithoutConflict);
            if term != entry.term && !keeps_own || cuts_all {
                self.truncate_conflict(index, entry.term);
                truncate_from = Some(index);
                break;
            }
            rest = after;
            index += 1;
        }
        if rest.is_empty() {
            return AppendOutcome::Nothing;
        }
        let lo = index;
        assert!(lo == self.log.last_index() + 1, "the log stays contiguous");
        for entry in rest {
            self.log.append(entry.term);
        }
        AppendOutcome::Store {
            truncate_from,
            lo,
            hi: lo + rest.len() as u64,
        }
    }

    fn truncate_conflict(&mut self, index: u64, term: u64) {
        assert!(
            index > self.commit_index,
            "committed entry {index} contradicted with term {term}"
        );
        let verified_index = self.follower_mut().verified_index;
        assert!(
            index > verified_index || is_planted(Mutant::TruncateWithoutConflict),
            "entry {index} contradicted by the leader that sent it"
        );
        self.log.truncate_from(index);
        mark(Mark::ConflictTruncated);
        if !is_planted(Mutant::ConfigurationNotRolledBack) && self.membership.truncate_from(index) {
            mark(Mark::ConfigurationRolledBack);
        }
    }

    pub(super) fn follower_mut(&mut self) -> &mut Follower {
        match &mut self.role {
            Role::Follower(follower) => follower,
            _ => unreachable!("follow() has just made this node a follower"),
        }
    }

    pub(super) fn advance_commit_as_follower(&mut self) {
        let follower = self.follower_mut();
        let mut commit_index = follower.leader_commit.min(follower.verified_index);
        if is_planted(Mutant::FollowerCommitUncapped) {
            commit_index = self.follower_mut().leader_commit.min(self.log.last_index());
        }
        if commit_index > self.commit_index && commit_index > self.log.durable_index() {
            mark(Mark::FollowerCommitBeforeFlush);
        }
        self.advance_commit(commit_index);
    }

    /// The acknowledgement of appends that needed no flush of entries, or were flushed before term
    /// and vote were: once the latter are durable, at most one for all.
    pub(super) fn send_ack_due(&mut self) {
        let durable_index = self.log.durable_index();
        if !self.hard_state_is_durable() {
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let (true, Some(leader)) = (follower.ack_due, follower.leader) else {
            return;
        };
        follower.ack_due = false;
        let mut received_index = follower.verified_index;
        if is_planted(Mutant::AckReportsLastIndex) {
            received_index = self.log.last_index();
        }
        let mut match_index = received_index.min(durable_index);
        if is_planted(Mutant::AckBeforeFlush) {
            match_index = received_index;
        }
        follower.acked_index = follower.acked_index.max(match_index);
        let session = follower.session;
        self.emit(super::Effect::Send {
            to: leader,
            message: Message::AppendReply(AppendReply {
                term: self.hard_state.term,
                session,
                result: AppendResult::Accepted {
                    match_index,
                    received_index,
                },
                credit_bytes: self.credit_bytes,
            }),
        });
    }

    /// One flush, one acknowledgement, whatever number of appends it covers.
    pub(super) fn acknowledge_flush(&mut self) {
        let durable_index = self.log.durable_index();
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if follower.verified_index.min(durable_index) > follower.acked_index {
            follower.ack_due = true;
            self.send_ack_due();
        }
    }

    fn send_reject(&mut self, to: NodeId, rejected_prev: u64, prev_term: u64) {
        let mut hint = self.log.last_not_above(rejected_prev, prev_term);
        if hint.index < self.commit_index {
            // What is committed agrees with any leader: nothing below needs to be probed.
            let term = self.log.term_at(self.commit_index).unwrap_or(0);
            hint = super::EntryId {
                term,
                index: self.commit_index,
            };
        }
        let session = match &self.role {
            Role::Follower(follower) => follower.session,
            _ => 0,
        };
        let reply = AppendReply {
            term: self.hard_state.term,
            session,
            result: AppendResult::Rejected {
                rejected_prev,
                hint,
                last_index: self.log.last_index(),
            },
            credit_bytes: self.credit_bytes,
        };
        self.send(to, Message::AppendReply(reply));
    }

    /// Carries no entries and so never truncates.
    pub(super) fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat) {
        let mut reply = HeartbeatReply {
            term: self.hard_state.term,
            read_round: heartbeat.read_round,
            session: heartbeat.session,
            match_index: 0,
            received_index: 0,
            credit_bytes: self.credit_bytes,
        };
        if heartbeat.term >= self.hard_state.term {
            self.follow(heartbeat.term, from);
            let durable_index = self.log.durable_index();
            let follower = self.follower_mut();
            follower.session = follower.session.max(heartbeat.session);
            follower.leader_commit = follower.leader_commit.max(heartbeat.commit_index);
            reply.session = follower.session;
            reply.received_index = follower.verified_index;
            reply.match_index = follower.verified_index.min(durable_index);
            self.advance_commit_as_follower();
            if is_planted(Mutant::HeartbeatCommitUncapped) {
                self.advance_commit(heartbeat.commit_index.min(self.log.last_index()));
            }
            reply.term = self.hard_state.term;
        }
        self.send(from, Message::HeartbeatReply(reply));
    }
}

/// What no correct leader sends is dropped here: terms that go back or exceed the leader's, and
/// indexes past the end of the number range.
fn is_well_formed(append: &AppendEntries, entries: &[EntryMeta]) -> bool {
    let end_fits = append.prev.index <= NUMBER_MAX && append.term <= NUMBER_MAX;
    let mut term = append.prev.term;
    let terms_ascend = entries.iter().all(|entry| {
        let fits = entry.term >= term && entry.term > 0;
        term = entry.term;
        fits
    });
    end_fits && terms_ascend && term <= append.term && append.term > 0
}
