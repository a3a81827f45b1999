//! `drave bench stability`: an own cluster at a constant rate, its nodes killed and paused meanwhile.
//!
//! The load runs on this thread, what is done to the nodes on another, so that neither waits for the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use drave::config::RaftConfig;
use drave_client::{Client, Retention};
use indicatif::ProgressBar;
use rustix::process::Signal;

use super::append::{ground, json, load_error, make_logs, write_file};
use crate::bench::append::load::{self, Measured, Plan};
use crate::bench::append::report::{Latency, Usages};
use crate::bench::append::servers::Usage;
use crate::bench::append::sink::Sink;
use crate::bench::append::timeline::{Happening, Piece, Timeline, away_for};
use crate::cli::ResultFormat;
use crate::cli::bench::stability::BenchStabilityArgs;
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::commands::dev::{Place, START_TIMEOUT, cluster_client, this_program};
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// How long an append may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Of an open loop; more than come due while a leader is elected.
const IN_FLIGHT: u32 = 65_536;

/// Of the closed loop that tells the capacity.
const CAPACITY_IN_FLIGHT: u32 = 256;
const CAPACITY_TIME: Duration = Duration::from_secs(5);

const WARM_UP: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(1);

/// What the log keeps: a follower that is away for longer than that takes to fill needs a snapshot.
const KEPT_BYTES: u64 = 128 << 20;

/// Snapshots often enough that what is trimmed leaves the disks soon.
const CONFIG: &str = "[snapshots]\nentries = 20000\n";

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(20);

/// What both threads know of.
struct Scene {
    begun: Instant,
    duration: Duration,
    away: Duration,
    is_over: AtomicBool,
    /// Process ids of the nodes that run.
    processes: Mutex<Vec<(u64, u32)>>,
    happenings: Mutex<Vec<Happening>>,
}

/// What was done that the result tells of.
#[derive(Clone, Copy, Default)]
struct Disturbed {
    /// The follower that was killed.
    follower: u64,
    /// When the leader was killed, in seconds.
    election_at: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]: a cluster that does not come up or fails an append, a file that cannot be written.
pub fn run(arguments: &BenchStabilityArgs) -> Result<(), CliError> {
    if arguments.duration < Duration::from_secs(10) {
        let error = CliError::new(Exit::Usage, "--duration is too short");
        return Err(error.why("less than 10s leaves no time for what is done to the nodes"));
    }
    let runtime = connect::runtime()?;
    let place = Place::new(arguments.dir.clone())?;
    let ground = ground(place.dir())?;
    let config = place.dir().join("stability.toml");
    write_file(&config, CONFIG)?;
    let options = ClusterOptions {
        node_count: 3,
        cluster_id: "bench".to_owned(),
        config: Some(config),
        ..ClusterOptions::new(this_program()?, place.dir())
    };
    let mut cluster = Cluster::prepare(options)?;
    cluster.start_all()?;
    let (client, log_id, rate) = runtime.block_on(prepare(arguments, &mut cluster))?;
    let plan = Plan {
        rate: Some(rate),
        interval: Some(INTERVAL),
        ..plan(arguments, IN_FLIGHT, WARM_UP, arguments.duration)
    };
    let scene = Scene {
        begun: Instant::now() + WARM_UP,
        duration: arguments.duration,
        away: arguments
            .away
            .unwrap_or_else(|| away_for(arguments.duration)),
        is_over: AtomicBool::new(false),
        processes: Mutex::default(),
        happenings: Mutex::default(),
    };
    scene.note_processes(&cluster);
    let (measured, disturbed) = thread::scope(|threads| {
        let disturbing = threads.spawn(|| {
            let runtime = connect::runtime()?;
            runtime.block_on(disturb(&scene, &mut cluster))
        });
        let sink = Sink::drave(std::slice::from_ref(&client), vec![log_id], IN_FLIGHT);
        let measured = runtime.block_on(load(plan, sink, &scene));
        scene.is_over.store(true, Ordering::Relaxed);
        let disturbed = disturbing
            .join()
            .expect("what is done to the nodes does not panic");
        (measured, disturbed)
    });
    let (measured, disturbed) = (measured?, disturbed?);
    let log = std::fs::read_to_string(cluster.log_path(disturbed.follower)).unwrap_or_default();
    cluster.stop_all()?;
    let pieces: Vec<Piece> = measured.intervals.iter().map(Piece::from).collect();
    let election_at = disturbed.election_at.unwrap_or(f64::INFINITY);
    let timeline = Timeline {
        rate,
        record_bytes: arguments.bytes,
        latency: Latency::of(&measured.latency),
        longest_before_election_us: Timeline::longest_us(&pieces, 0.0, election_at),
        longest_after_election_us: Timeline::longest_us(&pieces, election_at, f64::INFINITY),
        election_timeout_us: RaftConfig::default().election_timeout_max.as_us() as f64,
        snapshot_received: log.contains("snapshot received"),
        happenings: scene
            .happenings
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner),
        pieces,
        ground,
    };
    if let Some(path) = &arguments.plot {
        let svg = timeline.svg().map_err(|error| {
            let error =
                CliError::new(Exit::Failure, "cannot draw the picture").why(error.to_string());
            error.with("file", path.display())
        })?;
        write_file(path, &svg)?;
    }
    let text = match arguments.output {
        ResultFormat::Table => timeline.text(),
        ResultFormat::Json => json(&timeline),
    };
    runtime.block_on(print(&text))
}

