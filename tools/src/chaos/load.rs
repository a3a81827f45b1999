//! The load: producers with several appends in flight, readers, clients that look at tails, and wanderers.
//!
//! All of them are plain users of `drave-client` with all endpoints. A client stays with the leader that it
//! knows, so it rarely meets two at once; a wanderer is a new client for every operation and asks whichever
//! node comes first, so a leader that does not know yet that it was replaced is asked too; and for each node
//! there is a client that insists on it (see `insist`). They live for all rounds, on one thread with a
//! runtime of its own, so that nothing that a round does delays their clocks. Between two rounds everything
//! that was begun is brought to its end.

use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use drave_client::{
    Client, ClientError, ErrorCode, Log, Producer, ProducerOptions, ReadLimits, Ticket,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::insist::Insistent;
use super::random::Random;
use super::recorder::{Acked, Recorder};
use crate::commands::dev::stop_signal;
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::history::{
    Action, Append, AppendOutcome, CheckTail, Operation, Read, ReadOutcome, TailOutcome,
};

/// Producers, each with a client of its own.
const WRITERS: u64 = 4;

const READERS: u64 = 2;

const TAIL_CHECKERS: u64 = 1;

const WANDERERS: u64 = 2;

/// Appends that one producer has under way.
const IN_FLIGHT_MAX: u32 = 8;

const BATCH_RECORDS_MAX: u64 = 4;

/// Every other client gives up early, so that there are unknown outcomes to be held to their word.
const TIMEOUTS: [Duration; 2] = [Duration::from_secs(10), Duration::from_millis(700)];

const READ_RECORDS_MAX: u64 = 200;

/// Pauses between two operations of one client, in microseconds: a load that leaves the machine room.
const WRITER_PAUSE_US: u64 = 6_000;
const READER_PAUSE_US: u64 = 30_000;

/// A payload is the record's id and so many bytes at most; few have more.
const PADDING_BYTES: u64 = 200;
const PADDING_BYTES_LARGE: usize = 16 << 10;

/// The load's thread.
pub struct Load {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<Result<(), CliError>>>,
}

enum Command {
    /// Names of the logs to work on.
    Begin(Vec<String>),
    End(blocking::Sender<Result<(), CliError>>),
}

impl Load {
    /// Starts the thread; it does nothing until a round begins. SIGINT, SIGTERM and SIGHUP interrupt the
    /// recorder.
    ///
    /// # Errors
    /// [`CliError`] when there is no thread to be had.
    pub fn start(endpoints: Vec<String>, seed: u64, recorder: Recorder) -> Result<Self, CliError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                connect::runtime()?.block_on(async {
                    let interrupted = recorder.clone();
                    let stop = stop_signal()?;
                    tokio::spawn(async move {
                        stop.await;
                        interrupted.interrupt();
                    });
                    serve(receiver, &endpoints, seed, &recorder).await
                })
            })
            .map_err(|error| {
                CliError::new(Exit::Failure, "cannot start a thread").why(error.to_string())
            })?;
        Ok(Self {
            commands,
            thread: Some(thread),
        })
    }

    /// Begins to work on these logs, which exist.
    ///
    /// # Errors
    /// [`CliError`] of the thread, if it has ended.
    pub fn begin(&mut self, logs: Vec<String>) -> Result<(), CliError> {
        let sent = self.commands.send(Command::Begin(logs));
        sent.map_err(|_| self.failure())
    }

    /// Begins nothing more, and returns when everything that was begun has its outcome.
    ///
    /// # Errors
    /// [`CliError`] when a client met what no fault explains.
    pub fn end(&mut self) -> Result<(), CliError> {
        let (reply, outcome) = blocking::channel();
        let sent = self.commands.send(Command::End(reply));
        sent.map_err(|_| self.failure())?;
        outcome.recv().map_err(|_| self.failure())?
    }

    fn failure(&mut self) -> CliError {
        let outcome = self.thread.take().map(JoinHandle::join);
        match outcome {
            Some(Ok(Err(error))) => error,
            _ => CliError::new(Exit::Failure, "the load's thread has ended"),
        }
    }
}

