//! `drave wal dump`: every batch as it is on disk.

use drave_wal::inspect::{GroupView, Item, WalkOptions};

use super::row::{BATCH_HEADER, BatchRow, CutRow, DamageRow};
use super::{Findings, Rows, inspector, read_failed};
use crate::cli::wal::WalDumpArgs;
use crate::errors::CliError;

/// Runs the command.
///
/// # Errors
/// [`CliError`], also when something is damaged.
pub fn dump(arguments: &WalDumpArgs) -> Result<(), CliError> {
    let (inspector, directory) = inspector(&arguments.wal.dir)?;
    let (lo, hi) = (
        arguments.from.unwrap_or(0),
        arguments.to.unwrap_or(u64::MAX),
    );
    let mut findings = Findings::default();
    let mut rows = Rows::begin(arguments.wal.format, BATCH_HEADER)?;
    let options = WalkOptions {
        skip_below: lo,
        ..WalkOptions::default()
    };
    for item in inspector.walk(options) {
        match item.map_err(|error| read_failed(&error))? {
            Item::Group(group) => print_group(&mut rows, &group, lo, hi)?,
            Item::Damage(damage) => {
                findings.damaged(&damage);
                let row = DamageRow::new(&damage);
                rows.row(&row, &row.line())?;
            }
            Item::Refused(error) => findings.refused = Some(error.to_string()),
            _ => {}
        }
    }
    rows.finish()?;
    findings.verdict(&directory)
}

fn print_group<W: std::io::Write>(
    rows: &mut Rows<W>,
    group: &GroupView,
    lo: u64,
    hi: u64,
) -> Result<(), CliError> {
    if let Some(row) = CutRow::new(group) {
        rows.row(&row, &row.line())?;
    }
    for batch in group.batches() {
        if (lo..hi).contains(&batch.index) {
            let row = BatchRow::new(group, &batch);
            rows.row(&row, &row.line())?;
        }
    }
    Ok(())
}
