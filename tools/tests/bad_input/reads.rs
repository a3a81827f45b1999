//! Reads and tails with absurd numbers, and readers who ask for everything and take nothing.

use std::time::{Duration, Instant};

use drave_batch::Batches;
use drave_batch::wire::{
    ErrorCode, LOCAL_READ, MessageKind, Read, ReadReply, TailCredit, TailData, TailStart, TailStop,
};
use drave_client::ReadLimits;
use drave_tools::cli::Io;

use crate::node::Victim;
use crate::wire::{Raw, frame, frame_around};

/// Tailing readers that a node takes unless configured otherwise.
const TAILS_MAX: u64 = 16_384;

/// How long an append, or a reader, waits beside thousands of readers that are busy, on any machine that
/// is fit to run the tests. One turn of each of those takes several times as long.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(3);

/// Of these, those of one connection.
const TAILS_PER_CONNECTION_MAX: u64 = 4096;

/// A node, and the number of a log of three records.
fn node_with_records() -> (Victim, u64) {
    let victim = Victim::start();
    let log_id = victim.log_id("three");
    append(&victim, "three", &["one", "two", "three"]);
    (victim, log_id)
}

fn append<R: AsRef<[u8]>>(victim: &Victim, name: &str, records: &[R]) {
    let client = &victim.test.client;
    let appended = async { client.log(name).await?.append_batch(records).await };
    victim.test.runtime.block_on(appended).unwrap();
}

#[test]
fn reads_with_absurd_numbers_are_refused_or_bounded() {
    let (mut victim, log_id) = node_with_records();
    let mut raw = victim.connect_client();
    let mut request_id = 0;
    for consistency in [0, LOCAL_READ] {
        for bytes_max in [0, 1, 1 << 20, u32::MAX] {
            for from_seq in [4, 5, 1 << 62, u64::MAX] {
                request_id += 1;
                let read = Read {
                    log_id,
                    from_seq,
                    bytes_max,
                    consistency,
                };
                raw.send_message(request_id, &read);
                let reply = raw.answer_refused(request_id, ErrorCode::BeyondTail);
                assert_eq!((reply.expected, reply.found), (3, from_seq));
            }
            for unknown in [0, 1, log_id + 1_000, u64::MAX] {
                request_id += 1;
                let read = Read {
                    log_id: unknown,
                    from_seq: 0,
                    bytes_max,
                    consistency,
                };
                raw.send_message(request_id, &read);
                raw.answer_refused(request_id, ErrorCode::LogNotFound);
            }
            for (from_seq, batches) in [(0, 1), (2, 1), (3, 0)] {
                request_id += 1;
                let read = Read {
                    log_id,
                    from_seq,
                    bytes_max,
                    consistency,
                };
                raw.send_message(request_id, &read);
                let answer = raw.answer(request_id);
                assert_eq!(answer.decode::<ReadReply>().next_seq, 3);
                assert_eq!(Batches::new(&answer.payload).count(), batches);
            }
        }
    }
    victim.is_sound();
}

#[test]
fn tails_with_absurd_numbers_are_refused_or_bounded() {
    let (mut victim, log_id) = node_with_records();
    let mut raw = victim.connect_client();
    for (request_id, from_seq) in (1..).zip([4, 1 << 62, u64::MAX]) {
        raw.send_message(
            request_id,
            &TailStart {
                log_id,
                from_seq,
                credit_bytes: u32::MAX,
            },
        );
        let reply = raw.answer_refused(request_id, ErrorCode::BeyondTail);
        assert_eq!((reply.expected, reply.found), (3, from_seq));
    }
    for (request_id, unknown) in (10..).zip([0, 1, log_id + 1_000, u64::MAX]) {
        raw.send_message(
            request_id,
            &TailStart {
                log_id: unknown,
                from_seq: 0,
                credit_bytes: 1,
            },
        );
        raw.answer_refused(request_id, ErrorCode::LogNotFound);
    }
    // Stops and credit for what was never started have no answer.
    for request_id in [0, 20, u64::MAX - 7] {
        raw.send_message(request_id, &TailStop {});
        raw.send_message(
            request_id,
            &TailCredit {
                credit_bytes: u32::MAX,
            },
        );
    }
    raw.still_serves();
    // Without credit no batch comes; the signs of life have none.
    raw.send_message(
        30,
        &TailStart {
            log_id,
            from_seq: 0,
            credit_bytes: 0,
        },
    );
    let answer = raw.answer(30);
    assert_eq!(answer.decode::<TailData>().next_seq, 3);
    assert!(answer.payload.is_empty());
    raw.send_message(30, &TailCredit { credit_bytes: 1 });
    let batches = tail_until(&mut raw, 30, 1);
    assert_eq!(batches, 1, "one batch is given for any credit");
    // The same request id again, while its tail stands.
    raw.send_message(
        30,
        &TailStart {
            log_id,
            from_seq: 0,
            credit_bytes: 1,
        },
    );
    let refused = std::iter::from_fn(|| raw.receive());
    let refused = refused.map(|frame| (frame.header.request_id, frame.code()));
    let busy = refused.take(10).find(|(_, code)| code.is_some());
    assert_eq!(busy, Some((30, Some(ErrorCode::Busy as u32))));
    victim.is_sound();
}

