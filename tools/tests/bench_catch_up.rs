//! `drave bench catch-up`: the executable, a small run of it with kills.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn catch_up(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_drave"))
        .args(["bench", "catch-up"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_node_killed_while_it_catches_up_keeps_what_it_had() {
    let arguments = [
        "--bytes", "24m", "--rate", "200", "--alone", "0.5", "--cuts", "2", "--seed", "3", "-o",
        "json",
    ];
    let output = catch_up(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let bytes = number(&told["catch_up"]["bytes"]);
    // Headers come with the records, and what was appended meanwhile.
    assert!((24 << 20..32 << 20).contains(&bytes), "{told}");
    let copied = number(&told["copy"]["bytes"]);
    assert!((24 << 20..=bytes).contains(&copied), "{told}");
    // So many batches, and the log's creation.
    assert!(number(&told["entries"]) > 384, "{told}");
    let cuts = told["cuts"].as_array().unwrap();
    assert_eq!(cuts.len(), 2, "{told}");
    for cut in cuts {
        let (before, after) = (&cut["durable_before"], &cut["durable_after"]);
        assert!(number(before) <= number(after), "{cut}");
        assert!(number(before) > 0, "{cut}");
    }
    assert!(number(&told["received_bytes"]) <= bytes, "{told}");
    let meanwhile = told["meanwhile"].as_array().unwrap();
    let what: Vec<&str> = meanwhile
        .iter()
        .map(|it| it["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["alone", "copy", "catch-up"]);
    for part in meanwhile {
        assert!(number(&part["latency"]["count"]) > 0, "{part}");
    }
    let memory = told["memory"].as_array().unwrap();
    assert_eq!(memory[0]["role"], "sender", "{told}");
    assert_eq!(memory[1]["node_id"], 4, "{told}");
    assert_eq!(told["seed"], 3);
}

#[test]
fn a_folder_with_a_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let plan = r#"{"cluster_id":"bench","nodes":[
        {"node_id":1,"address":"127.0.0.1:1"},
        {"node_id":2,"address":"127.0.0.1:2"},
        {"node_id":3,"address":"127.0.0.1:3"}]}"#;
    std::fs::write(directory.path().join("cluster.json"), plan).unwrap();
    let path = directory.path().to_str().unwrap();
    let output = catch_up(&["--dir", path]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("holds a cluster already"), "{errors}");
}
