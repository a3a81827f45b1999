//! `drave history check`: holds a recorded history against the promise.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::cli::HistoryCheckArgs;
use crate::connect;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::history::{self, FormatError, History, Report};
use crate::output::{print, thousands};

/// Runs the command.
///
/// # Errors
/// [`CliError`] when the file is no history, and when the history breaks a rule.
pub fn check(arguments: &HistoryCheckArgs) -> Result<(), CliError> {
    let history = read(&arguments.file)?;
    let report = history::check(&history).map_err(|error| {
        no_history(&arguments.file)
            .why(error.to_string())
            .next("record it anew: every operation with its times, every log read back at the end")
    })?;
    connect::runtime()?.block_on(print(&render(&history, &report)))?;
    verdict(&report)
}

fn read(path: &Path) -> Result<History, CliError> {
    let file = File::open(path).map_err(|error| {
        CliError::new(Exit::NotFound, "cannot open the history")
            .with("file", path.display())
            .why(error.to_string())
    })?;
    history::read_history(BufReader::new(file)).map_err(|error| match error {
        FormatError::Io(error) => CliError::new(Exit::Failure, "cannot read the history")
            .with("file", path.display())
            .why(error.to_string()),
        FormatError::Line { .. } => no_history(path)
            .why(error.to_string())
            .next("give a file that `drave chaos --keep` wrote, or one of the same form"),
    })
}

fn no_history(path: &Path) -> CliError {
    CliError::new(Exit::Corruption, "the file is no usable history")
        .with("file", path.display())
        .effect("nothing was checked")
}

/// What was found, for people: a line of counts, then the violations with the operations concerned.
#[must_use]
pub fn render(history: &History, report: &Report) -> String {
    let mut text = format!(
        "{} operations: {} acknowledged, {} unknown, {} failed, {} reads and tails; {} records in the end\n",
        thousands(report.operations),
        thousands(report.acknowledged),
        thousands(report.unknown),
        thousands(report.failed),
        thousands(report.observations),
        thousands(report.records)
    );
    for violation in &report.violations {
        text.push_str(&format!("{violation}\n"));
        for at in &violation.operations {
            text.push_str(&format!("  operation {at}: {}\n", history.operations[*at]));
        }
    }
    for (kind, count) in &report.counts {
        text.push_str(&format!("{}: {}\n", kind.name(), thousands(*count)));
    }
    if report.is_clean() {
        text.push_str("every rule holds\n");
    }
    text
}

/// The error for a history that breaks rules.
///
/// # Errors
/// [`CliError`] unless the report is clean.
pub fn verdict(report: &Report) -> Result<(), CliError> {
    if report.is_clean() {
        return Ok(());
    }
    let counts = report.counts.iter();
    let counts: Vec<String> = counts
        .map(|(kind, count)| format!("{} {}", thousands(*count), kind.name()))
        .collect();
    Err(CliError::new(Exit::Failure, "the promise was not kept")
        .why(counts.join(", "))
        .next("keep the history and the nodes' data and logs, and report it"))
}
