//! Reading a file from its medium: past the page cache, in large windows, one after the other.
//!
//! What the page cache holds says nothing of the disk below it, and a whole log read through it would push out what
//! readers need. Where a file system refuses `O_DIRECT`, reads go through the cache. It decides nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Source;

/// Offsets, lengths and memory of direct reads are multiples of it, whatever the device asks for.
const ALIGNMENT: usize = 4096;

/// Read at once. A group and its header fit, with the default options.
const WINDOW_BYTES: usize = 1 << 20;

/// A file read in windows.
#[derive(Debug)]
pub(crate) struct WindowSource {
    path: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    is_direct: bool,
    /// What was read last, and where it begins.
    window: (u64, Bytes),
}

impl WindowSource {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        let (file, is_direct) = match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (File::open(path)?, false),
            opened => (opened?, true),
        };
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            state: Mutex::new(State {
                file,
                is_direct,
                window: (0, Bytes::new()),
            }),
        })
    }
}

impl State {
    /// Has the window hold `[offset, end)`.
    fn fill(&mut self, path: &Path, offset: u64, end: u64) -> io::Result<()> {
        let from = offset - offset % ALIGNMENT as u64;
        let wanted = ((end - from) as usize).next_multiple_of(ALIGNMENT);
        let wanted = wanted.max(WINDOW_BYTES);
        let read = match read_aligned(&self.file, from, wanted) {
            Err(error) if self.is_direct && error.raw_os_error() == Some(libc::EINVAL) => {
                (self.file, self.is_direct) = (File::open(path)?, false);
                read_aligned(&self.file, from, wanted)
            }
            read => read,
        };
        self.window = (from, read?);
        Ok(())
    }

    fn slice(&self, offset: u64, bytes: usize) -> Option<Bytes> {
        let (from, window) = &self.window;
        let start = usize::try_from(offset.checked_sub(*from)?).ok()?;
        let range = start..start.checked_add(bytes)?;
        (range.end <= window.len()).then(|| window.slice(range))
    }
}

impl Source for WindowSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn load(self: Arc<Self>, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let end = offset.checked_add(bytes as u64);
        let Some(end) = end.filter(|end| *end <= self.bytes) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.slice(offset, bytes).is_none() {
            state.fill(&self.path, offset, end)?;
        }
        let slice = state.slice(offset, bytes);
        slice.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Reads up to `wanted` bytes, a multiple of the alignment, into memory that begins on a boundary.
fn read_aligned(file: &File, from: u64, wanted: usize) -> io::Result<Bytes> {
    let mut memory = vec![0; wanted + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut memory[start..start + wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut buffer[filled..], from + filled as u64) {
            Ok(0) => break,
            // Only at the end of a file is a piece not whole; going on from there would not be aligned.
            Ok(read) if read % ALIGNMENT != 0 => {
                filled += read;
                break;
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bytes::from(memory).slice(start..start + filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_what_the_file_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..3 * WINDOW_BYTES / 2 + 777)
            .map(|at| (at % 251) as u8)
            .collect();
        std::fs::write(&path, &content).unwrap();
        let source = Arc::new(WindowSource::open(&path).unwrap());
        assert_eq!(source.bytes(), content.len() as u64);
        let ends = [
            0,
            1,
            4095,
            4096,
            70_000,
            WINDOW_BYTES - 1,
            WINDOW_BYTES,
            WINDOW_BYTES + 1,
            content.len(),
        ];
        for lo in ends {
            for hi in ends.into_iter().filter(|hi| *hi >= lo) {
                let read = Arc::clone(&source).load(lo as u64, hi - lo).unwrap();
                assert!(read == content[lo..hi], "[{lo}, {hi})");
            }
        }
        let beyond = Arc::clone(&source).load(content.len() as u64, 1);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(source.load(u64::MAX, 2).is_err());
    }

    /// What another process changes is seen, unlike through a map or a cache of our own.
    #[test]
    fn a_new_window_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 2 * WINDOW_BYTES]).unwrap();
        let source = Arc::new(WindowSource::open(&path).unwrap());
        assert_eq!(Arc::clone(&source).load(0, 1).unwrap()[0], 1);
        std::fs::write(&path, vec![2; 2 * WINDOW_BYTES]).unwrap();
        assert_eq!(
            Arc::clone(&source).load(WINDOW_BYTES as u64, 1).unwrap()[0],
            2
        );
        assert_eq!(source.load(0, 1).unwrap()[0], 2);
    }
}
