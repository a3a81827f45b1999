//! What encoding, decoding and checking a batch costs, by record size.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave_batch::wire::{
    self, Append, Appended, EXPECT_SEQ_NONE, FENCE_NONE, FrameHeader, decode_head,
};
use drave_batch::{BatchHeader, BatchRef, BodyBuilder, EntryKind};

fn body(record_bytes: usize, records: usize) -> (Vec<u8>, u32) {
    let mut builder = BodyBuilder::new();
    for _ in 0..records {
        builder.push(&vec![0x5a; record_bytes]);
    }
    let count = builder.record_count();
    let mut body = Vec::new();
    builder.drain_into(&mut body);
    (body, count)
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for record_bytes in [128, 1024, 16 << 10, 1 << 20] {
        let (body, count) = body(record_bytes, 1);
        let header = BatchHeader::new(EntryKind::Data, &body, count);
        let mut encoded = Vec::new();
        header.encode_with_body(&body, &mut encoded);
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(BenchmarkId::new("client_encode", record_bytes), |b| {
            let mut out = Vec::with_capacity(encoded.len());
            b.iter(|| {
                out.clear();
                BatchHeader::new(EntryKind::Data, black_box(&body), count)
                    .encode_with_body(&body, &mut out);
            });
        });
        group.bench_function(BenchmarkId::new("decode_and_verify", record_bytes), |b| {
            b.iter(|| {
                let batch = BatchRef::decode(black_box(&encoded)).unwrap();
                batch.verify_body().unwrap();
                batch.records().unwrap().map(<[u8]>::len).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn frames(c: &mut Criterion) {
    let (body, count) = body(1024, 1);
    let append = Append {
        header: BatchHeader::new(EntryKind::Data, &body, count),
        expect_seq: EXPECT_SEQ_NONE,
        fence: FENCE_NONE,
    };
    let appended = Appended {
        log_id: 1,
        first_seq: 2,
        record_count: 1,
        ..Appended::default()
    };
    let mut group = c.benchmark_group("frame");
    group.bench_function("encode_append", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            wire::encode_frame(&mut out, 0, 7, black_box(&append), body.len());
        });
    });
    let mut out = Vec::new();
    wire::encode_frame(&mut out, 0, 7, &append, body.len());
    group.bench_function("decode_append", |b| {
        b.iter(|| {
            let header = FrameHeader::decode(black_box(&out)).unwrap();
            decode_head::<Append>(&header, &out[wire::FRAME_HEADER_BYTES..]).unwrap()
        });
    });
    group.bench_function("encode_appended", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            wire::encode_frame(&mut out, 0, 7, black_box(&appended), 0);
        });
    });
    group.finish();
}

criterion_group!(benches, batches, frames);
criterion_main!(benches);
