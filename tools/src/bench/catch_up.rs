//! What the catching up of an empty node showed, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::append::report::{Ground, Latency};

/// Bytes from one place to another.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// How many.
    pub bytes: u64,
    /// In how long.
    pub seconds: f64,
    /// Both together.
    pub bytes_per_second: f64,
}

impl Moved {
    /// So many in so many seconds.
    #[must_use]
    pub fn new(bytes: u64, seconds: f64) -> Self {
        Self {
            bytes,
            seconds,
            bytes_per_second: bytes as f64 / seconds,
        }
    }
}

/// The appends while something was done.
#[derive(Clone, Debug, Serialize)]
pub struct Meanwhile {
    /// What.
    pub what: &'static str,
    /// For how long.
    pub seconds: f64,
    /// Records acknowledged in it.
    pub records: u64,
    /// From when each was due.
    pub latency: Latency,
}

/// Memory of a process, KiB, when the catching up began and when it ended.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// The node.
    pub node_id: u64,
    /// `sender` or `receiver`.
    pub role: &'static str,
    /// Resident, then.
    pub resident_kib: [u64; 2],
    /// The most resident at any time before.
    pub peak_kib: [u64; 2],
}

/// The new node killed and started again.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    /// When it was killed, seconds after the catching up began.
    pub at: f64,
    /// The last index that it said was on its disk before.
    pub durable_before: u64,
    /// The first that it said after.
    pub durable_after: u64,
    /// The log's bytes up to the former.
    pub bytes_before: u64,
    /// The log's bytes up to the latter: what is sent next comes after them.
    pub bytes_after: u64,
    /// From the kill until it answered again: reading its log is most of it.
    pub away_seconds: f64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct CatchUp {
    /// Machine, file system, and what a flush costs.
    pub ground: Ground,
    /// Records per second of the closed loop before; none if the rate was given.
    pub capacity: Option<f64>,
    /// Records due per second.
    pub rate: u32,
    /// Bytes of a record.
    pub record_bytes: u32,
    /// Entries of the leader's log when the node was added.
    pub entries: u64,
    /// A plain copy of the log's files.
    pub copy: Moved,
    /// The log that the leader had when the node was added, until it was on the node's disk.
    pub catch_up: Moved,
    /// The bytes per second of the latter to those of the former.
    pub ratio: f64,
    /// Appends alone, beside the copy, and beside the catching up.
    pub meanwhile: Vec<Meanwhile>,
    /// The p99 of appends beside the catching up to that of appends alone.
    pub p99_ratio: f64,
    /// Of the leader and of the new node.
    pub memory: Vec<Memory>,
    /// What the kills followed from.
    pub seed: Option<u64>,
    /// The kills.
    pub cuts: Vec<Cut>,
    /// Bytes of the log that came to be on the new node's disk over all its lives: with nothing sent again, no more
    /// than the log's; none without kills.
    pub received_bytes: Option<u64>,
}

impl CatchUp {
    /// What each life of the new node brought to its disk, of `bytes` in all. What was on it unseen when it was killed
    /// is nobody's.
    #[must_use]
    pub fn received(cuts: &[Cut], bytes: u64) -> Option<u64> {
        cuts.last()?;
        let (mut received, mut from) = (0, 0);
        for cut in cuts {
            received += cut.bytes_before.saturating_sub(from);
            from = cut.bytes_after;
        }
        Some(received + bytes.saturating_sub(from))
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let (mut text, place) = (String::new(), &self.ground.environment);
        let _ = writeln!(
            text,
            "{}, {} processors, {} ({})",
            place.kernel, place.processors, place.directory, place.file_system
        );
        let of = self.capacity.map(|it| format!(", of {it:.0} at most"));
        let _ = writeln!(
            text,
            "{} records of {} bytes due per second{}",
            self.rate,
            self.record_bytes,
            of.unwrap_or_default()
        );
        for (name, moved) in [("copy", &self.copy), ("catch-up", &self.catch_up)] {
            let _ = writeln!(
                text,
                "{name:<10} {:.1} MiB in {:.2} s, {:.1} MiB/s",
                moved.bytes as f64 / 1_048_576.0,
                moved.seconds,
                moved.bytes_per_second / 1_048_576.0,
            );
        }
        let _ = writeln!(
            text,
            "ratio      {:.2} of the copy (goal 0.8), {} entries",
            self.ratio, self.entries
        );
        for part in &self.meanwhile {
            let _ = writeln!(
                text,
                "{:<10} p50 {:.0} us, p99 {:.0} us, longest {:.0} us of {} appends in {:.1} s",
                part.what,
                part.latency.p50_us,
                part.latency.p99_us,
                part.latency.max_us,
                part.records,
                part.seconds
            );
        }
        let _ = writeln!(text, "p99        {:.2} of alone (goal 2)", self.p99_ratio);
        for memory in &self.memory {
            let _ = writeln!(
                text,
                "node {}, {}: resident {} MiB at first, {} MiB at the end; peak {} MiB before, {} MiB at the end",
                memory.node_id,
                memory.role,
                memory.resident_kib[0] >> 10,
                memory.resident_kib[1] >> 10,
                memory.peak_kib[0] >> 10,
                memory.peak_kib[1] >> 10,
            );
        }
        for cut in &self.cuts {
            let _ = writeln!(
                text,
                "{:8.2} s  killed with {} entries ({:.1} MiB) on disk, {} ({:.1} MiB) when it answered {:.2} s later",
                cut.at,
                cut.durable_before,
                cut.bytes_before as f64 / 1_048_576.0,
                cut.durable_after,
                cut.bytes_after as f64 / 1_048_576.0,
                cut.away_seconds,
            );
        }
        if let (Some(seed), Some(received)) = (self.seed, self.received_bytes) {
            let _ = writeln!(
                text,
                "received   {:.1} MiB over all lives of a log of {:.1} MiB (seed {seed})",
                received as f64 / 1_048_576.0,
                self.catch_up.bytes as f64 / 1_048_576.0,
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes_before: u64, bytes_after: u64) -> Cut {
        Cut {
            at: 0.0,
            durable_before: 0,
            durable_after: 0,
            bytes_before,
            bytes_after,
            away_seconds: 0.0,
        }
    }

    #[test]
    fn what_was_lost_is_received_again_and_what_was_on_disk_is_not() {
        assert_eq!(CatchUp::received(&[], 100), None);
        assert_eq!(CatchUp::received(&[cut(40, 40)], 100), Some(100));
        assert_eq!(CatchUp::received(&[cut(40, 45)], 100), Some(95));
        let lost = [cut(40, 0), cut(60, 60)];
        assert_eq!(CatchUp::received(&lost, 100), Some(140));
    }
}
