//! `drave sim mutants` and `drave sim canary`: whether what should be found is found.

use std::time::Duration;

use crate::cli::sim::MutantsArgs;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::sim::Profile;
use crate::sim::mutants::{Bug, Catch, hunt, script_that_finds};

use super::{named, say, usage, workers_default};

/// The profiles of a hunt, in turn: churn more often, since what is deep is found by it.
const HUNT: [Profile; 9] = [
    Profile::Churn,
    Profile::Uniform,
    Profile::Membership,
    Profile::Churn,
    Profile::Storage,
    Profile::Snapshots,
    Profile::Leases,
    Profile::Churn,
    Profile::Mixed,
];

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
    let profiles = match &arguments.profile {
        Some(name) => vec![named(name)?],
        None => HUNT.to_vec(),
    };
    let (mut survivors, mut caught) = (Vec::new(), 0);
    for bug in &bugs {
        let script = script_that_finds(*bug);
        let catch = hunt(
            *bug,
            &profiles,
            Duration::from_secs(arguments.seconds),
            workers,
        );
        caught += usize::from(catch.is_some());
        if script.is_none() && catch.is_none() {
            survivors.push(format!("{}: {}", bug.name(), bug.description()));
        }
        say(&row(bug.name(), catch.as_ref(), script.as_deref()))?;
        if let (Some(_), Some(catch)) = (only, &catch) {
            say(&format!("{}\n{}\n", catch.what, catch.options.command()))?;
        }
    }
    say(&format!(
        "{caught} of {} found by the simulator alone\n",
        bugs.len()
    ))?;
    if survivors.is_empty() {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, "planted bugs were not found").why(survivors.join("\n")))
}

/// One line of the table: planted, found by the simulator, after how long, found by a script.
fn row(name: &str, catch: Option<&Catch>, script: Option<&str>) -> String {
    let (invariant, after) = match catch {
        Some(catch) => (
            catch.invariant,
            format!("{:>6} seeds {:>6.1} s", catch.seeds, catch.seconds),
        ),
        None => ("-", String::new()),
    };
    let script = script.unwrap_or("-");
    format!("{name:<32} {invariant:<34} {after:<22} {script}\n")
}

/// Plants the canary.
///
/// # Errors
/// [`CliError`] when it is not found.
pub(super) fn canary() -> Result<(), CliError> {
    let bug = Bug::all().find(|bug| bug.name() == CANARY);
    let bug = bug.ok_or_else(|| usage(format!("no planted bug is named {CANARY}")))?;
    match hunt(
        bug,
        &[Profile::Churn],
        Duration::from_secs(CANARY_SECONDS),
        workers_default(),
    ) {
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
