//! `drave wal`: a node's log on disk, looked at without opening it, and repaired on demand.

mod dump;
mod ls;
mod repair;
mod row;
mod tail;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use drave_wal::OpenError;
use drave_wal::inspect::Inspector;
use serde::Serialize;

pub use dump::dump;
pub use ls::ls;
pub use repair::repair;
pub use tail::tail;
pub use verify::verify;

use crate::cli::wal::RowFormat;
use crate::errors::CliError;
use crate::exit::Exit;
use crate::node_side;

/// The directory of a log, given itself or by the data directory it is in.
fn log_directory(dir: &Path) -> Result<PathBuf, CliError> {
    let holds_log = |dir: &Path| {
        let files = Inspector::new(dir).files();
        files.is_ok_and(|files| {
            files.iter().any(|(file, _)| {
                matches!(
                    file,
                    drave_wal::FileName::Meta | drave_wal::FileName::Segment(_)
                )
            })
        })
    };
    let of_group = node_side::log_directory(dir);
    for candidate in [dir, of_group.as_path()] {
        if holds_log(candidate) {
            return Ok(candidate.to_owned());
        }
    }
    Err(CliError::new(Exit::NotFound, "there is no log")
        .with("dir", dir.display())
        .why("neither it nor its folder of a group holds a meta file or a segment")
        .next("give a directory made by `drave format`, or the folder with the seg-*.wal files"))
}

fn inspector(dir: &Path) -> Result<(Inspector, PathBuf), CliError> {
    let directory = log_directory(dir)?;
    Ok((Inspector::new(&directory), directory))
}

fn read_failed(error: &OpenError) -> CliError {
    CliError::new(Exit::Failure, "the log cannot be read")
        .why(error.to_string())
        .effect("nothing was changed")
        .next("check the permissions of the directory, and the disk")
}

/// What was wrong, collected for the end.
#[derive(Debug, Default)]
struct Findings {
    damage: u64,
    first: Option<String>,
    refused: Option<String>,
}

impl Findings {
    fn damaged(&mut self, damage: &drave_wal::inspect::Damage) {
        self.damage += 1;
        self.first
            .get_or_insert_with(|| damage.corruption.to_string());
    }

    /// The command's result.
    fn verdict(self, directory: &Path) -> Result<(), CliError> {
        let dir = directory.display();
        if let Some(why) = self.refused {
            return Err(CliError::new(Exit::Mismatch, "not every file could be read")
                .with("dir", dir)
                .why(why)
                .effect("nothing was changed")
                .next("use the version of drave that wrote it; check which store the files are of"));
        }
        let Some(first) = self.first else {
            return Ok(());
        };
        let places = match self.damage {
            1 => "in one place".to_owned(),
            count => format!("in {count} places"),
        };
        let summary = format!("the log is damaged {places}");
        Err(CliError::new(Exit::Corruption, summary)
            .with("dir", dir)
            .why(first)
            .effect("nothing was changed")
            .next("leave the files as they are; the other replicas hold what is committed"))
    }
}

/// Rows on their way to standard output.
struct Rows<W: Write> {
    format: RowFormat,
    out: W,
    count: u64,
}

impl Rows<io::BufWriter<io::Stdout>> {
    /// Begins, with the table's header line.
    fn begin(format: RowFormat, header: &str) -> Result<Self, CliError> {
        let out = io::BufWriter::with_capacity(64 << 10, io::stdout());
        let mut rows = Rows {
            format,
            out,
            count: 0,
        };
        let start = match format {
            RowFormat::Table => header,
            RowFormat::Json => "[",
            RowFormat::Jsonl => "",
        };
        rows.text(start)?;
        Ok(rows)
    }
}

impl<W: Write> Rows<W> {
    fn text(&mut self, text: &str) -> Result<(), CliError> {
        let written = self.out.write_all(text.as_bytes());
        written.map_err(|error| CliError::stdout(&error))
    }

    /// One row: the object, or the line for people.
    fn row(&mut self, object: &impl Serialize, line: &str) -> Result<(), CliError> {
        let separator = if self.count == 0 { "\n" } else { ",\n" };
        self.count += 1;
        let json = || serde_json::to_string(object).expect("plain fields cannot fail");
        match self.format {
            RowFormat::Table => self.text(&format!("{}\n", line.trim_end())),
            RowFormat::Json => self.text(&format!("{separator}{}", json())),
            RowFormat::Jsonl => self.text(&format!("{}\n", json())),
        }
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|error| CliError::stdout(&error))
    }

    fn finish(mut self) -> Result<(), CliError> {
        if self.format == RowFormat::Json {
            self.text("\n]\n")?;
        }
        self.flush()
    }
}
