//! Turns a stream of received bytes into frames, without copying and within a limit.
//!
//! The reader owns the receive buffer. A frame's head and payload are slices of it; when they are
//! dropped, the buffer is used again. Nothing is believed of a header before its checksum, and nothing
//! is allocated on its word alone: the buffer grows with the bytes that really arrived. Heads are
//! checked by [`Frame::decode`], payloads by whoever knows what they are.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use drave_batch::DecodeError;
use drave_batch::wire::{
    ErrorCode, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameHeader, Message, decode_head,
};
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Bytes of a frame, header and all, at most before the handshake is done; the receive buffer is no
/// larger until then.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4096;

/// Spare bytes offered to one read at least and at most; in between it follows the traffic.
const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// A frame that is not complete may have this many times the bytes that arrived of it allocated.
const GROWTH_FACTOR: usize = 16;

/// A buffer above this is given back once this many frames in a row would have done with less.
const RETAIN_BYTES_MAX: usize = 2 * READ_BYTES_MAX;
const RETAIN_FRAMES: u32 = 32;

const _: () = assert!(HANDSHAKE_FRAME_BYTES_MAX > FRAME_HEADER_BYTES);
const _: () = assert!(READ_BYTES_MIN >= HANDSHAKE_FRAME_BYTES_MAX);

/// One message as it arrived. Its `Debug` shows lengths, not contents: payloads are large, and not for
/// logs.
#[derive(Clone, Eq, PartialEq)]
pub struct Frame {
    /// The header, already checked.
    pub header: FrameHeader,
    /// The head's bytes, not yet checked against `header.head_crc`: [`Frame::decode`] does.
    pub head: Bytes,
    /// The payload: batches, each with checksums of its own. A slice of the receive buffer: whoever
    /// keeps a small piece of it for long should copy it, or the whole buffer stays with it.
    pub payload: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// The message in the head.
    ///
    /// # Errors
    /// [`DecodeError`] for another kind, a wrong checksum, or a head that does not decode.
    pub fn decode<M: Message>(&self) -> Result<M, DecodeError> {
        decode_head(&self.header, &self.head)
    }

    /// Bytes of the frame on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.head.len() + self.payload.len()
    }
}

/// Received bytes that make no frame. The stream cannot be read on after it.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame over the limit of this connection.
    #[error("a frame announces {found} bytes, at most {limit} are taken")]
    TooLarge {
        /// Bytes that are taken: of the payload, or of the whole frame before the handshake is done.
        limit: u64,
        /// Bytes that the header announces.
        found: u64,
    },
    /// Bytes that are no frame of this version.
    #[error("not a frame: {0}")]
    Malformed(#[from] DecodeError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame: expected {expected} bytes, found {found}")]
    Cut {
        /// Bytes of the frame, as far as it is known.
        expected: u64,
        /// Bytes of it that arrived.
        found: u64,
    },
}

impl FrameError {
    /// The code to refuse the sender with.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::Malformed(DecodeError::Version { .. }) => ErrorCode::ProtocolVersion,
            Self::Malformed(_) | Self::Cut { .. } => ErrorCode::MalformedFrame,
        }
    }
}

/// Cuts received bytes into frames.
///
/// Put bytes in with [`push`](Self::push), with a read into [`spare`](Self::spare), or by lending the
/// buffer out ([`take_buffer`](Self::take_buffer)); then call [`next_frame`](Self::next_frame) until it
/// gives `None`. After an error every further call gives the same error.
#[derive(Debug)]
pub struct FrameReader {
    /// Received bytes that are not yet part of a frame given out, and room behind them.
    buffer: BytesMut,
    /// Bytes of the allocation behind `buffer`, as far as this reader made it.
    backing_bytes: usize,
    /// The header of the frame being received, checked. Invariant: it begins at `buffer[0]`.
    header: Option<FrameHeader>,
    /// `None` while the handshake is not done.
    payload_bytes_max: Option<u32>,
    read_bytes: usize,
    small_frames: u32,
    failed: Option<FrameError>,
}

impl FrameReader {
    /// A reader for a connection whose handshake is still to come: frames, and the buffer, are at most
    /// [`HANDSHAKE_FRAME_BYTES_MAX`] bytes until [`establish`](Self::establish).
    #[must_use]
    pub fn for_handshake() -> Self {
        Self::with_limit(None)
    }

