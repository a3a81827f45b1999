//! Reading the logs back when a round is over, and once more when all rounds are.
//!
//! A round's history is checked and forgotten; what its logs held stays known as a digest, so that a
//! record that is lost or changed rounds later is still missed.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};

use drave_client::Client;

use super::load::payload_id;
use crate::commands::read::{ReadRange, for_each};
use crate::connect::ReadableLog;
use crate::errors::CliError;
use crate::history::{Action, AppendOutcome, FinalSlice, Operation};

/// Records in one piece of a final log: what makes lines of bounded length.
const SLICE_RECORDS: usize = 4096;

/// Who is asked for a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The leader, linearizably.
    Cluster,
    /// One replica alone.
    Node(u64),
}

/// All payload ids of a log, from seq 0.
///
/// # Errors
/// [`CliError`] when it cannot be read.
pub async fn records(client: &Client, log: &str, source: Source) -> Result<Vec<u64>, CliError> {
    let node = match source {
        Source::Cluster => None,
        Source::Node(node_id) => Some(node_id),
    };
    let log = ReadableLog::open(client, log, node).await?;
    let range = ReadRange {
        from_seq: Some(0),
        count: None,
    };
    let mut ids = Vec::new();
    for_each(&log, range, async |record| {
        ids.push(payload_id(&record.payload));
        Ok(())
    })
    .await?;
    Ok(ids)
}

/// The pieces of a final log.
#[must_use]
pub fn slices(log: u64, source: Source, records: &[u64]) -> Vec<FinalSlice> {
    let node = match source {
        Source::Cluster => None,
        Source::Node(node_id) => Some(node_id),
    };
    let slice = |from: usize, records: &[u64]| FinalSlice {
        log,
        node,
        from: from as u64,
        records: records.to_vec(),
    };
    if records.is_empty() {
        return vec![slice(0, records)];
    }
    let chunks = records.chunks(SLICE_RECORDS).enumerate();
    chunks
        .map(|(at, records)| slice(at * SLICE_RECORDS, records))
        .collect()
}

/// What is remembered of a log whose round is over.
#[derive(Clone, Debug)]
pub struct Remembered {
    name: String,
    count: usize,
    digest: u64,
    /// Records that may still come: their clients never had an outcome.
    unknown: BTreeSet<u64>,
}

impl Remembered {
    /// Remembers a log as it was at the end of its round.
    #[must_use]
    pub fn new(name: &str, log: u64, records: &[u64], operations: &[Operation]) -> Self {
        let mut unknown = BTreeSet::new();
        for operation in operations.iter().filter(|operation| operation.log == log) {
            if let Action::Append(append) = &operation.action
                && append.outcome == AppendOutcome::Unknown
            {
                unknown.extend((append.payload_id..).take(append.count as usize));
            }
        }
        for id in records {
            unknown.remove(id);
        }
        Self {
            name: name.to_owned(),
            count: records.len(),
            digest: digest(records),
            unknown,
        }
    }

    /// The log's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with the log as it is now, if anything.
    #[must_use]
    pub fn problem(&self, records: &[u64]) -> Option<String> {
        let Some((known, added)) = records.split_at_checked(self.count) else {
            return Some(format!("held {}, now {}", self.count, records.len()));
        };
        if digest(known) != self.digest {
            return Some("other records than at the end of its round".to_owned());
        }
        let mut seen = BTreeSet::new();
        added.iter().find_map(|id| {
            let is_late = self.unknown.contains(id) && seen.insert(*id);
            (!is_late).then(|| format!("payload {id} came after the end of its round"))
        })
    }
}

fn digest(records: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for id in records {
        hasher.write_u64(*id);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Append;

    #[test]
    fn slices_follow_one_another() {
        let ids: Vec<u64> = (0..10_000).collect();
        let pieces = slices(3, Source::Node(2), &ids);
        let froms: Vec<u64> = pieces.iter().map(|piece| piece.from).collect();
        assert_eq!(froms, [0, 4096, 8192]);
        let whole: Vec<u64> = pieces.into_iter().flat_map(|piece| piece.records).collect();
        assert_eq!(whole, ids);
        assert_eq!(slices(3, Source::Cluster, &[]).len(), 1);
    }

    #[test]
    fn only_unknown_records_may_come_late() {
        let append = Append {
            producer: 1,
            producer_seq: 1,
            payload_id: 10,
            count: 2,
            outcome: AppendOutcome::Unknown,
        };
        let operation = Operation {
            client: 1,
            invoked_us: 0,
            completed_us: 1,
            log: 3,
            action: Action::Append(append),
        };
        let remembered = Remembered::new("a", 3, &[1, 2], &[operation]);
        assert_eq!(remembered.problem(&[1, 2]), None);
        assert_eq!(remembered.problem(&[1, 2, 10, 11]), None);
        for wrong in [&[1][..], &[2, 1], &[1, 2, 3], &[1, 2, 10, 10]] {
            assert!(remembered.problem(wrong).is_some(), "{wrong:?}");
        }
    }
}
