//! The engine on io_uring: a ring of its own, several durable writes in flight, no thread for them.
//!
//! Where the file system takes writes past the page cache, one durable write is one request; else it is a
//! write, and when that has completed a flush: a flush in the same submission would not cover it.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use io_uring::{IoUring, opcode, squeue, types};

use super::disk::Directory;
use super::posix::random_u64;
use super::worker::{Done, Mailbox, OPERATIONS_MAX, Opened, Worker};
use super::{Completion, Engine, Operation, Source, Target};
use crate::buffer::Blocks;
use crate::format::{BLOCK_BYTES, FileName};

/// How often a request is made again when the kernel says it is out of something for the moment.
const RETRIES_MAX: u32 = 64;

/// How long to wait for anything to complete, before what the kernel has not taken is offered to it again.
const REFUSED_PAUSE_US: u64 = 1_000;

/// A durable write under way; keeps memory and file alive until the kernel is done with them.
struct Flight {
    number: u64,
    file: Arc<File>,
    offset: u64,
    blocks: Blocks,
    written: usize,
    retries: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Writing,
    /// Written; the flush is not with the kernel yet.
    Written,
    Flushing,
}

/// What is next for a flight whose request came back.
enum Next {
    Again,
    Done(io::Result<()>),
}

/// See the module.
pub(crate) struct UringEngine {
    ring: IoUring,
    directory: Arc<Directory>,
    mailbox: Arc<Mailbox>,
    worker: Worker,
    opened: Opened,
    /// By slot, which is the request's user data.
    flights: Vec<Option<Flight>>,
    /// Slots whose next request is not in the ring yet.
    ready: VecDeque<usize>,
    helpers: usize,
    /// Nothing was under way when the eventfd was read last.
    is_drained: bool,
    done: Vec<Done>,
    direct: bool,
    reason: String,
    clock: Instant,
}

/// Makes a ring if this process may.
///
/// # Errors
/// What the system says: `EPERM` where io_uring is forbidden, `ENOSYS` where it does not exist.
pub(crate) fn probe() -> io::Result<IoUring> {
    let entries = OPERATIONS_MAX as u32;
    // A hint that older kernels refuse: completions need not interrupt the owner.
    let ring = match IoUring::builder().setup_coop_taskrun().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries)?,
        result => result?,
    };
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    // Registered again by the engine; here it is part of the question whether the ring can be used.
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    ring.submitter().register_eventfd(event.as_raw_fd())?;
    ring.submitter().unregister_eventfd()?;
    if probe.is_supported(opcode::Write::CODE) && probe.is_supported(opcode::Fsync::CODE) {
        Ok(ring)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

impl UringEngine {
    pub(crate) fn new(ring: IoUring, directory: Directory) -> io::Result<Self> {
        let direct = directory.direct_works();
        let directory = Arc::new(directory);
        let mailbox = Mailbox::new()?;
        ring.submitter()
            .register_eventfd(mailbox.event_fd().as_raw_fd())?;
        let worker = Worker::start(&directory, &mailbox, direct)?;
        let how = if direct {
            "O_DIRECT|O_DSYNC writes"
        } else {
            "buffered writes and fdatasync (the file system refuses O_DIRECT)"
        };
        Ok(Self {
            ring,
            directory,
            mailbox,
            worker,
            opened: Opened::default(),
            flights: (0..OPERATIONS_MAX).map(|_| None).collect(),
            ready: VecDeque::new(),
            helpers: 0,
            is_drained: false,
            done: Vec::new(),
            direct,
            reason: format!("io_uring is allowed; {how}"),
            clock: Instant::now(),
        })
    }

    /// Puts requests into the ring as long as it takes them.
    fn fill_ring(&mut self) {
        for _ in 0..self.ready.len() {
            let slot = self.ready[0];
            if self.must_wait(slot) {
                self.ready.rotate_left(1);
                continue;
            }
            let flight = self.flights[slot].as_mut().expect("a ready slot is in use");
            let entry = request(flight).user_data(slot as u64);
            // SAFETY: the buffer and the file live in `self.flights` until the completion is reaped; `drop`
            // waits for that too.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                return;
            }
            if flight.stage == Stage::Written {
                flight.stage = Stage::Flushing;
            }
            self.ready.pop_front();
        }
    }

    /// Whether a flight is to be flushed and its file is being flushed already. The kernel tells a failed write
    /// to one flush of an open file only: of two at once, the one whose write was lost may be told nothing.
    fn must_wait(&self, slot: usize) -> bool {
        let own = self.flights[slot].as_ref().expect("a ready slot is in use");
        let flushes_too =
            |other: &Flight| other.stage == Stage::Flushing && Arc::ptr_eq(&own.file, &other.file);
        own.stage == Stage::Written && self.flights.iter().flatten().any(flushes_too)
    }

    /// Whether requests are with the kernel or on their way to it.
    fn writes_under_way(&self) -> bool {
        self.flights.iter().any(Option::is_some)
    }

    /// Takes what the kernel has finished; flights that need another request become ready.
    fn reap(&mut self, completions: &mut Vec<Completion>) {
        // Collected first: what follows needs the rest of `self`.
        let mut reaped = [(0usize, 0i32); OPERATIONS_MAX];
        let mut count = 0;
        for entry in self.ring.completion().take(OPERATIONS_MAX) {
            reaped[count] = (entry.user_data() as usize, entry.result());
            count += 1;
        }
        for (slot, result) in reaped[..count].iter().copied() {
            let flight = self.flights[slot]
                .as_mut()
                .expect("a completion belongs to a slot in use");
            match advance(flight, result, self.direct) {
                Next::Again => self.ready.push_back(slot),
                Next::Done(result) => {
                    let number = flight.number;
                    self.flights[slot] = None;
                    completions.push(Completion { number, result });
                }
            }
        }
    }
}

