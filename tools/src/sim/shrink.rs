//! From a failing run to a small one: kinds of faults are taken away one by one, then nodes, clients and
//! steps, as long as the same invariant still breaks.

use super::faults::FaultSet;
use super::fleet::run_caught;
use super::plan::{Options, Plan};

/// Runs tried at most.
const TRIES_MAX: u32 = 400;

struct Shrinker {
    invariant: &'static str,
    best: Options,
    tries: u32,
}

impl Shrinker {
    /// Keeps `options` if the run still fails in the same way.
    fn keep_if_fails(&mut self, options: Options) -> bool {
        if self.tries == 0 || options == self.best {
            return false;
        }
        self.tries -= 1;
        let failure = run_caught(&options, false).failure;
        let fails = failure.is_some_and(|violation| violation.invariant == self.invariant);
        if fails {
            self.best = options;
        }
        fails
    }

    /// Takes away one kind after the other, until none can be.
    fn remove_kinds(&mut self) {
        loop {
            let mut smaller = false;
            for kind in Plan::draw(&self.best).faults.iter() {
                let without = self.best.without.union(FaultSet::of(&[kind]));
                smaller |= self.keep_if_fails(Options {
                    without,
                    ..self.best.clone()
                });
            }
            if !smaller {
                return;
            }
        }
    }

    /// The fewest steps with which it fails, by bisection; a run need not fail with every larger number,
    /// so a few more are tried below what is found.
    fn remove_steps(&mut self) {
        let (mut lo, mut hi) = (0, Plan::draw(&self.best).steps);
        while lo + 1 < hi {
            let steps = Some(lo.midpoint(hi));
            let options = Options {
                steps,
                ..self.best.clone()
            };
            if self.keep_if_fails(options) {
                hi = lo.midpoint(hi);
            } else {
                lo = lo.midpoint(hi);
            }
        }
        for steps in (hi.saturating_sub(8)..hi).rev() {
            self.keep_if_fails(Options {
                steps: Some(steps),
                ..self.best.clone()
            });
        }
    }

    fn remove_nodes_and_clients(&mut self) {
        let plan = Plan::draw(&self.best);
        if plan.nodes > 3 {
            self.keep_if_fails(Options {
                nodes: Some(3),
                ..self.best.clone()
            });
        }
        for clients in 1..plan.clients {
            let options = Options {
                clients: Some(clients),
                ..self.best.clone()
            };
            if self.keep_if_fails(options) {
                break;
            }
        }
    }
}

/// The smallest run found that breaks `invariant`, and how many runs were tried.
#[must_use]
pub fn shrink(options: &Options, invariant: &'static str) -> (Options, u32) {
    let mut shrinker = Shrinker {
        invariant,
        best: Options {
            profile: Some(Plan::draw(options).profile),
            ..options.clone()
        },
        tries: TRIES_MAX,
    };
    shrinker.remove_steps();
    shrinker.remove_kinds();
    shrinker.remove_nodes_and_clients();
    shrinker.remove_kinds();
    shrinker.remove_steps();
    (shrinker.best, TRIES_MAX - shrinker.tries)
}
