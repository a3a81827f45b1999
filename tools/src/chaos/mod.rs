//! Rounds of faults against a real cluster under the load of real clients, with the history checked.
//!
//! Each round has logs of its own. Faults strike under load and are healed; the next acknowledgement must
//! come within two election timeouts; then the load is brought to its end, all replicas catch up, the
//! round's logs are read back from the leader and from each replica, and the history is checked against
//! them. When all rounds are over, every node is killed once more, and every log must still hold what it
//! held at the end of its round.

mod insist;
pub mod load;
pub mod namespace;
pub mod network;
pub mod plan;
pub mod proxy;
pub mod random;
pub mod readback;
pub mod recorder;
pub mod report;
pub mod round;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drave_client::Client;
use tokio::runtime::Runtime;

use self::load::Load;
use self::plan::{Bounds, Link, Plan};
use self::proxy::{Proxy, Route};
use self::random::Random;
use self::readback::{Remembered, Source};
use self::recorder::{Notes, Recorder};
use self::report::{RoundReport, Summary};
use self::round::{Loss, Recovery, Striker, Struck, expect_alive, interrupted};
use crate::cli::Io;
use crate::cluster::{Cluster, ClusterOptions, wait};
use crate::commands::dev::{START_TIMEOUT, cluster_client};
use crate::commands::history::render;
use crate::connect::{self, client_error};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::history::{self, History, Line};

/// The longest election timeout that the nodes are configured with.
const ELECTION_TIMEOUT_MS_MAX: u64 = 600;

/// From healing to the next acknowledgement, unless asked otherwise: two election timeouts.
pub const RECOVERY_MAX: Duration = Duration::from_millis(2 * ELECTION_TIMEOUT_MS_MAX);

/// After so long without an acknowledgement the cluster does not come back by itself.
const STALL: Duration = Duration::from_secs(30);

const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Logs of one round.
const LOGS_PER_ROUND: u64 = 2;

/// The election timeouts are the product's defaults; small segments, so that there are many.
const CONFIG: &str = "\
[raft]
election_timeout_min = \"300ms\"
election_timeout_max = \"600ms\"

[wal]
segment_bytes = \"8MiB\"
";

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `drave` executable.
    pub program: PathBuf,
    /// Where everything goes; empty.
    pub dir: PathBuf,
    /// How many rounds.
    pub rounds: u64,
    /// Where all draws come from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u64,
    /// How long faults strike in one round.
    pub round: Duration,
    /// What the time from healing to the next acknowledgement is held to.
    pub recovery_max: Duration,
    /// The nodes' I/O engine.
    pub io: Io,
    /// Whether this process is in a network namespace of its own.
    pub has_network: bool,
    /// Whether the nodes talk through the proxy; needs the network.
    pub proxy: bool,
    /// Whether each round's history is written to `dir`, not only that of a broken one.
    pub keep_histories: bool,
    /// More arguments of `drave start` for every node.
    pub node_arguments: Vec<String>,
}

/// Runs all rounds and prints a line for each and a table at the end.
///
/// # Errors
/// [`CliError`] unless everything held.
pub fn run(options: &Options) -> Result<(), CliError> {
    let mut chaos = Chaos::start(options)?;
    let outcome = chaos.all_rounds();
    // A cluster that broke is looked at as it is.
    let stopped = if outcome.is_ok() {
        chaos.cluster.stop_all()
    } else {
        Ok(())
    };
    if let Some(proxy) = &chaos.proxy {
        chaos.summary.disturbed = Some(proxy.disturbed());
    }
    say(&format!("\n{}", chaos.summary.render(options.recovery_max)))?;
    outcome?;
    stopped?;
    if chaos.summary.is_good() {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, "the promise was not kept")
        .with("seed", options.seed)
        .with("kept", options.dir.display())
        .why("see the rounds that are marked as broken")
        .next("look at the histories and the nodes' logs there"))
}

struct Chaos<'a> {
    options: &'a Options,
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
    recorder: Recorder,
    load: Load,
    proxy: Option<Proxy>,
    random: Random,
    remembered: Vec<Remembered>,
    summary: Summary,
}

