//! What was acknowledged, and whether a log gives it back.

use bytes::Bytes;

/// The least bytes of a record that can be told from all others.
pub const RECORD_BYTES_MIN: usize = 16;

/// The `place`th record of batch `batch`: both numbers if it is long enough for them, then one letter.
#[must_use]
pub fn record(batch: u64, place: u32, bytes: usize) -> Bytes {
    let mut record = vec![b'x'; bytes];
    if bytes >= RECORD_BYTES_MIN {
        record[..8].copy_from_slice(&batch.to_le_bytes());
        record[8..12].copy_from_slice(&place.to_le_bytes());
    }
    Bytes::from(record)
}

/// One acknowledgement.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Acknowledged {
    /// Of its first record.
    pub first_seq: u64,
    /// The batch's number.
    pub batch: u64,
}

/// Compares what a log gives, from its first seq on, with what it acknowledged.
#[derive(Debug)]
pub struct Check {
    wanted: Vec<Acknowledged>,
    next: usize,
    batch_records: u32,
    record_bytes: usize,
    found: u64,
    wrong: u64,
}

impl Check {
    /// Of batches of `batch_records` records of `record_bytes`, acknowledged in any order.
    #[must_use]
    pub fn new(mut wanted: Vec<Acknowledged>, batch_records: u32, record_bytes: usize) -> Self {
        wanted.sort_unstable();
        Self {
            wanted,
            next: 0,
            batch_records,
            record_bytes,
            found: 0,
            wrong: 0,
        }
    }

    /// Takes the next record of the log, in the order of seqs. One that was never acknowledged is no fault: its
    /// acknowledgement may have been lost.
    pub fn take(&mut self, seq: u64, payload: &[u8]) {
        let count = u64::from(self.batch_records);
        while let Some(batch) = self.wanted.get(self.next) {
            if seq < batch.first_seq + count {
                break;
            }
            self.next += 1;
        }
        let Some(batch) = self.wanted.get(self.next) else {
            return;
        };
        let Some(place) = seq.checked_sub(batch.first_seq) else {
            return;
        };
        if record(batch.batch, place as u32, self.record_bytes) == payload {
            self.found += 1;
        } else {
            self.wrong += 1;
        }
    }

    /// How many acknowledged records were not given back, and how many came back as something else.
    #[must_use]
    pub fn missing_and_wrong(&self) -> (u64, u64) {
        let all = self.wanted.len() as u64 * u64::from(self.batch_records);
        (all.saturating_sub(self.found + self.wrong), self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(records: &[(u64, u64, u32)]) -> (u64, u64) {
        let acknowledged = |first_seq, batch| Acknowledged { first_seq, batch };
        let wanted = vec![acknowledged(6, 9), acknowledged(2, 5)];
        let mut check = Check::new(wanted, 2, 20);
        for (seq, batch, place) in records {
            check.take(*seq, &record(*batch, *place, 20));
        }
        check.missing_and_wrong()
    }

    #[test]
    fn a_log_that_gives_all_back_passes_whatever_else_it_holds() {
        let all = [
            (0, 1, 0),
            (1, 1, 1),
            (2, 5, 0),
            (3, 5, 1),
            (4, 7, 0),
            (5, 7, 1),
            (6, 9, 0),
            (7, 9, 1),
            (8, 3, 0),
        ];
        assert_eq!(check(&all), (0, 0));
    }

    #[test]
    fn a_record_left_out_is_missing() {
        assert_eq!(check(&[(2, 5, 0), (6, 9, 0), (7, 9, 1)]), (1, 0));
        assert_eq!(check(&[(2, 5, 0), (3, 5, 1), (6, 9, 0)]), (1, 0));
        assert_eq!(check(&[]), (4, 0));
    }

    #[test]
    fn another_record_in_its_place_is_wrong() {
        let swapped = [(2, 5, 1), (3, 5, 0), (6, 9, 0), (7, 9, 1)];
        assert_eq!(check(&swapped), (0, 2));
        assert_eq!(check(&[(2, 5, 0), (3, 5, 1), (6, 9, 0), (7, 8, 1)]), (0, 1));
    }
}
