//! A node's files, looked at and copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{LIMIT, path_text};

/// What the writes of a log are aligned to.
pub(crate) const BLOCK: usize = 4096;

/// Where a group's header has its number and its kind (`docs/format-wal.md`).
const GROUP_SEQ: usize = 8;
const GROUP_KIND: usize = 60;
const IDLE: u8 = 4;

/// The log's segments, in order.
pub(crate) fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir.join("group-0")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut segments: Vec<PathBuf> = paths
        .filter(|path| path_text(path).contains("/seg-"))
        .collect();
    segments.sort();
    segments
}

/// The offsets of a segment's blocks that begin with a group's magic.
pub(crate) fn groups(bytes: &[u8]) -> Vec<usize> {
    let blocks = bytes.chunks(BLOCK).enumerate();
    let begins = blocks.filter(|(_, block)| block.starts_with(b"GRUP"));
    begins.map(|(number, _)| number * BLOCK).collect()
}

fn ends_idle(data_dir: &Path) -> bool {
    let bytes = fs::read(segments(data_dir).pop().unwrap()).unwrap();
    let group_seq = |at: &usize| {
        let number = &bytes[at + GROUP_SEQ..at + GROUP_SEQ + 8];
        u64::from_le_bytes(number.try_into().unwrap())
    };
    // A recycled segment has old groups behind its new ones.
    let last = groups(&bytes).into_iter().max_by_key(group_seq);
    last.is_some_and(|at| bytes[at + GROUP_KIND] == IDLE)
}

/// Waits until a node that gets no more appends has recorded that all of its log is durable: only then is every
/// damage to it told apart from what a crash leaves.
#[track_caller]
pub(crate) fn wait_idle(data_dir: &Path) {
    let deadline = Instant::now() + LIMIT;
    while !ends_idle(data_dir) {
        let late = Instant::now() >= deadline;
        assert!(!late, "{} gets no idle group", data_dir.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Copies a directory and what is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
