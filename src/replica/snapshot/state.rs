//! The state of a replica at an applied index, as bytes (`docs/format.md`, "State snapshot").

use drave_batch::control::{Members, log_name_error};
use drave_batch::{DecodeError, Quota, Reader, Retention, Writer, checksum};

use super::super::catalogue::LogImage;
use super::super::members::configuration_of;
use super::super::producers::{FirstAnswer, ProducerImage};
use super::super::rules::LogRules;
use super::super::seq_index::{Carried, DOUBLINGS_MAX, Mark, SeqIndex};
use super::super::tables::Tables;
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{Configuration, EntryId, SnapshotMeta};

const SNAPSHOT_MAGIC: u64 = u64::from_le_bytes(*b"DRAVESNP");
const SNAPSHOT_VERSION: u32 = 3;

/// The first version, which knew no times and bytes of batches, and no fences: read as having none. The second knew of
/// nothing that was carried over.
const SNAPSHOT_VERSION_MIN: u32 = 1;
const SNAPSHOT_VERSION_CARRIED: u32 = 3;

const WHAT: &str = "state snapshot";

/// What a replica is once it has applied everything up to [`Self::last`]. It holds no records: a log that
/// begins right after it is complete when every record up to `last` has been trimmed.
///
/// Two replicas that applied the same entries make the same bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateSnapshot {
    /// The group.
    pub group_id: u32,
    /// The last entry applied.
    pub last: EntryId,
    /// The header checksum of that entry: the chain goes on from it.
    pub header_crc: u32,
    /// Its append time; those after it do not run behind.
    pub append_time_us: u64,
    /// The entry that brought the members, 0 for those of a new cluster.
    pub configuration_index: u64,
    /// The members at `last`, both halves when joint.
    pub members: Members,
    /// How often the distances between the logs' marks were doubled.
    pub(in super::super) mark_doublings: u32,
    /// The named logs, ascending by id.
    pub(in super::super) logs: Vec<LogImage>,
    /// The producers, ascending by id.
    pub(in super::super) producers: Vec<ProducerImage>,
}

impl StateSnapshot {
    pub(in super::super) fn of(group_id: u32, tables: &Tables) -> Self {
        let (configuration_index, members) = tables.members.applied();
        let mut snapshot = Self {
            group_id,
            last: tables.applied.id,
            header_crc: tables.applied.header_crc,
            append_time_us: tables.applied.append_time_us,
            configuration_index,
            members: members.clone(),
            mark_doublings: tables.catalogue.mark_doublings(),
            logs: tables.catalogue.images(),
            producers: tables.producers.images(),
        };
        if is_planted(Mutant::SnapshotWithoutProducers) {
            snapshot.producers.clear();
        }
        if is_planted(Mutant::SnapshotWithoutCarried) {
            for log in &mut snapshot.logs {
                log.carried.clear();
            }
        }
        if is_planted(Mutant::SnapshotWithoutTimes) {
            for log in &mut snapshot.logs {
                log.last_time_us = log.last.map_or(0, |last| last.time_us);
            }
        }
        if is_planted(Mutant::SnapshotWithoutFences) {
            for log in &mut snapshot.logs {
                log.rules = LogRules::default();
            }
        }
        if is_planted(Mutant::SnapshotWithoutMembers) {
            let first = members.members.first().cloned();
            snapshot.members.members = first.into_iter().collect();
        }
        snapshot
    }

