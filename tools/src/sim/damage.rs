//! Bits that change at rest, on the disks of a minority.

use drave_wal::{CrashMode, FileName};

use super::fate::Fate;
use super::faults::Fault;
use super::start::hard_state;
use super::world::World;

/// Changes a bit of a stored segment, where a log can know that it did.
///
/// The last group that was written is told from an interrupted one only by what follows it, so a bit of it
/// may cut the log as if the write had never completed: that window closes with the next group. Damage
/// that falls into it is not made.
pub fn flip(world: &mut World, slot: usize) {
    if !world.fate_allows_damage(slot) {
        return;
    }
    let files = world.nodes[slot].disk.list();
    let segments: Vec<FileName> = files
        .iter()
        .filter(|(name, _)| matches!(name, FileName::Segment(_)))
        .map(|(name, _)| *name)
        .collect();
    if segments.is_empty() {
        return;
    }
    let file = segments[(world.fate.number() % segments.len() as u64) as usize];
    let Ok(mut content) = world.nodes[slot].disk.durable_content(file) else {
        return;
    };
    // Space that was never written to holds nothing to damage.
    let used = content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    if used == 0 {
        return;
    }
    let bit = world.fate.number() as usize % (used * 8);
    content[bit / 8] ^= 1 << (bit % 8);
    if is_silent(world, slot, file, &content) || !Fate::may_lose(world, slot) {
        return;
    }
    world.nodes[slot].disk.damage(file, bit / 8, 1 << (bit % 8));
    world.nodes[slot].is_damaged = true;
    world.tally.fault(Fault::BitFlip);
}

/// Whether a start after this damage would go well with less than was durable.
fn is_silent(world: &mut World, slot: usize, file: FileName, content: &[u8]) -> bool {
    let image = world.nodes[slot].disk.fork();
    image.crash(CrashMode::Drop, 0);
    image.replace(file, content.to_vec());
    let setup = world.setup(slot);
    let Ok((log, record)) = setup.recover(&image) else {
        return false;
    };
    let (kept, state) = (&log.shadow, hard_state(record));
    match &world.nodes[slot].process {
        Some(process) => {
            let durable_index = process.log.log.wal.durable_index();
            let own = &process.log.shadow;
            let first = own.first_index().max(kept.first_index());
            (first..=durable_index).any(|index| own.get(index) != kept.get(index))
                || state.term < process.hard_state_flushed.term
        }
        None => world.oracle.would_lose(slot, kept, state),
    }
}
