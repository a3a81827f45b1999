//! The history file: one JSON object per line.

use std::io::{self, BufRead, Read as _, Write};

use super::{History, Line};

/// Bytes of one line at most.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

/// Why a history cannot be read.
#[derive(Debug)]
pub enum FormatError {
    /// The file.
    Io(io::Error),
    /// A line is none of ours.
    Line {
        /// Its number, from 1.
        number: u64,
        /// What was expected and found.
        message: String,
    },
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line { number, message } => write!(f, "line {number}: {message}"),
        }
    }
}

impl std::error::Error for FormatError {}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a whole history; memory in proportion to its bytes.
///
/// # Errors
/// [`FormatError`] for the first line that is too long or does not parse.
pub fn read_history(mut from: impl BufRead) -> Result<History, FormatError> {
    let mut history = History::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // One more than allowed, so that a line of exactly the limit is told from a longer one.
        let read = (&mut from)
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if read as u64 > LINE_BYTES_MAX {
            let message = format!("at most {LINE_BYTES_MAX} bytes allowed, found more");
            return Err(FormatError::Line { number, message });
        }
        let parsed = serde_json::from_slice(&line).map_err(|error| FormatError::Line {
            number,
            message: error.to_string(),
        })?;
        history.push(parsed);
    }
    Ok(history)
}

/// Writes one line.
///
/// # Errors
/// When `to` refuses.
pub fn write_line(mut to: impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut to, line)?;
    to.write_all(b"\n")
}
