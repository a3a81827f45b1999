//! Compares what a node holds with what was appended and acknowledged. Pure.

use std::collections::HashMap;

use bytes::Bytes;

/// What was appended: the records in order, and the seq that each was acknowledged at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended<'a> {
    /// The records' bytes.
    pub records: &'a [Bytes],
    /// Of each record the acknowledged seq; `None` when it was not acknowledged.
    pub seqs: &'a [Option<u64>],
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    /// Records that the node holds.
    pub held: u64,
    /// Acknowledged records that are not at their seq, byte for byte.
    pub lost: u64,
    /// Records held more often than they were appended.
    pub duplicated: u64,
    /// Records held that were never appended, or not by us.
    pub foreign: u64,
}

impl Findings {
    /// Whether the promise was kept.
    #[must_use]
    pub(super) fn good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.foreign == 0
    }
}

/// Compares what one node holds, from seq 0 on, with what was appended.
///
/// # Panics
/// If `appended` has not one seq for each record.
#[must_use]
pub(super) fn compare(appended: Appended<'_>, held: &[Bytes]) -> Findings {
    assert_eq!(
        appended.records.len(),
        appended.seqs.len(),
        "one seq for each record"
    );
    let mut findings = Findings {
        held: held.len() as u64,
        ..Findings::default()
    };
    let mut taken = vec![false; held.len()];
    for (record, seq) in appended.records.iter().zip(appended.seqs) {
        let Some(seq) = seq else { continue };
        // Two records acknowledged at one seq cannot both be there.
        let place = usize::try_from(*seq).ok().filter(|place| {
            held.get(*place) == Some(record) && !std::mem::replace(&mut taken[*place], true)
        });
        findings.lost += u64::from(place.is_none());
    }
    let mut left: HashMap<&Bytes, u64> = HashMap::new();
    for record in appended.records {
        *left.entry(record).or_default() += 1;
    }
    for record in held {
        match left.get_mut(record) {
            None => findings.foreign += 1,
            Some(0) => findings.duplicated += 1,
            Some(count) => *count -= 1,
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(texts: &[&'static str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    fn check(records: &[&'static str], seqs: &[Option<u64>], held: &[&'static str]) -> Findings {
        compare(
            Appended {
                records: &bytes(records),
                seqs,
            },
            &bytes(held),
        )
    }

    #[test]
    fn the_same_is_good() {
        let found = check(
            &["a", "b", "b"],
            &[Some(0), Some(1), Some(2)],
            &["a", "b", "b"],
        );
        assert_eq!(
            found,
            Findings {
                held: 3,
                ..Findings::default()
            }
        );
        assert!(found.good());
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        assert!(check(&["a", "b"], &[Some(0), None], &["a"]).good());
        assert!(check(&["a", "b"], &[Some(0), None], &["a", "b"]).good());
    }

    #[test]
    fn each_fault_is_found() {
        let missing = check(&["a", "b"], &[Some(0), Some(1)], &["a"]);
        assert_eq!((missing.lost, missing.duplicated), (1, 0));
        let damaged = check(&["a", "b"], &[Some(0), Some(1)], &["a", "x"]);
        assert_eq!((damaged.lost, damaged.foreign), (1, 1));
        let twice = check(&["a", "b"], &[Some(0), Some(1)], &["a", "b", "b"]);
        assert_eq!((twice.lost, twice.duplicated), (0, 1));
        let swapped = check(&["a", "b"], &[Some(0), Some(1)], &["b", "a"]);
        assert_eq!((swapped.lost, swapped.duplicated), (2, 0));
        let one_seq_for_two = check(&["a", "a"], &[Some(0), Some(0)], &["a", "a"]);
        assert_eq!(one_seq_for_two.lost, 1);
        let shifted = check(&["a", "b"], &[Some(0), Some(1)], &["a", "a", "b"]);
        assert_eq!((shifted.lost, shifted.duplicated), (1, 1));
        for found in [missing, damaged, twice, swapped, one_seq_for_two, shifted] {
            assert!(!found.good(), "{found:?}");
        }
    }
}
