//! What is left of a damaged group or segment, and what is wrong with it in numbers.

use std::sync::Arc;

use bytes::Bytes;
use drave_batch::DecodeError;

use super::{BatchState, GroupView};
use crate::engine::Source;
use crate::error::{Corruption, CorruptionKind, OpenError};
use crate::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SEGMENT_MAGIC, SegmentHeader,
    SegmentName, decode_rows, explain_block, explain_header, whole_blocks,
};
use crate::recover::files::Found;
use crate::recover::scan::{Stop, read_group};

/// Bytes shown of the place of a group whose header is damaged.
const REMAINS_BYTES_MAX: u64 = 16 << 20;

pub(super) fn view(
    segment: SegmentName,
    offset: u64,
    header: &GroupHeader,
    payload: Bytes,
    is_whole: bool,
) -> GroupView {
    GroupView {
        segment,
        offset,
        bytes: whole_blocks(GROUP_HEADER_BYTES + header.payload_bytes as usize) as u64,
        kind: header.kind,
        group_seq: header.group_seq,
        durable_group_seq: header.durable_group_seq,
        first_index: header.first_index,
        term: header.term,
        batch_count: header.batch_count,
        is_whole,
        term_known: Some(header.term),
        payload,
    }
}

/// The first index that a damaged group concerns, if its header still says so.
pub(super) fn superseding_from(found: &Found, stop: &Stop) -> Result<Option<u64>, OpenError> {
    if stop.offset + GROUP_HEADER_BYTES as u64 > found.header.segment_bytes {
        return Ok(None);
    }
    let head = found.load(stop.offset, GROUP_HEADER_BYTES)?;
    let header = GroupHeader::decode(&head, found.header.seed());
    Ok(header.and_then(|(header, _)| {
        let is_it = header.group_seq == stop.group_seq && header.kind == GroupKind::Data;
        is_it.then_some(header.first_index)
    }))
}

/// The first index after damage, by the group behind it.
pub(super) fn goes_on_at(
    found: &Found,
    offset: u64,
    header: &GroupHeader,
    lo: u64,
) -> Result<u64, OpenError> {
    if header.kind != GroupKind::Seal {
        return Ok(header.first_index.max(lo));
    }
    let rows = match read_group(found, offset)? {
        Ok(seal) => decode_rows(&seal.payload).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    Ok(rows.last().map_or(lo, |row| row.end_index().max(lo)))
}

/// What is left of the group at `stop`, whose place ends at `end` and whose entries are of `[lo, hi)`.
pub(super) fn remains(
    found: &Found,
    stop: &Stop,
    end: u64,
    (lo, hi): (u64, u64),
) -> Result<GroupView, OpenError> {
    let file_bytes = found.header.segment_bytes;
    let at = stop.offset + GROUP_HEADER_BYTES as u64;
    if at > file_bytes {
        return Ok(unknown(found, stop, 0, (lo, lo), Bytes::new()));
    }
    let head = found.load(stop.offset, GROUP_HEADER_BYTES)?;
    if let Some((header, _)) = GroupHeader::decode(&head, found.header.seed()) {
        let bytes = u64::from(header.payload_bytes).min(file_bytes - at);
        let payload = found.load(at, bytes as usize)?;
        return Ok(view(found.name, stop.offset, &header, payload, false));
    }
    let bytes = end
        .saturating_sub(at)
        .min(REMAINS_BYTES_MAX)
        .min(file_bytes - at);
    let payload = found.load(at, bytes as usize)?;
    Ok(unknown(found, stop, bytes, (lo, hi), payload))
}

fn unknown(
    found: &Found,
    stop: &Stop,
    bytes: u64,
    (lo, hi): (u64, u64),
    payload: Bytes,
) -> GroupView {
    GroupView {
        segment: found.name,
        offset: stop.offset,
        bytes,
        kind: GroupKind::Data,
        group_seq: stop.group_seq,
        durable_group_seq: 0,
        first_index: lo,
        term: 0,
        batch_count: u32::try_from(hi - lo).unwrap_or(u32::MAX),
        is_whole: false,
        term_known: None,
        payload,
    }
}

/// The first wrong bytes of a group, as expected and found.
pub(super) fn explain_group(
    found: &Found,
    stop: &Stop,
    remains: &GroupView,
) -> Result<Option<(u64, DecodeError)>, OpenError> {
    if stop.offset + GROUP_HEADER_BYTES as u64 <= found.header.segment_bytes {
        let head = found.load(stop.offset, GROUP_HEADER_BYTES)?;
        if let Some(error) = explain_header(&head, found.header.seed()) {
            return Ok(Some((stop.offset, error)));
        }
    }
    let batches = remains.batches();
    let wrong = batches.into_iter().find_map(|batch| match batch.state {
        BatchState::Intact => None,
        BatchState::Header(error) | BatchState::Body(error) => Some((batch.offset, error)),
    });
    Ok(wrong)
}

/// A segment's header in numbers: the checksum, or the field that is wrong.
pub(super) fn explain_segment(block: &[u8], corruption: &Corruption) -> Option<(u64, DecodeError)> {
    match corruption.kind {
        CorruptionKind::SegmentHeader(what) => {
            explain_block(block, SEGMENT_MAGIC, what).map(|error| (0, error))
        }
        CorruptionKind::SegmentBytes { expected, found } => {
            let what = "segment file";
            let error = DecodeError::Truncated {
                what,
                expected,
                found,
            };
            (found < expected).then_some((found, error))
        }
        _ => None,
    }
}

/// A segment whose file is not as long as its header says, as far as it goes.
pub(super) fn shorter(
    name: SegmentName,
    source: Arc<dyn Source>,
    block: &[u8],
    corruption: &Corruption,
) -> Option<Found> {
    let CorruptionKind::SegmentBytes { expected, found } = corruption.kind else {
        return None;
    };
    let mut header = SegmentHeader::decode(block).ok()?;
    header.segment_bytes = found.min(expected) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    Some(Found {
        name,
        header,
        sparse: Arc::clone(&source),
        source,
    })
}
