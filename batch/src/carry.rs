//! The body of [`crate::EntryKind::CarryOver`]: data batches of earlier entries, byte for byte and back to back, so
//! that the entries in which they were may be deleted. They keep the index, term, time and producer that they had.

use crate::{BatchHeader, BatchRef, Batches, DecodeError, EntryKind};

/// The batches of an entry's body, with their checksums and against the entry's header: ascending by log, and within
/// a log each where the one before it ends.
///
/// # Errors
/// [`DecodeError`] when one is damaged, is not older than the entry or of another group, or does not follow the one
/// before it, and when there is none.
pub fn decode_carried<'a>(
    entry: &BatchHeader,
    body: &'a [u8],
) -> Result<Vec<BatchRef<'a>>, DecodeError> {
    let invalid = |what, found| DecodeError::Invalid { what, found };
    let mut carried: Vec<BatchRef<'a>> = Vec::new();
    for batch in Batches::new(body) {
        let batch = batch?;
        batch.verify_body()?;
        let header = &batch.header;
        let is_older = (1..entry.index).contains(&header.index)
            && (1..=entry.term).contains(&header.term)
            && header.append_time_us <= entry.append_time_us
            && header.group_id == entry.group_id;
        if header.kind != EntryKind::Data || header.log_id == 0 || !is_older {
            return Err(invalid("index of a batch carried over", header.index));
        }
        let follows = carried.last().is_none_or(|last| {
            let last = &last.header;
            match header.log_id == last.log_id {
                true => header.first_seq == last.next_seq() && header.index > last.index,
                false => header.log_id > last.log_id,
            }
        });
        if !follows {
            return Err(invalid(
                "first seq of a batch carried over",
                header.first_seq,
            ));
        }
        carried.push(batch);
    }
    if carried.is_empty() {
        return Err(invalid("number of batches carried over", 0));
    }
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(log_id: u64, first_seq: u64, index: u64) -> Vec<u8> {
        let body = [7_u8; 40];
        let header = BatchHeader {
            log_id,
            first_seq,
            index,
            term: 2,
            append_time_us: 100 + index,
            group_id: 1,
            ..BatchHeader::new(EntryKind::Data, &body, 3)
        };
        let mut out = Vec::new();
        header.encode_with_body(&body, &mut out);
        out
    }

    fn entry() -> BatchHeader {
        BatchHeader {
            index: 50,
            term: 3,
            append_time_us: 1_000,
            group_id: 1,
            ..BatchHeader::new(EntryKind::CarryOver, &[], 0)
        }
    }

    #[test]
    fn batches_come_back_in_order_and_nothing_else_is_taken() {
        let good = [batch(4, 6, 9), batch(4, 9, 12), batch(6, 0, 3)].concat();
        let found = decode_carried(&entry(), &good).unwrap();
        let seqs: Vec<(u64, u64)> = found
            .iter()
            .map(|batch| (batch.header.log_id, batch.header.first_seq))
            .collect();
        assert_eq!(seqs, [(4, 6), (4, 9), (6, 0)]);
        let bad = [
            vec![],
            [batch(4, 6, 9), batch(4, 10, 12)].concat(),
            [batch(4, 6, 12), batch(4, 9, 9)].concat(),
            [batch(6, 0, 9), batch(4, 0, 12)].concat(),
            batch(4, 0, 50),
            batch(0, 0, 5),
            good[..good.len() - 1].to_vec(),
        ];
        for (case, body) in bad.iter().enumerate() {
            assert!(decode_carried(&entry(), body).is_err(), "case {case}");
        }
        for at in (0..good.len()).step_by(5) {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            let taken = decode_carried(&entry(), &damaged);
            // Padding behind a body has no checksum of its own; the entry's has.
            assert!(
                taken.is_err() || damaged[at] == 1,
                "byte {at} was not looked at"
            );
        }
        let others = [
            BatchHeader { term: 1, ..entry() },
            BatchHeader {
                group_id: 2,
                ..entry()
            },
            BatchHeader {
                append_time_us: 105,
                ..entry()
            },
        ];
        for other in others {
            assert!(decode_carried(&other, &good).is_err());
        }
    }
}
