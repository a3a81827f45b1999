//! The write-ahead log as the replica's [`EntryLog`], and its completions as the core's attestations.

use std::collections::VecDeque;

use drave_batch::{BatchHeader, BatchRef};
use drave_wal::{AppendError, Event, Wal};

use crate::raft::{Durable, EntryId, HardState, NodeId};
use crate::replica::{DiskState, EntryLog, HardStateRecord, LogRefusal};

/// What a completed flush made durable. The only place where the core's attestations are made from the
/// log's completions.
#[derive(Debug)]
pub enum Completion {
    /// Entries up to this one.
    Log(Durable<EntryId>),
    /// The hard state.
    HardState(Durable<HardState>),
    /// The log failed for good.
    Failed(String),
    /// The disk has no room for a further segment, or has it again.
    Space {
        /// Whether there is room.
        ok: bool,
    },
}

/// The log of one group.
pub struct GroupLog {
    /// The log itself, for reads, submission and statistics.
    pub wal: Wal,
    queue_bytes_max: u64,
    /// Hard states being written, with the log's sequence of each.
    hard_states: VecDeque<(u64, HardState)>,
    events: Vec<Event>,
}

impl GroupLog {
    /// Takes an open log; `queue_bytes_max` is what it lets wait for a flush.
    #[must_use]
    pub fn new(wal: Wal, queue_bytes_max: u64) -> Self {
        let (hard_states, events) = (VecDeque::new(), Vec::new());
        Self {
            wal,
            queue_bytes_max,
            hard_states,
            events,
        }
    }

    /// Completions since the last call.
    pub fn poll(&mut self, out: &mut Vec<Completion>) {
        self.wal.poll(&mut self.events);
        for event in self.events.drain(..) {
            match event {
                Event::Durable(flushed) => {
                    let id = EntryId {
                        term: flushed.term(),
                        index: flushed.index(),
                    };
                    out.push(Completion::Log(Durable::attest(id)));
                }
                Event::MetaDurable(flushed) => {
                    while let Some((sequence, state)) = self.hard_states.front() {
                        if *sequence > flushed.sequence() {
                            break;
                        }
                        out.push(Completion::HardState(Durable::attest(*state)));
                        self.hard_states.pop_front();
                    }
                }
                Event::Failed(reason) => out.push(Completion::Failed(reason.to_string())),
                Event::SpaceLow => out.push(Completion::Space { ok: false }),
                Event::SpaceOk => out.push(Completion::Space { ok: true }),
                _ => {}
            }
        }
    }

    /// How the disk does: what [`crate::replica::Replica::mind_disk`] is told.
    pub fn disk(&self) -> DiskState {
        let (flushes, flush_us_sum) = self.wal.flush_totals();
        DiskState {
            flushes,
            flush_us_sum,
            waits_us: self.wal.flush_waits_us(),
        }
    }

    /// Bytes of entries that may still be taken: what followers advertise to their leader.
    pub fn credit_bytes(&self) -> u64 {
        self.queue_bytes_max.saturating_sub(self.wal.queued_bytes())
    }
}

fn refusal(error: AppendError) -> LogRefusal {
    match error {
        AppendError::Full { queued_bytes, .. } => LogRefusal::Full { queued_bytes },
        AppendError::NoSpace => LogRefusal::NoSpace,
        other => LogRefusal::Failed(other.to_string()),
    }
}

impl AsRef<Wal> for GroupLog {
    fn as_ref(&self) -> &Wal {
        &self.wal
    }
}

impl EntryLog for GroupLog {
    fn has_room(&self, bytes: usize) -> Result<(), LogRefusal> {
        self.wal.has_room(bytes).map_err(refusal)
    }

    fn has_room_for_control(&self, bytes: usize) -> Result<(), LogRefusal> {
        self.wal.has_room_for_control(bytes).map_err(refusal)
    }

    fn bytes_before(&self, index: u64) -> u64 {
        self.wal.bytes_before(index)
    }

    fn last_crc(&self) -> u32 {
        self.wal.last_crc()
    }

    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal> {
        self.wal.append(header, body).map_err(refusal)
    }

    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal> {
        self.wal.append_encoded(batch).map_err(refusal)
    }

    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal> {
        self.wal
            .truncate_suffix(from_index)
            .map_err(|error| LogRefusal::Failed(error.to_string()))
    }

    fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), LogRefusal> {
        self.wal
            .truncate_prefix(first_index_kept)
            .map_err(|error| LogRefusal::Failed(error.to_string()))
    }

    fn reset(&mut self, next_index: u64, term: u64, crc: u32) -> Result<(), LogRefusal> {
        self.wal
            .reset(next_index, term, crc)
            .map_err(|error| LogRefusal::Failed(error.to_string()))
    }

    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal> {
        let sequence = self
            .wal
            .write_meta(&record.encode())
            .map_err(|error| LogRefusal::Failed(error.to_string()))?;
        let vote = (record.vote != 0).then_some(NodeId(record.vote));
        self.hard_states.push_back((
            sequence,
            HardState {
                term: record.term,
                vote,
            },
        ));
        Ok(())
    }
}
