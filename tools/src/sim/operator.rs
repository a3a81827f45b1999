//! The operator: members added, promoted, removed and replaced, the lead handed over, logs trimmed, in the
//! middle of everything, and never so that a quorum must be lost.

use drave::raft::{Configuration, NodeId};
use drave_batch::wire::{MemberChange, MemberOperation};
use drave_batch::{LogChange, Quota, Retention};

use super::client::{Ask, Request};
use super::faults::Fault;
use super::invariants::Violation;
use super::node::{Input, Life};
use super::world::World;

/// The operator's number among the clients: none of theirs.
pub const OPERATOR: usize = usize::MAX;

/// In [`MemberChange::expected_configuration_index`]: whatever is in force.
const ANY: u64 = u64::MAX;

/// The address of a node.
#[must_use]
pub fn address(slot: usize) -> String {
    format!("n{}:1", slot + 1)
}

/// Whether the disk or the process of this node is gone for good.
fn is_lost(world: &World, node: NodeId) -> bool {
    let node = &world.nodes[node.0 as usize - 1];
    node.life == Life::Dead || node.is_damaged
}

/// Whether `configuration` still has its majorities, should `extra` be lost as well.
fn survives(world: &World, configuration: &Configuration, extra: Option<NodeId>) -> bool {
    [&configuration.voters, &configuration.voters_outgoing]
        .into_iter()
        .all(|voters| {
            let lost = |voter: &&NodeId| Some(**voter) == extra || is_lost(world, **voter);
            voters.is_empty() || voters.iter().filter(lost).count() <= (voters.len() - 1) / 2
        })
}

/// Whether every configuration that any node may go by survives the loss of one more node.
#[must_use]
pub fn may_lose(world: &World, slot: usize) -> bool {
    let extra = Some(NodeId(slot as u64 + 1));
    if !world.plan.faults.has(Fault::Membership) {
        let voters = (1..=world.plan.nodes as u64).map(NodeId);
        return Configuration::new(voters, []).is_ok_and(|all| survives(world, &all, extra));
    }
    // What a node that is down goes by is not known.
    let mut used = world.nodes.iter().filter(|node| node.slot < world.used);
    used.all(|node| match &node.process {
        Some(process) => survives(world, process.replica.raft().configuration(), extra),
        None => node.life == Life::Dead,
    })
}

/// Changes the members in some way, by the leader.
///
/// # Errors
/// [`Violation`]
pub fn change_members(world: &mut World) -> Result<(), Violation> {
    let Some(leader) = world.leader() else {
        return Ok(());
    };
    let Some(change) = draw_change(world, leader) else {
        return Ok(());
    };
    world
        .trace
        .line(world.now_us, || format!("operator: {change:?}"));
    ask(world, leader, Ask::Members(change))
}

fn draw_change(world: &mut World, leader: usize) -> Option<MemberChange> {
    let process = world.nodes[leader].process.as_ref()?;
    let configuration = process.replica.raft().configuration().clone();
    let numbers = [
        world.fate.number(),
        world.fate.number(),
        world.fate.number(),
    ];
    let pick = |set: &[NodeId], number: u64| -> Option<NodeId> {
        set.get((number % (set.len().max(1)) as u64) as usize)
            .copied()
    };
    let change = |operation, node_id: NodeId, other: Option<NodeId>| MemberChange {
        operation,
        node_id: node_id.0,
        other_node_id: other.map_or(0, |other| other.0),
        incarnation: 0,
        expected_configuration_index: ANY,
        address: String::new(),
    };
    let learner = pick(&configuration.learners, numbers[1]);
    let voter = pick(&configuration.voters, numbers[2])?;
    let wanted = match (numbers[0] % 8, learner) {
        (0 | 1, Some(learner)) => change(MemberOperation::Promote, learner, None),
        (2, Some(learner)) => change(MemberOperation::Remove, learner, None),
        (3 | 4, Some(learner)) => change(MemberOperation::Replace, learner, Some(voter)),
        (5, _) if configuration.voters.len() > 2 => change(MemberOperation::Remove, voter, None),
        _ => return add(world, &configuration),
    };
    let mut target = configuration.clone();
    let leaves = match wanted.operation {
        MemberOperation::Remove => Some(NodeId(wanted.node_id)),
        MemberOperation::Replace => Some(voter),
        _ => None,
    };
    target.voters.retain(|voter| Some(*voter) != leaves);
    if matches!(
        wanted.operation,
        MemberOperation::Promote | MemberOperation::Replace
    ) {
        target.voters.push(NodeId(wanted.node_id));
    }
    (!target.voters.is_empty() && survives(world, &target, None)).then_some(wanted)
}

/// The next node that was never a member.
fn add(world: &mut World, configuration: &Configuration) -> Option<MemberChange> {
    if configuration.learners.len() >= 2 || world.used >= world.nodes.len() {
        return None;
    }
    let slot = world.used;
    world.used += 1;
    Some(MemberChange {
        operation: MemberOperation::AddLearner,
        node_id: slot as u64 + 1,
        other_node_id: 0,
        incarnation: slot as u128 + 1,
        expected_configuration_index: ANY,
        address: address(slot),
    })
}

/// Hands the lead to some member.
///
/// # Errors
/// [`Violation`]
pub fn transfer(world: &mut World) -> Result<(), Violation> {
    let Some(leader) = world.leader() else {
        return Ok(());
    };
    let to = world.fate.number() % world.used as u64 + 1;
    ask(world, leader, Ask::Transfer { to })
}

/// Of so many trims one is another change of the log.
const CHANGES_ONE_IN: u64 = 8;

/// Gives up the beginning of a log, often nearly all of it; now and then closes or deletes one, or
/// says how much of it is kept.
///
/// # Errors
/// [`Violation`]
pub fn trim(world: &mut World) -> Result<(), Violation> {
    let Some(leader) = world.leader() else {
        return Ok(());
    };
    let logs: Vec<_> = world.oracle.committed.logs().collect();
    let whole = world.fate.number().is_multiple_of(2);
    for (log_id, log) in logs {
        let number = world.fate.number();
        if log.is_closed || number.is_multiple_of(CHANGES_ONE_IN) {
            let change = match number / CHANGES_ONE_IN % 4 {
                _ if log.is_closed => LogChange::Delete,
                0 => LogChange::Delete,
                1 => LogChange::Close,
                // What one append takes is there again before a run is held to be stuck.
                2 => LogChange::Limit(Quota {
                    bytes_per_second: 100_000 + number % 99_999,
                    records_per_second: 100 + number % 99,
                }),
                _ => LogChange::Retain(Retention {
                    bytes: number % 65_536,
                    age_us: number % 7_000_000,
                }),
            };
            ask(world, leader, Ask::Change { log_id, change })?;
            continue;
        }
        let held = log.next_seq - log.first_seq;
        let first_seq = if whole {
            log.next_seq
        } else {
            log.first_seq + number % (held + 1)
        };
        ask(world, leader, Ask::Trim { log_id, first_seq })?;
    }
    Ok(())
}

fn ask(world: &mut World, node: usize, ask: Ask) -> Result<(), Violation> {
    let request_id = world.next_operation();
    let request = Box::new(Request { request_id, ask });
    world.put(node, Input::Request(OPERATOR, request))
}
