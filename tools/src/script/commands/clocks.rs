//! Time, node by node.

use drave::raft::{NodeId, Raft, RoleKind};

use super::nodes_or_all;
use crate::script::arguments::Arguments;
use crate::script::fault::Fault;
use crate::script::world::World;

/// `tick 1 500ms`: node 1's clock goes on, then the core looks at it once.
pub(super) fn tick(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let nodes = nodes_or_all(world, arguments)?;
    let us = arguments.duration_us()?;
    arguments.end()?;
    for id in nodes {
        world.node_mut(id)?.now_us += us;
        world.input(id, Raft::tick)?;
    }
    Ok(())
}

/// `sleep 1 500ms`: node 1's clock goes on and the core does not see it before its next input: the
/// process was paused.
pub(super) fn sleep(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let nodes = nodes_or_all(world, arguments)?;
    let us = arguments.duration_us()?;
    arguments.end()?;
    for id in nodes {
        world.node_mut(id)?.now_us += us;
    }
    Ok(())
}

/// `timeout 1`: node 1's election timer fires.
pub(super) fn timeout(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    if world.raft(id)?.role() == RoleKind::Leader {
        return Err(Fault::script(format!(
            "node {id} leads: it has no election timer"
        )));
    }
    at_deadline(world, id)
}

/// `heartbeat 1`: leader 1's heartbeat is due.
pub(super) fn heartbeat(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    if world.raft(id)?.role() != RoleKind::Leader {
        return Err(Fault::script(format!("node {id} does not lead")));
    }
    world.node_mut(id)?.now_us += world.config.heartbeat_interval_us;
    world.input(id, Raft::tick)
}

/// `note timer 2`: remembers when node 2's timer is due, for `expect timer`.
pub(super) fn note(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    if !arguments.keyword("timer") {
        return Err(Fault::script("what can be noted is a timer"));
    }
    let id = arguments.node()?;
    arguments.end()?;
    let deadline_us = world.raft(id)?.next_deadline_us();
    world.node_mut(id)?.deadline_noted_us = deadline_us;
    Ok(())
}

/// Moves a node's clock to when its timer is due.
pub(super) fn at_deadline(world: &mut World, id: NodeId) -> Result<(), Fault> {
    let deadline_us = world.raft(id)?.next_deadline_us();
    if deadline_us == u64::MAX {
        return Err(Fault::script(format!("node {id} has no timer")));
    }
    let node = world.node_mut(id)?;
    node.now_us = node.now_us.max(deadline_us);
    world.input(id, Raft::tick)
}
