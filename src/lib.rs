//! drave: a durable, Raft-replicated log as a service, on io_uring.
//!
//! The library behind the `drave` executable, for embedding a node in another program. The layers, from
//! the inside out, and who may know whom, are in `docs/architecture.md`:
//!
//! - [`raft`]: pure Raft; also compiles alone without the standard library.
//! - [`replica`]: one group's Raft, logs and producers; takes events, returns effects; no I/O.
//! - [`node`]: the shell that carries bytes between sockets, disk and replica.
//! - [`repair`]: which entries of a damaged log to ask which member for; no I/O.
//! - [`service`]: client requests to the replica and back.
//! - [`store`], [`config`]: the data directory's identity, and the configuration file.
//!
//! Programs that only append to or read from a cluster want the `drave-client` crate instead.
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

pub mod config;
pub mod node;
pub mod raft;
pub mod repair;
pub mod replica;
pub mod service;
pub mod store;
