//! The raw disk: plain loops of a write and a flush over a file that was written before, and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use drave_wal::{BLOCK_BYTES, Blocks};
use hdrhistogram::Histogram;
use rustix::fs::{Mode, OFlags};

use super::{histogram, record};

/// How a write is made durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RawMode {
    /// `pwrite` on a file opened `O_DIRECT|O_DSYNC`.
    DirectDsync,
    /// `pwrite` on a file opened `O_DIRECT`, then `fdatasync`.
    DirectFdatasync,
    /// `pwrite` through the page cache, then `fdatasync`.
    BufferedFdatasync,
}

impl RawMode {
    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectDsync => "O_DIRECT|O_DSYNC",
            Self::DirectFdatasync => "O_DIRECT, fdatasync",
            Self::BufferedFdatasync => "buffered, fdatasync",
        }
    }

    fn flags(self) -> OFlags {
        match self {
            Self::DirectDsync => OFlags::DIRECT | OFlags::DSYNC,
            Self::DirectFdatasync => OFlags::DIRECT,
            Self::BufferedFdatasync => OFlags::empty(),
        }
    }
}

/// What one loop showed.
#[derive(Clone, Debug)]
pub struct RawRun {
    /// Bytes of one write.
    pub write_bytes: u64,
    /// Writes made durable.
    pub writes: u64,
    /// How long it ran.
    pub elapsed: Duration,
    /// Each write with its flush, nanoseconds.
    pub latency: Histogram<u64>,
}

impl RawRun {
    /// Durable bytes per second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        crate::output::per_second(self.writes * self.write_bytes, self.elapsed)
    }
}

/// A file of one mode.
#[derive(Debug)]
pub struct RawFile {
    mode: RawMode,
    file: File,
    bytes: u64,
}

impl RawFile {
    /// Makes the file `path`, writes all of its `bytes` and opens it as `mode` says. Blocks.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` where the file system has no `O_DIRECT`.
    pub fn make(path: &Path, mode: RawMode, bytes: u64) -> io::Result<Self> {
        let filler = Blocks::copy_of(&vec![0x5A; 1 << 20]);
        let plain = File::create(path)?;
        let mut offset = 0;
        while offset < bytes {
            let piece = filler.len().min((bytes - offset) as usize);
            plain.write_all_at(&filler[..piece], offset)?;
            offset += piece as u64;
        }
        plain.sync_all()?;
        drop(plain);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | mode.flags();
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let made = Self { mode, file, bytes };
        // Some file systems take the flag and refuse the write.
        made.write(&filler[..BLOCK_BYTES], 0)?;
        Ok(made)
    }

    /// How it writes.
    #[must_use]
    pub fn mode(&self) -> RawMode {
        self.mode
    }

    /// Writes whole blocks, durably on return. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, block: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(block, offset)?;
        if self.mode == RawMode::DirectDsync {
            Ok(())
        } else {
            self.file.sync_data()
        }
    }

    /// Writes `write_bytes` (made whole blocks) after each other through the file, around and around, from
    /// `threads` threads, for `time`. Blocks.
    ///
    /// # Errors
    /// The first that any thread met.
    pub fn run(&self, write_bytes: u64, threads: usize, time: Duration) -> io::Result<RawRun> {
        let write_bytes = write_bytes
            .clamp(1, self.bytes)
            .next_multiple_of(BLOCK_BYTES as u64);
        let slots = self.bytes / write_bytes;
        let (ticket, gate) = (AtomicU64::new(0), Barrier::new(threads));
        let work = || -> io::Result<(Histogram<u64>, Duration)> {
            let block = Blocks::copy_of(&vec![0xA5; write_bytes as usize]);
            let mut latency = histogram();
            gate.wait();
            let started = Instant::now();
            let mut before = started;
            while before - started < time {
                let slot = ticket.fetch_add(1, Ordering::Relaxed) % slots;
                self.write(&block, slot * write_bytes)?;
                let now = Instant::now();
                record(&mut latency, now - before, 1);
                before = now;
            }
            Ok((latency, before - started))
        };
        let mut ended = Vec::with_capacity(threads);
        if threads == 1 {
            ended.push(work());
        } else {
            thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let joined = running.into_iter().map(thread::ScopedJoinHandle::join);
                ended.extend(joined.map(|end| end.expect("the loop does not panic")));
            });
        }
        let mut run = RawRun {
            write_bytes,
            writes: 0,
            elapsed: Duration::ZERO,
            latency: histogram(),
        };
        for end in ended {
            let (latency, elapsed) = end?;
            run.writes += latency.len();
            run.elapsed = run.elapsed.max(elapsed);
            run.latency += latency;
        }
        Ok(run)
    }
}
