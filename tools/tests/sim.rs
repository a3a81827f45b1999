//! Seeds through the simulator: a fixed list, and every seed that ever failed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use clap::Parser as _;
use drave_tools::cli::{Cli, Command};
use drave_tools::commands::sim::options;
use drave_tools::sim::fleet::run_caught;
use drave_tools::sim::{Options, Profile};

/// Seeds of each profile that are run with every build.
const SEEDS: u64 = 6;

fn assert_holds(options: &Options) -> u64 {
    let outcome = run_caught(options, false);
    assert_eq!(outcome.failure, None, "{}", options.command());
    outcome.hash
}

fn run_profile(profile: Profile) {
    for seed in 0..SEEDS {
        assert_holds(&Options {
            profile: Some(profile),
            ..Options::of(seed)
        });
    }
}

#[test]
fn uniform_faults() {
    run_profile(Profile::Uniform);
}

#[test]
fn churn_of_leaders() {
    run_profile(Profile::Churn);
}

#[test]
fn changes_of_members() {
    run_profile(Profile::Membership);
}

#[test]
fn bad_disks() {
    run_profile(Profile::Storage);
}

#[test]
fn snapshots_and_trims() {
    run_profile(Profile::Snapshots);
}

#[test]
fn reads_under_a_lease() {
    run_profile(Profile::Leases);
}

#[test]
fn anything_at_once() {
    run_profile(Profile::Mixed);
}

#[test]
fn nothing_at_all() {
    let options = Options {
        profile: Some(Profile::Plain),
        steps: Some(50),
        ..Options::of(1)
    };
    assert_holds(&options);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for profile in [Profile::Mixed, Profile::Membership] {
        let options = Options {
            profile: Some(profile),
            ..Options::of(4242)
        };
        assert_eq!(assert_holds(&options), assert_holds(&options));
    }
}

#[test]
fn a_timeline_changes_nothing_of_the_run() {
    let options = Options::of(77);
    let outcome = run_caught(&options, true);
    assert!(outcome.lines.len() > 100);
    assert_eq!(outcome.hash, assert_holds(&options));
}

/// One file for each: the story in the first line, the command in the second.
#[test]
fn what_once_failed_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sim-seeds");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (story, command) = text.split_once('\n').unwrap();
        assert!(story.starts_with("# "), "{} tells no story", path.display());
        let cli = Cli::try_parse_from(command.split_whitespace()).unwrap();
        let Command::Sim(arguments) = cli.command else {
            panic!("{} holds another command", path.display());
        };
        assert_holds(&options(&arguments).unwrap());
        count += 1;
    }
    assert!(count > 0, "the folder was found");
}
