//! `drave log close` and `drave log delete`: the two ends of a log.

use drave_client::LogDescription;

use crate::cli::log::{LogCloseArgs, LogDeleteArgs};
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::exit::Exit;

/// Runs `drave log close`.
///
/// # Errors
/// [`CliError`], also when there is no such log.
pub fn close(arguments: &LogCloseArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let closed = client.close_log(&arguments.name).await;
        let log = closed.map_err(|error| {
            client_error("cannot close the log", &error)
                .with("log", &arguments.name)
                .next_if_unknown("closing it again is safe")
        })?;
        eprintln!("log {} is closed at seq {}", log.name, log.next_seq);
        Ok(())
    })
}

/// Runs `drave log delete`.
///
/// # Errors
/// [`CliError`], also when there is no such log, or it was not confirmed.
pub fn delete(arguments: &LogDeleteArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let failed = |error| {
            client_error("cannot delete the log", &error)
                .with("log", &arguments.name)
                .next_if_unknown("`drave log ls` shows whether it is still there")
        };
        if !arguments.yes {
            let log = client.describe_log(&arguments.name).await;
            return Err(unconfirmed(&log.map_err(failed)?));
        }
        let deleted = client.delete_log(&arguments.name).await;
        match deleted.map_err(failed)? {
            Some(log) => eprintln!("{} is deleted", what(&log)),
            None => eprintln!("log {} was deleted meanwhile", arguments.name),
        }
        Ok(())
    })
}

fn unconfirmed(log: &LogDescription) -> CliError {
    CliError::new(Exit::Usage, "the log is not deleted without --yes")
        .why(format!("it would delete {}", what(log)))
        .effect("nothing was changed")
        .next("say --yes")
}

fn what(log: &LogDescription) -> String {
    format!(
        "log {} with {} records, {} bytes",
        log.name,
        log.next_seq - log.first_seq.min(log.next_seq),
        log.held_bytes
    )
}
