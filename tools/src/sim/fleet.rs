//! Many runs: seeds over several threads, each run by itself, panics of the product caught and counted as
//! the broken invariants they are.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::panics::caught;

use super::invariants::Violation;
use super::plan::{Options, Plan};
use super::run::{Outcome, run};
use super::tally::Tally;

/// Runs one seed; a panic is a failure like any other.
#[must_use]
pub fn run_caught(options: &Options, lines: bool) -> Outcome {
    caught(|| run(options, lines)).unwrap_or_else(|what| Outcome {
        plan: Plan::draw(options),
        tally: Tally::default(),
        hash: 0,
        failure: Some(Violation {
            invariant: "assertion",
            what,
        }),
        lines: Vec::new(),
    })
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Search {
    /// The seeds, in order.
    pub seeds: Range<u64>,
    /// Begin no further run after this long.
    pub time_max: Option<Duration>,
    /// Everything but the seed.
    pub options: Options,
    /// Profiles to go through in turn; empty to leave it to `options`.
    pub profiles: Vec<super::plan::Profile>,
    /// Threads.
    pub workers: usize,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// All runs added up.
    pub tally: Tally,
    /// The failing run of the lowest seed among those that were run.
    pub failure: Option<(Options, Violation)>,
    /// Real time.
    pub wall: Duration,
    /// Hash of the last seed's run: of the only one, if it was one.
    pub hash: u64,
}

/// Runs until the seeds or the time are over or a run fails.
#[must_use]
pub fn search(search: &Search) -> Found {
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(search.seeds.start), AtomicBool::new(false));
    let found = Mutex::new(Found::default());
    let is_late = || search.time_max.is_some_and(|max| started.elapsed() >= max);
    let work = || {
        while !stop.load(Ordering::Relaxed) && !is_late() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= search.seeds.end {
                break;
            }
            let mut options = Options {
                seed,
                ..search.options.clone()
            };
            if !search.profiles.is_empty() {
                let turn = (seed - search.seeds.start) as usize % search.profiles.len();
                options.profile = Some(search.profiles[turn]);
            }
            let outcome = run_caught(&options, false);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.tally.add(&outcome.tally);
            found.hash = outcome.hash;
            if let Some(violation) = outcome.failure {
                stop.store(true, Ordering::Relaxed);
                let earlier = found
                    .failure
                    .as_ref()
                    .is_some_and(|(other, _)| other.seed < seed);
                if !earlier {
                    found.failure = Some((options, violation));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..search.workers.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.wall = started.elapsed();
    found
}
