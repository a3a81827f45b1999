//! What is damaged, and where the log ends: a crash is told from damage as at open (`recover::judge`).

use std::collections::BTreeMap;

use super::chain::{Floor, Wanted};
use super::files::{Group, SegmentFile};
use crate::error::{Corruption, CorruptionKind, OpenError, Proof};
use crate::format::{
    BLOCK_BYTES, FileName, GROUP_HEADER_BYTES, GroupKind, MetaRecord, SealRow, SegmentHeader,
    decode_rows,
};
use crate::recover::files::corrupt;

/// Where the groups of a segment end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tail {
    pub(super) end_offset: u64,
    pub(super) group_seq: u64,
    pub(super) group_crc: u32,
    /// 0 if it is not sealed.
    pub(super) seal_offset: u64,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The last group that counts; what is behind it was never durable.
    pub(super) group_seq: u64,
    pub(super) last_index: u64,
    /// What is known of the last entry.
    pub(super) wanted: Wanted,
}

impl End {
    /// Of a log to which nothing was written.
    pub(super) const NOTHING: Self = Self {
        group_seq: 0,
        last_index: 0,
        wanted: Wanted {
            crc: None,
            term: None,
        },
    };
}

/// A segment's file under its own name, and how far its groups follow one another.
pub(super) struct Followed {
    pub(super) file: usize,
    pub(super) header: SegmentHeader,
    /// The groups that count.
    pub(super) groups: Vec<Group>,
    pub(super) tail: Tail,
}

/// The segments that must exist, each with what is right about it.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) damage: Vec<Corruption>,
    /// Segments that are what they were.
    pub(super) whole: BTreeMap<u64, Followed>,
}

/// The file that has the segment's name; of several the one whose header fits it.
pub(super) fn file_of(files: &[SegmentFile], segment_seq: u64) -> Option<usize> {
    let named = |(_, file): &(usize, &SegmentFile)| file.name.segment_seq == segment_seq;
    let fit = |file: &SegmentFile| {
        let header = file.header.as_ref();
        let named = header.is_some_and(|header| header.base_index == file.name.first_index);
        (file.damage.is_none(), named)
    };
    let best = files.iter().enumerate().filter(named);
    best.max_by_key(|(_, file)| fit(file))
        .map(|(number, _)| number)
}

/// Follows the groups from the first block on, up to `last_group_seq`.
fn follow(file: &SegmentFile, header: &SegmentHeader, last_group_seq: u64) -> (Vec<Group>, Tail) {
    let mut groups: Vec<Group> = Vec::new();
    let mut tail = Tail {
        end_offset: BLOCK_BYTES as u64,
        group_seq: header.first_group_seq - 1,
        group_crc: header.first_link_crc(),
        seal_offset: 0,
    };
    for group in &file.groups {
        let follows = group.is_whole
            && group.offset == tail.end_offset
            && group.header.group_seq == tail.group_seq + 1
            && group.header.previous_group_crc == tail.group_crc
            && tail.seal_offset == 0
            && group.header.group_seq <= last_group_seq;
        if !follows {
            break;
        }
        tail.end_offset = group.end_offset;
        tail.group_seq = group.header.group_seq;
        tail.group_crc = group.crc;
        if group.header.kind == GroupKind::Seal {
            tail.seal_offset = group.offset;
        }
        groups.push(group.clone());
    }
    (groups, tail)
}

