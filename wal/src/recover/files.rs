//! Which files there are, the meta record, and that every segment that must exist does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Completion, Engine, Operation, Source};
use crate::error::{Corruption, CorruptionKind, Failure, OpenError};
use crate::format::{
    BLOCK_BYTES, BlockError, FileName, META_FILE_BYTES, MetaRecord, SegmentHeader, SegmentName,
    WAL_VERSION,
};

/// A segment with its first block checked.
pub(crate) struct Found {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    /// Reads ahead, for following the groups.
    pub(crate) source: Arc<dyn Source>,
    /// Reads what it is asked for and little more: touching a map here and there would bring in as much as
    /// the disk reads ahead around each place.
    pub(crate) sparse: Arc<dyn Source>,
}

impl Found {
    /// The same segment, for reading a few places of it.
    pub(super) fn sparsely(&self) -> Self {
        Self {
            name: self.name,
            header: self.header.clone(),
            source: Arc::clone(&self.sparse),
            sparse: Arc::clone(&self.sparse),
        }
    }

    pub(crate) fn file(&self) -> FileName {
        FileName::Segment(self.name)
    }

    pub(crate) fn load(&self, offset: u64, bytes: usize) -> Result<Bytes, OpenError> {
        load(&self.source, self.file(), offset, bytes)
    }
}

pub(crate) fn corrupt(file: FileName, offset: u64, kind: CorruptionKind) -> OpenError {
    Corruption { file, offset, kind }.into()
}

pub(crate) fn failed(operation: &'static str, file: impl ToString, source: io::Error) -> OpenError {
    OpenError::Io {
        operation,
        path: PathBuf::from(file.to_string()),
        source: Arc::new(source),
    }
}

fn load(
    source: &Arc<dyn Source>,
    file: FileName,
    offset: u64,
    bytes: usize,
) -> Result<Bytes, OpenError> {
    Arc::clone(source)
        .load(offset, bytes)
        .map_err(|error| failed("reading", file, error))
}

/// Does one operation and waits for it.
pub(crate) fn run(
    engine: &mut dyn Engine,
    number: &mut u64,
    operation: Operation,
) -> Result<(), OpenError> {
    *number += 1;
    let (verb, file, offset) = (operation.verb(), operation.file_name(), operation.offset());
    engine.start(*number, operation);
    engine.submit();
    let mut completions: Vec<Completion> = Vec::new();
    while completions.is_empty() {
        engine.wait(None);
        engine.poll(&mut completions);
    }
    let completion = completions.pop().expect("the loop ends with one");
    assert_eq!(completion.number, *number, "one operation is under way");
    match completion.result {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::StorageFull => {
            Err(OpenError::NoSpace(Arc::new(source)))
        }
        Err(source) => Err(Failure {
            operation: verb,
            file,
            offset,
            source: Arc::new(source),
        }
        .into()),
    }
}

/// What the slots of the meta record hold.
pub(crate) struct MetaSlots {
    /// The newest valid record.
    pub(crate) newest: MetaRecord,
    /// Both slots hold it.
    pub(crate) are_equal: bool,
    /// How many of the two are valid.
    pub(crate) valid: u32,
}

/// Reads the meta record.
pub(crate) fn read_meta(engine: &mut dyn Engine, store_id: u128) -> Result<MetaSlots, OpenError> {
    let file = FileName::Meta;
    let source = engine
        .source(file, false)
        .map_err(|error| failed("opening", file, error))?;
    if source.bytes() != META_FILE_BYTES as u64 {
        return Err(corrupt(file, source.bytes(), CorruptionKind::Meta));
    }
    let bytes = load(&source, file, 0, META_FILE_BYTES)?;
    let slots = [
        MetaRecord::decode(&bytes[..BLOCK_BYTES]),
        MetaRecord::decode(&bytes[BLOCK_BYTES..]),
    ];
    for slot in &slots {
        if let Err(BlockError::Version(found)) = slot {
            return Err(OpenError::Version {
                file,
                expected: WAL_VERSION,
                found: *found,
            });
        }
    }
    let are_equal = slots[0].is_ok() && slots[0] == slots[1];
    let valid = slots.iter().filter(|slot| slot.is_ok()).count() as u32;
    let newest = slots
        .into_iter()
        .flatten()
        .max_by_key(|record| record.generation);
    let Some(newest) = newest else {
        return Err(corrupt(file, 0, CorruptionKind::Meta));
    };
    if newest.store_id != store_id {
        return Err(OpenError::Store {
            file,
            expected: store_id,
            found: newest.store_id,
        });
    }
    Ok(MetaSlots {
        newest,
        are_equal,
        valid,
    })
}

