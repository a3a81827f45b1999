//! A node's disk: what was flushed, what was only written, and what a crash leaves of it.

use super::super::rng::Rng;
use super::super::{
    Configuration, ConfigurationAt, EntryId, HardState, Restored, SnapshotMeta, TermRun,
};
use std::collections::VecDeque;
use std::vec::Vec;

/// What the simulation stores at an index.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) term: u64,
    /// Unique among proposals; 0 for control entries.
    pub(super) payload: u64,
    pub(super) configuration: Option<Configuration>,
}

impl Entry {
    pub(super) fn bytes(&self) -> u32 {
        if self.payload == 0 {
            0
        } else {
            10 + (self.payload % 90) as u32
        }
    }
}

/// A log from `start.last.index + 1` on.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) hard_state: HardState,
    /// The snapshot the log begins after; index 0 at first.
    pub(super) start: SnapshotMeta,
    pub(super) entries: VecDeque<Entry>,
}

impl Image {
    pub(super) fn new(configuration: Configuration) -> Image {
        let start = SnapshotMeta {
            last: EntryId::default(),
            configuration_index: 0,
            configuration,
        };
        Image {
            hard_state: HardState::default(),
            start,
            entries: VecDeque::new(),
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.start.last.index + self.entries.len() as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let position = index.checked_sub(self.start.last.index + 1)?;
        self.entries.get(position as usize)
    }

    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::HardState(hard_state) => self.hard_state = hard_state,
            Write::Truncate { from } => {
                let keep = from.saturating_sub(self.start.last.index + 1);
                self.entries.truncate(keep as usize);
            }
            Write::Append { index, entry } => {
                assert_eq!(
                    index,
                    self.last_index() + 1,
                    "the owner appends without gaps"
                );
                self.entries.push_back(entry);
            }
            Write::Snapshot { start, keep_log } => {
                if keep_log {
                    while self.start.last.index < start.last.index {
                        self.entries.pop_front().expect("compacts what it has");
                        self.start.last.index += 1;
                    }
                } else {
                    self.entries.clear();
                }
                self.start = start;
            }
        }
    }

    /// The snapshot that ends at `index`, which is held.
    pub(super) fn snapshot_at(&self, index: u64) -> SnapshotMeta {
        let mut meta = self.start.clone();
        for at in self.start.last.index + 1..=index {
            let entry = self.get(at).unwrap();
            meta.last = EntryId {
                term: entry.term,
                index: at,
            };
            if let Some(configuration) = &entry.configuration {
                meta.configuration_index = at;
                meta.configuration = configuration.clone();
            }
        }
        meta
    }

    pub(super) fn restored(&self) -> Restored {
        let first_index = self.start.last.index + 1;
        let mut term_runs: Vec<TermRun> = Vec::new();
        let mut configurations_appended = Vec::new();
        for (index, entry) in (first_index..).zip(&self.entries) {
            if term_runs.last().is_none_or(|run| run.term != entry.term) {
                term_runs.push(TermRun {
                    first_index: index,
                    term: entry.term,
                });
            }
            if let Some(configuration) = entry.configuration.clone() {
                configurations_appended.push(ConfigurationAt {
                    index,
                    configuration,
                });
            }
        }
        Restored {
            hard_state: self.hard_state,
            first_index,
            prev_term: self.start.last.term,
            term_runs,
            last_index: self.last_index(),
            commit_index_hint: self.start.last.index,
            configuration: self.start.configuration.clone(),
            configuration_index: self.start.configuration_index,
            configurations_appended,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Write {
    HardState(HardState),
    Truncate { from: u64 },
    Append { index: u64, entry: Entry },
    Snapshot { start: SnapshotMeta, keep_log: bool },
}

/// A flush under way: it covers the first `writes` of the queue.
pub(super) struct Flush {
    pub(super) done_us: u64,
    writes: usize,
    pub(super) truncation_count: u64,
}

/// What a completed flush made durable.
#[derive(Default)]
pub(super) struct Flushed {
    pub(super) hard_state: Option<HardState>,
    pub(super) log: Option<EntryId>,
}

/// Writes reach the platter in order; a crash keeps any prefix of what was not flushed.
pub(super) struct Disk {
    pub(super) durable: Image,
    queue: VecDeque<Write>,
    pub(super) flush: Option<Flush>,
}

impl Disk {
    pub(super) fn new(configuration: Configuration) -> Disk {
        Disk {
            durable: Image::new(configuration),
            queue: VecDeque::new(),
            flush: None,
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// Group commit: everything queued is one flush, one flush at a time.
    pub(super) fn start_flush(&mut self, done_us: u64, truncation_count: u64) {
        if self.flush.is_none() && !self.queue.is_empty() {
            self.flush = Some(Flush {
                done_us,
                writes: self.queue.len(),
                truncation_count,
            });
        }
    }

    pub(super) fn finish_flush(&mut self) -> (Flush, Flushed) {
        let flush = self.flush.take().unwrap();
        let mut flushed = Flushed::default();
        for write in self.queue.drain(..flush.writes) {
            match &write {
                Write::HardState(hard_state) => flushed.hard_state = Some(*hard_state),
                Write::Append { index, entry } => {
                    flushed.log = Some(EntryId {
                        term: entry.term,
                        index: *index,
                    });
                }
                Write::Truncate { .. } | Write::Snapshot { .. } => {}
            }
            self.durable.apply(write);
        }
        (flush, flushed)
    }

    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.flush = None;
        let kept = rng.range(0, self.queue.len() as u64 + 1) as usize;
        for write in self.queue.drain(..).take(kept) {
            self.durable.apply(write);
        }
    }

    /// A received snapshot is flushed by itself before it is installed, with all written before it.
    pub(super) fn flush_through(&mut self) {
        self.flush = None;
        for write in self.queue.drain(..) {
            self.durable.apply(write);
        }
    }
}
