//! What the state machine asks of storage: numbered operations out, completions back.
//!
//! An [`Engine`] moves bytes. It knows no index, no group and no order: the state machine starts an
//! operation only when everything it must come after has completed. Three engines: `uring` and `posix` over
//! real files, `memory` over a simulated disk.

pub(crate) mod direct;
pub(crate) mod disk;
pub(crate) mod fault;
mod filling;
pub(crate) mod memory;
pub(crate) mod posix;
pub(crate) mod steps;
pub(crate) mod uring;
pub(crate) mod worker;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::Blocks;
use crate::format::{FileName, SegmentName};

/// A file that is written to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// The meta file.
    Meta,
    /// A segment that was opened or activated.
    Segment(SegmentName),
}

impl Target {
    /// The file's name.
    #[must_use]
    pub fn file_name(self) -> FileName {
        match self {
            Self::Meta => FileName::Meta,
            Self::Segment(name) => FileName::Segment(name),
        }
    }
}

/// One thing to do. Completed exactly once, unless the engine is dropped before.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Write; on completion the bytes are on stable storage. Several may run at once, over ranges that do
    /// not overlap, and complete in any order.
    Write {
        /// The file.
        target: Target,
        /// Where, bytes, on a block boundary.
        offset: u64,
        /// What.
        blocks: Blocks,
    },
    /// Make a spare file of `bytes` bytes. [`io::ErrorKind::StorageFull`] leaves nothing behind.
    Prepare {
        /// The spare's number.
        spare: u64,
        /// Its length.
        bytes: u64,
        /// Whether to fill it with zeros rather than to reserve it.
        prewrite: bool,
    },
    /// Write into a spare; durable when it is activated, and not before.
    Fill {
        /// The spare's number.
        spare: u64,
        /// Where, bytes, on a block boundary.
        offset: u64,
        /// What.
        blocks: Blocks,
    },
    /// Turn a spare into a segment, in place of one of that name: header, flush, rename, directory flush; then
    /// it can be written to. [`io::ErrorKind::StorageFull`] (no room for the longer name) leaves the spare, and
    /// can be tried again.
    Activate {
        /// The spare's number.
        spare: u64,
        /// The segment.
        segment: SegmentName,
        /// Its first block.
        header: Blocks,
    },
    /// Open an existing segment for writing.
    Open {
        /// The segment.
        segment: SegmentName,
    },
    /// Make the meta file: temporary name, flush, rename, directory flush; then it can be written to.
    CreateMeta {
        /// The file's content.
        blocks: Blocks,
    },
    /// Open the existing meta file for writing.
    OpenMeta,
    /// Turn a segment into a spare, or remove it; then flush the directory. [`io::ErrorKind::StorageFull`]
    /// leaves the segment.
    Retire {
        /// The segment.
        segment: SegmentName,
        /// The spare's number, or none to remove the file.
        spare: Option<u64>,
    },
    /// Remove a file and flush the directory.
    Remove {
        /// The file.
        file: FileName,
    },
}

impl Operation {
    /// A word for errors.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Prepare { .. } => "preparation",
            Self::Fill { .. } => "filling",
            Self::Activate { .. } => "activation",
            Self::Open { .. } | Self::OpenMeta => "opening",
            Self::CreateMeta { .. } => "creation",
            Self::Retire { .. } => "retirement",
            Self::Remove { .. } => "removal",
        }
    }

    /// The file concerned, for errors.
    #[must_use]
    pub fn file_name(&self) -> FileName {
        match self {
            Self::Write { target, .. } => target.file_name(),
            Self::Prepare { spare, .. } | Self::Fill { spare, .. } => FileName::Spare(*spare),
            Self::Activate { segment, .. }
            | Self::Open { segment }
            | Self::Retire { segment, .. } => FileName::Segment(*segment),
            Self::CreateMeta { .. } | Self::OpenMeta => FileName::Meta,
            Self::Remove { file } => *file,
        }
    }

    /// Where in the file, for errors.
    #[must_use]
    pub fn offset(&self) -> u64 {
        if let Self::Write { offset, .. } | Self::Fill { offset, .. } = self {
            *offset
        } else {
            0
        }
    }
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The number it was started under.
    pub number: u64,
    /// How it ended.
    pub result: io::Result<()>,
}

/// A file to read from, without blocking its owner: opened on the owner's thread, read on any.
pub trait Source: Send + Sync {
    /// Bytes of the file when it was opened.
    fn bytes(&self) -> u64;

    /// Reads `[offset, offset + bytes)`. May block.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] beyond the file's end; what the system says otherwise.
    fn load(self: Arc<Self>, offset: u64, bytes: usize) -> io::Result<Bytes>;
}

/// Storage as the log uses it. One owner; no method blocks except where it says so.
pub trait Engine: Send {
    /// `io_uring`, `posix` or `memory`.
    fn name(&self) -> &'static str;

    /// Why this engine, and how it makes writes durable, in one line.
    fn reason(&self) -> &str;

    /// Names and lengths of the directory's files that are the log's. Blocks.
    ///
    /// # Errors
    /// What the system says.
    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>>;

    /// Makes what the files hold, and the directory, durable before they are read. Blocks.
    ///
    /// # Errors
    /// What the system says.
    fn settle(&mut self, files: &[FileName]) -> io::Result<()>;

    /// Opens a file for reading; `mapped` only for a file that is not written to any more.
    ///
    /// # Errors
    /// What the system says.
    fn source(&self, file: FileName, mapped: bool) -> io::Result<Arc<dyn Source>>;

    /// Opens a file for reading what its medium holds, past any cache where that can be.
    ///
    /// # Errors
    /// What the system says.
    fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>>;

    /// Takes an operation on; [`Engine::submit`] sets it going.
    fn start(&mut self, number: u64, operation: Operation);

    /// Sets going what was taken on.
    fn submit(&mut self);

    /// Appends what has completed since the last call.
    fn poll(&mut self, completions: &mut Vec<Completion>);

    /// Blocks until [`Engine::poll`] has something, at the longest until [`Engine::now_us`] is `until_us`; returns at
    /// once if nothing is under way and no time is given. May return earlier: the caller polls and comes back.
    fn wait(&mut self, until_us: Option<u64>);

    /// Readable when [`Engine::poll`] has something.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Microseconds of a clock that never goes back.
    fn now_us(&self) -> u64;

    /// A number that no earlier use of a segment file had.
    fn random_u64(&mut self) -> u64;
}
