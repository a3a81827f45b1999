//! What framing costs: encoding frames into the outgoing queue, and cutting received bytes into frames.
//! Sans-I/O; one thread. `cargo bench -p drave-net --bench frames`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave_batch::wire::{AppendEntries, FRAME_PAYLOAD_BYTES_MAX, encode_frame};
use drave_net::FrameReader;
use drave_net::outgoing::{BufferPool, Outgoing};

const PAYLOAD_BYTES: [usize; 4] = [0, 256, 4 << 10, 256 << 10];

fn message() -> AppendEntries {
    AppendEntries {
        term: 7,
        prev_term: 7,
        prev_index: 1_000_000,
        commit_index: 999_990,
        batch_count: 1,
        ..AppendEntries::default()
    }
}

/// Queue one frame, and write it out as the kernel would take it.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for payload_bytes in PAYLOAD_BYTES {
        let payload = [Bytes::from(vec![0x5A; payload_bytes])];
        let mut pool = BufferPool::new(8);
        let mut outgoing = Outgoing::new();
        let mut taken = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
            bencher.iter(|| {
                let message = black_box(message());
                outgoing.push(&mut pool, 1, 2, &message, &payload);
                outgoing.take(&mut taken, 64, usize::MAX);
                let written = outgoing.queued_bytes();
                outgoing.written(&mut pool, &mut taken, written);
            });
        });
    }
    group.finish();
}

/// Cut one megabyte of received frames, arriving in reads of 64 KiB, and decode every head.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for payload_bytes in PAYLOAD_BYTES {
        let mut frame = Vec::new();
        encode_frame(&mut frame, 1, 2, &message(), payload_bytes);
        frame.resize(frame.len() + payload_bytes, 0x5A);
        let frames = (1usize << 20).div_ceil(frame.len());
        let stream = frame.repeat(frames);
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
            bencher.iter_batched_ref(
                || FrameReader::new(FRAME_PAYLOAD_BYTES_MAX),
                |reader| {
                    let mut found = 0;
                    for mut read in stream.chunks(64 << 10) {
                        while !read.is_empty() {
                            read = &read[reader.push(read)..];
                            while let Ok(Some(frame)) = reader.next_frame() {
                                black_box(frame.decode::<AppendEntries>())
                                    .expect("what was encoded decodes");
                                found += 1;
                            }
                        }
                    }
                    assert_eq!(found, frames);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
