//! Aligned memory that is written by one owner, written to disk by the engine and read by anybody, all at
//! the same time and without locks.
//!
//! The rule that makes this sound: **between allocation and reuse every byte is written at most once before
//! it is shared, and never after**. A [`Chunk`] is the only writer. It hands out [`Blocks`] (a whole group,
//! header and padding final) and `Bytes` (whole batches, found through its own extents), and never touches
//! those bytes again. A group's 64 header bytes are filled in last, through the one [`ClosedGroup`] that
//! names them; no extent ever covers them.
//!
//! It decides nothing about groups, files or durability.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, whole_blocks};

/// Only memory of this many bytes, or of whole multiples, can be in pages of this size.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Where memory comes from.
enum Memory {
    Heap(Layout),
    /// A map of its own, for huge pages: the disk takes bytes out of them faster than out of small ones
    /// that are no longer in a cache (ADR 0009).
    Map {
        _map: MmapRaw,
    },
}

/// Memory on a block boundary. It starts without content: zeroing it would touch every page twice.
struct Allocation {
    pointer: NonNull<u8>,
    bytes: usize,
    memory: Memory,
}

// SAFETY: the memory is plain bytes owned by this value; who may write which part is governed by the
// module's rule, under which no byte is written once another thread can see it.
unsafe impl Send for Allocation {}
// SAFETY: as above; shared access through `Arc` only ever reads bytes that are not written any more.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn new(bytes: usize) -> Self {
        let bytes = whole_blocks(bytes.max(1));
        let layout = Layout::from_size_align(bytes, BLOCK_BYTES)
            .expect("chunk sizes are bounded by the options, far below isize::MAX");
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer) else {
            handle_alloc_error(layout)
        };
        Self {
            pointer,
            bytes,
            memory: Memory::Heap(layout),
        }
    }

    /// Memory that the kernel is asked to give in huge pages as it is touched; whether it does is its own
    /// affair. None if it gives no map.
    fn in_huge_pages(bytes: usize) -> Option<Self> {
        // One page more, so that a whole number of them fits on their own boundary; what is before and after
        // is never touched and takes no memory.
        let map = MmapOptions::new()
            .len(bytes + HUGE_PAGE_BYTES)
            .map_anon()
            .ok()?;
        let map = MmapRaw::from(map);
        // A kernel without huge pages refuses; small ones do as well.
        let _ = map.advise(Advice::HugePage);
        let start = map.as_mut_ptr();
        let pointer = NonNull::new(start.wrapping_add(start.align_offset(HUGE_PAGE_BYTES)))?;
        Some(Self {
            pointer,
            bytes,
            memory: Memory::Map { _map: map },
        })
    }

    /// # Safety
    /// `[start, end)` has been written, and nobody may write to it while the slice lives.
    unsafe fn slice(&self, start: usize, end: usize) -> &[u8] {
        assert!(
            start <= end && end <= self.bytes,
            "a range lies within its allocation"
        );
        // SAFETY: in bounds by the assert; initialised and not written to by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().add(start), end - start) }
    }

    /// # Safety
    /// The caller is the only one to access `[start, start + bytes)` during the call.
    unsafe fn write(&self, start: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.bytes && start <= self.bytes - bytes.len());
        // SAFETY: in bounds by the assert; `bytes` is a live shared slice, which cannot overlap a range that
        // nobody else may access.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.pointer.as_ptr().add(start),
                bytes.len(),
            );
        }
    }

    /// # Safety
    /// As for [`Self::write`].
    unsafe fn zero(&self, start: usize, end: usize) {
        assert!(start <= end && end <= self.bytes);
        // SAFETY: in bounds by the assert, exclusive by the caller's promise.
        unsafe { std::ptr::write_bytes(self.pointer.as_ptr().add(start), 0, end - start) };
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Memory::Heap(layout) = self.memory {
            // SAFETY: allocated in `new` with this very layout.
            unsafe { dealloc(self.pointer.as_ptr(), layout) };
        }
    }
}

