//! A history of what real clients did and saw, and the check that the cluster kept its promise.
//!
//! Every acknowledgement names its seq, so no search over possible orders is needed: the log that was read
//! back at the end is the order, and the check is a sort and some scans, O(n log n). It runs outside the
//! servers and knows nothing of them. `format` is the file, `check` the rules, `violation` their names.
//!
//! All times are microseconds of one monotonic clock of the recorder. One operation precedes another only
//! when it completed strictly before the other was invoked; equal times are taken as concurrent.

mod appends;
mod check;
mod format;
mod observations;
mod violation;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use check::{HistoryError, Report, check};
pub use format::{FormatError, LINE_BYTES_MAX, read_history, write_line};
pub use violation::{Violation, ViolationKind};

/// One line of a history file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What a client did and what came of it.
    Operation(Operation),
    /// A piece of a log as it was read back when all was over.
    Final(FinalSlice),
}

/// What a client did and what came of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who did it.
    pub client: u64,
    /// When it was begun; nothing of it happened before.
    pub invoked_us: u64,
    /// When the client had its outcome. Says nothing about an unknown outcome, which may come about later.
    pub completed_us: u64,
    /// The log's number.
    pub log: u64,
    /// What it was.
    pub action: Action,
}

/// What an operation was.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Records appended together.
    Append(Append),
    /// A linearizable read.
    Read(Read),
    /// A linearizable look at the tail.
    CheckTail(CheckTail),
}

/// Records appended together: all or none, one after the other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// Whose order it is in.
    pub producer: u64,
    /// Its place in that order; not used twice by one producer.
    pub producer_seq: u64,
    /// The first record's payload id; the others' follow. No id is used twice in a history.
    pub payload_id: u64,
    /// Records; at least 1.
    pub count: u32,
    /// What came of it.
    pub outcome: AppendOutcome,
}

/// What came of an append.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AppendOutcome {
    /// Acknowledged.
    Ok {
        /// The seq of the first record.
        first_seq: u64,
    },
    /// Certainly not written, now or later.
    Failed,
    /// Written once, or not at all.
    Unknown,
}

/// A linearizable read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The first seq asked for.
    pub from: u64,
    /// Records asked for at most.
    pub count: u32,
    /// What it showed.
    pub outcome: ReadOutcome,
}

/// What a read showed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOutcome {
    /// The payload ids from `from` on, and the seq that the log's next record gets.
    Ok {
        /// The log's tail.
        tail: u64,
        /// The records; possibly fewer than asked for, but some if there are any.
        records: Vec<u64>,
    },
    /// Nothing.
    Failed,
}

/// A linearizable look at the tail.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CheckTail {
    /// What it showed.
    pub outcome: TailOutcome,
}

/// What a look at the tail showed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TailOutcome {
    /// The seq that the next record gets.
    Ok {
        /// That seq.
        tail: u64,
    },
    /// Nothing.
    Failed,
}

/// A piece of a log as it was read back when all was over. The pieces of one log from one source follow
/// one another; the first begins where the log begins.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FinalSlice {
    /// The log's number.
    pub log: u64,
    /// The replica that it was read from; none for a linearizable read.
    pub node: Option<u64>,
    /// The first record's seq.
    pub from: u64,
    /// The payload ids.
    pub records: Vec<u64>,
}

/// Everything that was recorded. An operation is named by its place in `operations`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
    /// Per log and source in ascending order.
    pub finals: Vec<FinalSlice>,
}

impl History {
    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        match line {
            Line::Operation(operation) => self.operations.push(operation),
            Line::Final(slice) => self.finals.push(slice),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Append(append) => {
                let ids_end = append.payload_id.saturating_add(append.count.into());
                write!(
                    f,
                    "append of payloads [{}, {ids_end}), producer {} number {}, ",
                    append.payload_id, append.producer, append.producer_seq
                )?;
                match append.outcome {
                    AppendOutcome::Ok { first_seq } => write!(f, "acknowledged at {first_seq}"),
                    AppendOutcome::Failed => write!(f, "failed"),
                    AppendOutcome::Unknown => write!(f, "unknown"),
                }?;
            }
            Action::Read(read) => match &read.outcome {
                ReadOutcome::Ok { tail, records } => {
                    let count = records.len();
                    write!(f, "read of {count} from {}, tail {tail}", read.from)?;
                }
                ReadOutcome::Failed => write!(f, "failed read from {}", read.from)?,
            },
            Action::CheckTail(check) => match check.outcome {
                TailOutcome::Ok { tail } => write!(f, "tail {tail}")?,
                TailOutcome::Failed => write!(f, "failed look at the tail")?,
            },
        }
        write!(
            f,
            ", client {}, {} to {} us",
            self.client, self.invoked_us, self.completed_us
        )
    }
}

#[cfg(test)]
mod tests;
