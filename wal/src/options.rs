//! What a caller may set.

use std::path::PathBuf;

use crate::format::{BLOCK_BYTES, META_VALUE_BYTES_MAX};

/// Which engine does the writing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum EngineChoice {
    /// io_uring where the system allows it, else [`EngineChoice::Posix`].
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// `pwrite` on threads: past the page cache where the file system takes it, else with `fdatasync`.
    Posix,
}

/// Limits and choices of a log. All limits are bounds on memory or disk that the log keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a new segment; rounded down to whole 4 KiB blocks, at least 32 KiB, at most 1 GiB.
    pub segment_bytes: u64,
    /// A group is closed when it reaches this many bytes; one larger batch makes a larger group.
    pub group_bytes_max: u32,
    /// Groups between the oldest not durable one and the newest submitted one, both included.
    pub groups_in_flight_max: u32,
    /// A further group is started while others are in flight only when this many bytes wait.
    pub extra_group_bytes_min: u32,
    /// Bytes of batches appended and not yet durable, above which `append` says `Full`.
    pub queue_bytes_max: u64,
    /// Bytes of batches kept in memory for readers once they are durable.
    pub tail_bytes_max: u64,
    /// Prepared segment files to keep ready; at least 2, since on a full disk the last one is kept back for
    /// truncations. Files of retired segments are kept up to twice as many while the disk has room.
    pub spares: u32,
    /// Which store the log belongs to; a directory of another one is refused.
    pub store_id: u128,
    /// The engine of [`crate::Wal::open`].
    pub engine: EngineChoice,
    /// Fill new segments with zeros ahead of use, so that writes change no metadata and meet no full disk.
    /// Off, space is only reserved where the file system can: quick to make, slower to write.
    pub prewrite: bool,
    /// Read and check every batch of every segment at open. Off, sealed segments are trusted by their seal
    /// and checked when they are read; the last segment is always checked whole.
    pub verify_on_open: bool,
    /// After this many microseconds without writing, the durability of the last group is recorded by an
    /// idle group (see `docs/format-wal.md`). 0 turns it off.
    pub idle_us: u64,
    /// A fault switch for tests: what this file says is done to every flush (`docs/torture.md`). Only the
    /// posix engine has it, which is then used whatever `engine` says.
    pub fault_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            group_bytes_max: 512 << 10,
            groups_in_flight_max: 4,
            extra_group_bytes_min: 64 << 10,
            queue_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            spares: 2,
            store_id: 0,
            engine: EngineChoice::Auto,
            prewrite: true,
            verify_on_open: false,
            idle_us: 5_000,
            fault_file: None,
        }
    }
}

impl Options {
    /// The bytes of the caller's meta value at most.
    pub const META_VALUE_BYTES_MAX: usize = META_VALUE_BYTES_MAX;

    /// The same with every field within its limits.
    pub(crate) fn within_limits(mut self) -> Self {
        let block = BLOCK_BYTES as u64;
        self.segment_bytes = self.segment_bytes.clamp(8 * block, 1 << 30) / block * block;
        self.group_bytes_max = self.group_bytes_max.clamp(BLOCK_BYTES as u32, 16 << 20);
        self.groups_in_flight_max = self.groups_in_flight_max.clamp(1, 32);
        self.spares = self.spares.clamp(2, 64);
        self
    }
}
