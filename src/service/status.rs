//! What a node says of itself.

use drave_batch::wire::{ScrubStatus, StatusMember, StatusReply};

use super::Context;
use crate::raft::RoleKind;

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub group_id: u32,
    pub node_id: u64,
    pub io_engine: String,
    pub started_us: u64,
    /// What an operator should know; empty when all is well.
    pub fault: String,
    /// How far the scrubber is.
    pub scrub: ScrubStatus,
}

/// A role's name in status and logs.
pub(crate) fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Leader => "leader",
        RoleKind::Follower => "follower",
        RoleKind::Candidate => "candidate",
        RoleKind::PreCandidate => "pre-candidate",
    }
}

pub(super) fn status(context: &Context<'_>) -> StatusReply {
    let (replica, facts) = (&*context.replica, context.facts);
    let raft = replica.raft();
    let flushes = context.log.wal.recent_flushes();
    StatusReply {
        node_id: facts.node_id,
        term: raft.term(),
        leader_id: raft.leader().map_or(0, |leader| leader.0),
        first_index: raft.first_index(),
        last_index: raft.last().index,
        durable_index: raft.durable_index(),
        commit_index: raft.commit_index(),
        applied_index: replica.applied_index(),
        log_count: replica.catalogue().len() as u64,
        uptime_us: context.now.mono_us.saturating_sub(facts.started_us),
        flush_us_p50: flushes.us_p50,
        flush_us_p99: flushes.us_p99,
        flush_us_max: flushes.us_max,
        flush_waits_us: context.log.wal.flush_waits_us(),
        role: role_name(raft.role()).to_owned(),
        io_engine: facts.io_engine.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fault: facts.fault.clone(),
        members: replica
            .members()
            .members
            .iter()
            .map(|member| StatusMember {
                node_id: member.node_id,
                address: member.address.clone(),
            })
            .collect(),
        scrub: facts.scrub,
    }
}
