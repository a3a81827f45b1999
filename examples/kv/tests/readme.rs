//! The commands of the README print what the README says.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::Processes;

#[test]
fn the_readme_says_what_its_commands_print() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl");
        return;
    }
    let processes = Processes::start(1, &[]);
    let address = processes.url(1).replace("http://", "");
    let readme = include_str!("../README.md");
    let block = readme
        .split("```sh\n")
        .find(|block| block.starts_with("curl"))
        .unwrap();
    let block = block.split("```").next().unwrap();
    let mut lines = block.lines();
    let mut ran = 0;
    while let Some(command) = lines.next() {
        let command = command.replace("localhost:8080", &address);
        let expected = lines.next().unwrap().strip_prefix("# ").unwrap();
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            expected,
            "{command}"
        );
        ran += 1;
    }
    assert_eq!(ran, 6);
}