    /// A reader that takes payloads up to `payload_bytes_max` bytes, and never above the format's own
    /// limit, [`FRAME_PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn new(payload_bytes_max: u32) -> Self {
        Self::with_limit(Some(payload_bytes_max))
    }

    fn with_limit(payload_bytes_max: Option<u32>) -> Self {
        Self {
            buffer: BytesMut::new(),
            backing_bytes: 0,
            header: None,
            payload_bytes_max: payload_bytes_max.map(|bytes| bytes.min(FRAME_PAYLOAD_BYTES_MAX)),
            read_bytes: READ_BYTES_MIN,
            small_frames: 0,
            failed: None,
        }
    }

    /// The handshake is done: from here on payloads up to `payload_bytes_max` bytes are taken. Bytes
    /// that arrived behind the handshake stay in place.
    pub fn establish(&mut self, payload_bytes_max: u32) {
        self.payload_bytes_max = Some(payload_bytes_max.min(FRAME_PAYLOAD_BYTES_MAX));
    }

    /// The buffer with room behind its end, to append received bytes to (`read_buf`). Only append.
    pub fn spare(&mut self) -> &mut BytesMut {
        self.make_room();
        &mut self.buffer
    }

    /// Lends the buffer out with room behind its end, for engines that read into owned buffers. Only
    /// append to it, and give it back with [`restore_buffer`](Self::restore_buffer).
    #[must_use]
    pub fn take_buffer(&mut self) -> BytesMut {
        self.make_room();
        std::mem::take(&mut self.buffer)
    }

    /// Takes the buffer back after a read.
    ///
    /// # Panics
    /// If the buffer had not been lent out: bytes would be lost.
    pub fn restore_buffer(&mut self, buffer: BytesMut) {
        assert!(
            self.buffer.is_empty(),
            "the buffer comes back to where it was taken from"
        );
        self.buffer = buffer;
    }

    /// Tells how many bytes one read gave of the `room` it had, so that the next read's room follows
    /// the traffic. Optional.
    pub fn note_read(&mut self, read: usize, room: usize) {
        if read >= room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }

    /// Copies received bytes in, as many as there is room for, and gives how many those were. Take
    /// complete frames out, then push the rest.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.make_room();
        let room = self.buffer.capacity() - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The next complete frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError`] when what arrived cannot become a frame; the same from then on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let header = match self.header {
            Some(header) => header,
            None if self.buffer.len() < FRAME_HEADER_BYTES => return Ok(None),
            None => match self.check_header() {
                Ok(header) => header,
                Err(error) => {
                    self.failed = Some(error.clone());
                    // Nothing will be read out of it again.
                    self.discard();
                    return Err(error);
                }
            },
        };
        let frame_bytes = FRAME_HEADER_BYTES + header.body_bytes();
        if self.buffer.len() < frame_bytes {
            self.header = Some(header);
            return Ok(None);
        }
        self.header = None;
        self.small_frames = if frame_bytes > READ_BYTES_MAX {
            0
        } else {
            self.small_frames.saturating_add(1)
        };
        let mut payload = self.buffer.split_to(frame_bytes).freeze();
        payload.advance(FRAME_HEADER_BYTES);
        let head = payload.split_to(usize::from(header.head_len));
        assert_eq!(payload.len(), header.payload_len as usize);
        Ok(Some(Frame {
            header,
            head,
            payload,
        }))
    }

    fn check_header(&self) -> Result<FrameHeader, FrameError> {
        let header = match FrameHeader::decode(&self.buffer[..FRAME_HEADER_BYTES]) {
            Ok(header) => header,
            Err(DecodeError::TooLarge { limit, found, .. }) => {
                let limit = self.payload_bytes_max.map_or(limit, u64::from);
                return Err(FrameError::TooLarge { limit, found });
            }
            Err(error) => return Err(error.into()),
        };
        let (limit, found) = match self.payload_bytes_max {
            Some(limit) => (u64::from(limit), u64::from(header.payload_len)),
            None => (
                HANDSHAKE_FRAME_BYTES_MAX as u64,
                (FRAME_HEADER_BYTES + header.body_bytes()) as u64,
            ),
        };
        if found > limit {
            return Err(FrameError::TooLarge { limit, found });
        }
        Ok(header)
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`FrameError::Cut`] when the stream ended inside a frame, or the error met before.
    pub fn finish(&self) -> Result<(), FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        Err(FrameError::Cut {
            expected: self.expected_bytes() as u64,
            found: self.buffer.len() as u64,
        })
    }

    /// Forgets received bytes that are not yet a frame given out. Only for a stream whose rest is of no
    /// interest: what arrives next would be read as the start of a frame.
    pub fn discard(&mut self) {
        self.buffer.clear();
        self.header = None;
    }

    /// Bytes of the frame being received on the wire, as far as its header is known; at least a
    /// header's.
    #[must_use]
    pub fn expected_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.header.as_ref().map_or(0, FrameHeader::body_bytes)
    }

    /// Received bytes that are not yet part of a frame given out.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes held for reception now, used or not; frames given out are not in it.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Sees to at least one spare byte, and to no more than the bytes that arrived justify.
    fn make_room(&mut self) {
        if self.failed.is_some() {
            // Whoever reads on regardless does not fill memory with it.
            self.discard();
        }
        let used = self.buffer.len();
        let spare = self.buffer.capacity() - used;
        if self.payload_bytes_max.is_none() {
            if spare == 0 && used < HANDSHAKE_FRAME_BYTES_MAX {
                self.grow(HANDSHAKE_FRAME_BYTES_MAX - used);
            }
            return;
        }
        let retained_for_nothing = used == 0
            && self.backing_bytes > RETAIN_BYTES_MAX
            && self.small_frames >= RETAIN_FRAMES;
        if retained_for_nothing {
            self.buffer = BytesMut::with_capacity(self.read_bytes);
            self.backing_bytes = self.read_bytes;
            return;
        }
        if spare >= self.read_bytes / 2 {
            return;
        }
        let missing = self.expected_bytes().saturating_sub(used);
        // The rest of a large frame fits: finishing it here spares copying its beginning.
        if used > self.read_bytes && missing > 0 && spare >= missing {
            return;
        }
        let justified = missing.min(used.saturating_mul(GROWTH_FACTOR - 1));
        // Together with a small beginning the size of the old allocation, so that it can be used again.
        let usual = self.read_bytes - used.min(self.read_bytes / 2);
        self.grow(usual.max(justified));
    }

    /// Makes room for exactly `additional` bytes, in the old allocation when all its frames are gone.
    fn grow(&mut self, additional: usize) {
        if self.buffer.try_reclaim(additional) {
            return;
        }
        let capacity = self.buffer.len() + additional;
        let mut buffer = BytesMut::with_capacity(capacity);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
        self.backing_bytes = capacity;
    }
}
