//! Logs of real nodes with bits flipped in known entries, and what has to be said of it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use drave_batch::BatchRef;

use super::TestCluster;
use super::disk::{segments, wait_idle};

/// Lines of the log that the tests damage, one batch for each: whether they are padded singly (20 KiB) or in large
/// groups, the last of them are in the third segment of 8 MiB.
pub(crate) const LINES: usize = 1_200;
pub(crate) const LINE_BYTES: usize = 16 << 10;

pub(crate) fn marker(line: usize) -> String {
    format!("line {line:06} ")
}

pub(crate) fn lines() -> Vec<u8> {
    let mut text = Vec::with_capacity(LINES * LINE_BYTES);
    for line in 0..LINES {
        text.extend_from_slice(marker(line).as_bytes());
        text.resize((line + 1) * LINE_BYTES - 1, b'a' + (line % 26) as u8);
        text.push(b'\n');
    }
    text
}

pub(crate) fn filled(node_count: u64, settings: &str) -> (TestCluster, Vec<u8>) {
    let mut test = TestCluster::start_with(node_count, settings);
    let lines = lines();
    let arguments = ["append", "a", "--create", "--summary", "--batch", "1"];
    test.run(&arguments, &lines).assert_code(0);
    test.caught_up();
    for node_id in test.cluster.node_ids() {
        wait_idle(&test.cluster.data_dir(node_id));
    }
    (test, lines)
}

/// Where a line is on a node's disk.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) is_last_segment: bool,
}

impl Place {
    pub(crate) fn find(test: &TestCluster, node_id: u64, line: usize) -> Self {
        let segments = segments(&test.cluster.data_dir(node_id));
        assert!(segments.len() > 1, "{segments:?}");
        for (at, path) in segments.iter().enumerate() {
            let bytes = fs::read(path).unwrap();
            let marker = marker(line);
            // In the first segment no line begins before the bytes of those before it.
            let from = if at == 0 { line * LINE_BYTES } else { 0 };
            let mut windows = bytes.get(from..).unwrap_or_default().windows(marker.len());
            let Some(found) = windows.position(|window| window == marker.as_bytes()) else {
                continue;
            };
            let offset = from + found;
            // The batch of one record begins a header and the record's length before it.
            let batch = (0..16).find_map(|length| {
                let start = offset.checked_sub(drave_batch::BATCH_HEADER_BYTES + length)?;
                BatchRef::decode(&bytes[start..]).ok()
            });
            return Self {
                path: path.clone(),
                offset: offset as u64 + 1_000,
                index: batch.unwrap().header.index,
                is_last_segment: at == segments.len() - 1,
            };
        }
        panic!("line {line} is on no disk of node {node_id}");
    }

    pub(crate) fn flip(&self) {
        let mut byte = [0];
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .unwrap();
        file.read_exact_at(&mut byte, self.offset).unwrap();
        byte[0] ^= 0x04;
        file.write_all_at(&byte, self.offset).unwrap();
        file.sync_all().unwrap();
    }

    pub(crate) fn file(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }
}

pub(crate) fn flip(test: &TestCluster, node_id: u64, line: usize) -> Place {
    let place = Place::find(test, node_id, line);
    place.flip();
    place
}

/// The ranges `[lo, hi)` that a node's log names as lost there.
pub(crate) fn lost_ranges(log: &str) -> Vec<(u64, u64)> {
    let lost = log.lines().filter(|line| line.contains("are lost here"));
    let number = |line: &str, key: &str| {
        let at = line.find(key).unwrap() + key.len();
        let digits = line[at..].chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap()
    };
    lost.map(|line| (number(line, "lo="), number(line, "hi=")))
        .collect()
}

/// The log names each place by file, offset and a range that holds the entry, and says that it is repaired.
#[track_caller]
pub(crate) fn assert_named_and_repaired(log: &str, places: &[&Place]) {
    let ranges = lost_ranges(log);
    for place in places {
        let named = |line: &str| line.contains(place.file()) && line.contains("offset=");
        assert!(log.lines().any(named), "{} in\n{log}", place.file());
        let range = ranges
            .iter()
            .find(|(lo, hi)| (*lo..*hi).contains(&place.index));
        let range = range.unwrap_or_else(|| panic!("entry {} in {ranges:?}", place.index));
        assert_eq!(
            range.1 - range.0,
            1,
            "no more than a batch is lost: {range:?}"
        );
    }
    assert!(log.contains("the log is repaired"), "{log}");
}

#[track_caller]
pub(crate) fn assert_all_hold(test: &mut TestCluster, lines: &[u8]) {
    test.caught_up();
    for (held, node_id) in test.read_each_node("a").into_iter().zip(1..) {
        assert!(held == lines, "node {node_id} differs from the input");
    }
}
