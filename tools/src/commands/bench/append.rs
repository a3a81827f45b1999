//! `drave bench append`: load on a cluster, its own or a running one.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drave_client::{Client, Log};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::bench::append::compare::Comparison;
use crate::bench::append::floor::Floor;
use crate::bench::append::hdr;
use crate::bench::append::load::{self, LoadError, Measured, Plan};
use crate::bench::append::plot;
use crate::bench::append::report::{Ground, Report, Usages};
use crate::bench::append::servers::Usage;
use crate::bench::append::sink::{Sink, SinkError};
use crate::bench::append::verify::{self, Check};
use crate::bench::environment::Environment;
use crate::bench::raw::{RawFile, RawMode};
use crate::bench::us_at;
use crate::cli::ResultFormat;
use crate::cli::bench::append::{BenchAppendArgs, BenchTarget};
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::commands::dev::{self, Place, START_TIMEOUT, stop_signal, this_program};
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// How long an append may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Of the file on which a flush's cost is measured, and how long that takes.
const PROBE_BYTES: u64 = 4 << 20;
const PROBE_TIME: Duration = Duration::from_millis(300);

/// Runs the command.
///
/// # Errors
/// [`CliError`]: a cluster that does not come up or fails an append, a record that is not read back, an interruption.
pub fn run(arguments: &BenchAppendArgs) -> Result<(), CliError> {
    check(arguments)?;
    let runtime = connect::runtime()?;
    if !arguments.endpoints.is_empty() {
        return runtime.block_on(async {
            let stop = stop_signal()?;
            let endpoints = arguments.endpoints.clone();
            let report = or_interrupted(stop, measure(arguments, endpoints, Vec::new())).await?;
            write_files(arguments, std::slice::from_ref(&report))?;
            show(arguments, &report).await
        });
    }
    let mut runs = Vec::new();
    for _ in 0..arguments.rounds {
        for target in &arguments.target {
            runs.push(run_target(arguments, &runtime, *target)?);
        }
    }
    write_files(arguments, &runs)?;
    if runs.len() == 1 {
        return runtime.block_on(show(arguments, &runs[0]));
    }
    let comparison = Comparison::of(runs, arguments.target.len());
    let text = match arguments.output {
        ResultFormat::Table => comparison.text(),
        ResultFormat::Json => json(&comparison),
    };
    runtime.block_on(print(&text))
}

/// Starts what is measured, measures it, and stops it.
fn run_target(
    arguments: &BenchAppendArgs,
    runtime: &Runtime,
    target: BenchTarget,
) -> Result<Report, CliError> {
    let place = Place::new(arguments.dir.clone())?;
    let ground = ground(place.dir())?;
    let mut report = match target {
        BenchTarget::Drave => run_own(arguments, runtime, place.dir())?,
        BenchTarget::Floor => run_floor(arguments, runtime, place.dir())?,
        #[cfg(feature = "peers")]
        BenchTarget::Etcd | BenchTarget::Redis => {
            super::peers::run(arguments, runtime, target, place.dir())?
        }
    };
    report.ground = Some(ground);
    Ok(report)
}

fn run_own(
    arguments: &BenchAppendArgs,
    runtime: &Runtime,
    directory: &Path,
) -> Result<Report, CliError> {
    let options = ClusterOptions {
        node_count: u64::from(arguments.nodes),
        cluster_id: "bench".to_owned(),
        ..ClusterOptions::new(this_program()?, directory)
    };
    let mut cluster = Cluster::prepare(options)?;
    let outcome = runtime.block_on(async {
        // Handlers first: a signal that comes while the nodes start must stop them too.
        let stop = stop_signal()?;
        or_interrupted(stop, own(arguments, &mut cluster)).await
    });
    let stopped = cluster.stop_all();
    outcome.and_then(|report| stopped.map(|()| report))
}

fn run_floor(
    arguments: &BenchAppendArgs,
    runtime: &Runtime,
    directory: &Path,
) -> Result<Report, CliError> {
    runtime.block_on(async {
        let stop = stop_signal()?;
        let floor = Floor::start(directory).map_err(|error| {
            CliError::new(Exit::Failure, "cannot make the floor's files")
                .with("dir", directory.display())
                .why(error.to_string())
        })?;
        let sink = Sink::Floor(floor);
        or_interrupted(stop, async {
            let (report, _) = load_on(arguments, BenchTarget::Floor, sink, &[]).await?;
            Ok(report)
        })
        .await
    })
}

