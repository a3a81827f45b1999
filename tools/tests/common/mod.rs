//! What the end-to-end tests share: the real executable, real nodes, and time limits on everything.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod raw;

pub(crate) mod damage;
pub(crate) mod disk;
pub(crate) mod nodes;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use drave_client::Client;
use drave_tools::cluster::process::NodeProcess;
use drave_tools::cluster::{Cluster, ClusterOptions, wait};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The executable under test.
pub(crate) const DRAVE: &str = env!("CARGO_BIN_EXE_drave");

/// No single step of a test takes longer on any machine that is fit to run it.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Small segments: the tests start many nodes and write little.
const CONFIG: &str = "[wal]\nsegment_bytes = \"8MiB\"\n";

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stderr:\n{}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn assert_says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part),
            "no {part:?} in:\n{}",
            self.stderr
        );
        self
    }
}

/// `drave` with these arguments and nothing of the environment's settings.
pub(crate) fn drave(arguments: &[&str]) -> Command {
    let mut command = Command::new(DRAVE);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in [
        "DRAVE_ENDPOINTS",
        "DRAVE_CLUSTER_ID",
        "DRAVE_DATA_DIR",
        "DRAVE_LOG",
        "NO_COLOR",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, within [`LIMIT`].
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ended {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may end without reading everything.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let code = wait_for(&mut NodeProcess::watch(child).unwrap());
    writer.join().unwrap();
    Ended {
        code,
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
        elapsed: started.elapsed(),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn wait_for(process: &mut NodeProcess) -> Option<i32> {
    let status = process.wait(LIMIT).unwrap();
    status.expect("the command ends within the limit").code()
}

/// A new cluster of real nodes in a temporary directory, and a runtime to talk to it from.
pub(crate) struct TestCluster {
    pub(crate) cluster: Cluster,
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) dir: TempDir,
}

impl TestCluster {
    /// Formats and starts `node_count` nodes and waits for a leader.
    pub(crate) fn start(node_count: u64) -> Self {
        Self::start_with(node_count, "")
    }

    /// The same, with more settings.
    pub(crate) fn start_with(node_count: u64, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("drave.toml");
        fs::write(&config, format!("{CONFIG}{settings}")).unwrap();
        let options = ClusterOptions {
            node_count,
            config: Some(config),
            cluster_id: "test".to_owned(),
            ..ClusterOptions::new(DRAVE, dir.path().join("cluster"))
        };
        let cluster = Cluster::prepare(options).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = Client::builder()
            .endpoints(cluster.endpoints())
            .request_timeout(LIMIT);
        let mut test = Self {
            cluster,
            runtime,
            client: client.build().unwrap(),
            dir,
        };
        test.cluster.start_all().unwrap();
        test.leader();
        test
    }

    /// Waits for a leader and gives its node id.
    pub(crate) fn leader(&mut self) -> u64 {
        let found = wait::leader(&mut self.cluster, &self.client, LIMIT);
        self.runtime
            .block_on(found)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until every node has everything.
    pub(crate) fn caught_up(&mut self) {
        let node_count = self.cluster.node_ids().len();
        let reached = wait::caught_up(&mut self.cluster, &self.client, node_count, LIMIT);
        self.runtime
            .block_on(reached)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// `drave` with these arguments, pointed at this cluster.
    pub(crate) fn drave(&self, arguments: &[&str]) -> Command {
        let mut command = drave(arguments);
        command.env("DRAVE_ENDPOINTS", self.cluster.endpoints().join(","));
        command
    }

    /// Runs `drave` to its end.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Ended {
        run(&mut self.drave(arguments), input)
    }

    /// What `drave read --format raw --node N` prints, for each node.
    pub(crate) fn read_each_node(&self, log: &str) -> Vec<Vec<u8>> {
        let nodes = self.cluster.node_ids().into_iter();
        nodes
            .map(|node_id| {
                let node = node_id.to_string();
                self.run(&["read", log, "--format", "raw", "--node", &node], b"")
                    .assert_code(0)
                    .stdout
            })
            .collect()
    }
}

/// A `drave append` that runs beside the test: lines go in, seqs come out.
pub(crate) struct RunningAppend {
    process: NodeProcess,
    stdin: Option<ChildStdin>,
    seqs: mpsc::Receiver<u64>,
    stderr: Option<thread::JoinHandle<Vec<u8>>>,
    /// Seqs acknowledged so far, in the order of their lines.
    pub(crate) acknowledged: Vec<u64>,
}

impl RunningAppend {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, seqs) = mpsc::sync_channel(1 << 20);
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap().parse().unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take(),
            stderr: Some(collect(child.stderr.take().unwrap())),
            process: NodeProcess::watch(child).unwrap(),
            seqs,
            acknowledged: Vec::new(),
        }
    }

    /// Its input, for a thread that writes to it.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits until so many lines are acknowledged in all.
    #[track_caller]
    pub(crate) fn wait_acknowledged(&mut self, count: usize) {
        while self.acknowledged.len() < count {
            match self.seqs.recv_timeout(LIMIT) {
                Ok(seq) => self.acknowledged.push(seq),
                Err(error) => {
                    let code = self.process.kill().unwrap().code();
                    let stderr = self.stderr.take().unwrap().join().unwrap();
                    let (have, said) = (self.acknowledged.len(), String::from_utf8_lossy(&stderr));
                    panic!("{error} at {have} of {count} lines, exit code {code:?}:\n{said}");
                }
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Ends its input, and waits until it ends.
    pub(crate) fn finish(mut self) -> (Ended, Vec<u64>) {
        drop(self.stdin.take());
        self.wait_ended()
    }

    /// Waits until it ends, its input left open.
    pub(crate) fn wait_ended(mut self) -> (Ended, Vec<u64>) {
        let started = Instant::now();
        let code = wait_for(&mut self.process);
        let stderr =
            String::from_utf8_lossy(&self.stderr.take().unwrap().join().unwrap()).into_owned();
        self.acknowledged.extend(self.seqs.iter());
        let ended = Ended {
            code,
            stdout: Vec::new(),
            stderr,
            elapsed: started.elapsed(),
        };
        (ended, self.acknowledged)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for node_id in self.cluster.node_ids() {
                let log = fs::read_to_string(self.cluster.log_path(node_id)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                eprintln!("--- node {node_id}, last lines of its log");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Numbers that look random and come from one seed, which is printed.
pub(crate) struct Random(u64);

/// `DRAVE_TEST_SEED`, or one from the clock; printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("DRAVE_TEST_SEED").ok();
    let seed = given.map_or_else(
        || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().subsec_nanos().into()
        },
        |seed| seed.parse().unwrap(),
    );
    eprintln!("DRAVE_TEST_SEED={seed}");
    seed
}

impl Random {
    pub(crate) fn new() -> Self {
        Self(seed())
    }

    /// Numbers of their own for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.between(0, usize::MAX) as u64)
    }

    /// In `[lo, hi)`.
    pub(crate) fn between(&mut self, lo: usize, hi: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        lo + (mixed % (hi - lo) as u64) as usize
    }
}

/// Lines of text that are all different.
pub(crate) fn numbered_lines(count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
        writeln!(
            text,
            "{number:08} the quick brown log goes down the river, {}",
            number * 7919 % 1000
        )
        .unwrap();
    }
    text
}

/// The same path, for a command line.
pub(crate) fn path_text(path: &Path) -> String {
    PathBuf::from(path).into_os_string().into_string().unwrap()
}
