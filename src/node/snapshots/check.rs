//! Checking a snapshot's file, a piece at a time: that its checksum is still that of its bytes.
//!
//! Whether it means anything is not looked at: that was so when it was stored.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use drave_wal::Checked;

use crate::raft::EntryId;

/// Read by one step.
const STEP_BYTES: usize = 1 << 20;

/// The checksum of all before it.
const CRC_BYTES: usize = 4;

/// A snapshot that is being checked. May be sent to another thread.
#[derive(Debug)]
pub(in crate::node) struct SnapshotCheck {
    id: EntryId,
    path: PathBuf,
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    crc: crc32fast::Hasher,
    /// The last bytes read, which may be the checksum.
    held: Vec<u8>,
}

impl SnapshotCheck {
    pub(super) fn new(id: EntryId, path: PathBuf) -> Self {
        Self {
            id,
            path,
            state: None,
        }
    }

    pub(in crate::node) fn id(&self) -> EntryId {
        self.id
    }

    /// Reads and checks a piece. Blocks on the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file that is not what it was, what the system says for one that cannot be
    /// read.
    pub(in crate::node) fn step(&mut self) -> io::Result<Checked> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => State::open(&self.path)?,
        };
        let from = state.held.len();
        let mut piece = (&state.file).take(STEP_BYTES as u64);
        let read = piece.read_to_end(&mut state.held)?;
        debug_assert_eq!(state.held.len(), from + read);
        let end = state.held.len().saturating_sub(CRC_BYTES);
        if read > 0 {
            state.crc.update(&state.held[..end]);
            state.held.drain(..end);
            self.state = Some(state);
            return Ok(Checked::Piece(read as u64));
        }
        let damaged = |message| Err(io::Error::new(io::ErrorKind::InvalidData, message));
        let Ok(expected) = state.held.try_into().map(u32::from_le_bytes) else {
            return damaged("the file is shorter than its checksum".to_owned());
        };
        let found = state.crc.finalize();
        if expected != found {
            return damaged(format!(
                "checksum: expected {expected:#010x}, found {found:#010x}"
            ));
        }
        Ok(Checked::Whole(0))
    }
}

impl State {
    fn open(path: &PathBuf) -> io::Result<Self> {
        let file = File::open(path)?;
        // What is in the page cache says nothing of the disk. A file system that keeps it there all the same is
        // checked as it is.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(Self {
            file,
            crc: crc32fast::Hasher::new(),
            held: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(path: &std::path::Path) -> io::Result<u64> {
        let id = EntryId { term: 1, index: 1 };
        let mut check = SnapshotCheck::new(id, path.to_owned());
        let mut bytes = 0;
        loop {
            match check.step()? {
                Checked::Piece(read) => bytes += read,
                Checked::Whole(read) => return Ok(bytes + read),
            }
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        for length in [0, 1, 5_000, STEP_BYTES - 2, 2 * STEP_BYTES + 3] {
            let mut content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let crc = crc32fast::hash(&content);
            content.extend_from_slice(&crc.to_le_bytes());
            fs::write(&path, &content).unwrap();
            assert_eq!(check(&path).unwrap(), content.len() as u64);
            for at in [0, length / 2, length, content.len() - 1] {
                let mut flipped = content.clone();
                flipped[at] ^= 4;
                fs::write(&path, &flipped).unwrap();
                assert_eq!(check(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
            for cut in [0, 1, 3, content.len() - 1] {
                fs::write(&path, &content[..cut.min(content.len() - 1)]).unwrap();
                assert!(check(&path).is_err());
            }
        }
    }
}
