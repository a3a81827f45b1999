//! Real processes of the store, and a client that knows how its requests ended.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod linearizable;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use drave_embed::testing::{HeldPort, Links, hold_port};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use ureq::Agent;

/// No single step takes longer on any machine that is fit to run it.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(10);

/// A process, and where it serves.
struct Process {
    child: Child,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes of the store with data in a temporary directory.
pub(crate) struct Processes {
    /// Where each node listens, by its id.
    members: BTreeMap<u64, String>,
    /// What lies between them.
    pub(crate) links: Links,
    held: Vec<HeldPort>,
    processes: Vec<Option<Process>>,
    extra: Vec<String>,
    dir: TempDir,
}

impl Processes {
    /// Starts nodes 1 to `count`, with further arguments.
    pub(crate) fn start(count: usize, extra: &[&str]) -> Self {
        let held: Vec<HeldPort> = (0..count)
            .map(|_| hold_port("127.0.0.1").unwrap())
            .collect();
        let members = held.iter().zip(1..);
        let members = members.map(|(port, id)| (id, port.address().unwrap()));
        let members: BTreeMap<u64, String> = members.collect();
        let mut processes = Self {
            links: Links::between(&members).unwrap(),
            members,
            held,
            processes: (0..count).map(|_| None).collect(),
            extra: extra.iter().map(|it| (*it).to_owned()).collect(),
            dir: tempfile::tempdir().unwrap(),
        };
        processes.held.clear();
        // They answer when there is a leader, which needs two of three.
        let children: Vec<Child> = (1..=count)
            .map(|node_id| processes.spawn(node_id))
            .collect();
        for (child, node_id) in children.into_iter().zip(1..) {
            processes.put(node_id, child);
        }
        processes
    }

    fn log(&self, node_id: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("{node_id}.log"))
    }

    /// All members, each where this one finds it.
    fn members_of(&self, node_id: usize) -> String {
        let place = |(id, address): (&u64, &String)| {
            let linked = self.links.address(node_id as u64, *id);
            format!("{id}={}", linked.unwrap_or_else(|| address.clone()))
        };
        self.members.iter().map(place).collect::<Vec<_>>().join(",")
    }

    fn spawn(&self, node_id: usize) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(node_id))
            .unwrap();
        Command::new(env!("CARGO_BIN_EXE_drave-kv"))
            .arg("--data-dir")
            .arg(self.data_dir(node_id))
            .args([
                "--node-id",
                &node_id.to_string(),
                "--members",
                &self.members_of(node_id),
            ])
            .args(["--http", "127.0.0.1:0"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Waits until a process says where it serves.
    fn put(&mut self, node_id: usize, mut child: Child) {
        let stdout = child.stdout.take().unwrap();
        let (told, heard) = mpsc::channel();
        // Ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let line = heard.recv_timeout(LIMIT).unwrap_or_else(|error| {
            let _ = child.kill();
            let log = std::fs::read_to_string(self.log(node_id)).unwrap_or_default();
            panic!("node {node_id} does not serve: {error}\n{log}")
        });
        let url = line.strip_prefix("serving ").unwrap().to_owned();
        self.processes[node_id - 1] = Some(Process { child, url });
    }

    pub(crate) fn data_dir(&self, node_id: usize) -> std::path::PathBuf {
        let dir: &Path = self.dir.path();
        dir.join(format!("n{node_id}"))
    }

    pub(crate) fn url(&self, node_id: usize) -> String {
        self.processes[node_id - 1].as_ref().unwrap().url.clone()
    }

    /// Ends a process without a word, as `kill -9` does.
    pub(crate) fn kill(&mut self, node_id: usize) {
        self.processes[node_id - 1] = None;
    }

    /// Starts a process that was killed, and waits until it serves.
    pub(crate) fn restart(&mut self, node_id: usize) -> String {
        let child = self.spawn(node_id);
        self.put(node_id, child);
        self.url(node_id)
    }

    /// Stops a process where it stands: it neither hears nor answers until it is let go on.
    pub(crate) fn pause(&self, node_id: usize) {
        self.signal(node_id, Signal::STOP);
    }

    pub(crate) fn go_on(&self, node_id: usize) {
        self.signal(node_id, Signal::CONT);
    }

    fn signal(&self, node_id: usize, signal: Signal) {
        let process = self.processes[node_id - 1].as_ref().unwrap();
        let pid = Pid::from_child(&process.child);
        kill_process(pid, signal).unwrap();
    }
}

pub(crate) fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .build()
        .into()
}

/// An answer: its status, its `ETag`, its body.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) body: String,
}

/// Sends a request; `Err` when no answer came.
pub(crate) fn request(
    agent: &Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answered, ureq::Error> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body).unwrap())?;
    let etag = response.headers().get("etag");
    Ok(Answered {
        status: response.status().as_u16(),
        etag: etag.map(|tag| tag.to_str().unwrap().to_owned()),
        body: response.body_mut().read_to_string()?,
    })
}

pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !reached() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(PAUSE);
    }
}
