//! `drave bench growth`: the executable, a few small points of it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

fn growth(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_drave"))
        .args([
            "bench",
            "growth",
            "--duration",
            "0.3",
            "--warm-up",
            "0.1",
            "--in-flight",
            "32",
        ])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn each_dimension_grows_alone() {
    let output = growth(&[
        "--nodes",
        "1",
        "--logs",
        "1,10",
        "--connections",
        "1,4",
        "--sizes",
        "1m",
        "-o",
        "json",
    ]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = told["points"].as_array().unwrap();
    let of = |point: &Value| {
        let setup = &point["setup"];
        ["nodes", "logs", "connections", "record_bytes", "in_flight"]
            .map(|name| setup[name].as_u64().unwrap())
    };
    let setups: Vec<[u64; 5]> = points.iter().map(of).collect();
    let wanted = [
        [1, 1, 1, 1_024, 32],
        [3, 1, 1, 1_024, 32],
        [3, 10, 1, 1_024, 32],
        [3, 1, 1, 1_024, 32],
        [3, 1, 4, 1_024, 32],
        [3, 1, 1, 1 << 20, 16],
    ];
    assert_eq!(setups, wanted);
    for point in points {
        let cost = &point["cost"];
        assert!(cost["acks_per_second"].as_f64().unwrap() > 0.0, "{point}");
        assert!(cost["peak_mib"].as_f64().unwrap() > 1.0, "{point}");
        assert_eq!(point["left_out"], Value::Null);
    }
}

#[test]
fn more_connections_than_files_are_left_out() {
    // The shell's limit holds for what it starts, and may not be raised again.
    let program = env!("CARGO_BIN_EXE_drave");
    let line = format!(
        "ulimit -n 1000 && exec {program} bench growth --only connections --connections 2,900 --duration 0.2 \
         --warm-up 0.1"
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let why = "left out: connections 900: it wants 1412 open files, the limit (ulimit -n) is 1000";
    assert!(text.contains(why), "{text}");
    assert_eq!(text.matches("connections  2 ").count(), 1, "{text}");
}
