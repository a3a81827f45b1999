//! Following the groups of a segment from its first to the last valid one.

use bytes::Bytes;
use drave_batch::BatchRef;

use super::files::Found;
use crate::error::OpenError;
use crate::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupKind, SEAL_HAS_RESET, decode_rows,
    whole_blocks,
};
use crate::machine::{Segment, apply_group};
use crate::terms::Terms;

/// The log as far as it has been followed.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) segments: Vec<Segment>,
    pub(crate) terms: Terms,
    pub(crate) next_index: u64,
    pub(crate) last_crc: u32,
    pub(crate) last_group_seq: u64,
    pub(crate) last_group_crc: u32,
    pub(crate) last_kind: GroupKind,
    pub(crate) meta_generation: u32,
    pub(crate) groups: u64,
    /// Groups of this segment were left out, so its seal's table need not be that of the groups followed.
    pub(crate) has_gap: bool,
}

/// Where following the groups ended, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) offset: u64,
    pub(crate) group_seq: u64,
    pub(crate) what: &'static str,
}

/// A group read and checked by itself.
pub(crate) struct Group {
    pub(crate) header: GroupHeader,
    crc: u32,
    /// Checksum of the last batch; for markers, of the entry they name.
    last_crc: u32,
    /// `prev_crc` of the first batch.
    chain_crc: u32,
    pub(crate) payload: Bytes,
}

impl Progress {
    /// Starts at the log's first segment.
    pub(crate) fn before(first: &Found) -> Self {
        let header = &first.header;
        Self {
            segments: Vec::new(),
            terms: Terms::starting_after(header.base_index - 1, header.base_term),
            next_index: header.base_index,
            last_crc: header.base_crc,
            last_group_seq: header.first_group_seq - 1,
            last_group_crc: header.previous_group_crc,
            last_kind: GroupKind::Idle,
            meta_generation: 0,
            groups: 0,
            has_gap: false,
        }
    }

