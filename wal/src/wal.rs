//! The log: a state machine and the engine that moves its bytes, side by side.
//!
//! This is the shell: it hands operations to the engine and completions back, and gives time and random
//! numbers to the machine, which decides everything.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

use drave_batch::{BatchHeader, BatchRef};

use crate::engine::disk::Directory;
use crate::engine::fault::FaultSwitch;
use crate::engine::posix::PosixEngine;
use crate::engine::uring::{UringEngine, probe};
use crate::engine::{Completion, Engine, Source};
use crate::error::{AppendError, ChangeError, OpenError, ReadError};
use crate::event::{Event, RecentFlushes, Statistics};
use crate::format::FileName;
use crate::machine::{Claim, Machine};
use crate::options::{EngineChoice, Options};
use crate::read::{ColdRead, Read, Rows, Slices};
use crate::recover::{RecoveryReport, recover};
use crate::scrub::{DurableEnd, SegmentCheck};
use crate::terms::TermRun;

/// A log of batches under contiguous indexes, owned by one thread.
///
/// Nothing but [`Wal::open`], [`Wal::wait`], [`Wal::flush`] and [`Wal::close`] blocks. Appends are in memory at
/// once and durable when an [`Event::Durable`] says so. Dropping the log waits for what the system is writing,
/// and writes nothing more.
pub struct Wal {
    machine: Machine,
    engine: Box<dyn Engine>,
    report: RecoveryReport,
    reason: String,
    completions: Vec<Completion>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Wal([{}, {}), {})",
            self.first_index(),
            self.last_index() + 1,
            self.engine.name()
        )
    }
}