/// Immutable bytes on a block boundary, whole blocks long: what an engine writes.
#[derive(Clone)]
pub struct Blocks {
    allocation: Arc<Allocation>,
    start: usize,
    end: usize,
}

impl Blocks {
    /// A copy of `bytes`, filled up with zeros to whole blocks.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let allocation = Allocation::new(bytes.len());
        let end = allocation.bytes;
        // SAFETY: the allocation is not shared yet.
        unsafe {
            allocation.write(0, bytes);
            allocation.zero(bytes.len(), end);
        }
        Self {
            allocation: Arc::new(allocation),
            start: 0,
            end,
        }
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `Blocks` are made only of ranges that are written and final.
        unsafe { self.allocation.slice(self.start, self.end) }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({} bytes)", self.end - self.start)
    }
}

/// A run of batches, kept alive for `Bytes::from_owner`.
struct Shared {
    allocation: Arc<Allocation>,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made by `Chunk::pieces` of extents, which are written and final.
        unsafe { self.allocation.slice(self.start, self.end) }
    }
}

/// Where one batch is in its chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    start: u32,
    end: u32,
}

impl Extent {
    /// Bytes of the batch.
    pub(crate) fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// A group whose payload and padding are final and whose header is not written yet.
pub(crate) struct ClosedGroup {
    allocation: Arc<Allocation>,
    start: usize,
    end: usize,
}

impl ClosedGroup {
    /// A group of its own memory around `payload`.
    pub(crate) fn around(payload: &[u8]) -> Self {
        let end = whole_blocks(GROUP_HEADER_BYTES + payload.len());
        let allocation = Allocation::new(end);
        // SAFETY: the allocation is not shared yet.
        unsafe {
            allocation.write(GROUP_HEADER_BYTES, payload);
            allocation.zero(GROUP_HEADER_BYTES + payload.len(), end);
        }
        Self {
            allocation: Arc::new(allocation),
            start: 0,
            end,
        }
    }

    /// Bytes the group takes in the file, header and padding included.
    pub(crate) fn bytes(&self) -> usize {
        self.end - self.start
    }

    /// Writes the header; the group is final.
    pub(crate) fn finish(self, header: &[u8; GROUP_HEADER_BYTES]) -> Blocks {
        // SAFETY: no extent covers a group's header bytes, and this value, which is the only one to name
        // them, is consumed here: nobody reads them before or writes them after.
        unsafe { self.allocation.write(self.start, header) };
        Blocks {
            allocation: self.allocation,
            start: self.start,
            end: self.end,
        }
    }
}

impl fmt::Debug for ClosedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClosedGroup({} bytes)", self.bytes())
    }
}

/// A piece of the log's tail: groups back to back as they go to disk, and where each batch is.
pub(crate) struct Chunk {
    allocation: Arc<Allocation>,
    /// Everything below is written, except the headers of groups not finished yet; everything from here on
    /// belongs to this chunk alone.
    used: usize,
    group_start: Option<usize>,
    extents: Vec<Extent>,
}

impl Chunk {
    /// Memory for at least `bytes` bytes; in huge pages if `is_bulk`, where that may be. The first touch of one
    /// takes 240 us and more, of a small page 2 us, so they are for where much is written.
    pub(crate) fn new(bytes: usize, is_bulk: bool) -> Self {
        assert!(u32::try_from(bytes).is_ok(), "extents hold 32-bit offsets");
        let huge = (is_bulk && bytes.is_multiple_of(HUGE_PAGE_BYTES))
            .then(|| Allocation::in_huge_pages(bytes))
            .flatten();
        Self {
            allocation: Arc::new(huge.unwrap_or_else(|| Allocation::new(bytes))),
            used: 0,
            group_start: None,
            extents: Vec::new(),
        }
    }

    /// The same memory empty again, if nobody else holds a part of it.
    pub(crate) fn reclaim(mut self) -> Option<Self> {
        Arc::get_mut(&mut self.allocation)?;
        self.used = 0;
        self.group_start = None;
        self.extents.clear();
        Some(self)
    }