/// What one of the clients does over and over.
#[derive(Clone)]
enum Role {
    Write(Producer),
    Read,
    CheckTail,
    Wander,
    /// On the node at this address.
    Insist(String),
}

#[derive(Clone)]
struct Worker {
    number: u64,
    role: Role,
    client: Client,
    /// All nodes, for the clients of a wanderer.
    endpoints: Vec<String>,
    random: Random,
    recorder: Recorder,
    /// The number of its next append.
    producer_seq: u64,
}

async fn serve(
    mut commands: mpsc::UnboundedReceiver<Command>,
    endpoints: &[String],
    seed: u64,
    recorder: &Recorder,
) -> Result<(), CliError> {
    let mut idle = workers(endpoints, seed, recorder)?;
    let mut busy: JoinSet<Result<Worker, CliError>> = JoinSet::new();
    let (stop, stopped) = watch::channel(true);
    while let Some(command) = commands.recv().await {
        match command {
            Command::Begin(names) => {
                stop.send_replace(false);
                for worker in idle.drain(..) {
                    busy.spawn(worker.run(names.clone(), stopped.clone()));
                }
            }
            Command::End(reply) => {
                stop.send_replace(true);
                let mut outcome = Ok(());
                while let Some(ended) = busy.join_next().await {
                    match ended {
                        Ok(Ok(worker)) => idle.push(worker),
                        Ok(Err(error)) => outcome = Err(error),
                        Err(error) => {
                            let failed = CliError::new(Exit::Failure, "a client of the load ended");
                            outcome = Err(failed.why(error.to_string()));
                        }
                    }
                }
                // Whoever asked may have been interrupted.
                drop(reply.send(outcome));
            }
        }
    }
    Ok(())
}

fn workers(endpoints: &[String], seed: u64, recorder: &Recorder) -> Result<Vec<Worker>, CliError> {
    let mut random = Random::new(seed);
    let mut workers = Vec::new();
    let others = WRITERS + READERS + TAIL_CHECKERS + WANDERERS;
    for number in 0..others + endpoints.len() as u64 {
        let client = client(endpoints, TIMEOUTS[(number % 2) as usize])?;
        let role = if number < WRITERS {
            let options = ProducerOptions {
                name: format!("chaos-{number}"),
                in_flight_max: IN_FLIGHT_MAX,
                ..ProducerOptions::default()
            };
            Role::Write(client.producer(options))
        } else if number < WRITERS + READERS {
            Role::Read
        } else if number < WRITERS + READERS + TAIL_CHECKERS {
            Role::CheckTail
        } else if number < others {
            Role::Wander
        } else {
            Role::Insist(endpoints[(number - others) as usize].clone())
        };
        workers.push(Worker {
            number,
            role,
            client,
            endpoints: endpoints.to_vec(),
            random: random.fork(),
            recorder: recorder.clone(),
            producer_seq: 0,
        });
    }
    Ok(workers)
}

fn client(endpoints: &[String], timeout: Duration) -> Result<Client, CliError> {
    Client::builder()
        .endpoints(endpoints.iter().cloned())
        .request_timeout(timeout)
        .build()
        .map_err(|error| client_error("cannot set up a client", &error))
}

