//! Lays out the bodies of batches, within the limits of a batch.
//!
//! Small bodies share pieces of memory: one allocation for many of them, used again when all its bodies are settled.
//! Knows nothing of logs, sequences or the way to a node.

use bytes::{Bytes, BytesMut};
use drave_batch::{BATCH_RECORDS_MAX, BatchHeader, BodyBuilder, EntryKind, body_bytes};

use crate::ClientError;

/// Bytes of a piece of memory that small bodies share. A body that is kept keeps its piece.
const PIECE_BYTES: usize = 64 << 10;

/// A body above this gets memory of its own.
const SHARED_BODY_BYTES_MAX: usize = PIECE_BYTES / 8;

/// What a batch may be.
pub(crate) struct EncodeLimits {
    pub(crate) record_bytes_max: u32,
    pub(crate) batch_bytes_max: u32,
}

/// A batch's body and as much of its header as does not change.
pub(crate) struct Encoded {
    pub(crate) header: BatchHeader,
    pub(crate) body: Bytes,
}

/// Memory that encoding uses again.
#[derive(Default)]
pub(crate) struct Encoder {
    /// Empty between two batches, and small.
    builder: BodyBuilder,
    /// What is left of the piece that bodies are cut from.
    piece: BytesMut,
}

impl Encoder {
    /// The body built so far; the builder is empty after it.
    fn body(&mut self) -> Bytes {
        let bytes = self.builder.body_bytes();
        if bytes > SHARED_BODY_BYTES_MAX {
            let mut body = Vec::with_capacity(bytes);
            std::mem::take(&mut self.builder).drain_into(&mut body);
            return Bytes::from(body);
        }
        if self.piece.capacity() < bytes {
            // Takes the old piece again if nobody holds any of it.
            self.piece.reserve(PIECE_BYTES);
        }
        self.builder.drain_into(&mut self.piece);
        self.piece.split().freeze()
    }
}

impl EncodeLimits {
    /// The batch of these records.
    pub(crate) fn encode<R: AsRef<[u8]>>(
        &self,
        encoder: &mut Encoder,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Encoded, ClientError> {
        let filled = self.fill(&mut encoder.builder, records);
        if let Err(error) = filled {
            encoder.builder = BodyBuilder::new();
            return Err(error);
        }
        let record_count = encoder.builder.record_count();
        if record_count == 0 {
            return Err(ClientError::Argument {
                what: "a batch has at least one record".to_owned(),
            });
        }
        let body = encoder.body();
        let header = BatchHeader::new(EntryKind::Data, &body, record_count);
        Ok(Encoded { header, body })
    }

    fn fill<R: AsRef<[u8]>>(
        &self,
        builder: &mut BodyBuilder,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(), ClientError> {
        let too_large = |what, limit: u32, found: usize| ClientError::TooLarge {
            what,
            limit: limit.into(),
            found: found as u64,
        };
        let mut payload_bytes = 0;
        for record in records {
            let record = record.as_ref();
            if record.len() > self.record_bytes_max as usize {
                return Err(too_large(
                    "record bytes",
                    self.record_bytes_max,
                    record.len(),
                ));
            }
            let records = builder.record_count() as usize + 1;
            if records > BATCH_RECORDS_MAX as usize {
                return Err(too_large("records in a batch", BATCH_RECORDS_MAX, records));
            }
            payload_bytes += record.len();
            let bytes = body_bytes(records, payload_bytes);
            if bytes > self.batch_bytes_max as usize {
                let limit = self.batch_bytes_max;
                return Err(too_large("batch bytes", limit, bytes));
            }
            builder.push(record);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: EncodeLimits = EncodeLimits {
        record_bytes_max: 1 << 20,
        batch_bytes_max: 1 << 20,
    };

    fn body(encoder: &mut Encoder, records: &[&[u8]]) -> Bytes {
        let encoded = LIMITS.encode(encoder, records).expect("within the limits");
        assert_eq!(encoded.header.record_count as usize, records.len());
        encoded.body
    }

    /// What a body must be, laid out by a builder of its own.
    fn expected(records: &[&[u8]]) -> Vec<u8> {
        let mut builder = BodyBuilder::new();
        for record in records {
            builder.push(record);
        }
        let mut body = Vec::new();
        builder.drain_into(&mut body);
        body
    }

    #[test]
    fn bodies_that_are_kept_stay_what_they_were() {
        let mut encoder = Encoder::default();
        let record = |number: usize| vec![number as u8; number * 37 % (2 * SHARED_BODY_BYTES_MAX)];
        let mut kept = Vec::new();
        for number in 0..500 {
            let records = [&record(number)[..], b"", &record(number + 1)];
            kept.push((body(&mut encoder, &records), expected(&records)));
            // Some are settled early, so that memory is used again under those that stay.
            if number % 3 == 0 {
                kept.swap_remove(number / 7);
            }
        }
        for (found, expected) in kept {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_piece_that_nobody_holds_is_used_again() {
        let mut encoder = Encoder::default();
        let record = [1; 1000];
        let place = |body: &Bytes| body.as_ptr() as usize;
        let begin = place(&body(&mut encoder, &[&record]));
        for _ in 0..10 * PIECE_BYTES / record.len() {
            let found = place(&body(&mut encoder, &[&record]));
            assert!((begin..begin + PIECE_BYTES).contains(&found));
        }
    }

    #[test]
    fn nothing_of_a_refused_batch_is_in_the_next() {
        let mut encoder = Encoder::default();
        let large = vec![0; LIMITS.record_bytes_max as usize + 1];
        let refused = LIMITS.encode(&mut encoder, [&b"small"[..], &large]);
        assert!(matches!(refused, Err(ClientError::TooLarge { .. })));
        assert_eq!(body(&mut encoder, &[b"next"]), expected(&[b"next"]));
    }

    #[test]
    fn large_bodies_are_not_kept_by_the_encoder() {
        let mut encoder = Encoder::default();
        let large = vec![0; 4 * PIECE_BYTES];
        let body = body(&mut encoder, &[&large]);
        assert!(body.is_unique());
        assert_eq!(encoder.builder.body_bytes(), 0);
        assert!(encoder.builder.capacity_bytes() <= PIECE_BYTES);
        assert!(encoder.piece.capacity() <= PIECE_BYTES);
    }
}