    /// Moves it, empty, to huge pages where it can be in them and is not. Its lists stay as long as they are, so
    /// nothing is taken from the heap.
    pub(crate) fn move_to_huge_pages(&mut self) {
        assert!(self.used == 0, "what is written stays where it is");
        let bytes = self.capacity();
        if let Some(allocation) = Arc::get_mut(&mut self.allocation)
            && matches!(allocation.memory, Memory::Heap(_))
            && bytes.is_multiple_of(HUGE_PAGE_BYTES)
            && let Some(huge) = Allocation::in_huge_pages(bytes)
        {
            *allocation = huge;
        }
    }

    /// Bytes of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.allocation.bytes
    }

    /// Bytes of payload that the open group, or else a new one, can still take here.
    pub(crate) fn room(&self) -> usize {
        match self.group_start {
            Some(_) => self.capacity() - self.used,
            None => self
                .capacity()
                .saturating_sub(self.used + GROUP_HEADER_BYTES),
        }
    }

    /// Starts a group; its header's bytes are left for later.
    pub(crate) fn open_group(&mut self) {
        assert!(self.group_start.is_none(), "one group is open at a time");
        assert!(
            self.used.is_multiple_of(BLOCK_BYTES)
                && self.used + GROUP_HEADER_BYTES <= self.capacity()
        );
        self.group_start = Some(self.used);
        self.used += GROUP_HEADER_BYTES;
    }

    /// Appends one batch given as parts, filled up with zeros to `bytes`, to the open group.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2], bytes: usize) {
        assert!(self.group_start.is_some(), "batches go into a group");
        let [head, body] = parts;
        let written = head.len() + body.len();
        assert!(
            written <= bytes && bytes <= self.capacity() - self.used,
            "room is checked before"
        );
        let start = self.used;
        // SAFETY: bytes from `used` on were never shared, and `&mut self` makes this the only writer.
        unsafe {
            self.allocation.write(start, head);
            self.allocation.write(start + head.len(), body);
            self.allocation.zero(start + written, start + bytes);
        }
        self.used += bytes;
        self.extents.push(Extent {
            start: start as u32,
            end: self.used as u32,
        });
    }

    /// Ends the open group: pads it to whole blocks.
    pub(crate) fn close_group(&mut self) -> ClosedGroup {
        let start = self.group_start.take().expect("a group is open");
        let end = whole_blocks(self.used);
        // SAFETY: bytes from `used` on were never shared; the capacity is whole blocks.
        unsafe { self.allocation.zero(self.used, end) };
        self.used = end;
        ClosedGroup {
            allocation: Arc::clone(&self.allocation),
            start,
            end,
        }
    }

    /// The batches, in index order.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Forgets all batches but the first `count`. Their bytes stay as they are, for whoever reads them.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.extents.truncate(count);
    }

    /// Appends batches from `[from, to)` (positions in this chunk) to `pieces` until `bytes_max` is used up,
    /// at least one if `bytes` is 0. Returns how many batches were taken, and adds to `bytes`.
    pub(crate) fn pieces(
        &self,
        from: usize,
        to: usize,
        bytes_max: usize,
        bytes: &mut usize,
        pieces: &mut Vec<Bytes>,
    ) -> usize {
        let mut taken = 0;
        let mut run: Option<(u32, u32)> = None;
        for extent in &self.extents[from..to] {
            if *bytes > 0 && *bytes + extent.bytes() > bytes_max {
                break;
            }
            *bytes += extent.bytes();
            taken += 1;
            match &mut run {
                Some((_, end)) if *end == extent.start => *end = extent.end,
                _ => {
                    pieces.extend(run.map(|run| self.share(run)));
                    run = Some((extent.start, extent.end));
                }
            }
        }
        pieces.extend(run.map(|run| self.share(run)));
        taken
    }

    /// `run` must be made of adjacent extents, so that it holds no group header.
    fn share(&self, run: (u32, u32)) -> Bytes {
        Bytes::from_owner(Shared {
            allocation: Arc::clone(&self.allocation),
            start: run.0 as usize,
            end: run.1 as usize,
        })
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Chunk({} batches, {} bytes)",
            self.extents.len(),
            self.used
        )
    }
}

#[cfg(test)]
mod tests;
