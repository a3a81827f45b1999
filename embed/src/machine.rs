//! A machine on a node: proposes commands, follows them, answers queries.
//!
//! Three parties work for it: a thread that owns the state and does nothing but apply, answer and restore
//! (`machine/worker.rs`); a task that follows the log of commands on this node's own replica (`machine/follow.rs`);
//! a task that has snapshots made when there are many commands (`machine/keep.rs`).

mod follow;
mod keep;
mod worker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use drave_client::{Batcher, BatcherOptions, Client, ClientError, Log};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::envelope::{self, Origin};
use crate::{MachineError, Node, ProposeError, QueryError, StateMachine};
use worker::Work;

/// Pieces of work that wait for the thread of the state. With the bounds of `follow`, commands of at most 48 MiB wait
/// there, and usually 16.
const WORK_MAX: usize = 16;

/// How a machine is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MachineOptions {
    /// The machine's name, the same on every node. Its logs are `NAME.commands` and `NAME.snapshots`.
    pub name: String,
    /// A snapshot is taken when this many commands are not in the last one.
    pub snapshot_commands: u64,
    /// Likewise for the bytes of commands that this node applied since then.
    pub snapshot_bytes: u64,
    /// Where files for snapshots are, which have no names and go with the process. Needs room for three snapshots.
    pub temp_dir: PathBuf,
    /// How long a proposal or a query tries.
    pub timeout: Duration,
}

