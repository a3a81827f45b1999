//! `drave log describe` and `drave check-tail`: what a log is like, and where it ends.

use std::time::{Duration, SystemTime};

use drave_client::{LogDescription, LogTail, Quota, Retention};
use serde::Serialize;

use crate::cli::log::{CheckTailArgs, LogDescribeArgs, LogQuotaArgs, LogRetentionArgs};
use crate::cli::wal::RowFormat;
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::{plain_table, print, render_table};

/// Runs `drave log describe`.
///
/// # Errors
/// [`CliError`], also when there is no such log.
pub fn describe(arguments: &LogDescribeArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let found = client.describe_log(&arguments.name).await;
        let log = found.map_err(|error| {
            client_error("cannot describe the log", &error).with("log", &arguments.name)
        })?;
        print(&render_description(&log, arguments.format)).await
    })
}

/// Runs `drave log set-retention`, which says what the log is then.
///
/// # Errors
/// [`CliError`], also when there is no such log.
pub fn set_retention(arguments: &LogRetentionArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let retention = Retention {
            bytes: arguments.bytes,
            age: arguments.age,
        };
        let set = client.set_retention(&arguments.name, retention).await;
        let log = set.map_err(|error| {
            client_error("cannot set the log's retention", &error)
                .with("log", &arguments.name)
                .next_if_unknown("`drave log describe` shows what holds; setting it again is safe")
        })?;
        print(&render_description(&log, arguments.format)).await
    })
}

/// Runs `drave log set-quota`, which says what the log is then.
///
/// # Errors
/// [`CliError`], also when there is no such log.
pub fn set_quota(arguments: &LogQuotaArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let quota = Quota {
            bytes_per_second: arguments.bytes_per_second,
            records_per_second: arguments.records_per_second,
        };
        let set = client.set_quota(&arguments.name, quota).await;
        let log = set.map_err(|error| {
            client_error("cannot set the log's quota", &error)
                .with("log", &arguments.name)
                .next_if_unknown("`drave log describe` shows what holds; setting it again is safe")
        })?;
        print(&render_description(&log, arguments.format)).await
    })
}

/// Runs `drave check-tail`.
///
/// # Errors
/// [`CliError`], also when there is no such log.
pub fn check_tail(arguments: &CheckTailArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let found = async { client.log(&arguments.name).await?.check_tail().await };
        let tail = found.await.map_err(|error| {
            client_error("cannot tell where the log ends", &error).with("log", &arguments.name)
        })?;
        print(&render_tail(&arguments.name, &tail, arguments.format)).await
    })
}

/// A log in full, as it is printed.
#[must_use]
pub fn render_description(log: &LogDescription, format: RowFormat) -> String {
    let row = DescriptionRow {
        name: &log.name,
        log_id: log.log_id,
        first_seq: log.first_seq,
        next_seq: log.next_seq,
        last_time_us: log.last_time_us,
        held_bytes: log.held_bytes,
        fence: log.fence,
        fence_seq: log.fence_seq,
        is_closed: log.is_closed,
        retention_bytes: log.retention.bytes,
        retention_age_us: log.retention.age.map(|age| age.as_micros() as u64),
        quota_bytes_per_second: log.quota.bytes_per_second,
        quota_records_per_second: log.quota.records_per_second,
    };
    let any = || "any".to_owned();
    let all = || "all".to_owned();
    let header = [
        "NAME",
        "ID",
        "FIRST SEQ",
        "NEXT SEQ",
        "LAST RECORD",
        "HELD BYTES",
        "FENCE",
        "CLOSED",
        "KEEP BYTES",
        "KEEP",
        "BYTES/S",
        "RECORDS/S",
    ];
    let cells = [
        log.name.clone(),
        log.log_id.to_string(),
        log.first_seq.to_string(),
        log.next_seq.to_string(),
        moment_text(log.last_time_us),
        log.held_bytes.to_string(),
        fence_text(log.fence),
        if log.is_closed { "yes" } else { "no" }.to_owned(),
        log.retention
            .bytes
            .map_or_else(all, |bytes| bytes.to_string()),
        log.retention
            .age
            .map_or_else(all, |age| humantime::format_duration(age).to_string()),
        log.quota
            .bytes_per_second
            .map_or_else(any, |bytes| bytes.to_string()),
        log.quota
            .records_per_second
            .map_or_else(any, |records| records.to_string()),
    ];
    render(&row, &header, cells, format)
}

fn render_tail(name: &str, tail: &LogTail, format: RowFormat) -> String {
    let row = TailRow {
        name,
        next_seq: tail.next_seq,
        last_time_us: tail.last_time_us,
    };
    let cells = [
        name.to_owned(),
        tail.next_seq.to_string(),
        moment_text(tail.last_time_us),
    ];
    render(&row, &["NAME", "NEXT SEQ", "LAST RECORD"], cells, format)
}

#[derive(Serialize)]
struct DescriptionRow<'a> {
    name: &'a str,
    log_id: u64,
    first_seq: u64,
    next_seq: u64,
    last_time_us: Option<u64>,
    held_bytes: u64,
    fence: u64,
    fence_seq: u64,
    is_closed: bool,
    retention_bytes: Option<u64>,
    retention_age_us: Option<u64>,
    quota_bytes_per_second: Option<u64>,
    quota_records_per_second: Option<u64>,
}

#[derive(Serialize)]
struct TailRow<'a> {
    name: &'a str,
    next_seq: u64,
    last_time_us: Option<u64>,
}

/// One row: a table with its header, a JSON document, or one line of JSON.
fn render<const N: usize>(
    row: &impl Serialize,
    header: &[&str; N],
    cells: [String; N],
    format: RowFormat,
) -> String {
    let plain = "plain fields into memory cannot fail";
    match format {
        RowFormat::Table => {
            let mut table = plain_table(header);
            table.add_row(cells);
            render_table(table)
        }
        RowFormat::Json => serde_json::to_string_pretty(row).expect(plain) + "\n",
        RowFormat::Jsonl => serde_json::to_string(row).expect(plain) + "\n",
    }
}

/// A token; `-` for none.
fn fence_text(fence: u64) -> String {
    match fence {
        0 => "-".to_owned(),
        token => token.to_string(),
    }
}

/// A moment in UTC; `-` for none. A node may say anything, also what no calendar has.
fn moment_text(time_us: Option<u64>) -> String {
    let moment = time_us
        .and_then(|time_us| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(time_us)));
    match (moment, time_us) {
        (Some(moment), Some(time_us)) if time_us < YEAR_10000_US => {
            humantime::format_rfc3339_micros(moment).to_string()
        }
        (_, Some(time_us)) => format!("{time_us} us"),
        (_, None) => "-".to_owned(),
    }
}

/// What the calendar ends before.
const YEAR_10000_US: u64 = 253_402_300_800_000_000;

#[cfg(test)]
mod tests;
