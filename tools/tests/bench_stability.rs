//! `drave bench stability`: the executable, a short run of it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

fn stability(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_drave"))
        .args(["bench", "stability"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_short_run_tells_what_was_done_and_draws_it() {
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("stability.svg");
    let plot_text = plot.to_str().unwrap();
    let output = stability(&[
        "--duration",
        "15s",
        "--rate",
        "200",
        "--plot",
        plot_text,
        "-o",
        "json",
    ]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let timeline: Value = serde_json::from_slice(&output.stdout).unwrap();
    let happenings = timeline["happenings"].as_array().unwrap();
    let what: Vec<&str> = happenings
        .iter()
        .map(|it| it["what"].as_str().unwrap())
        .collect();
    let says = [
        "(follower) killed",
        "started",
        "(follower) paused",
        "goes on",
        "(leader) killed",
        "started",
    ];
    // On a machine that is slow enough the time is over before the last of them.
    assert!((4..=says.len()).contains(&what.len()), "{what:?}");
    for (what, says) in what.iter().zip(says) {
        assert!(what.ends_with(says), "{what:?}");
    }
    // Every record that was due was acknowledged, whatever was done; at the ends some may not have come due.
    let count = timeline["latency"]["count"].as_u64().unwrap();
    assert!((2_900..=3_001).contains(&count), "{count}");
    let pieces = timeline["pieces"].as_array().unwrap();
    assert!(pieces.len() >= 5, "{pieces:?}");
    assert!(
        pieces[0]["resident_kib"].as_array().unwrap().len() == 3,
        "{pieces:?}"
    );
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.contains("(follower) killed"), "{svg}");
}

#[test]
fn too_short_a_run_is_refused() {
    let output = stability(&["--duration", "5s"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("--duration is too short"), "{errors}");
}