impl Worker {
    async fn run(
        mut self,
        names: Vec<String>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Self, CliError> {
        let Some(logs) = self.open(&names, &mut stopped).await else {
            return Ok(self);
        };
        if let Role::Insist(address) = &self.role {
            let insistent = Insistent {
                number: self.number,
                address,
                logs: &logs,
                recorder: &self.recorder,
            };
            insistent.run(&mut self.random, stopped).await;
            return Ok(self);
        }
        let mut in_flight = JoinSet::new();
        let mut tails = vec![0; logs.len()];
        while !*stopped.borrow() {
            let at = self.random.between(0, logs.len() as u64) as usize;
            let log = &logs[at];
            let role = self.role.clone();
            let pause_us_max = match role {
                Role::Write(producer) => {
                    self.append(&producer, log, &mut in_flight).await?;
                    WRITER_PAUSE_US
                }
                Role::Read => {
                    self.read(log, &mut tails[at]).await;
                    READER_PAUSE_US
                }
                Role::CheckTail => {
                    self.check_tail(log).await;
                    READER_PAUSE_US
                }
                // It does not come here.
                Role::Insist(_) => READER_PAUSE_US,
                Role::Wander => {
                    self.wander(log, &mut in_flight).await?;
                    READER_PAUSE_US
                }
            };
            let pause = Duration::from_micros(self.random.between(0, pause_us_max));
            tokio::time::sleep(pause).await;
            while let Some(noted) = in_flight.try_join_next() {
                settled(noted)?;
            }
        }
        while let Some(noted) = in_flight.join_next().await {
            settled(noted)?;
        }
        Ok(self)
    }

    /// Looks the logs up by name, for as long as it takes; none when it was stopped meanwhile.
    async fn open(
        &self,
        names: &[String],
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<Vec<Log>> {
        let mut logs = Vec::new();
        while logs.len() < names.len() {
            if *stopped.borrow() {
                return None;
            }
            if let Ok(log) = self.client.log(&names[logs.len()]).await {
                logs.push(log);
            }
        }
        Some(logs)
    }

    fn operation(&self, log: &Log, invoked_us: u64, action: Action) -> Operation {
        Operation {
            client: self.number,
            invoked_us,
            completed_us: self.recorder.now_us(),
            log: log.id(),
            action,
        }
    }

    /// Submits one append; its outcome is noted when it comes.
    async fn append(
        &mut self,
        producer: &Producer,
        log: &Log,
        in_flight: &mut JoinSet<Result<(), CliError>>,
    ) -> Result<(), CliError> {
        let count = self.random.between(1, BATCH_RECORDS_MAX + 1);
        let payload_id = self.recorder.take_payload_ids(count);
        let ids = payload_id..payload_id + count;
        let records: Vec<Vec<u8>> = ids.map(|id| payload(id, &mut self.random)).collect();
        let producer_seq = self.producer_seq;
        self.producer_seq += 1;
        let invoked_us = self.recorder.now_us();
        let ticket = producer.submit(log.id(), records).await;
        let ticket = ticket.map_err(|error| client_error("an append was not taken", &error))?;
        let worker = self.clone();
        let log = log.clone();
        let append = Append {
            producer: self.number,
            producer_seq,
            payload_id,
            count: count as u32,
            outcome: AppendOutcome::Unknown,
        };
        in_flight.spawn(worker.settle(log, invoked_us, append, ticket));
        Ok(())
    }

    async fn settle(
        self,
        log: Log,
        invoked_us: u64,
        mut append: Append,
        ticket: Ticket,
    ) -> Result<(), CliError> {
        let outcome = ticket.await;
        let mut term = None;
        append.outcome = match &outcome {
            Ok(ack) => {
                term = Some(ack.term);
                let first_seq = ack.first_seq;
                AppendOutcome::Ok { first_seq }
            }
            Err(error) if error.has_no_side_effects() => AppendOutcome::Failed,
            Err(_) => AppendOutcome::Unknown,
        };
        let operation = self.operation(&log, invoked_us, Action::Append(append));
        let acked = term.map(|term| Acked {
            at_us: operation.completed_us,
            term,
        });
        self.recorder.note(operation, acked);
        outcome.map_or_else(unexplained, |_| Ok(()))
    }

    async fn read(&mut self, log: &Log, tail: &mut u64) {
        let from = if self.random.per_mille(100) {
            self.random.between(0, *tail + 1)
        } else {
            let back = self.random.between(0, READ_RECORDS_MAX);
            tail.saturating_sub(back)
        };
        let count = self.random.between(1, READ_RECORDS_MAX + 1) as u32;
        let limits = ReadLimits {
            records_max: count,
            ..ReadLimits::default()
        };
        let invoked_us = self.recorder.now_us();
        let outcome = match log.read(from, limits).await {
            Ok(chunk) => {
                *tail = (*tail).max(chunk.next_seq);
                let records = chunk.records.iter();
                ReadOutcome::Ok {
                    tail: chunk.next_seq,
                    records: records.map(|record| payload_id(&record.payload)).collect(),
                }
            }
            // It is asked for what was there before: a tail below it is for the check to judge.
            Err(ClientError::Refused {
                code: ErrorCode::BeyondTail,
                expected,
                ..
            }) => ReadOutcome::Ok {
                tail: expected,
                records: Vec::new(),
            },
            Err(_) => ReadOutcome::Failed,
        };
        let read = Read {
            from,
            count,
            outcome,
        };
        let operation = self.operation(log, invoked_us, Action::Read(read));
        self.recorder.note(operation, None);
    }

    async fn check_tail(&mut self, log: &Log) {
        let invoked_us = self.recorder.now_us();
        let outcome = match log.info().await {
            Ok(info) => TailOutcome::Ok {
                tail: info.next_seq,
            },
            Err(_) => TailOutcome::Failed,
        };
        self.note_tail(log, invoked_us, outcome);
    }

    fn note_tail(&self, log: &Log, invoked_us: u64, outcome: TailOutcome) {
        let check = Action::CheckTail(CheckTail { outcome });
        let operation = self.operation(log, invoked_us, check);
        self.recorder.note(operation, None);
    }

    /// An append or a look at the tail by somebody who knows nothing of the cluster yet.
    async fn wander(
        &mut self,
        log: &Log,
        in_flight: &mut JoinSet<Result<(), CliError>>,
    ) -> Result<(), CliError> {
        self.random.shuffle(&mut self.endpoints);
        let client = client(&self.endpoints, TIMEOUTS[1])?;
        if self.random.per_mille(500) {
            let producer = client.producer(ProducerOptions::default());
            self.append(&producer, log, in_flight).await?;
            // One at a time: these producers are all of different orders.
            while let Some(noted) = in_flight.join_next().await {
                settled(noted)?;
            }
            return Ok(());
        }
        let invoked_us = self.recorder.now_us();
        // The list needs no look-up before it, which would find out who leads.
        let outcome = match client.logs().await {
            Ok(infos) => {
                let found = infos.iter().find(|info| info.log_id == log.id());
                // A log that exists and is not shown is as bad as an empty one.
                let tail = found.map_or(0, |info| info.next_seq);
                TailOutcome::Ok { tail }
            }
            Err(_) => TailOutcome::Failed,
        };
        self.note_tail(log, invoked_us, outcome);
        Ok(())
    }
}

fn settled(noted: Result<Result<(), CliError>, tokio::task::JoinError>) -> Result<(), CliError> {
    noted.unwrap_or_else(|error| {
        Err(CliError::new(Exit::Failure, "an append's outcome was lost").why(error.to_string()))
    })
}

/// Whether a fault of the cluster explains the failure. Nothing that these clients send is wrong, so a
/// refusal for good is a bug.
fn unexplained(error: ClientError) -> Result<(), CliError> {
    let is_explained = match &error {
        ClientError::Refused { code, .. } => code.is_retryable(),
        ClientError::Unknown { .. } | ClientError::Unavailable { .. } => true,
        _ => false,
    };
    if is_explained {
        return Ok(());
    }
    Err(client_error("an append was refused for no reason", &error))
}

/// A record that names itself.
fn payload(id: u64, random: &mut Random) -> Vec<u8> {
    let padding_bytes = if random.per_mille(10) {
        PADDING_BYTES_LARGE
    } else {
        random.between(0, PADDING_BYTES) as usize
    };
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.resize(bytes.len() + padding_bytes, id as u8);
    bytes
}

/// The id that a record names; for what is none of ours, one that nobody appended.
#[must_use]
pub fn payload_id(payload: &[u8]) -> u64 {
    let is_whole = |id: u64| payload[8..].iter().all(|byte| *byte == id as u8);
    payload
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .filter(|id| is_whole(*id))
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_name_themselves() {
        let mut random = Random::new(1);
        let lengths: Vec<usize> = (0..2000)
            .map(|id| {
                let bytes = payload(id, &mut random);
                assert_eq!(payload_id(&bytes), id);
                bytes.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| *length > PADDING_BYTES_LARGE));
        let mut bytes = payload(258, &mut random);
        bytes.extend_from_slice(&[0, 2]);
        assert_eq!(payload_id(&bytes), u64::MAX);
        assert_eq!(payload_id(b"short"), u64::MAX);
    }
}
