//! The helper threads of the real engines: everything that may block and is not a log write.
//!
//! Also the place where completions of any thread meet: a bounded list and an eventfd that says it is not
//! empty. It decides nothing; each thread does its operations one after another in the order they come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, Timespec};

use super::disk::Directory;
use super::{Completion, Operation, Target, steps};

/// Operations that may wait for a helper; the state machine has fewer under way.
pub(crate) const OPERATIONS_MAX: usize = 64;

/// A completion, with the file if it was opened for writing.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) completion: Completion,
    pub(crate) opened: Option<(Target, File)>,
}

/// Files open for writing: the meta file, the active segment, and the one before it, whose seal may still
/// have to be written. Older segments are closed, however many there are.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    files: BTreeMap<Target, Arc<File>>,
}

impl Opened {
    /// The file of a write.
    pub(crate) fn get(&self, target: Target) -> Arc<File> {
        Arc::clone(self.files.get(&target).expect("writes go to opened files"))
    }

    /// Takes a file that was opened.
    pub(crate) fn insert(&mut self, target: Target, file: File) {
        self.files.insert(target, Arc::new(file));
        let segments = |target: &&Target| matches!(target, Target::Segment(_));
        while self.files.keys().filter(segments).count() > 2 {
            // Targets are in the order of the segments' numbers.
            let oldest = self.files.keys().find(segments).copied();
            self.files.remove(&oldest.expect("there are three"));
        }
    }

    /// Closes a file that is retired.
    pub(crate) fn remove(&mut self, target: Target) {
        self.files.remove(&target);
    }
}

/// Where threads leave what is done, and an eventfd that tells the owner.
#[derive(Debug)]
pub(crate) struct Mailbox {
    done: Mutex<Vec<Done>>,
    event: OwnedFd,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            done: Mutex::new(Vec::new()),
            event,
        }))
    }

    pub(crate) fn post(&self, done: impl IntoIterator<Item = Done>) {
        // Under the lock, so that the eventfd is never readable for what was taken already.
        let mut waiting = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(done);
        // The counter cannot overflow; a full one would still be readable, which is all that is needed.
        let _ = rustix::io::write(&self.event, &1u64.to_le_bytes());
    }

    /// Takes what is done, and makes the eventfd unreadable until there is more.
    pub(crate) fn drain(&self, into: &mut Vec<Done>) {
        let mut waiting = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.event, &mut counter);
        into.append(&mut waiting);
    }

    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Blocks until the eventfd is readable, `limit_us` microseconds at most. Without a limit a signal does not end
    /// it.
    pub(crate) fn wait(&self, limit_us: Option<u64>) {
        let mut fds = [rustix::event::PollFd::new(
            &self.event,
            rustix::event::PollFlags::IN,
        )];
        let limit = limit_us.map(|limit_us| Timespec {
            tv_sec: (limit_us / 1_000_000) as i64,
            tv_nsec: (limit_us % 1_000_000 * 1_000) as i64,
        });
        let poll = |fds: &mut [_]| rustix::event::poll(fds, limit.as_ref());
        while let Err(rustix::io::Errno::INTR) = poll(&mut fds) {
            if limit.is_some() {
                // The caller looks at its clock, and comes back for the rest.
                return;
            }
        }
    }
}

/// Threads that do operations for one engine: one for what an append may come to wait for, one for what may
/// take its time (making, renaming and removing files that are not in use), so that the end of a segment
/// never waits behind the filling of a spare. Dropping it finishes what it has been given.
#[derive(Debug)]
pub(crate) struct Worker {
    prompt: Lane,
    patient: Lane,
}

impl Worker {
    /// Starts the threads; segments and meta file are opened past the page cache if `direct`.
    pub(crate) fn start(
        directory: &Arc<Directory>,
        mailbox: &Arc<Mailbox>,
        direct: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            prompt: Lane::start("wal-files", directory, mailbox, direct)?,
            patient: Lane::start("wal-spares", directory, mailbox, direct)?,
        })
    }

    /// Hands an operation over.
    pub(crate) fn send(&self, number: u64, operation: Operation) {
        let lane = match operation {
            Operation::Prepare { .. } | Operation::Retire { .. } | Operation::Remove { .. } => {
                &self.patient
            }
            _ => &self.prompt,
        };
        lane.send(number, operation);
    }
}

/// One of the threads, which does its operations one after another.
#[derive(Debug)]
struct Lane {
    sender: Option<SyncSender<(u64, Operation)>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    fn start(
        name: &str,
        directory: &Arc<Directory>,
        mailbox: &Arc<Mailbox>,
        direct: bool,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<(u64, Operation)>(OPERATIONS_MAX);
        let (mut files, mailbox) = (Arc::clone(directory), Arc::clone(mailbox));
        let work = move || {
            while let Ok((number, operation)) = receiver.recv() {
                mailbox.post([perform(&mut files, number, &operation, direct)]);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    fn send(&self, number: u64, operation: Operation) {
        let sender = self.sender.as_ref().expect("the sender lives until drop");
        sender
            .try_send((number, operation))
            .expect("fewer operations are under way than fit");
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the helper was reported by its own thread; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn perform(files: &mut Arc<Directory>, number: u64, operation: &Operation, direct: bool) -> Done {
    let target = match operation {
        Operation::Activate { segment, .. } | Operation::Open { segment } => {
            Some(Target::Segment(*segment))
        }
        Operation::CreateMeta { .. } | Operation::OpenMeta => Some(Target::Meta),
        _ => None,
    };
    let only_open = matches!(operation, Operation::Open { .. } | Operation::OpenMeta);
    let run = if only_open {
        Ok(())
    } else {
        steps::run(files, operation)
    };
    let mut opened = None;
    let result = run.and_then(|()| {
        if let Some(target) = target {
            opened = Some((target, files.open_for_writing(target.file_name(), direct)?));
        }
        Ok(())
    });
    Done {
        completion: Completion { number, result },
        opened,
    }
}
