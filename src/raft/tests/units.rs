//! The parts by themselves: log, quorums, window, configuration, settings, restoring.

use super::super::log::Log;
use super::super::quorum::{VoteResult, quorum_value, quorum_vote};
use super::super::rng::Rng;
use super::super::window::Window;
use super::super::{
    Config, ConfigError, Configuration, ConfigurationAt, ConfigurationError, MEMBERS_MAX, NodeId,
    Raft, RestoreError, Restored, TermRun,
};
use super::lab::{N0, N1, N2, N3, config, id, restored};
use std::string::ToString;
use std::vec::Vec;

/// A log next to a plain list of terms, which says what is right.
#[test]
fn the_log_agrees_with_a_list_of_terms() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut log = Log::restore(1, 0, Vec::new(), 0);
        let mut terms: Vec<u64> = [0].to_vec();
        let mut first = 1;
        for _ in 0..80 {
            let last = terms.len() as u64 - 1;
            match rng.range(0, 6) {
                0 if last >= first => {
                    let from = rng.range(first, last + 1);
                    log.truncate_from(from);
                    terms.truncate(from as usize);
                }
                1 => {
                    first = rng.range(first, last + 2);
                    log.compact(first);
                }
                _ => {
                    let term = terms.last().unwrap() + rng.range(0, 2);
                    let term = term.max(1);
                    assert_eq!(log.append(term), terms.len() as u64);
                    terms.push(term);
                }
            }
            check_log(&log, &terms, first, seed);
        }
    }
}

fn check_log(log: &Log, terms: &[u64], first: u64, seed: u64) {
    let last = terms.len() as u64 - 1;
    assert_eq!(
        (log.first_index(), log.last_index()),
        (first, last),
        "seed {seed}"
    );
    for index in 0..last + 3 {
        let held = index + 1 >= first && index <= last;
        let expected = held.then(|| terms[index as usize]);
        assert_eq!(log.term_at(index), expected, "seed {seed} index {index}");
    }
    for index in first - 1..last + 2 {
        for term in 0..terms[last as usize] + 2 {
            let fits = |at: &u64| terms[*at as usize] <= term;
            let expected = (first - 1..=index.min(last)).rev().find(fits);
            let found = log.last_not_above(index, term);
            match expected {
                Some(at) => assert_eq!(found, id(terms[at as usize], at), "seed {seed}"),
                None => assert!(
                    found.index < first - 1 || first == 1,
                    "seed {seed}: {found}"
                ),
            }
        }
    }
}

#[test]
fn flushes_count_for_the_entry_that_is_there() {
    let mut log = Log::restore(1, 0, Vec::new(), 0);
    for term in [1, 1, 2, 2] {
        log.append(term);
    }
    assert!(!log.flushed(id(1, 4)), "another term's entry");
    assert!(!log.flushed(id(2, 5)), "not there");
    assert!(log.flushed(id(2, 3)));
    assert!(!log.flushed(id(1, 2)), "behind");
    assert_eq!(log.durable_index(), 3);
    log.truncate_from(2);
    assert_eq!((log.durable_index(), log.truncation_count()), (1, 1));
}

fn set(rng: &mut Rng, count_max: u64) -> Vec<NodeId> {
    let nodes = (0..7).filter(|_| rng.range(0, 7) < count_max);
    nodes.map(NodeId).collect()
}

/// Against the definition: some majority has reached it, and none has reached more.
#[test]
fn quorums_agree_with_their_definition() {
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        let voters = set(&mut rng, 5);
        let voters_outgoing = if rng.range(0, 2) == 0 {
            Vec::new()
        } else {
            set(&mut rng, 4)
        };
        if voters.is_empty() {
            continue;
        }
        let values: Vec<u64> = (0..7).map(|_| rng.range(0, 6)).collect();
        let votes: Vec<Option<bool>> = (0..7)
            .map(|_| [None, Some(true), Some(false)][rng.range(0, 3) as usize])
            .collect();
        let sets: Vec<&Vec<NodeId>> = [&voters, &voters_outgoing]
            .into_iter()
            .filter(|set| !set.is_empty())
            .collect();
        let majority = |test: &dyn Fn(usize) -> bool| {
            sets.iter().all(|set| {
                let count = set.iter().filter(|node| test(node.0 as usize)).count();
                count * 2 > set.len()
            })
        };
        let configuration = Configuration {
            voters: voters.clone(),
            voters_outgoing: voters_outgoing.clone(),
            learners: Vec::new(),
        };
        let reached = (0..6)
            .rev()
            .find(|value| majority(&|node| values[node] >= *value))
            .unwrap();
        let found = quorum_value(&configuration, |node| values[node.0 as usize]);
        assert_eq!(found, reached, "seed {seed}");
        let won = majority(&|node| votes[node] == Some(true));
        let open = majority(&|node| votes[node] != Some(false));
        let expected = match (won, open) {
            (true, _) => VoteResult::Won,
            (false, true) => VoteResult::Pending,
            (false, false) => VoteResult::Lost,
        };
        assert_eq!(
            quorum_vote(&configuration, |node| votes[node.0 as usize]),
            expected,
            "seed {seed}"
        );
    }
}

