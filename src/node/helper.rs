//! The helper thread: work that may block (cold pages of mapped files, snapshot files), off the thread that
//! owns the group. Bounded; who finds it full tries again later.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use drave_wal::{ColdRead, ReadError, Slices};
use tokio::sync::Notify;

use super::entries::EntriesJob;
use crate::raft::{EntryId, NodeId};
use crate::replica::SnapshotPlan;

/// Jobs that may wait.
const JOBS_MAX: usize = 256;

/// What a read is for; comes back with its result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub(crate) enum JobKey {
    /// Entries for a peer.
    Peer {
        /// The peer.
        node_id: u64,
        /// The leader's term when it was asked for: entries of another term are not sent.
        term: u64,
    },
    /// A client's scan.
    Scan(u64),
    /// Old records that are to be carried over.
    Carry,
    /// Entries for a member that repairs its log.
    Entries(EntriesJob),
}

/// A finished job.
pub(crate) enum Finished {
    /// Entries were read.
    Read(JobKey, Result<Slices, ReadError>),
    /// A snapshot of this node's own was stored.
    SnapshotStored(EntryId, std::io::Result<()>),
    /// A snapshot that a leader sent was stored.
    ReceivedStored(EntryId, std::io::Result<()>),
    /// A piece of a snapshot, and the length of the whole.
    SnapshotRead(NodeId, SnapshotPlan, std::io::Result<(Bytes, u64)>),
    /// Snapshots were removed.
    Removed(std::io::Result<()>),
}

type Job<T> = Box<dyn FnOnce() -> T + Send>;

struct Results<T> {
    finished: Mutex<VecDeque<T>>,
    notify: Notify,
}

/// A thread that runs jobs in order. Dropping it lets the running job finish.
pub(crate) struct Helper<T = Finished> {
    jobs: Option<SyncSender<Job<T>>>,
    results: Arc<Results<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Helper<T> {
    /// A thread of this name, which begins with `prepare`.
    pub(crate) fn start(
        name: &str,
        prepare: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(JOBS_MAX);
        let results = Arc::new(Results {
            finished: Mutex::default(),
            notify: Notify::default(),
        });
        let theirs = Arc::clone(&results);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                prepare();
                work(&receiver, &theirs);
            })?;
        Ok(Self {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
        })
    }

    /// Queues any job; `false` when too many wait.
    pub(crate) fn run(&self, job: impl FnOnce() -> T + Send + 'static) -> bool {
        let Some(jobs) = &self.jobs else {
            return false;
        };
        jobs.try_send(Box::new(job)).is_ok()
    }

    /// Waits until a job has finished. Cancel-safe.
    pub(crate) async fn finished(&self) {
        self.results.notify.notified().await;
    }

    /// Takes a finished job.
    pub(crate) fn take(&self) -> Option<T> {
        self.results
            .finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

impl Helper {
    /// Queues a read; `false` when too many jobs wait.
    pub(crate) fn submit(&self, key: JobKey, job: ColdRead) -> bool {
        self.run(move || Finished::Read(key, job.run()))
    }
}

fn work<T>(jobs: &Receiver<Job<T>>, results: &Results<T>) {
    while let Ok(job) = jobs.recv() {
        let finished = job();
        results
            .finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(finished);
        results.notify.notify_one();
    }
}

impl<T> Drop for Helper<T> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}
