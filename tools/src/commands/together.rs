//! `drave append-together`: records of several logs, all of them or none.

use drave_client::{Client, ClientError, TogetherAck};
use serde::Serialize;

use crate::cli::together::AppendTogetherArgs;
use crate::cli::wal::RowFormat;
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::{plain_table, print, render_table};

/// What goes to one log.
#[derive(Debug, Eq, PartialEq)]
struct Part<'a> {
    log: &'a str,
    records: Vec<&'a str>,
    expect_seq: Option<u64>,
    fence: u64,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] when nothing was appended, or that is not known.
pub fn run(arguments: &AppendTogetherArgs) -> Result<(), CliError> {
    let parts = parts(arguments)?;
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let appended = append(&client, &parts).await;
        let ack = appended.map_err(|error| {
            client_error("cannot append to the logs", &error)
                .next_if_unknown("read the logs: the records are in all of them, or in none")
        })?;
        print(&render(&parts, &ack, arguments.format)).await
    })
}

/// The records by log, logs in the order in which they come first.
fn parts(arguments: &AppendTogetherArgs) -> Result<Vec<Part<'_>>, CliError> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (log, record) in &arguments.records {
        if let Some(part) = parts.iter_mut().find(|part| part.log == log) {
            part.records.push(record);
            continue;
        }
        parts.push(Part {
            log,
            records: vec![record],
            expect_seq: number_of(&arguments.expect_seq, log),
            fence: number_of(&arguments.fence, log).unwrap_or(0),
        });
    }
    let mut conditions = arguments.expect_seq.iter().chain(&arguments.fence);
    let idle = conditions.find(|(log, _)| !parts.iter().any(|part| part.log == log));
    match idle {
        Some((log, _)) => Err(CliError::new(
            Exit::Usage,
            format!("a condition for log {log}, and no record"),
        )
        .effect("nothing was written")
        .next("give a record for it too, or leave the condition out")),
        None => Ok(parts),
    }
}

fn number_of(numbers: &[(String, u64)], log: &str) -> Option<u64> {
    let found = numbers.iter().rev().find(|(name, _)| name == log);
    found.map(|(_, number)| *number)
}

async fn append(client: &Client, parts: &[Part<'_>]) -> Result<TogetherAck, ClientError> {
    let mut together = client.together();
    for part in parts {
        let log = client.log(part.log).await?.with_fence(part.fence);
        together = match part.expect_seq {
            Some(expect_seq) => together.push_if(&log, expect_seq, &part.records),
            None => together.push(&log, &part.records),
        };
    }
    together.append().await
}

#[derive(Serialize)]
struct Row<'a> {
    log: &'a str,
    first_seq: u64,
    record_count: u32,
}

fn render(parts: &[Part<'_>], ack: &TogetherAck, format: RowFormat) -> String {
    let rows = parts.iter().zip(&ack.logs).map(|(part, ack)| Row {
        log: part.log,
        first_seq: ack.first_seq,
        record_count: ack.record_count,
    });
    let plain = "plain fields into memory cannot fail";
    match format {
        RowFormat::Table => {
            let mut table = plain_table(&["LOG", "FIRST SEQ", "RECORDS"]);
            for row in rows {
                let (first_seq, records) =
                    (row.first_seq.to_string(), row.record_count.to_string());
                table.add_row([row.log.to_owned(), first_seq, records]);
            }
            render_table(table)
        }
        RowFormat::Json => {
            let rows: Vec<Row<'_>> = rows.collect();
            serde_json::to_string_pretty(&rows).expect(plain) + "\n"
        }
        RowFormat::Jsonl => rows
            .map(|row| serde_json::to_string(&row).expect(plain) + "\n")
            .collect(),
    }
}
