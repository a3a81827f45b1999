//! A cluster of real node processes on this machine, for `drave dev`, `drave demo` and the tests.
//!
//! Formats the directories, holds the ports, starts, kills and stops the processes, and leaves none
//! behind: dropping a cluster kills its nodes, and each node ends by itself when the thread that started
//! it is gone. It does not talk to the nodes (`wait` does) and restarts nothing by itself.

pub mod process;
pub mod wait;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use drave::store::FormatRequest;
use drave_embed::testing::{HeldPort, hold_port};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use self::process::NodeProcess;
use crate::cli::Io;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::node_side;

/// How long a node may take to stop after SIGTERM before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a node's own log shown when it failed.
const LOG_TAIL_BYTES: u64 = 2_000;

const PLAN_FILE: &str = "cluster.json";

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The `drave` executable.
    pub program: PathBuf,
    /// The directory for all of it: one data directory and one log file per node.
    pub dir: PathBuf,
    /// The cluster's id.
    pub cluster_id: String,
    /// How many nodes; at least 1.
    pub node_count: u64,
    /// The IP addresses they listen on: the first node takes the first one, and so on, round and round.
    pub hosts: Vec<String>,
    /// The I/O engine.
    pub io: Io,
    /// Every node's configuration file.
    pub config: Option<PathBuf>,
    /// More arguments of `drave start` for every node.
    pub node_arguments: Vec<String>,
}

impl ClusterOptions {
    /// Three nodes of `program` under `dir`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            cluster_id: "dev".to_owned(),
            node_count: 3,
            hosts: vec!["127.0.0.1".to_owned()],
            io: Io::Auto,
            config: None,
            node_arguments: Vec::new(),
        }
    }
}

/// What is written beside the data directories, so that the same cluster can be started again.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    cluster_id: String,
    nodes: Vec<PlannedNode>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlannedNode {
    node_id: u64,
    address: String,
}

/// One node of a cluster, running or not.
#[derive(Debug)]
struct ClusterNode {
    node_id: u64,
    address: String,
    process: Option<NodeProcess>,
}

/// The nodes and their processes.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    nodes: Vec<ClusterNode>,
    /// Ports of nodes that were never started yet.
    held: Vec<HeldPort>,
    was_there: bool,
}

