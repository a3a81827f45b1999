//! Disks: flushes in parts, crashes, restarts, compaction.

use super::nodes_or_all;
use crate::script::arguments::Arguments;
use crate::script::disk::{Change, Disk, Image, Part};
use crate::script::fault::Fault;
use crate::script::world::World;

fn part(arguments: &mut Arguments) -> Result<Part, Fault> {
    if arguments.keyword("hard-state") {
        return Ok(Part::HardState);
    }
    if arguments.keyword("log") {
        let mut through = u64::MAX;
        if !arguments.is_empty() {
            through = arguments.number("an index")?;
        }
        return Ok(Part::Log { through });
    }
    Ok(Part::All)
}

/// `flush 1`, `flush 1 hard-state`, `flush 1 log`, `flush 1 log 5`, `flush all`: the flush ends and
/// the core is told. Log writes never overtake a hard state that was written before them.
pub(super) fn flush(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let everybody = arguments.peek() == Some("all");
    let nodes = nodes_or_all(world, arguments)?;
    let part = part(arguments)?;
    arguments.end()?;
    for id in nodes {
        if !world.flush(id, part)? && !everybody {
            return Err(Fault::script(format!("node {id} has nothing to flush")));
        }
    }
    Ok(())
}

/// `persist 1 log`: as `flush`, and the core does not know yet.
pub(super) fn persist(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let part = part(arguments)?;
    arguments.end()?;
    if !world.node_mut(id)?.disk.persist(part) {
        return Err(Fault::script(format!("node {id} has nothing to flush")));
    }
    Ok(())
}

/// `complete 1`: the core learns of what `persist` did. `complete 1 unfenced`: also of flushes that a
/// truncation has overtaken, which the core has to see through by the entry's term.
pub(super) fn complete(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let unfenced = arguments.keyword("unfenced");
    arguments.end()?;
    if world.complete(id, !unfenced)? == 0 {
        return Err(Fault::script(format!("node {id} has no flush to hear of")));
    }
    Ok(())
}

/// `crash 1`: the process dies; what was not flushed is gone. Messages stay on their way.
pub(super) fn crash(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let nodes = nodes_or_all(world, arguments)?;
    arguments.end()?;
    for id in nodes {
        world.raft(id)?;
        let node = world.node_mut(id)?;
        node.raft = None;
        node.disk.crash();
        world.fail_reads_of(id)?;
    }
    Ok(())
}

/// `restart 1`, `restart 1 commit 5`: starts from the disk, with a commit index it once recorded.
/// A running node crashes first.
pub(super) fn restart(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let nodes = arguments.nodes();
    let mut commit_index = 0;
    if arguments.keyword("commit") {
        commit_index = arguments.number("a commit index")?;
    }
    arguments.end()?;
    if nodes.is_empty() {
        return Err(Fault::script("nodes are missing"));
    }
    for id in nodes {
        let node = world.node_mut(id)?;
        node.raft = None;
        node.disk.crash();
        world.fail_reads_of(id)?;
        world.start(id, commit_index)?;
    }
    Ok(())
}

/// `wipe 3`: node 3 comes back under its number with an empty disk, knowing of no cluster.
pub(super) fn wipe(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    let node = world.node_mut(id)?;
    node.raft = None;
    node.disk = Disk::new(Image::new(drave::raft::Configuration::default()));
    node.wiped = true;
    world.fail_reads_of(id)?;
    world.start(id, 0)
}

/// `compact 1 5`: node 1 drops its log up to entry 5, for which it has a snapshot.
pub(super) fn compact(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let index = arguments.number("an index")?;
    arguments.end()?;
    let raft = world.raft(id)?;
    if index > raft.commit_index_durable() || index < raft.first_index() {
        return Err(Fault::script(format!(
            "from {} to {} can be compacted, not {index}",
            raft.first_index(),
            raft.commit_index_durable()
        )));
    }
    let start = world.node(id)?.disk.written.snapshot_at(index);
    world.write(id, Change::Compact { start })?;
    world.input(id, |raft, _| raft.log_compacted(index + 1))
}
