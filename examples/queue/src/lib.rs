//! A message queue on drave: messages are sent once, seen by one consumer at a time, given out again when a consumer
//! does not finish them, and put aside when that happens too often.
//!
//! Queue `NAME` is three logs: `NAME.messages` has what was sent; `NAME.consumers` has what consumers asked for
//! ([`event`]); `NAME.dead` has what was given up. Who holds which message follows from `NAME.consumers` alone
//! ([`State`]): every consumer folds it, in its one order and by the times that are in it, and so all come to the same
//! answer. There is no server of the queue's own, no owner and no lock.
//!
//! ```no_run
//! use drave_client::Client;
//! use drave_queue::{Message, Queue, QueueOptions};
//! use std::time::Duration;
//!
//! # async fn example(client: Client) -> Result<(), drave_queue::QueueError> {
//! let queue = Queue::create(&client, "jobs", QueueOptions::default()).await?;
//! queue.send(&Message::new("resize 17.png")).await?;
//!
//! let mut consumer = queue.consumer().await?;
//! let (visible_again, wait) = (Duration::from_secs(30), Duration::from_secs(5));
//! for delivery in consumer.receive(10, visible_again, wait).await? {
//!     println!("{}", String::from_utf8_lossy(&delivery.body));
//!     consumer.acknowledge(&[delivery.receipt]).await?;
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod consumer;
mod error;
pub mod event;
mod fields;
mod message;
mod queue;
mod state;

pub use consumer::{Consumer, Delivery, Settled};
pub use error::{QueueError, Wrong};
pub use event::Receipt;
pub use message::{BODY_BYTES_MAX, KEY_BYTES_MAX, Message};
pub use queue::{DeadLetter, Queue, QueueOptions, QueueStatus};
pub use state::{Grant, Outcome, State, UNFINISHED_MAX};
