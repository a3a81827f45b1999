//! The commands, one handler each.

mod clients;
mod clocks;
mod cluster;
mod disks;
mod elections;
mod members;
mod messages;
mod network;

use std::collections::BTreeSet;

use drave::raft::NodeId;

use super::arguments::Arguments;
use super::fault::Fault;
use super::world::World;

type Handler = fn(&mut World, &mut Arguments) -> Result<(), Fault>;

/// Every command but `expect` and `stops`.
const COMMANDS: &[(&str, Handler)] = &[
    ("change", members::change),
    ("cluster", cluster::cluster),
    ("compact", disks::compact),
    ("complete", disks::complete),
    ("crash", disks::crash),
    ("credit", clients::credit),
    ("cut", network::cut),
    ("deliver", messages::deliver),
    ("drop", messages::drop),
    ("duplicate", messages::duplicate),
    ("elect", elections::elect),
    ("flush", disks::flush),
    ("found", cluster::found),
    ("heal", network::heal),
    ("heartbeat", clocks::heartbeat),
    ("hold", messages::hold),
    ("lost-leader", network::lost_leader),
    ("node", cluster::node),
    ("note", clocks::note),
    ("partition", network::partition),
    ("persist", disks::persist),
    ("propose", clients::propose),
    ("read", clients::read),
    ("reconnect", network::reconnect),
    ("release", messages::release),
    ("restart", disks::restart),
    ("set", cluster::set),
    ("settle", network::settle),
    ("sleep", clocks::sleep),
    ("snapshot", members::snapshot),
    ("snapshot-failed", members::snapshot_failed),
    ("tick", clocks::tick),
    ("timeout", clocks::timeout),
    ("transfer", members::transfer),
    ("wipe", disks::wipe),
];

/// Runs one command.
pub(super) fn run(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let name = arguments.word("a command")?;
    match COMMANDS.iter().find(|(known, _)| *known == name) {
        Some((_, handler)) => handler(world, arguments),
        None => Err(Fault::script(format!("{name} is no command"))),
    }
}

/// `all`, or nodes by number.
fn nodes_or_all(world: &World, arguments: &mut Arguments) -> Result<Vec<NodeId>, Fault> {
    if arguments.keyword("all") {
        return Ok(world.running());
    }
    let nodes = arguments.nodes();
    if nodes.is_empty() {
        return Err(Fault::script("nodes are missing, or all"));
    }
    Ok(nodes)
}

fn all(world: &World) -> BTreeSet<NodeId> {
    world.ids().into_iter().collect()
}
