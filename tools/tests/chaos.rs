//! Real nodes under kills and pauses, and under partitions and a proxy where the system allows them: the
//! history must hold. Few rounds; `drave chaos` runs as many as one likes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::{Mutex, PoisonError};

use common::{Ended, drave, path_text, run, seed};
use drave_tools::chaos::namespace;
use tempfile::TempDir;

/// One cluster at a time: two would take each other's processors, and elections would not end.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs rounds that are short, and expects that everything held. The histories are in the folder.
fn rounds(count: usize, options: &[&str]) -> (Ended, TempDir) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let kept = path_text(&dir.path().join("kept"));
    let (count, seed) = (count.to_string(), seed().to_string());
    let mut arguments = vec![
        "chaos", "--rounds", &count, "--seed", &seed, "--keep", &kept,
    ];
    // How fast a busy machine elects a leader is not what is tested here.
    arguments.extend(["--seconds-per-round", "2", "--back-within", "20s"]);
    arguments.extend(options);
    let ended = run(&mut drave(&arguments), b"");
    assert_eq!(
        ended.code,
        Some(0),
        "stdout:\n{}\nstderr:\n{}",
        String::from_utf8_lossy(&ended.stdout),
        ended.stderr
    );
    (ended, dir)
}

/// The number in the table's row of this name.
fn row(ended: &Ended, name: &str) -> u64 {
    let lines = ended.text().lines();
    let mut values = lines.filter_map(|line| line.trim_start().strip_prefix(name));
    let value = values.find_map(|value| value.trim().replace(',', "").parse().ok());
    value.unwrap_or_else(|| panic!("no row {name:?} in:\n{}", ended.text()))
}

#[test]
fn kills_and_pauses_break_no_promise() {
    let (ended, dir) = rounds(3, &["--no-partitions"]);
    assert_eq!(row(&ended, "rounds"), 3);
    assert_eq!(row(&ended, "violations"), 0);
    assert!(
        row(&ended, "appends acknowledged") > 100,
        "{}",
        ended.text()
    );
    assert!(row(&ended, "reads and tails") > 10, "{}", ended.text());
    assert!(ended.text().contains("everything held"), "{}", ended.text());

    // What was checked is there to be checked again, and an acknowledged record that is gone is missed.
    let path = dir.path().join("kept/round-2.jsonl");
    let again = run(&mut drave(&["history", "check", &path_text(&path)]), b"").assert_code(0);
    assert!(
        again.text().ends_with("every rule holds\n"),
        "{}",
        again.text()
    );
    let history = fs::read_to_string(&path).unwrap();
    let is_acknowledged = |line: &&str| line.contains("{\"append\"") && line.contains("{\"ok\"");
    let append = history.lines().find(is_acknowledged).unwrap();
    let first_id = append.split("\"payload_id\":").nth(1).unwrap();
    let first_id = first_id.split(',').next().unwrap();
    let stranger = u64::MAX.to_string();
    let mut forgotten = history.clone();
    for (before, behind) in [("[", ","), (",", ","), (",", "]"), ("[", "]")] {
        let in_a_list = |id: &str| format!("{before}{id}{behind}");
        forgotten = forgotten.replace(&in_a_list(first_id), &in_a_list(&stranger));
    }
    fs::write(&path, forgotten).unwrap();
    let broken = run(&mut drave(&["history", "check", &path_text(&path)]), b"").assert_code(1);
    assert!(broken.text().contains("\nlost: "), "{}", broken.text());
}

#[test]
fn partitions_and_a_hostile_proxy_break_no_promise() {
    if let Err(reason) = namespace::probe() {
        eprintln!("not run, there is no network namespace with rules: {reason}");
        return;
    }
    let (ended, _dir) = rounds(2, &["--proxy"]);
    assert_eq!(row(&ended, "violations"), 0);
    for name in ["delayed", "overtaken", "doubled"] {
        assert!(row(&ended, name) > 10, "{}", ended.text());
    }
    assert_eq!(row(&ended, "not frames"), 0);
}

#[test]
fn an_earlier_cluster_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("cluster")).unwrap();
    let plan = "{\"cluster_id\":\"chaos\",\"nodes\":[\
                {\"node_id\":1,\"address\":\"127.0.0.11:1\"},\
                {\"node_id\":2,\"address\":\"127.0.0.12:1\"},\
                {\"node_id\":3,\"address\":\"127.0.0.13:1\"}]}";
    fs::write(dir.path().join("cluster/cluster.json"), plan).unwrap();
    let kept = path_text(dir.path());
    let arguments = ["chaos", "--no-partitions", "--seed", "1", "--keep", &kept];
    run(&mut drave(&arguments), b"")
        .assert_code(4)
        .assert_says("holds an earlier cluster");
}
