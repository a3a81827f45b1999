//! `drave start`: runs a node in this process until it is told to stop.
//!
//! Sets up logging and signals; everything else is the node's.

use std::io::IsTerminal;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, StartArgs};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::{node_side, output};

/// Runs the command; returns when the node has stopped.
///
/// # Errors
/// [`CliError`], both when the node did not start and when it had to stop.
pub fn run(arguments: StartArgs) -> Result<(), CliError> {
    if let Some(parent) = arguments.exit_with_parent {
        end_with_parent(parent)?;
    }
    set_up_log(&arguments)?;
    #[cfg(feature = "mutants")]
    if let Some(bug) = &arguments.plant {
        node_side::plant(bug)?;
    }
    node_side::run(
        arguments.data_dir,
        arguments.config.as_deref(),
        arguments.io,
        stop_signal(),
    )
}

fn set_up_log(arguments: &StartArgs) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&arguments.log).map_err(|error| {
        CliError::new(Exit::Usage, format!("{:?} is no log filter", arguments.log))
            .why(error.to_string())
            .effect("the node was not started")
            .next(
                "give error, warn, info, debug or trace, or MODULE=LEVEL pairs with commas between",
            )
    })?;
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match arguments.log_format {
        LogFormat::Text => {
            let colour = output::colour_on_stderr() && std::io::stderr().is_terminal();
            base.with_ansi(colour).try_init()
        }
        LogFormat::Json => base.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| {
        CliError::new(Exit::Failure, "cannot set up the log").why(error.to_string())
    })
}

/// Asks the system to stop this process when `parent` ends, which may have happened already.
fn end_with_parent(parent: u32) -> Result<(), CliError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| {
        CliError::new(Exit::Failure, "cannot ask to end with the parent process")
            .why(std::io::Error::from(error).to_string())
            .effect("the node was not started")
    })?;
    let found = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found == Some(parent) {
        return Ok(());
    }
    Err(CliError::new(
        Exit::Precondition,
        format!("process {parent} is not the parent, or is gone"),
    )
    .effect("the node was not started"))
}

/// Resolves on SIGTERM or SIGINT; from then on the next of either ends the process at once.
async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the signals end the process by themselves, which is the only stop left.
        tracing::warn!(
            "signal handlers cannot be set: SIGTERM and SIGINT stop this node without order"
        );
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "stopping; a second signal ends it at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(i32::from(Exit::Interrupted as u8));
    });
}
