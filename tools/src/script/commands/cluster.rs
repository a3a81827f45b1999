//! What nodes there are, what they are set to, and what they begin with.

use drave::raft::{Configuration, EntryId, HardState, NodeId};

use crate::script::arguments::Arguments;
use crate::script::disk::{Entry, Image};
use crate::script::fault::Fault;
use crate::script::world::World;

/// `cluster 3`, `cluster 3 learners 4`: starts voters 1 to 3, and learners, with empty logs.
pub(super) fn cluster(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let voters = arguments.number("the number of voters")?;
    let learners = if arguments.keyword("learners") {
        arguments.nodes()
    } else {
        Vec::new()
    };
    arguments.end()?;
    if !world.nodes.is_empty() {
        return Err(Fault::script("there is a cluster already"));
    }
    let ids = (1..=voters).map(NodeId);
    let configuration =
        Configuration::new(ids, learners).map_err(|error| Fault::script(error.to_string()))?;
    world.initial = configuration.clone();
    for id in configuration.members() {
        world.add(id, Image::new(configuration.clone()))?;
    }
    Ok(())
}

/// `node 4`: starts a node that knows of no cluster.
pub(super) fn node(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    if world.nodes.contains_key(&id) {
        return Err(Fault::script(format!("there is a node {id} already")));
    }
    world.add(id, Image::new(Configuration::default()))
}

/// `found 2 term 7 vote 1 commit 3 log 1 1 1 4`: node 2 starts from this disk instead of an empty
/// one, a log of entries of these terms. Before anything has happened.
pub(super) fn found(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut image = Image::new(world.initial.clone());
    let mut commit_index = 0;
    let mut hard_state = HardState::default();
    while let Some(word) = arguments.take() {
        match word.as_str() {
            "term" => hard_state.term = arguments.number("a term")?,
            "vote" => hard_state.vote = Some(arguments.node()?),
            "commit" => commit_index = arguments.number("a commit index")?,
            "log" => {
                for (index, NodeId(term)) in (1..).zip(arguments.nodes()) {
                    image
                        .entries
                        .push_back(found_entry(EntryId { term, index }));
                }
            }
            _ => return Err(Fault::script(format!("{word} is not understood here"))),
        }
    }
    image.hard_state = hard_state;
    world.node(id)?;
    world.oracle.assume_committed(&image, commit_index);
    let node = world.node_mut(id)?;
    node.raft = None;
    node.disk = super::super::disk::Disk::new(image);
    world.start(id, commit_index)
}

/// The same entry wherever it is found.
fn found_entry(id: EntryId) -> Entry {
    Entry {
        term: id.term,
        payload: format!("found {} of {}", id.index, id.term),
        bytes: 10,
        configuration: None,
    }
}

/// `set pre-vote off`: for nodes that start from now on.
pub(super) fn set(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let name = arguments.word("a setting")?;
    let config = &mut world.config;
    match name.as_str() {
        "pre-vote" => config.pre_vote = switch(arguments)?,
        "check-quorum" => config.check_quorum = switch(arguments)?,
        "batch" => world.batch_max = arguments.number("entries per append")?,
        "window-messages" => {
            config.window_entries_max = small(arguments.number("messages in flight")?)?;
        }
        "window-bytes" => config.window_bytes_max = arguments.number("bytes in flight")?,
        "uncommitted-bytes" => config.uncommitted_bytes_max = arguments.number("bytes")?,
        "uncommitted-entries" => {
            config.uncommitted_entries_max = small(arguments.number("entries")?)?;
        }
        "reads-waiting" => config.reads_waiting_max = small(arguments.number("reads")?)?,
        "election-timeout" => {
            config.election_timeout_us_min = arguments.duration_us()?;
            config.election_timeout_us_max = arguments.duration_us()?;
        }
        "lease-drift-ppm" => {
            config.lease_drift_ppm = Some(small(arguments.number("parts in a million")?)?);
        }
        "heartbeat-interval" => config.heartbeat_interval_us = arguments.duration_us()?,
        _ => return Err(Fault::script(format!("{name} is no setting"))),
    }
    arguments.end()
}

fn switch(arguments: &mut Arguments) -> Result<bool, Fault> {
    match arguments.word("on or off")?.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(Fault::script(format!("on or off, found {other}"))),
    }
}

fn small(number: u64) -> Result<u32, Fault> {
    u32::try_from(number).map_err(|_| Fault::script(format!("{number} is too much")))
}
