//! The commands of the README print what the README says.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use drave_embed::testing::TestCluster;

#[tokio::test]
async fn the_readme_says_what_its_commands_print() {
    let mut cluster = TestCluster::start(1).unwrap();
    cluster.leader().await.unwrap();
    let readme = include_str!("../README.md");
    let block = readme
        .split("```sh\n")
        .find(|block| block.starts_with("drave-queue"))
        .unwrap();
    let block = block.split("```").next().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_drave-queue"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), env!("PATH"));
    let mut lines = block.lines().peekable();
    let mut ran = 0;
    while let Some(command) = lines.next() {
        let mut expected = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
            expected += line.strip_prefix("# ").unwrap();
            expected.push('\n');
        }
        let output = Command::new("sh")
            .args(["-c", command])
            .env("PATH", &path)
            .env("DRAVE_ENDPOINTS", cluster.endpoints().join(","))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{command}"
        );
        ran += 1;
    }
    assert_eq!(ran, 8);
}

#[tokio::test]
async fn exit_codes_tell_what_became_of_it() {
    let mut cluster = TestCluster::start(1).unwrap();
    cluster.leader().await.unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_drave-queue"))
            .args(arguments)
            .env("DRAVE_ENDPOINTS", cluster.endpoints().join(","))
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["status", "none"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("none.messages"), "{said}");
    assert_eq!(run(&["create", "jobs"]).0, 0);
    assert_eq!(run(&["ack", "jobs", "0.0"]).0, 3);
    let (code, said) = run(&["ack", "jobs", "0"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("MESSAGE.EVENT"), "{said}");
}
