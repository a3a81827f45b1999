//! Filling spares with zeros: in small pieces while there is time, so that a flush meanwhile waits little.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::buffer::Blocks;

const LARGE_BYTES: usize = 1 << 20;
const SMALL_BYTES: usize = 64 << 10;
/// A load that grows suddenly may come to wait for a file that is being filled slowly.
const TIME_MAX: Duration = Duration::from_millis(250);

/// How often files are filled, and so how long the next may take. One at a time is filled.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last_end: Mutex<Option<Instant>>,
}

impl Pace {
    /// Writes zeros to the first `bytes` bytes of `file`; nothing is durable yet.
    pub(super) fn fill(&self, file: &File, bytes: u64) -> io::Result<()> {
        let started = Instant::now();
        let last_end = *self.last_end.lock().unwrap_or_else(PoisonError::into_inner);
        let available = time_available(last_end.map(|end| started.duration_since(end)));
        let zeros = Blocks::copy_of(&vec![0; LARGE_BYTES.min(bytes as usize)]);
        let mut offset = 0;
        while offset < bytes {
            let piece = piece_bytes(started.elapsed(), available, offset, bytes);
            file.write_all_at(&zeros[..piece], offset)?;
            offset += piece as u64;
        }
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }
}

/// Half the time since the last file was full: in a log that grows evenly the next one is wanted after as long
/// again. None for the first, and next to none where one follows the other at once.
fn time_available(idle: Option<Duration>) -> Duration {
    idle.map_or(Duration::ZERO, |idle| (idle / 2).min(TIME_MAX))
}

/// The next piece of a file of `bytes` bytes that is full up to `offset`: small if that keeps it on time.
fn piece_bytes(elapsed: Duration, available: Duration, offset: u64, bytes: u64) -> usize {
    let left = (bytes - offset).min(LARGE_BYTES as u64) as usize;
    let small = left.min(SMALL_BYTES);
    let due = available.as_nanos() * u128::from(offset + small as u64);
    if elapsed.as_nanos() * u128::from(bytes) <= due {
        small
    } else {
        left
    }
}

#[cfg(test)]
mod tests;
