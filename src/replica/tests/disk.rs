//! A log in memory with a disk behind it: what was flushed survives a crash.

use std::collections::BTreeMap;

use drave_batch::control::Members;
use drave_batch::{BatchHeader, BatchRef};

use super::super::{EntryLog, HardStateRecord, LogRefusal};
use crate::raft::{EntryId, HardState, NodeId};

/// A log that keeps encoded batches.
pub(super) struct MemoryLog {
    /// What the node was formatted with.
    pub members: Members,
    pub first_index: u64,
    pub prev_term: u64,
    prev_crc: u32,
    pub batches: Vec<Vec<u8>>,
    /// Of `batches`, how many are flushed.
    pub durable: usize,
    pub hard_state: Option<HardStateRecord>,
    pub hard_state_durable: Option<HardStateRecord>,
    /// Stored durably, by index.
    pub snapshots: BTreeMap<u64, Vec<u8>>,
    /// Nothing more is taken before a flush.
    pub full: bool,
    /// There is no room for records.
    pub disk_full: bool,
    /// There is no room for anything.
    pub reserve_used: bool,
    /// A snapshot that a leader sent cannot be stored.
    pub refuses_snapshots: bool,
}

impl MemoryLog {
    pub(super) fn new(members: Members) -> Self {
        Self {
            members,
            first_index: 1,
            prev_term: 0,
            prev_crc: 0,
            batches: Vec::new(),
            durable: 0,
            hard_state: None,
            hard_state_durable: None,
            snapshots: BTreeMap::new(),
            full: false,
            disk_full: false,
            reserve_used: false,
            refuses_snapshots: false,
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.first_index + self.batches.len() as u64 - 1
    }

    /// Entries `[lo, hi)`.
    pub(super) fn slice(&self, lo: u64, hi: u64) -> &[Vec<u8>] {
        let at = |index: u64| (index - self.first_index) as usize;
        &self.batches[at(lo)..at(hi)]
    }

    fn header(&self, index: u64) -> BatchHeader {
        let bytes = &self.slice(index, index + 1)[0];
        BatchRef::decode(bytes).unwrap().header
    }

    /// The hard state, if one was written since the last flush.
    pub(super) fn flush_hard_state(&mut self) -> Option<HardState> {
        if self.hard_state == self.hard_state_durable {
            return None;
        }
        self.hard_state_durable = self.hard_state;
        let record = self.hard_state?;
        Some(HardState {
            term: record.term,
            vote: (record.vote != 0).then_some(NodeId(record.vote)),
        })
    }

    /// The last entry, if it was not flushed before.
    pub(super) fn flush_entries(&mut self) -> Option<EntryId> {
        if self.durable == self.batches.len() {
            return None;
        }
        assert_eq!(
            self.hard_state, self.hard_state_durable,
            "the hard state is flushed before what follows it"
        );
        self.durable = self.batches.len();
        let header = self.header(self.last_index());
        Some(EntryId {
            term: header.term,
            index: header.index,
        })
    }

    /// What was not flushed is gone.
    pub(super) fn crash(&mut self) {
        self.batches.truncate(self.durable);
        self.hard_state = self.hard_state_durable;
        self.full = false;
    }
}

impl EntryLog for MemoryLog {
    fn has_room(&self, _: usize) -> Result<(), LogRefusal> {
        if self.disk_full || self.reserve_used {
            Err(LogRefusal::NoSpace)
        } else if self.full {
            Err(LogRefusal::Full { queued_bytes: 1 })
        } else {
            Ok(())
        }
    }

    fn has_room_for_control(&self, _: usize) -> Result<(), LogRefusal> {
        if self.reserve_used {
            Err(LogRefusal::NoSpace)
        } else {
            Ok(())
        }
    }

    fn bytes_before(&self, index: u64) -> u64 {
        let count = index.saturating_sub(self.first_index) as usize;
        let before = self.batches.iter().take(count);
        before.map(|batch| batch.len() as u64).sum()
    }

    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal> {
        if self.reserve_used {
            return Err(LogRefusal::NoSpace);
        }
        assert_eq!(header.index, self.last_index() + 1);
        header.prev_crc = self.last_crc();
        let mut out = Vec::new();
        header.encode_with_body(body, &mut out);
        self.batches.push(out);
        Ok(())
    }

    fn last_crc(&self) -> u32 {
        let last = self.batches.last();
        last.map_or(self.prev_crc, |bytes| {
            BatchRef::decode(bytes).unwrap().header_crc
        })
    }

    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal> {
        assert_eq!(batch.header.index, self.last_index() + 1);
        assert_eq!(batch.header.prev_crc, self.last_crc(), "the chain holds");
        self.batches.push(batch.encoded().to_vec());
        Ok(())
    }

    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal> {
        self.batches
            .truncate((from_index - self.first_index) as usize);
        self.durable = self.durable.min(self.batches.len());
        Ok(())
    }

    fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), LogRefusal> {
        assert!(
            self.snapshots.contains_key(&(first_index_kept - 1)),
            "no entry goes before the snapshot that stands for it is on disk"
        );
        let before = BatchRef::decode(&self.slice(first_index_kept - 1, first_index_kept)[0])
            .map(|batch| (batch.header.term, batch.header_crc))
            .unwrap();
        let gone = (first_index_kept - self.first_index) as usize;
        self.batches.drain(..gone);
        self.durable -= gone;
        self.first_index = first_index_kept;
        (self.prev_term, self.prev_crc) = before;
        Ok(())
    }

    fn reset(&mut self, next_index: u64, term: u64, crc: u32) -> Result<(), LogRefusal> {
        assert!(
            self.snapshots.contains_key(&(next_index - 1)),
            "the log goes only when what replaces it is on disk"
        );
        assert!(
            self.hard_state_durable
                .is_some_and(|record| record.term >= term),
            "a log does not begin after a term that could be forgotten"
        );
        self.batches.clear();
        self.durable = 0;
        self.first_index = next_index;
        (self.prev_term, self.prev_crc) = (term, crc);
        Ok(())
    }

    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal> {
        self.hard_state = Some(record);
        Ok(())
    }
}
