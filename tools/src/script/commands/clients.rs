//! What clients do, and how much a node takes from its leader.

use crate::script::arguments::{Arguments, parse_number};
use crate::script::fault::Fault;
use crate::script::world::{ReadOutcome, World};

/// `propose 1 x y big:5000`: entries of 10 bytes, or of as many as follow the colon.
pub(super) fn propose(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut first = true;
    while first || !arguments.is_empty() {
        first = false;
        let word = arguments.word("what to propose")?;
        let (payload, bytes) = match word.split_once(':') {
            Some((payload, bytes)) => (payload, parse_number(bytes, "bytes")?),
            None => (word.as_str(), 10),
        };
        let bytes = u32::try_from(bytes).map_err(|_| Fault::script("too many bytes"))?;
        world.propose(id, payload, bytes)?;
    }
    Ok(())
}

/// `read 1 a`: a linearizable read at node 1, called a.
pub(super) fn read(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let name = arguments.word("a name for the read")?;
    arguments.end()?;
    if world.reads.contains_key(&name) {
        return Err(Fault::script(format!("there was a read {name} already")));
    }
    let ticket = world.reads.len() as u64 + 1;
    world.raft(id)?;
    world.oracle.read_started(ticket);
    world
        .reads
        .insert(name.clone(), (id, ticket, ReadOutcome::Waiting));
    let asked = world.input(id, |raft, now_us| raft.read_index(now_us, ticket))?;
    asked.map_err(|error| {
        world.reads.remove(&name);
        Fault::Refused(error.to_string())
    })
}

/// `credit 2 0`: node 2 is ready to have so many bytes of appends in flight.
pub(super) fn credit(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let bytes = arguments.number("bytes")?;
    arguments.end()?;
    world.input(id, |raft, _| raft.set_credit(bytes))
}