    /// Follows the groups of `found` up to the group `last_group_seq`, or to the first that is not valid.
    pub(crate) fn follow(
        &mut self,
        found: &Found,
        last_group_seq: u64,
    ) -> Result<Option<Stop>, OpenError> {
        self.begin(found);
        while self.last_group_seq < last_group_seq {
            let offset = self.segments.last().map_or(0, |segment| segment.end_offset);
            if let Err(stop) = self.follow_group(found, offset)? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// Enters a segment, before its first group.
    pub(crate) fn begin(&mut self, found: &Found) {
        let header = &found.header;
        let mut segment = Segment::new(
            found.name,
            header.segment_bytes,
            header.seed(),
            self.next_index,
        );
        let base = self
            .segments
            .last()
            .map_or(header.base_index, |last| last.hi);
        (segment.lo, segment.hi) = (base, base);
        self.segments.push(segment);
        // A segment made after a torn one goes on under a number above all that were seen.
        self.last_group_seq = header.first_group_seq - 1;
        self.last_group_crc = header.first_link_crc();
        self.has_gap = false;
    }

    /// Goes on at the group at `offset`, whose header is `header`, whatever came before it. The entries
    /// before it end at `next_index`.
    pub(crate) fn resume(
        &mut self,
        found: &Found,
        offset: u64,
        header: &GroupHeader,
        next_index: u64,
    ) -> Result<(), OpenError> {
        match (header.kind, read_group(found, offset)?) {
            (GroupKind::Data, Ok(group)) => self.last_crc = group.chain_crc,
            (GroupKind::Idle, _) => self.last_crc = header.payload_crc,
            _ => {}
        }
        self.next_index = next_index;
        self.last_group_seq = header.group_seq - 1;
        self.last_group_crc = header.previous_group_crc;
        self.has_gap = true;
        if let Some(segment) = self.segments.last_mut() {
            segment.end_offset = offset;
        }
        Ok(())
    }

    /// Takes it that everything before `next` was followed.
    pub(crate) fn resume_before(&mut self, next: &Found) {
        let header = &next.header;
        self.next_index = header.base_index;
        self.last_crc = header.base_crc;
        self.last_group_seq = header.previous_group_seq;
        self.last_group_crc = header.previous_group_crc;
    }

    /// Takes a sealed segment by its seal, without reading its batches, if the seal says enough: which `next`
    /// must name. False if the groups must be followed instead.
    pub(crate) fn trust_seal(&mut self, found: &Found, next: &Found) -> Result<bool, OpenError> {
        let offset = next.header.previous_seal_offset;
        if offset == 0 {
            return Ok(false);
        }
        let found = &found.sparsely();
        let Ok(seal) = read_group(found, offset)? else {
            return Ok(false);
        };
        let named = seal.header.kind == GroupKind::Seal
            && seal.header.group_seq == next.header.previous_group_seq
            && seal.crc == next.header.previous_group_crc;
        if !named || seal.header.flags & SEAL_HAS_RESET != 0 {
            return Ok(false);
        }
        let Some(rows) = decode_rows(&seal.payload) else {
            return Ok(false);
        };
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(false);
        };
        if first.first_index > self.next_index {
            return Ok(false);
        }
        let Ok(last_group) = read_group(found, last.offset.into())? else {
            return Ok(false);
        };
        if last_group.header.batch_count != last.batch_count {
            // The last group counts only in part; the checksum of the entry that ends the log is inside.
            return Ok(false);
        }
        for segment in &mut self.segments {
            segment.clip(first.first_index);
        }
        self.terms.truncate(first.first_index);
        for row in &rows {
            self.terms.push(row.first_index, row.term);
        }
        let header = &found.header;
        let mut segment = Segment::new(
            found.name,
            header.segment_bytes,
            header.seed(),
            first.first_index,
        );
        segment.hi = last.end_index();
        segment.end_offset = next.header.previous_end_offset;
        segment.seal_offset = Some(offset);
        self.segments.push(segment);
        self.next_index = last.end_index();
        self.last_crc = last_group.last_crc;
        self.last_group_seq = seal.header.group_seq;
        self.last_group_crc = seal.crc;
        self.last_kind = GroupKind::Seal;
        self.meta_generation = self.meta_generation.max(seal.header.meta_generation);
        self.groups += 1;
        Ok(true)
    }

    /// Follows one group, or says why it does not continue the log.
    pub(crate) fn follow_group(
        &mut self,
        found: &Found,
        offset: u64,
    ) -> Result<Result<Group, Stop>, OpenError> {
        let group_seq = self.last_group_seq + 1;
        let stop = |what| Stop {
            offset,
            group_seq,
            what,
        };
        if self
            .segments
            .last()
            .is_some_and(|segment| segment.seal_offset.is_some())
        {
            return Ok(Err(stop("the segment is sealed")));
        }
        let group = match read_group(found, offset)? {
            Ok(group) => group,
            Err(what) => return Ok(Err(stop(what))),
        };
        let header = &group.header;
        if header.group_seq != group_seq || header.previous_group_crc != self.last_group_crc {
            return Ok(Err(stop("it does not follow the group before it")));
        }
        let jumps = header.kind == GroupKind::Reset;
        if !jumps && header.first_index > self.next_index {
            return Ok(Err(stop("entries before it are missing")));
        }
        if header.kind == GroupKind::Data
            && header.first_index == self.next_index
            && group.chain_crc != self.last_crc
        {
            return Ok(Err(stop("its first batch continues another entry")));
        }
        let is_seal = header.kind == GroupKind::Seal;
        if is_seal && !self.has_gap && !self.seal_agrees(&group) {
            return Ok(Err(stop("the seal's table is not that of the groups")));
        }
        self.accept(&group, offset);
        Ok(Ok(group))
    }

    fn seal_agrees(&self, group: &Group) -> bool {
        let rows = decode_rows(&group.payload);
        rows.as_ref() == self.segments.last().map(|segment| &segment.rows)
    }

    fn accept(&mut self, group: &Group, offset: u64) {
        let header = &group.header;
        apply_group(&mut self.segments, header, offset);
        let segment = self
            .segments
            .last_mut()
            .expect("it was pushed before its groups");
        segment.end_offset =
            offset + whole_blocks(GROUP_HEADER_BYTES + header.payload_bytes as usize) as u64;
        match header.kind {
            GroupKind::Data => {
                self.terms.truncate(header.first_index);
                self.terms.push(header.first_index, header.term);
                self.next_index = header.first_index + u64::from(header.batch_count);
                self.last_crc = group.last_crc;
            }
            GroupKind::Truncate => {
                self.terms.truncate(header.first_index);
                self.next_index = header.first_index;
                self.last_crc = header.payload_crc;
            }
            GroupKind::Reset => {
                self.terms = Terms::starting_after(header.first_index - 1, header.term);
                self.next_index = header.first_index;
                self.last_crc = header.payload_crc;
            }
            GroupKind::Idle => {}
            GroupKind::Seal => {
                segment.seal_offset = Some(offset);
                segment.rows = Vec::new();
            }
        }
        self.last_group_seq = header.group_seq;
        self.last_group_crc = group.crc;
        self.last_kind = header.kind;
        self.meta_generation = self.meta_generation.max(header.meta_generation);
        self.groups += 1;
    }
}

/// Reads and checks the group at `offset` by itself.
pub(crate) fn read_group(
    found: &Found,
    offset: u64,
) -> Result<Result<Group, &'static str>, OpenError> {
    let bytes = found.header.segment_bytes;
    if offset + BLOCK_BYTES as u64 > bytes {
        return Ok(Err("the segment ends"));
    }
    let head = found.load(offset, GROUP_HEADER_BYTES)?;
    let Some((header, crc)) = GroupHeader::decode(&head, found.header.seed()) else {
        return Ok(Err("there is no valid header"));
    };
    let payload_at = offset + GROUP_HEADER_BYTES as u64;
    if payload_at + u64::from(header.payload_bytes) > bytes {
        return Ok(Err("its payload is beyond the segment"));
    }
    let payload = found.load(payload_at, header.payload_bytes as usize)?;
    let checked = match header.kind {
        GroupKind::Data => check_batches(&header, &payload),
        GroupKind::Seal if crc32fast::hash(&payload) != header.payload_crc => {
            Err("the seal's table is not valid")
        }
        _ => Ok((header.payload_crc, 0)),
    };
    Ok(checked.map(|(last_crc, chain_crc)| Group {
        header,
        crc,
        last_crc,
        chain_crc,
        payload,
    }))
}

