//! The body of a data batch: a table of record ends, then the records' bytes.

use bytes::BufMut;

use crate::{BATCH_RECORDS_MAX, BODY_BYTES_MAX, DecodeError, Reader};

/// Bytes of a body that holds `records` records of `payload_bytes` in all.
#[must_use]
pub const fn body_bytes(records: usize, payload_bytes: usize) -> usize {
    records * 4 + payload_bytes
}

/// Builds the body of a data batch record by record.
#[derive(Clone, Debug, Default)]
pub struct BodyBuilder {
    ends: Vec<u32>,
    payload: Vec<u8>,
}

impl BodyBuilder {
    /// An empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a record of `bytes` more still fits the limits of one batch.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        self.ends.len() < BATCH_RECORDS_MAX as usize
            && body_bytes(self.ends.len() + 1, self.payload.len() + bytes)
                <= BODY_BYTES_MAX as usize
    }

    /// Appends a record.
    ///
    /// # Panics
    /// If the record does not [fit](Self::fits).
    pub fn push(&mut self, record: &[u8]) {
        assert!(
            self.fits(record.len()),
            "a batch must stay within its limits"
        );
        self.payload.extend_from_slice(record);
        self.ends.push(self.payload.len() as u32);
    }

    /// Records so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Bytes of the encoded body so far.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        body_bytes(self.ends.len(), self.payload.len())
    }

    /// Bytes of memory that the builder holds.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        body_bytes(self.ends.capacity(), self.payload.capacity())
    }

    /// Appends the encoded body to `out`, which grows as it needs, and empties the builder, keeping its memory.
    pub fn drain_into(&mut self, out: &mut impl BufMut) {
        for end in self.ends.drain(..) {
            out.put_u32_le(end);
        }
        out.put_slice(&self.payload);
        self.payload.clear();
    }
}

/// The records of a data batch's body, checked once, then read without copying.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    ends: &'a [u8],
    payload: &'a [u8],
    next: usize,
    start: usize,
}

impl<'a> Records<'a> {
    /// Reads `body` as `record_count` records.
    ///
    /// # Errors
    /// [`DecodeError`] when the table is cut, runs backwards, or does not end with the body.
    pub fn new(body: &'a [u8], record_count: u32) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("batch body", body);
        let ends = reader.bytes(record_count as usize * 4)?;
        let payload = reader.bytes(reader.remaining())?;
        let mut previous = 0;
        for chunk in ends.chunks_exact(4) {
            let end = end_at(chunk);
            if end < previous || end > payload.len() {
                return Err(DecodeError::Invalid {
                    what: "batch record end",
                    found: end as u64,
                });
            }
            previous = end;
        }
        if previous != payload.len() {
            return Err(DecodeError::Trailing {
                what: "batch body",
                found: (payload.len() - previous) as u64,
            });
        }
        Ok(Self {
            ends,
            payload,
            next: 0,
            start: 0,
        })
    }
}

fn end_at(chunk: &[u8]) -> usize {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(chunk);
    u32::from_le_bytes(bytes) as usize
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let chunk = self.ends.get(self.next * 4..self.next * 4 + 4)?;
        let end = end_at(chunk);
        let record = &self.payload[self.start..end];
        self.next += 1;
        self.start = end;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.len() / 4 - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}
