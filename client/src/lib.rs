//! The Rust client of drave: append, read, tail, on plain tokio.
//!
//! ```no_run
//! use drave_client::{Client, ReadLimits};
//!
//! # async fn example() -> Result<(), drave_client::ClientError> {
//! let client = Client::builder().endpoints(["127.0.0.1:4436"]).build()?;
//! client.create_log("orders", true).await?;
//! let log = client.log("orders").await?;
//! let ack = log.append("hello").await?;
//! let chunk = log.read(ack.first_seq, ReadLimits::default()).await?;
//! assert_eq!(chunk.records[0].payload, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! An append that succeeds is on stable storage on a majority of the nodes, once. One that fails says
//! whether it wrote nothing or whether that is unknown: see [`ClientError`]. A [`Producer`] pipelines
//! appends; a [`Tail`] follows a log over the loss of nodes:
//!
//! ```no_run
//! use drave_client::{Client, ProducerOptions, TailEvent, TailFrom};
//!
//! # async fn example(client: Client) -> Result<(), drave_client::ClientError> {
//! let log = client.log("orders").await?;
//! let producer = client.producer(ProducerOptions::default());
//! for number in 0..1000 {
//!     // Waits for room in the window only.
//!     let _ticket = producer.submit(log.id(), [format!("order {number}")]).await?;
//! }
//! producer.flush().await?;
//!
//! let mut tail = log.tail(TailFrom::Last(10)).await?;
//! while let TailEvent::Record(record) = tail.next().await? {
//!     println!("{}: {} bytes", record.seq, record.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where many tasks append single records, a [`Batcher`] puts them together. A tail is also a `Stream`
//! ([`Tail::into_stream`]), and [`blocking`] has the same for programs without a runtime.
//!
//! This crate knows the wire messages and the framing, never the inside of a node, and nothing of
//! io_uring. Every queue in it is bounded, and everything that a node sends is checked against a limit
//! and a checksum before it is believed.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batcher;
pub mod blocking;
mod call;
mod catalogue;
mod client;
mod cluster;
mod connection;
mod error;
mod latency;
mod log;
mod members;
mod producer;
mod read;
mod replica;
mod retry;
mod status;
mod stream;
mod tail;
mod task;
mod together;
mod types;

pub use batcher::{Batcher, BatcherOptions, RecordTicket};
pub use client::{Client, ClientBuilder};
pub use drave_batch::DecodeError;
pub use drave_batch::control::MemberRole;
pub use drave_batch::wire::{Effect, ErrorCode, QuorumsClosed, StageLatency};
pub use error::{ClientError, LeaderHint};
pub use latency::NodeLatency;
pub use log::Log;
pub use members::{Leadership, Member, Members, MembersChange, NodeIdentity, probe_identity};
pub use producer::{Producer, ProducerOptions, Ticket};
pub use read::Reader;
pub use replica::{Replica, ReplicaLog};
pub use status::{ClusterStatus, NodeStatus};
pub use stream::TailStream;
pub use tail::Tail;
pub use together::{Together, TogetherAck};
pub use types::{
    Ack, LogDescription, LogInfo, LogTail, Quota, ReadChunk, ReadLimits, Record, Retention,
    TailEvent, TailFrom,
};
