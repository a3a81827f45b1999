//! What has to be written: runs of segments, from a damaged one to the last whose successor can stay as it is.
//!
//! Segments before a run keep what they hold, dead entries included; so a run begins with the first entry of the
//! log that following those segments does not give. An entry stays in the segment where it was found, so that
//! no crash between two segments of a run loses what was there before.

use super::chain::Chain;
use super::files::SegmentFile;
use super::judge::{Followed, Judged};
use crate::format::{GroupKind, MetaRecord};

/// Segments `[first_seq, last_seq]` to be written anew with the entries `[lo, hi)`.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// Which entries each segment gets.
    pub(super) shares: Vec<(u64, u64)>,
    /// What its first group does to what is before it.
    pub(super) marker: Option<GroupKind>,
}

/// Entries as following the groups gives them, the log's or not.
struct Row {
    lo: u64,
    hi: u64,
    /// None for rewritten ones: the log's.
    group_seq: Option<u64>,
}

struct Raw {
    first_index: u64,
    next_index: u64,
    rows: Vec<Row>,
}

impl Raw {
    fn cut(&mut self, from: u64) {
        self.rows.retain(|row| row.lo < from);
        if let Some(row) = self.rows.last_mut() {
            row.hi = row.hi.min(from);
        }
        self.next_index = from;
    }

    fn push(&mut self, lo: u64, hi: u64, group_seq: Option<u64>) {
        self.cut(lo);
        self.rows.push(Row { lo, hi, group_seq });
        self.next_index = hi;
    }

    fn reset(&mut self, index: u64) {
        self.rows.clear();
        self.first_index = index;
        self.next_index = index;
    }

    /// The first index of the log that is not here.
    fn agrees_below(&self, chain: &Chain) -> u64 {
        let mut index = chain.floor.first_index;
        if self.first_index != index {
            return index;
        }
        for row in &self.rows {
            for at in row.lo..row.hi {
                let same = match row.group_seq {
                    Some(group_seq) => chain.is_in_group(at, group_seq),
                    None => true,
                };
                if at != index || !same {
                    return index;
                }
                index += 1;
            }
        }
        index
    }
}

/// The runs, ascending. The chain must be whole.
pub(super) fn plan(
    files: &[SegmentFile],
    meta: &MetaRecord,
    judged: &Judged,
    chain: &Chain,
    next_index: u64,
) -> Vec<Run> {
    let first = judged.whole.get(&meta.first_segment_seq);
    let first_index = first.map_or(chain.floor.first_index, |first| first.header.base_index);
    let mut raw = Raw {
        first_index,
        next_index: first_index,
        rows: Vec::new(),
    };
    let mut runs = Vec::new();
    let mut segment_seq = meta.first_segment_seq;
    while segment_seq <= meta.last_segment_seq {
        let Some(followed) = judged.whole.get(&segment_seq) else {
            let run = plan_run(
                files,
                meta,
                judged,
                chain,
                &mut raw,
                segment_seq,
                next_index,
            );
            segment_seq = run.last_seq + 1;
            runs.push(run);
            continue;
        };
        for group in &followed.groups {
            let header = &group.header;
            let first = header.first_index;
            match header.kind {
                GroupKind::Data => {
                    let hi = first + u64::from(header.batch_count);
                    raw.push(first, hi, Some(header.group_seq));
                }
                GroupKind::Truncate => raw.cut(first),
                GroupKind::Reset => raw.reset(first),
                GroupKind::Idle | GroupKind::Seal => {}
            }
        }
        segment_seq += 1;
    }
    runs
}

fn plan_run(
    files: &[SegmentFile],
    meta: &MetaRecord,
    judged: &Judged,
    chain: &Chain,
    raw: &mut Raw,
    first_seq: u64,
    next_index: u64,
) -> Run {
    let lo = raw.agrees_below(chain);
    // The run ends before a segment that continues exactly the log as it is there.
    let mut last_seq = first_seq;
    let hi = loop {
        if last_seq == meta.last_segment_seq {
            break next_index;
        }
        let next = judged.whole.get(&(last_seq + 1));
        if let Some(index) = next.and_then(|next| continues(chain, next, next_index)) {
            break index;
        }
        last_seq += 1;
    };
    let is_first = first_seq == meta.first_segment_seq;
    let is_reset_later = chain.floor.reset_in.is_some_and(|seq| seq > last_seq);
    let marker = if is_reset_later {
        None
    } else if !is_first && raw.first_index != chain.floor.first_index {
        raw.reset(lo);
        Some(GroupKind::Reset)
    } else if lo >= hi && !is_first && raw.next_index > hi && !cuts_itself(judged, last_seq + 1) {
        raw.cut(hi);
        Some(GroupKind::Truncate)
    } else {
        None
    };
    if lo < hi {
        raw.push(lo, hi, None);
    }
    Run {
        first_seq,
        last_seq,
        shares: shares(files, chain, first_seq..=last_seq, lo.min(hi)..hi),
        marker,
    }
}

/// Where the segment's first group goes on, if that is behind the very entry that the log has there.
fn continues(chain: &Chain, next: &Followed, next_index: u64) -> Option<u64> {
    let header = &next.header;
    let (index, crc) = match next.groups.first() {
        Some(first) if first.header.kind == GroupKind::Data => {
            let index = first.header.first_index;
            (
                index,
                chain.prev_crc_in_group(index, first.header.group_seq)?,
            )
        }
        Some(first) if first.header.kind != GroupKind::Seal => {
            (first.header.first_index, first.header.payload_crc)
        }
        Some(seal) if seal.header.first_index != header.base_index => return None,
        _ => (header.base_index, header.base_crc),
    };
    let before = (index <= next_index).then(|| chain.before(index)).flatten();
    before.filter(|(_, live)| *live == crc).map(|_| index)
}

/// Whether the segment's first group takes away what is at its index and above.
fn cuts_itself(judged: &Judged, segment_seq: u64) -> bool {
    let first = judged
        .whole
        .get(&segment_seq)
        .and_then(|next| next.groups.first());
    first.is_some_and(|group| !matches!(group.header.kind, GroupKind::Idle | GroupKind::Seal))
}

fn shares(
    files: &[SegmentFile],
    chain: &Chain,
    segments: std::ops::RangeInclusive<u64>,
    entries: std::ops::Range<u64>,
) -> Vec<(u64, u64)> {
    let mut shares = vec![(entries.start, entries.start)];
    let mut current = *segments.start();
    for index in entries {
        let place = chain.get(index).and_then(|batch| batch.place.file);
        let found_in = place.map(|file| files[file].name.segment_seq);
        if let Some(found_in) = found_in.filter(|found_in| segments.contains(found_in)) {
            while current < found_in {
                shares.push((index, index));
                current += 1;
            }
        }
        shares.last_mut().expect("there is one").1 = index + 1;
    }
    let end = shares.last().expect("there is one").1;
    let count = (segments.end() - segments.start() + 1) as usize;
    shares.resize(count, (end, end));
    shares
}
