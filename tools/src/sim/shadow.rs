//! The group's log with a shadow beside it: what every entry is, in memory, for the checkers.
//!
//! The shadow stands where the replica hands entries to the log, so it sees exactly what the log was told.
//! What the log then holds, and what its disk holds, is compared with it now and then, and at every start.

use std::collections::VecDeque;
use std::sync::Arc;

use drave::node::{Completion, GroupLog};
use drave::replica::{EntryLog, HardStateRecord, LogRefusal};
use drave_batch::control::Members;
use drave_batch::{BatchHeader, BatchRef, Batches, EntryKind, LogChange, decode_carried};
use drave_wal::{Read, ReadError, Slices, Wal};

/// A batch that an entry carries over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CarriedBatch {
    /// The index of the entry that it was.
    pub index: u64,
    /// The checksum of its header, which covers its records.
    pub crc: u32,
}

/// What the checkers know of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its term.
    pub term: u64,
    /// Its header's checksum, which by the chain stands for every entry before it too.
    pub crc: u32,
    /// What it holds.
    pub kind: EntryKind,
    /// Records in it.
    pub record_count: u32,
    /// The log it is for.
    pub log_id: u64,
    /// The seq of its first record; of a trim, the first seq kept.
    pub first_seq: u64,
    /// Of a change of a log, what it is.
    pub change: Option<LogChange>,
    /// The batches that it carries over.
    pub carried: Option<Arc<[CarriedBatch]>>,
    /// Its producer, 0 for none.
    pub producer_id: u64,
    /// The producer's number of it.
    pub producer_seq: u64,
    /// When it was appended, by its leader's clock, microseconds since 1970.
    pub append_time_us: u64,
    /// The simulated operation it came from, 0 for none: the first 8 bytes of its first record.
    pub operation: u64,
}

impl Entry {
    fn new(header: &BatchHeader, crc: u32, body: &[u8]) -> Self {
        let at = header.record_count as usize * 4;
        let operation = body
            .get(at..at + 8)
            .filter(|_| header.kind == EntryKind::Data)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        let change = match header.kind {
            EntryKind::LogChange => LogChange::decode(body).ok(),
            _ => None,
        };
        let carried = match header.kind {
            EntryKind::CarryOver => decode_carried(header, body).ok(),
            _ => None,
        };
        let carried = carried.map(|batches| {
            let batches = batches.iter().map(|batch| CarriedBatch {
                index: batch.header.index,
                crc: batch.header_crc,
            });
            batches.collect()
        });
        Self {
            term: header.term,
            crc,
            kind: header.kind,
            record_count: header.record_count,
            log_id: header.log_id,
            first_seq: header.first_seq,
            change,
            carried,
            producer_id: header.producer_id,
            producer_seq: header.producer_seq,
            append_time_us: header.append_time_us,
            operation,
        }
    }
}

/// The entries of a log from `first_index` on, and what changed since the checkers last looked.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    first_index: u64,
    entries: VecDeque<Entry>,
    /// Bodies of configuration entries, by index.
    pub configurations: VecDeque<(u64, Members)>,
    /// Entries from here on are new since the last look.
    pub new_from: u64,
    /// The lowest index truncated since the last look.
    pub truncated_from: Option<u64>,
    /// The log was replaced since the last look.
    pub was_reset: bool,
    /// A configuration entry was appended since the last look.
    pub configuration_appended: bool,
}

impl Shadow {
    /// An empty one; the next entry has this index.
    #[must_use]
    pub fn starting_at(first_index: u64) -> Self {
        Self {
            first_index,
            new_from: first_index,
            ..Self::default()
        }
    }

