//! The rows of all commands; the JSON keys are a promise.

use std::time::{Duration, UNIX_EPOCH};

use drave_batch::{DecodeError, EntryKind};
use drave_wal::inspect::{BatchState, BatchView, Damage, GroupView};
use drave_wal::{CorruptionKind, GroupKind};
use serde::Serialize;

/// A batch.
#[derive(Debug, Serialize)]
pub(super) struct BatchRow {
    r#type: &'static str,
    file: String,
    offset: u64,
    index: u64,
    term: Option<u64>,
    kind: Option<&'static str>,
    log_id: Option<u64>,
    seq: Option<u64>,
    count: Option<u32>,
    bytes: usize,
    checksum: &'static str,
    why: Option<String>,
    append_time_us: Option<u64>,
}

/// The line above batches.
pub(super) const BATCH_HEADER: &str = "     INDEX   TERM KIND              LOG        SEQ  COUNT    BYTES \
CHECKSUM TIME                         AT\n";

impl BatchRow {
    pub(super) fn new(group: &GroupView, batch: &BatchView<'_>) -> Self {
        let header = batch.header.as_ref();
        let (checksum, why) = match &batch.state {
            BatchState::Intact => ("ok", None),
            BatchState::Header(error) => ("header", Some(error.to_string())),
            BatchState::Body(error) => ("body", Some(error.to_string())),
        };
        Self {
            r#type: "batch",
            file: group.segment.to_string(),
            offset: batch.offset,
            index: batch.index,
            term: header.map(|header| header.term),
            kind: header.map(|header| kind_name(header.kind)),
            log_id: header.map(|header| header.log_id),
            seq: header.map(|header| header.first_seq),
            count: header.map(|header| header.record_count),
            bytes: batch.encoded.len(),
            checksum,
            why,
            append_time_us: header.map(|header| header.append_time_us),
        }
    }

    pub(super) fn line(&self) -> String {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        format!(
            "{:>10} {:>6} {:<13} {:>7} {:>10} {:>6} {:>8} {:<8} {:<28} {}:{}{}",
            self.index,
            number(self.term),
            self.kind.unwrap_or("-"),
            number(self.log_id),
            number(self.seq),
            number(self.count.map(u64::from)),
            self.bytes,
            self.checksum,
            self.append_time_us.map_or("-".to_owned(), time),
            self.file,
            self.offset,
            self.why
                .as_ref()
                .map_or(String::new(), |why| format!("  {why}")),
        )
    }
}

/// A group that takes entries away.
#[derive(Debug, Serialize)]
pub(super) struct CutRow {
    r#type: &'static str,
    file: String,
    offset: u64,
    index: u64,
    term: u64,
}

impl CutRow {
    /// The row of a truncation or reset; nothing for other groups.
    pub(super) fn new(group: &GroupView) -> Option<Self> {
        let r#type = match group.kind {
            GroupKind::Truncate => "truncate",
            GroupKind::Reset => "reset",
            _ => return None,
        };
        Some(Self {
            r#type,
            file: group.segment.to_string(),
            offset: group.offset,
            index: group.first_index,
            term: group.term,
        })
    }

    pub(super) fn line(&self) -> String {
        let what = match self.r#type {
            "truncate" => "entries from here on are gone",
            _ => "every entry is gone; the log goes on here",
        };
        let Self {
            index,
            file,
            offset,
            ..
        } = self;
        format!("{index:>10} {what}  {file}:{offset}")
    }
}

/// Damage.
#[derive(Debug, Serialize)]
pub(super) struct DamageRow {
    r#type: &'static str,
    file: String,
    offset: u64,
    bytes: u64,
    first_index: u64,
    end_index: Option<u64>,
    what: String,
    at: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
    detail: Option<String>,
}

impl DamageRow {
    pub(super) fn new(damage: &Damage) -> Self {
        let corruption = &damage.corruption;
        let (expected, found) = match &damage.detail {
            Some((_, error)) => numbers(error),
            None => kind_numbers(&corruption.kind),
        };
        Self {
            r#type: "damage",
            file: corruption.file.to_string(),
            offset: corruption.offset,
            bytes: damage.bytes,
            first_index: damage.lo,
            end_index: damage.hi,
            what: corruption.kind.to_string(),
            at: damage.detail.as_ref().map(|(at, _)| *at),
            expected,
            found,
            detail: damage.detail.as_ref().map(|(_, error)| error.to_string()),
        }
    }

    pub(super) fn line(&self) -> String {
        let entries = match self.end_index {
            Some(end) if end <= self.first_index => "no entry is lost with it".to_owned(),
            Some(end) => format!("entries {} to {}", self.first_index, end - 1),
            None => format!("entries from {} on", self.first_index),
        };
        let Self {
            file,
            offset,
            bytes,
            ..
        } = self;
        let mut text = format!("DAMAGED {file} at offset {offset}, {bytes} bytes: {entries}\n");
        text.push_str(&format!("        {}\n", self.what));
        if let (Some(at), Some(detail)) = (self.at, &self.detail) {
            text.push_str(&format!("        at offset {at}: {detail}\n"));
        } else if let (Some(expected), Some(found)) = (&self.expected, &self.found) {
            text.push_str(&format!("        expected {expected}, found {found}\n"));
        }
        text
    }
}

/// Expected and found of a decoder's error.
fn numbers(error: &DecodeError) -> (Option<String>, Option<String>) {
    let (expected, found) = match error {
        DecodeError::Truncated {
            expected, found, ..
        } => (format!("{expected} bytes"), format!("{found} bytes")),
        DecodeError::Checksum {
            expected, found, ..
        } => (format!("{expected:#010x}"), format!("{found:#010x}")),
        DecodeError::Magic {
            expected, found, ..
        } => (format!("{expected:#x}"), format!("{found:#x}")),
        DecodeError::Version {
            expected, found, ..
        } => (expected.to_string(), found.to_string()),
        DecodeError::TooLarge { limit, found, .. } => {
            (format!("at most {limit}"), found.to_string())
        }
        DecodeError::Invalid { found, .. } => return (None, Some(format!("{found:#x}"))),
        _ => return (None, None),
    };
    (Some(expected), Some(found))
}

/// Expected and found of damage that is no matter of single bytes.
fn kind_numbers(kind: &CorruptionKind) -> (Option<String>, Option<String>) {
    let (expected, found) = match kind {
        CorruptionKind::MetaOld { expected, found } => (
            format!("generation {expected}"),
            format!("generation {found}"),
        ),
        CorruptionKind::SegmentMissing { segment_seq } => {
            (format!("segment {segment_seq}"), "none".to_owned())
        }
        CorruptionKind::SegmentBytes { expected, found } => {
            (format!("{expected} bytes"), format!("{found} bytes"))
        }
        _ => return (None, None),
    };
    (Some(expected), Some(found))
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Noop => "noop",
        EntryKind::Data => "data",
        EntryKind::Configuration => "configuration",
        EntryKind::LogCreate => "log-create",
        EntryKind::ProducerRegister => "producer",
        EntryKind::LogTrim => "log-trim",
        EntryKind::LogChange => "log-change",
        EntryKind::Together => "together",
        EntryKind::CarryOver => "carry-over",
        _ => "other",
    }
}

fn time(us: u64) -> String {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(us))
        // Years beyond 9999 cannot be written in this form.
        .filter(|_| us < 253_402_300_800_000_000)
        .map_or_else(
            || format!("{us} us"),
            |time| humantime::format_rfc3339_micros(time).to_string(),
        )
}