/// Looks at every segment that the meta record says must exist.
pub(super) fn judge(files: &[SegmentFile], meta: &MetaRecord) -> Judged {
    let mut judged = Judged::default();
    for segment_seq in meta.first_segment_seq..=meta.last_segment_seq {
        let Some(number) = file_of(files, segment_seq) else {
            let kind = CorruptionKind::SegmentMissing { segment_seq };
            let (file, offset) = (FileName::Meta, 56);
            judged.damage.push(Corruption { file, offset, kind });
            continue;
        };
        let file = &files[number];
        let (None, Some(header)) = (&file.damage, &file.header) else {
            judged.damage.extend(file.damage.clone());
            continue;
        };
        let next = (segment_seq < meta.last_segment_seq)
            .then(|| file_of(files, segment_seq + 1))
            .map(|next| {
                let next = &files[next?];
                next.header.as_ref().filter(|_| next.damage.is_none())
            });
        let last_group_seq = match next {
            Some(Some(next)) => next.previous_group_seq,
            _ => u64::MAX,
        };
        let (groups, tail) = follow(file, header, last_group_seq);
        if let Some((what, proof)) = damage_after(file, &tail, next) {
            let kind = CorruptionKind::Group {
                group_seq: tail.group_seq + 1,
                first_index: next_index(&groups, header),
                what,
                proof,
            };
            let (file, offset) = (FileName::Segment(file.name), tail.end_offset);
            judged.damage.push(Corruption { file, offset, kind });
            continue;
        }
        let followed = Followed {
            file: number,
            header: header.clone(),
            groups,
            tail,
        };
        judged.whole.insert(segment_seq, followed);
    }
    for file in files {
        // Written as one, so that no file is replaced before what it holds of another segment is written.
        let (named, own) = (file.name.segment_seq, file.own_seq());
        let between = named.min(own)..=named.max(own);
        if named != own {
            judged
                .whole
                .retain(|segment_seq, _| !between.contains(segment_seq));
        }
    }
    judged
}

const NO_GROUP: &str = "there is no valid group that follows the one before it";

/// Why what follows `tail` was durable and is not valid, if it was. `next` is the segment after it (none for the
/// last one), and its header, if that is valid.
fn damage_after(
    file: &SegmentFile,
    tail: &Tail,
    next: Option<Option<&SegmentHeader>>,
) -> Option<(&'static str, Proof)> {
    let segment_seq = file.name.segment_seq;
    match next {
        Some(Some(next)) => {
            let continues = next.previous_group_seq == tail.group_seq
                && next.previous_group_crc == tail.group_crc;
            let segment_seq = next.segment_seq;
            let what = if tail.group_seq < next.previous_group_seq {
                NO_GROUP
            } else {
                "its last group is not the one that the next segment continues"
            };
            (!continues).then_some((what, Proof::NextSegment { segment_seq }))
        }
        // Whether it is whole only the next segment's header could say.
        Some(None) => (tail.seal_offset == 0).then_some((
            "there is no seal, and the next segment does not say where this one ends",
            Proof::NextSegment {
                segment_seq: segment_seq + 1,
            },
        )),
        None => {
            let stop = tail.group_seq + 1;
            let mut later = file
                .groups
                .iter()
                .filter(|group| group.header.group_seq >= stop);
            let proof = later.find(|group| group.header.durable_group_seq >= stop)?;
            let group_seq = proof.header.group_seq;
            Some((
                NO_GROUP,
                Proof::LaterGroup {
                    group_seq,
                    segment_seq,
                },
            ))
        }
    }
}

fn next_index(groups: &[Group], header: &SegmentHeader) -> u64 {
    groups.last().map_or(header.base_index, |group| {
        group.header.first_index + u64::from(batches(group))
    })
}

fn batches(group: &Group) -> u32 {
    match group.header.kind {
        GroupKind::Data => group.header.batch_count,
        _ => 0,
    }
}

/// The last reset, or what the first segment begins after.
pub(super) fn floor(files: &[SegmentFile], meta: &MetaRecord) -> Result<Floor, OpenError> {
    let seqs = meta.first_segment_seq..=meta.last_segment_seq;
    let entered = files.iter().filter(|file| seqs.contains(&file.own_seq()));
    let resets = entered.clone().flat_map(|file| {
        let resets = file
            .groups
            .iter()
            .filter(|group| group.header.kind == GroupKind::Reset);
        resets.map(|group| (group, file.name.segment_seq))
    });
    if let Some((reset, segment_seq)) = resets.max_by_key(|(group, _)| group.header.group_seq) {
        return Ok(Floor {
            first_index: reset.header.first_index,
            term: reset.header.term,
            crc: reset.header.payload_crc,
            reset_in: Some(segment_seq),
        });
    }
    let headers = entered.filter_map(|file| file.header.as_ref());
    let first = headers
        .filter(|header| header.segment_seq == meta.first_segment_seq)
        .max_by_key(|header| header.base_index);
    if let Some(header) = first {
        return Ok(Floor {
            first_index: header.base_index,
            term: header.base_term,
            crc: header.base_crc,
            reset_in: None,
        });
    }
    let named = file_of(files, meta.first_segment_seq).map(|number| files[number].name);
    let at_one = named.is_some_and(|name| name.first_index == 1);
    if meta.first_segment_seq == 1 || at_one {
        return Ok(Floor {
            first_index: 1,
            ..Floor::default()
        });
    }
    // The term of the entry before the first one was only there.
    let segment_seq = meta.first_segment_seq;
    Err(match named {
        Some(name) => corrupt(
            FileName::Segment(name),
            0,
            CorruptionKind::SegmentHeader("nothing else says after which entry the log begins"),
        ),
        None => corrupt(
            FileName::Meta,
            48,
            CorruptionKind::SegmentMissing { segment_seq },
        ),
    })
}

