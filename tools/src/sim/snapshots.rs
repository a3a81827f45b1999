//! A node's stored snapshots: files that are there whole or not at all, as the product writes them to a
//! temporary name, flushes them, and renames them.

use std::collections::BTreeMap;

use bytes::Bytes;
use drave::raft::EntryId;

use super::random::Random;

/// A snapshot on its way to the disk.
#[derive(Clone, Debug)]
pub struct Storing {
    /// Of which entry.
    pub id: EntryId,
    /// Its bytes.
    pub bytes: Bytes,
    /// When it is durable.
    pub due_us: u64,
    /// It came from a leader.
    pub is_received: bool,
}

/// The snapshots of one disk.
#[derive(Clone, Debug, Default)]
pub struct SnapshotStore {
    stored: BTreeMap<u64, (EntryId, Bytes, bool)>,
    storing: Vec<Storing>,
}

impl SnapshotStore {
    /// Begins to store one.
    pub fn begin(&mut self, storing: Storing) {
        self.storing.push(storing);
    }

    /// When the next one is durable.
    #[must_use]
    pub fn due_us(&self) -> u64 {
        self.storing
            .iter()
            .map(|storing| storing.due_us)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Takes one that is durable now.
    pub fn complete(&mut self, now_us: u64) -> Option<Storing> {
        let position = self
            .storing
            .iter()
            .position(|storing| storing.due_us <= now_us)?;
        let storing = self.storing.remove(position);
        self.keep(&storing);
        Some(storing)
    }

    fn keep(&mut self, storing: &Storing) {
        let value = (storing.id, storing.bytes.clone(), storing.is_received);
        self.stored.insert(storing.id.index, value);
    }

    /// Deletes all but these.
    pub fn retain(&mut self, kept: &[EntryId]) {
        self.stored.retain(|_, (id, ..)| kept.contains(id));
    }

    /// The process is gone. What was being stored got its name, or did not.
    pub fn crash(&mut self, random: &mut Random) {
        for storing in std::mem::take(&mut self.storing) {
            if random.coin() {
                self.keep(&storing);
            }
        }
    }

    /// The bytes of a stored one.
    #[must_use]
    pub fn get(&self, id: EntryId) -> Option<&Bytes> {
        let (found, bytes, _) = self.stored.get(&id.index)?;
        (*found == id).then_some(bytes)
    }

    /// The last entry of the newest that came from a leader and is durable: the log goes on after it at the
    /// next start at the latest. 0 for none.
    #[must_use]
    pub fn received_index(&self) -> u64 {
        let received = self
            .stored
            .values()
            .filter(|(.., is_received)| *is_received);
        received.map(|(id, ..)| id.index).max().unwrap_or(0)
    }

    /// All that are stored, ascending: their bytes, and whether they came from a leader.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (EntryId, &Bytes, bool)> {
        self.stored
            .values()
            .map(|(id, bytes, received)| (*id, bytes, *received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_being_stored_is_there_whole_or_not_at_all() {
        let id = EntryId { term: 1, index: 7 };
        let storing = Storing {
            id,
            bytes: Bytes::from_static(b"state"),
            due_us: 10,
            is_received: false,
        };
        let (mut kept, mut lost) = (0, 0);
        let mut random = Random::new(1, 1);
        for _ in 0..50 {
            let mut store = SnapshotStore::default();
            store.begin(storing.clone());
            assert_eq!(store.get(id), None);
            store.crash(&mut random);
            match store.get(id) {
                Some(bytes) => {
                    assert_eq!(bytes, "state");
                    kept += 1;
                }
                None => lost += 1,
            }
        }
        assert!(kept > 0 && lost > 0);
        let mut store = SnapshotStore::default();
        store.begin(storing);
        assert!(store.complete(9).is_none());
        assert!(store.complete(10).is_some());
        store.retain(&[]);
        assert_eq!(store.iter().count(), 0);
    }
}
