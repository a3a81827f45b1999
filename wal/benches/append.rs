//! Durable appends: closed loop with 1, 16, 256 and 4096 entries waiting, over both engines, and the append call
//! by itself. The raw disk's own figure of the same minute stands beside them.
#![allow(missing_docs)]

use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{Behaviour, Blocks, EngineChoice, MemoryDisk, Options, Wal};

const SIZES: [usize; 3] = [128, 1 << 10, 16 << 10];
const WAITING: [u64; 4] = [1, 16, 256, 4_096];

/// Bytes appended between two submissions, as a server's turn does.
const TURN_BYTES: usize = 64 << 10;

fn append(wal: &mut Wal, body: &[u8], template: &BatchHeader) {
    let mut header = template.clone();
    header.index = wal.last_index() + 1;
    wal.append(&mut header, body)
        .expect("the queue is large enough");
}

fn template(body: &[u8]) -> BatchHeader {
    let mut header = BatchHeader::new(EntryKind::Data, body, 1);
    header.term = 1;
    header
}

/// Keeps `waiting` entries under way until `count` are durable.
fn run(wal: &mut Wal, body: &[u8], waiting: u64, count: u64) -> Duration {
    let template = template(body);
    let from = wal.last_index();
    let started = Instant::now();
    let mut events = Vec::new();
    while wal.durable_index() < from + count {
        let more = (from + count - wal.last_index())
            .min(waiting - (wal.last_index() - wal.durable_index()));
        let turn = more.min((TURN_BYTES / body.len()) as u64);
        for _ in 0..turn {
            append(wal, body, &template);
        }
        if turn == more {
            wal.wait();
        } else {
            wal.submit();
        }
        wal.poll(&mut events);
        events.clear();
        if wal.statistics().segments > 2 {
            wal.truncate_prefix(wal.durable_index() + 1)
                .expect("what is durable may go");
        }
    }
    let elapsed = started.elapsed();
    // Old segments are used again, so that the disk does not fill; not counted.
    wal.truncate_prefix(wal.last_index() + 1)
        .expect("everything may go");
    elapsed
}

fn durable_appends(criterion: &mut Criterion) {
    for (engine, name) in [
        (EngineChoice::IoUring, "io_uring"),
        (EngineChoice::Posix, "posix"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let Ok(mut wal) = Wal::open(
            dir.path(),
            Options {
                engine,
                queue_bytes_max: 128 << 20,
                ..Options::default()
            },
        ) else {
            println!("{name} is not available here");
            continue;
        };
        println!("{}: {}", wal.engine_name(), wal.engine_reason());
        let mut group = criterion.benchmark_group(format!("durable/{name}"));
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(2));
        for bytes in SIZES {
            let body = vec![0x5A; bytes];
            for waiting in WAITING {
                group.throughput(Throughput::Elements(1));
                let id = BenchmarkId::new(format!("{bytes}B"), waiting);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| run(&mut wal, &body, waiting, count));
                });
            }
        }
        group.finish();
    }
}

/// What one durable write of a block costs on this disk at this minute.
fn raw_disk(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("raw");
    std::fs::write(&path, vec![0; 16 << 20]).expect("the disk has room");
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let Ok(file) = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(&path)
    else {
        return;
    };
    let block = Blocks::copy_of(&[0x5A; 4096]);
    let mut offset = 0;
    criterion.bench_function("raw/4KiB", |bencher| {
        bencher.iter(|| {
            offset = (offset + 4096) % (16 << 20);
            file.write_all_at(&block, offset).expect("the disk works");
        });
    });
}

/// The append call alone: encode, copy, account. Groups go to a simulated disk every 1000 entries.
fn append_call(criterion: &mut Criterion) {
    let disk = MemoryDisk::new();
    let options = Options {
        segment_bytes: 1 << 30,
        idle_us: 0,
        ..Options::default()
    };
    let engine = disk.engine(Behaviour::default());
    let mut wal = Wal::open_with(
        engine,
        Options {
            segment_bytes: 16 << 20,
            ..options
        },
    )
    .expect("a simulated disk can be opened");
    for bytes in SIZES {
        let body = vec![0x5A; bytes];
        let template = template(&body);
        criterion.bench_function(&format!("call/{bytes}B"), |bencher| {
            bencher.iter_custom(|count| {
                let (mut elapsed, mut left) = (Duration::ZERO, count);
                while left > 0 {
                    let some = left.min(1_000);
                    let started = Instant::now();
                    for _ in 0..some {
                        append(&mut wal, black_box(&body), &template);
                    }
                    elapsed += started.elapsed();
                    wal.flush(&mut Vec::new())
                        .expect("the simulated disk works");
                    wal.truncate_prefix(wal.last_index() + 1)
                        .expect("everything may go");
                    left -= some;
                }
                elapsed
            });
        });
    }
}

criterion_group!(benches, append_call, raw_disk, durable_appends);
criterion_main!(benches);
