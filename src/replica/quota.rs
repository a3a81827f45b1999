//! How much a log, or a client, may append in a second: token buckets of the node that leads.
//!
//! What a log may is an entry of it, the same for every leader; how much of it is used up is a leader's own, and a new
//! leader begins with a second's worth. A batch that finds anything left is taken whole and leaves a debt that the next
//! ones wait for, so the limit may be below the bytes of one batch. It knows no clock: times are given.

use std::collections::HashMap;

use drave_batch::wire::ErrorCode;
use drave_batch::{BatchHeader, Quota};

use super::Refusal;

const SECOND_US: u64 = 1_000_000;

/// How long an unused bucket is kept: after a second it is full, as a new one is.
const IDLE_US: u64 = 2 * SECOND_US;

/// The buckets of one log or client. Full at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    quota: Quota,
    /// What may still be taken; below 0 a debt. In millionths, so that what comes in a microsecond is not lost.
    bytes: i128,
    records: i128,
    filled_us: u64,
}

impl Bucket {
    pub(crate) fn new(quota: Quota, now_us: u64) -> Self {
        let full = |per_second: u64| i128::from(per_second) * i128::from(SECOND_US);
        Self {
            quota,
            bytes: full(quota.bytes_per_second),
            records: full(quota.records_per_second),
            filled_us: now_us,
        }
    }

    /// Takes what a batch needs, or says in how many microseconds there is something to take.
    pub(crate) fn take(&mut self, now_us: u64, bytes: u64, records: u64) -> Result<(), u64> {
        let elapsed_us = now_us.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now_us);
        let wait_us = fill(&mut self.bytes, self.quota.bytes_per_second, elapsed_us).max(fill(
            &mut self.records,
            self.quota.records_per_second,
            elapsed_us,
        ));
        if wait_us > 0 {
            return Err(wait_us);
        }
        self.bytes -= i128::from(bytes) * i128::from(SECOND_US);
        self.records -= i128::from(records) * i128::from(SECOND_US);
        Ok(())
    }
}

/// Adds what came meanwhile, up to a second's worth; gives how long it takes until something is there.
fn fill(level: &mut i128, per_second: u64, elapsed_us: u64) -> u64 {
    if per_second == 0 {
        *level = 0;
        return 0;
    }
    let per_second = i128::from(per_second);
    *level = (*level + per_second * i128::from(elapsed_us)).min(per_second * i128::from(SECOND_US));
    if *level > 0 {
        return 0;
    }
    u64::try_from((-*level) / per_second + 1).unwrap_or(u64::MAX)
}

/// The refusal of who has used up a quota.
pub(crate) fn used_up(whose: &str, quota: Quota, wait_us: u64) -> Refusal {
    let limit = |per_second: u64, what: &str| match per_second {
        0 => format!("any number of {what}"),
        _ => format!("{per_second} {what}"),
    };
    let wait_ms = wait_us.div_ceil(1_000);
    let message = format!(
        "{whose} may append {} and {} in a second; there is room in {wait_ms} ms",
        limit(quota.bytes_per_second, "bytes"),
        limit(quota.records_per_second, "records"),
    );
    Refusal::numbers(ErrorCode::QuotaExceeded, wait_us, 0, message)
}

/// The buckets of logs that have a quota and were appended to lately.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    by_log: HashMap<u64, Bucket>,
    swept_us: u64,
}

impl Quotas {
    /// Why batches of several logs are not taken, if they are not; otherwise they are counted, each in its log's
    /// quota.
    pub(super) fn check(
        &mut self,
        now_us: u64,
        batches: &[(Quota, &BatchHeader)],
    ) -> Option<Refusal> {
        self.sweep(now_us);
        // Nothing is counted of what is not taken.
        for is_counted in [false, true] {
            for (quota, header) in batches {
                let refusal = self.check_one(now_us, *quota, header, is_counted);
                if refusal.is_some() {
                    return refusal;
                }
            }
        }
        None
    }

    fn sweep(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.swept_us) > IDLE_US {
            self.swept_us = now_us;
            // One in debt is kept until the debt is paid.
            let is_used = |bucket: &mut Bucket| {
                now_us.saturating_sub(bucket.filled_us) <= IDLE_US
                    || bucket.take(now_us, 0, 0).is_err()
            };
            self.by_log.retain(|_, bucket| is_used(bucket));
        }
    }

    fn check_one(
        &mut self,
        now_us: u64,
        quota: Quota,
        header: &BatchHeader,
        is_counted: bool,
    ) -> Option<Refusal> {
        if quota == Quota::default() {
            return None;
        }
        let bucket = self.by_log.entry(header.log_id);
        let bucket = bucket.or_insert_with(|| Bucket::new(quota, now_us));
        if bucket.quota != quota {
            *bucket = Bucket::new(quota, now_us);
        }
        let (bytes, records) = match is_counted {
            true => (header.encoded_bytes() as u64, header.record_count.into()),
            false => (0, 0),
        };
        let wait_us = bucket.take(now_us, bytes, records).err()?;
        Some(used_up("the log", quota, wait_us))
    }
}

#[cfg(test)]
mod tests;
