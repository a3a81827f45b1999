//! What the write path was chosen from: every way to make a write of a file that was written before durable,
//! with 1 to 4 in flight, with and without registered file and buffers, in turns.
//!
//! usage: cargo bench -p drave-wal --bench write_path [-- ROUNDS [MILLISECONDS]]; files go to TMPDIR. Prints, for
//! each, the median over rounds of the median latency, of durable MiB/s and of processor time per write.
#![allow(missing_docs)]
#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use drave_wal::Blocks;
use io_uring::{IoUring, opcode, squeue, types};

const FILE_BYTES: u64 = 64 << 20;
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 512 << 10];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// `pwrite` and `fdatasync`.
    Calls,
    /// A write through the page cache, then a flush, in the ring.
    Buffered,
    /// A write past the page cache, then a flush, in the ring.
    Direct,
    /// One write that is durable.
    DirectDsync,
    /// The same, file and buffers registered.
    Registered,
    /// The same, only the file registered.
    FileRegistered,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Calls,
        Self::Buffered,
        Self::Direct,
        Self::DirectDsync,
        Self::FileRegistered,
        Self::Registered,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "pwrite, fdatasync (system calls)",
            Self::Buffered => "ring: buffered write, then fsync",
            Self::Direct => "ring: O_DIRECT write, then fsync",
            Self::DirectDsync => "ring: O_DIRECT|O_DSYNC write",
            Self::FileRegistered => "  with the file registered",
            Self::Registered => "  with file and buffers registered",
        }
    }

    fn flags(self) -> i32 {
        match self {
            Self::Calls | Self::Buffered => 0,
            Self::Direct => libc::O_DIRECT,
            _ => libc::O_DIRECT | libc::O_DSYNC,
        }
    }

    fn flushes(self) -> bool {
        matches!(self, Self::Buffered | Self::Direct)
    }
}

/// One figure of one round.
#[derive(Clone, Copy, Debug)]
struct Figure {
    p50_us: f64,
    mib_per_second: f64,
    processor_us: f64,
}

fn open(path: &Path, way: Way) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(way.flags());
    options.open(path)
}

fn processor_us() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn request(
    way: Way,
    file: &File,
    block: &Blocks,
    slot: usize,
    offset: u64,
    is_flush: bool,
) -> squeue::Entry {
    let fd = types::Fd(file.as_raw_fd());
    let (pointer, bytes) = (block.as_ptr(), block.len() as u32);
    let entry = match way {
        _ if is_flush => opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Way::FileRegistered => opcode::Write::new(types::Fixed(0), pointer, bytes)
            .offset(offset)
            .build(),
        Way::Registered => opcode::WriteFixed::new(types::Fixed(0), pointer, bytes, slot as u16)
            .offset(offset)
            .build(),
        _ => opcode::Write::new(fd, pointer, bytes)
            .offset(offset)
            .build(),
    };
    entry.user_data(slot as u64)
}

/// A ring with what the way wants registered.
fn ring(way: Way, file: &File, blocks: &[Blocks]) -> io::Result<IoUring> {
    let ring = IoUring::builder().setup_coop_taskrun().build(64)?;
    if matches!(way, Way::Registered | Way::FileRegistered) {
        ring.submitter().register_files(&[file.as_raw_fd()])?;
    }
    if way == Way::Registered {
        let vectors: Vec<libc::iovec> = blocks
            .iter()
            .map(|block| libc::iovec {
                iov_base: block.as_ptr().cast_mut().cast(),
                iov_len: block.len(),
            })
            .collect();
        // SAFETY: the blocks outlive the ring, which the caller drops first, and are only read from.
        unsafe { ring.submitter().register_buffers(&vectors)? };
    }
    Ok(ring)
}

