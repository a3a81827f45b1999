//! What a load goes to: drave, or what it is held against.

use std::fmt;

use drave_client::{Client, ClientError, Producer, ProducerOptions};

use super::floor::Floor;
use super::load::Plan;
use super::verify;

/// Bytes of unacknowledged batches that one client may have.
const IN_FLIGHT_BYTES_MAX: u32 = 1 << 30;

/// Takes batches.
pub enum Sink {
    /// Named logs of a cluster, in turn, each client in turn.
    Drave {
        /// One per client.
        producers: Vec<Producer>,
        /// At least one.
        log_ids: Vec<u64>,
    },
    /// Three plain files. A batch is its records back to back.
    Floor(Floor),
    /// Another system. A batch is one of its records.
    #[cfg(feature = "peers")]
    Peer(crate::bench::peers::Peer),
}

/// Why an append failed.
#[derive(Debug)]
pub enum SinkError {
    /// drave's client gave up.
    Client(ClientError),
    /// Something else did.
    Other(String),
}

impl From<ClientError> for SinkError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl Sink {
    /// The logs of a cluster, through a producer for each of `clients`.
    #[must_use]
    pub fn drave(clients: &[Client], log_ids: Vec<u64>, in_flight: u32) -> Self {
        let share = in_flight.div_ceil(clients.len() as u32);
        let producer = |client: &Client| {
            client.producer(ProducerOptions {
                in_flight_max: share,
                in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
                ..ProducerOptions::default()
            })
        };
        Self::Drave {
            producers: clients.iter().map(producer).collect(),
            log_ids,
        }
    }

    /// How many logs the batches go to.
    #[must_use]
    pub fn log_count(&self) -> usize {
        match self {
            Self::Drave { log_ids, .. } => log_ids.len(),
            _ => 1,
        }
    }

    /// Appends batch `batch`; gives which of the logs has it, and the seq of its first record where there are seqs.
    ///
    /// # Errors
    /// [`SinkError`]
    pub(super) async fn append(&self, plan: &Plan, batch: u64) -> Result<(usize, u64), SinkError> {
        let record = |place| verify::record(batch, place, plan.record_bytes);
        match self {
            Self::Drave { producers, log_ids } => {
                let producer = &producers[(batch % producers.len() as u64) as usize];
                let log = (batch % log_ids.len() as u64) as usize;
                let records = (0..plan.batch_records).map(record);
                let ticket = producer.submit(log_ids[log], records).await?;
                Ok((log, ticket.await?.first_seq))
            }
            Self::Floor(floor) => {
                let appended = floor.append(whole(plan, record).into()).await;
                appended.map(|()| (0, 0)).map_err(SinkError::Other)
            }
            #[cfg(feature = "peers")]
            Self::Peer(peer) => {
                let appended = peer.append(batch, whole(plan, record)).await;
                let failed =
                    |error: crate::bench::peers::PeerError| SinkError::Other(error.to_string());
                appended.map(|()| (0, 0)).map_err(failed)
            }
        }
    }
}

/// A batch as one piece.
fn whole(plan: &Plan, record: impl Fn(u32) -> bytes::Bytes) -> Vec<u8> {
    let mut whole = Vec::with_capacity(plan.record_bytes * plan.batch_records as usize);
    for place in 0..plan.batch_records {
        whole.extend_from_slice(&record(place));
    }
    whole
}
