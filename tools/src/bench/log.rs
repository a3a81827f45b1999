//! A log kept busy: so many appends waiting at any time, each timed from the turn of the loop that
//! appended it to the event that says it is durable.
//!
//! The owner's loop is that of a server: it appends in turns of bounded size, submits and polls in each, and
//! sleeps only when nothing may be appended. One thread does it all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{AppendError, ChangeError, Wal};
use hdrhistogram::Histogram;

use super::{histogram, record};

/// Bytes appended in one turn of the loop before the log is asked to submit and poll.
const TURN_BYTES: usize = 64 << 10;

/// A flush started no later than this after the one before it ended follows it back to back.
pub const BACK_TO_BACK: Duration = Duration::from_micros(50);

/// A call that took longer did sleep.
const ASLEEP: Duration = Duration::from_micros(20);

/// What one run of the log showed.
#[derive(Clone, Debug)]
pub struct LogRun {
    /// Appends that became durable while the clock ran.
    pub appends: u64,
    /// How long it ran.
    pub elapsed: Duration,
    /// Processor time of the whole process in it.
    pub processor: Duration,
    /// Bytes of encoded batches.
    pub payload_bytes: u64,
    /// Bytes written for them, headers and padding included.
    pub written_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Flushes that were started while another ran, or soon after the last had ended.
    pub back_to_back: u64,
    /// Time with no flush in flight, at most.
    pub idle: Duration,
    /// Flushes started.
    pub starts: u64,
    /// The time each flush took, as its owner saw it, added up.
    pub in_flight: Duration,
    /// Segments begun.
    pub rolls: u64,
    /// Every append, nanoseconds.
    pub latency: Histogram<u64>,
    /// Those that were waiting while a segment ended; also in `latency`.
    pub around_rolls: Histogram<u64>,
}

impl LogRun {
    fn new() -> Self {
        Self {
            appends: 0,
            elapsed: Duration::ZERO,
            processor: Duration::ZERO,
            payload_bytes: 0,
            written_bytes: 0,
            flushes: 0,
            back_to_back: 0,
            idle: Duration::ZERO,
            starts: 0,
            in_flight: Duration::ZERO,
            rolls: 0,
            latency: histogram(),
            around_rolls: histogram(),
        }
    }

    /// Bytes of a flush on average; 0 if there was none.
    #[must_use]
    pub fn flush_bytes(&self) -> u64 {
        self.written_bytes.checked_div(self.flushes).unwrap_or(0)
    }

    /// Flushes in flight on average over time.
    #[must_use]
    pub fn in_flight_mean(&self) -> f64 {
        self.in_flight.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Why a run could not be finished.
#[derive(Debug)]
pub enum LogError {
    /// An append was refused.
    Append(AppendError),
    /// The log failed.
    Change(ChangeError),
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Append(error) => error.fmt(f),
            Self::Change(error) => error.fmt(f),
        }
    }
}

impl From<AppendError> for LogError {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl From<ChangeError> for LogError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

/// Appends of one turn that wait. They are timed from the turn's beginning, so that the clock, which costs as
/// much as an append, is read once.
struct Waiting {
    since: Instant,
    rolls: u64,
    count: u64,
}

/// Whether the disk had something to do, as far as the owner can know: a flush ended at the earliest right
/// after it was last seen running.
struct Occupation {
    seen_running: Instant,
    started: u64,
    completed: u64,
}

impl Occupation {
    /// What was started at `asked_at`, if anything was.
    fn after_submit(&mut self, wal: &Wal, asked_at: Instant, run: &mut LogRun) {
        let started = wal.statistics().groups_started;
        let new = started - self.started;
        if new == 0 {
            return;
        }
        let before = self.started - self.completed;
        run.starts += new;
        run.back_to_back += new;
        if before == 0 {
            let gap = asked_at - self.seen_running;
            run.idle += gap;
            run.back_to_back -= u64::from(gap > BACK_TO_BACK);
        }
        self.started = started;
        self.seen_running = Instant::now();
    }

    /// Sleeps until something ends; if it slept at all, that was running until now.
    fn wait(&mut self, wal: &mut Wal) {
        let since = Instant::now();
        wal.wait();
        if since.elapsed() > ASLEEP {
            self.seen_running = Instant::now();
        }
    }

