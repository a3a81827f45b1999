//! Batches in flight: as fast as they are acknowledged (closed loop), or each at its time (open loop).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use super::sink::{Sink, SinkError};
use super::verify::Acknowledged;
use crate::bench::{histogram, record};

/// How often the caller hears how far it is.
const TICK: Duration = Duration::from_millis(100);

/// What is appended, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Batches unacknowledged at most, over all clients; at least as many as there are clients.
    pub in_flight: u32,
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Records of a batch.
    pub batch_records: u32,
    /// How long it runs before anything counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// Batches per second at constant distances; none for a closed loop.
    pub rate: Option<u32>,
    /// Whether each acknowledgement is kept, to be checked.
    pub is_verified: bool,
    /// Pieces of the time that counts which are told apart; none for the whole alone.
    pub interval: Option<Duration>,
    /// Ends it before its time once true; none for one that runs its time.
    pub end: Option<Arc<AtomicBool>>,
}

impl Plan {
    fn is_over(&self) -> bool {
        let end = self.end.as_ref();
        end.is_some_and(|end| end.load(Ordering::Relaxed))
    }
}

/// A piece of the time that counts.
#[derive(Clone, Debug)]
pub struct Interval<Usage> {
    /// Where it ended, from the beginning of what counts.
    pub end: Duration,
    /// Batches acknowledged in it.
    pub batches: u64,
    /// Nanoseconds until their acknowledgements: half of them, all but one of a thousand, all.
    pub p50: u64,
    /// See above.
    pub p999: u64,
    /// See above.
    pub max: u64,
    /// At its end.
    pub usage: Usage,
}

/// What a run showed; `Usage` is what the caller looked at when it began to count and when it ended.
#[derive(Debug)]
pub struct Measured<Usage> {
    /// Nanoseconds until the acknowledgement. Closed loop: of what was acknowledged in the time that counts, from
    /// its submission. Open loop: of what was due in that time, from when it was due.
    pub latency: Histogram<u64>,
    /// Batches acknowledged in the time that counts.
    pub batches: u64,
    /// That time.
    pub elapsed: Duration,
    /// At its begin and its end.
    pub usage: [Usage; 2],
    /// Of each log, from the first batch on, warm-up and end included; empty unless wanted.
    pub acknowledged: Vec<Vec<Acknowledged>>,
    /// The time that counts in pieces, if wanted.
    pub intervals: Vec<Interval<Usage>>,
}

/// Why a run ended early.
#[derive(Debug)]
pub enum LoadError {
    /// An append failed for good.
    Append(SinkError),
    /// The open loop's thread could not be started.
    Thread(io::Error),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Thread(error)
    }
}

/// What the tasks of a run share; all run on one thread.
struct Shared {
    plan: Plan,
    sink: Sink,
    next_batch: Cell<u64>,
    acknowledged: Cell<u64>,
    /// When counting began; none during the warm-up.
    counting: Cell<Option<Instant>>,
    is_ended: Cell<bool>,
    latency: RefCell<Histogram<u64>>,
    /// Of what was acknowledged since the last interval ended.
    lately: RefCell<Histogram<u64>>,
    notes: RefCell<Vec<Vec<Acknowledged>>>,
    failure: RefCell<Option<SinkError>>,
}

impl Shared {
    fn take_batch(&self) -> u64 {
        let batch = self.next_batch.get();
        self.next_batch.set(batch + 1);
        batch
    }

    /// Appends one batch and notes its acknowledgement; `from` is where its latency begins.
    async fn append(&self, batch: u64, from: Instant) -> Result<(), SinkError> {
        let (log, first_seq) = self.sink.append(&self.plan, batch).await?;
        self.acknowledged.set(self.acknowledged.get() + 1);
        if self.counts(from) {
            record(&mut self.latency.borrow_mut(), from.elapsed(), 1);
        }
        if self.plan.interval.is_some() {
            record(&mut self.lately.borrow_mut(), from.elapsed(), 1);
        }
        if self.plan.is_verified {
            self.notes.borrow_mut()[log].push(Acknowledged { first_seq, batch });
        }
        Ok(())
    }

    /// Whether the latency of a batch that is acknowledged now is of the time that counts.
    fn counts(&self, from: Instant) -> bool {
        let Some(began) = self.counting.get() else {
            return false;
        };
        match self.plan.rate {
            None => !self.is_ended.get(),
            Some(_) => from >= began && from < began + self.plan.duration,
        }
    }

    fn end_interval<Usage>(&self, began: Instant, usage: Usage) -> Interval<Usage> {
        let mut lately = self.lately.borrow_mut();
        let interval = Interval {
            end: began.elapsed(),
            batches: lately.len(),
            p50: lately.value_at_quantile(0.5),
            p999: lately.value_at_quantile(0.999),
            max: lately.max(),
            usage,
        };
        lately.reset();
        interval
    }