fn request(flight: &Flight) -> squeue::Entry {
    let file = types::Fd(flight.file.as_raw_fd());
    match flight.stage {
        Stage::Writing => {
            let rest = &flight.blocks[flight.written..];
            opcode::Write::new(file, rest.as_ptr(), rest.len() as u32)
                .offset(flight.offset + flight.written as u64)
                .build()
        }
        Stage::Written | Stage::Flushing => opcode::Fsync::new(file)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
    }
}

/// Takes the result of a flight's request. A short write goes on from the last whole block; only a write
/// that says nothing was done is made again.
fn advance(flight: &mut Flight, result: i32, direct: bool) -> Next {
    if result < 0 {
        let retriable = matches!(-result, libc::EINTR | libc::EAGAIN);
        if retriable && flight.retries < RETRIES_MAX {
            flight.retries += 1;
            return Next::Again;
        }
        return Next::Done(Err(io::Error::from_raw_os_error(-result)));
    }
    if flight.stage == Stage::Flushing {
        return Next::Done(Ok(()));
    }
    if result == 0 {
        return Next::Done(Err(io::ErrorKind::WriteZero.into()));
    }
    let reached = flight.written + result as usize;
    assert!(
        reached <= flight.blocks.len(),
        "the kernel writes no more than it was given"
    );
    if reached < flight.blocks.len() {
        if flight.retries >= RETRIES_MAX {
            return Next::Done(Err(io::ErrorKind::WriteZero.into()));
        }
        flight.retries += 1;
        flight.written = reached / BLOCK_BYTES * BLOCK_BYTES;
        return Next::Again;
    }
    if direct {
        return Next::Done(Ok(()));
    }
    flight.stage = Stage::Written;
    Next::Again
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        // The kernel may still read from the buffers of requests it was given; what it was not given yet
        // never happens.
        let mut completions = Vec::new();
        loop {
            while let Some(slot) = self.ready.pop_front() {
                self.flights[slot] = None;
            }
            if !self.writes_under_way() {
                return;
            }
            if let Err(error) = self.ring.submit_and_wait(1)
                && !matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                )
            {
                // The ring is unusable: leak what it may still refer to rather than free it.
                std::mem::take(&mut self.flights)
                    .into_iter()
                    .flatten()
                    .for_each(std::mem::forget);
                return;
            }
            self.reap(&mut completions);
        }
    }
}

impl Engine for UringEngine {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        self.directory.list()
    }

    fn settle(&mut self, files: &[FileName]) -> io::Result<()> {
        self.directory.settle(files)
    }

    fn source(&self, file: FileName, mapped: bool) -> io::Result<Arc<dyn Source>> {
        self.directory.source(file, mapped)
    }

    fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>> {
        self.directory.medium(file)
    }

    fn start(&mut self, number: u64, operation: Operation) {
        match operation {
            Operation::Write {
                target,
                offset,
                blocks,
            } => {
                let file = self.opened.get(target);
                let free = self.flights.iter().position(Option::is_none);
                let slot = free.expect("fewer writes are under way than there are slots");
                let stage = Stage::Writing;
                let flight = Flight {
                    number,
                    file,
                    offset,
                    blocks,
                    written: 0,
                    retries: 0,
                    stage,
                };
                self.flights[slot] = Some(flight);
                self.ready.push_back(slot);
            }
            other => {
                if let Operation::Retire { segment, .. } = &other {
                    self.opened.remove(Target::Segment(*segment));
                }
                self.helpers += 1;
                self.worker.send(number, other);
            }
        }
    }

    fn submit(&mut self) {
        self.fill_ring();
        if !self.ring.submission().is_empty() {
            // Out of resources or interrupted: the requests stay in the ring and go with the next call.
            let _ = self.ring.submit();
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        // The kernel tells the eventfd after it has posted a completion, which may have been reaped by then:
        // once more is looked after everything has ended, so that it does not stay readable for nothing.
        let idle = self.helpers == 0 && !self.writes_under_way();
        if idle && self.is_drained {
            return;
        }
        self.is_drained = idle;
        // Before the ring is looked at, so that what comes in after makes the eventfd readable again.
        self.mailbox.drain(&mut self.done);
        self.reap(completions);
        self.helpers -= self.done.len();
        for done in self.done.drain(..) {
            if let Some((target, file)) = done.opened {
                self.opened.insert(target, file);
            }
            completions.push(done.completion);
        }
        self.submit();
    }

    fn wait(&mut self, until_us: Option<u64>) {
        self.submit();
        if self.helpers == 0 && !self.writes_under_way() && until_us.is_none() {
            return;
        }
        let mut limit_us = until_us.map(|until_us| until_us.saturating_sub(self.now_us()));
        // What the kernel did not take yet would never complete: the caller comes back and submits again.
        let waits = |slot: &usize| self.must_wait(*slot);
        let all_taken = self.ready.iter().all(waits) && self.ring.submission().is_empty();
        if !all_taken {
            limit_us =
                Some(limit_us.map_or(REFUSED_PAUSE_US, |limit_us| limit_us.min(REFUSED_PAUSE_US)));
        }
        self.mailbox.wait(limit_us);
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.mailbox.event_fd())
    }

    fn now_us(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }

    fn random_u64(&mut self) -> u64 {
        random_u64()
    }
}

#[cfg(test)]
mod tests;
