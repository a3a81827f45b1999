//! Finding one log's batches among the group's entries: a cursor that reads the group's log in steps.

use std::ops::Range;

use bytes::Bytes;
use drave_batch::{BATCH_HEADER_BYTES, BatchHeader, EntryKind};
use drave_wal::{ColdRead, Read, ReadError, Slices, Wal};

use crate::replica::SeqIndex;

/// Bytes of the group's log that one step looks through at most, so that a log with few records among
/// many does not hold the thread.
const SCAN_BYTES_MAX: usize = 256 << 10;

/// Where a reader of one log is.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    /// The log.
    pub log_id: u64,
    /// The next seq wanted.
    pub seq: u64,
    /// The group's index from which on it is looked for; 0 when it is not known yet.
    index: u64,
    /// What is looked for was carried over: it is in that one entry.
    is_carried: bool,
}

/// Batches of one log, whole, back to back over the pieces.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The batches' bytes, shared with the log.
    pub pieces: Vec<Bytes>,
    /// How many bytes they are.
    pub bytes: usize,
    /// The next batch of the log does not fit any more.
    full: bool,
}

/// What a step gave.
pub(crate) enum Step {
    /// The cursor moved; there may be more. Nothing may have been found yet.
    Moved,
    /// The cursor is at the log's committed end.
    End,
    /// The next entries have to be read from disk; [`Cursor::take`] the result when it is there.
    Cold(ColdRead),
    /// The found batches reached `bytes_max`.
    Full,
    /// The wanted record is not where it was: it was trimmed, or carried over, by an entry that this replica has not
    /// applied yet, and its log begins behind it.
    Missing,
}

impl Cursor {
    /// A cursor at `seq`.
    pub(crate) fn new(log_id: u64, seq: u64) -> Self {
        Self {
            log_id,
            seq,
            index: 0,
            is_carried: false,
        }
    }

    /// Looks at the next entries of the group. `index` and `next_seq` are those of the log,
    /// `commit_index` is the limit of what readers may see.
    ///
    /// # Errors
    /// [`ReadError`]
    pub(crate) fn step(
        &mut self,
        (index, next_seq): (&SeqIndex, u64),
        wal: &Wal,
        commit_index: u64,
        bytes_max: usize,
        found: &mut Found,
    ) -> Result<Step, ReadError> {
        if found.full || found.bytes >= bytes_max {
            return Ok(Step::Full);
        }
        if self.seq >= next_seq {
            return Ok(Step::End);
        }
        let was_carried = self.is_carried;
        self.is_carried = index.is_carried(self.seq);
        let range = match self.index {
            from if from > 0 && !was_carried && !self.is_carried => index.resume(from),
            _ => index.locate(self.seq),
        };
        let first_index = wal.first_index();
        let Some((lo, hi)) = range.filter(|(_, hi)| *hi > first_index) else {
            return Ok(found.end());
        };
        let lo = lo.max(first_index);
        let hi = hi.min(commit_index + 1);
        if lo >= hi {
            return Ok(Step::End);
        }
        // A first batch before the wanted one is skipped by seq, so starting early is harmless.
        self.index = lo;
        match wal.read(lo, hi, SCAN_BYTES_MAX)? {
            Read::Cold(job) => Ok(Step::Cold(job)),
            Read::Ready(slices) => Ok(self.take(&slices, bytes_max, found)),
        }
    }

    /// Takes this log's batches out of entries that were read from disk. What is to be done then is what
    /// [`Self::step`] would say, but for what the client has no room for.
    pub(crate) fn take_cold(
        &mut self,
        slices: &Slices,
        bytes_max: usize,
        found: &mut Found,
    ) -> Step {
        match self.take(slices, bytes_max, found) {
            Step::Full => Step::Moved,
            other => other,
        }
    }

    fn take(&mut self, slices: &Slices, bytes_max: usize, found: &mut Found) -> Step {
        if slices.lo != self.index {
            return Step::Moved;
        }
        for piece in &slices.pieces {
            let mut at = 0;
            while at < piece.len() {
                // The log checked these bytes when it took or mapped them.
                let Ok((header, _)) = BatchHeader::decode(&piece[at..]) else {
                    return Step::Moved;
                };
                let end = at + header.encoded_bytes();
                for (batch, range) in self.batches_in(&header, piece, at) {
                    if !self.wants(&batch) {
                        continue;
                    }
                    if batch.first_seq > self.seq {
                        return found.end();
                    }
                    if found.bytes > 0 && found.bytes + range.len() > bytes_max {
                        found.full = true;
                        return Step::Full;
                    }
                    found.push(piece, range.start, range.end);
                    self.seq = batch.next_seq();
                }
                self.index = header.index + 1;
                at = end;
            }
        }
        if found.bytes >= bytes_max {
            Step::Full
        } else {
            Step::Moved
        }
    }
}

impl Cursor {
    /// Whether a batch is of the wanted log, and holds wanted records.
    fn wants(&self, batch: &BatchHeader) -> bool {
        batch.log_id == self.log_id && batch.record_count > 0 && batch.next_seq() > self.seq
    }

    /// The batches in the entry at `piece[at..]`, and where they are: the entry itself, or those appended together, or
    /// those carried over, if the wanted one is among these.
    fn batches_in<'a>(
        &self,
        header: &BatchHeader,
        piece: &'a [u8],
        at: usize,
    ) -> impl Iterator<Item = (BatchHeader, Range<usize>)> + use<'a> {
        let body = at + BATCH_HEADER_BYTES..at + BATCH_HEADER_BYTES + header.body_len as usize;
        let (own, mut rest) = match header.kind {
            EntryKind::Together => (None, body),
            EntryKind::CarryOver if self.is_carried => (None, body),
            _ => (
                Some((header.clone(), at..at + header.encoded_bytes())),
                0..0,
            ),
        };
        let inner = std::iter::from_fn(move || {
            let (batch, _) = BatchHeader::decode(piece.get(rest.clone())?).ok()?;
            let range = rest.start..rest.start + batch.encoded_bytes();
            rest.start = range.end;
            Some((batch, range))
        });
        own.into_iter().chain(inner)
    }
}

impl Found {
    /// What comes next is missing: what was found goes out before that is said.
    fn end(&mut self) -> Step {
        if self.bytes == 0 {
            return Step::Missing;
        }
        self.full = true;
        Step::Full
    }

    /// Adds `piece[at..end]`, joining it to the last one when they are neighbours.
    fn push(&mut self, piece: &Bytes, at: usize, end: usize) {
        self.bytes += end - at;
        let next = piece.slice(at..end);
        if let Some(last) = self.pieces.last_mut() {
            let joins = last.as_ptr().wrapping_add(last.len()) == next.as_ptr();
            let base = piece.as_ptr() as usize;
            let inside = (last.as_ptr() as usize)
                .checked_sub(base)
                .filter(|start| joins && start + last.len() == at);
            if let Some(start) = inside {
                *last = piece.slice(start..end);
                return;
            }
        }
        self.pieces.push(next);
    }
}

#[cfg(test)]
mod tests;
