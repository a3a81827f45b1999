//! The scrubber: reads the log and the snapshots again from their medium, slowly, so that damage is found while other
//! replicas still have what was lost.
//!
//! A thread of its own, of low priority, checks a piece at a time ([`SegmentCheck`], [`SnapshotCheck`]); this side, on
//! the thread that owns the group, hands out the pieces at the configured rate and remembers how far it came. It only
//! finds damage. What is done about it is `driver::damage`'s.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use drave_batch::wire;
use drave_wal::{Checked, Pace, ReadError, ScrubPosition, SegmentCheck, Wal};

use super::Helper;
use super::snapshots::{SnapshotCheck, SnapshotFiles};
use crate::config::ScrubConfig;
use crate::raft::EntryId;
use crate::replica::Now;

/// The weakest claim to a processor.
const NICE: i32 = 19;

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Entries of the log.
    Log(ReadError),
    /// A stored snapshot.
    Snapshot(EntryId, io::Error),
}

enum Check {
    Segment(Box<SegmentCheck>),
    Snapshot(SnapshotCheck),
}

struct Step {
    check: Check,
    result: Result<Checked, Found>,
}

/// See the module.
pub(super) struct Scrubber {
    helper: Helper<Step>,
    directory: PathBuf,
    store_id: u128,
    bytes_per_second: u64,
    interval_us: u64,
    pace: Pace,
    position: ScrubPosition,
    stored: ScrubPosition,
    /// Snapshots that are left of this pass, once its segments are done.
    snapshots: Option<Vec<SnapshotCheck>>,
    /// The check to go on with.
    current: Option<Check>,
    is_running: bool,
    next_us: u64,
}

impl Scrubber {
    /// Goes on where the log in `directory` was left.
    pub(super) fn start(
        config: &ScrubConfig,
        directory: PathBuf,
        store_id: u128,
        now: Now,
    ) -> io::Result<Self> {
        let helper = Helper::start("drave-scrub", || {
            // Without it scrubbing is as polite as its rate.
            let thread = rustix::thread::gettid();
            let _ = rustix::process::setpriority_process(Some(thread), NICE);
        })?;
        let position = ScrubPosition::load(&directory, store_id);
        let interval_us = config.interval.as_us();
        let is_between_passes = position.passes > 0 && position.segment_seq == 0;
        let due_unix_us = position.last_pass_unix_us.saturating_add(interval_us);
        // A wall clock that was set back makes no wait longer than the interval.
        let wait_us = due_unix_us.saturating_sub(now.unix_us).min(interval_us);
        Ok(Self {
            helper,
            directory,
            store_id,
            bytes_per_second: config.bytes_per_second.0,
            interval_us,
            pace: Pace::new(config.bytes_per_second.0),
            position,
            stored: position,
            snapshots: None,
            current: None,
            is_running: false,
            next_us: now.mono_us + if is_between_passes { wait_us } else { 0 },
        })
    }

    /// When [`Self::turn`] has something to do, but for a piece that is done.
    pub(super) fn deadline_us(&self) -> u64 {
        if self.bytes_per_second == 0 || self.is_running {
            return u64::MAX;
        }
        self.next_us
    }

    /// Waits until a piece is done. Cancel-safe.
    pub(super) fn finished(&self) -> impl Future<Output = ()> {
        self.helper.finished()
    }

    /// Takes what was found, and has the next piece checked if it is time.
    pub(super) fn turn(&mut self, now: Now, wal: &Wal, files: &SnapshotFiles) -> Option<Found> {
        let mut found = None;
        if let Some(Step { check, result }) = self.helper.take() {
            self.is_running = false;
            found = self.take(now, check, result, files);
        }
        if found.is_none() && self.deadline_us() <= now.mono_us {
            self.run_next(now, wal, files);
        }
        found
    }

    fn take(
        &mut self,
        now: Now,
        check: Check,
        result: Result<Checked, Found>,
        files: &SnapshotFiles,
    ) -> Option<Found> {
        let (bytes, is_over) = match &result {
            Ok(Checked::Piece(bytes)) => (*bytes, false),
            Ok(Checked::Whole(bytes)) => (*bytes, true),
            Err(_) => (0, true),
        };
        self.next_us = self.pace.spend(now.mono_us, bytes);
        self.position.bytes += bytes;
        match check {
            check if !is_over => self.current = Some(check),
            Check::Segment(check) => self.position.segment_seq = check.name().segment_seq + 1,
            Check::Snapshot(_) => {}
        }
        let found = result.err()?;
        if let Found::Snapshot(id, _) = &found
            && !files.present().iter().any(|(present, _)| present == id)
        {
            // It was removed meanwhile.
            return None;
        }
        self.position.found += 1;
        // Repairing the log ends this scrubber, so what was found is kept now.
        self.stored = self.position;
        store(self.position, &self.directory, self.store_id);
        Some(found)
    }

    fn run_next(&mut self, now: Now, wal: &Wal, files: &SnapshotFiles) {
        let current = self.current.take();
        let Some(mut check) = current.or_else(|| self.next_check(wal, files)) else {
            return self.end_pass(now);
        };
        let position = (self.stored != self.position).then_some(self.position);
        self.stored = self.position;
        let (directory, store_id) = (self.directory.clone(), self.store_id);
        self.is_running = self.helper.run(move || {
            let result = match &mut check {
                Check::Segment(check) => check.step().map_err(Found::Log),
                Check::Snapshot(check) => {
                    let id = check.id();
                    check.step().map_err(|error| Found::Snapshot(id, error))
                }
            };
            if let Some(position) = position {
                store(position, &directory, store_id);
            }
            Step { check, result }
        });
    }

    fn next_check(&mut self, wal: &Wal, files: &SnapshotFiles) -> Option<Check> {
        if self.snapshots.is_none() {
            if let Some(check) = wal.check_from(self.position.segment_seq) {
                self.position.segment_seq = check.name().segment_seq;
                return Some(Check::Segment(Box::new(check)));
            }
            self.snapshots = Some(files.checks());
        }
        self.snapshots.as_mut()?.pop().map(Check::Snapshot)
    }

    fn end_pass(&mut self, now: Now) {
        let (passes, bytes) = (self.position.passes + 1, self.position.bytes);
        tracing::debug!(bytes, passes, "log and snapshots checked");
        self.snapshots = None;
        self.position = ScrubPosition {
            segment_seq: 0,
            bytes: 0,
            last_pass_unix_us: now.unix_us,
            passes,
            found: self.position.found,
        };
        self.stored = self.position;
        self.next_us = now.mono_us.saturating_add(self.interval_us);
        store(self.position, &self.directory, self.store_id);
    }

    /// What status says of it.
    pub(super) fn status(&self) -> wire::ScrubStatus {
        wire::ScrubStatus {
            bytes_per_second: self.bytes_per_second,
            segment_seq: self.position.segment_seq,
            bytes: self.position.bytes,
            passes: self.position.passes,
            last_pass_unix_us: self.position.last_pass_unix_us,
            found: self.position.found,
        }
    }
}

/// A place that is not kept costs the next start a part of a pass.
fn store(position: ScrubPosition, directory: &std::path::Path, store_id: u128) {
    if let Err(error) = position.store(directory, store_id) {
        tracing::debug!(%error, "the scrubber's place was not stored");
    }
}
