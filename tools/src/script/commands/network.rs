//! Links between nodes.

use drave::raft::{NodeId, Raft};

use super::all;
use crate::script::arguments::Arguments;
use crate::script::fault::Fault;
use crate::script::world::World;

/// `partition 1 2 | 3 4 5`: nothing passes between the groups; who is not named is alone. What was
/// on its way before waits for `heal` or to be called by its number.
pub(super) fn partition(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let mut groups: Vec<Vec<NodeId>> = vec![arguments.nodes()];
    while arguments.keyword("|") {
        groups.push(arguments.nodes());
    }
    arguments.end()?;
    let together = |a: &NodeId, b: &NodeId| {
        let both = |group: &Vec<NodeId>| group.contains(a) && group.contains(b);
        groups.iter().any(both)
    };
    world.pool.cut.clear();
    for from in world.ids() {
        for to in world.ids() {
            if from != to && !together(&from, &to) {
                world.pool.cut.insert((from, to));
            }
        }
    }
    Ok(())
}

/// `cut 1->2`: nothing passes in this direction.
pub(super) fn cut(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let word = arguments.word("a link, such as 1->2")?;
    arguments.end()?;
    let ends = word.split_once("->");
    let parsed = ends.map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = parsed else {
        return Err(Fault::script(format!("a link is 1->2, found {word}")));
    };
    world.pool.cut.insert((NodeId(from), NodeId(to)));
    Ok(())
}

/// `heal`: everything passes again.
pub(super) fn heal(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    arguments.end()?;
    world.pool.cut.clear();
    Ok(())
}

/// `settle`, `settle 1 2`: flushes and delivers, among all or these, until nothing is left to do
/// without a timer. Leaves alone what is held or cut.
pub(super) fn settle(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let mut among = all(world);
    if !arguments.is_empty() {
        among = arguments.nodes().into_iter().collect();
    }
    arguments.end()?;
    world.settle(&among)
}

/// `reconnect 1 2`: the connection breaks, what is on it is lost, and it is made again.
pub(super) fn reconnect(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (a, b) = (arguments.node()?, arguments.node()?);
    arguments.end()?;
    world.pool.envelopes.retain(|_, envelope| {
        let ends = (envelope.from, envelope.to);
        envelope.held || (ends != (a, b) && ends != (b, a))
    });
    for (id, peer) in [(a, b), (b, a)] {
        if world.node(id)?.raft.is_some() {
            world.input(id, |raft, now_us| {
                raft.on_peer_disconnected(now_us, peer);
                raft.on_peer_connected(now_us, peer);
            })?;
        }
    }
    Ok(())
}

/// `lost-leader 2`: node 2's connection from its leader was closed by the leader's machine.
pub(super) fn lost_leader(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    world.input(id, Raft::on_leader_connection_lost)
}
