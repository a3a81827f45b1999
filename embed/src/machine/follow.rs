//! Follows the log of commands on this node's own replica, from the last snapshot that it knows of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drave_client::{ClientError, ErrorCode, Record, Replica, Tail, TailEvent, TailFrom};
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task;

use super::worker::Work;
use super::{MachineStatus, may_pass};
use crate::snapshot::{CollectError, Collector, Complete};
use crate::{MachineError, StateMachine};

/// Between two attempts while the node does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Commands that go to the thread of the state at once.
const APPLY_MAX: usize = 512;

/// Their bytes, after which no more are added.
const APPLY_BYTES_MAX: usize = 1 << 20;

pub(super) struct Follow<M: StateMachine> {
    pub(super) replica: Replica,
    pub(super) commands_name: String,
    pub(super) snapshots_name: String,
    pub(super) temp_dir: PathBuf,
    pub(super) work: mpsc::Sender<Work<M>>,
    pub(super) told: Arc<watch::Sender<MachineStatus>>,
}

/// Why the commands are not followed just now.
enum Break {
    /// The node does not answer, or does not yet know of the machine.
    Passing(ClientError),
    /// The thread of the state is gone, and has said why.
    Gone,
    Failed(MachineError),
}

impl From<ClientError> for Break {
    fn from(error: ClientError) -> Self {
        match error.code() {
            // A replica that is behind does not have the logs yet, or the records that others have.
            Some(ErrorCode::LogNotFound | ErrorCode::Trimmed) => Self::Passing(error),
            _ if may_pass(&error) => Self::Passing(error),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<MachineError> for Break {
    fn from(error: MachineError) -> Self {
        Self::Failed(error)
    }
}

impl<M: StateMachine> Follow<M> {
    pub(super) async fn run(self) {
        let mut position = 0;
        loop {
            match self.follow(&mut position).await {
                Break::Passing(error) => {
                    tracing::debug!(log = self.commands_name, %error, "commands not followed; trying on");
                    tokio::time::sleep(PAUSE).await;
                }
                Break::Gone => return,
                Break::Failed(error) => {
                    tracing::error!(log = self.commands_name, %error, "the machine stops");
                    self.told.send_modify(|status| status.failed = Some(error));
                    // Whoever waits for an answer hears of it.
                    let _ = self.work.send(Work::Stop).await;
                    return;
                }
            }
        }
    }

    /// Follows until something is in the way. `position` is the next command to apply.
    async fn follow(&self, position: &mut u64) -> Break {
        match self.try_follow(position).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    async fn try_follow(&self, position: &mut u64) -> Result<std::convert::Infallible, Break> {
        let log = self.replica.log(&self.commands_name).await?;
        // At the start, and whenever commands went away under a node that was behind.
        if *position < log.info().first_seq || *position == 0 {
            self.restore(position, log.info().first_seq).await?;
        }
        let mut tail = log.tail(TailFrom::Seq(*position)).await?;
        loop {
            let (records, then) = commands(&mut tail, *position).await?;
            if !records.is_empty() {
                *position += records.len() as u64;
                self.hand(Work::Apply(records)).await?;
            }
            match then {
                Then::More => {}
                Then::Trimmed { first_seq } => {
                    self.restore(position, first_seq).await?;
                    tail = log.tail(TailFrom::Seq(*position)).await?;
                }
                Then::Closed => {
                    let log = self.commands_name.clone();
                    return Err(MachineError::Closed { log }.into());
                }
            }
        }
    }

    async fn hand(&self, work: Work<M>) -> Result<(), Break> {
        self.work.send(work).await.map_err(|_| Break::Gone)
    }

    /// Goes on from the last snapshot if that is further than `position`. Fails when commands from `first_seq` on
    /// are all there is and no snapshot reaches that far.
    async fn restore(&self, position: &mut u64, first_seq: u64) -> Result<(), Break> {
        let complete = self.last_snapshot().await?;
        let found = complete.as_ref().map(|complete| complete.seq);
        if let Some(complete) = complete
            && complete.seq > *position
        {
            *position = complete.seq;
            self.hand(Work::Restore(complete.seq, complete.file))
                .await?;
        }
        if *position < first_seq {
            // Commands are trimmed only when a snapshot that holds them is complete, in the order of the one Raft
            // log that has both: the replica that trimmed them has the snapshot.
            let log = self.commands_name.clone();
            return Err(MachineError::Lost {
                log,
                first_seq,
                found,
            }
            .into());
        }
        Ok(())
    }

    /// The last complete snapshot that this replica knows of.
    async fn last_snapshot(&self) -> Result<Option<Complete>, Break> {
        let log = self.replica.log(&self.snapshots_name).await?;
        let mut reader = log.reader(log.info().first_seq);
        let mut collector = Collector::new(self.temp_dir.clone());
        while let Some(chunk) = reader.next().await? {
            let name = self.snapshots_name.clone();
            let taken = task::spawn_blocking(move || {
                take(&mut collector, &chunk.records, name).map(|()| collector)
            });
            collector = taken.await.map_err(|_| Break::Gone)??;
        }
        Ok(collector.finish())
    }
}

fn take(collector: &mut Collector, records: &[Record], log: String) -> Result<(), MachineError> {
    for record in records {
        match collector.take(&record.payload) {
            Ok(()) => {}
            Err(CollectError::File(error)) => return Err(MachineError::File(error.to_string())),
            Err(CollectError::Wrong(wrong)) => {
                return Err(MachineError::Format {
                    log,
                    seq: record.seq,
                    what: wrong.what,
                    expected: wrong.expected,
                    found: wrong.found,
                });
            }
        }
    }
    Ok(())
}

/// What comes behind the commands that were taken.
enum Then {
    More,
    /// The next ones were trimmed before they were read.
    Trimmed {
        first_seq: u64,
    },
    Closed,
}

/// The next commands from `position` on, as many as there are without waiting.
async fn commands(tail: &mut Tail, position: u64) -> Result<(Vec<Record>, Then), ClientError> {
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    while records.len() < APPLY_MAX && bytes < APPLY_BYTES_MAX {
        let event = if records.is_empty() {
            tail.next().await
        } else {
            match tail.next().now_or_never() {
                Some(event) => event,
                None => break,
            }
        };
        let next = position + records.len() as u64;
        match event {
            Ok(TailEvent::Record(record)) if record.seq == next => {
                bytes += record.payload.len();
                records.push(record);
            }
            Ok(TailEvent::Record(record)) => {
                let first_seq = record.seq;
                return Ok((records, Then::Trimmed { first_seq }));
            }
            Ok(TailEvent::Trimmed { first_seq }) => {
                return Ok((records, Then::Trimmed { first_seq }));
            }
            Ok(TailEvent::Closed { .. }) => return Ok((records, Then::Closed)),
            Ok(_) => {}
            // Told again when it is asked again.
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok((records, Then::More))
}
