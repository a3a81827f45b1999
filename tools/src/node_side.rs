//! The only place where the commands meet the node: format a directory, run a node, judge whose log is cut.
//!
//! Turns the node's errors into the form of the command line. The client side never comes here.

use std::path::{Path, PathBuf};

use drave::config::{ConfigError, NodeConfig};
use drave::node::{CutPlan, NodeOptions};
use drave::store::{FormatRequest, StoreIdentity};
use drave_wal::Salvage;

use crate::cli::Io;
use crate::errors::CliError;
use crate::exit::Exit;

/// Where a data directory has its group's log.
#[must_use]
pub fn log_directory(data_dir: &Path) -> PathBuf {
    drave::store::group_dir(data_dir, 0)
}

/// Makes a data directory. Durable on return.
///
/// # Errors
/// [`CliError`]; a directory that was not empty is left as it was.
pub fn format(request: &FormatRequest) -> Result<StoreIdentity, CliError> {
    drave::store::format_store(request).map_err(|error| {
        CliError::new(
            Exit::from_number(error.exit_code()),
            "the data directory was not formatted",
        )
        .with("dir", request.data_dir.display())
        .why(error.to_string())
        .effect(error.effect())
        .next(error.advice())
    })
}

/// What cutting the log in `directory` means to the cluster of its node; none if it is no node's.
///
/// # Errors
/// [`CliError`]: a node runs on it, or its identity cannot be read.
pub fn plan_cut(directory: &Path, salvage: &Salvage) -> Result<Option<CutPlan>, CliError> {
    let canonical = directory.canonicalize();
    let parent = canonical.as_deref().ok().and_then(Path::parent);
    drave::node::plan_cut(parent.unwrap_or(directory), salvage).map_err(|error| {
        CliError::new(
            Exit::from_number(error.exit_code()),
            "it cannot be found out whose log this is",
        )
        .with("dir", directory.display())
        .why(error.to_string())
        .effect("nothing was changed")
        .next(error.advice())
    })
}

/// Plants a known bug in this process, so that a run of `drave chaos` can show that it finds it.
///
/// # Errors
/// [`CliError`] when there is none of this name.
#[cfg(feature = "mutants")]
pub fn plant(name: &str) -> Result<(), CliError> {
    use drave::raft::mutants as raft;
    use drave_wal::mutants as wal;
    if let Some(bug) = raft::Mutant::ALL.iter().find(|bug| bug.name() == name) {
        raft::plant(Some(*bug));
    } else if let Some(bug) = wal::Mutant::ALL.iter().find(|bug| bug.name() == name) {
        wal::plant(Some(*bug));
    } else {
        return Err(
            CliError::new(Exit::Usage, format!("there is no known bug {name:?}"))
                .next("`drave sim mutants` shows all of them"),
        );
    }
    Ok(())
}

/// Runs a node on the calling thread until `stop` is done.
///
/// # Errors
/// [`CliError`], both when the node did not start and when it had to stop.
pub fn run(
    data_dir: PathBuf,
    config: Option<&Path>,
    io: Io,
    stop: impl Future<Output = ()> + 'static,
) -> Result<(), CliError> {
    let config = NodeConfig::load(config).map_err(|error| config_error(&error))?;
    let shown = data_dir.display().to_string();
    let io = match io {
        Io::Auto => drave::node::IoChoice::Auto,
        Io::Uring => drave::node::IoChoice::Uring,
        Io::Posix => drave::node::IoChoice::Posix,
    };
    drave::node::run(
        NodeOptions {
            data_dir,
            config,
            io,
        },
        stop,
    )
    .map_err(|error| {
        CliError::new(Exit::from_number(error.exit_code()), "the node cannot run")
            .with("dir", shown)
            .why(error.to_string())
            .effect(error.effect())
            .next(error.advice())
    })
}

fn config_error(error: &ConfigError) -> CliError {
    CliError::new(
        Exit::from_number(error.exit_code()),
        "the configuration is not usable",
    )
    .why(error.to_string())
    .effect("the node was not started; nothing was changed")
    .next("correct the configuration file; every key is optional, and unknown keys are errors")
}