impl<'a> Chaos<'a> {
    /// Makes and starts the cluster and waits for a leader.
    fn start(options: &'a Options) -> Result<Self, CliError> {
        let config = options.dir.join("drave.toml");
        fs::create_dir_all(&options.dir)
            .and_then(|()| fs::write(&config, CONFIG))
            .map_err(|error| file_error(&options.dir, &error))?;
        let cluster_options = ClusterOptions {
            node_count: options.nodes,
            io: options.io,
            cluster_id: "chaos".to_owned(),
            config: Some(config),
            hosts: (1..=options.nodes).map(network::node_host).collect(),
            node_arguments: options.node_arguments.clone(),
            ..ClusterOptions::new(&options.program, options.dir.join("cluster"))
        };
        let mut cluster = Cluster::prepare(cluster_options)?;
        if cluster.was_there() {
            return Err(CliError::new(
                Exit::Precondition,
                "the directory holds an earlier cluster",
            )
            .with("dir", options.dir.display())
            .effect("nothing was started or changed")
            .next("give an empty directory"));
        }
        let mut random = Random::new(options.seed);
        let proxy = match options.proxy {
            true => Some(start_proxy(&cluster, random.fork().draw())?),
            false => None,
        };
        let runtime = connect::runtime()?;
        let client = cluster_client(&cluster, REQUEST_TIMEOUT)?;
        let recorder = Recorder::new();
        let load = Load::start(cluster.endpoints(), random.draw(), recorder.clone())?;
        cluster.start_all()?;
        runtime.block_on(wait::leader(&mut cluster, &client, START_TIMEOUT))?;
        Ok(Self {
            options,
            cluster,
            client,
            runtime,
            recorder,
            load,
            proxy,
            random,
            remembered: Vec::new(),
            summary: Summary::default(),
        })
    }

    fn all_rounds(&mut self) -> Result<(), CliError> {
        for number in 1..=self.options.rounds {
            let report = self.round(number)?;
            say(&format!("{}\n", report.line()))?;
            for problem in &report.problems {
                say(&format!("  {problem}\n"))?;
            }
            self.summary.add(&report);
        }
        self.last_look()
    }

    fn round(&mut self, number: u64) -> Result<RoundReport, CliError> {
        let mut random = self.random.fork();
        let bounds = Bounds {
            partitions: self.options.has_network,
            round_ms: u64::try_from(self.options.round.as_millis()).unwrap_or(u64::MAX),
        };
        let plan = Plan::draw(&mut random, bounds);
        let names: Vec<String> = (1..=LOGS_PER_ROUND)
            .map(|log| format!("round-{number}-{log}"))
            .collect();
        let mut log_ids = Vec::new();
        for name in &names {
            let created = self.runtime.block_on(self.client.create_log(name, true));
            let created = created.map_err(|error| client_error("cannot create a log", &error))?;
            log_ids.push(created.log_id);
        }
        self.set_calm(false);
        self.load.begin(names.clone())?;
        let striker = Striker::new(
            &mut self.cluster,
            &self.client,
            &self.runtime,
            &self.recorder,
            &mut random,
        );
        let struck = striker.carry_out(&plan, bounds.round_ms)?;
        self.set_calm(true);
        let mut report = RoundReport {
            number,
            kinds: struck.kinds.clone(),
            ..RoundReport::default()
        };
        self.recover(&struck, &report)?;
        self.load.end()?;
        expect_alive(&mut self.cluster)?;
        let notes = self.recorder.take();
        measure(&struck, &notes, self.options.recovery_max, &mut report);
        let history = self.read_back(&names, &log_ids, notes)?;
        self.judge(&history, &mut report)?;
        Ok(report)
    }

    fn set_calm(&self, calm: bool) {
        if let Some(proxy) = &self.proxy {
            proxy.set_calm(calm);
        }
    }

    /// Waits until the cluster takes appends again.
    fn recover(&mut self, struck: &Struck, report: &RoundReport) -> Result<(), CliError> {
        let last = struck.healings.last();
        let healed_us = last.expect("a round ends with everything healed").at_us();
        let acked = self
            .recorder
            .wait_acked(healed_us, self.recorder.now_us() + as_us(STALL))
            .map_err(interrupted)?;
        if acked.is_some() {
            return Ok(());
        }
        expect_alive(&mut self.cluster)?;
        let seconds = STALL.as_secs();
        Err(CliError::new(
            Exit::Unavailable,
            format!("nothing was acknowledged within {seconds} s of healing"),
        )
        .with("round", report.number)
        .with("faults", format!("{:?}", struck.kinds))
        .with("kept", self.options.dir.display()))
    }

    /// Waits until all replicas are level, then reads the round's logs from each of them.
    fn read_back(
        &mut self,
        names: &[String],
        log_ids: &[u64],
        notes: Notes,
    ) -> Result<History, CliError> {
        self.catch_up()?;
        let mut history = History {
            operations: notes.operations,
            finals: Vec::new(),
        };
        for (name, log_id) in names.iter().zip(log_ids) {
            let records = self.records(name, Source::Cluster)?;
            let slices = readback::slices(*log_id, Source::Cluster, &records);
            history.finals.extend(slices);
            let operations = &history.operations;
            let remembered = Remembered::new(name, *log_id, &records, operations);
            self.remembered.push(remembered);
            for node_id in self.cluster.node_ids() {
                let source = Source::Node(node_id);
                let records = self.records(name, source)?;
                history
                    .finals
                    .extend(readback::slices(*log_id, source, &records));
            }
        }
        Ok(history)
    }