fn plan(
    arguments: &BenchStabilityArgs,
    in_flight: u32,
    warm_up: Duration,
    duration: Duration,
) -> Plan {
    Plan {
        in_flight,
        record_bytes: arguments.bytes as usize,
        batch_records: 1,
        warm_up,
        duration,
        rate: None,
        is_verified: false,
        interval: None,
        end: None,
    }
}

/// A leader, a log, and how many records per second it gets.
async fn prepare(
    arguments: &BenchStabilityArgs,
    cluster: &mut Cluster,
) -> Result<(Client, u64, u32), CliError> {
    let client = cluster_client(cluster, START_TIMEOUT)?;
    wait::leader(cluster, &client, START_TIMEOUT).await?;
    let client = Client::builder()
        .endpoints(cluster.endpoints())
        .request_timeout(TIMEOUT)
        .build()
        .map_err(|error| client_error("cannot set up the client", &error))?;
    let logs = make_logs(&client, 1).await?;
    let retention = Retention {
        bytes: Some(KEPT_BYTES),
        ..Retention::default()
    };
    let kept = client.set_retention(logs[0].name(), retention).await;
    kept.map_err(|error| client_error("cannot set the log's retention", &error))?;
    let log_id = logs[0].id();
    if let Some(rate) = arguments.rate {
        return Ok((client, log_id, rate));
    }
    let plan = plan(
        arguments,
        CAPACITY_IN_FLIGHT,
        Duration::from_secs(1),
        CAPACITY_TIME,
    );
    let sink = Sink::drave(
        std::slice::from_ref(&client),
        vec![log_id],
        CAPACITY_IN_FLIGHT,
    );
    let measured = load::run(plan, sink, || (), |_| ())
        .await
        .map_err(load_error)?;
    let capacity = measured.batches as f64 / measured.elapsed.as_secs_f64();
    Ok((client, log_id, (capacity * 0.7).max(1.0) as u32))
}

async fn load(plan: Plan, sink: Sink, scene: &Scene) -> Result<Measured<Usages>, CliError> {
    let bar = ProgressBar::new_spinner();
    let usage = || -> Usages {
        let of = |&(node_id, process_id): &(u64, u32)| Some((node_id, Usage::of(process_id)?));
        scene.processes().iter().filter_map(of).collect()
    };
    let progress = |records| {
        let at = scene.begun.elapsed().as_secs_f64();
        bar.set_message(format!("{at:.0} s, {records} records acknowledged"));
    };
    let measured = load::run(plan, sink, usage, progress).await;
    bar.finish_and_clear();
    measured.map_err(load_error)
}

