//! What a log was asked to do and what it acknowledged, and whether a log found later agrees with that.

use drave_wal::{Event, Wal};

use super::{body, read_all};

/// An entry as it was appended; its body is `body(index, term, bytes)`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    pub index: u64,
    pub term: u64,
    pub bytes: usize,
    pub crc: u32,
}

/// A change of the log's entries.
#[derive(Clone, Debug)]
pub enum Change {
    Append(Appended),
    Truncate { from: u64 },
    Reset { next_index: u64, crc: u32 },
}

/// The log after some changes, if nothing is trimmed.
#[derive(Clone, Debug)]
pub struct State {
    pub base: u64,
    pub base_crc: u32,
    pub entries: Vec<Appended>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            base: 1,
            base_crc: 0,
            entries: Vec::new(),
        }
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(entry) => {
                assert_eq!(entry.index, self.base + self.entries.len() as u64);
                self.entries.push(*entry);
            }
            Change::Truncate { from } => self.entries.truncate((from - self.base) as usize),
            Change::Reset { next_index, crc } => {
                *self = Self {
                    base: *next_index,
                    base_crc: *crc,
                    entries: Vec::new(),
                };
            }
        }
    }

    /// Whether `wal`, whose entries have these checksums, holds this state, trimmed at most so far.
    fn is(&self, wal: &Wal, crcs: &[u32], first_index_max: u64) -> bool {
        let first = wal.first_index();
        let next = self.base + self.entries.len() as u64;
        if first < self.base
            || first > self.base.max(first_index_max).min(next)
            || wal.last_index() + 1 != next
        {
            return false;
        }
        let held = &self.entries[(first - self.base) as usize..];
        let last_crc = self.entries.last().map_or(self.base_crc, |entry| entry.crc);
        held.iter().map(|entry| entry.crc).eq(crcs.iter().copied()) && wal.last_crc() == last_crc
    }
}

/// Which of the changes a log was found to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// The first so many.
    pub changes: usize,
    /// The sequence of the meta value; 0 for none.
    pub meta: u64,
}

/// Everything asked of the log, in order, and how much of it is known durable.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// What there was before the first change, all of it durable.
    pub start: State,
    pub changes: Vec<Change>,
    /// The first so many changes are known durable.
    pub acknowledged: usize,
    /// Meta values before the first change; they are their own numbers.
    pub metas_before: u64,
    /// Per meta value after those: how many changes came before it.
    pub metas: Vec<usize>,
    pub meta_acknowledged: u64,
    pub first_index_max: u64,
}

impl Model {
    /// The log as it was found becomes what everything is compared with from here on.
    pub fn start_over(&mut self, wal: &Wal, held: Held) {
        for change in self.changes.drain(..).take(held.changes) {
            self.start.apply(&change);
        }
        let trimmed = (wal.first_index() - self.start.base) as usize;
        self.start.entries.drain(..trimmed);
        *self = Self {
            start: State {
                base: wal.first_index(),
                base_crc: wal.last_crc(),
                entries: std::mem::take(&mut self.start.entries),
            },
            metas_before: held.meta,
            meta_acknowledged: held.meta,
            first_index_max: wal.first_index(),
            ..Self::default()
        };
    }

    /// The number of the last meta value written.
    pub fn meta_last(&self) -> u64 {
        self.metas_before + self.metas.len() as u64
    }

    /// Takes note of events: an entry reported durable makes every change up to its last append durable.
    pub fn note(&mut self, events: &[Event], wal: &Wal) {
        for event in events {
            match event {
                Event::Durable(flushed) => {
                    self.note_durable(flushed.index());
                    if flushed.index() >= wal.first_index() {
                        assert_eq!(wal.term(flushed.index()), Some(flushed.term()));
                    }
                }
                Event::MetaDurable(meta) => {
                    assert!(meta.sequence() > self.meta_acknowledged);
                    self.meta_acknowledged = meta.sequence();
                }
                _ => {}
            }
        }
        self.first_index_max = self.first_index_max.max(wal.first_index());
    }

    /// The entry at `index` was reported durable.
    pub fn note_durable(&mut self, index: u64) {
        let made = self.changes.iter().rposition(|change| match change {
            Change::Append(entry) => entry.index == index,
            Change::Reset { next_index, .. } => next_index - 1 == index,
            Change::Truncate { .. } => false,
        });
        let before = self.start.base + self.start.entries.len() as u64;
        assert!(
            made.is_some() || index < before,
            "{index} was never written"
        );
        self.acknowledged = self.acknowledged.max(made.map_or(0, |made| made + 1));
    }

    /// Checks a recovered log against everything it may and must be, content byte by byte.
    pub fn check(&self, wal: &Wal) -> Result<Held, String> {
        let found = read_all(wal);
        let crcs: Vec<u32> = found.iter().map(|entry| entry.crc).collect();
        let mut state = self.start.clone();
        let mut held = None;
        for count in 0..=self.changes.len() {
            if count > 0 {
                state.apply(&self.changes[count - 1]);
            }
            if count >= self.acknowledged && state.is(wal, &crcs, self.first_index_max) {
                held = Some(count);
                break;
            }
        }
        let Some(changes) = held else {
            return Err(format!(
                "[{}, {}] is no state from change {} of {} on; {:?}",
                wal.first_index(),
                wal.last_index(),
                self.acknowledged,
                self.changes.len(),
                wal.recovery()
            ));
        };
        let first = (wal.first_index() - state.base) as usize;
        for (entry, expected) in found.iter().zip(&state.entries[first..]) {
            if entry.body != body(expected.index, expected.term, expected.bytes) {
                return Err(format!("entry {} has another body", expected.index));
            }
        }
        let meta = self.check_meta(wal, changes)?;
        Ok(Held { changes, meta })
    }

    fn check_meta(&self, wal: &Wal, changes: usize) -> Result<u64, String> {
        let meta = wal.meta().map_or(0, |value| {
            u64::from_le_bytes(value[..8].try_into().unwrap())
        });
        let came_before = |before: &&usize| **before < changes;
        let needed = self.metas.iter().take_while(came_before).count() as u64;
        let needed = (self.metas_before + needed).max(self.meta_acknowledged);
        if (needed..=self.meta_last()).contains(&meta) {
            Ok(meta)
        } else {
            Err(format!(
                "meta value {meta} is not in [{needed}, {}]",
                self.meta_last()
            ))
        }
    }
}
