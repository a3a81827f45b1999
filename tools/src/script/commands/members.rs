//! What operators do: members, leaders, snapshots.

use drave::raft::Configuration;

use crate::script::arguments::Arguments;
use crate::script::fault::Fault;
use crate::script::pool::Packet;
use crate::script::world::World;

/// `change 1 voters 1 2 4 learners 5`: asks node 1 for this configuration.
pub(super) fn change(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut target = Configuration::default();
    while let Some(word) = arguments.take() {
        let set = match word.as_str() {
            "voters" => &mut target.voters,
            "outgoing" => &mut target.voters_outgoing,
            "learners" => &mut target.learners,
            _ => return Err(Fault::script(format!("{word} is no set of members"))),
        };
        *set = arguments.nodes();
    }
    let asked = world.input(id, |raft, now_us| {
        raft.propose_configuration(now_us, target)
    })?;
    match asked {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::Refused(error.to_string())),
    }
}

/// `transfer 1 2`: leader 1 is to hand over to 2.
pub(super) fn transfer(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (id, to) = (arguments.node()?, arguments.node()?);
    arguments.end()?;
    let asked = world.input(id, |raft, now_us| raft.transfer_leadership(now_us, to))?;
    asked.map_err(|error| Fault::Refused(error.to_string()))
}

/// `snapshot 1 to 3`, `snapshot 1 to 3 at 5`: leader 1 sends a snapshot of what is committed and on
/// its disk, or of so much of it. The receiver makes it durable before it installs it, and answers.
pub(super) fn snapshot(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    if !arguments.keyword("to") {
        return Err(Fault::script("to whom is missing: snapshot 1 to 3"));
    }
    let to = arguments.node()?;
    let raft = world.raft(id)?;
    let committed = raft.commit_index_durable();
    let term = raft.term();
    let mut index = committed;
    if arguments.keyword("at") {
        index = arguments.number("an index")?;
    }
    arguments.end()?;
    if index > committed || index + 1 < raft.first_index() {
        return Err(Fault::script(format!(
            "a snapshot of node {id} ends between {} and {committed}",
            raft.first_index() - 1
        )));
    }
    let meta = world.node(id)?.disk.written.snapshot_at(index);
    world.input(id, |raft, _| raft.snapshot_started(to, meta.last))?;
    world.pool.send(id, to, Packet::Snapshot { term, meta });
    Ok(())
}

/// `snapshot-failed 1 3`: leader 1 gives up the snapshot to 3.
pub(super) fn snapshot_failed(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (id, to) = (arguments.node()?, arguments.node()?);
    arguments.end()?;
    world.input(id, |raft, now_us| {
        raft.snapshot_finished(now_us, to, false);
    })
}
