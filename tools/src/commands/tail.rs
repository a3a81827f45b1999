//! `drave tail`: a log's last records, and with `--follow` those to come.

use std::pin::pin;

use drave_client::{Tail, TailEvent, TailFrom};

use super::read::{ReadRange, RecordWriter, for_each};
use crate::cli::TailArgs;
use crate::connect::{self, ReadableLog, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::{DataOutput, at_once};

const LAST_DEFAULT: u64 = 10;

/// Runs the command; with `--follow` until it is interrupted.
///
/// # Errors
/// [`CliError`]; what was printed before it is valid.
pub fn run(arguments: &TailArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(tail(arguments))
}

async fn tail(arguments: &TailArgs) -> Result<(), CliError> {
    let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
    let log = ReadableLog::open(&client, &arguments.log, arguments.node).await?;
    let mut output = DataOutput::stdout().map_err(|error| CliError::stdout(&error))?;
    let writer = RecordWriter {
        format: arguments.format,
        log: &arguments.log,
        output: &mut output,
    };
    let printed = if arguments.follow {
        follow(arguments, &log, writer).await
    } else {
        print_last(arguments, &log, writer).await
    };
    // What came before a failure is valid and goes out first.
    let finished = output.finish().await;
    printed
        .map_err(|error| error.with("log", &arguments.log))
        .and(finished)
}

async fn print_last(
    arguments: &TailArgs,
    log: &ReadableLog,
    mut writer: RecordWriter<'_>,
) -> Result<(), CliError> {
    let last = match arguments.at {
        Some(_) => None,
        None => arguments.last.or(Some(LAST_DEFAULT)),
    };
    let from_seq = match arguments.from {
        Some(seq) => Some(seq),
        None => log.from_seq(arguments.at, last).await?,
    };
    let range = ReadRange {
        from_seq,
        count: None,
    };
    for_each(log, range, async |record| writer.write(&record).await).await
}

async fn follow(
    arguments: &TailArgs,
    log: &ReadableLog,
    mut writer: RecordWriter<'_>,
) -> Result<(), CliError> {
    let from = match (arguments.from, arguments.at) {
        (Some(seq), _) => TailFrom::Seq(seq),
        (None, Some(time_us)) => TailFrom::TimeUs(time_us),
        (None, None) => TailFrom::Last(arguments.last.unwrap_or(LAST_DEFAULT)),
    };
    let tail = log.tail(from).await;
    let mut tail = tail.map_err(|error| client_error("cannot tail the log", &error))?;
    let mut cut_off = false;
    loop {
        match next_event(&mut tail, &mut writer).await? {
            Ok(event) => {
                if cut_off {
                    eprintln!("back again");
                    cut_off = false;
                }
                match event {
                    TailEvent::Record(record) => writer.write(&record).await?,
                    TailEvent::Trimmed { first_seq } => {
                        eprintln!("records before seq {first_seq} were trimmed; going on there");
                    }
                    TailEvent::Fenced { token, seq } => {
                        eprintln!("the log was taken over with token {token} at seq {seq}");
                    }
                    TailEvent::Closed { next_seq } => {
                        writer.output.flush().await?;
                        eprintln!("the log was closed at seq {next_seq}");
                        return Ok(());
                    }
                    _ => {}
                }
            }
            // The tail keeps its position, so going on trying is what following means.
            Err(error) if error.is_retryable() => {
                if !cut_off {
                    eprintln!("no replica serves the log, trying on: {}", error.why());
                    cut_off = true;
                }
            }
            Err(error) => return Err(client_error("cannot tail the log", &error)),
        }
    }
}

/// The next event; before it is waited for, everything printed goes out.
async fn next_event(
    tail: &mut Tail,
    writer: &mut RecordWriter<'_>,
) -> Result<Result<TailEvent, drave_client::ClientError>, CliError> {
    let mut next = pin!(tail.next());
    if let Some(event) = at_once(&mut next).await {
        return Ok(event);
    }
    writer.output.flush().await?;
    Ok(next.await)
}
