//! `drave wal ls`: segments, spares and the meta record.

use drave_wal::FileName;
use drave_wal::inspect::{Item, SegmentEnd, Slot, WalkOptions, newest};
use serde::Serialize;

use super::row::DamageRow;
use super::{Findings, Rows, inspector, read_failed};
use crate::cli::wal::WalListArgs;
use crate::errors::CliError;

const HEADER: &str = "   SEQ      FIRST       LAST       USED      BYTES  GROUPS STATE     FILE\n";

#[derive(Debug, Serialize)]
struct SegmentRow {
    r#type: &'static str,
    segment_seq: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    used_bytes: u64,
    bytes: u64,
    groups: Option<u64>,
    sealed: bool,
    state: &'static str,
    file: String,
}

impl SegmentRow {
    fn of_end(end: &SegmentEnd, bytes: u64) -> Self {
        let has_entries = end.hi > end.lo;
        let state = if end.is_damaged {
            "damaged"
        } else if end.torn.is_some() {
            "unfinished"
        } else if end.is_sealed {
            "sealed"
        } else {
            "open"
        };
        Self {
            r#type: "segment",
            segment_seq: end.name.segment_seq,
            first_index: has_entries.then_some(end.lo),
            last_index: has_entries.then(|| end.hi - 1),
            used_bytes: end.used_bytes,
            bytes,
            groups: Some(end.groups),
            sealed: end.is_sealed,
            state,
            file: end.name.to_string(),
        }
    }

    fn unused(state: &'static str, seq: u64, bytes: u64, file: String) -> Self {
        Self {
            r#type: "file",
            segment_seq: seq,
            first_index: None,
            last_index: None,
            used_bytes: 0,
            bytes,
            groups: None,
            sealed: false,
            state,
            file,
        }
    }

    fn line(&self) -> String {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        format!(
            "{:>6} {:>10} {:>10} {:>10} {:>10} {:>7} {:<9} {}",
            self.segment_seq,
            number(self.first_index),
            number(self.last_index),
            self.used_bytes,
            self.bytes,
            number(self.groups),
            self.state,
            self.file
        )
    }
}

#[derive(Debug, Serialize)]
struct MetaRow {
    r#type: &'static str,
    file: &'static str,
    slots: [String; 2],
    generation: Option<u64>,
    first_segment_seq: Option<u64>,
    last_segment_seq: Option<u64>,
    store_id: Option<String>,
}

impl MetaRow {
    fn new(slots: &[Slot; 2]) -> Self {
        let meta = newest(slots);
        let state = |slot: &Slot| match slot {
            Slot::Valid(meta) => format!("generation {}", meta.generation),
            Slot::Damaged(error) => format!("not valid: {error}"),
            Slot::Version(found) => format!("version {found}"),
        };
        Self {
            r#type: "meta",
            file: "meta",
            slots: [state(&slots[0]), state(&slots[1])],
            generation: meta.map(|meta| meta.generation),
            first_segment_seq: meta.map(|meta| meta.first_segment_seq),
            last_segment_seq: meta.map(|meta| meta.last_segment_seq),
            store_id: meta.map(|meta| format!("{:032x}", meta.store_id)),
        }
    }

    fn line(&self) -> String {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        format!(
            "meta: slots {}; {}; segments {} to {}; store {}",
            self.slots[0],
            self.slots[1],
            number(self.first_segment_seq),
            number(self.last_segment_seq),
            self.store_id.as_deref().unwrap_or("-"),
        )
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`], also when something is damaged.
pub fn ls(arguments: &WalListArgs) -> Result<(), CliError> {
    let (inspector, directory) = inspector(&arguments.wal.dir)?;
    let files = inspector.files().map_err(|error| read_failed(&error))?;
    let bytes_of = |file: FileName| {
        let found = files.iter().find(|(name, _)| *name == file);
        found.map_or(0, |(_, bytes)| *bytes)
    };
    let mut findings = Findings::default();
    let mut rows = Rows::begin(arguments.wal.format, HEADER)?;
    let options = WalkOptions {
        trust_seals: true,
        ..WalkOptions::default()
    };
    let mut bytes = 0;
    for item in inspector.walk(options) {
        match item.map_err(|error| read_failed(&error))? {
            Item::Segment(segment) => bytes = segment.bytes,
            Item::End(end) => {
                let row = SegmentRow::of_end(&end, bytes);
                rows.row(&row, &row.line())?;
            }
            Item::Damage(damage) => {
                findings.damaged(&damage);
                let row = DamageRow::new(&damage);
                rows.row(&row, &row.line())?;
            }
            Item::Unentered(name) => {
                let (seq, file) = (name.segment_seq, FileName::Segment(name));
                let row = SegmentRow::unused("made", seq, bytes_of(file), file.to_string());
                rows.row(&row, &row.line())?;
            }
            Item::Refused(error) => findings.refused = Some(error.to_string()),
            _ => {}
        }
    }
    for (file, bytes) in &files {
        if let FileName::Spare(number) = file {
            let row = SegmentRow::unused("spare", *number, *bytes, file.to_string());
            rows.row(&row, &row.line())?;
        }
    }
    if let Some(slots) = inspector.meta().map_err(|error| read_failed(&error))? {
        let row = MetaRow::new(&slots);
        rows.row(&row, &row.line())?;
    }
    rows.finish()?;
    findings.verdict(&directory)
}
