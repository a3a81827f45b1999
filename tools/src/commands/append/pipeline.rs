//! Lines in, acknowledgements out: a submitter and a collector on one task.
//!
//! The submitter takes blocks, cuts them and hands batches to the producer while fewer than the allowed
//! number are unacknowledged. The collector awaits their tickets in order, prints seqs and keeps the books.
//! After the first failure or an interruption nothing more is submitted, but what was is still settled.
//! How a batch travels and is retried belongs to the [`Appender`].

use std::future::Future;
use std::io::{self, Write};
use std::ops::Range;
use std::slice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drave_client::ClientError;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};

use super::progress::Progress;
use super::report::Report;
use crate::lines::{Batcher, Cut, LineBatch, LineSplitter, LongLine};
use crate::output::{DataOutput, at_once};

/// What a batch's acknowledgement says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Acked {
    /// The seq of the first record; the others follow.
    pub first_seq: u64,
    /// Records in the batch.
    pub record_count: u64,
}

/// Where batches go.
pub trait Appender {
    /// What becomes of a batch; must come to an end by itself.
    type Ticket: Future<Output = Result<Acked, ClientError>> + Unpin;

    /// Hands a batch over; may wait for room. Cancel-safe: after an error, or when dropped, none of it
    /// was sent or will be.
    fn submit(&self, records: &[Bytes]) -> impl Future<Output = Result<Self::Ticket, ClientError>>;
}

/// How to cut and how much to keep in flight.
#[derive(Clone, Copy, Debug)]
pub struct PipelineOptions {
    /// Records per batch at most; `None` for whatever is there.
    pub records_max: Option<u32>,
    /// Batches unacknowledged at most.
    pub in_flight_max: u32,
    /// Bytes of a line at most.
    pub record_bytes_max: usize,
    /// After an interruption: how long unacknowledged batches are still waited for.
    pub interrupted_wait: Duration,
}

/// A batch under way.
struct Pending<'a, Ticket> {
    lines: Range<u64>,
    submitted: Instant,
    /// The ticket, or why the batch was not even taken.
    ticket: Result<Ticket, ClientError>,
    _permit: SemaphorePermit<'a>,
}

/// What the submitter brings home.
#[derive(Debug, Default)]
struct Submitted {
    too_long: Vec<LongLine>,
    /// The nodes' limit, when a line was over it.
    record_bytes_max: Option<u64>,
    input_error: Option<io::Error>,
    /// The first line that was neither submitted nor refused for its length, when it stopped early.
    not_sent_from: Option<u64>,
}

/// Appends everything that comes from `blocks`, prints seqs to `output` if there is one, and reports.
///
/// `interrupted` resolves when the user wants to stop.
pub async fn run<A: Appender>(
    appender: &A,
    blocks: mpsc::Receiver<io::Result<Bytes>>,
    options: PipelineOptions,
    output: Option<DataOutput>,
    progress: &mut Progress,
    interrupted: impl Future<Output = ()>,
) -> Report {
    let permits = Semaphore::new(options.in_flight_max as usize);
    let (tickets_in, tickets_out) = mpsc::channel(options.in_flight_max as usize);
    let (stop, stopped) = watch::channel(false);
    let (interruption, interruption_seen) = watch::channel(None);
    let submitter = Submitter {
        appender,
        permits: &permits,
        tickets: tickets_in,
        stopped,
        submitted: Submitted::default(),
    };
    let collector = Collector {
        report: Report::new(options.record_bytes_max as u64),
        output,
        progress,
        stop: &stop,
        give_up_at: interruption_seen,
    };
    let work = async { tokio::join!(submitter.run(blocks, options), collector.run(tickets_out)) };
    let watch_for_interruption = async {
        interrupted.await;
        stop.send_replace(true);
        interruption.send_replace(Some(Instant::now() + options.interrupted_wait));
        std::future::pending::<()>().await;
    };
    let (submitted, mut report) = tokio::select! {
        done = work => done,
        () = watch_for_interruption => unreachable!("it stays pending"),
    };
    report.interrupted = interruption.borrow().is_some();
    report.too_long = submitted.too_long;
    report.record_bytes_max = submitted
        .record_bytes_max
        .unwrap_or(report.record_bytes_max);
    report.input_error = submitted.input_error;
    report.not_sent_from = submitted.not_sent_from;
    report
}