fn check(arguments: &BenchAppendArgs) -> Result<(), CliError> {
    let wrong = if arguments.clients > arguments.in_flight {
        Some("--clients is more than --in-flight: some would have nothing to do")
    } else if arguments.verify && (arguments.bytes as usize) < verify::RECORD_BYTES_MIN {
        Some("--verify wants --bytes of at least 16, to tell records from each other")
    } else if !arguments.endpoints.is_empty()
        && (arguments.target != [BenchTarget::Drave] || arguments.rounds > 1)
    {
        Some("--endpoints is one run against one cluster of drave")
    } else if arguments.verify && arguments.target != [BenchTarget::Drave] {
        Some("--verify reads back from drave alone")
    } else if arguments.dir.is_some() && (arguments.target.len() > 1 || arguments.rounds > 1) {
        Some("each of several runs begins with nothing, so --dir is for one alone")
    } else {
        None
    };
    wrong.map_or(Ok(()), |why| {
        let error = CliError::new(Exit::Usage, "these options do not fit together").why(why);
        Err(error.effect("nothing was started"))
    })
}

pub(super) async fn or_interrupted<T>(
    stop: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        () = stop => Err(CliError::new(Exit::Interrupted, "interrupted before the end")),
        done = work => done,
    }
}

async fn own(arguments: &BenchAppendArgs, cluster: &mut Cluster) -> Result<Report, CliError> {
    cluster.start_all()?;
    let client = dev::cluster_client(cluster, START_TIMEOUT)?;
    wait::leader(cluster, &client, START_TIMEOUT).await?;
    drop(client);
    let process = |node_id| Some((node_id, cluster.pid(node_id)?));
    let processes = cluster.node_ids().into_iter().filter_map(process).collect();
    measure(arguments, cluster.endpoints(), processes).await
}

/// Runs the load on the cluster at `endpoints`; `processes` are its nodes' if they are on this machine.
async fn measure(
    arguments: &BenchAppendArgs,
    endpoints: Vec<String>,
    processes: Vec<(u64, u32)>,
) -> Result<Report, CliError> {
    let mut clients = Vec::new();
    for _ in 0..arguments.clients {
        let client = Client::builder()
            .endpoints(endpoints.iter().cloned())
            .request_timeout(TIMEOUT)
            .build();
        clients.push(client.map_err(|error| client_error("cannot set up the client", &error))?);
    }
    let logs = make_logs(&clients[0], arguments.logs).await?;
    let log_ids = logs.iter().map(Log::id).collect();
    let sink = Sink::drave(&clients, log_ids, arguments.in_flight);
    let (mut report, measured) = load_on(arguments, BenchTarget::Drave, sink, &processes).await?;
    env!("CARGO_PKG_VERSION").clone_into(&mut report.version);
    if arguments.verify {
        report.verified_records = Some(read_back(arguments, &logs, measured).await?);
    }
    Ok(report)
}

/// Runs the load; `processes` are the servers', if they are on this machine.
pub(super) async fn load_on(
    arguments: &BenchAppendArgs,
    target: BenchTarget,
    sink: Sink,
    processes: &[(u64, u32)],
) -> Result<(Report, Measured<Usages>), CliError> {
    let plan = Plan {
        in_flight: arguments.in_flight,
        record_bytes: arguments.bytes as usize,
        batch_records: arguments.batch,
        warm_up: arguments.warm_up,
        duration: arguments.duration,
        rate: arguments.rate,
        is_verified: arguments.verify,
        interval: None,
        end: None,
    };
    let logs = sink.log_count() as u32;
    let bar = ProgressBar::new_spinner();
    let usage = || -> Usages {
        let of = |&(node_id, process_id)| Some((node_id, Usage::of(process_id)?));
        processes.iter().filter_map(of).collect()
    };
    let name = target.name();
    let progress = |batches| bar.set_message(format!("{name}: {batches} batches acknowledged"));
    let measured = load::run(plan.clone(), sink, usage, progress).await;
    bar.finish_and_clear();
    let measured = measured.map_err(load_error)?;
    let report = Report::of(name, &plan, arguments.clients, logs, &measured);
    Ok((report, measured))
}

