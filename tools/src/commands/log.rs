//! `drave log create`, `drave log ls` and `drave log trim`.

use drave_client::LogInfo;
use serde::Serialize;

use crate::cli::{LogCreateArgs, LogListArgs, LogTrimArgs, ResultFormat};
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::{plain_table, print, render_table};

/// Runs `drave log create`.
///
/// # Errors
/// [`CliError`], also when the log exists and that is not allowed.
pub fn create(arguments: &LogCreateArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let made = client
            .create_log(&arguments.name, arguments.if_missing)
            .await;
        let log = made.map_err(|error| {
            client_error("cannot create the log", &error).with("log", &arguments.name)
        })?;
        let done = if log.created {
            "created"
        } else {
            "was there already"
        };
        eprintln!("log {} {done}, its number is", log.name);
        print(&format!("{}\n", log.log_id)).await
    })
}

/// Runs `drave log ls`.
///
/// # Errors
/// [`CliError`]
pub fn list(arguments: &LogListArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let found = match arguments.node {
            None => client.logs().await,
            Some(node_id) => client.replica(node_id).logs().await,
        };
        let logs = found.map_err(|error| client_error("cannot list the logs", &error))?;
        let rows: Vec<Row> = logs.into_iter().map(Row::from).collect();
        print(&render(&rows, arguments.format)).await
    })
}

/// Runs `drave log trim`.
///
/// # Errors
/// [`CliError`], also when there is no such log or it does not reach that far.
pub fn trim(arguments: &LogTrimArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let trimmed = client.trim_log(&arguments.name, arguments.before).await;
        let log = trimmed.map_err(|error| {
            client_error("cannot trim the log", &error)
                .with("log", &arguments.name)
                .with("before", arguments.before)
                .next_if_unknown("`drave log ls` shows the first seq held; trimming again is safe")
        })?;
        print(&render(&[Row::from(log)], arguments.format)).await
    })
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    log_id: u64,
    first_seq: u64,
    next_seq: u64,
}

impl From<LogInfo> for Row {
    fn from(log: LogInfo) -> Self {
        Self {
            name: log.name,
            log_id: log.log_id,
            first_seq: log.first_seq,
            next_seq: log.next_seq,
        }
    }
}

fn render(rows: &[Row], format: ResultFormat) -> String {
    if format == ResultFormat::Json {
        let mut text =
            serde_json::to_string_pretty(rows).expect("plain fields into memory cannot fail");
        text.push('\n');
        return text;
    }
    let mut table = plain_table(&["NAME", "ID", "FIRST SEQ", "NEXT SEQ"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.log_id.to_string(),
            row.first_seq.to_string(),
            row.next_seq.to_string(),
        ]);
    }
    render_table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 2] {
        [
            Row {
                name: "a/long/name".to_owned(),
                log_id: 12,
                first_seq: 0,
                next_seq: 1_000_000,
            },
            Row {
                name: "b".to_owned(),
                log_id: 3,
                first_seq: 7,
                next_seq: 7,
            },
        ]
    }

    #[test]
    fn the_table() {
        let expected = "\
NAME         ID  FIRST SEQ  NEXT SEQ
a/long/name  12  0          1000000
b            3   7          7
";
        assert_eq!(render(&rows(), ResultFormat::Table), expected);
    }

    #[test]
    fn the_json() {
        let value: serde_json::Value =
            serde_json::from_str(&render(&rows(), ResultFormat::Json)).unwrap();
        assert_eq!(value[0]["name"], "a/long/name");
        assert_eq!(value[1]["next_seq"], 7);
        assert_eq!(render(&[], ResultFormat::Json), "[]\n");
    }
}
