//! Reading files without copying: read-only maps of files that are not written to any more.
//!
//! A map is handed out in slices that keep it alive. The log never uses a file again while a reader of it
//! lives (it is removed instead, which leaves maps valid), and never shortens one, so the bytes under a
//! slice do not change. It decides nothing else.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap};

/// A whole file, mapped.
#[derive(Debug)]
pub(crate) struct Map {
    map: Mmap,
}

impl Map {
    /// Maps `file`, which nobody writes to or shortens while the map lives.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the log writes only to the active segment, which is never mapped, and retires a file for
        // reuse only when no reader of it lives (`machine::space`). Another process is kept out by the lock.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self { map })
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Brings `range` into memory. An error is what would be a fatal signal at the first touch.
    pub(crate) fn populate(&self, range: &Range<usize>) -> io::Result<()> {
        self.map
            .advise_range(Advice::PopulateRead, range.start, range.len())
    }

    /// The bytes of `range`, which was populated.
    pub(crate) fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.map[range.clone()]
    }
}
