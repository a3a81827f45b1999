//! The end of the log in memory: everything not yet durable, and as much of the rest as the limit allows.
//!
//! It knows indexes and bytes, not files or groups' order; the state machine says what may be evicted.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::buffer::Chunk;

/// Empty chunks kept for reuse.
const POOL_CHUNKS_MAX: usize = 2;

#[derive(Debug)]
struct Piece {
    /// Index of the chunk's first batch; the next index if it has none.
    first_index: u64,
    chunk: Chunk,
}

impl Piece {
    fn end_index(&self) -> u64 {
        self.first_index + self.chunk.extents().len() as u64
    }
}

/// Chunks in index order; only the last may be without batches.
#[derive(Debug)]
pub(crate) struct Tail {
    pieces: VecDeque<Piece>,
    pool: Vec<Chunk>,
    chunk_bytes: usize,
    held_bytes: u64,
    next_index: u64,
}

impl Tail {
    pub(crate) fn new(next_index: u64, chunk_bytes: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            pool: Vec::new(),
            chunk_bytes,
            held_bytes: 0,
            next_index,
        }
    }

    /// The lowest index held; the next index if none is.
    pub(crate) fn first_index(&self) -> u64 {
        self.pieces
            .front()
            .map_or(self.next_index, |piece| piece.first_index)
    }

    /// Memory held, bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes that the open group can still take where it is.
    pub(crate) fn room(&self) -> usize {
        self.pieces.back().map_or(0, |piece| piece.chunk.room())
    }

    /// Starts a group with room for at least `bytes` of payload. Memory with less than `worthwhile_bytes`
    /// left is not used any more; if `is_bulk`, the next is in huge pages, which the disk reads faster.
    pub(crate) fn open_group(&mut self, bytes: usize, worthwhile_bytes: usize, is_bulk: bool) {
        if self.room() < bytes.max(worthwhile_bytes.min(self.chunk_bytes / 2)) {
            let needed = crate::format::whole_blocks(crate::format::GROUP_HEADER_BYTES + bytes);
            let chunk = match self.pool.pop() {
                Some(mut chunk) if chunk.capacity() >= needed => {
                    if is_bulk {
                        chunk.move_to_huge_pages();
                    }
                    chunk
                }
                _ => Chunk::new(needed.max(self.chunk_bytes), is_bulk),
            };
            self.held_bytes += chunk.capacity() as u64;
            if self
                .pieces
                .back()
                .is_some_and(|last| last.chunk.extents().is_empty())
            {
                self.drop_last();
            }
            self.pieces.push_back(Piece {
                first_index: self.next_index,
                chunk,
            });
        }
        self.last().open_group();
    }

    /// Appends the batch with the next index.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2], bytes: usize) {
        self.last().push(parts, bytes);
        self.next_index += 1;
    }

    /// Ends the open group.
    pub(crate) fn close_group(&mut self) -> crate::buffer::ClosedGroup {
        self.last().close_group()
    }

    /// Drops the batches from `from` on; the next index is `from`. No group may be open.
    pub(crate) fn truncate(&mut self, from: u64) {
        for piece in self.pieces.iter_mut().rev() {
            let keep = from.saturating_sub(piece.first_index);
            piece
                .chunk
                .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            piece.first_index = piece.first_index.min(from);
        }
        while self
            .pieces
            .back()
            .is_some_and(|last| last.chunk.extents().is_empty())
        {
            self.drop_last();
        }
        self.next_index = from;
    }

    /// Drops everything; the log goes on at `next_index`.
    pub(crate) fn reset(&mut self, next_index: u64) {
        self.truncate(0);
        self.next_index = next_index;
    }

    /// Releases memory from the front while more than `limit` bytes are held, but nothing from `keep_from` on.
    pub(crate) fn evict(&mut self, limit: u64, keep_from: u64) {
        while self.held_bytes > limit && self.pieces.len() > 1 {
            if self.pieces[0].end_index() > keep_from {
                break;
            }
            let piece = self.pieces.pop_front().expect("there is more than one");
            self.release(piece);
        }
    }

    /// Batches from `[lo, hi)` until `bytes_max` is used up, at least one. `lo` must be held.
    pub(crate) fn read(&self, lo: u64, hi: u64, bytes_max: usize) -> (u64, usize, Vec<Bytes>) {
        let mut pieces = Vec::new();
        let (mut next, mut bytes) = (lo, 0);
        let mut position = self
            .position(lo)
            .expect("the caller asked for what is held");
        while next < hi && position < self.pieces.len() {
            let piece = &self.pieces[position];
            let from = (next - piece.first_index) as usize;
            let to = (hi.min(piece.end_index()) - piece.first_index) as usize;
            let taken = piece
                .chunk
                .pieces(from, to, bytes_max, &mut bytes, &mut pieces);
            next += taken as u64;
            if taken < to - from {
                break;
            }
            position += 1;
        }
        (next, bytes, pieces)
    }

    fn position(&self, index: u64) -> Option<usize> {
        let after = self
            .pieces
            .partition_point(|piece| piece.first_index <= index);
        let position = after.checked_sub(1)?;
        (index < self.pieces[position].end_index()).then_some(position)
    }

    fn last(&mut self) -> &mut Chunk {
        &mut self
            .pieces
            .back_mut()
            .expect("a group is opened before it is used")
            .chunk
    }

    fn drop_last(&mut self) {
        if let Some(piece) = self.pieces.pop_back() {
            self.release(piece);
        }
    }

    fn release(&mut self, piece: Piece) {
        self.held_bytes -= piece.chunk.capacity() as u64;
        if self.pool.len() < POOL_CHUNKS_MAX && piece.chunk.capacity() == self.chunk_bytes {
            self.pool.extend(piece.chunk.reclaim());
        }
    }
}

#[cfg(test)]
mod tests;
