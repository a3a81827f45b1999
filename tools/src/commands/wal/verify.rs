//! `drave wal verify`: reads and checks everything.

use std::time::Instant;

use drave_wal::inspect::{Inspector, Item, Slot, WalkOptions};
use drave_wal::{FileName, GroupKind};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::row::DamageRow;
use super::{Findings, Rows, inspector, read_failed};
use crate::cli::wal::WalVerifyArgs;
use crate::errors::CliError;
use crate::output::thousands;

/// What was read and found; the JSON keys are a promise.
#[derive(Debug, Default, Serialize)]
struct Totals {
    r#type: &'static str,
    whole: bool,
    segments: u64,
    groups: u64,
    batches: u64,
    bytes: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    damaged_places: u64,
    unfinished_file: Option<String>,
    unfinished_offset: Option<u64>,
    unfinished_bytes: Option<u64>,
    meta_slots_valid: u64,
    seconds: f64,
    gib_per_second: f64,
}

impl Totals {
    fn line(&self) -> String {
        let entries = match (self.first_index, self.last_index) {
            (Some(first), Some(last)) => format!("entries {first} to {last}"),
            _ => "no entries".to_owned(),
        };
        let mut text = format!(
            "{}: {entries}; {} segments, {} groups, {} batches, {} bytes in {:.2} s, {:.2} GiB/s\n",
            if self.whole { "whole" } else { "damaged" },
            thousands(self.segments),
            thousands(self.groups),
            thousands(self.batches),
            thousands(self.bytes),
            self.seconds,
            self.gib_per_second
        );
        if let (Some(file), Some(offset), Some(bytes)) = (
            &self.unfinished_file,
            self.unfinished_offset,
            self.unfinished_bytes,
        ) {
            text.push_str(&format!(
                "an unfinished write at the end, {file} at offset {offset}, {bytes} bytes: under way, or cut by a \
                 crash; it was never acknowledged\n"
            ));
        }
        if self.meta_slots_valid == 1 {
            text.push_str("one slot of meta is not valid; the other one counts, and the next start heals it\n");
        }
        text
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError`], also when something is damaged.
pub fn verify(arguments: &WalVerifyArgs) -> Result<(), CliError> {
    let (inspector, directory) = inspector(&arguments.wal.dir)?;
    let mut findings = Findings::default();
    let mut rows = Rows::begin(arguments.wal.format, "")?;
    let mut totals = Totals {
        r#type: "summary",
        ..Totals::default()
    };
    let bar = progress(&inspector)?;
    let started = Instant::now();
    let mut end_index = None;
    for item in inspector.walk(WalkOptions::default()) {
        match item.map_err(|error| read_failed(&error))? {
            Item::Segment(segment) => {
                totals.segments += 1;
                totals.first_index.get_or_insert(segment.base_index);
            }
            Item::Group(group) => {
                totals.groups += 1;
                totals.bytes += group.bytes;
                if group.is_whole && group.kind == GroupKind::Data {
                    totals.batches += u64::from(group.batch_count);
                }
                bar.inc(group.bytes);
            }
            Item::Damage(damage) => {
                findings.damaged(&damage);
                let row = DamageRow::new(&damage);
                bar.suspend(|| rows.row(&row, &row.line()))?;
            }
            Item::End(end) => {
                end_index = Some(end.hi);
                if let Some(torn) = end.torn {
                    totals.unfinished_file = Some(torn.segment.to_string());
                    totals.unfinished_offset = Some(torn.offset);
                    totals.unfinished_bytes = Some(torn.bytes);
                }
            }
            Item::Refused(error) => findings.refused = Some(error.to_string()),
            _ => {}
        }
    }
    bar.finish_and_clear();
    totals.seconds = started.elapsed().as_secs_f64();
    let gib = totals.bytes as f64 / f64::from(1 << 30);
    totals.gib_per_second = gib / totals.seconds.max(1e-9);
    totals.last_index = end_index.and_then(|end| {
        let first = totals.first_index?;
        (end > first).then(|| end - 1)
    });
    if totals.last_index.is_none() {
        totals.first_index = None;
    }
    totals.damaged_places = findings.damage;
    totals.whole = findings.damage == 0 && findings.refused.is_none();
    let slots = inspector.meta().map_err(|error| read_failed(&error))?;
    let is_valid = |slot: &&Slot| matches!(slot, Slot::Valid(_));
    totals.meta_slots_valid = slots.map_or(0, |slots| slots.iter().filter(is_valid).count() as u64);
    rows.row(&totals, &totals.line())?;
    rows.finish()?;
    findings.verdict(&directory)
}

/// A bar over the segments' bytes on a terminal; nothing elsewhere.
fn progress(inspector: &Inspector) -> Result<ProgressBar, CliError> {
    let files = inspector.files().map_err(|error| read_failed(&error))?;
    let segments = files
        .iter()
        .filter(|(file, _)| matches!(file, FileName::Segment(_)));
    let bytes = segments.map(|(_, bytes)| bytes).sum();
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
    Ok(bar)
}
