//! Looking at a log's directory without opening the log: read-only, without the lock, also while a process
//! appends to it.
//!
//! [`Inspector::walk`] goes through segments and groups in order with the very checks of recovery, and judges
//! what is not valid by recovery's rule: an interrupted write at the end, or damage. It reports damage and goes
//! on at the next thing it recognises. Nothing is written, locked or mapped; files are read by copying, so a
//! file that shrinks or is used again meanwhile is an error or a difference, never a signal.
//!
//! On a live directory files may go (the log was trimmed) and groups may be half written. Whatever looks like
//! damage is read once more after the thing that proves it durable was seen, and the file is looked up anew
//! by its name; what is left is damage.

mod batches;
mod remains;
mod walk;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use drave_batch::{BatchHeader, DecodeError};

use crate::engine::disk;
use crate::error::{Corruption, OpenError};
use crate::format::{
    BLOCK_BYTES, BlockError, FileName, GroupKind, META_FILE_BYTES, META_MAGIC, MetaRecord,
    SegmentName, explain_block,
};
use crate::recover::Torn;
use crate::recover::files::failed;

pub use walk::Walk;

/// A log's directory, to be looked at. Holds nothing open.
#[derive(Clone, Debug)]
pub struct Inspector {
    directory: PathBuf,
}

/// One slot of the meta record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Slot {
    /// It can be read.
    Valid(MetaView),
    /// It cannot: damaged, or its write was interrupted.
    Damaged(DecodeError),
    /// It is of a version that this build does not know.
    Version(u32),
}

/// A meta record's fields; see `docs/format-wal.md`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetaView {
    /// The store that the log belongs to.
    pub store_id: u128,
    /// Counts the record's writes.
    pub generation: u64,
    /// How many values the caller wrote.
    pub sequence: u64,
    /// Segments below are retired.
    pub first_segment_seq: u64,
    /// The last segment that was entered.
    pub last_segment_seq: u64,
    /// Whether the first segment was completely made.
    pub initialised: bool,
    /// The caller's value.
    pub value: Vec<u8>,
}

/// How to walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct WalkOptions {
    /// Take sealed segments by their seals, without reading their groups: what an ordinary open does.
    pub trust_seals: bool,
    /// Take sealed segments that end at or below this index by their seals.
    pub skip_below: u64,
    /// Stay at the log's present end: after `None` the walk goes on when there is more.
    pub follow: bool,
}

/// What a walk meets, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// A segment begins.
    Segment(SegmentView),
    /// A group; of a damaged one, what is left of it.
    Group(GroupView),
    /// Something durable is damaged.
    Damage(Damage),
    /// A file of another version or another store; it is passed over.
    Refused(OpenError),
    /// Files below this index went while they were to be read: the log was trimmed.
    Trimmed {
        /// The index that would have come next.
        next_index: u64,
    },
    /// A segment ends.
    End(SegmentEnd),
    /// A segment that was made ahead and not entered.
    Unentered(SegmentName),
}

/// A segment's header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentView {
    /// The name.
    pub name: SegmentName,
    /// Bytes of the file by its header.
    pub bytes: u64,
    /// First index of the first group.
    pub base_index: u64,
    /// Number of the first group.
    pub first_group_seq: u64,
    /// Random, new on every use of the file.
    pub incarnation: u64,
}

/// Where a segment ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmentEnd {
    /// The name.
    pub name: SegmentName,
    /// Entries `[lo, hi)` are in it, as far as was read; later segments may have superseded some.
    pub lo: u64,
    /// See `lo`.
    pub hi: u64,
    /// Bytes up to the end of the last group.
    pub used_bytes: u64,
    /// Groups, the seal included.
    pub groups: u64,
    /// It has a seal.
    pub is_sealed: bool,
    /// Whether every group was read, rather than the seal alone.
    pub was_read: bool,
    /// Something in it is damaged.
    pub is_damaged: bool,
    /// An unfinished write behind the last group: interrupted, or under way.
    pub torn: Option<Torn>,
}

/// A group.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its segment.
    pub segment: SegmentName,
    /// Offset of its header.
    pub offset: u64,
    /// Bytes it takes, whole blocks.
    pub bytes: u64,
    /// What it does; of a damaged header, what can still be told: data if batches were found.
    pub kind: GroupKind,
    /// Its number.
    pub group_seq: u64,
    /// Groups up to this number were known durable when it was written.
    pub durable_group_seq: u64,
    /// First index; see `docs/format-wal.md` for its meaning per kind.
    pub first_index: u64,
    /// Term; as for `first_index`; 0 if the header is damaged.
    pub term: u64,
    /// Batches by its header; of a seal, the rows of its table.
    pub batch_count: u32,
    /// Whether the group is whole; otherwise it follows on its [`Item::Damage`].
    pub is_whole: bool,
    /// The term that every batch must have, if the header says one.
    term_known: Option<u64>,
    payload: Bytes,
}

