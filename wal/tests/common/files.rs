//! What is in a simulated disk's directory and in a segment's bytes.

use drave_wal::{BLOCK_BYTES, FileName, MemoryDisk, SegmentName};

/// The segments, in order.
pub fn segments(disk: &MemoryDisk) -> Vec<SegmentName> {
    let names = disk.list().into_iter().filter_map(|(name, _)| match name {
        FileName::Segment(name) => Some(name),
        _ => None,
    });
    let mut segments: Vec<SegmentName> = names.collect();
    segments.sort_unstable();
    segments
}

/// The one segment of a log that has no other.
#[track_caller]
pub fn only_segment(disk: &MemoryDisk) -> FileName {
    let [only] = segments(disk)[..] else {
        panic!("{:?}", segments(disk));
    };
    FileName::Segment(only)
}

/// Where the groups of a segment's content begin.
pub fn groups(content: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let starts = (0..content.len()).step_by(BLOCK_BYTES);
    starts.filter(|at| content[*at..].starts_with(b"GRUP"))
}
