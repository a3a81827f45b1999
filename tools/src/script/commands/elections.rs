//! A whole election as one command, for scripts about something else.

use std::collections::BTreeSet;

use drave::raft::{NodeId, RoleKind};

use super::{all, clocks};
use crate::script::arguments::Arguments;
use crate::script::disk::Part;
use crate::script::fault::Fault;
use crate::script::pool::Envelope;
use crate::script::world::World;

/// `elect 1`, `elect 1 with 2 3`: node 1 stands and wins, by the votes of these or of all it can
/// reach. Other nodes' clocks go on by an election timeout first. Only votes are delivered, only
/// hard states flushed; requests to others are lost. Older vote messages stay where they are.
pub(super) fn elect(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut voters = all(world);
    if arguments.keyword("with") {
        voters = arguments.nodes().into_iter().collect();
    }
    arguments.end()?;
    voters.insert(id);
    for other in world.running() {
        let us = world.config.election_timeout_us_max;
        world.node_mut(other)?.now_us += us;
    }
    let oldest = world
        .pool
        .envelopes
        .keys()
        .next_back()
        .map_or(0, |key| key + 1);
    // A first attempt may only teach the candidate the term it has to exceed.
    for _attempt in 0..2 {
        clocks::at_deadline(world, id)?;
        // Pre-vote, vote, and the flushes between them.
        for _ in 0..4 {
            exchange_votes(world, id, &voters, oldest)?;
            if world.raft(id)?.role() == RoleKind::Leader {
                return Ok(());
            }
        }
    }
    Err(Fault::Expectation {
        expected: format!("leader {}", id.0),
        found: format!("{:?}", world.raft(id)?.role()),
    })
}

fn exchange_votes(
    world: &mut World,
    id: NodeId,
    voters: &BTreeSet<NodeId>,
    oldest: u64,
) -> Result<(), Fault> {
    for voter in voters {
        if world.node(*voter)?.raft.is_some() {
            world.flush(*voter, Part::HardState)?;
        }
    }
    let is_vote = |envelope: &Envelope| {
        (envelope.from == id || envelope.to == id) && envelope.packet.kind().contains("vote")
    };
    let votes = world.pool.envelopes.range(oldest..);
    let keys: Vec<u64> = votes
        .filter(|(_, envelope)| is_vote(envelope))
        .map(|(key, _)| *key)
        .collect();
    for key in keys {
        let envelope = &world.pool.envelopes[&key];
        if voters.contains(&envelope.from) && voters.contains(&envelope.to) {
            world.deliver_key(key)?;
        } else {
            world.pool.envelopes.remove(&key);
        }
    }
    Ok(())
}
