//! `drave dev` and `drave demo`: whole clusters from one command, and nothing left behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{LIMIT, drave, path_text, run};
use drave_tools::cluster::process::NodeProcess;
use rustix::process::{Pid, PidfdFlags, Signal};

#[test]
fn the_demo_keeps_the_promise_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let mut command = drave(&["demo", "--records", "4000"]);
    let demo = run(command.env("TMPDIR", place.path()), b"").assert_code(0);
    let row = |name: &str| {
        let row = demo.text().lines().find(|row| row.starts_with(name));
        row.unwrap_or_else(|| panic!("no {name} in {}", demo.text()))[name.len()..]
            .trim()
            .to_owned()
    };
    assert_eq!(
        (row("records"), row("acknowledged")),
        ("4,000".to_owned(), "4,000".to_owned())
    );
    assert_eq!(
        (row("lost"), row("duplicated")),
        ("0".to_owned(), "0".to_owned())
    );
    assert_eq!(row("replicas alike"), "yes");
    for name in ["election time", "throughput", "p50", "p99"] {
        assert!(!row(name).is_empty());
    }
    for part in ["with SIGKILL", "leads now", "again", "caught up"] {
        assert!(demo.stderr.contains(part), "{part} in {}", demo.stderr);
    }
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "the temporary folder is gone"
    );
}

#[test]
fn the_demo_takes_a_file_and_keeps_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    fs::write(&file, "one\ntwo\nthree").unwrap();
    let (file, data) = (path_text(&file), path_text(&dir.path().join("kept")));
    let arguments = [
        "demo",
        "--file",
        &file,
        "--data-dir",
        &data,
        "--records",
        "1000",
        "--io",
        "posix",
    ];
    run(&mut drave(&arguments), b"").assert_code(0);
    assert!(Path::new(&data).join("node-1").join("IDENTITY").exists());
    run(&mut drave(&arguments), b"")
        .assert_code(4)
        .assert_says("earlier demo");
    run(&mut drave(&["demo", "--file", "/nonexistent"]), b"")
        .assert_code(1)
        .assert_says("no text");
}

/// A `drave dev` that has said how to reach it.
struct Dev {
    process: NodeProcess,
    endpoints: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Dev {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let endpoints = line.trim().strip_prefix("export DRAVE_ENDPOINTS=");
        let endpoints = endpoints.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            process: NodeProcess::watch(child).unwrap(),
            endpoints,
            stderr,
        }
    }

    /// Reads what it says up to the end of its introduction; gives the nodes' processes.
    fn node_pids(&mut self) -> Vec<Pid> {
        let mut pids = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                self.stderr.read_line(&mut line).unwrap() > 0,
                "it says how to stop it"
            );
            if let Some((_, rest)) = line.split_once("  pid ") {
                let number = rest.split_whitespace().next().unwrap().parse().unwrap();
                pids.push(Pid::from_raw(number).unwrap());
            }
            if line.contains("Ctrl-C") {
                return pids;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    fn wait(mut self) -> Option<i32> {
        self.process.wait(LIMIT).unwrap().expect("it ends").code()
    }
}

/// Waits until a process that is not our child is gone.
fn wait_gone(pid: Pid) {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let deadline = Instant::now() + LIMIT;
    let left = rustix::event::Timespec::try_from(deadline - Instant::now()).unwrap();
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&left)).unwrap(),
        1,
        "{pid:?} ends"
    );
}

fn append(endpoints: &str, line: &str) {
    let mut command = drave(&["append", "greetings", "--create", "--endpoints", endpoints]);
    run(&mut command, line.as_bytes()).assert_code(0);
}

#[test]
fn dev_serves_until_it_is_interrupted_and_cleans_up() {
    let place = tempfile::tempdir().unwrap();
    let mut command = drave(&["dev"]);
    command.env("TMPDIR", place.path());
    let mut dev = Dev::start(command);
    let pids = dev.node_pids();
    assert_eq!(pids.len(), 3);
    let group = |pid| rustix::process::getpgid(Some(pid)).unwrap();
    let own = group(Pid::from_raw(dev.process.id().cast_signed()).unwrap());
    for pid in &pids {
        assert_ne!(
            group(*pid),
            own,
            "Ctrl-C on a terminal reaches the parent only"
        );
    }
    append(&dev.endpoints, "hello\n");
    rustix::process::kill_process(pids[0], Signal::KILL).unwrap();
    let mut line = String::new();
    dev.stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("node 1 ended (signal: 9"), "{line}");
    append(&dev.endpoints, "still there\n");
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), Some(0));
    for pid in pids {
        wait_gone(pid);
    }
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "the temporary folder is gone"
    );
}

#[test]
fn dev_takes_up_its_folder_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = path_text(&dir.path().join("dev"));
    let arguments = ["dev", "--nodes", "1", "--data-dir", &data];
    let mut first = Dev::start(drave(&arguments));
    first.node_pids();
    append(&first.endpoints, "kept\n");
    first.signal(Signal::TERM);
    let endpoints = first.endpoints.clone();
    assert_eq!(first.wait(), Some(0));
    let mut second = Dev::start(drave(&arguments));
    second.node_pids();
    assert_eq!(second.endpoints, endpoints);
    let read = run(
        &mut drave(&["read", "greetings", "--endpoints", &endpoints]),
        b"",
    )
    .assert_code(0);
    assert_eq!(read.text(), "kept\n");
    second.signal(Signal::INT);
    assert_eq!(second.wait(), Some(0));
    run(&mut drave(&["dev", "--data-dir", &data]), b"")
        .assert_code(7)
        .assert_says("cluster dev of 1 nodes");
}

#[test]
fn nodes_end_when_dev_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut command = drave(&["dev"]);
    command.env("TMPDIR", place.path());
    let mut dev = Dev::start(command);
    let pids = dev.node_pids();
    dev.signal(Signal::KILL);
    assert_eq!(dev.wait(), None);
    for pid in pids {
        wait_gone(pid);
    }
}

#[test]
fn the_demo_is_quick() {
    let started = Instant::now();
    run(&mut drave(&["demo"]), b"").assert_code(0);
    // The promise is 20 s for an optimised build on a machine of its own.
    if !cfg!(debug_assertions) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
}