/// Checks the batches of a data group; gives the last one's checksum and the first one's predecessor's.
fn check_batches(header: &GroupHeader, payload: &[u8]) -> Result<(u32, u32), &'static str> {
    let mut crcs = crc32fast::Hasher::new();
    let mut chain_crc = None;
    let (mut at, mut last_crc) = (0, 0);
    for position in 0..u64::from(header.batch_count) {
        let batch = BatchRef::decode(&payload[at..]).map_err(|_| "a batch header is not valid")?;
        let before = chain_crc.map(|_| last_crc);
        check_batch(
            &batch,
            (
                header.first_index.saturating_add(position),
                header.term,
                before,
            ),
        )?;
        chain_crc.get_or_insert(batch.header.prev_crc);
        last_crc = batch.header_crc;
        crcs.update(&last_crc.to_le_bytes());
        at += batch.encoded().len();
    }
    if at != payload.len() || crcs.finalize() != header.payload_crc {
        return Err("the batches are not those of the group");
    }
    Ok((last_crc, chain_crc.unwrap_or(0)))
}

/// Checks that a batch is the one that belongs in its place: its index, its term, and the checksum of the one before
/// it where that is known.
pub(crate) fn check_batch(
    batch: &BatchRef<'_>,
    (index, term, before): (u64, u64, Option<u32>),
) -> Result<(), &'static str> {
    let header = &batch.header;
    let follows = before.is_none_or(|before| before == header.prev_crc);
    if !follows || header.index != index || header.term != term {
        return Err("a batch does not follow the one before it");
    }
    batch.verify_body().map_err(|_| "a batch body is not valid")
}