#[test]
fn no_voters_are_no_quorum() {
    assert_eq!(quorum_value(&Configuration::default(), |_| 9), 0);
    assert_ne!(
        quorum_vote(&Configuration::default(), |_| Some(true)),
        VoteResult::Won
    );
}

#[test]
fn a_window_gives_back_exactly_what_it_took() {
    let mut window = Window::new(&Config {
        window_entries_max: 3,
        window_bytes_max: 100,
        ..Config::new(N0)
    });
    window.push(0, 4, 60);
    assert_eq!(window.room_bytes(u64::MAX), 40);
    assert_eq!(window.room_bytes(70), 10);
    window.push(0, 7, 60);
    assert_eq!(window.room_bytes(u64::MAX), 0, "full by bytes");
    window.release(1, 5);
    assert_eq!((window.messages(), window.bytes()), (1, 60));
    window.push(1, 8, 1);
    window.push(1, 9, 1);
    assert_eq!(window.room_bytes(u64::MAX), 0, "full by messages");
    window.release(2, 9);
    assert_eq!(
        (window.messages(), window.bytes(), window.is_empty()),
        (0, 0, true)
    );
}

#[test]
fn configurations_are_validated() {
    let unsorted = Configuration {
        voters: [N1, N0].to_vec(),
        ..Configuration::default()
    };
    assert_eq!(
        unsorted.validate(),
        Err(ConfigurationError::Unsorted { node: N0 })
    );
    assert_eq!(
        Configuration::new([N0, N0], []),
        Err(ConfigurationError::Unsorted { node: N0 })
    );
    assert_eq!(
        Configuration::new([N0], [N0]),
        Err(ConfigurationError::LearnerVotes { node: N0 })
    );
    assert_eq!(
        Configuration::new([], [N0]),
        Err(ConfigurationError::NoVoters)
    );
    let many = (0..).map(NodeId);
    let found = MEMBERS_MAX + 1;
    assert_eq!(
        Configuration::new(many, []),
        Err(ConfigurationError::TooMany { found })
    );
    let sorted = Configuration::new([N2, N0], [N3, N1]).unwrap();
    assert_eq!(sorted.members(), [N0, N1, N2, N3]);
    assert!(
        Configuration::default().validate().is_ok(),
        "a node may know of no cluster"
    );
}

#[test]
fn settings_are_validated() {
    let mut bad = config();
    bad.heartbeat_interval_us = bad.election_timeout_us_min / 2;
    assert!(matches!(
        bad.validate(),
        Err(ConfigError::ElectionTimeoutTooShort { .. })
    ));
    let mut bad = config();
    bad.election_timeout_us_max = bad.election_timeout_us_min;
    assert!(matches!(
        bad.validate(),
        Err(ConfigError::ElectionTimeoutsNotSpread { .. })
    ));
    let mut bad = config();
    bad.window_entries_max = 0;
    let error = bad.validate().unwrap_err();
    assert_eq!(
        error,
        ConfigError::Zero {
            field: "window_entries_max"
        }
    );
    assert!(error.to_string().contains("window_entries_max"));
}

fn refusal(change: impl FnOnce(&mut Restored)) -> RestoreError {
    let mut found = restored(3, 2, &[1, 1, 2]);
    change(&mut found);
    match Raft::new(config(), found, 0, 0) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error,
    }
}

#[test]
fn what_cannot_be_restored_is_refused_by_name() {
    assert!(matches!(
        refusal(|found| found.first_index = 0),
        RestoreError::Bounds { .. }
    ));
    assert!(matches!(
        refusal(|found| found.last_index = u64::MAX),
        RestoreError::Bounds { .. }
    ));
    assert!(matches!(
        refusal(|found| found.first_index = 2),
        RestoreError::Runs { .. }
    ));
    assert!(matches!(
        refusal(|found| found.term_runs.clear()),
        RestoreError::RunsMissing { .. }
    ));
    let run = TermRun {
        first_index: 3,
        term: 1,
    };
    assert_eq!(
        refusal(|found| found.term_runs[1] = run),
        RestoreError::Runs { found: run }
    );
    let run = TermRun {
        first_index: 9,
        term: 2,
    };
    assert_eq!(
        refusal(|found| found.term_runs[1] = run),
        RestoreError::Runs { found: run }
    );
    assert_eq!(
        refusal(|found| found.hard_state.term = 1),
        RestoreError::TermBehindLog {
            hard_state_term: 1,
            log_term: 2
        }
    );
    assert_eq!(
        refusal(|found| found.commit_index_hint = 4),
        RestoreError::Commit {
            found: 4,
            lo: 0,
            hi: 4
        }
    );
    let order = |index| ConfigurationAt {
        index,
        configuration: Configuration::default(),
    };
    assert_eq!(
        refusal(|found| found.configurations_appended = [order(4)].to_vec()),
        RestoreError::ConfigurationOrder { index: 4 }
    );
    assert!(matches!(
        refusal(|found| found.configuration.voters = [N1, N0].to_vec()),
        RestoreError::Configuration(ConfigurationError::Unsorted { .. })
    ));
    let mut bad = config();
    bad.reads_waiting_max = 0;
    assert!(matches!(
        Raft::new(bad, restored(3, 2, &[1]), 0, 0).err(),
        Some(RestoreError::Config(ConfigError::Zero { .. }))
    ));
}
