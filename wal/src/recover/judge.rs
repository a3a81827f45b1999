//! The first group that is not valid: the end of the log, a torn write, or damage to what was durable.
//!
//! A group was durable if a later valid group says so. Only when nothing says so may it be left behind.

use std::ops::ControlFlow;

use super::Torn;
use super::files::{Found, corrupt};
use super::scan::Stop;
use crate::error::{CorruptionKind, OpenError, Proof};
use crate::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, USED_BEFORE, raw_group_seq, whole_blocks,
};

/// Blocks looked at in one load.
const WINDOW_BYTES: usize = 1 << 20;

/// What the first group that is not valid means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// None for a log that simply ends there.
    pub(crate) torn: Option<Torn>,
    /// The highest group number seen anywhere.
    pub(crate) group_seq_max: u64,
}

/// Judges `stop` in `found`, the last segment; entries from `first_index` on would be lost.
pub(crate) fn judge(found: &Found, stop: &Stop, first_index: u64) -> Result<Verdict, OpenError> {
    let lost = |proof| CorruptionKind::Group {
        group_seq: stop.group_seq,
        first_index,
        what: stop.what,
        proof,
    };
    let mut verdict = Verdict {
        torn: None,
        group_seq_max: stop.group_seq,
    };
    let (mut groups, mut end) = (0, stop.offset);
    probe(found, stop.offset, |offset, header| {
        if header.group_seq < stop.group_seq {
            return Ok(ControlFlow::Continue(()));
        }
        if header.durable_group_seq >= stop.group_seq {
            let (group_seq, segment_seq) = (header.group_seq, found.name.segment_seq);
            let proof = Proof::LaterGroup {
                group_seq,
                segment_seq,
            };
            return Err(corrupt(found.file(), stop.offset, lost(proof)));
        }
        if offset > stop.offset {
            groups += 1;
        }
        let bytes = whole_blocks(GROUP_HEADER_BYTES + header.payload_bytes as usize) as u64;
        end = end.max((offset + bytes).min(found.header.segment_bytes));
        verdict.group_seq_max = verdict.group_seq_max.max(header.group_seq);
        Ok(ControlFlow::Continue(()))
    })?;
    if end > stop.offset || leaves_traces(found, stop)? {
        verdict.torn = Some(Torn {
            segment: found.name,
            offset: stop.offset,
            bytes: (end - stop.offset).max(BLOCK_BYTES as u64),
            groups_dropped: groups,
        });
    }
    Ok(verdict)
}

/// Calls `visit` for every block from `from` on that starts with a header of this segment, until it breaks.
pub(crate) fn probe(
    found: &Found,
    from: u64,
    mut visit: impl FnMut(u64, &GroupHeader) -> Result<ControlFlow<()>, OpenError>,
) -> Result<(), OpenError> {
    let seed = found.header.seed();
    let mut offset = from;
    while offset < found.header.segment_bytes {
        let bytes = WINDOW_BYTES.min((found.header.segment_bytes - offset) as usize);
        let window = found.load(offset, bytes)?;
        for (position, block) in window.chunks(BLOCK_BYTES).enumerate() {
            if let Some((header, _)) = GroupHeader::decode(block, seed) {
                let at = offset + (position * BLOCK_BYTES) as u64;
                if visit(at, &header)?.is_break() {
                    return Ok(());
                }
            }
        }
        offset += bytes as u64;
    }
    Ok(())
}

/// Whether something of the group was written, though its header is not valid. In a file that held an older
/// segment only a header with the very number expected counts; the rest may be that segment's.
fn leaves_traces(found: &Found, stop: &Stop) -> Result<bool, OpenError> {
    if stop.offset + BLOCK_BYTES as u64 > found.header.segment_bytes {
        return Ok(false);
    }
    let block = found.load(stop.offset, BLOCK_BYTES)?;
    if found.header.flags & USED_BEFORE == 0 {
        return Ok(block.iter().any(|byte| *byte != 0));
    }
    Ok(raw_group_seq(&block) == Some(stop.group_seq))
}