/// Where the log ends; none if that is lost.
pub(super) fn end(files: &[SegmentFile], meta: &MetaRecord) -> Option<End> {
    let owned = |file: &&SegmentFile| file.own_seq() == meta.last_segment_seq;
    let last = files
        .iter()
        .filter(owned)
        .max_by_key(|file| (file.header.is_some(), file.damage.is_none()))?;
    let groups = &last.groups;
    let durable = groups.iter().map(|group| group.header.durable_group_seq);
    let durable = durable.max().unwrap_or(0);
    let find = |group_seq: u64| {
        let mut whole = groups.iter().filter(|group| group.is_whole);
        whole.find(|group| group.header.group_seq == group_seq)
    };
    let before_first = match &last.header {
        Some(header) => header.first_group_seq - 1,
        None => groups.iter().map(|g| g.header.group_seq).min().unwrap_or(1) - 1,
    };
    let mut end_seq = durable.max(before_first);
    if end_seq > before_first && find(end_seq).is_none() && find(end_seq + 1).is_none() {
        // The last group known to be durable does not say where it ended: the one that knew it does.
        let later = groups.iter().filter(|group| group.is_whole);
        let later = later.map(|group| group.header.group_seq);
        end_seq = later.filter(|group_seq| *group_seq > end_seq).min()?;
    }
    while find(end_seq + 1).is_some() {
        end_seq += 1;
    }
    let expected_bytes = last.header.as_ref().map(|header| header.segment_bytes);
    let end_offset = find(end_seq).map_or(BLOCK_BYTES as u64, |group| group.end_offset);
    let is_short = expected_bytes.is_none_or(|expected| last.bytes() < expected);
    let next_at = end_offset..end_offset + BLOCK_BYTES as u64;
    let reaches_out = groups
        .iter()
        .any(|group| group.offset >= next_at.start && group.end_offset > last.bytes());
    let is_sealed = find(end_seq).is_some_and(|group| group.header.kind == GroupKind::Seal);
    if is_short && !is_sealed && (next_at.end > last.bytes() || reaches_out) {
        return None;
    }
    let end = |last_index, wanted| End {
        group_seq: end_seq,
        last_index,
        wanted,
    };
    let at_base = |header: &SegmentHeader| {
        let wanted = wanted(header.base_crc, header.base_term);
        end(header.base_index - 1, wanted)
    };
    let after = |group: &Group| {
        let last_index = group.header.first_index - 1 + u64::from(batches(group));
        end(last_index, wanted(group.last_crc, group.header.term))
    };
    let Some(group) = find(end_seq) else {
        return last.header.as_ref().map(at_base);
    };
    if group.header.kind != GroupKind::Seal {
        return Some(after(group));
    }
    if let Some(group) = find(end_seq - 1) {
        return Some(after(group));
    }
    let rows_bytes = group.header.payload_bytes as usize;
    let rows = decode_rows(&last.load(group.offset + GROUP_HEADER_BYTES as u64, rows_bytes))?;
    match (rows.last(), &last.header) {
        (None, Some(header)) if header.first_group_seq == end_seq => Some(at_base(header)),
        (row, _) => {
            let next_index = row.map_or(group.header.first_index, SealRow::end_index);
            let wanted = Wanted {
                crc: None,
                term: Some(group.header.term),
            };
            Some(end(next_index - 1, wanted))
        }
    }
}

fn wanted(crc: u32, term: u64) -> Wanted {
    Wanted {
        crc: Some(crc),
        term: Some(term),
    }
}