fn io_failed(path: &Path) -> impl Fn(std::io::Error) -> OpenError + '_ {
    move |source| OpenError::Io {
        operation: "engine start",
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

pub(crate) fn make_engine(dir: &Path, choice: EngineChoice) -> Result<Box<dyn Engine>, OpenError> {
    make_engine_with(dir, choice, probe)
}

/// Chooses an engine; `probe` makes a ring or says why not.
fn make_engine_with(
    dir: &Path,
    choice: EngineChoice,
    probe: impl FnOnce() -> std::io::Result<io_uring::IoUring>,
) -> Result<Box<dyn Engine>, OpenError> {
    let failed = io_failed(dir);
    let why = match choice {
        EngineChoice::Posix => "asked for".to_owned(),
        EngineChoice::Auto | EngineChoice::IoUring => match probe() {
            Ok(ring) => {
                let directory = Directory::open(dir)?;
                return Ok(Box::new(UringEngine::new(ring, directory).map_err(failed)?));
            }
            Err(error) if choice == EngineChoice::IoUring => {
                return Err(OpenError::Engine {
                    reason: format!("io_uring: {error}"),
                });
            }
            Err(error) => format!("io_uring is not available ({error})"),
        },
    };
    Ok(Box::new(
        PosixEngine::new(Directory::open(dir)?, &why, FaultSwitch::default()).map_err(failed)?,
    ))
}

/// The engine whose flushes do what a file says.
fn make_faulty_engine(dir: &Path, file: &Path) -> Result<Box<dyn Engine>, OpenError> {
    let fault = FaultSwitch::new(Some(file.to_owned()));
    let why = "flushes can be made slow by a file";
    let engine = PosixEngine::new(Directory::open(dir)?, why, fault);
    Ok(Box::new(engine.map_err(io_failed(dir))?))
}

impl Wal {
    /// Opens the log in `dir`, makes an empty one if there is none, and recovers it. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]; a directory that is refused is left as it is.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let options = options.within_limits();
        let engine = match &options.fault_file {
            Some(file) => make_faulty_engine(dir, file)?,
            None => make_engine(dir, options.engine)?,
        };
        Self::open_with(engine, options)
    }

    /// Opens the log that `engine` holds. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open_with(mut engine: Box<dyn Engine>, options: Options) -> Result<Self, OpenError> {
        let (start, report) = recover(engine.as_mut(), options.within_limits())?;
        let reason = engine.reason().to_owned();
        Ok(Self {
            machine: Machine::new(start),
            engine,
            report,
            reason,
            completions: Vec::new(),
        })
    }

    /// `io_uring`, `posix` or `memory`.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Why this engine, and how it makes writes durable, in one line.
    #[must_use]
    pub fn engine_reason(&self) -> &str {
        &self.reason
    }

    /// What recovery found at open.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// Appends a batch of this log's own: sets `header.prev_crc`, encodes and copies once. In memory on
    /// return, durable later.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is appended then.
    pub fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), AppendError> {
        self.machine.append(header, body)
    }

    /// Appends a batch encoded elsewhere, unchanged. The caller has checked its body.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is appended then.
    pub fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), AppendError> {
        self.machine.append_encoded(batch)
    }

    /// Drops entries from `from_index` on, durable or not; the next append has this index. Durable no later
    /// than the first append after it, or by itself if none follows. Reads one entry from a file, which may
    /// block, if the cut is below what is in memory.
    ///
    /// # Errors
    /// [`ChangeError::Index`] outside of `[first_index, last_index + 1]`; see the others.
    pub fn truncate_suffix(&mut self, from_index: u64) -> Result<(), ChangeError> {
        let inside = self.first_index()..self.machine.next_index();
        let base_crc = if inside.contains(&from_index) {
            self.crc_before(from_index)?
        } else {
            0
        };
        self.machine.truncate_suffix(from_index, base_crc)
    }

    /// Lets whole segments go whose entries are all below `first_index_kept`; [`Wal::first_index`] says what
    /// is still held. Their files follow once that is durable.
    ///
    /// # Errors
    /// [`ChangeError::Index`] above `last_index + 1`.
    pub fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), ChangeError> {
        self.machine.truncate_prefix(first_index_kept)
    }

    /// Drops every entry; the log goes on at `next_index`, behind an entry of `term` whose header checksum
    /// is `crc` (a snapshot's last entry). Reported by [`Event::Durable`] with the index `next_index - 1`.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn reset(&mut self, next_index: u64, term: u64, crc: u32) -> Result<(), ChangeError> {
        self.machine.reset(next_index, term, crc)
    }

    /// Replaces the meta value. No entry appended after this call reaches the disk before the value has.
    /// Of several values written in a row only the last need ever be on disk.
    ///
    /// # Errors
    /// [`ChangeError::TooLarge`] above [`Options::META_VALUE_BYTES_MAX`].
    pub fn write_meta(&mut self, value: &[u8]) -> Result<u64, ChangeError> {
        self.machine.write_meta(value)
    }

    /// The last durable meta value; none if none was ever written.
    #[must_use]
    pub fn meta(&self) -> Option<&[u8]> {
        let record = self.machine.meta().durable();
        (record.sequence > 0).then_some(&record.value)
    }

    /// Starts whatever may start. Cheap; called once per turn of the owner's loop.
    pub fn submit(&mut self) {
        let now_us = self.engine.now_us();
        self.machine.pump(now_us, &mut || self.engine.random_u64());
        self.hand_over();
    }

    /// Appends what happened since the last call. Never blocks. What completed may let more start: call
    /// [`Wal::submit`] after it.
    pub fn poll(&mut self, events: &mut Vec<Event>) {
        self.engine.poll(&mut self.completions);
        let now_us = self.engine.now_us();
        for completion in self.completions.drain(..) {
            self.machine.complete(completion, now_us);
        }
        self.machine.report_durable();
        self.machine.take_events(events);
    }

    /// Whether batches of `bytes` in all, at most a segment's half, would be taken now: what
    /// [`Wal::append_encoded`] of several batches that belong together needs to know before the first.
    ///
    /// # Errors
    /// [`AppendError::Full`], [`AppendError::NoSpace`], [`AppendError::Failed`]
    pub fn has_room(&self, bytes: usize) -> Result<(), AppendError> {
        self.machine.has_room(bytes, Claim::Data)
    }

    /// The same for control entries alone, which may use what a full disk keeps back for them: the last
    /// spare segment and a share of the last one.
    ///
    /// # Errors
    /// [`AppendError::Full`], [`AppendError::NoSpace`], [`AppendError::Failed`]
    pub fn has_room_for_control(&self, bytes: usize) -> Result<(), AppendError> {
        self.machine.has_room(bytes, Claim::Control)
    }

    /// Becomes readable when [`Wal::poll`] has something; none for the memory engine.
    #[must_use]
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.engine.event_fd()
    }

    /// Submits, then blocks until [`Wal::poll`] has something, or something may be tried again that a full disk
    /// refused; returns at once if nothing is under way nor waits for that. May return earlier. For tools and tests.
    pub fn wait(&mut self) {
        self.submit();
        self.engine.wait(self.machine.retry_at_us());
    }

    /// Writes and flushes everything, and waits for it; the events go to `events`. Blocks, on a full disk until there
    /// is room for what was taken in.
    ///
    /// # Errors
    /// [`ChangeError::Failed`] if the log has failed, now or before.
    pub fn flush(&mut self, events: &mut Vec<Event>) -> Result<(), ChangeError> {
        loop {
            self.submit();
            self.poll(events);
            if let Some(failure) = self.machine.failure() {
                return Err(ChangeError::Failed(failure.clone()));
            }
            if self.machine.is_flushed() {
                return Ok(());
            }
            self.wait();
        }
    }

    /// Flushes everything and closes the log. Blocks.
    ///
    /// # Errors
    /// As [`Wal::flush`].
    pub fn close(mut self) -> Result<(), ChangeError> {
        self.flush(&mut Vec::new())
    }

    /// Whether nothing is under way, nor waits for anything, background preparation included.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.machine.is_quiet()
    }

    /// The first index held: 1 for a fresh log, the next index for an empty one.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.machine.first_index()
    }

    /// Bytes of the segments that hold no entry from `index` on: what [`Self::truncate_prefix`] there gives back.
    #[must_use]
    pub fn bytes_before(&self, index: u64) -> u64 {
        self.machine.bytes_before(index)
    }

    /// The last index, durable or not; 0 for a fresh log, one below the first for an empty one.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.machine.next_index() - 1
    }

    /// The last entry's header checksum, which the next one's `prev_crc` is; 0 for a fresh log.
    #[must_use]
    pub fn last_crc(&self) -> u32 {
        self.machine.last_crc()
    }

    /// Everything up to this index is durable.
    #[must_use]
    pub fn durable_index(&self) -> u64 {
        self.machine.durable_index()
    }

    /// The term at `index`, for entries held and the one before the first; none outside.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        let known = self.first_index() - 1..self.machine.next_index();
        known
            .contains(&index)
            .then(|| self.machine.terms().at(index))
    }

    /// The terms of the entries held, as runs in index order.
    #[must_use]
    pub fn term_runs(&self) -> Vec<TermRun> {
        self.machine
            .terms()
            .runs(self.first_index(), self.machine.next_index())
    }

    /// Bytes appended and not yet durable.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.machine.queued_bytes()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.machine.statistics()
    }

    /// How long flushes took lately: a disk that has become slow shows here.
    #[must_use]
    pub fn recent_flushes(&self) -> RecentFlushes {
        self.machine.recent_flushes()
    }

    /// The index after the last entry that the disk has been given. What is before it is durable, or being flushed.
    #[must_use]
    pub fn submitted_end(&self) -> u64 {
        self.machine.submitted_end()
    }

    /// Groups flushed since open, and what their flushes took, added up, microseconds.
    #[must_use]
    pub fn flush_totals(&self) -> (u64, u64) {
        self.machine.flush_totals()
    }

    /// Microseconds for which the oldest flush under way has been so, or for which something waits to be
    /// written and nothing has been; 0 if neither is. A disk that hangs shows here.
    #[must_use]
    pub fn flush_waits_us(&self) -> u64 {
        self.machine.flush_waits_us(self.engine.now_us())
    }

    /// Entries of `[lo, hi)`, at least one, at most `bytes_max` bytes beyond that. What is in memory comes at
    /// once, durable or not; older entries as a job for a thread that may block. The result may end before
    /// `hi`; the caller reads on from where it ended.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read(&self, lo: u64, hi: u64, bytes_max: usize) -> Result<Read, ReadError> {
        let (first_index, last_index) = (self.first_index(), self.last_index());
        let hi = hi.min(last_index + 1);
        if lo < first_index {
            return Err(ReadError::Compacted {
                found: lo,
                first_index,
            });
        }
        if lo > last_index {
            return Err(ReadError::Beyond {
                found: lo,
                last_index,
            });
        }
        if lo >= hi {
            return Err(ReadError::Range { lo, hi });
        }
        let tail = self.machine.tail();
        if lo >= tail.first_index() {
            let (hi, bytes, pieces) = tail.read(lo, hi, bytes_max);
            return Ok(Read::Ready(Slices {
                lo,
                hi,
                bytes,
                pieces,
            }));
        }
        let hi = hi.min(tail.first_index());
        self.cold_read(lo, hi, bytes_max).map(Read::Cold)
    }

    fn cold_read(&self, lo: u64, hi: u64, bytes_max: usize) -> Result<ColdRead, ReadError> {
        let segments = self.machine.segments();
        let position = segments.partition_point(|segment| segment.hi <= lo);
        let segment = segments
            .get(position)
            .expect("what is not in memory is in a segment");
        let hi = hi.min(segment.hi);
        let sealed = segment.seal_offset.is_some();
        let cached = if sealed {
            &segment.mapped
        } else {
            &segment.unmapped
        };
        let source = open_source(
            self.engine.as_ref(),
            FileName::Segment(segment.name),
            sealed,
            cached,
        )?;
        let rows = match segment.seal_offset {
            Some(offset) => Rows::Seal(offset),
            None => {
                let from = segment.rows.partition_point(|row| row.end_index() <= lo);
                let to = segment.rows.partition_point(|row| row.first_index < hi);
                Rows::Known(segment.rows[from..to].to_vec())
            }
        };
        Ok(ColdRead {
            source,
            name: segment.name,
            seed: segment.seed,
            rows,
            lo,
            hi,
            bytes_max,
        })
    }

    /// The first segment with a number of at least `segment_seq`, to be checked against its medium while the log goes
    /// on; nothing when there is no such segment. Which part of it is durable is settled now. A file that is gone or
    /// cannot be opened is what the check finds.
    #[must_use]
    pub fn check_from(&self, segment_seq: u64) -> Option<SegmentCheck> {
        let segments = self.machine.segments();
        let position = segments.partition_point(|segment| segment.name.segment_seq < segment_seq);
        let segment = segments.get(position)?;
        let durable_index = self.durable_index();
        // A segment is begun when the seal of the one before it is durable (`machine::roll`). In the last one, an entry
        // is durable only if the group that it came with is.
        let last_durable = || {
            let mut rows = segment.rows.iter().rev();
            rows.find(|row| row.first_index <= durable_index)
        };
        let durable_end = match segments.get(position + 1) {
            Some(next) => DurableEnd::Segment {
                end_offset: segment.end_offset,
                next_segment_seq: next.name.segment_seq,
            },
            None => last_durable().map_or(DurableEnd::Nothing, |row| DurableEnd::Group {
                offset: row.offset.into(),
            }),
        };
        let file = FileName::Segment(segment.name);
        let engine = self.engine.as_ref();
        let source = engine.medium(file);
        Some(SegmentCheck::new(
            segment.name,
            self.machine.store_id(),
            durable_end,
            source,
            open_source(engine, file, false, &segment.unmapped).ok(),
        ))
    }

    /// The checksum of entry `index - 1`, which entry `index` names.
    fn crc_before(&self, index: u64) -> Result<u32, ReadError> {
        let slices = match self.read(index, index + 1, 0)? {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run()?,
        };
        let batch = BatchRef::decode(&slices.pieces[0]);
        Ok(batch
            .expect("what a read gives is whole batches")
            .header
            .prev_crc)
    }

    fn hand_over(&mut self) {
        for (number, operation) in self.machine.take_effects() {
            self.engine.start(number, operation);
        }
        self.engine.submit();
    }
}

fn open_source(
    engine: &dyn Engine,
    file: FileName,
    mapped: bool,
    cached: &RefCell<Weak<dyn Source>>,
) -> Result<Arc<dyn Source>, ReadError> {
    if let Some(source) = cached.borrow().upgrade() {
        return Ok(source);
    }
    let failed = |source| ReadError::Io {
        file,
        offset: 0,
        source: Arc::new(source),
    };
    let source = engine.source(file, mapped).map_err(failed)?;
    cached.replace(Arc::downgrade(&source));
    Ok(source)
}

#[cfg(test)]
mod tests;