fn measure(
    path: &Path,
    way: Way,
    bytes: usize,
    depth: usize,
    time: Duration,
) -> io::Result<Figure> {
    let file = open(path, way)?;
    let blocks: Vec<Blocks> = (0..depth)
        .map(|slot| Blocks::copy_of(&vec![slot as u8; bytes]))
        .collect();
    let mut latencies = Vec::new();
    let mut next_offset = 0;
    let mut offset = || {
        next_offset = (next_offset + bytes as u64) % FILE_BYTES;
        next_offset
    };
    let (started, processor) = (Instant::now(), processor_us());
    if way == Way::Calls {
        while started.elapsed() < time {
            let before = Instant::now();
            file.write_all_at(&blocks[0], offset())?;
            file.sync_data()?;
            latencies.push(before.elapsed());
        }
    } else {
        let mut ring = ring(way, &file, &blocks)?;
        let mut since = vec![(Instant::now(), false); depth];
        let mut todo: Vec<usize> = (0..depth).collect();
        let mut running = 0;
        loop {
            for slot in todo.drain(..) {
                let (begun, is_flush) = &mut since[slot];
                if !*is_flush {
                    *begun = Instant::now();
                }
                let entry = request(way, &file, &blocks[slot], slot, offset(), *is_flush);
                // SAFETY: file and blocks live until every completion has been taken, below.
                unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                running += 1;
            }
            if running == 0 {
                break;
            }
            ring.submit_and_wait(1)?;
            let done: Vec<(usize, i32)> = ring
                .completion()
                .map(|entry| (entry.user_data() as usize, entry.result()))
                .collect();
            for (slot, result) in done {
                running -= 1;
                let (begun, is_flush) = &mut since[slot];
                let expected = if *is_flush { 0 } else { bytes as i32 };
                if result != expected {
                    return Err(io::Error::from_raw_os_error(-result.min(0)));
                }
                *is_flush = way.flushes() && !*is_flush;
                if *is_flush {
                    todo.push(slot);
                    continue;
                }
                latencies.push(begun.elapsed());
                if started.elapsed() < time {
                    todo.push(slot);
                }
            }
        }
    }
    let (elapsed, processor) = (started.elapsed(), processor_us() - processor);
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    Ok(Figure {
        p50_us: latencies[latencies.len() / 2].as_secs_f64() * 1e6,
        mib_per_second: count * bytes as f64 / elapsed.as_secs_f64() / f64::from(1 << 20),
        processor_us: processor / count,
    })
}

fn median(figures: &[Figure], of: impl Fn(&Figure) -> f64) -> f64 {
    let mut sorted: Vec<f64> = figures.iter().map(of).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let rounds = numbers.first().copied().unwrap_or(9).max(1);
    let time = Duration::from_millis(numbers.get(1).copied().unwrap_or(50));
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("written");
    std::fs::write(&path, vec![0x5A; FILE_BYTES as usize])?;
    File::open(&path)?.sync_all()?;
    let mut cells = Vec::new();
    for bytes in SIZES {
        for way in Way::ALL {
            for depth in 1..=4 {
                if way != Way::Calls || depth == 1 {
                    cells.push((bytes, way, depth, Vec::new()));
                }
            }
        }
    }
    for _ in 0..rounds {
        for (bytes, way, depth, figures) in &mut cells {
            match measure(&path, *way, *bytes, *depth, time) {
                Ok(figure) => figures.push(figure),
                Err(error) if figures.is_empty() => eprintln!("{}: {error}", way.name()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    println!("KiB  in flight  p50 us  MiB/s   cpu us  way");
    for (bytes, way, depth, figures) in cells.iter().filter(|cell| !cell.3.is_empty()) {
        println!(
            "{:>3}  {depth:>9}  {:>6.0}  {:>6.1}  {:>6.1}  {}",
            bytes >> 10,
            median(figures, |figure| figure.p50_us),
            median(figures, |figure| figure.mib_per_second),
            median(figures, |figure| figure.processor_us),
            way.name(),
        );
    }
    Ok(())
}
