//! Writes to a log until it is stopped, keeping a journal elsewhere of what was asked and acknowledged, and
//! checks later that the log is what the journal says: the program that `tools/checks/power_cut.sh`,
//! `bad_disk.sh` and `fault_fs.sh` cut off.
//!
//! ```text
//! torture write DIR JOURNAL [--engine auto|io_uring|posix] [--seed N]
//!                [--seconds N]           write for so long, or
//!                [--stop FILE]           until this file appears
//!                [--pause-us N]          between two turns; none by default
//!                [--prewrite yes|no]     fill new segments with zeros, or only reserve them
//!                [--trim always|late]    keep a few segments, or all until the disk was full and has room again
//! torture recover DIR [--engine …]       open the log and leave it
//! torture check DIR JOURNAL [--engine …] open it, compare it with the journal, start the journal over
//! ```
//!
//! The exit status is 0; 1 for a broken promise; 2 for a wrong command line; 3 for a log that failed while it
//! was written, and said so; 4 for one that cannot be opened.

#[path = "../../tests/common/mod.rs"]
mod common;
mod journal;
mod writer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drave_wal::{EngineChoice, Options, Wal};

/// What the command line says.
struct Arguments {
    command: String,
    directory: PathBuf,
    journal: PathBuf,
    engine: EngineChoice,
    seconds: u64,
    stop: Option<PathBuf>,
    seed: u64,
    pause_us: u64,
    trims_late: bool,
    prewrite: bool,
}

const USAGE: &str = "torture write|recover|check DIR [JOURNAL] [--engine auto|io_uring|posix] [--seed N] \
                     [--seconds N] [--stop FILE] [--pause-us N] [--trim always|late] [--prewrite yes|no]";

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments {
        command: words.next()?,
        directory: words.next()?.into(),
        journal: PathBuf::new(),
        engine: EngineChoice::Auto,
        seconds: 2,
        stop: None,
        seed: 1,
        pause_us: 0,
        trims_late: false,
        prewrite: true,
    };
    if arguments.command != "recover" {
        arguments.journal = words.next()?.into();
    }
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--engine" => {
                arguments.engine = match value.as_str() {
                    "auto" => EngineChoice::Auto,
                    "io_uring" => EngineChoice::IoUring,
                    "posix" => EngineChoice::Posix,
                    _ => return None,
                }
            }
            "--seconds" => arguments.seconds = value.parse().ok()?,
            "--seed" => arguments.seed = value.parse().ok()?,
            "--stop" => arguments.stop = Some(value.into()),
            "--pause-us" => arguments.pause_us = value.parse().ok()?,
            "--trim" => arguments.trims_late = one_of(&value, "late", "always")?,
            "--prewrite" => arguments.prewrite = one_of(&value, "yes", "no")?,
            _ => return None,
        }
    }
    Some(arguments)
}

fn one_of(value: &str, yes: &str, no: &str) -> Option<bool> {
    (value == yes || value == no).then_some(value == yes)
}

/// Small segments, so that a second of writing has rolls, trims and recycled files in it.
fn options(engine: EngineChoice) -> Options {
    Options {
        segment_bytes: 1 << 20,
        group_bytes_max: 64 << 10,
        extra_group_bytes_min: 4 << 10,
        queue_bytes_max: 4 << 20,
        tail_bytes_max: 1 << 20,
        store_id: 0x70,
        engine,
        ..Options::default()
    }
}

fn open(directory: &Path, options: Options) -> Result<Wal, ExitCode> {
    Wal::open(directory, options).map_err(|error| {
        println!("cannot open: {error}");
        ExitCode::from(4)
    })
}

/// Opens the log, reading every byte of it, and compares.
fn check(arguments: &Arguments) -> Result<(), ExitCode> {
    let wal = open(
        &arguments.directory,
        Options {
            verify_on_open: true,
            tail_bytes_max: 0,
            ..options(arguments.engine)
        },
    )?;
    let broken = |what: String| {
        println!("BROKEN: {what}");
        ExitCode::from(1)
    };
    let mut model = journal::load(&arguments.journal).map_err(broken)?;
    let held = model.check(&wal).map_err(broken)?;
    println!(
        "holds [{}, {}]: acknowledged changes {}, held {}, asked for {}; meta {} of {}; torn {}",
        wal.first_index(),
        wal.last_index(),
        model.acknowledged,
        held.changes,
        model.changes.len(),
        held.meta,
        model.meta_last(),
        u8::from(wal.recovery().torn.is_some())
    );
    model.start_over(&wal, held);
    journal::store(&arguments.journal, &model).map_err(broken)
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match arguments.command.as_str() {
        "write" => {
            let options = Options {
                prewrite: arguments.prewrite,
                ..options(arguments.engine)
            };
            open(&arguments.directory, options).and_then(|wal| writer::run(wal, &arguments))
        }
        "recover" => open(&arguments.directory, options(arguments.engine)).map(drop),
        "check" => check(&arguments),
        _ => {
            eprintln!("{USAGE}");
            Err(ExitCode::from(2))
        }
    };
    result.err().unwrap_or(ExitCode::SUCCESS)
}
