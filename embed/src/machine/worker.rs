//! The thread that owns the state.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use drave_client::Record;
use tokio::sync::{mpsc, oneshot, watch};

use super::{MachineStatus, Waiters};
use crate::envelope;
use crate::{Command, MachineError, StateMachine};

type Ask<M> = Box<dyn FnOnce(&M) + Send>;

/// What the thread is asked to do, in order.
pub(super) enum Work<M: StateMachine> {
    /// Applies commands that follow those before.
    Apply(Vec<Record>),
    /// Takes the state from a snapshot that holds the commands before this seq.
    Restore(u64, File),
    Query(Ask<M>),
    /// Gives the state, and how many commands it holds.
    Snapshot(oneshot::Sender<(u64, M::Snapshot)>),
    Stop,
}

pub(super) struct Worker<M: StateMachine> {
    pub(super) machine: M,
    pub(super) run: u64,
    pub(super) commands_name: String,
    /// Commands that the state holds.
    pub(super) applied: u64,
    pub(super) told: Arc<watch::Sender<MachineStatus>>,
    pub(super) waiters: Arc<Waiters<M::Answer>>,
}

/// Tells of the end of the thread also when the machine's code panics.
struct TellsEnd<A>(Arc<watch::Sender<MachineStatus>>, Arc<Waiters<A>>);

impl<A> Drop for TellsEnd<A> {
    fn drop(&mut self) {
        self.0.send_modify(|status| {
            status.failed.get_or_insert(MachineError::Stopped);
        });
        self.1.lock().clear();
    }
}

impl<M: StateMachine> Worker<M> {
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Work<M>>) {
        let _tells = TellsEnd(Arc::clone(&self.told), Arc::clone(&self.waiters));
        while let Some(work) = queue.blocking_recv() {
            let done = match work {
                Work::Apply(records) => self.apply(&records),
                Work::Restore(seq, file) => self.restore(seq, file),
                Work::Query(ask) => {
                    ask(&self.machine);
                    Ok(())
                }
                Work::Snapshot(wanted) => {
                    // Nobody waits any more when this fails.
                    let _ = wanted.send((self.applied, self.machine.snapshot()));
                    Ok(())
                }
                Work::Stop => return,
            };
            if let Err(error) = done {
                tracing::error!(log = self.commands_name, %error, "the machine stops");
                self.told.send_modify(|status| status.failed = Some(error));
                return;
            }
        }
    }

    fn apply(&mut self, records: &[Record]) -> Result<(), MachineError> {
        let mut bytes = 0;
        for record in records {
            assert_eq!(
                record.seq, self.applied,
                "commands come in order, each once"
            );
            let decoded = envelope::decode(&record.payload);
            let (origin, payload) = decoded.map_err(|wrong| MachineError::Format {
                log: self.commands_name.clone(),
                seq: record.seq,
                what: wrong.what,
                expected: wrong.expected,
                found: wrong.found,
            })?;
            let answer = self.machine.apply(Command {
                seq: record.seq,
                append_time_us: record.append_time_us,
                payload,
            });
            self.applied += 1;
            bytes += record.payload.len() as u64;
            if origin.run == self.run {
                let waiter = self.waiters.lock().remove(&origin.number);
                // Whoever gave up waiting does not hear of it.
                let _ = waiter.map(|waiter| waiter.send((record.seq, answer)));
            }
        }
        let applied = self.applied;
        self.told.send_modify(|status| {
            status.applied = applied;
            status.applied_bytes += bytes;
        });
        Ok(())
    }

    fn restore(&mut self, seq: u64, file: File) -> Result<(), MachineError> {
        let restored = self.machine.restore(&mut BufReader::new(file));
        restored.map_err(|error| MachineError::Restore {
            seq,
            reason: error.to_string(),
        })?;
        tracing::info!(
            log = self.commands_name,
            seq,
            "machine restored from a snapshot"
        );
        self.applied = seq;
        self.told.send_modify(|status| {
            status.applied = seq;
            status.restored += 1;
        });
        Ok(())
    }
}
