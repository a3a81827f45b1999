//! `drave bench wal`: the log alone beside the raw disk.

pub mod append;
pub mod catch_up;
pub mod growth;
#[cfg(feature = "peers")]
mod peers;
pub mod stability;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drave_wal::{AppendError, ChangeError, EngineChoice, OpenError};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::log::LogError;
use crate::bench::report::Report;
use crate::bench::rounds::{self, BenchError, Plan};
use crate::cli::ResultFormat;
use crate::cli::bench::{BenchEngine, BenchWalArgs};
use crate::connect;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::print;

/// Runs the command.
///
/// # Errors
/// [`CliError`]: a directory that cannot be used, a full disk, an engine that is refused, an interruption.
pub fn wal(arguments: &BenchWalArgs) -> Result<(), CliError> {
    let plan = plan(arguments);
    let directory = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let runtime = connect::runtime()?;
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_interrupted);
    let mut interrupt = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).map_err(|error| {
            CliError::new(Exit::Failure, "cannot listen for signals").why(error.to_string())
        })?
    };
    // Told between two cases, so that the files are removed and what was measured is not lost.
    let measured = runtime.block_on(async {
        let bar = progress(&plan);
        let advance = bar.clone();
        let work = tokio::task::spawn_blocking(move || {
            rounds::run(&plan, &directory, || {
                advance.inc(1);
                !told.load(Ordering::Relaxed)
            })
        });
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = interrupt.recv() => is_interrupted.store(true, Ordering::Relaxed),
            }
        };
        bar.finish_and_clear();
        done.expect("a measurement does not panic")
    });
    let measured = measured.map_err(|error| failure(&error, arguments))?;
    let report = Report::of(&measured);
    let text = match arguments.output {
        ResultFormat::Table => report.text(),
        ResultFormat::Json => {
            let json = serde_json::to_string_pretty(&report);
            let mut json = json.expect("figures and words can be written as JSON");
            json.push('\n');
            json
        }
    };
    runtime.block_on(print(&text))?;
    if measured.is_cut {
        return Err(CliError::new(
            Exit::Interrupted,
            "interrupted before the last round",
        ));
    }
    Ok(())
}

fn plan(arguments: &BenchWalArgs) -> Plan {
    let engines = match arguments.engine {
        BenchEngine::Uring => vec![EngineChoice::IoUring],
        BenchEngine::Posix => vec![EngineChoice::Posix],
        BenchEngine::Both => vec![EngineChoice::IoUring, EngineChoice::Posix],
    };
    Plan {
        engines,
        bytes: arguments.bytes.clone(),
        waiting: arguments.waiting.clone(),
        time: arguments.seconds,
        rounds: arguments.rounds,
        segment_bytes: arguments.segment_bytes,
        tail_bytes: arguments.tail_bytes,
    }
}

/// On a terminal only; `indicatif` sees to that.
fn progress(plan: &Plan) -> ProgressBar {
    let cases = plan.engines.len() * plan.bytes.len() * plan.waiting.len();
    let bar = ProgressBar::new(cases as u64 * u64::from(plan.rounds));
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn failure(error: &BenchError, arguments: &BenchWalArgs) -> CliError {
    let (exit, summary, next) = match error {
        BenchError::Log(LogError::Append(AppendError::NoSpace)) => (
            Exit::Precondition,
            "the disk is full",
            "free some space, or give another --dir or smaller --segment-bytes",
        ),
        BenchError::Raw(_, source) if source.kind() == std::io::ErrorKind::StorageFull => (
            Exit::Precondition,
            "the disk is full",
            "free some space, or give another --dir",
        ),
        BenchError::Open(OpenError::Engine { .. }) => (
            Exit::Precondition,
            "an engine is refused here",
            "use --engine posix",
        ),
        BenchError::Log(
            LogError::Append(AppendError::Failed(_)) | LogError::Change(ChangeError::Failed(_)),
        ) => (
            Exit::Failure,
            "the log failed",
            "look at the kernel's messages about this disk",
        ),
        BenchError::Lost { .. } => (
            Exit::Corruption,
            "an acknowledged append was not found again",
            "",
        ),
        _ => (Exit::Failure, "the measurement failed", ""),
    };
    let directory = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    CliError::new(exit, summary)
        .with("dir", directory.display())
        .why(error.to_string())
        .effect("the files were removed; nothing was measured")
        .next(next)
}