pub(super) fn load_error(error: LoadError) -> CliError {
    match error {
        LoadError::Append(SinkError::Client(error)) => client_error("an append failed", &error),
        LoadError::Append(SinkError::Other(why)) => {
            CliError::new(Exit::Failure, "an append failed").why(why)
        }
        LoadError::Thread(error) => {
            CliError::new(Exit::Failure, "cannot start a thread").why(error.to_string())
        }
    }
}

/// New logs, named after the time.
pub(super) async fn make_logs(client: &Client, count: u32) -> Result<Vec<Log>, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_us = now.unwrap_or_default().as_micros();
    let mut logs = Vec::new();
    for number in 0..count {
        let name = format!("bench-{now_us}-{number}");
        let created = client.create_log(&name, true).await;
        created.map_err(|error| client_error("cannot create a log", &error).with("log", &name))?;
        let log = client.log(&name).await;
        logs.push(log.map_err(|error| client_error("cannot open a log", &error))?);
    }
    Ok(logs)
}

/// Reads all logs and compares; how many records were right, if none was not.
async fn read_back(
    arguments: &BenchAppendArgs,
    logs: &[Log],
    measured: Measured<Usages>,
) -> Result<u64, CliError> {
    let mut count = 0;
    for (log, wanted) in logs.iter().zip(measured.acknowledged) {
        let wanted_records = wanted.len() as u64 * u64::from(arguments.batch);
        let mut check = Check::new(wanted, arguments.batch, arguments.bytes as usize);
        let mut reader = log.reader(0);
        while let Some(chunk) = reader
            .next()
            .await
            .map_err(|error| client_error("cannot read a log back", &error))?
        {
            for record in chunk.records {
                check.take(record.seq, &record.payload);
            }
        }
        let (missing, wrong) = check.missing_and_wrong();
        if missing + wrong > 0 {
            let why = format!(
                "of {wanted_records} acknowledged records {missing} are missing and {wrong} are not what was appended"
            );
            let error = CliError::new(Exit::Corruption, "acknowledged records were lost");
            return Err(error.with("log", log.name()).why(why));
        }
        count += wanted_records;
    }
    Ok(count)
}

/// Machine and file system of `directory`, and what a flush costs there now. Blocks for half a second.
pub(super) fn ground(directory: &Path) -> Result<Ground, CliError> {
    let path = directory.join("probe");
    let failed = |error: std::io::Error| {
        CliError::new(Exit::Failure, "cannot measure the disk")
            .with("dir", directory.display())
            .why(error.to_string())
            .effect("nothing was started")
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let flush = RawFile::make(&path, RawMode::DirectDsync, PROBE_BYTES)
        .and_then(|file| file.run(4096, 1, PROBE_TIME));
    let environment = Environment::of(directory, &path);
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(Ground {
        environment: environment.map_err(failed)?,
        flush_us: flush.ok().map(|run| us_at(&run.latency, 50.0)),
    })
}

async fn show(arguments: &BenchAppendArgs, report: &Report) -> Result<(), CliError> {
    let text = match arguments.output {
        ResultFormat::Table => report.text(),
        ResultFormat::Json => json(report),
    };
    print(&text).await
}

/// What other programs and eyes get.
fn write_files(arguments: &BenchAppendArgs, runs: &[Report]) -> Result<(), CliError> {
    if let Some(path) = &arguments.hdr {
        let mut log = Vec::new();
        let made = hdr::write(&mut log, runs);
        made.map_err(|error| file_error(path, error.to_string()))?;
        write_file(path, log)?;
    }
    if let Some(path) = &arguments.plot {
        let svg = plot::svg(runs).map_err(|error| file_error(path, error.to_string()))?;
        write_file(path, svg)?;
    }
    Ok(())
}

fn file_error(path: &Path, why: String) -> CliError {
    CliError::new(Exit::Failure, "cannot write a file of results")
        .with("file", path.display())
        .why(why)
}

pub(super) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<(), CliError> {
    std::fs::write(path, content).map_err(|error| file_error(path, error.to_string()))
}

pub(super) fn json(figures: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(figures);
    json.expect("figures and words can be written as JSON") + "\n"
}
