//! Waiting for the log's completions: its event descriptor in the runtime's own poll.
#![allow(unsafe_code)]

use std::future::pending;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Becomes ready when the log has completions; never for a log without a descriptor.
pub(super) struct DiskWatch {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl DiskWatch {
    /// Must be called inside the runtime.
    pub(super) fn new(fd: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let Some(fd) = fd else {
            return Ok(Self { fd: None });
        };
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is a valid open descriptor, it is moved into the `AsyncFd`, which hands it
        // to nobody, and so it stays open on the same file until the `AsyncFd` has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { fd: Some(fd) })
    }

    /// Waits. Cancel-safe. The log's own poll empties the descriptor.
    pub(super) async fn ready(&self) {
        match &self.fd {
            Some(fd) => match fd.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => tracing::error!(%error, "watching the disk"),
            },
            None => pending().await,
        }
    }
}
