//! The layers' laws: which crate may know which, and what the deciding code must never reach for.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(dir: &str) -> toml::Table {
    fs::read_to_string(root().join(dir).join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// Our own crates among a manifest's dependencies; those of tests and benches are free.
fn own_dependencies(dir: &str) -> Vec<String> {
    let manifest = manifest(dir);
    let empty = toml::Table::new();
    let table = manifest
        .get("dependencies")
        .and_then(|value| value.as_table())
        .unwrap_or(&empty);
    table
        .keys()
        .filter(|name| name.starts_with("drave"))
        .cloned()
        .collect()
}

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// The code of a file without its comments and without its trailing test module.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn assert_absent(dir: &str, words: &[&str]) {
    for path in sources(dir).into_iter().filter(|path| !is_test(path)) {
        let code = code(&path);
        for word in words {
            assert!(
                !code.contains(word),
                "{} must not reach for `{word}`",
                path.display()
            );
        }
    }
}

#[test]
fn arrows_point_one_way() {
    assert_eq!(
        own_dependencies("batch"),
        Vec::<String>::new(),
        "batch knows nobody"
    );
    assert_eq!(
        own_dependencies("wal"),
        ["drave-batch"],
        "wal knows at most batch"
    );
    assert_eq!(
        own_dependencies("net"),
        ["drave-batch"],
        "net knows at most batch"
    );
    assert_eq!(
        own_dependencies("client"),
        ["drave-batch", "drave-net"],
        "client knows the encoding and the framing, never the node"
    );
    assert_eq!(
        own_dependencies("."),
        ["drave-batch", "drave-net", "drave-wal"]
    );
    assert_eq!(
        own_dependencies("embed"),
        ["drave", "drave-client"],
        "a machine stands on what every client has"
    );
    assert_eq!(own_dependencies("tools/purity"), Vec::<String>::new());
}

#[test]
fn the_client_does_not_need_io_uring() {
    let net = manifest("client")["dependencies"]["drave-net"].clone();
    assert_eq!(
        net.get("features"),
        None,
        "drave-net's runtime stays out of the client"
    );
    let workspace = manifest(".")["workspace"]["dependencies"]["drave-net"].clone();
    assert_eq!(workspace["default-features"].as_bool(), Some(false));
}

#[test]
fn the_raft_core_is_pure() {
    assert_absent(
        "src/raft",
        &[
            "std::",
            "crate::",
            "println!",
            "Instant",
            "SystemTime",
            "unsafe",
        ],
    );
}

/// What code without I/O must not reach for.
const IO: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::time",
    "std::thread",
    "std::sync",
    "tokio",
    "drave_wal",
    "drave_net",
    "tracing",
    "Instant",
    "SystemTime",
    "async ",
];

#[test]
fn the_replica_is_sans_io() {
    assert_absent("src/replica", &IO);
    let above = [
        "crate::node",
        "crate::service",
        "crate::store",
        "crate::config",
    ];
    assert_absent("src/replica", &above);
}

#[test]
fn repair_is_sans_io() {
    assert_absent("src/repair", &IO);
    assert_absent("src/repair", &["crate::"]);
}

#[test]
fn the_encoding_has_no_behaviour() {
    assert_absent(
        "batch/src",
        &[
            "std::fs",
            "std::net",
            "std::io",
            "std::time",
            "std::thread",
            "Instant",
        ],
    );
}

#[test]
fn the_log_has_never_heard_of_votes_and_the_net_of_raft() {
    assert_absent("wal/src", &["tokio", "vote", "leader", "follower"]);
    assert_absent("net/src", &["raft", "leader", "follower", "log_id"]);
}
