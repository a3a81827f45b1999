//! `drave sim script`: text scripts over Raft cores.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::cli::sim::ScriptArgs;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::script::{self, Failure, SCENARIOS};

use super::say;

/// No scenario is anywhere near as long.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Runs the scripts in these files, or all that are built in.
///
/// # Errors
/// [`CliError`]: a file that cannot be read, or the first script that fails.
pub(super) fn run(arguments: &ScriptArgs) -> Result<(), CliError> {
    if arguments.files.is_empty() {
        script::run_all().map_err(|failure| failed(&failure))?;
        return say(&format!("{} scripts hold\n", SCENARIOS.len()));
    }
    for file in &arguments.files {
        let text = read(file)?;
        script::run(&file.display().to_string(), &text).map_err(|failure| failed(&failure))?;
    }
    say(&format!("{} scripts hold\n", arguments.files.len()))
}

fn read(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let opened = File::open(file).map(|opened| opened.take(SCRIPT_BYTES_MAX + 1));
    let length = opened.and_then(|mut opened| opened.read_to_string(&mut text));
    let unreadable = |why: String| {
        CliError::new(Exit::NotFound, "the script cannot be read")
            .with("file", file.display())
            .why(why)
    };
    match length {
        Err(error) => Err(unreadable(error.to_string())),
        Ok(length) if length as u64 > SCRIPT_BYTES_MAX => Err(unreadable(format!(
            "it is longer than {SCRIPT_BYTES_MAX} bytes"
        ))),
        Ok(_) => Ok(text),
    }
}

fn failed(failure: &Failure) -> CliError {
    CliError::new(Exit::Failure, "a script does not hold")
        .with("at", format!("{}:{}", failure.file, failure.line))
        .why(failure.to_string())
}
