//! The deterministic simulator: the real core, replica, producers and log over simulated disks, networks,
//! clocks and clients, in one thread and virtual time, all from one seed.
//!
//! What is real: `drave::raft`, `drave::replica`, `drave::node::GroupLog`, `drave_wal` down to the bytes of
//! its segments. What is simulated: disks ([`drave_wal::MemoryDisk`]), connections, clocks, clients, fate.
//! [`node`] is the other shell around the replica, and does what the product's `node::driver` does in the
//! same order. [`invariants`] is checked after every step. `docs/simulator.md` is the guide.

pub mod client;
pub mod clock;
pub mod damage;
pub mod fate;
pub mod faults;
pub mod fleet;
pub mod invariants;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod node;
pub mod operator;
pub mod oracle;
pub mod plan;
pub mod random;
pub mod run;
pub mod shadow;
pub mod shrink;
pub mod snapshots;
pub mod start;
pub mod tally;
pub mod trace;
pub mod world;

pub use plan::{Options, Plan, Profile};
pub use run::{Outcome, run};
