//! Serving entries to a member that repairs its log, from the log of a running replica.
//!
//! Up to the durable end, committed or not: what proves them is their chain, which the one who asks checks. One
//! read at a time for each connection; old entries come through the helper thread, behind whatever it does for
//! others.

use std::collections::HashSet;

use bytes::Bytes;
use drave_batch::wire::{
    EntriesHeld, EntriesReply, EntriesRequest, FRAME_PAYLOAD_BYTES_MAX, LogEndReply,
};
use drave_batch::{BODY_BYTES_MAX, encoded_bytes};
use drave_net::{ConnId, Net};
use drave_wal::{Read, ReadError, Slices};

use super::helper::{Helper, JobKey};
use super::{GroupLog, is_damage};
use crate::raft::{Raft, RoleKind};

/// Bytes of batches in one answer at most: with one batch more it still fits a frame.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const _: () =
    assert!(ANSWER_BYTES_MAX + encoded_bytes(BODY_BYTES_MAX) <= FRAME_PAYLOAD_BYTES_MAX as usize);

/// Bytes of batches to answer a request with: what it asks for, within the limit.
pub(super) fn answer_bytes_max(request: &EntriesRequest) -> usize {
    (request.bytes_max as usize).min(ANSWER_BYTES_MAX)
}

/// The answer when the log is `[first_index, end)` and does not hold the first entry asked for.
pub(super) fn outside(
    request: &EntriesRequest,
    first_index: u64,
    end: u64,
    commit_index: u64,
) -> Option<EntriesReply> {
    if request.lo < first_index {
        return Some(EntriesReply {
            held: EntriesHeld::Trimmed,
            lo: request.lo,
            hi: first_index,
            commit_index,
        });
    }
    (request.lo >= end).then_some(EntriesReply {
        held: EntriesHeld::NotHeld,
        lo: end,
        hi: u64::MAX,
        commit_index,
    })
}

/// Where the log ends, for a member that has lost the end of its own. What counts is all that a leader has, on
/// disk or not: it may have sent it already.
pub(super) fn log_end(log: &GroupLog, raft: &Raft) -> LogEndReply {
    let term = raft.term();
    if raft.role() != RoleKind::Leader {
        return LogEndReply {
            term,
            ..LogEndReply::default()
        };
    }
    let last_index = log.wal.last_index();
    LogEndReply {
        term,
        leads: true,
        last_index,
        last_term: log.wal.term(last_index).unwrap_or(0),
        last_crc: log.wal.last_crc(),
    }
}

/// Whom a read is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub(crate) struct EntriesJob {
    /// The connection that asks.
    pub conn: ConnId,
    /// Its request.
    pub request_id: u64,
    /// The first index that it asks for.
    pub lo: u64,
}

/// The requests being served.
#[derive(Debug)]
pub(super) struct Entries {
    group_id: u32,
    /// Connections for which a read is under way.
    reading: HashSet<ConnId>,
}

impl Entries {
    pub(super) fn new(group_id: u32) -> Self {
        let reading = HashSet::new();
        Self { group_id, reading }
    }

    /// A member asks. The error is damage that came to light.
    pub(super) fn serve(
        &mut self,
        net: &Net,
        log: &GroupLog,
        helper: &Helper,
        commit_index: u64,
        job: EntriesJob,
        request: &EntriesRequest,
    ) -> Result<(), ReadError> {
        let end = log.wal.durable_index() + 1;
        if let Some(reply) = outside(request, log.wal.first_index(), end, commit_index) {
            self.reply(net, job, &reply, &[]);
            return Ok(());
        }
        if self.reading.contains(&job.conn) {
            self.reply(net, job, &busy(job, commit_index), &[]);
            return Ok(());
        }
        let (hi, bytes_max) = (request.hi.min(end), answer_bytes_max(request));
        match log.wal.read(request.lo, hi, bytes_max) {
            Ok(Read::Ready(slices)) => self.done(net, commit_index, job, Ok(slices)),
            Ok(Read::Cold(cold)) => {
                if helper.submit(JobKey::Entries(job), cold) {
                    self.reading.insert(job.conn);
                } else {
                    self.reply(net, job, &busy(job, commit_index), &[]);
                }
                Ok(())
            }
            Err(error) => self.done(net, commit_index, job, Err(error)),
        }
    }

    /// A read has finished. The error is damage that came to light.
    pub(super) fn done(
        &mut self,
        net: &Net,
        commit_index: u64,
        job: EntriesJob,
        result: Result<Slices, ReadError>,
    ) -> Result<(), ReadError> {
        self.reading.remove(&job.conn);
        match result {
            Ok(slices) => {
                let reply = EntriesReply {
                    held: EntriesHeld::Held,
                    lo: slices.lo,
                    hi: slices.hi,
                    commit_index,
                };
                self.reply(net, job, &reply, &slices.pieces);
                Ok(())
            }
            Err(error) if is_damage(&error) => {
                let reply = EntriesReply {
                    held: EntriesHeld::NotHeld,
                    lo: job.lo,
                    hi: job.lo + 1,
                    commit_index,
                };
                self.reply(net, job, &reply, &[]);
                Err(error)
            }
            Err(error) => {
                tracing::warn!(lo = job.lo, %error, "entries for a member that repairs its log");
                self.reply(net, job, &busy(job, commit_index), &[]);
                Ok(())
            }
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.reading.remove(&conn);
    }

    fn reply(&self, net: &Net, job: EntriesJob, reply: &EntriesReply, pieces: &[Bytes]) {
        if let Err(error) = net.send(job.conn, self.group_id, job.request_id, reply, pieces) {
            tracing::debug!(conn = %job.conn, %error, "entries for a member not queued");
        }
    }
}

fn busy(job: EntriesJob, commit_index: u64) -> EntriesReply {
    EntriesReply {
        held: EntriesHeld::Busy,
        lo: job.lo,
        hi: job.lo,
        commit_index,
    }
}
