//! The threads that write for the posix engine, and the bounded queue they take from.
//!
//! Past the page cache each write is durable by itself, so several threads write at once, one write each,
//! and each completion is the flush's. Through the page cache one thread writes and flushes: what waits
//! together for the same file shares one flush.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::buffer::Blocks;
use crate::engine::fault::FaultSwitch;
use crate::engine::worker::{Done, Mailbox, OPERATIONS_MAX};
use crate::engine::{Completion, Target};
use crate::format::BLOCK_BYTES;

/// Threads that write past the page cache: as many as the log has groups in flight unless told otherwise; a
/// fifth write at once gains nothing (ADR 0009).
const DIRECT_THREADS: usize = 4;

/// How often a write is gone on with that was short or that the kernel says to make again.
const RETRIES_MAX: u32 = 64;

/// A write handed over.
pub(super) struct Write {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    pub(super) target: Target,
    pub(super) offset: u64,
    pub(super) blocks: Blocks,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Write>,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    fn push(&self, write: Write) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            waiting.writes.len() < OPERATIONS_MAX,
            "fewer writes are under way than fit"
        );
        waiting.writes.push_back(write);
        drop(waiting);
        self.arrived.notify_one();
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_closed = true;
        drop(waiting);
        self.arrived.notify_all();
    }

    /// Waits for writes and takes up to `count_max`, in order; takes none when the queue is closed and empty.
    fn take(&self, count_max: usize, into: &mut Vec<Write>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.writes.is_empty() && !waiting.is_closed {
            waiting = self
                .arrived
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = waiting.writes.len().min(count_max);
        into.extend(waiting.writes.drain(..count));
    }
}

/// See the module. Dropping it finishes what it was given.
pub(super) struct Writers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts the threads; files are open for `O_DIRECT|O_DSYNC` writes if `direct`.
    pub(super) fn start(
        mailbox: &Arc<Mailbox>,
        direct: bool,
        fault: &FaultSwitch,
    ) -> io::Result<Self> {
        let mut writers = Self {
            queue: Arc::default(),
            threads: Vec::new(),
        };
        for position in 0..if direct { DIRECT_THREADS } else { 1 } {
            let (queue, mailbox) = (Arc::clone(&writers.queue), Arc::clone(mailbox));
            let fault = fault.clone();
            let thread = thread::Builder::new()
                .name(format!("wal-writer-{position}"))
                .spawn(move || write_all(&queue, &mailbox, direct, &fault))?;
            writers.threads.push(thread);
        }
        Ok(writers)
    }

    /// Hands a write over.
    pub(super) fn send(&self, write: Write) {
        self.queue.push(write);
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported by itself; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn write_all(queue: &Queue, mailbox: &Mailbox, direct: bool, fault: &FaultSwitch) {
    let count_max = if direct { 1 } else { OPERATIONS_MAX };
    let mut taken: Vec<Write> = Vec::with_capacity(count_max);
    loop {
        queue.take(count_max, &mut taken);
        if taken.is_empty() {
            return;
        }
        taken.sort_by_key(|write| write.target);
        for group in taken.chunk_by(|left, right| left.target == right.target) {
            fault.before_flush();
            mailbox.post(write_group(group, direct));
        }
        taken.clear();
    }
}

/// Writes everything; then, unless each write was durable by itself, flushes once. If anything fails nothing
/// of it counts: a flush that fails says nothing of which write was lost.
fn write_group(group: &[Write], direct: bool) -> Vec<Done> {
    let written = group
        .iter()
        .try_for_each(|write| {
            write_whole(&write.blocks, write.offset, |bytes, offset| {
                write.file.write_at(bytes, offset)
            })
        })
        .and_then(|()| {
            if direct {
                Ok(())
            } else {
                flush(&group[0].file)
            }
        });
    let completion = |write: &Write| {
        let result = match &written {
            Ok(()) => Ok(()),
            Err(error) => Err(copy_of(error)),
        };
        Done {
            completion: Completion {
                number: write.number,
                result,
            },
            opened: None,
        }
    };
    group.iter().map(completion).collect()
}

/// Writes all of `bytes`. A short write goes on from the last whole block, which is what a file open past the
/// page cache takes; only a write that says nothing was done is made again.
fn write_whole(
    bytes: &[u8],
    offset: u64,
    mut write_at: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut written = 0;
    for _ in 0..=RETRIES_MAX {
        match write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => break,
            Ok(count) if written + count >= bytes.len() => return Ok(()),
            Ok(count) => written = (written + count) / BLOCK_BYTES * BLOCK_BYTES,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::WriteZero.into())
}

fn flush(file: &File) -> io::Result<()> {
    loop {
        match file.sync_data() {
            // Interrupted before it began: nothing was reported and nothing lost.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

#[cfg(test)]
mod tests;
