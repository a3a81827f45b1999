//! A node's disk by hand: what was written, what is on the platter, and of which flush the node knows.

use std::collections::VecDeque;

use drave::raft::{
    Configuration, ConfigurationAt, EntryId, HardState, Restored, SnapshotMeta, TermRun,
};

/// What is stored at an index.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) term: u64,
    /// As proposed; empty for the core's own entries.
    pub(super) payload: String,
    pub(super) bytes: u32,
    pub(super) configuration: Option<Configuration>,
}

/// Term, vote and a log that begins after `start`.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) hard_state: HardState,
    pub(super) start: SnapshotMeta,
    pub(super) entries: VecDeque<Entry>,
}

impl Image {
    pub(super) fn new(configuration: Configuration) -> Image {
        Image {
            hard_state: HardState::default(),
            start: SnapshotMeta {
                last: EntryId::default(),
                configuration_index: 0,
                configuration,
            },
            entries: VecDeque::new(),
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.start.last.index + self.entries.len() as u64
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let position = index.checked_sub(self.start.last.index + 1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// Every entry with its index.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.start.last.index + 1..).zip(&self.entries)
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::HardState(hard_state) => self.hard_state = hard_state,
            Change::Truncate { from } => {
                let kept = from.saturating_sub(self.start.last.index + 1);
                self.entries.truncate(kept as usize);
            }
            Change::Append { index, entry } => {
                assert!(
                    index == self.last_index() + 1,
                    "the owner appends without gaps"
                );
                self.entries.push_back(entry);
            }
            Change::Compact { start } => {
                while self.start.last.index < start.last.index {
                    self.entries.pop_front();
                    self.start.last.index += 1;
                }
                self.start = start;
            }
            Change::Reset { start } => {
                self.entries.clear();
                self.start = start;
            }
        }
    }

    /// The snapshot that ends at `index`, which is held.
    pub(super) fn snapshot_at(&self, index: u64) -> SnapshotMeta {
        let mut meta = self.start.clone();
        for (at, entry) in self.indexed().take_while(|(at, _)| *at <= index) {
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

    /// What a node that starts from here finds.
    pub(super) fn restored(&self, commit_index_hint: u64) -> Restored {
        let mut term_runs: Vec<TermRun> = Vec::new();
        let mut configurations_appended = Vec::new();
        for (index, entry) in self.indexed() {
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
            first_index: self.start.last.index + 1,
            prev_term: self.start.last.term,
            term_runs,
            last_index: self.last_index(),
            commit_index_hint: commit_index_hint.max(self.start.last.index),
            configuration: self.start.configuration.clone(),
            configuration_index: self.start.configuration_index,
            configurations_appended,
        }
    }
}

/// One write.
#[derive(Clone, Debug)]
pub(super) enum Change {
    HardState(HardState),
    Truncate { from: u64 },
    Append { index: u64, entry: Entry },
    Compact { start: SnapshotMeta },
    Reset { start: SnapshotMeta },
}

/// Which writes a flush covers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Part {
    All,
    HardState,
    /// Log writes, up to this index; never past a hard state that was written before them.
    Log {
        through: u64,
    },
}

/// A flush that is over, of which the node may not know yet.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) hard_state: Option<HardState>,
    /// Last entry covered, and the log's truncation count when it was written.
    pub(super) log: Option<(EntryId, u64)>,
}

/// Writes wait in order; hard states may overtake the log, the log never a hard state.
#[derive(Debug)]
pub(super) struct Disk {
    /// The log as the running node sees it.
    pub(super) written: Image,
    /// What a crash leaves.
    pub(super) durable: Image,
    queue: VecDeque<(Change, u64)>,
    pub(super) completions: VecDeque<Completion>,
}

impl Disk {
    pub(super) fn new(image: Image) -> Disk {
        Disk {
            written: image.clone(),
            durable: image,
            queue: VecDeque::new(),
            completions: VecDeque::new(),
        }
    }

    pub(super) fn write(&mut self, change: Change, truncation_count: u64) {
        self.written.apply(change.clone());
        self.queue.push_back((change, truncation_count));
    }

    /// Whether anything waits for the platter or for the node to be told.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.completions.is_empty()
    }

    /// Brings a part of what waits to the platter. Returns whether there was anything.
    pub(super) fn persist(&mut self, part: Part) -> bool {
        let mut completion = Completion {
            hard_state: None,
            log: None,
        };
        let mut kept = VecDeque::new();
        let mut log_ends = false;
        let mut any = false;
        for (change, truncation_count) in std::mem::take(&mut self.queue) {
            let is_hard_state = matches!(change, Change::HardState(_));
            let covered = match part {
                Part::All => true,
                Part::HardState => is_hard_state,
                Part::Log { through } => {
                    log_ends |= is_hard_state
                        || matches!(change, Change::Append { index, .. } if index > through);
                    !log_ends
                }
            };
            if !covered {
                kept.push_back((change, truncation_count));
                continue;
            }
            any = true;
            match &change {
                Change::HardState(hard_state) => completion.hard_state = Some(*hard_state),
                Change::Append { index, entry } => {
                    let id = EntryId {
                        term: entry.term,
                        index: *index,
                    };
                    completion.log = Some((id, truncation_count));
                }
                Change::Truncate { .. } | Change::Compact { .. } | Change::Reset { .. } => {}
            }
            self.durable.apply(change);
        }
        self.queue = kept;
        if any {
            self.completions.push_back(completion);
        }
        any
    }

    /// Everything that was not flushed is gone.
    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.completions.clear();
        self.written = self.durable.clone();
    }
}
