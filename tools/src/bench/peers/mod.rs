//! Other systems under the same load, for comparison: `benches/peers` starts them, these are their clients.
//!
//! Each acknowledges an append when two of three servers have flushed it. The clients are there to be fast and nothing
//! else: no retries, no leader that changes.

pub mod etcd;
pub mod redis;
pub mod servers;

use std::fmt;
use std::io;

/// Why an append failed.
#[derive(Debug)]
pub enum PeerError {
    /// The connection, or what came over it.
    Io(io::Error),
    /// What the server answered.
    Refused(String),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A system to append to.
#[derive(Debug)]
pub enum Peer {
    /// Puts, each under a key of its own.
    Etcd(etcd::Etcd),
    /// Entries of a stream.
    Redis(redis::Redis),
}

impl Peer {
    /// Appends a record; `number` is different each time. Returns when it is flushed by two of three.
    ///
    /// # Errors
    /// [`PeerError`]; whether it was appended is not known then.
    pub async fn append(&self, number: u64, record: Vec<u8>) -> Result<(), PeerError> {
        match self {
            Self::Etcd(etcd) => etcd.append(number, record).await,
            Self::Redis(redis) => redis.append(number, record).await,
        }
    }

    /// How many records it holds.
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn count(&self) -> Result<u64, PeerError> {
        match self {
            Self::Etcd(etcd) => etcd.count().await,
            Self::Redis(redis) => redis.count().await,
        }
    }
}
