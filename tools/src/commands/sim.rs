//! `drave sim`: seeds through the simulator, failures small and replayable.

#[cfg(feature = "mutants")]
mod mutants;
mod script;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use drave::raft::marks::{Mark, count};

use crate::cli::sim::{SimArgs, SimCommand};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::sim::faults::{Fault, FaultSet};
use crate::sim::fleet::{Found, Search, run_caught, search};
use crate::sim::shrink::shrink;
use crate::sim::{Options, Profile};

/// Runs the command.
///
/// # Errors
/// [`CliError`]: arguments that make no sense, or a run that failed.
pub fn run(arguments: &SimArgs) -> Result<(), CliError> {
    match &arguments.command {
        Some(SimCommand::Script(scripts)) => return script::run(scripts),
        Some(command) => return run_planted(command),
        None => {}
    }
    let options = options(arguments)?;
    if arguments.trace {
        return trace(&options);
    }
    let seeds = seeds(arguments)?;
    let wanted = Search {
        seeds: seeds.clone(),
        time_max: arguments.seconds.map(Duration::from_secs),
        options,
        profiles: Vec::new(),
        workers: arguments.workers.map_or_else(workers_default, usize::from),
    };
    let found = search(&wanted);
    say(&report(&found, seeds.end - seeds.start == 1))?;
    let Some((failed, violation)) = found.failure else {
        return Ok(());
    };
    let mut smallest = failed.clone();
    if arguments.shrink {
        let (options, tries) = shrink(&failed, violation.invariant);
        say(&format!("shrunk in {tries} runs\n"))?;
        smallest = options;
    }
    Err(failure(
        violation.invariant,
        &violation.what,
        &failed,
        &smallest,
    ))
}

#[cfg(feature = "mutants")]
fn run_planted(command: &SimCommand) -> Result<(), CliError> {
    match command {
        SimCommand::Mutants(arguments) => mutants::run(arguments),
        SimCommand::Canary => mutants::canary(),
        SimCommand::Script(scripts) => script::run(scripts),
    }
}

#[cfg(not(feature = "mutants"))]
fn run_planted(_: &SimCommand) -> Result<(), CliError> {
    Err(usage("this build has no planted bugs in it")
        .next("cargo run --release -p drave-tools --features mutants -- sim mutants"))
}

fn say(text: &str) -> Result<(), CliError> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| CliError::stdout(&error))
}

fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn usage(text: impl Into<String>) -> CliError {
    CliError::new(Exit::Usage, text)
}

fn named(name: &str) -> Result<Profile, CliError> {
    Profile::named(name).ok_or_else(|| {
        let names: Vec<&str> = Profile::DRAWN
            .iter()
            .map(|profile| profile.name())
            .collect();
        usage(format!(
            "no profile is named {name}: {}, plain",
            names.join(", ")
        ))
    })
}

/// What the arguments ask to be run.
///
/// # Errors
/// [`CliError`] when they make no sense.
pub fn options(arguments: &SimArgs) -> Result<Options, CliError> {
    let profile = arguments.profile.as_deref().map(named).transpose()?;
    let without = arguments.without.as_deref().unwrap_or_default();
    Ok(Options {
        seed: arguments.seed.unwrap_or(0),
        profile,
        nodes: arguments.nodes.map(usize::from),
        without: FaultSet::parse(without).map_err(usage)?,
        steps: arguments.steps,
        clients: arguments.clients,
    })
}

fn seeds(arguments: &SimArgs) -> Result<std::ops::Range<u64>, CliError> {
    if let Some(seed) = arguments.seed {
        return Ok(seed..seed + 1);
    }
    if let Some(text) = &arguments.seeds {
        let ends = text.split_once("..");
        let parsed = ends.and_then(|(lo, hi)| Some(lo.parse().ok()?..hi.parse().ok()?));
        return parsed.ok_or_else(|| usage(format!("seeds are given as A..B, found {text}")));
    }
    // Fresh ones: another start each time, said in the report of a failure.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let start = now.map_or(0, |since| since.as_secs()) * 1_000_000;
    let seconds = arguments.seconds.is_some();
    Ok(start..if seconds { u64::MAX } else { start + 1_000 })
}

/// The version this was built from, and the commit.
fn version() -> String {
    format!("{} of {}", env!("CARGO_PKG_VERSION"), env!("DRAVE_COMMIT"))
}

fn failure(invariant: &str, what: &str, failed: &Options, smallest: &Options) -> CliError {
    CliError::new(Exit::Failure, format!("{invariant} is broken"))
        .with("seed", failed.seed)
        .with("version", version())
        .why(what)
        .next(format!("{} --trace", smallest.command()))
}

fn trace(options: &Options) -> Result<(), CliError> {
    let outcome = run_caught(options, true);
    let (plan, lines) = (outcome.plan, outcome.lines.join("\n"));
    say(&format!("{plan:#?}\n{lines}\nhash {:016x}\n", outcome.hash))?;
    match outcome.failure {
        None => Ok(()),
        Some(violation) => Err(failure(
            violation.invariant,
            &violation.what,
            options,
            options,
        )),
    }
}

fn report(found: &Found, is_one: bool) -> String {
    let tally = &found.tally;
    let seconds = found.wall.as_secs_f64().max(1e-9);
    let hours = tally.virtual_us as f64 / 3.6e9;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} seeds, {} events in {seconds:.1} s ({:.0} events/s), {hours:.2} simulated hours ({:.0}x real time)",
        tally.seeds,
        tally.events,
        tally.events as f64 / seconds,
        hours * 3600.0 / seconds,
    );
    let _ = writeln!(
        text,
        "{} elections, {} hand-overs for a disk, {} entries committed, {} batches carried over, \
         {} appends acknowledged, {} linearizable reads, {} requests, {} operations unknown",
        tally.elections,
        tally.hand_overs,
        tally.committed,
        tally.carried,
        tally.acknowledged,
        tally.reads,
        tally.requests,
        tally.unknown,
    );
    let _ = writeln!(
        text,
        "{} starts, {} stops of failing nodes, {} damaged disks refused, {} disks compared at the end",
        tally.starts, tally.stops, tally.refusals, tally.scanned,
    );
    let faults: Vec<String> = Fault::ALL
        .iter()
        .filter(|fault| tally.faults[**fault as usize] > 0)
        .map(|fault| format!("{} {}", fault.name(), tally.faults[*fault as usize]))
        .collect();
    let _ = writeln!(text, "faults: {}", faults.join(", "));
    for mark in Mark::ALL {
        let _ = writeln!(text, "{:>10}  {}", count(*mark), mark.text());
    }
    if is_one {
        let _ = writeln!(text, "hash {:016x}", found.hash);
    }
    text
}
