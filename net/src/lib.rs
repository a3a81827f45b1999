//! Framed connections with lanes and bounded queues, on io_uring or on plain sockets.
//!
//! Two parts. Without features: the framing, the handshake, the outgoing queue, backoff and credit
//! windows as pure state machines that take bytes and give bytes; the client crate uses these. With
//! feature `runtime` (the default): [`Runtime`], a current-thread executor over tokio-uring or tokio, and
//! [`Net`], which accepts, dials, reads, writes and closes connections on it.
//!
//! This crate moves opaque frames. It has never heard of Raft or of logs: what a frame means, and
//! whether a peer may send it, is for those who exchange them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(all(doctest, feature = "runtime"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod backoff;
pub mod credit;
pub mod frame;
pub mod handshake;
pub mod outgoing;

#[cfg(feature = "runtime")]
mod accept;
#[cfg(feature = "runtime")]
mod config;
#[cfg(feature = "runtime")]
mod connection;
#[cfg(feature = "runtime")]
mod dial;
#[cfg(feature = "runtime")]
mod event;
#[cfg(feature = "runtime")]
mod greet;
#[cfg(feature = "runtime")]
mod log_limit;
#[cfg(feature = "runtime")]
mod net;
#[cfg(feature = "runtime")]
mod runtime;
#[cfg(feature = "runtime")]
mod shared;
#[cfg(feature = "runtime")]
mod slots;
#[cfg(feature = "runtime")]
mod stream;

#[cfg(feature = "runtime")]
pub use config::{NetConfig, PeerPolicy};
#[cfg(feature = "runtime")]
pub use event::{
    CloseReason, ConnId, Dial, DialError, DialId, Flush, NetEvent, NetStats, SendError,
};
pub use frame::{Frame, FrameError, FrameReader};
pub use handshake::Identity;
#[cfg(feature = "runtime")]
pub use net::Net;
#[cfg(feature = "runtime")]
pub use runtime::{IoChoice, NetEngine, Runtime, RuntimeError, rest};
