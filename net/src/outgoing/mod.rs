//! A connection's outgoing queue: frames in, byte strings to write out, bounded by the caller.
//!
//! Headers, heads and small payload pieces are encoded straight into one growing buffer; large pieces
//! are queued as they are, without a copy. So many frames leave in one vectored write. No I/O here, and
//! no limit of its own: callers look at [`Outgoing::queued_bytes`] before they queue.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use drave_batch::wire::{FRAME_PAYLOAD_BYTES_MAX, Message, encode_frame};

#[cfg(test)]
mod tests;

/// A payload piece of at least this many bytes is queued without a copy.
pub const SHARED_PIECE_BYTES_MIN: usize = 8 << 10;

/// A buffer is closed for writing once it holds this many bytes, so that buffers stay reusable.
const OPEN_BYTES_MAX: usize = 64 << 10;

/// Buffers that wait for their next use, shared by all connections of a thread.
///
/// Holds at most `buffers_max` of them, none above 128 KiB.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    buffers_max: usize,
}

impl BufferPool {
    /// A pool that keeps up to `buffers_max` buffers.
    #[must_use]
    pub fn new(buffers_max: usize) -> Self {
        Self {
            free: Vec::new(),
            buffers_max,
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes the memory behind a written piece back, if nobody else holds it.
    fn recycle(&mut self, mut piece: Bytes) {
        if self.free.len() >= self.buffers_max || !piece.is_unique() {
            return;
        }
        // Not `clear`: that gives some kinds of memory back at once.
        piece.advance(piece.len());
        let buffer = Vec::from(piece);
        if buffer.capacity() > 0 && buffer.capacity() <= 2 * OPEN_BYTES_MAX {
            self.free.push(buffer);
        }
    }
}

/// Frames that wait to be written, as byte strings in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Invariant: no piece is empty, and all of them come before `open`.
    pieces: VecDeque<Bytes>,
    open: Vec<u8>,
    /// Bytes in `pieces` and `open`, and bytes taken by [`Outgoing::take`] and not yet
    /// [`Outgoing::written`].
    queued_bytes: usize,
}

impl Outgoing {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues one frame, and gives its bytes on the wire.
    ///
    /// # Panics
    /// If the payload or the head is over the format's limits: what we send is ours to bound.
    pub fn push<M: Message>(
        &mut self,
        pool: &mut BufferPool,
        group_id: u32,
        request_id: u64,
        message: &M,
        payload: &[Bytes],
    ) -> usize {
        let payload_bytes: usize = payload.iter().map(Bytes::len).sum();
        assert!(
            payload_bytes <= FRAME_PAYLOAD_BYTES_MAX as usize,
            "payload over the frame limit"
        );
        if self.open.capacity() == 0 {
            self.open = pool.take();
        }
        let before = self.open.len();
        encode_frame(&mut self.open, group_id, request_id, message, payload_bytes);
        let frame_bytes = self.open.len() - before + payload_bytes;
        self.queued_bytes += frame_bytes;
        for piece in payload {
            if piece.len() >= SHARED_PIECE_BYTES_MIN {
                self.seal();
                self.pieces.push_back(piece.clone());
                self.open = pool.take();
            } else {
                self.open.extend_from_slice(piece);
            }
        }
        if self.open.len() >= OPEN_BYTES_MAX {
            self.seal();
        }
        frame_bytes
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let sealed = std::mem::take(&mut self.open);
            self.pieces.push_back(Bytes::from(sealed));
        }
    }

    /// Moves the first byte strings to the end of `out`: at most `pieces_max`, and no further one once
    /// `bytes_max` is reached. They still count as queued until [`written`](Self::written).
    pub fn take(&mut self, out: &mut Vec<Bytes>, pieces_max: usize, bytes_max: usize) {
        self.seal();
        let mut bytes = 0;
        while out.len() < pieces_max && bytes < bytes_max {
            let Some(piece) = self.pieces.pop_front() else {
                return;
            };
            bytes += piece.len();
            out.push(piece);
        }
    }

    /// The first `written` bytes of `taken` are with the kernel: drops them from `taken`, and from what
    /// counts as queued.
    ///
    /// # Panics
    /// If more is said to be written than was taken.
    pub fn written(&mut self, pool: &mut BufferPool, taken: &mut Vec<Bytes>, written: usize) {
        let mut rest = written;
        let mut done = 0;
        for piece in taken.iter_mut() {
            if piece.len() > rest {
                piece.advance(rest);
                rest = 0;
                break;
            }
            rest -= piece.len();
            done += 1;
        }
        assert_eq!(rest, 0, "no more can be written than was taken");
        for piece in taken.drain(..done) {
            pool.recycle(piece);
        }
        self.queued_bytes = self
            .queued_bytes
            .checked_sub(written)
            .expect("what is written was queued");
    }

    /// Bytes queued or taken, and not yet written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether everything was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued_bytes == 0
    }

    /// Drops what was not taken yet.
    pub fn clear(&mut self) {
        let dropped = self.pieces.iter().map(Bytes::len).sum::<usize>() + self.open.len();
        self.pieces.clear();
        self.open = Vec::new();
        self.queued_bytes -= dropped;
    }
}
