//! `drave wal repair`: what could be done about a damaged log, and on explicit demand ending it there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use drave::node::{CutPlan, OtherVoters};
use drave_batch::wire::ErrorCode;
use drave_wal::inspect::{Inspector, newest};
use drave_wal::{FileName, Missing, OpenError, Options, Salvage};
use serde::Serialize;

use super::{Findings, Rows, inspector, read_failed};
use crate::cli::wal::WalRepairArgs;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::node_side;

/// A range of entries that cannot be read.
#[derive(Debug, Serialize)]
struct MissingRow {
    r#type: &'static str,
    first_index: u64,
    end_index: Option<u64>,
}

/// What cutting would do, or did; the JSON keys are a promise.
#[derive(Debug, Serialize)]
struct CutRow {
    r#type: &'static str,
    next_index: u64,
    entries_missing: Option<u64>,
    entries_dropped: u64,
    entries_exported: u64,
    segments_written: u64,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`]: the log is in use, cannot be repaired, or is damaged and was not to be cut.
pub fn repair(arguments: &WalRepairArgs) -> Result<(), CliError> {
    let (inspector, directory) = inspector(&arguments.wal.dir)?;
    let options = options(&inspector, &directory)?;
    let salvage =
        Salvage::open(&directory, options).map_err(|error| refused(&error, &directory))?;
    let mut rows = Rows::begin(arguments.wal.format, "")?;
    if salvage.damage().is_empty() {
        let line = "whole: there is nothing to repair";
        rows.row(&cut_row("whole", salvage.last_index() + 1), line)?;
        return rows.finish();
    }
    let mut findings = Findings::default();
    for corruption in salvage.damage() {
        findings.damage += 1;
        findings.first.get_or_insert_with(|| corruption.to_string());
    }
    print_missing(&mut rows, salvage.missing())?;
    let next_index = next_index(&salvage);
    let intact = intact_after(&salvage, next_index)?;
    match &arguments.export {
        Some(export) if arguments.cut_at_damage => {
            let plan = node_side::plan_cut(&directory, &salvage)?;
            if !salvage.is_whole() && !arguments.force_with_other_voters {
                refuse_beside(&directory, plan.as_ref())?;
            }
            export_entries(&salvage, &intact, export)?;
            let value = plan.as_ref().map(|plan| plan.value.as_slice());
            cut(salvage, value, intact.len() as u64, &mut rows)?;
            rows.finish()
        }
        _ => {
            let row = CutRow {
                entries_missing: count(salvage.missing()),
                entries_dropped: intact.len() as u64,
                ..cut_row("plan", next_index)
            };
            rows.row(&row, &plan(&salvage, next_index, intact.len()))?;
            rows.finish()?;
            findings.verdict(&directory)
        }
    }
}

fn cut_row(name: &'static str, next_index: u64) -> CutRow {
    CutRow {
        r#type: name,
        next_index,
        entries_missing: Some(0),
        entries_dropped: 0,
        entries_exported: 0,
        segments_written: 0,
    }
}

/// The log's own store and size of segments.
fn options(inspector: &Inspector, directory: &Path) -> Result<Options, CliError> {
    let slots = inspector.meta().map_err(|error| read_failed(&error))?;
    let meta = slots.as_ref().and_then(newest);
    let Some(meta) = meta else {
        return Err(unrepairable(
            directory,
            "no slot of the meta record can be read: term and vote are unknown".to_owned(),
        ));
    };
    let files = inspector.files().map_err(|error| read_failed(&error))?;
    let segments = files
        .iter()
        .filter(|(file, _)| matches!(file, FileName::Segment(_)));
    let segment_bytes = segments.map(|(_, bytes)| *bytes).max();
    let usual = Options::default();
    Ok(Options {
        store_id: meta.store_id,
        segment_bytes: segment_bytes.unwrap_or(usual.segment_bytes),
        ..usual
    })
}

fn unrepairable(directory: &Path, why: String) -> CliError {
    CliError::new(Exit::Corruption, "the log cannot be repaired")
        .with("dir", directory.display())
        .why(why)
        .effect("nothing was changed")
        .next("replace the node: `drave member replace`")
}

fn refused(error: &OpenError, directory: &Path) -> CliError {
    match error {
        OpenError::Locked { .. } => {
            CliError::new(Exit::Precondition, "the log is in use: a node runs on it")
                .with("dir", directory.display())
                .why(error.to_string())
                .effect("nothing was changed")
                .next("let the node repair itself from the others, or stop it first")
        }
        OpenError::Corrupt(corruption) => unrepairable(directory, corruption.to_string()),
        OpenError::Store { .. } | OpenError::Version { .. } => {
            CliError::new(Exit::Mismatch, "the log cannot be read")
                .with("dir", directory.display())
                .why(error.to_string())
                .effect("nothing was changed")
                .next("use the version of drave that wrote it; check which store the files are of")
        }
        _ => read_failed(error),
    }
}

fn print_missing<W: Write>(rows: &mut Rows<W>, missing: &[Missing]) -> Result<(), CliError> {
    for range in missing {
        let row = MissingRow {
            r#type: "missing",
            first_index: range.lo,
            end_index: (range.hi < u64::MAX).then_some(range.hi),
        };
        let line = match row.end_index {
            Some(end) => format!("missing: entries {} to {}", range.lo, end - 1),
            None => format!(
                "missing: entries from {} on, nobody knows how many",
                range.lo
            ),
        };
        rows.row(&row, &line)?;
    }
    Ok(())
}

/// How many entries are missing, if that is known.
fn count(missing: &[Missing]) -> Option<u64> {
    let known = missing.iter().all(|range| range.hi < u64::MAX);
    known.then(|| missing.iter().map(|range| range.hi - range.lo).sum())
}

/// Where the log would go on after a cut.
fn next_index(salvage: &Salvage) -> u64 {
    let first = salvage.missing().first();
    first.map_or(salvage.last_index() + 1, |first| first.lo)
}

/// The entries from `lo` on that can be read, each read now.
fn intact_after(salvage: &Salvage, lo: u64) -> Result<Vec<u64>, CliError> {
    let mut intact = Vec::new();
    for index in lo..=salvage.last_index() {
        if salvage.read(index).map_err(|error| lost(&error))?.is_some() {
            intact.push(index);
        }
    }
    Ok(intact)
}

fn lost(error: &drave_wal::ReadError) -> CliError {
    CliError::new(Exit::Failure, "an entry cannot be read")
        .why(error.to_string())
        .effect("nothing was changed")
        .next("check the disk")
}

fn plan(salvage: &Salvage, next_index: u64, intact: usize) -> String {
    if salvage.is_whole() {
        return "no entry is lost: --cut-at-damage would write the damaged files anew and drop nothing"
            .to_owned();
    }
    let missing = count(salvage.missing());
    let missing = missing.map_or("an unknown number of".to_owned(), |count| count.to_string());
    format!(
        "with other replicas: start the node, it fetches what is missing from them\n\
         without: --cut-at-damage --export FILE would end the log before entry {next_index}: {missing} entries stay \
         lost, and {intact} that can be read come after them and would go to FILE"
    )
}

/// Writes the entries to a new file, durably.
fn export_entries(salvage: &Salvage, intact: &[u64], export: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| {
        CliError::new(Exit::Precondition, "the entries cannot be exported")
            .with("file", export.display())
            .why(error.to_string())
            .effect("the log was not changed")
            .next("give the name of a file that does not exist, where there is room")
    };
    let file = OpenOptions::new().write(true).create_new(true).open(export);
    let mut out = BufWriter::new(file.map_err(failed)?);
    for index in intact {
        let entry = salvage.read(*index).map_err(|error| lost(&error))?;
        out.write_all(&entry.unwrap_or_default()).map_err(failed)?;
    }
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    let parent = export.parent().filter(|path| !path.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    parent.sync_all().map_err(failed)
}

/// A log is not cut by mistake where other nodes count on it.
fn refuse_beside(directory: &Path, plan: Option<&CutPlan>) -> Result<(), CliError> {
    let why = match plan.map(|plan| &plan.other_voters) {
        None | Some(OtherVoters::None) => return Ok(()),
        Some(OtherVoters::Known(voters)) => format!(
            "{}: the nodes {voters:?} vote, too, and may count on what would be given up",
            ErrorCode::LogCut
        ),
        Some(OtherVoters::Unknown) => format!(
            "{}: it cannot be found out who else votes, and may count on what would be given up",
            ErrorCode::LogCut
        ),
    };
    Err(
        CliError::new(Exit::Precondition, "the log is one of several replicas")
            .with("dir", directory.display())
            .why(why)
            .effect("nothing was changed")
            .next(
                "start the node: it fetches what is missing from the others; or replace it: `drave member replace`. \
                 --force-with-other-voters cuts the log all the same, and the node will never start again",
            ),
    )
}

fn cut<W: Write>(
    salvage: Salvage,
    value: Option<&[u8]>,
    exported: u64,
    rows: &mut Rows<W>,
) -> Result<(), CliError> {
    let report = salvage.cut(value).map_err(|error| {
        CliError::new(Exit::Failure, "the log was not cut")
            .why(error.to_string())
            .effect("the log is as damaged as before at most; what was exported stands")
            .next("make room, check the disk, and run it again with another file to export to")
    })?;
    let row = CutRow {
        r#type: "cut",
        next_index: report.next_index,
        entries_missing: count(&report.missing),
        entries_dropped: report.entries_dropped,
        entries_exported: exported,
        segments_written: report.repair.segments_written,
    };
    let lost = row
        .entries_missing
        .map_or("unknown".to_owned(), |count| count.to_string());
    let line = format!(
        "cut: the log goes on at entry {}; entries lost: {lost}; dropped after them: {}, exported: {}; segments \
         written anew: {}",
        row.next_index, row.entries_dropped, row.entries_exported, row.segments_written
    );
    rows.row(&row, &line)
}