    fn fail(&self, error: SinkError) {
        self.is_ended.set(true);
        self.failure.borrow_mut().get_or_insert(error);
    }

    /// One place of a closed loop.
    async fn refill(&self) {
        while !self.is_ended.get() {
            if let Err(error) = self.append(self.take_batch(), Instant::now()).await {
                self.fail(error);
            }
        }
    }
}

/// The times at which batches are due, each sent when it comes, until the receiver is dropped. From a thread of its
/// own: the runtime's timer has a grain of a millisecond, a thread's of some tens of microseconds.
fn due_times(rate: u32) -> io::Result<UnboundedReceiver<Instant>> {
    let (sender, receiver) = unbounded_channel();
    let started = Instant::now();
    let send = move || {
        let dues = (0_u64..).map(|number| started + due_after(number, rate));
        for due in dues {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("due".to_owned()).spawn(send)?;
    Ok(receiver)
}

/// Starts a batch whenever one is due, whatever became of those before it; returns when all are settled.
async fn pace(shared: Rc<Shared>, mut dues: UnboundedReceiver<Instant>) {
    let mut tasks = JoinSet::new();
    while let Some(due) = dues.recv().await {
        if shared.is_ended.get() {
            break;
        }
        let batch = shared.take_batch();
        let place = Rc::clone(&shared);
        tasks.spawn_local(async move {
            if let Err(error) = place.append(batch, due).await {
                place.fail(error);
            }
        });
        while tasks.try_join_next().is_some() {}
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task of a run panics");
    }
}

/// When, after the begin, batch `number` is due.
fn due_after(number: u64, rate: u32) -> Duration {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(nanoseconds as u64)
}

/// Runs `plan` against `sink`. `usage` is asked when counting begins and when it ends;
/// `progress` hears of batches acknowledged so far. To be run on a single-threaded runtime.
///
/// # Errors
/// The first of any append, or that a thread cannot be started.
pub async fn run<Usage>(
    plan: Plan,
    sink: Sink,
    mut usage: impl FnMut() -> Usage,
    progress: impl Fn(u64),
) -> Result<Measured<Usage>, LoadError> {
    let dues = plan.rate.map(due_times).transpose()?;
    let logs = sink.log_count();
    let shared = Rc::new(Shared {
        sink,
        next_batch: Cell::new(0),
        acknowledged: Cell::new(0),
        counting: Cell::new(None),
        is_ended: Cell::new(false),
        latency: RefCell::new(histogram()),
        lately: RefCell::new(histogram()),
        notes: RefCell::new(vec![Vec::new(); logs]),
        failure: RefCell::new(None),
        plan: plan.clone(),
    });
    let local = LocalSet::new();
    let measured = local.run_until(async {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        match dues {
            Some(dues) => {
                tasks.spawn_local(pace(Rc::clone(&shared), dues));
            }
            None => {
                for _ in 0..plan.in_flight {
                    let shared = Rc::clone(&shared);
                    tasks.spawn_local(async move { shared.refill().await });
                }
            }
        }
        until(&shared, started + plan.warm_up, &progress, || ()).await;
        let began = Instant::now();
        let before = (usage(), shared.acknowledged.get());
        shared.counting.set(Some(began));
        shared.lately.borrow_mut().reset();
        let mut intervals = Vec::new();
        let mut next = plan.interval.map(|interval| began + interval);
        let lapse = || {
            if let (Some(interval), Some(end)) = (plan.interval, &mut next)
                && Instant::now() >= *end
            {
                *end += interval;
                intervals.push(shared.end_interval(began, usage()));
            }
        };
        until(&shared, began + plan.duration, &progress, lapse).await;
        shared.is_ended.set(true);
        let (after, elapsed) = (usage(), began.elapsed());
        let batches = shared.acknowledged.get() - before.1;
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task of a run panics");
        }
        (batches, elapsed, [before.0, after], intervals)
    });
    let (batches, elapsed, usage, intervals) = measured.await;
    if let Some(error) = shared.failure.borrow_mut().take() {
        return Err(LoadError::Append(error));
    }
    Ok(Measured {
        latency: shared.latency.replace(histogram()),
        batches,
        elapsed,
        usage,
        acknowledged: shared.notes.take(),
        intervals,
    })
}

/// Waits until `time`, or until an append failed or the run is ended from outside. `lapse` is called now and then.
async fn until(shared: &Shared, time: Instant, progress: impl Fn(u64), mut lapse: impl FnMut()) {
    while !shared.is_ended.get() && !shared.plan.is_over() {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(TICK)).await;
        progress(shared.acknowledged.get());
        lapse();
    }
}
