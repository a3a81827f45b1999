//! Reads: one chunk, or chunk by chunk up to the tail. Everything that arrives is checked.

use std::sync::Arc;

use bytes::Bytes;
use drave_batch::wire::{ErrorCode, Read, ReadReply, SeqAt, SeqFound};
use drave_batch::{BATCH_HEADER_BYTES, BODY_BYTES_MAX, Batches, DecodeError, EntryKind};
use tokio::time::Instant;

use crate::call::{Call, Target, damaged};
use crate::catalogue::consistency;
use crate::cluster::Cluster;
use crate::{ClientError, ReadChunk, ReadLimits, Record};

/// Times a read from the leader is repeated when its bytes arrive damaged.
const DAMAGED_READS_MAX: u32 = 2;

/// Bytes that hold any one batch.
pub(crate) const BATCH_BYTES_MAX: u32 = BODY_BYTES_MAX + BATCH_HEADER_BYTES as u32 + 8;

/// One log, and who is asked for it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) target: Target,
    pub(crate) log_id: u64,
}

impl Source {
    pub(crate) fn call(&self) -> Call<'_> {
        Call {
            cluster: &self.cluster,
            target: &self.target,
            deadline: Instant::now() + self.cluster.settings.request_timeout,
            writes: false,
        }
    }
}

/// What is wrong with batches that a node sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum BatchesError {
    Damaged(DecodeError),
    Rule {
        what: &'static str,
        expected: u64,
        found: u64,
    },
}

impl BatchesError {
    pub(crate) fn at(self, address: &str) -> ClientError {
        match self {
            Self::Damaged(source) => damaged(address, source),
            Self::Rule {
                what,
                expected,
                found,
            } => ClientError::Misbehaved {
                address: address.to_owned(),
                what,
                expected,
                found,
            },
        }
    }
}

/// Checks batches of one log back to back and gives their records from `from_seq` on to `take`, until
/// it says no. Gives the seq after the last record taken.
///
/// Checked: header and body checksums, kind, log, and that the records follow one another from
/// `from_seq` on without a gap. The first batch may begin before it.
pub(crate) fn for_each_record(
    payload: &Bytes,
    log_id: u64,
    from_seq: u64,
    mut take: impl FnMut(Record) -> bool,
) -> Result<u64, BatchesError> {
    let rule = |what, expected, found| BatchesError::Rule {
        what,
        expected,
        found,
    };
    let mut next_seq = from_seq;
    for (at, batch) in Batches::new(payload).enumerate() {
        let batch = batch.map_err(BatchesError::Damaged)?;
        batch.verify_body().map_err(BatchesError::Damaged)?;
        let header = &batch.header;
        if header.kind != EntryKind::Data {
            let (expected, found) = (EntryKind::Data as u64, header.kind as u64);
            return Err(rule("a batch of records", expected, found));
        }
        if header.log_id != log_id {
            return Err(rule("a batch of the log", log_id, header.log_id));
        }
        let begins_right = if at == 0 {
            header.first_seq <= from_seq && from_seq < header.next_seq()
        } else {
            header.first_seq == next_seq
        };
        if !begins_right {
            return Err(rule(
                "the batch of the next seq",
                next_seq,
                header.first_seq,
            ));
        }
        let records = batch.records().map_err(BatchesError::Damaged)?;
        for (seq, record) in (header.first_seq..).zip(records) {
            if seq < next_seq {
                continue;
            }
            let record = Record {
                seq,
                append_time_us: header.append_time_us,
                payload: payload.slice_ref(record),
            };
            if !take(record) {
                return Ok(next_seq);
            }
            next_seq = seq + 1;
        }
    }
    Ok(next_seq)
}

/// One read, repeated within reason when the bytes of a leader's answer are damaged.
pub(crate) async fn read(
    source: &Source,
    from_seq: u64,
    limits: ReadLimits,
) -> Result<ReadChunk, ClientError> {
    let call = source.call();
    let mut damaged_reads = 0;
    loop {
        let chunk = read_once(source, &call, from_seq, limits).await;
        match &chunk {
            Err(ClientError::Damaged { address, .. })
                if matches!(source.target, Target::Leader) && damaged_reads < DAMAGED_READS_MAX =>
            {
                damaged_reads += 1;
                tracing::warn!(address, from_seq, "a read arrived damaged, asking again");
            }
            _ => return chunk,
        }
    }
}

