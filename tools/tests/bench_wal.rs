//! `drave bench wal`: a short run of it, and what it says when it cannot.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(directory: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drave"))
        .args([
            "bench",
            "wal",
            "--rounds",
            "2",
            "--seconds",
            "0.02",
            "--segment-bytes",
            "1m",
        ])
        .arg("--dir")
        .arg(directory)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn log_and_raw_disk_are_measured_and_nothing_stays() {
    let directory = tempfile::tempdir().unwrap();
    let more = ["--bytes", "128,16k", "--waiting", "1,64", "-o", "json"];
    let output = bench(directory.path(), &more);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let engines = report["engines"].as_array().unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4 * engines.len());
    for case in cases {
        assert!(case["appends_per_second"]["median"].as_f64().unwrap() > 0.0);
        assert!(case["latency_us"]["p50"].as_f64().unwrap() > 0.0);
        assert!(case["ratios"]["bytes"]["median"].as_f64().unwrap() > 0.0);
        let raw = case["raw"].as_array().unwrap();
        assert!(!raw.is_empty());
        let flush = case["flush_bytes"]["max"].as_f64().unwrap();
        for raw in raw {
            let wrote = raw["write_bytes"]["max"].as_f64().unwrap();
            assert!(
                wrote >= flush && wrote < flush + 4096.0,
                "{wrote} for {flush}"
            );
        }
        let percent = case["back_to_back_percent"]["max"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_measured_is_an_error_with_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let output = bench(&missing, &[]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("missing"), "{errors}");
    for wrong in [["--bytes", "0"], ["--waiting", "0"], ["--seconds", "0"]] {
        assert_eq!(bench(directory.path(), &wrong).status.code(), Some(2));
    }
}
