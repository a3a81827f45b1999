//! A node on a thread of this process.

use std::io;
use std::thread::{self, JoinHandle};

use drave::node::{self, NodeError, NodeOptions};
use drave::store::Store;
use thiserror::Error;
use tokio::sync::oneshot;

/// Why a node could not be started on a thread.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeStartError {
    /// The data directory does not say who the node is.
    #[error("{0}")]
    Store(#[from] drave::store::StoreError),
    /// No thread can be had.
    #[error("a thread for the node: {0}")]
    Thread(#[from] io::Error),
}

/// A node that runs on a thread of its own. Dropping it stops the node as [`stop`](Self::stop) does, without saying
/// how it ended.
#[derive(Debug)]
pub struct Node {
    node_id: u64,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Node {
    /// Starts the node of a formatted directory (`drave::store::format_store`) and returns at once: whether it can be
    /// reached, and who leads, is the client's to find out.
    ///
    /// # Errors
    /// [`NodeStartError`] when the directory is not a node's; what comes to light later is told by
    /// [`stop`](Self::stop).
    pub fn start(options: NodeOptions) -> Result<Self, NodeStartError> {
        let identity = Store::read_identity(&options.data_dir)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(format!("drave-node-{}", identity.node_id))
            .spawn(move || {
                node::run(options, async {
                    // Also when the sender is gone: the node stops with whoever holds it.
                    let _ = stopped.await;
                })
            })?;
        Ok(Self {
            node_id: identity.node_id,
            address: identity.address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its id.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// The `HOST:PORT` that it was formatted with.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it has ended, by itself or because it was told to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the node and waits for its end. What it acknowledged stays.
    ///
    /// # Errors
    /// [`NodeError`] when it had ended by itself, or could not end cleanly.
    ///
    /// # Panics
    /// When the node's thread panicked.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<(), NodeError>> {
        if let Some(stop) = self.stop.take() {
            // An error means that it is already gone; joining tells why.
            let _ = stop.send(());
        }
        let ended = self.thread.take()?.join();
        Some(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            // A second panic would end the process before the first is told.
            self.stop.take();
            return;
        }
        if let Some(Err(error)) = self.end() {
            tracing::warn!(%error, node = self.node_id, "a node that was dropped had not ended well");
        }
    }
}
