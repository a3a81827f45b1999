//! `drave read`: a log's records from one seq on, up to its end as of the start.

use drave_client::{ReadLimits, Record};

use crate::cli::{ReadArgs, RecordFormat};
use crate::connect::{self, ReadableLog, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::DataOutput;
use crate::record_format::write_record;

/// Bytes of batches per request.
const READ_BYTES_MAX: u32 = 1 << 20;

/// Runs the command.
///
/// # Errors
/// [`CliError`]; what was printed before it is valid.
pub fn run(arguments: &ReadArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(read(arguments))
}

async fn read(arguments: &ReadArgs) -> Result<(), CliError> {
    let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
    let log = ReadableLog::open(&client, &arguments.log, arguments.node).await?;
    let mut output = DataOutput::stdout().map_err(|error| CliError::stdout(&error))?;
    let printed = print_range(arguments, &log, &mut output).await;
    // What was read before a failure is valid and goes out first.
    let finished = output.finish().await;
    printed.and(finished)
}

async fn print_range(
    arguments: &ReadArgs,
    log: &ReadableLog,
    output: &mut DataOutput,
) -> Result<(), CliError> {
    let found = log.from_seq(arguments.at, arguments.last).await;
    let found = found.map_err(|error| error.with("log", &arguments.log))?;
    let range = ReadRange {
        from_seq: arguments.from.or(found),
        count: arguments.count,
    };
    let mut writer = RecordWriter {
        format: arguments.format,
        log: &arguments.log,
        output,
    };
    let read = for_each(log, range, async |record| writer.write(&record).await).await;
    read.map_err(|error| error.with("log", &arguments.log))
}

/// Prints records.
pub struct RecordWriter<'a> {
    /// How.
    pub format: RecordFormat,
    /// The log's name.
    pub log: &'a str,
    /// Where to.
    pub output: &'a mut DataOutput,
}

impl RecordWriter<'_> {
    /// Prints a record.
    ///
    /// # Errors
    /// [`CliError`] when the output cannot be written.
    pub async fn write(&mut self, record: &Record) -> Result<(), CliError> {
        let out = self.output.chunk();
        write_record(
            self.format,
            self.log,
            record.seq,
            record.append_time_us,
            &record.payload,
            out,
        );
        self.output.settle().await
    }
}

/// Which records to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadRange {
    /// The first; `None` for the first one held.
    pub from_seq: Option<u64>,
    /// How many at most; `None` for all up to the end as of the first answer.
    pub count: Option<u64>,
}

/// Reads a range and hands each record to `each`, in order and without a gap.
///
/// # Errors
/// [`CliError`] of the read, or of `each`.
pub async fn for_each(
    log: &ReadableLog,
    range: ReadRange,
    mut each: impl AsyncFnMut(Record) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut next_seq = match range.from_seq {
        Some(seq) => seq,
        None => log.info().await?.first_seq,
    };
    let mut left = range.count.unwrap_or(u64::MAX);
    let limits = ReadLimits {
        bytes_max: READ_BYTES_MAX,
        records_max: u32::try_from(left).unwrap_or(u32::MAX),
    };
    let mut reader = log.reader(next_seq).limits(limits);
    while left > 0 {
        let chunk = reader.next().await;
        let chunk = chunk
            .map_err(|error| client_error("cannot read the log", &error).with("from", next_seq))?;
        let Some(chunk) = chunk else { break };
        for record in chunk.records {
            if left == 0 {
                break;
            }
            assert_eq!(
                record.seq, next_seq,
                "the client gives seqs without a gap or a repeat"
            );
            next_seq += 1;
            left -= 1;
            each(record).await?;
        }
    }
    Ok(())
}
