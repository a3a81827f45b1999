//! The first record of a log that was appended at a time or after it, among the batches that a cursor finds.
//!
//! Append times never run backwards, so the log's index says between which two marks it is, and what is between
//! them is looked at batch by batch. It answers nobody and knows no replica.

use drave_batch::Batches;

use super::scan::{Cursor, Found};
use crate::replica::LogState;

/// A search under way.
#[derive(Debug)]
pub(super) struct Seek {
    time_us: u64,
}

/// What a search found: a seq, and when its record was appended.
pub(super) type SeqAndTime = (u64, u64);

impl Seek {
    /// A search for the first record of `time_us` or later, and where to begin it; no cursor when the log has none
    /// as late.
    pub(super) fn begin(log: &LogState, time_us: u64) -> (Self, Option<Cursor>) {
        let from = log.index.locate_time(time_us);
        let cursor = from.map(|seq| Cursor::new(log.log_id, seq.max(log.first_seq)));
        (Self { time_us }, cursor)
    }

    /// Looks at what was found, and drops it when it is all earlier. `first_seq` is the first one held: a batch that
    /// is partly trimmed counts from there.
    pub(super) fn take(&self, found: &mut Found, first_seq: u64) -> Option<SeqAndTime> {
        let looked_at = std::mem::take(found);
        let mut batches = looked_at
            .pieces
            .iter()
            .flat_map(|piece| Batches::new(piece))
            // The log checked these bytes when it took or mapped them.
            .filter_map(Result::ok);
        let batch = batches.find(|batch| batch.header.append_time_us >= self.time_us)?;
        let header = &batch.header;
        Some((header.first_seq.max(first_seq), header.append_time_us))
    }
}

#[cfg(test)]
mod tests;
