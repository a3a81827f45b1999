//! `drave bench catch-up`: an empty node joins an own cluster under load, beside a plain copy of the same bytes.
//!
//! The load runs on a thread of its own; nodes are started on this one, since they end with the thread that did.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use drave_client::{Client, Log, NodeIdentity, NodeStatus, ProducerOptions, probe_identity};

use super::append::{ground, json, load_error, make_logs};
use crate::bench::append::load::{self, Measured, Plan};
use crate::bench::append::report::Latency;
use crate::bench::append::servers::Usage;
use crate::bench::append::sink::Sink;
use crate::bench::append::verify;
use crate::bench::catch_up::{CatchUp, Cut, Meanwhile, Memory, Moved};
use crate::bench::copy::{Copied, copy};
use crate::chaos::random::Random;
use crate::cli::ResultFormat;
use crate::cli::bench::catch_up::BenchCatchUpArgs;
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::commands::chaos::random_seed;
use crate::commands::dev::{Place, START_TIMEOUT, cluster_client, this_program};
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// How long an append may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the catching up may take; no load goes on for longer.
const PATIENCE: Duration = Duration::from_mins(30);

const RECORD_BYTES: u32 = 1 << 10;

/// Records of a batch of the fill, and such batches kept unacknowledged.
const FILL_RECORDS: u32 = 64;
const FILL_IN_FLIGHT: u32 = 64;

/// Of the closed loop that tells the capacity.
const CAPACITY_IN_FLIGHT: u32 = 256;
const CAPACITY_TIME: Duration = Duration::from_secs(2);

/// Of the open loop.
const IN_FLIGHT: u32 = 65_536;

const WARM_UP: Duration = Duration::from_secs(1);

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(5);

/// The log, and how it grew: large batches first, single records then.
struct Filled {
    endpoints: Vec<String>,
    log: Log,
    index: u64,
    bytes: u64,
}

/// What catching up showed.
struct CaughtUp {
    entries: u64,
    moved: Moved,
    memory: Vec<Memory>,
    cuts: Vec<Cut>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]: a cluster that does not come up or fails an append, a copy that fails, a node that does not catch up.
