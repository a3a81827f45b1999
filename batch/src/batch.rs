//! Views over encoded batches: one, or several back to back.

use crate::{BATCH_HEADER_BYTES, BatchHeader, DecodeError, Records, checksum};

/// One encoded batch, its header decoded and checked. The body's checksum is checked on demand, since a
/// batch that was checked on arrival need not be checked again in the same process.
#[derive(Clone, Debug)]
pub struct BatchRef<'a> {
    /// The decoded header.
    pub header: BatchHeader,
    /// The header's own checksum, which the next entry's `prev_crc` names.
    pub header_crc: u32,
    encoded: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// The batch at the start of `bytes`, which may hold more behind it.
    ///
    /// # Errors
    /// [`DecodeError`] when the header is damaged, or header, body and padding are not all there.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, header_crc) = BatchHeader::decode(bytes)?;
        let expected = header.encoded_bytes();
        let Some(encoded) = bytes.get(..expected) else {
            return Err(DecodeError::Truncated {
                what: "batch",
                expected: expected as u64,
                found: bytes.len() as u64,
            });
        };
        Ok(Self {
            header,
            header_crc,
            encoded,
        })
    }

    /// The whole batch as it is on disk and wire.
    #[must_use]
    pub fn encoded(&self) -> &'a [u8] {
        self.encoded
    }

    /// The body, without padding.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.encoded[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + self.header.body_len as usize]
    }

    /// Checks the body against its checksum, and the padding for being zero.
    ///
    /// # Errors
    /// [`DecodeError::Checksum`], [`DecodeError::Invalid`]
    pub fn verify_body(&self) -> Result<(), DecodeError> {
        let found = checksum(self.body());
        if found != self.header.body_crc {
            return Err(DecodeError::Checksum {
                what: "batch body",
                expected: self.header.body_crc,
                found,
            });
        }
        let padding = &self.encoded[BATCH_HEADER_BYTES + self.header.body_len as usize..];
        match padding.iter().find(|byte| **byte != 0) {
            None => Ok(()),
            Some(byte) => Err(DecodeError::Invalid {
                what: "batch padding",
                found: u64::from(*byte),
            }),
        }
    }

    /// The records of a data batch.
    ///
    /// # Errors
    /// [`DecodeError`] when the body is not what `record_count` says.
    pub fn records(&self) -> Result<Records<'a>, DecodeError> {
        Records::new(self.body(), self.header.record_count)
    }
}

/// Encoded batches back to back. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// The batches that fill `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchRef<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchRef::decode(self.rest);
        match &batch {
            Ok(batch) => self.rest = &self.rest[batch.encoded.len()..],
            Err(_) => self.rest = &[],
        }
        Some(batch)
    }
}
