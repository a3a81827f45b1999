//! Every scenario of tests/raft, and that the interpreter notices what is wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use drave_tools::script::{self, SCENARIOS};

#[test]
fn every_scenario_holds() {
    let mut failures = Vec::new();
    for scenario in SCENARIOS {
        if let Err(failure) = script::run(&scenario.file(), scenario.text) {
            failures.push(failure.to_string());
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn every_file_is_built_in() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/raft");
    let found: BTreeSet<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = SCENARIOS.iter().map(|s| s.name.to_owned()).collect();
    assert_eq!(found, listed);
}
