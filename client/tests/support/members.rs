//! The fake nodes' members: the leader's rules for changes, without the time that real ones take.

use std::collections::{HashMap, VecDeque};

use drave_batch::control::{Member, MemberRole};
use drave_batch::wire::{
    ErrorCode, ErrorReply, MemberChange, MemberListed, MemberOperation, MemberStatus,
};

use super::model::refusal;

/// The incarnation of every fake node's store.
pub const INCARNATION: u128 = 7;

/// Who is a member, and what was asked for.
pub struct MemberModel {
    pub members: Vec<Member>,
    pub configuration_index: u64,
    pub node_id_max: u64,
    /// The lags that a node's next listings show before it has caught up.
    pub lags: HashMap<u64, VecDeque<u64>>,
    /// Listings that still show the last change as not committed.
    pub changing: u32,
    /// Nodes that the leader does not hear.
    pub silent: Vec<u64>,
    /// Every change asked of the leader, also those that were in effect already.
    pub asked: Vec<MemberChange>,
}

impl MemberModel {
    /// Voters with ids from 1.
    pub fn new(addresses: &[String]) -> Self {
        let members = (1..).zip(addresses).map(|(node_id, address)| Member {
            node_id,
            role: Some(MemberRole::Voter),
            outgoing_voter: false,
            incarnation: 0,
            address: address.clone(),
        });
        Self {
            members: members.collect(),
            configuration_index: 0,
            node_id_max: addresses.len() as u64,
            lags: HashMap::new(),
            changing: 0,
            silent: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Only the first `count` nodes were ever members.
    pub fn only(&mut self, count: usize) {
        self.members.truncate(count);
        self.node_id_max = count as u64;
    }

    pub fn member(&self, node_id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.node_id == node_id)
    }

    /// Ids with their roles: `1 voter, 4 learner`.
    pub fn describe(&self) -> String {
        let words = self.members.iter().map(|member| {
            let role = match member.role {
                Some(MemberRole::Voter) => "voter",
                Some(MemberRole::Learner) => "learner",
                None => "leaving",
            };
            format!("{} {role}", member.node_id)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn lag(&self, node_id: u64) -> u64 {
        let lags = self.lags.get(&node_id);
        lags.and_then(|lags| lags.front().copied()).unwrap_or(0)
    }

    /// The list; every one brings learners nearer.
    pub fn list(&mut self, leader_id: u64, term: u64) -> MemberListed {
        let is_committed = self.changing == 0;
        self.changing = self.changing.saturating_sub(1);
        let members = self.members.iter().map(|member| MemberStatus {
            member: member.clone(),
            match_index: 1_000 - self.lag(member.node_id),
            lag_entries: self.lag(member.node_id),
            last_active_ms: if self.silent.contains(&member.node_id) {
                60_000
            } else {
                10
            },
            is_caught_up: self.lag(member.node_id) == 0,
        });
        let listed = MemberListed {
            term,
            leader_id,
            commit_index: 1_000,
            configuration_index: self.configuration_index,
            is_committed,
            node_id_max: self.node_id_max,
            members: members.collect(),
        };
        for lags in self.lags.values_mut() {
            lags.pop_front();
        }
        listed
    }

    fn is_in_effect(&self, change: &MemberChange) -> bool {
        let is_voter = |id: u64| {
            self.member(id)
                .is_some_and(|m| m.role == Some(MemberRole::Voter))
        };
        let has_left = |id: u64| id <= self.node_id_max && self.member(id).is_none();
        match change.operation {
            MemberOperation::AddLearner => self.member(change.node_id).is_some_and(|member| {
                member.address == change.address && member.incarnation == change.incarnation
            }),
            MemberOperation::Promote => is_voter(change.node_id),
            MemberOperation::Remove => has_left(change.node_id),
            MemberOperation::Replace => is_voter(change.node_id) && has_left(change.other_node_id),
        }
    }

    /// The leader's verdict.
    pub fn change(&mut self, change: &MemberChange) -> Result<(), ErrorReply> {
        self.asked.push(change.clone());
        if self.is_in_effect(change) {
            return Ok(());
        }
        let expected = change.expected_configuration_index;
        if expected != u64::MAX && expected != self.configuration_index {
            return Err(ErrorReply {
                expected,
                found: self.configuration_index,
                ..refusal(ErrorCode::MembershipConflict)
            });
        }
        match change.operation {
            MemberOperation::AddLearner => self.add(change)?,
            MemberOperation::Promote => self.promote(change.node_id)?,
            MemberOperation::Remove => self.remove(change.node_id)?,
            MemberOperation::Replace => {
                if self.member(change.other_node_id).is_none() {
                    return Err(refusal(ErrorCode::MemberUnknown));
                }
                self.promote(change.node_id)?;
                self.remove(change.other_node_id)?;
            }
        }
        self.configuration_index += 1;
        Ok(())
    }

    fn add(&mut self, change: &MemberChange) -> Result<(), ErrorReply> {
        if self.member(change.node_id).is_some() {
            return Err(refusal(ErrorCode::MemberExists));
        }
        if change.node_id <= self.node_id_max {
            return Err(refusal(ErrorCode::NodeIdUsed));
        }
        self.node_id_max = change.node_id;
        self.members.push(Member {
            node_id: change.node_id,
            role: Some(MemberRole::Learner),
            outgoing_voter: false,
            incarnation: change.incarnation,
            address: change.address.clone(),
        });
        Ok(())
    }

    fn promote(&mut self, node_id: u64) -> Result<(), ErrorReply> {
        if self.lag(node_id) > 0 {
            return Err(refusal(ErrorCode::NotCaughtUp));
        }
        let mut members = self.members.iter_mut();
        match members.find(|member| member.node_id == node_id) {
            Some(member) => member.role = Some(MemberRole::Voter),
            None => return Err(refusal(ErrorCode::MemberUnknown)),
        }
        Ok(())
    }

    fn remove(&mut self, node_id: u64) -> Result<(), ErrorReply> {
        if self.member(node_id).is_none() {
            return Err(refusal(ErrorCode::MemberUnknown));
        }
        let stays = |member: &&Member| member.node_id != node_id;
        let mut others = self.members.iter().filter(stays);
        if !others.any(|member| member.role == Some(MemberRole::Voter)) {
            return Err(refusal(ErrorCode::LastVoter));
        }
        self.members.retain(|member| member.node_id != node_id);
        Ok(())
    }
}
