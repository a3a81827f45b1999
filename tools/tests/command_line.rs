//! The executable without a cluster: help, refusals, exit codes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use common::{drave, path_text, run};

fn format(dir: &Path, extra: &[&str]) -> common::Ended {
    let dir = path_text(dir);
    let mut arguments = vec![
        "format",
        "--data-dir",
        &dir,
        "--cluster-id",
        "test",
        "--node-id",
        "1",
    ];
    arguments.extend_from_slice(extra);
    run(&mut drave(&arguments), b"")
}

fn start(dir: &Path, extra: &[&str]) -> common::Ended {
    let dir = path_text(dir);
    let mut arguments = vec!["start", "--data-dir", &dir];
    arguments.extend_from_slice(extra);
    run(&mut drave(&arguments), b"")
}

const MEMBER: &[&str] = &["--member", "1=127.0.0.1:1"];

#[test]
fn help_goes_to_stdout_and_usage_errors_to_stderr() {
    let help = run(&mut drave(&["--help"]), b"").assert_code(0);
    assert!(help.text().contains("Exit codes:") && help.stderr.is_empty());
    assert!(
        run(&mut drave(&["--version"]), b"")
            .assert_code(0)
            .text()
            .starts_with("drave ")
    );
    let wrong = run(&mut drave(&["append"]), b"").assert_code(2);
    assert!(wrong.stdout.is_empty() && !wrong.stderr.contains('\x1b'));
    run(&mut drave(&["status", "--endpoints", "nowhere"]), b"")
        .assert_code(2)
        .assert_says("HOST:PORT");
    run(&mut drave(&["append", "x", "--timeout", "5"]), b"")
        .assert_code(2)
        .assert_says("try 500ms");
}

#[test]
fn formatting_is_refused_with_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    format(&data, &[]).assert_code(2);
    format(&data, &["--member", "2=127.0.0.1:1"])
        .assert_code(2)
        .assert_says("node 1 is not among the members");
    let twice = ["--member", "1=127.0.0.1:1", "--member", "1=127.0.0.1:2"];
    format(&data, &twice)
        .assert_code(2)
        .assert_says("given twice");
    let done = format(&data, MEMBER)
        .assert_code(0)
        .assert_says("node 1 of cluster test");
    assert!(done.stdout.is_empty());
    let again = format(&data, MEMBER)
        .assert_code(4)
        .assert_says("is not empty");
    for part in ["error: ", "\n  why     ", "\n  effect  ", "\n  next    "] {
        assert!(again.stderr.contains(part), "{}", again.stderr);
    }
}

#[test]
fn a_node_that_joins_is_formatted_without_members() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    format(&data, &["--join"])
        .assert_code(2)
        .assert_says("--address");
    let both = [
        "--join",
        "--address",
        "127.0.0.1:1",
        "--member",
        "1=127.0.0.1:1",
    ];
    format(&data, &both)
        .assert_code(2)
        .assert_says("cannot be used with");
    assert!(!data.exists());
    format(&data, &["--join", "--address", "127.0.0.1:1"])
        .assert_code(0)
        .assert_says("node 1 of cluster test")
        .assert_says("drave member add 1 127.0.0.1:1");
    let held = fs::read(data.join("IDENTITY")).unwrap();
    // Highest id ever, count: the member list is empty.
    assert_eq!(held[held.len() - 16..held.len() - 4], [0; 12]);
}

#[test]
fn two_formats_make_two_incarnations() {
    let dir = tempfile::tempdir().unwrap();
    let said = ["a", "b"].map(|name| {
        let said = format(&dir.path().join(name), MEMBER).assert_code(0).stderr;
        said.split("incarnation ").nth(1).unwrap()[..32].to_owned()
    });
    assert_ne!(said[0], said[1]);
}

#[test]
fn starting_is_refused_with_a_message_for_each_reason() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    start(&data, &[])
        .assert_code(3)
        .assert_says("is not formatted");
    format(&data, MEMBER).assert_code(0);

    let config = dir.path().join("drave.toml");
    let with_config = ["--config", &path_text(&config)].map(str::to_owned);
    let with_config = [with_config[0].as_str(), with_config[1].as_str()];
    start(&data, &with_config)
        .assert_code(7)
        .assert_says("drave.toml");
    fs::write(&config, "[raft]\nheartbeat = \"50ms\"\n").unwrap();
    start(&data, &with_config)
        .assert_code(7)
        .assert_says("unknown field");
    fs::write(&config, "[cluster]\nid = \"other\"\n").unwrap();
    start(&data, &with_config)
        .assert_code(7)
        .assert_says("belongs to cluster test");

    let identity = data.join("IDENTITY");
    let good = fs::read(&identity).unwrap();
    let mut newer = good.clone();
    newer[8] += 1;
    fs::write(&identity, newer).unwrap();
    start(&data, &[])
        .assert_code(7)
        .assert_says("format version 2");
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    fs::write(&identity, damaged).unwrap();
    start(&data, &[]).assert_code(6).assert_says("checksum");
    fs::write(&identity, good).unwrap();

    fs::remove_dir_all(data.join("group-0")).unwrap();
    start(&data, &[]).assert_code(6).assert_says("group-0");
    start(&data, &["--log", "=nonsense="])
        .assert_code(2)
        .assert_says("log filter");
    start(&data, &["--exit-with-parent", "1"])
        .assert_code(4)
        .assert_says("not the parent");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    format(&data, &["--member", &format!("1={address}")]).assert_code(0);
    let refused = start(&data, &[]).assert_says(&address);
    assert!(!matches!(refused.code, None | Some(0)), "{refused:?}");
}

#[test]
fn clients_without_a_cluster_say_so_in_time() {
    // A port that nobody listens on: bound and let go.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for arguments in [
        &["status"][..],
        &["log", "ls"],
        &["log", "create", "x"],
        &["read", "x"],
        &["tail", "x"],
        &["tail", "x", "--follow"],
        &["append", "x"],
        &["log", "trim", "x", "--before", "1"],
        &["member", "list"],
        &["member", "add", "4", "127.0.0.1:1"],
        &["member", "promote", "4"],
        &["member", "remove", "4"],
        &["member", "replace", "2", "4", "127.0.0.1:1"],
        &["leader", "transfer", "2"],
    ] {
        let mut command = drave(arguments);
        command.args(["--endpoints", &address, "--timeout", "300ms"]);
        let ended = run(&mut command, b"line\n")
            .assert_code(5)
            .assert_says("error[DRV-");
        assert!(
            ended.stdout.is_empty() && ended.stderr.contains("\n  next    "),
            "{ended:?}"
        );
        assert!(
            ended.elapsed < std::time::Duration::from_secs(20),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn scripts_run_from_the_executable_and_say_where_they_fail() {
    let all = run(&mut drave(&["sim", "script"]), b"").assert_code(0);
    assert!(all.text().contains("scripts hold"), "{}", all.text());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.txt");
    fs::write(
        &file,
        "# Nobody leads at first.\ncluster 3\nexpect leader 1\n",
    )
    .unwrap();
    let file = path_text(&file);
    let failed = run(&mut drave(&["sim", "script", &file]), b"").assert_code(1);
    let shown = failed.stderr.clone();
    assert!(
        shown.contains("wrong.txt:3") && shown.contains("node 3: Follower"),
        "{shown}"
    );
    run(&mut drave(&["sim", "script", "/nowhere.txt"]), b"").assert_code(3);
}