impl Scene {
    fn processes(&self) -> Vec<(u64, u32)> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note_processes(&self, cluster: &Cluster) {
        let nodes = cluster.node_ids().into_iter();
        let running = nodes.filter_map(|node_id| Some((node_id, cluster.pid(node_id)?)));
        *self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = running.collect();
    }

    fn tell(&self, what: String) -> f64 {
        let at = self.begun.elapsed().as_secs_f64();
        let mut happenings = self
            .happenings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        happenings.push(Happening { at, what });
        at
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Waits until so much of the time is over; whether the load still goes on.
    fn wait_until(&self, part: f64) -> bool {
        let due = self.begun + self.duration.mul_f64(part);
        self.wait_while(|| Instant::now() < due)
    }

    fn wait_away(&self) -> bool {
        let due = Instant::now() + self.away;
        self.wait_while(|| Instant::now() < due)
    }

    fn wait_while(&self, still: impl Fn() -> bool) -> bool {
        while still() && !self.is_over() {
            thread::sleep(PAUSE);
        }
        !self.is_over()
    }
}

async fn disturb(scene: &Scene, cluster: &mut Cluster) -> Result<Disturbed, CliError> {
    let client = cluster_client(cluster, START_TIMEOUT)?;
    let mut disturbed = Disturbed::default();
    if !scene.wait_until(1.0 / 6.0) {
        return Ok(disturbed);
    }
    let leader = wait::leader(cluster, &client, START_TIMEOUT).await?;
    let mut followers = cluster
        .node_ids()
        .into_iter()
        .filter(|node_id| *node_id != leader);
    let (killed, paused) = (
        followers.next().unwrap_or(leader),
        followers.next().unwrap_or(leader),
    );
    disturbed.follower = killed;
    let last_index = index_of(&client, killed, |node| node.last_index).await;
    kill(scene, cluster, killed, "follower")?;
    scene.wait_away();
    // Until what it lacks is gone; but half of the time it is back.
    let patience = scene.begun + scene.duration.mul_f64(0.4);
    while index_of(&client, leader, |node| node.first_index).await <= last_index
        && Instant::now() < patience
        && !scene.is_over()
    {
        thread::sleep(PAUSE);
    }
    start(scene, cluster, killed)?;
    if !scene.wait_until(0.5) {
        return Ok(disturbed);
    }
    cluster.signal(paused, Signal::STOP)?;
    scene.tell(format!("node {paused} (follower) paused"));
    scene.wait_away();
    cluster.signal(paused, Signal::CONT)?;
    scene.tell(format!("node {paused} goes on"));
    if !scene.wait_until(0.75) {
        return Ok(disturbed);
    }
    let leader = wait::leader(cluster, &client, START_TIMEOUT).await?;
    disturbed.election_at = Some(kill(scene, cluster, leader, "leader")?);
    scene.wait_away();
    start(scene, cluster, leader)?;
    // Nodes end with the thread that started them.
    scene.wait_while(|| true);
    Ok(disturbed)
}

fn kill(scene: &Scene, cluster: &mut Cluster, node_id: u64, role: &str) -> Result<f64, CliError> {
    let at = scene.tell(format!("node {node_id} ({role}) killed"));
    cluster.kill(node_id)?;
    scene.note_processes(cluster);
    Ok(at)
}

fn start(scene: &Scene, cluster: &mut Cluster, node_id: u64) -> Result<(), CliError> {
    cluster.start(node_id)?;
    scene.note_processes(cluster);
    scene.tell(format!("node {node_id} started"));
    Ok(())
}

/// An index that a node tells of itself, 0 when it does not.
async fn index_of(
    client: &Client,
    node_id: u64,
    index: impl Fn(&drave_client::NodeStatus) -> Option<u64>,
) -> u64 {
    let status = client.status().await;
    let nodes = status.map(|status| status.nodes).unwrap_or_default();
    let node = nodes.iter().find(|node| node.node_id == Some(node_id));
    node.and_then(index).unwrap_or_default()
}