/// Reads a segment's first block.
pub(crate) fn read_segment(
    engine: &mut dyn Engine,
    name: SegmentName,
    store_id: u128,
) -> Result<Found, OpenError> {
    let file = FileName::Segment(name);
    let open = |mapped| {
        let opened = engine.source(file, mapped);
        opened.map_err(|error| failed("opening", file, error))
    };
    check_segment(name, open(true)?, open(false)?, store_id)
}

/// Checks a segment's first block, and that it is the segment that the name says, whole.
pub(crate) fn check_segment(
    name: SegmentName,
    source: Arc<dyn Source>,
    sparse: Arc<dyn Source>,
    store_id: u128,
) -> Result<Found, OpenError> {
    let file_bytes = source.bytes();
    let there = file_bytes.min(BLOCK_BYTES as u64) as usize;
    let block = load(&sparse, FileName::Segment(name), 0, there)?;
    match judge_first_block(name, &block, file_bytes, store_id)? {
        (Some(header), None) => Ok(Found {
            name,
            header,
            source,
            sparse,
        }),
        (_, damage) => Err(damage.expect("without a header there is damage").into()),
    }
}

/// What the first block of a segment's file says: its header, if that can be read, and what is wrong with the file.
/// Of a file that is shorter than a block `block` is what is there, zeros behind it or not. Another store or version is
/// not damage.
pub(crate) fn judge_first_block(
    name: SegmentName,
    block: &[u8],
    file_bytes: u64,
    store_id: u128,
) -> Result<(Option<SegmentHeader>, Option<Corruption>), OpenError> {
    let file = FileName::Segment(name);
    let is_short = file_bytes < BLOCK_BYTES as u64;
    let damaged = |offset, kind| Some(Corruption { file, offset, kind });
    let header = match SegmentHeader::decode(block) {
        Ok(header) => header,
        Err(BlockError::Version(found)) => {
            return Err(OpenError::Version {
                file,
                expected: WAL_VERSION,
                found,
            });
        }
        Err(BlockError::Damaged(what)) => {
            let what = if is_short { TOO_SHORT } else { what };
            return Ok((None, damaged(0, CorruptionKind::SegmentHeader(what))));
        }
    };
    if header.store_id != store_id {
        return Err(OpenError::Store {
            file,
            expected: store_id,
            found: header.store_id,
        });
    }
    let (segment_seq, expected) = (header.segment_seq, header.segment_bytes);
    let damage = if segment_seq != name.segment_seq {
        damaged(32, CorruptionKind::SegmentName { segment_seq })
    } else if is_short {
        damaged(0, CorruptionKind::SegmentHeader(TOO_SHORT))
    } else if expected != file_bytes {
        let found = file_bytes;
        damaged(found, CorruptionKind::SegmentBytes { expected, found })
    } else {
        None
    };
    Ok((Some(header), damage))
}

const TOO_SHORT: &str = "the file is too short for it";

/// Checks that `names`, in order of their numbers, are what the meta record says must exist.
pub(crate) fn check_sequence(names: &[SegmentName], meta: &MetaRecord) -> Result<(), OpenError> {
    let mut expected = meta.first_segment_seq;
    for name in names {
        let file = FileName::Segment(*name);
        if name.segment_seq < expected {
            let segment_seq = name.segment_seq;
            return Err(corrupt(
                file,
                0,
                CorruptionKind::SegmentName { segment_seq },
            ));
        }
        if name.segment_seq > expected {
            let kind = CorruptionKind::SegmentMissing {
                segment_seq: expected,
            };
            return Err(corrupt(file, 0, kind));
        }
        expected += 1;
    }
    if expected <= meta.last_segment_seq {
        let kind = CorruptionKind::SegmentMissing {
            segment_seq: expected,
        };
        return Err(corrupt(FileName::Meta, 56, kind));
    }
    Ok(())
}
