//! The names of the files in a log's directory.

use std::fmt;

/// A segment's name: made for `first_index`, the `segment_seq`-th of its directory.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentName {
    /// Counts by one, never repeats in a directory.
    pub segment_seq: u64,
    /// The first index the segment was made for; a later truncation may put lower ones into it.
    pub first_index: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seg-{:020}-{:010}.wal",
            self.first_index, self.segment_seq
        )
    }
}

/// Any file of a log's directory.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FileName {
    /// The lock file.
    Lock,
    /// The two-slot meta record.
    Meta,
    /// A segment.
    Segment(SegmentName),
    /// A segment file without a use.
    Spare(u64),
    /// A file being made.
    Temporary(u64),
}

impl FileName {
    /// The name that `text` spells exactly, or nothing for a foreign file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = Self::parse_loosely(text)?;
        (name.to_string() == text).then_some(name)
    }

    fn parse_loosely(text: &str) -> Option<Self> {
        match text {
            "LOCK" => return Some(Self::Lock),
            "meta" => return Some(Self::Meta),
            _ => {}
        }
        if let Some(number) = text.strip_prefix("tmp-") {
            return number.parse().ok().map(Self::Temporary);
        }
        let stem = text.strip_suffix(".wal")?;
        if let Some(number) = stem.strip_prefix("spare-") {
            return number.parse().ok().map(Self::Spare);
        }
        let (first_index, segment_seq) = stem.strip_prefix("seg-")?.split_once('-')?;
        Some(Self::Segment(SegmentName {
            segment_seq: segment_seq.parse().ok()?,
            first_index: first_index.parse().ok()?,
        }))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("LOCK"),
            Self::Meta => f.write_str("meta"),
            Self::Segment(name) => name.fmt(f),
            Self::Spare(number) => write!(f, "spare-{number:010}.wal"),
            Self::Temporary(number) => write!(f, "tmp-{number:010}"),
        }
    }
}