    /// The first index held.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The last index; one below the first when empty.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.first_index + self.entries.len() as u64 - 1
    }

    /// The entry of this index, if held.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let position = index.checked_sub(self.first_index)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    fn push(&mut self, index: u64, entry: Entry, body: &[u8]) {
        // The log refuses an index out of order, so the shadow never sees one.
        debug_assert_eq!(index, self.last_index() + 1);
        if entry.kind == EntryKind::Configuration
            && let Ok(members) = Members::decode(body)
        {
            self.configurations.push_back((index, members));
            self.configuration_appended = true;
        }
        self.entries.push_back(entry);
    }

    /// For tests of the checkers: an entry as it is.
    #[cfg(test)]
    pub fn push_entry(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Drops what is at or above `from`.
    pub fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.first_index) as usize;
        self.entries.truncate(keep);
        while self
            .configurations
            .back()
            .is_some_and(|(index, _)| *index >= from)
        {
            self.configurations.pop_back();
        }
        self.new_from = self.new_from.min(from);
        self.truncated_from = Some(self.truncated_from.map_or(from, |other| other.min(from)));
    }

    fn reset(&mut self, next_index: u64) {
        *self = Self {
            was_reset: true,
            ..Self::starting_at(next_index)
        };
    }

    /// Lets entries below `first_index` go.
    pub fn compact(&mut self, first_index: u64) {
        while self.first_index < first_index && self.entries.pop_front().is_some() {
            self.first_index += 1;
        }
        while self
            .configurations
            .front()
            .is_some_and(|(index, _)| *index < first_index)
        {
            self.configurations.pop_front();
        }
    }

    /// The checkers have looked.
    pub fn looked(&mut self) {
        self.new_from = self.last_index() + 1;
        self.truncated_from = None;
        self.was_reset = false;
        self.configuration_appended = false;
    }
}

/// The log that the replica is given.
pub struct ShadowLog {
    /// The product's own.
    pub log: GroupLog,
    /// What it was told.
    pub shadow: Shadow,
}

impl ShadowLog {
    /// Wraps a log that was just opened, reading all it holds.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read, which a damaged one cannot.
    pub fn open(log: GroupLog) -> Result<Self, ReadError> {
        let mut shadow = Shadow::starting_at(log.wal.first_index());
        read_from(&log, log.wal.first_index(), |batch| {
            let entry = Entry::new(&batch.header, batch.header_crc, batch.body());
            shadow.push(batch.header.index, entry, batch.body());
        })?;
        shadow.looked();
        // What was recovered is looked at as if it were new: it must be what was there before.
        shadow.new_from = shadow.first_index();
        Ok(Self { log, shadow })
    }

    /// Completions since the last call.
    pub fn poll(&mut self, out: &mut Vec<Completion>) {
        self.log.poll(out);
    }
}

/// Bytes read at once while a log is replayed.
const REPLAY_BYTES: usize = 256 << 10;

/// Gives every entry that the log holds from `first_index` on, in order.
///
/// # Errors
/// [`ReadError`]
pub fn read_from(
    log: &GroupLog,
    first_index: u64,
    mut visit: impl FnMut(&BatchRef<'_>),
) -> Result<(), ReadError> {
    let (mut at, end) = (first_index, log.wal.last_index() + 1);
    while at < end {
        let slices: Slices = match log.wal.read(at, end, REPLAY_BYTES)? {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run()?,
        };
        for piece in &slices.pieces {
            for batch in Batches::new(piece) {
                visit(&batch.expect("what a read gives is whole batches"));
            }
        }
        at = slices.hi;
    }
    Ok(())
}

impl AsRef<Wal> for ShadowLog {
    fn as_ref(&self) -> &Wal {
        &self.log.wal
    }
}

impl EntryLog for ShadowLog {
    fn has_room(&self, bytes: usize) -> Result<(), LogRefusal> {
        self.log.has_room(bytes)
    }

    fn has_room_for_control(&self, bytes: usize) -> Result<(), LogRefusal> {
        self.log.has_room_for_control(bytes)
    }

    fn bytes_before(&self, index: u64) -> u64 {
        self.log.bytes_before(index)
    }

    fn last_crc(&self) -> u32 {
        self.log.last_crc()
    }

    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal> {
        EntryLog::append(&mut self.log, header, body)?;
        let entry = Entry::new(header, self.log.wal.last_crc(), body);
        self.shadow.push(header.index, entry, body);
        Ok(())
    }

    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal> {
        self.log.append_encoded(batch)?;
        let entry = Entry::new(&batch.header, batch.header_crc, batch.body());
        self.shadow.push(batch.header.index, entry, batch.body());
        Ok(())
    }

    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal> {
        self.log.truncate_suffix(from_index)?;
        self.shadow.truncate(from_index);
        Ok(())
    }

    fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), LogRefusal> {
        self.log.truncate_prefix(first_index_kept)?;
        self.shadow.compact(self.log.wal.first_index());
        Ok(())
    }

    fn reset(&mut self, next_index: u64, term: u64, crc: u32) -> Result<(), LogRefusal> {
        self.log.reset(next_index, term, crc)?;
        self.shadow.reset(next_index);
        Ok(())
    }

    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal> {
        self.log.write_hard_state(record)
    }
}
