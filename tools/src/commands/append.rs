//! `drave append`: each line of standard input becomes one record.
//!
//! A thread reads the input in big blocks; `lines` cuts it into batches; the pipeline keeps some of them
//! unacknowledged at the producer and collects what became of each; the report says it.

pub mod input;
pub mod pipeline;
mod progress;
pub mod report;

use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use drave_batch::RECORD_BYTES_MAX;
use drave_client::{Client, ClientError, Log, Producer, ProducerOptions};
use tokio::signal::unix::{SignalKind, signal};

use self::pipeline::{Acked, Appender, PipelineOptions};
use self::progress::Progress;
use crate::cli::AppendArgs;
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::{self, DataOutput};

/// How long an append may take with all its retries, unless the user says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// After Ctrl-C: how long unacknowledged batches are still waited for.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(1);

/// Appends through the client's producer: what is sent again is not appended again.
pub struct ProducerAppender {
    producer: Producer,
    log_id: u64,
    fence: u64,
}

impl ProducerAppender {
    /// An appender to `log` with `in_flight_max` batches unacknowledged at most.
    #[must_use]
    pub fn new(client: &Client, log: &Log, in_flight_max: u32) -> Self {
        let options = ProducerOptions {
            in_flight_max,
            ..ProducerOptions::default()
        };
        Self {
            producer: client.producer(options),
            log_id: log.id(),
            fence: log.fence_token(),
        }
    }
}

impl Appender for ProducerAppender {
    type Ticket = Pin<Box<dyn Future<Output = Result<Acked, ClientError>>>>;

    async fn submit(&self, records: &[Bytes]) -> Result<Self::Ticket, ClientError> {
        let ticket = self
            .producer
            .submit_fenced(self.log_id, self.fence, records)
            .await?;
        Ok(Box::pin(async move {
            let ack = ticket.await?;
            Ok(Acked {
                first_seq: ack.first_seq,
                record_count: u64::from(ack.record_count),
            })
        }))
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] unless every line was acknowledged; its effect says what became of which lines.
pub fn run(arguments: &AppendArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(append(arguments))
}

async fn append(arguments: &AppendArgs) -> Result<(), CliError> {
    let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
    if arguments.create {
        let created = client.create_log(&arguments.log, true).await;
        created.map_err(|error| {
            client_error("cannot create the log", &error).with("log", &arguments.log)
        })?;
    }
    let log = client.log(&arguments.log).await;
    let log = log
        .map_err(|error| client_error("cannot open the log", &error).with("log", &arguments.log))?;
    let log = log.with_fence(arguments.fence.unwrap_or(0));
    let appender = ProducerAppender::new(&client, &log, arguments.in_flight);
    if io::stdin().is_terminal() {
        eprintln!("each line is appended when it is entered; end with Ctrl-D");
    }
    let blocks = input::spawn(io::stdin()).map_err(|error| start_error(&error))?;
    let seqs = if arguments.summary {
        None
    } else {
        Some(DataOutput::stdout().map_err(|error| start_error(&error))?)
    };
    let options = PipelineOptions {
        records_max: arguments.batch,
        in_flight_max: arguments.in_flight,
        record_bytes_max: RECORD_BYTES_MAX as usize,
        interrupted_wait: INTERRUPTED_WAIT,
    };
    // Seqs on the same terminal as a bar would tear it.
    let bar_wanted =
        io::stderr().is_terminal() && (arguments.summary || !io::stdout().is_terminal());
    let mut progress = if bar_wanted {
        Progress::bar()
    } else {
        Progress::none()
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| start_error(&error))?;
    let interrupted = async move {
        interrupt.recv().await;
    };
    let report = pipeline::run(&appender, blocks, options, seqs, &mut progress, interrupted).await;
    progress.finish();
    if arguments.summary {
        let text = report.summary(&arguments.log, arguments.format);
        let printed = output::print(&text).await;
        return report.error(&arguments.log).map_or(printed, Err);
    }
    report.error(&arguments.log).map_or(Ok(()), Err)
}

fn start_error(error: &io::Error) -> CliError {
    CliError::new(Exit::Failure, "cannot start appending")
        .why(error.to_string())
        .effect("nothing was read or written")
}
