//! What can go wrong, by who is told.

use std::io;

use drave_client::ClientError;
use thiserror::Error;

/// Why a machine could not be restored from a snapshot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The file could not be read, or ends early.
    #[error("the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The machine does not understand it.
    #[error("the snapshot: {0}")]
    Content(String),
}

/// Why a machine did not start, or stopped.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The machine's logs cannot be made, found or followed.
    #[error("the machine's logs: {0}")]
    Client(#[from] ClientError),
    /// The machine cannot be restored.
    #[error("restoring the machine as of command {seq}: {reason}")]
    Restore {
        /// The first command that the snapshot does not hold.
        seq: u64,
        /// Why not.
        reason: String,
    },
    /// What is in one of the machine's logs was not written by a machine.
    #[error("record {seq} of log {log}: {what}, expected {expected}, found {found}")]
    Format {
        /// The log.
        log: String,
        /// The record.
        seq: u64,
        /// The field.
        what: &'static str,
        /// What may stand there.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// Commands were trimmed, and no snapshot holds what they did.
    #[error(
        "commands before {first_seq} of log {log} were trimmed, and no snapshot holds them: expected one that \
             ends at {first_seq} or later, found {found:?}"
    )]
    Lost {
        /// The log of commands.
        log: String,
        /// The first command that is still there.
        first_seq: u64,
        /// Where the last snapshot ends, if there is one.
        found: Option<u64>,
    },
    /// Somebody closed the machine's log of commands.
    #[error("log {log} was closed")]
    Closed {
        /// The log of commands.
        log: String,
    },
    /// A file for snapshots cannot be had in the directory for temporary files.
    #[error("a file for a snapshot: {0}")]
    File(String),
    /// It was stopped, or its code panicked.
    #[error("the machine is stopped")]
    Stopped,
}

/// Why a command has no answer.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// It was not written, and will not be: nothing was done.
    #[error("the command was not written: {0}")]
    NotWritten(ClientError),
    /// It may have been written, and may be applied even now.
    #[error("whether the command was written is unknown: {0}")]
    Unknown(ClientError),
    /// It is written and will be applied, but this node did not come to it in time.
    #[error("the command is written as number {seq}, and this node has not applied it yet")]
    Unanswered {
        /// Its number.
        seq: u64,
    },
    /// The machine is gone; the command may have been written.
    #[error("{0}")]
    Machine(#[from] MachineError),
}

impl ProposeError {
    /// Whether the command certainly did nothing and never will.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        matches!(self, Self::NotWritten(_))
    }
}

/// Why a query has no answer. It never changes anything.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No leader says what was committed by now.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// This node did not come in time to what was committed when the query began.
    #[error("this node has applied {applied} of {wanted} commands")]
    Behind {
        /// Commands applied here.
        applied: u64,
        /// Commands that the answer must know of.
        wanted: u64,
    },
    /// The machine is gone.
    #[error("{0}")]
    Machine(#[from] MachineError),
}
