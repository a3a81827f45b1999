//! Messages one by one.

use crate::script::arguments::Arguments;
use crate::script::fault::Fault;
use crate::script::pool::Selector;
use crate::script::world::World;

/// `deliver 1->2 append#3`, `deliver *->2 vote`, `deliver all`: in the order of sending, those that
/// are on their way now and not cut off.
pub(super) fn deliver(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    for key in deliverable(world, arguments)? {
        world.deliver_key(key)?;
    }
    Ok(())
}

/// `duplicate 1->2 append#3`: delivers a copy; the message stays on its way.
pub(super) fn duplicate(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    for key in deliverable(world, arguments)? {
        let envelope = world.pool.envelopes[&key].clone();
        world.deliver(envelope)?;
    }
    Ok(())
}

fn deliverable(world: &World, arguments: &mut Arguments) -> Result<Vec<u64>, Fault> {
    let selector = Selector::parse(arguments)?;
    arguments.end()?;
    let mut keys = world.pool.select_some(&selector)?;
    let exact = selector.number.is_some();
    for key in keys.clone() {
        let envelope = &world.pool.envelopes[&key];
        let runs = world.node(envelope.to)?.raft.is_some();
        if !exact && world.pool.is_cut(envelope) {
            keys.retain(|kept| *kept != key);
        } else if exact && !runs {
            return Err(Fault::script(format!("node {} is down", envelope.to)));
        }
    }
    Ok(keys)
}

/// `drop 2->* append`: lost. `drop all` may find nothing.
pub(super) fn drop(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let selector = Selector::parse(arguments)?;
    arguments.end()?;
    let keys = if selector.is_all() {
        world.pool.select(&selector)
    } else {
        world.pool.select_some(&selector)?
    };
    for key in keys {
        world.pool.envelopes.remove(&key);
    }
    Ok(())
}

/// `hold 1->2 append#3`: stays on its way until it is called by its number.
pub(super) fn hold(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let selector = Selector::parse(arguments)?;
    arguments.end()?;
    for key in world.pool.select_some(&selector)? {
        if let Some(envelope) = world.pool.envelopes.get_mut(&key) {
            envelope.held = true;
        }
    }
    Ok(())
}

/// `release 1->2`: no longer held.
pub(super) fn release(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let selector = Selector::parse(arguments)?;
    arguments.end()?;
    for envelope in world.pool.envelopes.values_mut() {
        if selector.matches(envelope) {
            envelope.held = false;
        }
    }
    Ok(())
}
