//! Checking one segment, a piece at a time.

use std::io;
use std::sync::Arc;

use crate::engine::Source;
use crate::error::{Corruption, CorruptionKind, OpenError, Proof, ReadError};
use crate::format::{BLOCK_BYTES, FileName, GROUP_HEADER_BYTES, GroupHeader, SegmentName};
use crate::recover::files::{Found, check_segment};
use crate::recover::scan::{Progress, Stop};

/// Read and checked by one step, about; a step ends with a whole group.
const STEP_BYTES: u64 = 1 << 20;

/// Up to where a segment is known to be durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DurableEnd {
    /// A later segment was begun, so all groups before this offset are.
    Segment {
        end_offset: u64,
        next_segment_seq: u64,
    },
    /// The log still writes to it. The group at this offset is durable, and says which were when it was written. Of
    /// those after them recovery could not tell damage from a torn write, so they are not judged here either.
    Group { offset: u64 },
    /// Nothing in it is.
    Nothing,
}

/// What a step found to be as it was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checked {
    /// So many bytes; there is more.
    Piece(u64),
    /// So many bytes, and with them all of the segment that was durable when the check began.
    Whole(u64),
}

/// A segment that is being checked. The log does not use its file again while this lives; it may remove it. May be
/// sent to another thread.
pub struct SegmentCheck {
    name: SegmentName,
    store_id: u128,
    durable_end: DurableEnd,
    /// Reads from the medium.
    source: Result<Arc<dyn Source>, ReadError>,
    /// Keeps the file from being used again; there is none to be kept if it could not be opened.
    _held: Option<Arc<dyn Source>>,
    state: Option<State>,
}

struct State {
    found: Found,
    progress: Progress,
    last_group_seq: u64,
    proof: Proof,
}

impl std::fmt::Debug for SegmentCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentCheck({})", self.name)
    }
}

impl SegmentCheck {
    pub(crate) fn new(
        name: SegmentName,
        store_id: u128,
        durable_end: DurableEnd,
        source: io::Result<Arc<dyn Source>>,
        held: Option<Arc<dyn Source>>,
    ) -> Self {
        Self {
            name,
            store_id,
            durable_end,
            source: source.map_err(|error| open_failed(name, error)),
            _held: held,
            state: None,
        }
    }

    /// The segment.
    #[must_use]
    pub fn name(&self) -> SegmentName {
        self.name
    }

    /// Reads and checks a piece. Blocks on the disk. After an error, or [`Checked::Whole`], the check is over.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] with file, offset, first index lost and how it is known to have been durable;
    /// [`ReadError::Io`] for a file that cannot be read.
    pub fn step(&mut self) -> Result<Checked, ReadError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => match self.begin()? {
                Some(state) => state,
                None => return Ok(Checked::Whole(BLOCK_BYTES as u64)),
            },
        };
        let from = state.offset();
        while !self.is_whole(&state) {
            let offset = state.offset();
            let followed = state.progress.follow_group(&state.found, offset);
            if let Err(stop) = followed.map_err(|error| self.read_error(offset, error))? {
                return Err(self.damage(&state, &stop).into());
            }
            let read = state.offset() - from;
            if read >= STEP_BYTES && !self.is_whole(&state) {
                self.state = Some(state);
                return Ok(Checked::Piece(read));
            }
        }
        // A segment without a group is its first block.
        Ok(Checked::Whole(
            (state.offset() - from).max(BLOCK_BYTES as u64),
        ))
    }

    /// Checks the first block; gives nothing if it is all that can be judged.
    fn begin(&self) -> Result<Option<State>, ReadError> {
        let source = self.source.clone()?;
        let found = check_segment(self.name, Arc::clone(&source), source, self.store_id);
        let found = found.map_err(|error| self.read_error(0, error))?;
        let (last_group_seq, proof) = match self.durable_end {
            DurableEnd::Nothing => return Ok(None),
            DurableEnd::Segment {
                next_segment_seq: segment_seq,
                ..
            } => (u64::MAX, Proof::NextSegment { segment_seq }),
            DurableEnd::Group { offset } => {
                let head = found
                    .load(offset, GROUP_HEADER_BYTES)
                    .map_err(|error| self.read_error(offset, error))?;
                let Some((last, _)) = GroupHeader::decode(&head, found.header.seed()) else {
                    return Ok(None);
                };
                let proof = Proof::LaterGroup {
                    group_seq: last.group_seq,
                    segment_seq: self.name.segment_seq,
                };
                (last.durable_group_seq, proof)
            }
        };
        let mut progress = Progress::before(&found);
        progress.begin(&found);
        Ok(Some(State {
            found,
            progress,
            last_group_seq,
            proof,
        }))
    }

    fn is_whole(&self, state: &State) -> bool {
        match self.durable_end {
            DurableEnd::Segment { end_offset, .. } => state.offset() >= end_offset,
            _ => state.progress.last_group_seq >= state.last_group_seq,
        }
    }

    fn damage(&self, state: &State, stop: &Stop) -> Corruption {
        Corruption {
            file: FileName::Segment(self.name),
            offset: stop.offset,
            kind: CorruptionKind::Group {
                group_seq: stop.group_seq,
                first_index: state.progress.next_index,
                what: stop.what,
                proof: state.proof,
            },
        }
    }

    fn read_error(&self, offset: u64, error: OpenError) -> ReadError {
        let file = FileName::Segment(self.name);
        match error {
            OpenError::Corrupt(corruption) => corruption.into(),
            OpenError::Io { source, .. } => ReadError::Io {
                file,
                offset,
                source,
            },
            // It was of this version and store when the log was opened.
            _ => Corruption {
                file,
                offset: 0,
                kind: CorruptionKind::SegmentHeader("it is of another store or version"),
            }
            .into(),
        }
    }
}

impl State {
    fn offset(&self) -> u64 {
        let segment = self.progress.segments.last();
        segment.map_or(BLOCK_BYTES as u64, |segment| segment.end_offset)
    }
}

/// An error of opening a file that the log has. A segment is retired by the log only after it is no part of it, so one
/// that is not there was taken away.
fn open_failed(name: SegmentName, source: io::Error) -> ReadError {
    let file = FileName::Segment(name);
    if source.kind() == io::ErrorKind::NotFound {
        let segment_seq = name.segment_seq;
        let kind = CorruptionKind::SegmentMissing { segment_seq };
        let offset = 0;
        return Corruption { file, offset, kind }.into();
    }
    ReadError::Io {
        file,
        offset: 0,
        source: Arc::new(source),
    }
}
