//! Majorities, simple and joint, over values and over votes. Allocates nothing.

use super::configuration::{Configuration, MEMBERS_MAX};
use super::mutants::{Mutant, is_planted};
use super::types::NodeId;
use alloc::vec::Vec;

/// The outcome of a vote so far.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum VoteResult {
    Won,
    Lost,
    Pending,
}

/// The largest value that a majority of `voters` has reached. `voters` is not empty.
fn majority_value(voters: &[NodeId], value: impl Fn(NodeId) -> u64) -> u64 {
    assert!(
        !voters.is_empty() && voters.len() <= MEMBERS_MAX,
        "a validated voter set"
    );
    let mut values = [0u64; MEMBERS_MAX];
    let values = &mut values[..voters.len()];
    for (slot, voter) in values.iter_mut().zip(voters) {
        *slot = value(*voter);
    }
    values.sort_unstable();
    if is_planted(Mutant::QuorumHalf) {
        return values[values.len() - (values.len() / 2).max(1)];
    }
    // With n ascending values, those from position (n - 1) / 2 on are a majority.
    values[(values.len() - 1) / 2]
}

/// The largest value that a majority of every voter set has reached; 0 without voters.
pub(super) fn quorum_value(configuration: &Configuration, value: impl Fn(NodeId) -> u64) -> u64 {
    if configuration.voters.is_empty() {
        return 0;
    }
    if is_planted(Mutant::LearnerCounts) && !configuration.is_joint() {
        let everybody = configuration.voters.iter().chain(&configuration.learners);
        let mut values: Vec<u64> = everybody.map(|node| value(*node)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        return values[configuration.voters.len() / 2];
    }
    let incoming = majority_value(&configuration.voters, &value);
    if configuration.is_joint() && !is_planted(Mutant::JointIncomingOnly) {
        incoming.min(majority_value(&configuration.voters_outgoing, &value))
    } else {
        incoming
    }
}

fn majority_vote(voters: &[NodeId], vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    let mut needed = voters.len() / 2 + 1;
    if is_planted(Mutant::QuorumHalf) {
        needed = (voters.len() / 2).max(1);
    }
    let granted = voters
        .iter()
        .filter(|voter| vote(**voter) == Some(true))
        .count();
    let open = voters
        .iter()
        .filter(|voter| vote(**voter).is_none())
        .count();
    if granted >= needed {
        VoteResult::Won
    } else if granted + open >= needed {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

/// The outcome over every voter set.
pub(super) fn quorum_vote(
    configuration: &Configuration,
    vote: impl Fn(NodeId) -> Option<bool>,
) -> VoteResult {
    let incoming = majority_vote(&configuration.voters, &vote);
    if !configuration.is_joint() || is_planted(Mutant::JointIncomingOnly) {
        return incoming;
    }
    match (
        incoming,
        majority_vote(&configuration.voters_outgoing, &vote),
    ) {
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        _ => VoteResult::Pending,
    }
}

/// The votes of one election round: the first answer of each node counts.
#[derive(Default)]
pub(super) struct Votes {
    answers: Vec<(NodeId, bool)>,
}

impl Votes {
    /// The caller passes only members, which bounds the list.
    pub(super) fn record(&mut self, node: NodeId, granted: bool) {
        if self.answer(node).is_none() || is_planted(Mutant::DuplicateVotesCounted) {
            self.answers.push((node, granted));
        }
    }

    pub(super) fn result(&self, configuration: &Configuration) -> VoteResult {
        if is_planted(Mutant::DuplicateVotesCounted) {
            let granted = self.answers.iter().filter(|(_, granted)| *granted);
            if granted.count() > configuration.voters.len() / 2 {
                return VoteResult::Won;
            }
        }
        quorum_vote(configuration, |node| self.answer(node))
    }

    fn answer(&self, node: NodeId) -> Option<bool> {
        self.answers
            .iter()
            .find(|(voter, _)| *voter == node)
            .map(|(_, granted)| *granted)
    }
}