struct Submitter<'a, A: Appender> {
    appender: &'a A,
    permits: &'a Semaphore,
    tickets: mpsc::Sender<Pending<'a, A::Ticket>>,
    stopped: watch::Receiver<bool>,
    submitted: Submitted,
}

impl<A: Appender> Submitter<'_, A> {
    async fn run(
        mut self,
        mut blocks: mpsc::Receiver<io::Result<Bytes>>,
        options: PipelineOptions,
    ) -> Submitted {
        let mut splitter = LineSplitter::new(options.record_bytes_max);
        let mut batcher = Batcher::new(options.records_max);
        let mut cuts = Vec::new();
        loop {
            let block = match blocks.try_recv() {
                Ok(block) => Some(block),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    // The input pauses: what is there goes now.
                    cuts.extend(batcher.cut());
                    if !self.take(&mut cuts).await {
                        break;
                    }
                    tokio::select! {
                        block = blocks.recv() => block,
                        _ = self.stopped.wait_for(|stopped| *stopped) => {
                            self.submitted.not_sent_from = Some(batcher.lines_taken() + 1);
                            break;
                        }
                    }
                }
            };
            let last = !matches!(block, Some(Ok(_)));
            match block {
                Some(Ok(block)) => splitter.push(&block, |line| batcher.push(line, &mut cuts)),
                // A line cut short by an error is no line: only whole ones are appended.
                Some(Err(error)) => {
                    self.submitted.not_sent_from = Some(batcher.lines_taken() + 1);
                    self.submitted.input_error = Some(error);
                }
                None => {
                    if let Some(line) = splitter.finish() {
                        batcher.push(line, &mut cuts);
                    }
                }
            }
            if last {
                cuts.extend(batcher.cut());
            }
            if !self.take(&mut cuts).await || last {
                break;
            }
        }
        self.submitted
    }

    /// Submits what was cut; `false` once nothing more is to be submitted.
    async fn take(&mut self, cuts: &mut Vec<Cut>) -> bool {
        for cut in cuts.drain(..) {
            match cut {
                Cut::TooLong(line) => self.submitted.too_long.push(line),
                Cut::Batch(batch) => {
                    if let Err(line) = self.submit(batch).await {
                        self.submitted.not_sent_from = Some(line);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Submits a batch, and line by line what the nodes' limit, which may be lower than the format's,
    /// does not let through together. Gives the first line that was not submitted because of a stop.
    async fn submit(&mut self, batch: LineBatch) -> Result<(), u64> {
        let LineBatch { lines, records } = batch;
        match self.submit_together(lines.clone(), &records).await {
            Taken::Yes => Ok(()),
            Taken::Stopped => Err(lines.start),
            Taken::TooLarge if records.len() == 1 => Ok(()),
            Taken::TooLarge => {
                for (line, record) in lines.zip(&records) {
                    if let Taken::Stopped = self
                        .submit_together(line..line + 1, slice::from_ref(record))
                        .await
                    {
                        return Err(line);
                    }
                }
                Ok(())
            }
        }
    }

    async fn submit_together(&mut self, lines: Range<u64>, records: &[Bytes]) -> Taken {
        let permit = tokio::select! {
            biased;
            _ = self.stopped.wait_for(|stopped| *stopped) => return Taken::Stopped,
            permit = self.permits.acquire() => permit.expect("the semaphore is never closed"),
        };
        let submitted = Instant::now();
        let ticket = tokio::select! {
            biased;
            ticket = self.appender.submit(records) => ticket,
            _ = self.stopped.wait_for(|stopped| *stopped) => return Taken::Stopped,
        };
        if let Err(ClientError::TooLarge { limit, found, .. }) = ticket {
            if records.len() == 1 {
                self.submitted.too_long.push(LongLine {
                    line: lines.start,
                    bytes: found,
                });
                self.submitted.record_bytes_max = Some(limit);
            }
            return Taken::TooLarge;
        }
        let pending = Pending {
            lines,
            submitted,
            ticket,
            _permit: permit,
        };
        // There are no more permits than places, so this does not wait; the collector outlives this.
        let sent = self.tickets.send(pending).await;
        assert!(
            sent.is_ok(),
            "the collector takes tickets until there are no more"
        );
        Taken::Yes
    }
}

/// What became of an attempt to submit.
enum Taken {
    Yes,
    Stopped,
    TooLarge,
}

struct Collector<'a> {
    report: Report,
    output: Option<DataOutput>,
    progress: &'a mut Progress,
    stop: &'a watch::Sender<bool>,
    /// Set by an interruption: until then outcomes are waited for, by all batches together.
    give_up_at: watch::Receiver<Option<Instant>>,
}

impl Collector<'_> {
    async fn run<T>(mut self, mut tickets: mpsc::Receiver<Pending<'_, T>>) -> Report
    where
        T: Future<Output = Result<Acked, ClientError>> + Unpin,
    {
        let started = Instant::now();
        loop {
            let pending = match tickets.try_recv() {
                Ok(pending) => pending,
                Err(_) => {
                    self.flush().await;
                    match tickets.recv().await {
                        Some(pending) => pending,
                        None => break,
                    }
                }
            };
            let outcome = match pending.ticket {
                Ok(mut ticket) => match at_once(&mut ticket).await {
                    Some(outcome) => outcome,
                    None => {
                        self.flush().await;
                        self.settle(ticket).await
                    }
                },
                Err(error) => Err(error),
            };
            self.report.elapsed = started.elapsed();
            match outcome {
                Ok(acked) => {
                    let latency = pending.submitted.elapsed();
                    self.acknowledged(pending.lines, acked, latency).await;
                }
                Err(error) => {
                    self.stop.send_replace(true);
                    self.report.failed(pending.lines, error);
                }
            }
        }
        if let Some(output) = self.output.take()
            && let Err(error) = output.finish().await
        {
            self.report.output_failed(error);
        }
        self.report
    }

    /// A ticket's outcome; after an interruption it has to come soon.
    async fn settle<T>(&mut self, ticket: T) -> Result<Acked, ClientError>
    where
        T: Future<Output = Result<Acked, ClientError>>,
    {
        let interrupted = async {
            let set = self.give_up_at.wait_for(Option::is_some).await;
            match set.ok().and_then(|set| *set) {
                Some(give_up_at) => tokio::time::sleep_until(give_up_at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = ticket => outcome,
            () = interrupted => {
                let cause = "interrupted before it was answered".to_owned();
                Err(ClientError::Unknown { code: None, cause, attempts: 1 })
            }
        }
    }

    async fn acknowledged(&mut self, lines: Range<u64>, acked: Acked, latency: Duration) {
        assert_eq!(
            acked.record_count,
            lines.end - lines.start,
            "a batch is acknowledged whole"
        );
        self.progress.acknowledged(acked.record_count);
        self.report.acknowledged(lines, acked, latency);
        let Some(output) = &mut self.output else {
            return;
        };
        for seq in acked.first_seq..acked.first_seq + acked.record_count {
            writeln!(output.chunk(), "{seq}").expect("writing to memory cannot fail");
            if let Err(error) = output.settle().await {
                self.output = None;
                self.report.output_failed(error);
                return;
            }
        }
    }

    async fn flush(&mut self) {
        if let Some(output) = &mut self.output
            && let Err(error) = output.flush().await
        {
            self.output = None;
            self.report.output_failed(error);
        }
    }
}

#[cfg(test)]
mod tests;