/// Receives data of a tail until so many batches came; gives their number.
fn tail_until(raw: &mut Raw, request_id: u64, batches: usize) -> usize {
    let mut found = 0;
    while found < batches {
        let answer = raw.answer(request_id);
        let _: TailData = answer.decode();
        found += Batches::new(&answer.payload).count();
    }
    found
}

#[test]
fn credit_without_end_changes_nothing() {
    let (mut victim, log_id) = node_with_records();
    let mut raw = victim.connect_client();
    raw.send_message(
        1,
        &TailStart {
            log_id,
            from_seq: 0,
            credit_bytes: u32::MAX,
        },
    );
    assert_eq!(tail_until(&mut raw, 1, 1), 1);
    let most = TailCredit {
        credit_bytes: u32::MAX,
    };
    for request_id in [1, 2] {
        let flood = frame(0, request_id, &most, &[]).repeat(50_000);
        raw.send(&flood);
    }
    append(&victim, "three", &["four"]);
    assert_eq!(tail_until(&mut raw, 1, 1), 1, "the tail follows still");
    victim.is_sound();
    // Short heads end it.
    let flood = frame_around(MessageKind::TailCredit, 1, &[1, 2]).repeat(1_000);
    raw.send(&flood);
    let last = raw.receive_to_close().pop().unwrap();
    assert_eq!(last.code(), Some(ErrorCode::MalformedFrame as u32));
    victim.is_sound();
}

/// Asks for `count` tails of everything from `start` on; how many were refused, of which `refused_min`
/// are waited for.
fn start_tails(raw: &mut Raw, start: &TailStart, count: u64, refused_min: u64) -> u64 {
    let mut starts = Vec::new();
    for request_id in 0..count {
        starts.extend_from_slice(&frame(0, request_id, start, &[]));
    }
    raw.send(&starts);
    let mut refused = 0;
    while refused < refused_min {
        let frame = raw.receive().expect("the connection stays open");
        if frame.header.kind == MessageKind::ErrorReply {
            assert_eq!(frame.code(), Some(ErrorCode::Busy as u32));
            refused += 1;
        }
    }
    refused
}

#[test]
fn every_tail_taken_by_few_clients_is_given_back() {
    let (mut victim, log_id) = node_with_records();
    let start = TailStart {
        log_id,
        from_seq: 3,
        credit_bytes: 0,
    };
    let mut held = Vec::new();
    for _ in 0..TAILS_MAX / TAILS_PER_CONNECTION_MAX {
        let mut raw = victim.connect_client();
        start_tails(&mut raw, &start, TAILS_PER_CONNECTION_MAX + 100, 100);
        held.push(raw);
    }
    let mut raw = victim.connect_client();
    start_tails(&mut raw, &start, 100, 100);
    victim.is_sound();
    drop(held);
    // The node has seen the closes before or after this one; it is asked until it has.
    let served = (0..1_000).any(|request_id| {
        raw.send_message(request_id, &start);
        raw.answer(request_id).header.kind == MessageKind::TailData
    });
    assert!(served, "tails are given back when their connection is gone");
    victim.is_sound();
}

