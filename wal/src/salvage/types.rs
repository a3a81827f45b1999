//! What a salvaged log says of itself.

use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Entries `[lo, hi)` that were durable and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Missing {
    /// The first one, as far as is known: it may turn out that more are missing below.
    pub lo: u64,
    /// The index after the last one; `u64::MAX` if the end of the log itself is lost (see `Salvage::set_end`).
    pub hi: u64,
    /// Header checksum of entry `hi - 1`, which the entry after it names. Without it the term must do, which
    /// names an entry as well where one leader per term hands out indexes.
    pub crc: Option<u32>,
    /// Term of entry `hi - 1`, if it is known.
    pub term: Option<u64>,
}

/// Entries `[lo, hi)` that were taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offered {
    /// The first one.
    pub lo: u64,
    /// The index after the last one.
    pub hi: u64,
}

/// Why what was offered is refused. Nothing of it was taken.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The bytes are not whole batches of consecutive entries in one chain.
    #[error("entry {index} is not valid: {what}")]
    Batch {
        /// The entry's index; the one expected if that cannot be read.
        index: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The entries are not the upper end of a missing range.
    #[error("[{lo}, {hi}) does not lie at the upper end of a missing range")]
    Range {
        /// The first entry offered.
        lo: u64,
        /// The index after the last one.
        hi: u64,
    },
    /// They are other entries than those missing.
    #[error(
        "entry {index} is another one than the one missing: expected {expected:#x}, found {found:#x}"
    )]
    Chain {
        /// The entry that differs.
        index: u64,
        /// Its checksum (its term, where only that is known) as the log names it.
        expected: u64,
        /// What was offered.
        found: u64,
    },
    /// They cannot be kept.
    #[error("what was fetched cannot be kept: {source}")]
    Io {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why the end of a log cannot be set.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum EndError {
    /// The end is known.
    #[error("the log ends with entry {last_index}")]
    Known {
        /// The last index.
        last_index: u64,
    },
    /// The log begins above it.
    #[error("the log begins at entry {first_index}, so it does not end with {found}")]
    Below {
        /// The log's first index.
        first_index: u64,
        /// The index given.
        found: u64,
    },
}

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RepairReport {
    /// Segments written anew; 0 if nothing was damaged.
    pub segments_written: u64,
    /// Entries in them.
    pub entries_written: u64,
    /// Files removed that were no segment of the log.
    pub files_removed: u64,
}

/// What a cut dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CutReport {
    /// The first index that is gone; the log goes on there.
    pub next_index: u64,
    /// What was missing.
    pub missing: Vec<Missing>,
    /// Entries that could be read and are gone, too, since they came after those.
    pub entries_dropped: u64,
    /// What was written.
    pub repair: RepairReport,
}