impl MachineOptions {
    /// Snapshots after 100,000 commands or 64 MiB, ten seconds for a proposal.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            snapshot_commands: 100_000,
            snapshot_bytes: 64 << 20,
            temp_dir: std::env::temp_dir(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// How far a machine is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MachineStatus {
    /// Commands that its state holds.
    pub applied: u64,
    /// Bytes of the commands applied since it was started.
    pub applied_bytes: u64,
    /// Snapshots that this node wrote to the log of snapshots since it was started.
    pub snapshots_written: u64,
    /// Times that the state was taken from a snapshot since it was started.
    pub restored: u64,
    /// Why it stopped.
    pub failed: Option<MachineError>,
}

type Waiting<A> = HashMap<u64, oneshot::Sender<(u64, A)>>;

/// Proposals of this run that wait for their answers, by their numbers.
struct Waiters<A>(Mutex<Waiting<A>>);

impl<A> Waiters<A> {
    fn lock(&self) -> MutexGuard<'_, Waiting<A>> {
        // A map is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a proposal off the waiting ones, however its future ends.
struct Waits<'a, A>(&'a Waiters<A>, u64);

impl<A> Drop for Waits<'_, A> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

struct Shared<M: StateMachine> {
    commands: Log,
    batcher: Batcher,
    work: mpsc::Sender<Work<M>>,
    waiters: Arc<Waiters<M::Answer>>,
    status: watch::Receiver<MachineStatus>,
    run: u64,
    next_number: AtomicU64,
    timeout: Duration,
    tasks: [JoinHandle<()>; 2],
}

impl<M: StateMachine> Drop for Shared<M> {
    fn drop(&mut self) {
        // The thread ends when nobody is left to send it work.
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A state machine that this node keeps. Clones share it; it is stopped when the last one is dropped.
pub struct Machine<M: StateMachine> {
    shared: Arc<Shared<M>>,
}

impl<M: StateMachine> Clone for Machine<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: StateMachine> Machine<M> {
    /// Starts a machine on a node of this process, from the last snapshot that the node knows of, and follows the
    /// commands from there. Returns when the machine's logs exist; commands are applied from then on, so
    /// [`query`](Self::query) may have to wait at first.
    ///
    /// `machine` is the state before the first command. Needs a tokio runtime with time and I/O, which may be any
    /// but the node's.
    ///
    /// # Errors
    /// [`MachineError::Client`] when no leader was found within the client's request timeout;
    /// [`MachineError::File`] when no thread can be had.
    pub async fn start(
        node: &Node,
        options: MachineOptions,
        machine: M,
    ) -> Result<Self, MachineError> {
        let client = Client::builder()
            .endpoints([node.address()])
            .request_timeout(options.timeout)
            .build()?;
        let commands_name = format!("{}.commands", options.name);
        let snapshots_name = format!("{}.snapshots", options.name);
        for name in [&commands_name, &snapshots_name] {
            client.create_log(name, true).await?;
        }
        let commands = client.log(&commands_name).await?;
        let run = random().map_err(|error| MachineError::File(error.to_string()))?;

        let (work, queue) = mpsc::channel(WORK_MAX);
        let (told, status) = watch::channel(MachineStatus::default());
        let told = Arc::new(told);
        let waiters = Arc::new(Waiters(Mutex::default()));
        let worker = worker::Worker {
            machine,
            run,
            commands_name: commands_name.clone(),
            applied: 0,
            told: Arc::clone(&told),
            waiters: Arc::clone(&waiters),
        };
        thread::Builder::new()
            .name(format!("drave-machine-{}", options.name))
            .spawn(move || worker.run(queue))
            .map_err(|error| MachineError::File(error.to_string()))?;
        let follow = follow::Follow {
            replica: client.replica(node.node_id()),
            commands_name,
            snapshots_name: snapshots_name.clone(),
            temp_dir: options.temp_dir.clone(),
            work: work.clone(),
            told: Arc::clone(&told),
        };
        let keep = keep::Keep {
            commands: commands.clone(),
            snapshots: client.log(&snapshots_name).await?,
            client,
            node_id: node.node_id(),
            work: work.clone(),
            told,
            status: status.clone(),
            options: options.clone(),
        };
        let shared = Shared {
            batcher: commands.batcher(BatcherOptions::default()),
            commands,
            work,
            waiters,
            status,
            run,
            next_number: AtomicU64::new(0),
            timeout: options.timeout,
            tasks: [tokio::spawn(follow.run()), tokio::spawn(keep.run())],
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Proposes a command and gives what it answered when this node applied it. By then it is on stable storage on a
    /// majority of the nodes, in the state of this one, and in the order of all commands at one place.
    ///
    /// Commands that are proposed at the same time, through whichever clone, may be applied in either order; one
    /// proposed after another's answer comes behind it. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// [`ProposeError`], which says whether the command may still be applied.
    pub async fn propose(&self, command: impl AsRef<[u8]>) -> Result<M::Answer, ProposeError> {
        let shared = &*self.shared;
        let deadline = Instant::now() + shared.timeout;
        self.check()?;
        let number = shared.next_number.fetch_add(1, Ordering::Relaxed);
        let origin = Origin {
            run: shared.run,
            number,
        };
        let (answer, mut answered) = oneshot::channel();
        shared.waiters.lock().insert(number, answer);
        let _waits = Waits(&shared.waiters, number);
        let record = envelope::encode(origin, command.as_ref());
        let append = shared.batcher.append(record);
        let written = tokio::select! {
            biased;
            // The command may be applied here before its acknowledgement has come back.
            Ok((_, answer)) = &mut answered => return Ok(answer),
            written = append => written,
        };
        match written {
            Ok(seq) => match timeout_at(deadline, answered).await {
                Ok(Ok((_, answer))) => Ok(answer),
                Ok(Err(_)) => Err(self.stopped().into()),
                Err(_) => Err(ProposeError::Unanswered { seq }),
            },
            Err(error) if error.has_no_side_effects() => Err(ProposeError::NotWritten(error)),
            Err(error) => match timeout_at(deadline, answered).await {
                Ok(Ok((_, answer))) => Ok(answer),
                _ => Err(ProposeError::Unknown(error)),
            },
        }
    }

    /// Asks the state, as of now: the answer knows of every command that was answered to anybody, on whichever node,
    /// before the query began (linearizable; the leader is asked where the log of commands ends).
    ///
    /// `ask` runs on the thread of the state: commands and other queries wait for it.
    ///
    /// # Errors
    /// [`QueryError`]
    pub async fn query<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, QueryError> {
        let deadline = Instant::now() + self.shared.timeout;
        self.check()?;
        let wanted = self.shared.commands.check_tail().await?.next_seq;
        let mut status = self.shared.status.clone();
        let reached = status.wait_for(|it| it.applied >= wanted || it.failed.is_some());
        let applied = match timeout_at(deadline, reached).await {
            Ok(Ok(status)) => match &status.failed {
                Some(failed) => return Err(failed.clone().into()),
                None => status.applied,
            },
            Ok(Err(_)) => return Err(MachineError::Stopped.into()),
            Err(_) => self.status().applied,
        };
        if applied < wanted {
            return Err(QueryError::Behind { applied, wanted });
        }
        self.query_local(ask).await
    }

    /// Asks the state that this node has, which may be behind that of others, without asking anybody.
    ///
    /// # Errors
    /// [`QueryError::Machine`]
    pub async fn query_local<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, QueryError> {
        let (answer, answered) = oneshot::channel();
        let ask = Box::new(move |machine: &M| {
            // Nobody waits any more when this fails.
            let _ = answer.send(ask(machine));
        });
        let sent = self.shared.work.send(Work::Query(ask)).await;
        if sent.is_err() {
            return Err(self.stopped().into());
        }
        answered.await.map_err(|_| self.stopped().into())
    }

    /// How far the machine is on this node.
    #[must_use]
    pub fn status(&self) -> MachineStatus {
        self.shared.status.borrow().clone()
    }

    /// Waits until this node's state holds `commands` commands.
    ///
    /// # Errors
    /// [`MachineError`] when the machine stopped before.
    pub async fn applied(&self, commands: u64) -> Result<(), MachineError> {
        let mut status = self.shared.status.clone();
        let reached = status.wait_for(|it| it.applied >= commands || it.failed.is_some());
        match reached.await.map(|status| status.failed.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(failed)) => Err(failed),
            Err(_) => Err(MachineError::Stopped),
        }
    }

    /// Stops the machine on this node, and waits until its state is dropped. Clones get
    /// [`MachineError::Stopped`] from then on; the node goes on.
    pub async fn stop(self) {
        for task in &self.shared.tasks {
            task.abort();
        }
        // An error means that the thread is gone already.
        let _ = self.shared.work.send(Work::Stop).await;
        self.shared.work.closed().await;
    }

    fn check(&self) -> Result<(), MachineError> {
        match &self.shared.status.borrow().failed {
            Some(failed) => Err(failed.clone()),
            None if self.shared.work.is_closed() => Err(MachineError::Stopped),
            None => Ok(()),
        }
    }

    fn stopped(&self) -> MachineError {
        self.check().err().unwrap_or(MachineError::Stopped)
    }
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    // Eight bytes are never given in part.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether asking again later may help.
fn may_pass(error: &ClientError) -> bool {
    error.is_retryable()
}
