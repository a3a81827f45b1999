//! A state machine of your own, replicated by drave, inside the process that runs the node.
//!
//! [`Node`] runs a node on a thread of this process. [`Machine`] keeps a [`StateMachine`] on top of it: every
//! command that is proposed, on whichever node, goes through a log of the group, and every node applies the same
//! commands in the same order, each once. State that commands left behind is kept by snapshots, so that the log of
//! commands stays short.
//!
//! ```no_run
//! use drave_embed::{Command, Machine, MachineOptions, Node, NodeOptions, RestoreError, StateMachine};
//! use std::io::{Read, Write};
//!
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Answer = u64;
//!     type Snapshot = u64;
//!
//!     fn apply(&mut self, command: Command<'_>) -> u64 {
//!         self.0 += u64::from(command.payload.len() == 1);
//!         self.0
//!     }
//!
//!     fn snapshot(&self) -> u64 {
//!         self.0
//!     }
//!
//!     fn write(snapshot: &u64, file: &mut dyn Write) -> std::io::Result<()> {
//!         file.write_all(&snapshot.to_le_bytes())
//!     }
//!
//!     fn restore(&mut self, file: &mut dyn Read) -> Result<(), RestoreError> {
//!         let mut bytes = [0; 8];
//!         file.read_exact(&mut bytes)?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! # async fn example(options: NodeOptions) -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(options)?;
//! let counter = Machine::start(&node, MachineOptions::new("counter"), Counter::default()).await?;
//! let now = counter.propose("x").await?;
//! assert_eq!(counter.query(|counter| counter.0).await?, now);
//! counter.stop().await;
//! node.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: it decides nothing of consensus, and has no storage of its own. A machine is a reader and a
//! writer of two ordinary logs (`docs/adr/0010-machines-on-logs.md` says why), so that tools, repair, scrubbing and
//! retention are those of every other log.
//!
//! With the feature `testing`, [`testing::TestCluster`] runs whole clusters inside one test.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod envelope;
mod error;
mod machine;
mod node;
mod snapshot;
mod state;
#[cfg(feature = "testing")]
pub mod testing;

pub use drave::config::NodeConfig;
pub use drave::node::{IoChoice, NodeError, NodeOptions};
pub use error::{MachineError, ProposeError, QueryError, RestoreError};
pub use machine::{Machine, MachineOptions, MachineStatus};
pub use node::{Node, NodeStartError};
pub use state::{Command, StateMachine};
