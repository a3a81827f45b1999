//! The purity gate: `src/raft` compiled alone, without the standard library.
//!
//! It has no dependency and no `std`, so a clock, a file, a socket, a thread or a payload type that
//! finds its way into the Raft core fails this crate's build. It holds no code of its own.
#![no_std]

extern crate alloc;
// The core's own tests may use it; only lints of all targets compile them here.
#[cfg(test)]
extern crate std;

#[path = "../../../src/raft/mod.rs"]
pub mod raft;
