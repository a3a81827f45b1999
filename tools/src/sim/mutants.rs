//! Planted bugs, one at a time, and what finds each: the evidence that the simulator finds what it should.

use std::time::Duration;

use drave::raft::mutants::{Mutant, plant};

use super::fleet::{Search, search};
use super::plan::{Options, Profile};
use crate::panics::caught;
use crate::script::{SCENARIOS, run};

/// A bug of either crate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// In the core or the replica.
    Raft(Mutant),
    /// In the log.
    Wal(drave_wal::mutants::Mutant),
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let raft = Mutant::ALL.iter().map(|mutant| Self::Raft(*mutant));
        raft.chain(
            drave_wal::mutants::Mutant::ALL
                .iter()
                .map(|mutant| Self::Wal(*mutant)),
        )
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft(mutant) => mutant.name(),
            Self::Wal(mutant) => mutant.name(),
        }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Raft(mutant) => mutant.description(),
            Self::Wal(mutant) => mutant.description(),
        }
    }

    /// The first built-in script that finds it.
    #[must_use]
    pub fn script(self) -> Option<String> {
        self.plant();
        let found = crate::script::run_all().err();
        Self::uproot();
        found.map(|failure| failure.file)
    }

    fn plant(self) {
        match self {
            Self::Raft(mutant) => plant(Some(mutant)),
            Self::Wal(mutant) => drave_wal::mutants::plant(Some(mutant)),
        }
    }

    fn uproot() {
        plant(None);
        drave_wal::mutants::plant(None);
    }
}

/// The scenario that fails with a bug planted, if one does.
#[must_use]
pub fn script_that_finds(bug: Bug) -> Option<String> {
    bug.plant();
    let found = caught(|| {
        SCENARIOS
            .iter()
            .find(|scenario| run(&scenario.file(), scenario.text).is_err())
    });
    Bug::uproot();
    match found {
        Ok(scenario) => scenario.map(|scenario| scenario.name.to_owned()),
        Err(_) => Some("an assertion".to_owned()),
    }
}

/// What found a bug.
#[derive(Clone, Debug)]
pub struct Catch {
    /// The broken invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// The command that shows it, with the bug planted.
    pub options: Options,
    /// Seeds up to it.
    pub seeds: u64,
    /// Seconds up to it.
    pub seconds: f64,
}

/// Searches for a bug with these profiles in turn. One at a time in a process.
#[must_use]
pub fn hunt(bug: Bug, profiles: &[Profile], time_max: Duration, workers: usize) -> Option<Catch> {
    bug.plant();
    let found = search(&Search {
        seeds: 0..u64::MAX,
        time_max: Some(time_max),
        options: Options::of(0),
        profiles: profiles.to_vec(),
        workers,
    });
    Bug::uproot();
    let (options, violation) = found.failure?;
    Some(Catch {
        invariant: violation.invariant,
        what: violation.what,
        options,
        seeds: found.tally.seeds,
        seconds: found.wall.as_secs_f64(),
    })
}
