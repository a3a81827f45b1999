//! `drave bench growth`: what an append costs while nodes, logs, connections or records grow, each alone.

use std::time::Duration;

use drave_client::{Client, Log};
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::append::{ground, json, load_error, make_logs, or_interrupted, write_file};
use crate::bench::append::load::{self, Measured, Plan};
use crate::bench::append::report::Usages;
use crate::bench::append::servers::Usage;
use crate::bench::append::sink::Sink;
use crate::bench::growth::{Cost, Growth, Point, Setup};
use crate::bench::us_at;
use crate::cli::ResultFormat;
use crate::cli::bench::growth::{BenchGrowthArgs, Dimension};
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::commands::dev::{Place, START_TIMEOUT, cluster_client, stop_signal, this_program};
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// How long an append may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of records unacknowledged at most, unless so few appends are.
const IN_FLIGHT_BYTES: u32 = 16 << 20;
const IN_FLIGHT_MIN: u32 = 16;

/// Files that a process has open besides its connections: segments of the log, the other nodes.
const OTHER_FILES: u64 = 512;

/// Connections that a node takes besides the load's; it keeps 64 of all for other nodes.
const OTHER_CONNECTIONS: u32 = 256;

/// Connections made at once.
const CONNECTING_MAX: usize = 64;

/// What the load goes under in the usages: no node has it.
const LOAD: u64 = 0;

/// Runs the command.
///
/// # Errors
/// [`CliError`]: a cluster that does not come up or fails an append, an interruption.
pub fn run(arguments: &BenchGrowthArgs) -> Result<(), CliError> {
    let runtime = connect::runtime()?;
    let files = files_max();
    let bar = ProgressBar::new_spinner();
    let (mut grounds, mut points) = (None, Vec::new());
    for (dimension, setup) in setups(arguments) {
        bar.set_message(format!("{} {setup:?}", dimension.name()));
        let wanted = u64::from(setup.connections) + OTHER_FILES;
        let left_out = (wanted > files)
            .then(|| format!("it wants {wanted} open files, the limit (ulimit -n) is {files}"));
        let cost = if left_out.is_some() {
            None
        } else {
            let place = Place::new(None)?;
            if grounds.is_none() {
                grounds = Some(ground(place.dir())?);
            }
            let mut cluster = prepare(&place, setup)?;
            let measured = runtime.block_on(async {
                let stop = stop_signal()?;
                or_interrupted(stop, measure(arguments, setup, &mut cluster)).await
            });
            let stopped = cluster.stop_all();
            let measured = measured?;
            stopped?;
            Some(cost(setup, &measured))
        };
        points.push(Point {
            dimension: dimension.name(),
            setup,
            cost,
            left_out,
        });
    }
    bar.finish_and_clear();
    let ground = match grounds {
        Some(ground) => ground,
        None => ground(Place::new(None)?.dir())?,
    };
    let growth = Growth {
        ground,
        seconds: arguments.duration.as_secs_f64(),
        points,
    };
    let text = match arguments.output {
        ResultFormat::Table => growth.text(),
        ResultFormat::Json => json(&growth),
    };
    runtime.block_on(print(&text))
}

/// Every point, dimension by dimension.
fn setups(arguments: &BenchGrowthArgs) -> Vec<(Dimension, Setup)> {
    let default = Setup {
        nodes: 3,
        logs: 1,
        connections: 1,
        record_bytes: 1 << 10,
        in_flight: arguments.in_flight,
    };
    let of = |dimension: &Dimension| -> Vec<(Dimension, Setup)> {
        let values = match dimension {
            Dimension::Nodes => &arguments.nodes,
            Dimension::Logs => &arguments.logs,
            Dimension::Connections => &arguments.connections,
            Dimension::Sizes => &arguments.sizes,
        };
        let with = |value: &u32| {
            let mut setup = default;
            match dimension {
                Dimension::Nodes => setup.nodes = *value,
                Dimension::Logs => setup.logs = *value,
                Dimension::Connections => setup.connections = *value,
                Dimension::Sizes => {
                    setup.record_bytes = *value;
                    let few = (IN_FLIGHT_BYTES / *value).max(IN_FLIGHT_MIN);
                    setup.in_flight = setup.in_flight.min(few);
                }
            }
            (*dimension, setup)
        };
        values.iter().map(with).collect()
    };
    arguments.only.iter().flat_map(of).collect()
}