pub fn run(arguments: &BenchCatchUpArgs) -> Result<(), CliError> {
    let runtime = connect::runtime()?;
    let place = Place::new(arguments.dir.clone())?;
    let ground = ground(place.dir())?;
    let options = ClusterOptions {
        node_count: 3,
        cluster_id: "bench".to_owned(),
        ..ClusterOptions::new(this_program()?, place.dir())
    };
    let mut cluster = Cluster::prepare(options)?;
    if cluster.was_there() {
        let error = CliError::new(Exit::Usage, "the folder holds a cluster already");
        let error = error.with("dir", place.dir().display());
        return Err(error
            .effect("nothing was started")
            .next("give another --dir"));
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    cluster.start_all()?;
    let (filled, leader) = runtime.block_on(async {
        let client = cluster_client(&cluster, START_TIMEOUT)?;
        wait::leader(&mut cluster, &client, START_TIMEOUT).await?;
        let filled = fill(&cluster, arguments.bytes).await?;
        let leader = wait::leader(&mut cluster, &client, START_TIMEOUT).await?;
        Ok::<_, CliError>((filled, leader))
    })?;
    let capacity = match arguments.rate {
        Some(_) => None,
        None => {
            let measured = append(&filled, plan(CAPACITY_IN_FLIGHT, CAPACITY_TIME), || ())?;
            Some(measured.batches as f64 / measured.elapsed.as_secs_f64())
        }
    };
    let rate = arguments.rate.or(capacity.map(|it| (it * 0.5) as u32));
    let rate = rate.unwrap_or_default().max(1);
    let (alone, ()) = under_load(&filled, rate, "alone", || {
        thread::sleep(arguments.alone);
        Ok(())
    })?;
    let (copying, copied) = under_load(&filled, rate, "copy", || {
        let bytes = runtime.block_on(held_bytes(&filled.log))?;
        let source = cluster.node_ids().into_iter().find(|it| *it != leader);
        let source = cluster.data_dir(source.unwrap_or(leader));
        copy_log(&source, bytes, &place.dir().join("copy"))
    })?;
    let (catching_up, caught_up) = under_load(&filled, rate, "catch-up", || {
        let mut random = Random::new(seed);
        let joining = join(&mut cluster, &filled, arguments.cuts, &mut random);
        runtime.block_on(joining)
    })?;
    cluster.stop_all()?;
    let copied = Moved::new(copied.bytes, copied.elapsed.as_secs_f64());
    let report = CatchUp {
        ground,
        capacity,
        rate,
        record_bytes: RECORD_BYTES,
        entries: caught_up.entries,
        ratio: caught_up.moved.bytes_per_second / copied.bytes_per_second,
        p99_ratio: catching_up.latency.p99_us / alone.latency.p99_us,
        received_bytes: CatchUp::received(&caught_up.cuts, caught_up.moved.bytes),
        copy: copied,
        catch_up: caught_up.moved,
        meanwhile: vec![alone, copying, catching_up],
        memory: caught_up.memory,
        seed: (arguments.cuts > 0).then_some(seed),
        cuts: caught_up.cuts,
    };
    let text = match arguments.output {
        ResultFormat::Table => report.text(),
        ResultFormat::Json => json(&report),
    };
    runtime.block_on(print(&text))
}

fn plan(in_flight: u32, duration: Duration) -> Plan {
    Plan {
        in_flight,
        record_bytes: RECORD_BYTES as usize,
        batch_records: 1,
        warm_up: WARM_UP,
        duration,
        rate: None,
        is_verified: false,
        interval: None,
        end: None,
    }
}

/// Makes the log and fills it.
async fn fill(cluster: &Cluster, bytes: u64) -> Result<Filled, CliError> {
    let client = patient_client(&cluster.endpoints())?;
    let mut logs = make_logs(&client, 1).await?;
    let log = logs.remove(0);
    let producer = client.producer(ProducerOptions {
        in_flight_max: FILL_IN_FLIGHT,
        ..ProducerOptions::default()
    });
    let failed = |error| client_error("the log cannot be filled", &error);
    let mut waiting = VecDeque::new();
    for batch in 0..bytes.div_ceil(u64::from(FILL_RECORDS * RECORD_BYTES)) {
        let record = |place| verify::record(batch, place, RECORD_BYTES as usize);
        let records = (0..FILL_RECORDS).map(record);
        waiting.push_back(producer.submit(log.id(), records).await.map_err(failed)?);
        if waiting.len() >= FILL_IN_FLIGHT as usize
            && let Some(ticket) = waiting.pop_front()
        {
            ticket.await.map_err(failed)?;
        }
    }
    for ticket in waiting {
        ticket.await.map_err(failed)?;
    }
    let status = client.status().await;
    let status = status.map_err(|error| client_error("cannot ask the nodes", &error))?;
    let indexes = status.nodes.iter().filter_map(|node| node.last_index);
    Ok(Filled {
        endpoints: cluster.endpoints(),
        index: indexes.max().unwrap_or_default(),
        bytes: held_bytes(&log).await?,
        log,
    })
}

fn patient_client(endpoints: &[String]) -> Result<Client, CliError> {
    let client = Client::builder()
        .endpoints(endpoints.iter().cloned())
        .request_timeout(TIMEOUT)
        .build();
    client.map_err(|error| client_error("cannot set up the client", &error))
}

async fn held_bytes(log: &Log) -> Result<u64, CliError> {
    let described = log.describe().await;
    let described = described.map_err(|error| client_error("cannot describe the log", &error))?;
    Ok(described.held_bytes)
}

/// Appends by `plan`, with a client of its own; `begins` is called when what counts begins.
fn append(filled: &Filled, plan: Plan, begins: impl Fn()) -> Result<Measured<()>, CliError> {
    connect::runtime()?.block_on(async {
        let client = patient_client(&filled.endpoints)?;
        let log_ids = vec![filled.log.id()];
        let sink = Sink::drave(std::slice::from_ref(&client), log_ids, plan.in_flight);
        let measured = load::run(plan, sink, begins, |_| ()).await;
        measured.map_err(load_error)
    })
}

/// Does `work` while records are appended at `rate`.
fn under_load<T>(
    filled: &Filled,
    rate: u32,
    what: &'static str,
    work: impl FnOnce() -> Result<T, CliError>,
) -> Result<(Meanwhile, T), CliError> {
    let (begun, end) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let plan = Plan {
        rate: Some(rate),
        end: Some(Arc::clone(&end)),
        ..plan(IN_FLIGHT, PATIENCE)
    };
    let (measured, done) = thread::scope(|threads| {
        let loading =
            threads.spawn(|| append(filled, plan, || begun.store(true, Ordering::Relaxed)));
        while !begun.load(Ordering::Relaxed) && !loading.is_finished() {
            thread::sleep(PAUSE);
        }
        let done = work();
        end.store(true, Ordering::Relaxed);
        (loading.join().expect("the load does not panic"), done)
    });
    // What ended the load, if something did, ended the work, too.
    let (measured, done) = (measured?, done?);
    let meanwhile = Meanwhile {
        what,
        seconds: measured.elapsed.as_secs_f64(),
        records: measured.batches,
        latency: Latency::of(&measured.latency),
    };
    Ok((meanwhile, done))
}

/// Copies the first bytes of a node's log.
fn copy_log(data_dir: &Path, bytes: u64, target: &Path) -> Result<Copied, CliError> {
    let copied = segments(data_dir).and_then(|segments| copy(&segments, bytes, target));
    // It is of no use, and the disk is needed.
    let removed = std::fs::remove_file(target);
    copied
        .and_then(|copied| removed.map(|()| copied))
        .map_err(|error| {
            CliError::new(Exit::Failure, "the log's files cannot be copied")
                .with("from", data_dir.display())
                .with("to", target.display())
                .why(error.to_string())
        })
}

/// The files of a node's log, in order.
fn segments(data_dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(drave::store::group_dir(data_dir, 0))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("seg-") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Filled {
    /// The log's bytes up to an index, where `last` is that of its end at `bytes`.
    fn bytes_to(&self, index: u64, last: u64, bytes: u64) -> u64 {
        let part = |bytes: u64, of: u64, all: u64| bytes as f64 * of as f64 / all.max(1) as f64;
        if index <= self.index {
            return part(self.bytes, index, self.index) as u64;
        }
        let (of, all) = (index.min(last) - self.index, last - self.index);
        self.bytes + part(bytes.saturating_sub(self.bytes), of, all) as u64
    }
}

/// Adds an empty node and waits until it has, on its disk, what the leader has now; kills it `cuts` times meanwhile.
async fn join(
    cluster: &mut Cluster,
    filled: &Filled,
    cuts: u32,
    random: &mut Random,
) -> Result<CaughtUp, CliError> {
    let node_id = cluster.add_joining()?;
    cluster.start(node_id)?;
    let address = cluster.address(node_id).to_owned();
    let identity = identity(&address).await?;
    let client = cluster_client(cluster, START_TIMEOUT)?;
    let leader = wait::leader(cluster, &client, START_TIMEOUT).await?;
    let last = status_of(&client, leader)
        .await
        .and_then(|it| it.last_index);
    let last = last.unwrap_or(filled.index).max(filled.index);
    let bytes = held_bytes(&filled.log).await?;
    let mut points: Vec<u64> = (0..cuts)
        .map(|_| random.between(bytes / 20, bytes - bytes / 10))
        .collect();
    points.sort_unstable();
    let mut points = points.into_iter().peekable();
    let mut usages = Usages::new(cluster, [leader, node_id]);
    let begun = Instant::now();
    let added = client
        .add_learner(node_id, &address, identity.incarnation)
        .await;
    added.map_err(|error| client_error("the new node was not added", &error))?;
    let mut done = Vec::new();
    loop {
        let durable = durable_of(&client, node_id).await;
        if durable.is_some_and(|durable| durable >= last) && points.peek().is_none() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            let error = CliError::new(Exit::Unavailable, "the new node does not catch up");
            let why = format!("it has {durable:?} of {last} entries");
            return Err(error.why(why));
        }
        if let Some((ended, status)) = cluster.take_ended()?.into_iter().next() {
            return Err(cluster.ended_error(ended, status));
        }
        let reached = durable.unwrap_or_default();
        let reached_bytes = filled.bytes_to(reached, last, bytes);
        if points.next_if(|point| reached_bytes >= *point).is_none() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let at = begun.elapsed().as_secs_f64();
        usages.note(cluster);
        cluster.kill(node_id)?;
        let killed = Instant::now();
        cluster.start(node_id)?;
        let after = restarted(cluster, &client, node_id).await?;
        done.push(Cut {
            at,
            durable_before: reached,
            durable_after: after,
            bytes_before: reached_bytes.min(bytes),
            bytes_after: filled.bytes_to(after, last, bytes).min(bytes),
            away_seconds: killed.elapsed().as_secs_f64(),
        });
    }
    let seconds = begun.elapsed().as_secs_f64();
    usages.note(cluster);
    Ok(CaughtUp {
        entries: last,
        moved: Moved::new(bytes, seconds),
        memory: usages.memory(),
        cuts: done,
    })
}

/// Who a node that was just started is, once it says so.
async fn identity(address: &str) -> Result<NodeIdentity, CliError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match probe_identity(address, START_TIMEOUT).await {
            Ok(identity) => return Ok(identity),
            Err(error) if Instant::now() >= deadline => {
                return Err(client_error("the new node does not say who it is", &error));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn status_of(client: &Client, node_id: u64) -> Option<NodeStatus> {
    let mut nodes = client.status().await.ok()?.nodes.into_iter();
    nodes.find(|node| node.node_id == Some(node_id) && node.reachable)
}

async fn durable_of(client: &Client, node_id: u64) -> Option<u64> {
    status_of(client, node_id).await?.durable_index
}

/// What a node that was started again says first that it has on its disk.
async fn restarted(cluster: &mut Cluster, client: &Client, node_id: u64) -> Result<u64, CliError> {
    let what = "sign of the new node";
    wait::until(cluster, client, what, START_TIMEOUT, |status| {
        let mut nodes = status.nodes.iter();
        let node = nodes.find(|node| node.node_id == Some(node_id) && node.reachable)?;
        node.durable_index
    })
    .await
}

/// What two processes use: at first, and last.
struct Usages {
    nodes: [u64; 2],
    first: [Option<Usage>; 2],
    last: [Option<Usage>; 2],
    peak_kib: [u64; 2],
}

impl Usages {
    fn new(cluster: &Cluster, nodes: [u64; 2]) -> Self {
        let first = Self::of(cluster, nodes);
        Self {
            nodes,
            first,
            last: first,
            peak_kib: [0; 2],
        }
    }

    fn of(cluster: &Cluster, nodes: [u64; 2]) -> [Option<Usage>; 2] {
        nodes.map(|node_id| cluster.pid(node_id).and_then(Usage::of))
    }

    /// Also before a process ends, since its peak ends with it.
    fn note(&mut self, cluster: &Cluster) {
        self.last = Self::of(cluster, self.nodes);
        for (peak_kib, usage) in self.peak_kib.iter_mut().zip(self.last) {
            *peak_kib = usage.map_or(*peak_kib, |usage| usage.peak_kib.max(*peak_kib));
        }
    }

    fn memory(&self) -> Vec<Memory> {
        let of = |place: usize, role| {
            let (first, last) = (self.first[place]?, self.last[place]?);
            Some(Memory {
                node_id: self.nodes[place],
                role,
                resident_kib: [first.resident_kib, last.resident_kib],
                peak_kib: [first.peak_kib, self.peak_kib[place]],
            })
        };
        [of(0, "sender"), of(1, "receiver")]
            .into_iter()
            .flatten()
            .collect()
    }
}
