//! The engine without io_uring: a thread that writes with `pwrite` and flushes with `fdatasync`.
//!
//! Writes that wait together for the same file share one flush.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::disk::Directory;
use super::worker::{Done, Mailbox, OPERATIONS_MAX, Opened, Worker};
use super::{Completion, Engine, Operation, Source, Target};
use crate::buffer::Blocks;
use crate::format::FileName;

/// A write handed to the thread.
struct Write {
    number: u64,
    file: Arc<File>,
    target: Target,
    offset: u64,
    blocks: Blocks,
}

/// See the module.
pub(crate) struct PosixEngine {
    directory: Arc<Directory>,
    mailbox: Arc<Mailbox>,
    worker: Worker,
    sender: Option<SyncSender<Write>>,
    thread: Option<JoinHandle<()>>,
    opened: Opened,
    under_way: usize,
    done: Vec<Done>,
    reason: String,
    clock: Instant,
}

impl PosixEngine {
    pub(crate) fn new(directory: Directory, why: &str) -> io::Result<Self> {
        let directory = Arc::new(directory);
        let mailbox = Mailbox::new()?;
        let worker = Worker::start(&directory, &mailbox, false)?;
        let (sender, receiver) = sync_channel(OPERATIONS_MAX);
        let own = Arc::clone(&mailbox);
        let thread = thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || write_all(&receiver, &own))?;
        Ok(Self {
            directory,
            mailbox,
            worker,
            sender: Some(sender),
            thread: Some(thread),
            opened: Opened::default(),
            under_way: 0,
            done: Vec::new(),
            reason: format!("{why}; buffered writes and fdatasync on a thread"),
            clock: Instant::now(),
        })
    }
}

impl Drop for PosixEngine {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(receiver: &Receiver<Write>, mailbox: &Mailbox) {
    let mut waiting: Vec<Write> = Vec::with_capacity(OPERATIONS_MAX);
    while let Ok(first) = receiver.recv() {
        waiting.push(first);
        while waiting.len() < OPERATIONS_MAX
            && let Ok(next) = receiver.try_recv()
        {
            waiting.push(next);
        }
        waiting.sort_by_key(|write| write.target);
        for group in waiting.chunk_by(|left, right| left.target == right.target) {
            mailbox.post(write_group(group));
        }
        waiting.clear();
    }
}

/// Writes everything, then flushes once. If anything fails nothing of it counts: a flush that fails says
/// nothing of which write was lost.
fn write_group(group: &[Write]) -> Vec<Done> {
    let written = group
        .iter()
        .try_for_each(|write| write.file.write_all_at(&write.blocks, write.offset))
        .and_then(|()| flush(&group[0].file));
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

    fn start(&mut self, number: u64, operation: Operation) {
        self.under_way += 1;
        match operation {
            Operation::Write {
                target,
                offset,
                blocks,
            } => {
                let file = self.opened.get(target);
                let sender = self.sender.as_ref().expect("the sender lives until drop");
                let write = Write {
                    number,
                    file,
                    target,
                    offset,
                    blocks,
                };
                assert!(
                    sender.try_send(write).is_ok(),
                    "fewer writes are under way than fit"
                );
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

    fn wait(&mut self) {
        if self.under_way > 0 {
            self.mailbox.wait();
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
