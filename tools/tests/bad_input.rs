//! A real node and hostile input over raw TCP: it refuses by code or closes, says so in its log, stays the
//! same process within its memory, and goes on serving.
//!
//! Damage on disk and damage between nodes that know each other are not looked at here.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "bad_input/appends.rs"]
mod appends;
#[path = "bad_input/connections.rs"]
mod connections;
#[path = "bad_input/entries.rs"]
mod entries;
#[path = "bad_input/handshakes.rs"]
mod handshakes;
#[path = "bad_input/heads.rs"]
mod heads;
#[path = "bad_input/node.rs"]
mod node;
#[path = "bad_input/reads.rs"]
mod reads;
#[path = "bad_input/roles.rs"]
mod roles;
#[path = "bad_input/wire.rs"]
mod wire;