async fn read_once(
    source: &Source,
    call: &Call<'_>,
    from_seq: u64,
    limits: ReadLimits,
) -> Result<ReadChunk, ClientError> {
    let request = Read {
        log_id: source.log_id,
        from_seq,
        bytes_max: limits.bytes_max,
        consistency: consistency(&source.target),
    };
    let answer = call.run::<_, ReadReply>(&request).await?;
    let reply = answer.message;
    let rule = |what, expected, found| ClientError::Misbehaved {
        address: answer.address.clone(),
        what,
        expected,
        found,
    };
    if reply.log_id != source.log_id {
        return Err(rule("the log asked for", source.log_id, reply.log_id));
    }
    // At least one batch is given, however small the limit.
    let payload_bytes = answer.payload.len() as u64;
    let payload_bytes_max = u64::from(limits.bytes_max.max(BATCH_BYTES_MAX));
    if payload_bytes > payload_bytes_max {
        return Err(rule("bytes of a read", payload_bytes_max, payload_bytes));
    }
    let mut records: Vec<Record> = Vec::new();
    let records_max = limits.records_max.max(1) as usize;
    let next_seq = for_each_record(&answer.payload, source.log_id, from_seq, |record| {
        let room = records.len() < records_max;
        if room {
            records.push(record);
        }
        room
    })
    .map_err(|error| error.at(&answer.address))?;
    if next_seq > reply.next_seq {
        return Err(rule("records before the tail", reply.next_seq, next_seq));
    }
    if records.is_empty() && from_seq < reply.next_seq {
        return Err(rule("at least one record", from_seq, reply.next_seq));
    }
    Ok(ReadChunk {
        records,
        first_seq: reply.first_seq,
        next_seq: reply.next_seq,
    })
}

/// The seq of the first record appended at a time or after it; the log's next seq when there is none.
pub(crate) async fn seq_at(source: &Source, time_us: u64) -> Result<u64, ClientError> {
    let request = SeqAt {
        log_id: source.log_id,
        time_us,
        consistency: consistency(&source.target),
    };
    let answer = source.call().run::<_, SeqFound>(&request).await?;
    let found = answer.message;
    let rule = |what, expected, found| ClientError::Misbehaved {
        address: answer.address.clone(),
        what,
        expected,
        found,
    };
    if found.log_id != source.log_id {
        return Err(rule("the log asked for", source.log_id, found.log_id));
    }
    if found.seq > found.next_seq {
        return Err(rule("a seq of the log", found.next_seq, found.seq));
    }
    if found.seq < found.next_seq && found.time_us < time_us {
        return Err(rule("a record of that time", time_us, found.time_us));
    }
    Ok(found.seq)
}

/// Reads from a seq that was asked for a moment ago: what was trimmed since is left out.
pub(crate) async fn read_held(
    source: &Source,
    from_seq: u64,
    limits: ReadLimits,
) -> Result<ReadChunk, ClientError> {
    let mut from_seq = from_seq;
    loop {
        match read(source, from_seq, limits).await {
            Err(ClientError::Refused { code, expected, .. })
                if code == ErrorCode::Trimmed && expected > from_seq =>
            {
                from_seq = expected;
            }
            chunk => return chunk,
        }
    }
}

/// Reads a log chunk by chunk up to its tail as of the first chunk. From
/// [`Log::reader`](crate::Log::reader).
pub struct Reader {
    source: Source,
    next_seq: u64,
    end_seq: Option<u64>,
    limits: ReadLimits,
}

impl Reader {
    pub(crate) fn new(source: Source, from_seq: u64) -> Self {
        Self {
            source,
            next_seq: from_seq,
            end_seq: None,
            limits: ReadLimits::default(),
        }
    }

    /// Bounds each chunk.
    #[must_use]
    pub fn limits(mut self, limits: ReadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The next chunk with at least one record, or `None` at the end. Cancel-safe: a chunk that was not
    /// given out is read again.
    ///
    /// # Errors
    /// As [`Log::read`](crate::Log::read); after an error the same chunk can be asked for again.
    pub async fn next(&mut self) -> Result<Option<ReadChunk>, ClientError> {
        if self.end_seq.is_some_and(|end_seq| self.next_seq >= end_seq) {
            return Ok(None);
        }
        let mut chunk = read(&self.source, self.next_seq, self.limits).await?;
        let end_seq = *self.end_seq.get_or_insert(chunk.next_seq);
        chunk.records.retain(|record| record.seq < end_seq);
        match chunk.records.last() {
            Some(last) => {
                self.next_seq = last.seq + 1;
                Ok(Some(chunk))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