impl Cluster {
    /// Opens the cluster that was made in `options.dir` before, or formats a new one there. Starts nothing.
    ///
    /// # Errors
    /// [`CliError`], among others when `options` do not fit the cluster found.
    pub fn prepare(options: ClusterOptions) -> Result<Self, CliError> {
        let path = options.dir.join(PLAN_FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::reopen(options, &path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::format(options),
            Err(error) => Err(io_error("cannot read the cluster's plan", &path, &error)),
        }
    }

    fn reopen(options: ClusterOptions, path: &Path, bytes: &[u8]) -> Result<Self, CliError> {
        let plan: Plan = serde_json::from_slice(bytes).map_err(|error| {
            CliError::new(Exit::Corruption, "the cluster's plan is damaged")
                .with("file", path.display())
                .why(error.to_string())
                .effect("nothing was started or changed")
                .next("give another directory")
        })?;
        let found = plan.nodes.len() as u64;
        if plan.cluster_id != options.cluster_id || found != options.node_count {
            let why = format!(
                "it holds cluster {} of {found} nodes, asked for was cluster {} of {}",
                plan.cluster_id, options.cluster_id, options.node_count
            );
            return Err(
                CliError::new(Exit::Mismatch, "the directory holds another cluster")
                    .with("dir", options.dir.display())
                    .why(why)
                    .effect("nothing was started or changed")
                    .next("give another directory, or the options it was made with"),
            );
        }
        let nodes = plan
            .nodes
            .into_iter()
            .map(|node| ClusterNode {
                node_id: node.node_id,
                address: node.address,
                process: None,
            })
            .collect();
        Ok(Self {
            options,
            nodes,
            held: Vec::new(),
            was_there: true,
        })
    }

    fn format(options: ClusterOptions) -> Result<Self, CliError> {
        let dir = &options.dir;
        fs::create_dir_all(dir)
            .map_err(|error| io_error("cannot make the directory", dir, &error))?;
        let ports_error = |error: io::Error| no_ports(&options, &error);
        let mut held = Vec::new();
        let mut members = Vec::new();
        for (node_id, host) in (1..=options.node_count).zip(options.hosts.iter().cycle()) {
            let port = hold_port(host).map_err(ports_error)?;
            members.push((node_id, port.address().map_err(ports_error)?));
            held.push(port);
        }
        for (node_id, _) in &members {
            node_side::format(&FormatRequest {
                data_dir: data_dir(dir, *node_id),
                cluster_id: options.cluster_id.clone(),
                node_id: *node_id,
                members: members.clone(),
                join: false,
            })?;
        }
        let nodes = members.iter().map(|(node_id, address)| PlannedNode {
            node_id: *node_id,
            address: address.clone(),
        });
        let plan = Plan {
            cluster_id: options.cluster_id.clone(),
            nodes: nodes.collect(),
        };
        write_plan(dir, &plan)
            .map_err(|error| io_error("cannot write the cluster's plan", dir, &error))?;
        let nodes = members
            .into_iter()
            .map(|(node_id, address)| ClusterNode {
                node_id,
                address,
                process: None,
            })
            .collect();
        Ok(Self {
            options,
            nodes,
            held,
            was_there: false,
        })
    }

    /// Formats one more node, with the next id, that knows no members: to be started, and then added to the
    /// cluster by its leader. A cluster opened again does not remember it.
    ///
    /// # Errors
    /// [`CliError`] when there is no port or directory for it.
    pub fn add_joining(&mut self) -> Result<u64, CliError> {
        let options = &self.options;
        let node_id = self.nodes.last().map_or(1, |last| last.node_id + 1);
        let mut hosts = options.hosts.iter().cycle();
        let host = hosts.nth(self.nodes.len()).map_or("127.0.0.1", |host| host);
        let ports_error = |error: io::Error| no_ports(options, &error);
        let port = hold_port(host).map_err(ports_error)?;
        let address = port.address().map_err(ports_error)?;
        node_side::format(&FormatRequest {
            data_dir: data_dir(&options.dir, node_id),
            cluster_id: options.cluster_id.clone(),
            node_id,
            members: vec![(node_id, address.clone())],
            join: true,
        })?;
        self.held.push(port);
        self.nodes.push(ClusterNode {
            node_id,
            address,
            process: None,
        });
        Ok(node_id)
    }

    /// Whether the cluster was there before and was only opened.
    #[must_use]
    pub fn was_there(&self) -> bool {
        self.was_there
    }

    /// The node ids, ascending.
    #[must_use]
    pub fn node_ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.node_id).collect()
    }

    /// All nodes' HOST:PORT.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// A node's HOST:PORT.
    ///
    /// # Panics
    /// If the cluster has no such node.
    #[must_use]
    pub fn address(&self, node_id: u64) -> &str {
        &self.node(node_id).address
    }

    /// A node's data directory.
    #[must_use]
    pub fn data_dir(&self, node_id: u64) -> PathBuf {
        data_dir(&self.options.dir, node_id)
    }

    /// The file with what a node wrote to its standard error.
    #[must_use]
    pub fn log_path(&self, node_id: u64) -> PathBuf {
        self.options.dir.join(format!("node-{node_id}.log"))
    }

    /// The process id of a running node.
    ///
    /// # Panics
    /// If the cluster has no such node.
    #[must_use]
    pub fn pid(&self, node_id: u64) -> Option<u32> {
        self.node(node_id).process.as_ref().map(NodeProcess::id)
    }

    /// Starts a node that is not running. Returns once the process exists.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be started.
    ///
    /// # Panics
    /// If the cluster has no such node, or it runs.
    pub fn start(&mut self, node_id: u64) -> Result<(), CliError> {
        assert!(
            self.node(node_id).process.is_none(),
            "node {node_id} is not running"
        );
        let address = self.node(node_id).address.clone();
        self.held
            .retain(|port| port.address().is_ok_and(|held| held != address));
        let command = self.command(node_id);
        let process = command.and_then(|mut command| NodeProcess::spawn(&mut command));
        let process = process
            .map_err(|error| io_error("cannot start a node", &self.options.program, &error))?;
        self.node_mut(node_id).process = Some(process);
        Ok(())
    }

    /// Starts every node that is not running.
    ///
    /// # Errors
    /// [`CliError`] when one cannot be started; the others stay as they are.
    pub fn start_all(&mut self) -> Result<(), CliError> {
        for node_id in self.node_ids() {
            if self.node(node_id).process.is_none() {
                self.start(node_id)?;
            }
        }
        Ok(())
    }

    fn command(&self, node_id: u64) -> io::Result<Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path(node_id))?;
        let mut command = Command::new(&self.options.program);
        command
            .arg("start")
            .arg("--data-dir")
            .arg(self.data_dir(node_id));
        command.args(["--io", self.options.io.name()]);
        command.args(["--exit-with-parent", &std::process::id().to_string()]);
        if let Some(config) = &self.options.config {
            command.arg("--config").arg(config);
        }
        command.args(&self.options.node_arguments);
        // A group of its own: Ctrl-C reaches the parent only, which then stops the nodes in order.
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }

    /// Kills a node with SIGKILL and reaps it; one that does not run stays so.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    ///
    /// # Panics
    /// If the cluster has no such node.
    pub fn kill(&mut self, node_id: u64) -> Result<(), CliError> {
        let Some(mut process) = self.node_mut(node_id).process.take() else {
            return Ok(());
        };
        process
            .kill()
            .map_err(|error| process_error("kill", node_id, &error))?;
        Ok(())
    }

    /// Kills every node at once: all signals are sent before any process is waited for.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    pub fn kill_all(&mut self) -> Result<(), CliError> {
        self.signal_all(Signal::KILL)?;
        for node_id in self.node_ids() {
            self.kill(node_id)?;
        }
        Ok(())
    }

    /// Stops a node with SIGTERM (SIGKILL after [`STOP_TIMEOUT`]); `None` when it does not run.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    ///
    /// # Panics
    /// If the cluster has no such node.
    pub fn stop(&mut self, node_id: u64) -> Result<Option<ExitStatus>, CliError> {
        let Some(mut process) = self.node_mut(node_id).process.take() else {
            return Ok(None);
        };
        process
            .stop(STOP_TIMEOUT)
            .map(Some)
            .map_err(|error| process_error("stop", node_id, &error))
    }

    /// Stops every node; all are told before any is waited for.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    pub fn stop_all(&mut self) -> Result<(), CliError> {
        self.signal_all(Signal::TERM)?;
        for node_id in self.node_ids() {
            self.stop(node_id)?;
        }
        Ok(())
    }

    /// Sends a signal to a running node.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    ///
    /// # Panics
    /// If the cluster has no such node.
    pub fn signal(&self, node_id: u64, signal: Signal) -> Result<(), CliError> {
        match &self.node(node_id).process {
            Some(process) => process
                .signal(signal)
                .map_err(|error| process_error("signal", node_id, &error)),
            None => Ok(()),
        }
    }

    fn signal_all(&self, signal: Signal) -> Result<(), CliError> {
        self.node_ids()
            .into_iter()
            .try_for_each(|node_id| self.signal(node_id, signal))
    }

    /// Waits for a node that is about to end by itself; `None` when it still runs after `timeout`.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    ///
    /// # Panics
    /// If the cluster has no such node.
    pub fn wait(
        &mut self,
        node_id: u64,
        timeout: Duration,
    ) -> Result<Option<ExitStatus>, CliError> {
        let Some(process) = &mut self.node_mut(node_id).process else {
            return Ok(None);
        };
        let status = process
            .wait(timeout)
            .map_err(|error| process_error("wait for", node_id, &error))?;
        if status.is_some() {
            self.node_mut(node_id).process = None;
        }
        Ok(status)
    }

    /// The nodes whose processes ended by themselves since they were asked about last, and how.
    ///
    /// # Errors
    /// [`CliError`] when the system refuses.
    pub fn take_ended(&mut self) -> Result<Vec<(u64, ExitStatus)>, CliError> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else {
                continue;
            };
            let status = process.exit_status();
            if let Some(status) =
                status.map_err(|error| process_error("wait for", node.node_id, &error))?
            {
                node.process = None;
                ended.push((node.node_id, status));
            }
        }
        Ok(ended)
    }

    /// How many processes run, as far as was asked.
    #[must_use]
    pub fn running_count(&self) -> usize {
        self.nodes
            .iter()
            .filter(|node| node.process.is_some())
            .count()
    }

    /// The error for a node that ended although nobody stopped it, with the end of its log.
    #[must_use]
    pub fn ended_error(&self, node_id: u64, status: ExitStatus) -> CliError {
        let path = self.log_path(node_id);
        let log = log_tail(&path).unwrap_or_default();
        let exit = status.code().map_or(Exit::Failure, |code| {
            Exit::from_number(u8::try_from(code).unwrap_or(Exit::Failure as u8))
        });
        CliError::new(exit, format!("node {node_id} ended by itself ({status})"))
            .with("log", path.display())
            .why(if log.is_empty() {
                "it left no word in its log".to_owned()
            } else {
                log
            })
            .effect("the other nodes were stopped")
    }

    fn node(&self, node_id: u64) -> &ClusterNode {
        let node = self.nodes.iter().find(|node| node.node_id == node_id);
        node.expect("the caller takes node ids from this cluster")
    }

    fn node_mut(&mut self, node_id: u64) -> &mut ClusterNode {
        let node = self.nodes.iter_mut().find(|node| node.node_id == node_id);
        node.expect("the caller takes node ids from this cluster")
    }
}

fn data_dir(dir: &Path, node_id: u64) -> PathBuf {
    dir.join(format!("node-{node_id}"))
}

fn write_plan(dir: &Path, plan: &Plan) -> io::Result<()> {
    let temporary = dir.join(format!("{PLAN_FILE}.tmp"));
    let mut text = serde_json::to_vec_pretty(plan)?;
    text.push(b'\n');
    fs::write(&temporary, text)?;
    fs::rename(&temporary, dir.join(PLAN_FILE))
}

fn log_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failure, what)
        .with("path", path.display())
        .why(error.to_string())
        .next("check that the path exists, its owner and its free space")
}

fn no_ports(options: &ClusterOptions, error: &io::Error) -> CliError {
    let hosts = options.hosts.join(", ");
    CliError::new(Exit::Failure, format!("no free port on each of {hosts}"))
        .why(error.to_string())
        .effect("nothing was started")
}

fn process_error(what: &str, node_id: u64, error: &io::Error) -> CliError {
    CliError::new(Exit::Failure, format!("cannot {what} node {node_id}")).why(error.to_string())
}

#[cfg(test)]
mod tests;