    /// The configuration of its members; empty only in a snapshot that does not [decode](Self::decode).
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        configuration_of(&self.members).unwrap_or_default()
    }

    /// What the core is told of it.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last: self.last,
            configuration_index: self.configuration_index,
            configuration: self.configuration(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u64(SNAPSHOT_MAGIC);
        writer.u32(SNAPSHOT_VERSION);
        writer.u32(self.group_id);
        writer.u64(self.last.term);
        writer.u64(self.last.index);
        writer.u32(self.header_crc);
        writer.u32(self.mark_doublings);
        writer.u64(self.append_time_us);
        writer.u64(self.configuration_index);
        let members = self.members.encode();
        writer.u32(members.len() as u32);
        writer.bytes(&members);
        writer.u32(self.logs.len() as u32);
        for log in &self.logs {
            encode_log(log, &mut writer);
        }
        writer.u32(self.producers.len() as u32);
        for producer in &self.producers {
            encode_producer(producer, &mut writer);
        }
        let crc = checksum(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// How many bytes [`Self::encode`] makes.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        const HEAD: usize = 8 + 4 + 4 + 16 + 8 + 16 + 4 + 4 + 4 + 4;
        let logs = self.logs.iter();
        let logs: usize = logs
            .map(|log| 131 + log.name.len() + 32 * log.marks.len() + 40 * log.carried.len())
            .sum();
        let producers = self.producers.iter();
        let producers: usize = producers
            .map(|producer| 32 + 28 * producer.answers.len())
            .sum();
        (HEAD + self.members.encode().len() + logs + producers) as u64
    }

    /// The snapshot of these bytes. Its memory is bounded by theirs.
    ///
    /// # Errors
    /// [`DecodeError`]: another magic or version, a wrong checksum, and values that contradict each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = &bytes[..bytes.len().saturating_sub(4)];
        let mut fields = Reader::new(WHAT, body);
        let magic = fields.u64()?;
        if magic != SNAPSHOT_MAGIC {
            return Err(DecodeError::Magic {
                what: WHAT,
                expected: SNAPSHOT_MAGIC,
                found: magic,
            });
        }
        let version = fields.u32()?;
        if !(SNAPSHOT_VERSION_MIN..=SNAPSHOT_VERSION).contains(&version) {
            let (expected, found) = (SNAPSHOT_VERSION.into(), version.into());
            return Err(DecodeError::Version {
                what: WHAT,
                expected,
                found,
            });
        }
        let expected = Reader::new(WHAT, &bytes[body.len()..]).u32()?;
        let found = checksum(body);
        if expected != found {
            return Err(DecodeError::Checksum {
                what: WHAT,
                expected,
                found,
            });
        }
        let group_id = fields.u32()?;
        let last = EntryId {
            term: fields.u64()?,
            index: fields.u64()?,
        };
        let header_crc = fields.u32()?;
        let mark_doublings = fields.u32()?;
        let append_time_us = fields.u64()?;
        let configuration_index = fields.u64()?;
        let members_bytes = fields.u32()? as usize;
        let members = Members::decode(fields.bytes(members_bytes)?)?;
        let mut snapshot = Self {
            group_id,
            last,
            header_crc,
            append_time_us,
            configuration_index,
            members,
            mark_doublings,
            logs: Vec::new(),
            producers: Vec::new(),
        };
        snapshot.check_head()?;
        // Each takes some bytes of what is there, so their number is bounded by it.
        for _ in 0..fields.u32()? {
            let log = decode_log(&mut fields, version)?;
            snapshot.check_log(&log)?;
            snapshot.logs.push(log);
        }
        snapshot.check_names()?;
        for _ in 0..fields.u32()? {
            let producer = decode_producer(&mut fields)?;
            snapshot.check_producer(&producer)?;
            snapshot.producers.push(producer);
        }
        fields.finish()?;
        Ok(snapshot)
    }

    fn check_head(&self) -> Result<(), DecodeError> {
        if self.mark_doublings > DOUBLINGS_MAX {
            let found = self.mark_doublings.into();
            return Err(invalid("state snapshot's distance between marks", found));
        }
        let is_configuration = configuration_of(&self.members).is_ok_and(|c| !c.voters.is_empty());
        if self.last.index == 0 || self.last.index > u64::MAX / 2 || self.last.term == 0 {
            return Err(invalid("state snapshot's last entry", self.last.index));
        }
        if !is_configuration || self.configuration_index > self.last.index {
            return Err(invalid(
                "state snapshot's members",
                self.configuration_index,
            ));
        }
        Ok(())
    }

    fn check_log(&self, log: &LogImage) -> Result<(), DecodeError> {
        let ascends = self.logs.last().is_none_or(|last| last.log_id < log.log_id);
        let (marks, carried) = (log.marks.clone(), log.carried.clone());
        let has_index =
            SeqIndex::from_parts(marks, log.last, carried, self.mark_doublings).is_some();
        let carried_fits = log.carried.iter().all(|it| {
            it.index <= self.last.index
                && it.next_seq <= log.next_seq
                && it.time_us <= log.last_time_us
                && it.bytes <= log.bytes
        });
        let batch_fits = log
            .last
            .is_none_or(|last| last.seq < log.next_seq && last.index <= self.last.index);
        let time_fits =
            |mark: &Mark| mark.time_us <= log.last_time_us && mark.bytes_before <= log.bytes;
        if !ascends
            || !has_index
            || !batch_fits
            || !carried_fits
            || !log.last.iter().all(time_fits)
            || log.bytes > u64::MAX / 2
            || log.last_time_us > self.append_time_us
            || log.log_id == 0
            || log.log_id > self.last.index
            || log.first_seq > log.next_seq
            || log.fence_seq > log.next_seq
            || log.next_seq > u64::MAX / 2
            || log_name_error(&log.name).is_some()
        {
            return Err(invalid("state snapshot's log", log.log_id));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), DecodeError> {
        let mut names: Vec<&str> = self.logs.iter().map(|log| &*log.name).collect();
        names.sort_unstable();
        match names.windows(2).position(|pair| pair[0] == pair[1]) {
            Some(position) => Err(invalid("state snapshot's log names", position as u64)),
            None => Ok(()),
        }
    }

    fn check_producer(&self, producer: &ProducerImage) -> Result<(), DecodeError> {
        let before = self.producers.last().map_or(0, |last| last.producer_id);
        let answers = &producer.answers;
        // Batches that were appended together have one index.
        let ascend = answers
            .windows(2)
            .all(|pair| pair[0].index <= pair[1].index);
        let last_index = answers.last().map_or(0, |answer| answer.index);
        if producer.producer_id <= before
            || !ascend
            || last_index > producer.applied_index
            || producer.applied_index < producer.producer_id
            || producer.applied_index > self.last.index
            || producer.answers_from > u64::MAX / 2
        {
            return Err(invalid("state snapshot's producer", producer.producer_id));
        }
        Ok(())
    }
}

