//! Getting back from the other members what a damaged log has lost: whom to ask for what, and when again.
//!
//! Sans-I/O: missing ranges, members, answers and the time come in, requests and findings go out. What proves
//! an answer is the chain, which the [`Patient`] checks; nothing here trusts a member, a term or a commit
//! index with more than a line in a log. It never gives up: an entry that nobody holds now may come back with
//! a node that is down.
//!
//! One thing no chain proves: where the log ended, if that is lost. There the word of a leader is taken, of this
//! node's own term or a later one (`docs/adr/0008-repair-from-peers.md` says why that is enough).

mod end;
mod machine;
mod range;

use std::fmt;

pub use machine::{Repair, Request};
pub use range::{Said, Verdict};

/// Entries `[lo, hi)` that were durable and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The first one.
    pub lo: u64,
    /// The index after the last one; `u64::MAX` when it is not known where the log ended.
    pub hi: u64,
}

impl Gap {
    /// Whether the end of the log itself is lost.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.hi == u64::MAX
    }

    fn overlap(self, other: Self) -> Option<Self> {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        (lo < hi).then_some(Self { lo, hi })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hi - self.lo {
            _ if self.is_open() => write!(f, "what follows entry {}", self.lo.saturating_sub(1)),
            1 => write!(f, "entry {}", self.lo),
            _ => write!(f, "entries {} to {}", self.lo, self.hi - 1),
        }
    }
}

/// Why entries that a member gave are not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// They are sound, and not those that are missing: the chain says so.
    Other,
    /// They are not sound.
    Invalid(String),
    /// They cannot be kept: the disk says no.
    Failed(String),
}

/// A damaged log that takes what it is missing.
pub trait Patient {
    /// What is missing, ascending and disjoint. What is offered may make it more, when it shows that the damage
    /// reaches further down.
    fn missing(&self) -> Vec<Gap>;

    /// Takes encoded batches, back to back, that end where a gap ends, and proves them by what follows them.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was taken.
    fn offer(&mut self, batches: &[u8]) -> Result<(), Refused>;

    /// Takes it that the log ends with this entry: asked of one whose last gap is open, and again when a later
    /// leader says otherwise. What was taken before stays usable.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if it cannot end there.
    fn set_end(&mut self, last: LastEntry) -> Result<(), Refused>;
}

/// The last entry of a leader's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its header checksum, which names the whole log up to it.
    pub crc: u32,
}

/// Times and sizes.
#[derive(Clone, Copy, Debug)]
pub struct RepairConfig {
    /// Bytes of batches asked for at once.
    pub request_bytes_max: u32,
    /// Entries asked for at once.
    pub request_entries_max: u64,
    /// A member that has not answered for so long is asked for something else.
    pub answer_timeout_us: u64,
    /// Before a member that could not help is asked for the same again: at first, doubled each time,
    pub pause_us_min: u64,
    /// and never longer than this.
    pub pause_us_max: u64,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            request_bytes_max: 1 << 20,
            request_entries_max: 4096,
            answer_timeout_us: 2_000_000,
            pause_us_min: 100_000,
            pause_us_max: 5_000_000,
        }
    }
}

/// What a member answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer<'a> {
    /// The encoded batches of `[lo, hi)`.
    Held {
        /// What they are said to be.
        gap: Gap,
        /// The batches.
        batches: &'a [u8],
        /// What the member knows to be committed; 0 for nothing.
        commit_index: u64,
    },
    /// It holds nothing of this.
    NotHeld(Gap),
    /// Its log begins at this index.
    Trimmed(u64),
    /// It cannot say now.
    Busy,
    /// Where its log ends, if it leads.
    End {
        /// Its term.
        term: u64,
        /// The last entry of its log; none if it does not lead.
        last: Option<LastEntry>,
    },
}

/// What is worth a line in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Entries came back.
    Fetched {
        /// Which.
        gap: Gap,
        /// From whom.
        from: u64,
    },
    /// A member cannot help with a gap, for another reason than before.
    Said {
        /// The gap.
        gap: Gap,
        /// Who.
        member: u64,
        /// Why.
        said: Said,
    },
    /// What is to be thought of a gap has changed.
    Verdict {
        /// The gap.
        gap: Gap,
        /// What is to be thought of it.
        verdict: Verdict,
    },
    /// A leader has said where the log ends.
    End {
        /// Who.
        from: u64,
        /// The term in which it leads.
        term: u64,
        /// The last entry of its log.
        last_index: u64,
    },
}

#[cfg(test)]
mod tests;
