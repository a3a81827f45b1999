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

#[test]
fn every_first_line_tells_a_story_with_its_source() {
    for scenario in SCENARIOS {
        let story = scenario.text.lines().next().unwrap();
        let source = story.rsplit_once('(').map(|(_, source)| source);
        assert!(
            story.starts_with("# ") && source.is_some_and(|source| source.ends_with(").")),
            "{}: {story}",
            scenario.name
        );
    }
}

/// Runs a script that must fail; returns line, expected, found, dump.
fn failure(lines: &str) -> (usize, String, String, String) {
    let text = format!("# A script that fails.\n{lines}");
    let failure = script::run("a.txt", &text).unwrap_err();
    let shown = failure.to_string();
    assert!(
        shown.starts_with(&format!("a.txt:{}: ", failure.line)),
        "{shown}"
    );
    (failure.line, failure.expected, failure.found, failure.dump)
}

#[test]
fn a_failed_expectation_tells_line_expected_found_and_all_nodes() {
    let (line, expected, found, dump) =
        failure("cluster 3\nelect 1\n\nsettle\nexpect commit 2 7\n");
    assert_eq!(line, 6);
    assert_eq!(expected, "node 2: commit index 7");
    assert_eq!(found, "1");
    assert!(dump.contains("node 1: Leader term 1") && dump.contains("node 3: Follower"));
    let (_, expected, found, dump) =
        failure("cluster 3\nelect 1\npropose 1 x\nexpect message 1->2 vote\n");
    assert_eq!(expected, "message 1->2 vote \"\"");
    assert_eq!(found, "[]");
    assert!(dump.contains("1->2 append#1 term 1 prev 0:0 entries 1:1 commit 0 session 1"));
}

#[test]
fn what_makes_no_sense_is_an_error_with_its_line() {
    let cases = [
        ("clutser 3", 2, "clutser is no command"),
        ("cluster three", 2, "the number of voters is a number"),
        ("cluster 3\nexpect comit 1 1", 3, "comit cannot be expected"),
        ("cluster 3\nflush 9", 3, "there is no node n9"),
        ("cluster 3\nflush 1", 3, "node n1 has nothing to flush"),
        ("cluster 3\ncrash 1\ntimeout 1", 4, "node n1 is down"),
        ("cluster 3\ndeliver 1->2", 3, "there is no message 1->2"),
        (
            "cluster 3\ndeliver 1->2 apend",
            3,
            "apend is not understood here",
        ),
        (
            "cluster 3\ntick 1 500x",
            3,
            "a duration is a number and us, ms or s",
        ),
        (
            "cluster 3\nexpect commit 1 0 0",
            3,
            "0 is not understood here",
        ),
        ("cluster 3\nset speed 9", 3, "speed is no setting"),
        ("cluster 3\nexpect error \"x", 3, "a quote is not closed"),
        ("cluster 40", 2, "at most 32 members"),
    ];
    for (lines, line, why) in cases {
        let (at, expected, found, _) = failure(lines);
        assert_eq!(
            (at, expected.as_str()),
            (line, "a script that makes sense"),
            "{lines}"
        );
        assert!(found.contains(why), "{lines}: {found}");
    }
    let failure = script::run("a.txt", "cluster 3\n").unwrap_err();
    assert!(failure.found.contains("the first line tells the story"));
}

#[test]
fn a_refusal_has_to_be_expected() {
    let (line, expected, found, _) = failure("cluster 3\npropose 1 x\nsettle\n");
    assert_eq!((line, expected.as_str()), (3, "no error"));
    assert_eq!(found, "not the leader; none is known");
    let (line, _, found, _) = failure("cluster 3\npropose 1 x");
    assert_eq!((line, found.as_str()), (3, "not the leader; none is known"));
    let (line, expected, found, _) = failure("cluster 3\nsettle\nexpect error \"leader\"\n");
    assert_eq!(line, 4);
    assert_eq!(
        (expected.as_str(), found.as_str()),
        ("an error with \"leader\"", "no error")
    );
}

#[test]
fn broken_invariants_are_noticed_without_an_expectation() {
    // A node whose disk was wiped votes under its old number: what it had acknowledged is lost.
    let (line, expected, found, _) = failure(
        "cluster 3\nelect 1\nsettle\npropose 1 x\nsettle 1 2\ncrash 1\nwipe 2\ndrop all\nelect 3 with 2\n",
    );
    assert_eq!((line, expected.as_str()), (10, "what always holds"));
    assert_eq!(
        found,
        "leader completeness: n3 leads term 2 without committed entry 2"
    );
}

#[test]
fn a_core_that_stops_is_told_as_what_it_said() {
    let lines = "cluster 3\nfound 1 term 2 log 1 2\nfound 2 term 2 log 1 1\nfound 3 term 2 log 1 2\n\
         restart 2 commit 2\nelect 1 with 3\n";
    let (line, _, found, _) = failure(&format!("{lines}deliver 1->2 append\n"));
    assert_eq!(line, 8);
    assert!(found.contains("contradicts committed entry 2"), "{found}");
    let (_, expected, found, _) = failure(&format!("{lines}stops \"other\" deliver 1->2 append\n"));
    assert_eq!(expected, "the node stops with \"other\"");
    assert!(found.contains("contradicts committed entry 2"), "{found}");
    let (_, _, found, _) = failure(&format!("{lines}stops \"other\" deliver 1->3 append\n"));
    assert_eq!(found, "the node goes on");
}
