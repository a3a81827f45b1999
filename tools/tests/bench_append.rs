//! `drave bench append`: the executable, short runs of it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drave"))
        .args(["bench", "append", "--warm-up", "0.1", "--duration", "0.5"])
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_closed_loop_on_an_own_cluster_says_all_and_reads_all_back() {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(&[
        "--dir",
        directory.path().to_str().unwrap(),
        "--in-flight",
        "16",
        "--clients",
        "2",
        "--logs",
        "3",
        "--batch",
        "4",
        "--bytes",
        "100",
        "--verify",
        "-o",
        "json",
    ]);
    let report = json(&output);
    assert_eq!(report["loop"], "closed");
    assert_eq!(report["record_bytes"], 100);
    let batches = report["batches"].as_u64().unwrap();
    assert!(batches > 0);
    // All that was acknowledged, in the warm-up and after the end too.
    assert!(report["verified_records"].as_u64().unwrap() >= 4 * batches);
    let latency = &report["latency"];
    let percentiles = [
        "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us",
    ];
    let values = percentiles.map(|name| latency[name].as_f64().unwrap());
    assert!(values[0] > 0.0 && values.is_sorted(), "{values:?}");
    let servers = report["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 3);
    for server in servers {
        assert!(server["resident_kib"].as_u64().unwrap() > 1_000, "{server}");
    }
    assert!(report["cpu_seconds_per_million"].as_f64().unwrap() > 0.0);
    let kernel = report["ground"]["environment"]["kernel"].as_str().unwrap();
    assert!(kernel.starts_with("Linux "), "{kernel}");
    assert!(
        directory.path().join("node-1.log").exists(),
        "the given folder stays"
    );
}

#[test]
fn an_open_loop_starts_as_many_as_are_due_however_few_are_in_flight() {
    let output = bench(&[
        "--nodes",
        "1",
        "--rate",
        "200",
        "--in-flight",
        "64",
        "-o",
        "json",
    ]);
    let report = json(&output);
    assert_eq!(report["loop"], "open");
    // 200 a second for half a second, each counted by when it was due.
    assert!(
        (99..=101).contains(&report["latency"]["count"].as_u64().unwrap()),
        "{report}"
    );
}

#[test]
fn an_open_loop_that_cannot_keep_up_counts_the_time_that_batches_wait_to_be_sent() {
    // One place: closed, each batch waits for its own flush only. Due 10,000 times a second, most of them wait for
    // those before them, longer and longer.
    let closed = json(&bench(&["--nodes", "1", "--in-flight", "1", "-o", "json"]));
    let open = json(&bench(&[
        "--nodes",
        "1",
        "--in-flight",
        "1",
        "--rate",
        "10000",
        "-o",
        "json",
    ]));
    let p50 = |report: &Value| report["latency"]["p50_us"].as_f64().unwrap();
    assert!(p50(&open) > 10.0 * p50(&closed), "{open} {closed}");
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_starts() {
    for arguments in [
        ["--clients", "9", "--in-flight", "8"].as_slice(),
        &["--verify", "--bytes", "15"],
        &["--dir", "/x", "--endpoints", "127.0.0.1:1"],
        &["--rate", "0"],
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_table_is_for_people() {
    let output = bench(&["--nodes", "1", "--in-flight", "4"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "kernel",
        "4 KiB flush p50",
        "closed loop, 4 in flight",
        "p99.99",
        "node 1",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn several_targets_are_measured_in_turns_and_held_against_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (hdr, plot) = (file("run.hlog"), file("run.svg"));
    let output = bench(&[
        "--target",
        "drave,floor",
        "--rounds",
        "2",
        "--in-flight",
        "16",
        "--hdr",
        &hdr,
        "--plot",
        &plot,
        "-o",
        "json",
    ]);
    let comparison = json(&output);
    let runs = comparison["runs"].as_array().unwrap();
    let targets: Vec<_> = runs
        .iter()
        .map(|run| run["target"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["drave", "floor", "drave", "floor"]);
    assert!(runs.iter().all(|run| run["batches"].as_u64() > Some(0)));
    let rows = comparison["rows"].as_array().unwrap();
    assert_eq!(rows[0]["first_to_this_batches"]["median"], 1.0);
    let per_second = |run: usize| runs[run]["batches_per_second"].as_f64().unwrap();
    let ratios = [per_second(0) / per_second(1), per_second(2) / per_second(3)];
    let median = rows[1]["first_to_this_batches"]["median"].as_f64().unwrap();
    assert!((median - (ratios[0] + ratios[1]) / 2.0).abs() < 1e-9);
    assert!(rows[0]["cpu_seconds_per_million"]["median"].as_f64() > Some(0.0));
    assert!(
        rows[1]["cpu_seconds_per_million"].is_null(),
        "files are no servers"
    );
    let log = std::fs::read_to_string(hdr).unwrap();
    assert_eq!(log.matches("Tag=drave,").count(), 2, "{log}");
    assert_eq!(log.matches("Tag=floor,").count(), 2, "{log}");
    let picture = std::fs::read_to_string(plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("floor"));
}
