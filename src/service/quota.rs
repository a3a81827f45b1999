//! How much one client may append in a second. A client is a connection here.
//!
//! It counts what is asked for, also what is refused then for another reason. Logs have quotas of their own, in the
//! replica.

use std::collections::HashMap;

use drave_batch::{Quota, encoded_bytes};
use drave_net::ConnId;

use crate::replica::{Bucket, Refusal, used_up};

/// A batch that is to be appended: bytes of its body, and its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub body_len: u32,
    pub record_count: u32,
}

/// The buckets of the clients that have appended.
#[derive(Debug)]
pub(super) struct ClientQuotas {
    quota: Quota,
    by_connection: HashMap<u64, Bucket>,
}

impl ClientQuotas {
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            quota,
            by_connection: HashMap::new(),
        }
    }

    /// Why an append is not taken, if it is not; otherwise it is counted.
    pub(super) fn check(
        &mut self,
        now_us: u64,
        connection: u64,
        batches: impl IntoIterator<Item = Asked>,
    ) -> Option<Refusal> {
        if self.quota == Quota::default() {
            return None;
        }
        let bucket = self.by_connection.entry(connection);
        let bucket = bucket.or_insert_with(|| Bucket::new(self.quota, now_us));
        let (mut bytes, mut records) = (0, 0);
        for batch in batches {
            bytes += encoded_bytes(batch.body_len) as u64;
            records += u64::from(batch.record_count);
        }
        let wait_us = bucket.take(now_us, bytes, records).err()?;
        Some(used_up("a client", self.quota, wait_us))
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.by_connection.remove(&conn.number());
    }
}