/// Each of thousands of readers has the whole group to look through for what little its log has.
#[test]
fn thousands_of_tails_of_a_sparse_log_do_not_hold_up_others() {
    let mut victim = Victim::start();
    let (sparse, other) = (victim.log_id("sparse"), victim.log_id("other"));
    let mut raw = victim.connect_client();
    for _ in 0..20 {
        append(&victim, "sparse", &["one"]);
        raw.send(&crate::appends::good_append(other, &[b"x"]).repeat(450));
        for _ in 0..450 {
            assert_eq!(raw.answer(1).header.kind, MessageKind::Appended);
        }
    }
    let start = TailStart {
        log_id: sparse,
        from_seq: 0,
        credit_bytes: u32::MAX,
    };
    let mut held: Vec<Raw> = (0..2).map(|_| victim.connect_client()).collect();
    for raw in &mut held {
        start_tails(raw, &start, TAILS_PER_CONNECTION_MAX, 0);
    }
    for _ in 0..10 {
        let began = Instant::now();
        append(&victim, "other", &["between"]);
        let waited = began.elapsed();
        assert!(waited < OTHERS_WAIT_MAX, "an append took {waited:?}");
    }
    // A reader among them is served in its turn, not behind all others.
    let began = Instant::now();
    start_tails(&mut raw, &start, 1, 0);
    assert_eq!(tail_until(&mut raw, 0, 20), 20);
    let waited = began.elapsed();
    assert!(waited < OTHERS_WAIT_MAX, "twenty records took {waited:?}");
    drop(held);
    victim.is_sound();
}

/// One client asks again and again, and reads no answer. Its connection stays open.
fn reads_and_takes_nothing(victim: &Victim) -> Raw {
    let log_id = victim.log_id("large");
    append(victim, "large", &[&vec![b'x'; 1_000_000]]);
    // One batch for each, so that its queue fills in steps far below the limit that closes it.
    let read = Read {
        log_id,
        from_seq: 0,
        bytes_max: 1,
        consistency: LOCAL_READ,
    };
    let mut raw = victim.connect_client();
    let mut other = victim.connect_client();
    // What the sockets take at first makes room for some more, which the later waves fill.
    for reads in [6_000, 500, 500, 500, 500] {
        let wave = frame(0, 1, &read, &[]).repeat(reads);
        let sent = raw.send_what_fits(&wave, Duration::from_secs(5));
        eprintln!("{sent} of {} bytes of requests were taken", wave.len());
        other.still_serves();
    }
    raw
}

#[test]
fn reads_that_nobody_takes_do_not_keep_others_from_reading() {
    let mut victim = Victim::start();
    let held = reads_and_takes_nothing(&victim);
    victim.is_sound();
    drop(held);
    victim.is_sound();
}

#[test]
fn reads_that_nobody_takes_do_not_keep_others_from_reading_without_io_uring() {
    let mut victim = Victim::start_on(Io::Posix);
    let held = reads_and_takes_nothing(&victim);
    victim.is_sound();
    drop(held);
    victim.is_sound();
}

#[test]
fn reads_that_nobody_took_are_forgotten_with_their_connection() {
    for io in [Io::Auto, Io::Posix] {
        let mut victim = Victim::start_on(io);
        drop(reads_and_takes_nothing(&victim));
        victim.is_sound();
    }
}

/// Tails with all credit and requests for the status, and no answer to either is read.
#[test]
fn answers_that_nobody_takes_are_bounded() {
    let mut victim = Victim::start();
    let log_id = victim.log_id("large");
    let record = vec![b'x'; 1_000_000];
    for _ in 0..4 {
        append(&victim, "large", &[&record]);
    }
    let mut tails = Vec::new();
    for request_id in 0..100 {
        let start = TailStart {
            log_id,
            from_seq: 0,
            credit_bytes: u32::MAX,
        };
        tails.extend_from_slice(&frame(0, request_id, &start, &[]));
    }
    let mut held: Vec<Raw> = (0..4).map(|_| victim.connect_client()).collect();
    held.iter_mut().for_each(|raw| raw.send(&tails));
    let status = frame_around(MessageKind::Status, 1, &[]).repeat(100_000);
    for _ in 0..2 {
        let mut raw = victim.connect_client();
        raw.send_what_fits(&status, Duration::from_secs(5));
        held.push(raw);
    }
    victim.is_sound();
    drop(held);
    victim.is_sound();
    let client = &victim.test.client;
    let read = async {
        client
            .log("large")
            .await?
            .read(3, ReadLimits::default())
            .await
    };
    let chunk = victim.test.runtime.block_on(read).unwrap();
    assert_eq!(chunk.records[0].payload.len(), record.len());
}
