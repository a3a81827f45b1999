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
    let (mut by_simulator, mut by_script) = (0, 0);
    for bug in &bugs {
        let name = bug.name();
        let script = bug.script();
        let catch = hunt(*bug, Duration::from_secs(arguments.seconds), workers);
        by_script += usize::from(script.is_some());
        by_simulator += usize::from(catch.is_some());
        if script.is_none() && catch.is_none() {
            survivors.push(name);
        }
        let script = script.as_deref().unwrap_or("no script");
        let simulator = match catch {
            Some(catch) => format!(
                "simulator: {:<36} {:>7} seeds {:>7.1} s",
                catch.invariant, catch.seeds, catch.seconds
            ),
            None => format!("simulator: not in {} s", arguments.seconds),
        };
        say(&format!("{name:<36} {script:<52} {simulator}\n"))?;
    }
    say(&format!(
        "{} planted: {by_script} found by a script, {by_simulator} by the simulator, {} by neither\n",
        bugs.len(),
        survivors.len()
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
