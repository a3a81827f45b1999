//! `drave sim mutants` and `drave sim canary`: whether what should be found is found.

use std::time::Duration;

use crate::cli::sim::MutantsArgs;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::sim::mutants::{Bug, hunt};

use super::{say, usage, workers_default};

/// How long the canary may take.
const CANARY_SECONDS: u64 = 180;

/// The bug that is planted as a canary: Figure 8 of the thesis, which chance alone does not find.
const CANARY: &str = "commit-prior-term";

/// Plants every bug and prints what found it.
///
/// # Errors
/// [`CliError`] when one survives, or none has the name asked for.
pub(super) fn run(arguments: &MutantsArgs) -> Result<(), CliError> {
    let workers = arguments.workers.map_or_else(workers_default, usize::from);
    let only = arguments.only.as_deref();
    let bugs: Vec<Bug> = Bug::all()
        .filter(|bug| only.is_none_or(|name| name == bug.name()))
        .collect();
    if bugs.is_empty() {
        return Err(usage(format!(
            "no planted bug is named {}",
            only.unwrap_or_default()
        )));
    }
    let mut survivors = Vec::new();
    for bug in &bugs {
        let name = bug.name();
        match hunt(*bug, Duration::from_secs(arguments.seconds), workers) {
            Some(catch) => say(&format!(
                "{name:<40} simulator: {:<36} {:>7} seeds {:>7.1} s\n",
                catch.invariant, catch.seeds, catch.seconds
            ))?,
            None => {
                say(&format!(
                    "{name:<40} not found in {} s: {}\n",
                    arguments.seconds,
                    bug.description()
                ))?;
                survivors.push(name);
            }
        }
    }
    say(&format!(
        "{} of {} found by the simulator\n",
        bugs.len() - survivors.len(),
        bugs.len()
    ))?;
    if survivors.is_empty() {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, "planted bugs were not found").why(survivors.join(", ")))
}

/// Plants the canary.
///
/// # Errors
/// [`CliError`] when it is not found.
pub(super) fn canary() -> Result<(), CliError> {
    let bug = Bug::all().find(|bug| bug.name() == CANARY);
    let bug = bug.ok_or_else(|| usage(format!("no planted bug is named {CANARY}")))?;
    match hunt(bug, Duration::from_secs(CANARY_SECONDS), workers_default()) {
        Some(catch) => say(&format!(
            "{CANARY} was found: {} after {} seeds, {:.1} s ({})\n",
            catch.invariant,
            catch.seeds,
            catch.seconds,
            catch.options.command()
        )),
        None => Err(
            CliError::new(Exit::Failure, format!("{CANARY} was not found")).why(format!(
                "{CANARY_SECONDS} s of search: the simulator has lost its sight"
            )),
        ),
    }
}