/// How many files this process and the nodes it starts may have open, once it has asked for all it may get.
fn files_max() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // One that may not be raised stays as it is, and points that do not fit are left out.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn prepare(place: &Place, setup: Setup) -> Result<Cluster, CliError> {
    let config = place.dir().join("growth.toml");
    let connections = (setup.connections + OTHER_CONNECTIONS).max(1 << 10);
    let text = format!("[limits]\nconnections_max = {connections}\n");
    write_file(&config, text)?;
    Cluster::prepare(ClusterOptions {
        node_count: u64::from(setup.nodes),
        cluster_id: "bench".to_owned(),
        config: Some(config),
        ..ClusterOptions::new(this_program()?, place.dir())
    })
}

async fn measure(
    arguments: &BenchGrowthArgs,
    setup: Setup,
    cluster: &mut Cluster,
) -> Result<Measured<Usages>, CliError> {
    cluster.start_all()?;
    let client = cluster_client(cluster, START_TIMEOUT)?;
    let leader = wait::leader(cluster, &client, START_TIMEOUT).await?;
    let log_ids = make_logs(&client, setup.logs).await?;
    let log_ids = log_ids.iter().map(Log::id).collect();
    let clients = connect(cluster.address(leader), setup.connections).await?;
    let sink = Sink::drave(&clients, log_ids, setup.in_flight);
    let mut processes = vec![(LOAD, std::process::id())];
    let process = |node_id| Some((node_id, cluster.pid(node_id)?));
    processes.extend(cluster.node_ids().into_iter().filter_map(process));
    let usage = || -> Usages {
        let of = |&(node_id, process_id): &(u64, u32)| Some((node_id, Usage::of(process_id)?));
        processes.iter().filter_map(of).collect()
    };
    let plan = Plan {
        in_flight: setup.in_flight.max(1),
        record_bytes: setup.record_bytes as usize,
        batch_records: 1,
        warm_up: arguments.warm_up,
        duration: arguments.duration,
        rate: None,
        is_verified: false,
        interval: None,
        end: None,
    };
    let measured = load::run(plan, sink, usage, |_| ()).await;
    measured.map_err(load_error)
}

/// So many clients, each with one connection, to the leader.
async fn connect(leader: &str, count: u32) -> Result<Vec<Client>, CliError> {
    let failed = |error| client_error("cannot connect", &error);
    let mut clients = Vec::new();
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        let client = Client::builder()
            .endpoints([leader])
            .request_timeout(TIMEOUT)
            .build();
        let client = client.map_err(failed)?;
        clients.push(client.clone());
        connecting.spawn(async move { client.connect().await });
        if connecting.len() >= CONNECTING_MAX {
            connected(connecting.join_next().await)?;
        }
    }
    while let Some(ended) = connecting.join_next().await {
        connected(Some(ended))?;
    }
    Ok(clients)
}

fn connected(
    ended: Option<Result<Result<(), drave_client::ClientError>, tokio::task::JoinError>>,
) -> Result<(), CliError> {
    match ended {
        Some(Ok(Err(error))) => Err(client_error("cannot connect", &error)),
        Some(Err(error)) => {
            Err(CliError::new(Exit::Failure, "cannot connect").why(error.to_string()))
        }
        Some(Ok(Ok(()))) | None => Ok(()),
    }
}

fn cost(setup: Setup, measured: &Measured<Usages>) -> Cost {
    let [before, after] = &measured.usage;
    let cpu_seconds = |is_load: bool| -> f64 {
        let of = |(node_id, after): &(u64, Usage)| {
            let (_, before) = before.iter().find(|(id, _)| id == node_id)?;
            ((*node_id == LOAD) == is_load).then(|| after.seconds_since(*before))
        };
        after.iter().filter_map(of).sum()
    };
    let seconds = measured.elapsed.as_secs_f64();
    let acks_per_second = measured.batches as f64 / seconds;
    let servers = cpu_seconds(false);
    let nodes = after.iter().filter(|(node_id, _)| *node_id != LOAD);
    let peak_kib = nodes.map(|(_, usage)| usage.peak_kib).max();
    Cost {
        acks_per_second,
        mib_per_second: acks_per_second * f64::from(setup.record_bytes) / 1_048_576.0,
        acks_per_cpu_second: (servers > 0.0).then(|| measured.batches as f64 / servers),
        servers_cpu: servers / seconds,
        load_cpu: cpu_seconds(true) / seconds,
        peak_mib: peak_kib.unwrap_or_default() as f64 / 1024.0,
        p50_us: us_at(&measured.latency, 50.0),
        p99_us: us_at(&measured.latency, 99.0),
    }
}
