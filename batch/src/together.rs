//! The body of [`crate::EntryKind::Together`]: whole data batches of several logs back to back, in one entry, so that
//! all of them are in the log or none. A reader of one of the logs is given its batch as any other.

use crate::{BatchHeader, BatchRef, Batches, DecodeError, EntryKind, encoded_bytes};

/// Logs that one entry appends to at most.
pub const TOGETHER_LOGS_MAX: usize = 64;

/// Bytes of the body that holds batches with bodies of these lengths.
#[must_use]
pub fn together_bytes(body_lens: impl IntoIterator<Item = u32>) -> usize {
    body_lens.into_iter().map(encoded_bytes).sum()
}

/// The body of these batches. What an entry gives its records is taken from `entry`: index, term, time, group,
/// producer; each batch has a sequence number of the producer's own, from the entry's on.
///
/// # Panics
/// If a body is not the one that its header describes by length.
#[must_use]
pub fn encode_together(entry: &BatchHeader, parts: &[(BatchHeader, &[u8])]) -> Vec<u8> {
    let body_lens = parts.iter().map(|(header, _)| header.body_len);
    let mut out = Vec::with_capacity(together_bytes(body_lens));
    for (position, (part, body)) in parts.iter().enumerate() {
        let header = BatchHeader {
            body_crc: part.body_crc,
            body_len: part.body_len,
            record_count: part.record_count,
            log_id: part.log_id,
            first_seq: part.first_seq,
            prev_crc: 0,
            kind: EntryKind::Data,
            ..of_position(entry, position)
        };
        header.encode_with_body(body, &mut out);
    }
    out
}

/// The batches of an entry's body, with their checksums and against the entry's header.
///
/// # Errors
/// [`DecodeError`] when one is damaged or does not belong into the entry, when a log comes twice, and for none or too
/// many of them.
pub fn decode_together<'a>(
    entry: &BatchHeader,
    body: &'a [u8],
) -> Result<Vec<BatchRef<'a>>, DecodeError> {
    let invalid = |what, found| DecodeError::Invalid { what, found };
    let mut parts: Vec<BatchRef<'a>> = Vec::new();
    for batch in Batches::new(body) {
        let batch = batch?;
        batch.verify_body()?;
        let (header, position) = (&batch.header, parts.len());
        if position >= TOGETHER_LOGS_MAX {
            return Err(DecodeError::TooLarge {
                what: "batches of one entry",
                limit: TOGETHER_LOGS_MAX as u64,
                found: position as u64 + 1,
            });
        }
        if parts.iter().any(|part| part.header.log_id == header.log_id) {
            return Err(invalid("log that comes twice in an entry", header.log_id));
        }
        let expected = BatchHeader {
            body_crc: header.body_crc,
            body_len: header.body_len,
            record_count: header.record_count,
            log_id: header.log_id,
            first_seq: header.first_seq,
            prev_crc: 0,
            kind: EntryKind::Data,
            ..of_position(entry, position)
        };
        if *header != expected {
            return Err(invalid(
                "position of a batch that is not of its entry",
                position as u64,
            ));
        }
        parts.push(batch);
    }
    if parts.is_empty() {
        return Err(invalid("number of batches of one entry", 0));
    }
    Ok(parts)
}

fn of_position(entry: &BatchHeader, position: usize) -> BatchHeader {
    let position = match entry.producer_id {
        0 => 0,
        _ => position as u32,
    };
    BatchHeader {
        producer_seq: entry.producer_seq.saturating_add(position.into()),
        producer_unacked: entry.producer_unacked.saturating_add(position),
        ..entry.clone()
    }
}