    fn after_poll(&mut self, wal: &Wal, looked_at: Instant) {
        self.completed = wal.statistics().groups;
        if self.completed < self.started {
            self.seen_running = looked_at;
        }
    }
}

/// A log under load.
pub struct Driver<'a> {
    wal: &'a mut Wal,
    template: BatchHeader,
    body: &'a [u8],
    waiting_max: u64,
    waiting: VecDeque<Waiting>,
    waiting_count: u64,
    run: LogRun,
    occupation: Occupation,
}

impl<'a> Driver<'a> {
    /// Keeps `waiting_max` appends of `body` waiting in `wal`.
    #[must_use]
    pub fn new(wal: &'a mut Wal, body: &'a [u8], waiting_max: u32) -> Self {
        let mut template = BatchHeader::new(EntryKind::Data, body, 1);
        template.term = 1;
        let statistics = wal.statistics();
        Self {
            wal,
            template,
            body,
            waiting_max: waiting_max.into(),
            waiting: VecDeque::with_capacity(waiting_max as usize),
            waiting_count: 0,
            run: LogRun::new(),
            occupation: Occupation {
                seen_running: Instant::now(),
                started: statistics.groups_started,
                completed: statistics.groups,
            },
        }
    }

    /// Warms up for a tenth of `time`, counts for `time`, then lets what waits become durable.
    ///
    /// # Errors
    /// [`LogError`] when the log refuses or fails; a full disk is one.
    pub fn run(mut self, time: Duration) -> Result<LogRun, LogError> {
        self.drive(time / 10)?;
        self.run = LogRun::new();
        let before = self.wal.statistics();
        let (started, processor) = (Instant::now(), processor_time());
        self.drive(time)?;
        self.run.elapsed = started.elapsed();
        self.run.processor = processor_time().saturating_sub(processor);
        let after = self.wal.statistics();
        self.run.flushes = after.groups - before.groups;
        self.run.payload_bytes = after.payload_bytes - before.payload_bytes;
        self.run.written_bytes = after.written_bytes - before.written_bytes;
        self.run.rolls = after.rolls - before.rolls;
        self.run.in_flight = Duration::from_micros(after.flush_us_sum - before.flush_us_sum);
        self.wal.flush(&mut Vec::new())?;
        self.give_up_old()?;
        Ok(self.run)
    }

    fn drive(&mut self, time: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + time;
        let mut events = Vec::new();
        while Instant::now() < deadline {
            let is_full = self.append_turn()?;
            let asked_at = Instant::now();
            self.wal.submit();
            self.occupation
                .after_submit(self.wal, asked_at, &mut self.run);
            if is_full {
                self.occupation.wait(self.wal);
            }
            let looked_at = Instant::now();
            self.wal.poll(&mut events);
            events.clear();
            self.occupation.after_poll(self.wal, looked_at);
            self.take_durable();
            self.give_up_old()?;
        }
        Ok(())
    }

    /// Appends as much as may wait, within one turn; true if nothing more may wait.
    fn append_turn(&mut self) -> Result<bool, LogError> {
        let wanted = self.waiting_max - self.waiting_count;
        let count = wanted.min((TURN_BYTES / self.body.len().max(1)).max(1) as u64);
        if count == 0 {
            return Ok(true);
        }
        self.waiting.push_back(Waiting {
            since: Instant::now(),
            rolls: self.wal.statistics().rolls,
            count,
        });
        let mut header = self.template.clone();
        header.index = self.wal.last_index();
        for _ in 0..count {
            header.index += 1;
            self.wal.append(&mut header, self.body)?;
        }
        self.waiting_count += count;
        Ok(count == wanted)
    }

    fn take_durable(&mut self) {
        let mut done = self.waiting_count - (self.wal.last_index() - self.wal.durable_index());
        self.waiting_count -= done;
        self.run.appends += done;
        let (now, rolls) = (Instant::now(), self.wal.statistics().rolls);
        while done > 0 {
            let Some(oldest) = self.waiting.front_mut() else {
                return;
            };
            let count = oldest.count.min(done);
            let latency = now - oldest.since;
            record(&mut self.run.latency, latency, count);
            if rolls != oldest.rolls {
                record(&mut self.run.around_rolls, latency, count);
            }
            done -= count;
            oldest.count -= count;
            if oldest.count == 0 {
                self.waiting.pop_front();
            }
        }
    }

    /// Old segments are used again, as they are in a log that is trimmed.
    fn give_up_old(&mut self) -> Result<(), LogError> {
        if self.wal.statistics().segments > 2 {
            self.wal.truncate_prefix(self.wal.durable_index() + 1)?;
        }
        Ok(())
    }
}

/// Processor time that this process has used.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
