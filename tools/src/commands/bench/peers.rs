//! `drave bench append --target etcd,redis`: the same load on other systems.

use std::path::Path;

use tokio::runtime::Runtime;

use super::append::{load_on, or_interrupted};
use crate::bench::append::report::Report;
use crate::bench::append::sink::Sink;
use crate::bench::peers::servers::PeerServers;
use crate::bench::peers::{Peer, PeerError, etcd::Etcd, redis::Redis};
use crate::cli::bench::append::{BenchAppendArgs, BenchTarget};
use crate::commands::dev::stop_signal;
use crate::errors::CliError;
use crate::exit::Exit;

/// More were of no use to either system on two processors.
const CONNECTIONS_MAX: u32 = 64;

/// Where the scripts are: a build with these targets is made where it is used.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers");

/// Starts the system with its files in `directory`, measures it, and stops it.
///
/// # Errors
/// [`CliError`]: it does not start, or refuses an append, or does not hold what it acknowledged.
pub(super) fn run(
    arguments: &BenchAppendArgs,
    runtime: &Runtime,
    target: BenchTarget,
    directory: &Path,
) -> Result<Report, CliError> {
    let name = target.name();
    let script = Path::new(SCRIPTS).join(format!("{name}.sh"));
    let servers = PeerServers::start(&script, directory).map_err(|error| {
        CliError::new(Exit::Failure, "cannot start the other system")
            .with("script", script.display())
            .why(error.to_string())
            .next("install it: benches/peers/install.sh")
    })?;
    let processes: Vec<_> = (1..).zip(servers.process_ids.iter().copied()).collect();
    let mut report = runtime.block_on(async {
        let stop = stop_signal()?;
        let measured = async {
            let sink = connect(arguments, target, &servers).await.map_err(failed)?;
            let (report, measured) =
                load_on(arguments, target, Sink::Peer(sink), &processes).await?;
            let held = connect(arguments, target, &servers).await.map_err(failed)?;
            let held = held.count().await.map_err(failed)?;
            if held < measured.latency.len() {
                let why = format!("it holds {held} of {} records", measured.latency.len());
                let lost = CliError::new(Exit::Corruption, "acknowledged records were lost");
                return Err(lost.why(why));
            }
            Ok(report)
        };
        or_interrupted(stop, measured).await
    })?;
    report.version.clone_from(&servers.version);
    Ok(report)
}

async fn connect(
    arguments: &BenchAppendArgs,
    target: BenchTarget,
    servers: &PeerServers,
) -> Result<Peer, PeerError> {
    let connections = arguments.in_flight.min(CONNECTIONS_MAX) as usize;
    Ok(match target {
        BenchTarget::Redis => {
            Peer::Redis(Redis::connect(&servers.endpoints[0], connections).await?)
        }
        _ => Peer::Etcd(Etcd::connect(&servers.endpoints, connections).await?),
    })
}

fn failed(error: PeerError) -> CliError {
    CliError::new(Exit::Failure, "the other system failed").why(error.to_string())
}
