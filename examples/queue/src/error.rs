//! What can go wrong, and how bytes that are not ours are named.

use drave_client::ClientError;
use thiserror::Error;

/// Why something did not work.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The cluster, with what it did: [`ClientError::has_no_side_effects`].
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A record was not written by a queue of this version.
    #[error("record {seq} of log {log}: {wrong}")]
    Format {
        /// The log.
        log: String,
        /// The record.
        seq: u64,
        /// The field.
        wrong: Wrong,
    },
    /// Over a limit. Nothing was sent.
    #[error("{what}: at most {limit}, found {found}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The value found.
        found: u64,
    },
    /// What was asked for was trimmed before its outcome was read; it may have been done.
    #[error("the outcome of event {seq} is not known any more: this consumer was behind")]
    Behind {
        /// The event's seq.
        seq: u64,
    },
}

/// A field that cannot be what it is.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{what}: expected {expected}, found {found}")]
pub struct Wrong {
    /// The field.
    pub what: &'static str,
    /// What may stand there.
    pub expected: u64,
    /// What stands there.
    pub found: u64,
}
