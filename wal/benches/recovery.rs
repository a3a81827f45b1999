//! Opening a log: of 1 GiB, read and checked whole, warm, in GiB/s; and of the same log closed cleanly and
//! trusted by its seals, where what is read does not depend on the log's size.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{Options, Wal};

const LOG_BYTES: u64 = 1 << 30;

/// Body sizes; a log of each is made.
const SIZES: [usize; 3] = [128, 1 << 10, 16 << 10];

fn fill(directory: &Path, bytes: usize) {
    let mut wal = Wal::open(directory, Options::default()).expect("a log can be made");
    let body: Vec<u8> = (0..bytes).map(|position| position as u8).collect();
    let mut events = Vec::new();
    while wal.statistics().written_bytes < LOG_BYTES {
        while wal.queued_bytes() < 4 << 20 {
            let mut header = BatchHeader::new(EntryKind::Data, &body, 1);
            (header.index, header.term) = (wal.last_index() + 1, 1);
            wal.append(&mut header, &body).expect("there is room");
        }
        wal.wait();
        wal.poll(&mut events);
        events.clear();
    }
    wal.close().expect("the disk works");
}

/// Bytes that this process has made the disk read so far, what the kernel read ahead for it included.
fn read_so_far() -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("the kernel counts");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|number| number.parse().ok())
        .expect("the count is a number")
}

/// Lets the kernel forget the files' pages, so that reading them shows.
fn forget(directory: &Path) {
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let file = fs::File::open(entry.expect("it can be listed").path()).expect("it can be read");
        file.sync_all().expect("the disk works");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a hint is taken");
    }
}

fn open(directory: &Path, verify_on_open: bool) -> Wal {
    let options = Options {
        verify_on_open,
        ..Options::default()
    };
    Wal::open(directory, options).expect("the log is whole")
}

fn recovery(criterion: &mut Criterion) {
    for bytes in SIZES {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        fill(directory.path(), bytes);
        let mut group = criterion.benchmark_group("recovery");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(5))
            .warm_up_time(Duration::from_secs(2));
        for verify_on_open in [true, false] {
            let name = if verify_on_open { "whole" } else { "by seals" };
            forget(directory.path());
            let before = read_so_far();
            let wal = open(directory.path(), verify_on_open);
            let segments = wal.statistics().segments;
            let report = wal.recovery().duration;
            drop(wal);
            println!(
                "{bytes}B {name}: {segments} segments, {:.1} MiB read from the disk, cold {report:?}",
                (read_so_far() - before) as f64 / f64::from(1 << 20)
            );
            if verify_on_open {
                group.throughput(Throughput::Bytes(LOG_BYTES));
            } else {
                group.throughput(Throughput::Elements(1));
            }
            group.bench_function(BenchmarkId::new(name, format!("{bytes}B")), |bencher| {
                // Closing belongs to it: one log at a time has the directory.
                bencher.iter(|| drop(open(directory.path(), verify_on_open)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, recovery);
criterion_main!(benches);
