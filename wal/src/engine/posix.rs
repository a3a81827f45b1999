//! The engine without io_uring: threads that write with `pwrite`.
//!
//! Where the file system takes writes past the page cache, a few threads write `O_DIRECT|O_DSYNC`, as many at
//! once as the ring would have; else one thread writes and flushes with `fdatasync`.

mod writers;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use super::disk::Directory;
use super::fault::FaultSwitch;
use super::worker::{Done, Mailbox, Opened, Worker};
use super::{Completion, Engine, Operation, Source, Target};
use crate::format::FileName;
use writers::{Write, Writers};

/// See the module.
pub(crate) struct PosixEngine {
    directory: Arc<Directory>,
    mailbox: Arc<Mailbox>,
    worker: Worker,
    writers: Writers,
    opened: Opened,
    under_way: usize,
    done: Vec<Done>,
    reason: String,
    clock: Instant,
}

impl PosixEngine {
    pub(crate) fn new(directory: Directory, why: &str, fault: FaultSwitch) -> io::Result<Self> {
        let direct = directory.direct_works();
        let directory = Arc::new(directory);
        let mailbox = Mailbox::new()?;
        let worker = Worker::start(&directory, &mailbox, direct)?;
        let writers = Writers::start(&mailbox, direct, &fault)?;
        let how = if direct {
            "O_DIRECT|O_DSYNC writes on threads"
        } else {
            "buffered writes and fdatasync on a thread (the file system refuses O_DIRECT)"
        };
        Ok(Self {
            directory,
            mailbox,
            worker,
            writers,
            opened: Opened::default(),
            under_way: 0,
            done: Vec::new(),
            reason: format!("{why}; {how}"),
            clock: Instant::now(),
        })
    }
}

impl Engine for PosixEngine {
    fn name(&self) -> &'static str {
        "posix"
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
        self.under_way += 1;
        match operation {
            Operation::Write {
                target,
                offset,
                blocks,
            } => {
                let file = self.opened.get(target);
                self.writers.send(Write {
                    number,
                    file,
                    target,
                    offset,
                    blocks,
                });
            }
            other => {
                if let Operation::Retire { segment, .. } = &other {
                    self.opened.remove(Target::Segment(*segment));
                }
                self.worker.send(number, other);
            }
        }
    }

    fn submit(&mut self) {}

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.under_way == 0 {
            return;
        }
        self.mailbox.drain(&mut self.done);
        self.under_way -= self.done.len();
        for done in self.done.drain(..) {
            if let Some((target, file)) = done.opened {
                self.opened.insert(target, file);
            }
            completions.push(done.completion);
        }
    }

    fn wait(&mut self, until_us: Option<u64>) {
        if self.under_way > 0 || until_us.is_some() {
            let limit_us = until_us.map(|until_us| until_us.saturating_sub(self.now_us()));
            self.mailbox.wait(limit_us);
        }
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

/// From the system's generator; from the process's own hash seeds, which come from there too, if it fails.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        _ => RandomState::new().hash_one(Instant::now()),
    }
}
