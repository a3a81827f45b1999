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
mod persistence;
mod reads;
mod receiving;
mod sending;
mod simulation;
mod snapshots;
mod transfers;
mod units;
mod world;
