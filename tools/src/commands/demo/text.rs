//! The text that the demo appends: the lines of a file or of its own, numbered, as many as wanted.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use crate::lines::{Line, LineSplitter};

const OWN_TEXT: &str = include_str!("../../demo_text.txt");

/// Bytes of a file that are used at most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a line that are used at most.
const LINE_BYTES_MAX: usize = 16 << 10;

/// `count` records: the lines of `file`, or of the demo's own text, over and over, each behind its number
/// so that no two are alike. Lines over 16 KiB are left out.
///
/// # Errors
/// When the file cannot be read or has no lines.
pub(super) fn records(file: Option<&Path>, count: u64) -> io::Result<Vec<Bytes>> {
    let bytes = match file {
        None => Bytes::from_static(OWN_TEXT.as_bytes()),
        Some(path) => {
            let mut bytes = Vec::new();
            File::open(path)?
                .take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)?;
            Bytes::from(bytes)
        }
    };
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut lines = Vec::new();
    let mut keep = |line| {
        if let Line::Record(line) = line {
            lines.push(line);
        }
    };
    splitter.push(&bytes, &mut keep);
    splitter.finish().map(keep);
    if lines.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it has no lines of up to 16 KiB",
        ));
    }
    let numbered = (0..count).zip(lines.iter().cycle()).map(|(number, line)| {
        let number = format!("{number:07} ");
        let mut record = BytesMut::with_capacity(number.len() + line.len());
        record.put(number.as_bytes());
        record.put(line.as_ref());
        record.freeze()
    });
    Ok(numbered.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn its_own_text_is_real_text() {
        let found = records(None, 20_000).unwrap();
        assert_eq!(found.len(), 20_000);
        assert_eq!(
            found.iter().collect::<BTreeSet<_>>().len(),
            20_000,
            "no two are alike"
        );
        assert!(OWN_TEXT.lines().count() >= 40 && OWN_TEXT.len() >= 2_000);
    }

    #[test]
    fn a_file_is_repeated_as_often_as_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        std::fs::write(file.path(), format!("first\n{long}\n\nlast")).unwrap();
        let found = records(Some(file.path()), 4).unwrap();
        assert_eq!(
            found,
            ["0000000 first", "0000001 ", "0000002 last", "0000003 first"]
        );
    }

    #[test]
    fn a_file_without_lines_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(records(Some(file.path()), 4).is_err());
        assert!(records(Some(Path::new("/nonexistent/file")), 4).is_err());
    }
}
