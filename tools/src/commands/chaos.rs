//! `drave chaos`: rounds of faults against a real cluster, with the history checked.
//!
//! Chooses the surroundings: a network namespace of its own when one can be had and is wanted, else the
//! machine's network without partitions. What happens then is in `chaos`.

use std::ffi::OsString;

use super::dev::this_program;
use crate::chaos::{self, Options, namespace, say};
use crate::cli::ChaosArgs;
use crate::errors::CliError;
use crate::exit::Exit;

/// Tells the executable, started again, that it is in its namespace.
const IN_NAMESPACE: &str = "--in-namespace";

/// Runs the command.
///
/// # Errors
/// [`CliError`] unless everything held in every round.
pub fn run(arguments: ChaosArgs) -> Result<(), CliError> {
    if arguments.in_namespace {
        namespace::raise_loopback()?;
        return rounds(arguments, true);
    }
    if arguments.no_partitions {
        return rounds(arguments, false);
    }
    match namespace::probe() {
        Ok(()) => {
            // What follows the program's name, as it was given.
            let mut given: Vec<OsString> = std::env::args_os().skip(1).collect();
            given.push(IN_NAMESPACE.into());
            Err(namespace::enter(&this_program()?, &given))
        }
        Err(reason) if arguments.proxy => Err(CliError::new(
            Exit::Precondition,
            "no network for the proxy",
        )
        .why(reason)
        .effect("nothing was started")
        .next("allow unprivileged user namespaces and install nftables, or leave --proxy out")),
        Err(reason) => {
            say(&format!("kills and pauses only, no partitions: {reason}\n"))?;
            rounds(arguments, false)
        }
    }
}

fn rounds(arguments: ChaosArgs, has_network: bool) -> Result<(), CliError> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    let keep_histories = arguments.keep.is_some();
    #[cfg(feature = "mutants")]
    let plant_arguments = match &arguments.plant {
        Some(bug) => vec!["--plant".to_owned(), bug.clone()],
        None => Vec::new(),
    };
    #[cfg(not(feature = "mutants"))]
    let plant_arguments = Vec::new();
    let (dir, temporary) = match arguments.keep {
        Some(dir) => (dir, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("drave-chaos-").tempdir();
            let temporary = temporary.map_err(|error| {
                CliError::new(Exit::Failure, "cannot make a temporary folder")
                    .why(error.to_string())
                    .next("set TMPDIR, or give --keep")
            })?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let rounds = arguments.rounds;
    say(&format!(
        "seed {seed}, {rounds} rounds, nodes in {}\n",
        dir.display()
    ))?;
    let outcome = chaos::run(&Options {
        program: this_program()?,
        dir,
        rounds,
        seed,
        nodes: arguments.nodes,
        round: arguments.seconds_per_round,
        recovery_max: arguments.back_within.unwrap_or(chaos::RECOVERY_MAX),
        io: arguments.io,
        has_network,
        proxy: arguments.proxy,
        keep_histories,
        node_arguments: plant_arguments,
    });
    if let (Err(error), Some(temporary)) = (&outcome, temporary)
        && error.exit != Exit::Interrupted
    {
        say(&format!(
            "everything is kept in {}\n",
            temporary.keep().display()
        ))?;
    }
    outcome
}

pub(super) fn random_seed() -> Result<u64, CliError> {
    let mut bytes = [0; 8];
    // Eight bytes are never given in part.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| {
            CliError::new(Exit::Failure, "the system gives no random number")
                .why(std::io::Error::from(error).to_string())
                .next("give --seed")
        },
    )?;
    // Short enough to be typed again.
    Ok(u64::from_le_bytes(bytes) % 1_000_000_000)
}
