//! A key-value store on drave: linearizable, conditional writes, each request done once.
//!
//! [`Kv`] is the state machine: what a command does to the keys, and how they lie in a snapshot. [`http`] serves it.
//! Everything else (order, durability, elections, snapshots on their way to other nodes) is `drave-embed`'s.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command;
pub mod http;
mod machine;

pub use machine::{Entry, IDS_MAX, Kv, STATE_BYTES_MAX};