/// A batch in a group.
#[derive(Clone, Debug)]
pub struct BatchView<'a> {
    /// Offset of its header in the file.
    pub offset: u64,
    /// Its index, by its header, or by its place if the header is damaged.
    pub index: u64,
    /// Its header, if that is intact.
    pub header: Option<BatchHeader>,
    /// Its checksums.
    pub state: BatchState,
    /// Its bytes as they are on disk, as far as they can be told.
    pub encoded: &'a [u8],
}

/// What a batch's checksums say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BatchState {
    /// Both are right.
    Intact,
    /// The header's is wrong.
    Header(DecodeError),
    /// The body's is wrong.
    Body(DecodeError),
}

/// Damage to something durable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// File, offset and what is wrong, as an open would say it.
    pub corruption: Corruption,
    /// Bytes from there that were passed over.
    pub bytes: u64,
    /// Entries `[lo, hi)` are concerned; empty if no entry is lost. Batches that are intact in between are
    /// shown with the group.
    pub lo: u64,
    /// See `lo`; none if nothing tells where the log goes on.
    pub hi: Option<u64>,
    /// The first wrong bytes: offset in the file, and expected and found.
    pub detail: Option<(u64, DecodeError)>,
}

impl Inspector {
    /// Looks at `directory`; nothing is read yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The log's files and their lengths, by kind and number. Blocking.
    ///
    /// # Errors
    /// [`OpenError::Io`]
    pub fn files(&self) -> Result<Vec<(FileName, u64)>, OpenError> {
        disk::list(&self.directory).map_err(|error| failed("listing", self.shown(), error))
    }

    /// Both slots of the meta record; none if there is no such file. A slot that is being written is read
    /// again. Blocking.
    ///
    /// # Errors
    /// [`OpenError::Io`]
    pub fn meta(&self) -> Result<Option<[Slot; 2]>, OpenError> {
        const ATTEMPTS: u32 = 16;
        let mut slots = self.read_slots()?;
        for _ in 1..ATTEMPTS {
            let is_valid = |slot: &Slot| matches!(slot, Slot::Valid(_));
            if slots
                .as_ref()
                .is_none_or(|slots| slots.iter().all(is_valid))
            {
                break;
            }
            slots = self.read_slots()?;
        }
        Ok(slots)
    }

    /// Goes through the log. Blocking, bounded memory: one group at a time.
    #[must_use]
    pub fn walk(&self, options: WalkOptions) -> Walk {
        Walk::new(self.clone(), options)
    }

    fn read_slots(&self) -> Result<Option<[Slot; 2]>, OpenError> {
        let failed = |error| failed("reading", FileName::Meta, error);
        let source = match disk::source(&self.directory, FileName::Meta, false) {
            Ok(source) => source,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = source.bytes().min(META_FILE_BYTES as u64) as usize;
        let bytes = source.load(0, bytes).map_err(failed)?;
        let (first, second) = bytes.split_at(bytes.len().min(BLOCK_BYTES));
        Ok(Some([read_slot(first), read_slot(second)]))
    }

    fn shown(&self) -> String {
        self.directory.display().to_string()
    }
}

fn read_slot(block: &[u8]) -> Slot {
    match MetaRecord::decode(block) {
        Ok(record) => Slot::Valid(MetaView {
            store_id: record.store_id,
            generation: record.generation,
            sequence: record.sequence,
            first_segment_seq: record.first_segment_seq,
            last_segment_seq: record.last_segment_seq,
            initialised: record.initialised,
            value: record.value,
        }),
        Err(BlockError::Version(found)) => Slot::Version(found),
        Err(BlockError::Damaged(what)) => Slot::Damaged(
            explain_block(block, META_MAGIC, what)
                .unwrap_or(DecodeError::Invalid { what, found: 0 }),
        ),
    }
}

/// The slot that counts: the valid one of the higher generation.
#[must_use]
pub fn newest(slots: &[Slot; 2]) -> Option<&MetaView> {
    let valid = slots.iter().filter_map(|slot| match slot {
        Slot::Valid(meta) => Some(meta),
        _ => None,
    });
    valid.max_by_key(|meta| meta.generation)
}
