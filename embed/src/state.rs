//! What a state machine has to be able to do.

use std::io::{self, Read, Write};

use crate::RestoreError;

/// A command as every node applies it.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Its place among all commands, from 0. It grows by one from command to command, and is the same on every node.
    pub seq: u64,
    /// When the leader of then appended it, microseconds since 1970; it never runs backwards, and is the same on every
    /// node. The only clock that a machine may look at.
    pub append_time_us: u64,
    /// What was proposed.
    pub payload: &'a [u8],
}

/// State that changes by commands alone.
///
/// Every node has one, and all go through the same commands in the same order. So [`apply`](Self::apply) must depend
/// on nothing but the state and the command: no clock, no randomness, no order of a hash map, no file.
pub trait StateMachine: Send + 'static {
    /// What a command gives to whoever proposed it.
    type Answer: Send + 'static;

    /// The state at one moment, to be written while commands go on being applied.
    type Snapshot: Send + 'static;

    /// Applies a command. Each command comes once, in order; after a restart, those behind the last snapshot come
    /// again, to a machine that was restored from it.
    ///
    /// A command that makes no sense is an answer, not a panic: it is in the log, and would panic again after every
    /// restart, on every node.
    fn apply(&mut self, command: Command<'_>) -> Self::Answer;

    /// Takes the state as it is now. Commands and queries wait meanwhile, so it should be quick: a clone of a
    /// persistent map rather than of everything.
    fn snapshot(&self) -> Self::Snapshot;

    /// Writes a snapshot to a file, on a thread of its own.
    ///
    /// # Errors
    /// Those of the file; the snapshot is then given up, and taken again later.
    fn write(snapshot: &Self::Snapshot, file: &mut dyn Write) -> io::Result<()>;

    /// Replaces the state by one that [`write`](Self::write) wrote, maybe on another node, maybe by an earlier build.
    /// The bytes are those that were written: their checksum was compared before.
    ///
    /// # Errors
    /// [`RestoreError`] when this build does not understand them; the machine stops then.
    fn restore(&mut self, file: &mut dyn Read) -> Result<(), RestoreError>;
}
