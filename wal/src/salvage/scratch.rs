//! Where fetched entries wait to be written back: memory, and beyond a bound a file without a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

use crate::format::FileName;

/// Bytes kept in memory.
const MEMORY_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    directory: Option<PathBuf>,
    memory: Vec<u8>,
    file: Option<File>,
    file_bytes: u64,
}

impl Scratch {
    /// Spills into `directory`; without one everything stays in memory.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            ..Self::default()
        }
    }

    /// Keeps `bytes`; gives where.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let in_memory = self.memory.len() + bytes.len() <= MEMORY_BYTES_MAX;
        let Some(directory) = self.directory.as_ref().filter(|_| !in_memory) else {
            let offset = self.memory.len() as u64;
            self.memory.extend_from_slice(bytes);
            return Ok(offset);
        };
        if self.file.is_none() {
            let path = directory.join(FileName::Temporary(u64::MAX).to_string());
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            // It is gone with the process, whatever becomes of that.
            std::fs::remove_file(&path)?;
            self.file = Some(file);
        }
        let file = self.file.as_ref().expect("it was just made");
        file.write_all_at(bytes, self.file_bytes)?;
        self.file_bytes += bytes.len() as u64;
        Ok(FILE_FROM + self.file_bytes - bytes.len() as u64)
    }

    pub(super) fn load(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        match (offset.checked_sub(FILE_FROM), &self.file) {
            (Some(offset), Some(file)) => {
                let mut out = vec![0; bytes];
                file.read_exact_at(&mut out, offset)?;
                Ok(out.into())
            }
            _ => {
                let range = offset as usize..offset as usize + bytes;
                Ok(Bytes::copy_from_slice(&self.memory[range]))
            }
        }
    }
}

/// Offsets from here on are in the file.
const FILE_FROM: u64 = 1 << 62;