fn invalid(what: &'static str, found: u64) -> DecodeError {
    DecodeError::Invalid { what, found }
}

fn encode_log(log: &LogImage, writer: &mut Writer<'_>) {
    let none = Mark {
        seq: 0,
        index: 0,
        time_us: 0,
        bytes_before: 0,
    };
    writer.u64(log.log_id);
    writer.text(&log.name);
    writer.u64(log.first_seq);
    writer.u64(log.next_seq);
    writer.u64(log.last_time_us);
    writer.u64(log.bytes);
    writer.u64(log.rules.fence);
    writer.u64(log.fence_seq);
    writer.u8(u8::from(log.rules.is_closed));
    writer.u64(log.rules.retention.bytes);
    writer.u64(log.rules.retention.age_us);
    writer.u64(log.rules.quota.bytes_per_second);
    writer.u64(log.rules.quota.records_per_second);
    encode_mark(&log.last.unwrap_or(none), writer);
    writer.u32(log.marks.len() as u32);
    for mark in &log.marks {
        encode_mark(mark, writer);
    }
    writer.u32(log.carried.len() as u32);
    for carried in &log.carried {
        writer.u64(carried.seq);
        writer.u64(carried.next_seq);
        writer.u64(carried.index);
        writer.u64(carried.time_us);
        writer.u64(carried.bytes);
    }
}

fn encode_mark(mark: &Mark, writer: &mut Writer<'_>) {
    writer.u64(mark.seq);
    writer.u64(mark.index);
    writer.u64(mark.time_us);
    writer.u64(mark.bytes_before);
}

fn decode_mark(fields: &mut Reader<'_>, version: u32) -> Result<Mark, DecodeError> {
    let (seq, index) = (fields.u64()?, fields.u64()?);
    let (time_us, bytes_before) = match version {
        SNAPSHOT_VERSION_MIN => (0, 0),
        _ => (fields.u64()?, fields.u64()?),
    };
    Ok(Mark {
        seq,
        index,
        time_us,
        bytes_before,
    })
}

fn decode_log(fields: &mut Reader<'_>, version: u32) -> Result<LogImage, DecodeError> {
    let log_id = fields.u64()?;
    let name = fields.text()?.to_owned();
    let first_seq = fields.u64()?;
    let next_seq = fields.u64()?;
    let (last_time_us, bytes) = match version {
        SNAPSHOT_VERSION_MIN => (0, 0),
        _ => (fields.u64()?, fields.u64()?),
    };
    let (rules, fence_seq) = match version {
        SNAPSHOT_VERSION_MIN => (LogRules::default(), 0),
        _ => {
            let (fence, fence_seq) = (fields.u64()?, fields.u64()?);
            let rules = LogRules {
                fence,
                is_closed: fields.bool("state snapshot's log closed")?,
                retention: Retention {
                    bytes: fields.u64()?,
                    age_us: fields.u64()?,
                },
                quota: Quota {
                    bytes_per_second: fields.u64()?,
                    records_per_second: fields.u64()?,
                },
                ..LogRules::default()
            };
            (rules, fence_seq)
        }
    };
    let last = decode_mark(fields, version)?;
    let mut marks = Vec::new();
    for _ in 0..fields.u32()? {
        marks.push(decode_mark(fields, version)?);
    }
    let mut carried = Vec::new();
    let count = match version {
        ..SNAPSHOT_VERSION_CARRIED => 0,
        _ => fields.u32()?,
    };
    for _ in 0..count {
        carried.push(Carried {
            seq: fields.u64()?,
            next_seq: fields.u64()?,
            index: fields.u64()?,
            time_us: fields.u64()?,
            bytes: fields.u64()?,
        });
    }
    Ok(LogImage {
        log_id,
        name,
        first_seq,
        next_seq,
        last_time_us,
        bytes,
        rules,
        fence_seq,
        marks,
        carried,
        last: (last.index != 0).then_some(last),
    })
}

fn encode_producer(producer: &ProducerImage, writer: &mut Writer<'_>) {
    writer.u64(producer.producer_id);
    writer.u32(producer.epoch);
    writer.u64(producer.applied_index);
    writer.u64(producer.answers_from);
    writer.u32(producer.answers.len() as u32);
    for answer in &producer.answers {
        writer.u64(answer.index);
        writer.u64(answer.first_seq);
        writer.u32(answer.record_count);
        writer.u64(answer.log_id);
    }
}

fn decode_producer(fields: &mut Reader<'_>) -> Result<ProducerImage, DecodeError> {
    let producer_id = fields.u64()?;
    let epoch = fields.u32()?;
    let applied_index = fields.u64()?;
    let answers_from = fields.u64()?;
    let mut answers = Vec::new();
    for _ in 0..fields.u32()? {
        answers.push(FirstAnswer {
            index: fields.u64()?,
            first_seq: fields.u64()?,
            record_count: fields.u32()?,
            log_id: fields.u64()?,
        });
    }
    Ok(ProducerImage {
        producer_id,
        epoch,
        applied_index,
        answers_from,
        answers,
    })
}
