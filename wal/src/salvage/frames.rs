//! A rewritten segment's groups, laid out before anything is written.

use super::chain::Chain;
use crate::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SegmentHeader, SegmentName,
    encode_rows, whole_blocks,
};
use crate::machine::{Segment, apply_group};

/// A group and which entries are in it.
pub(super) struct Frame {
    pub(super) header: GroupHeader,
    pub(super) offset: u64,
    pub(super) entries: std::ops::Range<u64>,
    /// A seal's rows; the batches of a data group are read when they are written.
    pub(super) payload: Vec<u8>,
}

/// A segment to be written.
pub(super) struct Rewritten {
    pub(super) header: SegmentHeader,
    pub(super) frames: Vec<Frame>,
    pub(super) end_offset: u64,
    pub(super) seal_offset: u64,
    pub(super) seal_crc: u32,
}

/// What the groups of a segment are made from.
pub(super) struct Share {
    pub(super) entries: (u64, u64),
    pub(super) marker: Option<GroupKind>,
    /// Term and checksum of the entry before the first.
    pub(super) before: (u64, u32),
}

/// Entries of one group: of one term, up to `bytes_max` unless one alone is larger.
fn runs(chain: &Chain, (lo, hi): (u64, u64), bytes_max: u64) -> Vec<std::ops::Range<u64>> {
    let (mut runs, mut bytes, mut term): (Vec<std::ops::Range<u64>>, u64, u64) = (Vec::new(), 0, 0);
    for index in lo..hi {
        let batch = chain.get(index).expect("the log is whole");
        let size = u64::from(batch.place.bytes);
        match runs.last_mut() {
            Some(run) if term == batch.term && bytes + size <= bytes_max => {
                run.end = index + 1;
                bytes += size;
            }
            _ => {
                runs.push(index..index + 1);
                (bytes, term) = (size, batch.term);
            }
        }
    }
    runs
}

/// How many groups a share takes, its seal included.
pub(super) fn count(chain: &Chain, share: &Share, bytes_max: u64) -> u64 {
    let runs = runs(chain, share.entries, bytes_max).len() as u64;
    runs + u64::from(share.marker.is_some()) + 1
}

/// Lays out a segment behind `header`, whose length grows if need be.
pub(super) fn lay_out(
    chain: &Chain,
    share: &Share,
    mut header: SegmentHeader,
    bytes_max: u64,
    meta_generation: u32,
) -> Rewritten {
    let seed = header.seed();
    let name = SegmentName {
        segment_seq: header.segment_seq,
        first_index: header.base_index,
    };
    let mut segments = [Segment::new(
        name,
        header.segment_bytes,
        seed,
        share.entries.0,
    )];
    let (mut frames, mut offset) = (Vec::new(), BLOCK_BYTES as u64);
    let (mut group_seq, mut previous_group_crc) = (header.first_group_seq, header.first_link_crc());
    let mut push = |mut group: GroupHeader, entries, payload: Vec<u8>| {
        group.group_seq = group_seq;
        group.durable_group_seq = group_seq - 1;
        group.previous_group_crc = previous_group_crc;
        group.meta_generation = meta_generation;
        let at = offset;
        offset += whole_blocks(GROUP_HEADER_BYTES + group.payload_bytes as usize) as u64;
        previous_group_crc = group.encode(seed).1;
        group_seq += 1;
        apply_group(&mut segments, &group, at);
        frames.push(Frame {
            header: group,
            offset: at,
            entries,
            payload,
        });
        let rows = segments[0].rows.clone();
        (at, offset, previous_group_crc, rows, segments[0].has_reset)
    };
    let blank = |kind, first_index, term, payload_crc| GroupHeader {
        kind,
        group_seq: 0,
        durable_group_seq: 0,
        first_index,
        term,
        batch_count: 0,
        payload_bytes: 0,
        payload_crc,
        previous_group_crc: 0,
        meta_generation: 0,
        flags: 0,
    };
    let (lo, hi) = share.entries;
    let (mut rows, mut has_reset) = (Vec::new(), false);
    if let Some(kind) = share.marker {
        let group = blank(kind, lo, share.before.0, share.before.1);
        (_, _, _, rows, has_reset) = push(group, 0..0, Vec::new());
    }
    let mut term_last = share.before.0;
    for run in runs(chain, (lo, hi), bytes_max) {
        let (mut crcs, mut bytes) = (crc32fast::Hasher::new(), 0);
        for index in run.clone() {
            let batch = chain.get(index).expect("the log is whole");
            crcs.update(&batch.crc.to_le_bytes());
            bytes += batch.place.bytes;
            term_last = batch.term;
        }
        let mut group = blank(GroupKind::Data, run.start, term_last, crcs.finalize());
        group.batch_count = (run.end - run.start) as u32;
        group.payload_bytes = bytes;
        (_, _, _, rows, has_reset) = push(group, run, Vec::new());
    }
    let mut payload = Vec::new();
    encode_rows(&rows, &mut payload);
    let mut seal = blank(GroupKind::Seal, lo, term_last, crc32fast::hash(&payload));
    seal.batch_count = rows.len() as u32;
    seal.payload_bytes = payload.len() as u32;
    seal.flags = if has_reset {
        crate::format::SEAL_HAS_RESET
    } else {
        0
    };
    let (seal_offset, end_offset, seal_crc, ..) = push(seal, 0..0, payload);
    header.segment_bytes = header.segment_bytes.max(end_offset);
    Rewritten {
        header,
        frames,
        end_offset,
        seal_offset,
        seal_crc,
    }
}
