//! Tests of the core: units, scripted scenarios, and a simulated cluster.
#![allow(clippy::unwrap_used)]

extern crate std;

mod disk;
mod elections;
mod forwarded_reads;
mod hostile;
mod lab;
mod leases;
mod memberships;
mod network;
mod oracle;
mod pacing;
mod persistence;
mod reads;
mod receiving;
mod sending;
mod simulation;
mod snapshots;
mod transfers;
mod units;
mod world;

/// Plants the bug that `DRAVE_PLANT` names, for a run that must fail.
#[cfg(feature = "mutants")]
pub(super) fn plant_from_environment() {
    use super::mutants::{Mutant, plant};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let Ok(name) = std::env::var("DRAVE_PLANT") else {
            return;
        };
        let mutant = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
        assert!(mutant.is_some(), "no planted bug is called {name}");
        plant(mutant.copied());
    });
}