    fn catch_up(&mut self) -> Result<(), CliError> {
        let nodes = self.cluster.node_ids().len();
        let level = wait::caught_up(&mut self.cluster, &self.client, nodes, CATCH_UP_TIMEOUT);
        self.runtime.block_on(level)
    }

    fn records(&self, name: &str, source: Source) -> Result<Vec<u64>, CliError> {
        self.runtime
            .block_on(readback::records(&self.client, name, source))
            .map_err(|error| error.with("log", name).with("from", format!("{source:?}")))
    }

    fn judge(&mut self, history: &History, report: &mut RoundReport) -> Result<(), CliError> {
        let checked = history::check(history);
        report.history = checked.map_err(|error| {
            CliError::new(Exit::Failure, "the recorded history makes no sense")
                .with("round", report.number)
                .why(error.to_string())
        })?;
        if !report.is_good() || self.options.keep_histories {
            let path = self
                .options
                .dir
                .join(format!("round-{}.jsonl", report.number));
            write_history(&path, history).map_err(|error| file_error(&path, &error))?;
        }
        if !report.history.is_clean() {
            say(&render(history, &report.history))?;
        }
        Ok(())
    }

    /// Kills everything once more: what comes back from the disks must be what each round left.
    fn last_look(&mut self) -> Result<(), CliError> {
        self.set_calm(true);
        self.cluster.kill_all()?;
        self.cluster.start_all()?;
        self.catch_up()?;
        let mut sources = vec![Source::Cluster];
        sources.extend(self.cluster.node_ids().into_iter().map(Source::Node));
        for source in sources {
            for remembered in &self.remembered {
                let records = self.records(remembered.name(), source)?;
                if let Some(problem) = remembered.problem(&records) {
                    let problem = format!("{}, {source:?}: {problem}", remembered.name());
                    say(&format!("{problem}\n"))?;
                    self.summary.problems.push(problem);
                }
            }
        }
        Ok(())
    }
}

/// Times the losses of leaders and the recoveries.
fn measure(struck: &Struck, notes: &Notes, recovery_max: Duration, report: &mut RoundReport) {
    report.starts_us.clone_from(&struck.starts_us);
    for lost in &struck.lost_leaders {
        let times_us = match lost.loss {
            Loss::Killed => &mut report.failovers_us,
            Loss::Silenced => &mut report.silent_failovers_us,
        };
        times_us.extend(lost.failover_us(&notes.acks));
    }
    for healing in &struck.healings {
        let seconds = healing.at_us() as f64 / 1e6;
        match healing.recovery(&notes.acks, as_us(recovery_max)) {
            Recovery::Disturbed => {}
            Recovery::After(us) => {
                report.recoveries_us.push(us);
                if us > as_us(recovery_max) {
                    let ms = us / 1000;
                    let problem = format!("back only {ms} ms after healing, at {seconds:.3} s");
                    report.problems.push(problem);
                }
            }
            Recovery::Never => report.problems.push(format!(
                "not back when the next fault struck, after healing at {seconds:.3} s"
            )),
        }
    }
}

fn start_proxy(cluster: &Cluster, seed: u64) -> Result<Proxy, CliError> {
    let mut routes = Vec::new();
    for from in cluster.node_ids() {
        for to in cluster.node_ids() {
            if from != to {
                let address = cluster.address(to).parse();
                let to_address = address.expect("ports are held by address");
                routes.push(Route {
                    link: Link { from, to },
                    to: to_address,
                });
            }
        }
    }
    let proxy = Proxy::start(&routes, seed)?;
    network::redirect(proxy.redirects())?;
    Ok(proxy)
}

fn as_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn write_history(path: &Path, history: &History) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for operation in &history.operations {
        history::write_line(&mut file, &Line::Operation(operation.clone()))?;
    }
    for slice in &history.finals {
        history::write_line(&mut file, &Line::Final(slice.clone()))?;
    }
    file.flush()
}

fn file_error(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failure, "cannot write")
        .with("path", path.display())
        .why(error.to_string())
}

/// Prints at once, so that a line is seen when its round is over.
pub(crate) fn say(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| CliError::stdout(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_are_configured_with_the_election_timeout_that_the_bound_is_made_of() {
        let line = format!("election_timeout_max = \"{ELECTION_TIMEOUT_MS_MAX}ms\"");
        assert!(CONFIG.contains(&line), "{CONFIG}");
    }
}
