//! One suite for every engine over real files: the same calls give the same log.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{append, append_flushed, durable, flush, read, read_all, settle, small_options};
use drave_batch::BatchRef;
use drave_wal::{
    AppendError, ChangeError, EngineChoice, Event, OpenError, Options, Read, ReadError, Wal,
};

fn options(engine: EngineChoice) -> Options {
    Options {
        engine,
        ..small_options()
    }
}

fn open(dir: &Path, engine: EngineChoice) -> Wal {
    Wal::open(dir, options(engine)).unwrap()
}

/// Every test of the suite for both engines.
macro_rules! suite {
    ($($name:ident)*) => {
        mod posix {
            $(#[test] fn $name() { super::$name(drave_wal::EngineChoice::Posix); })*
        }
        mod io_uring {
            $(#[test] fn $name() {
                if super::uring_allowed() {
                    super::$name(drave_wal::EngineChoice::IoUring);
                }
            })*
        }
    };
}

suite! {
    a_fresh_log_is_empty_and_reopens_empty
    appended_entries_are_there_after_reopening
    events_name_index_and_term_of_the_durable_prefix
    batches_are_refused_by_index_chain_term_and_size
    a_follower_keeps_the_leaders_bytes
    a_truncated_suffix_stays_gone
    a_truncation_into_an_older_segment_stays_gone
    a_completion_from_before_a_truncation_reports_nothing_beyond_it
    a_truncated_prefix_goes_by_whole_segments
    slices_survive_truncation_and_recycling
    meta_values_are_kept_and_come_before_later_entries
    a_reset_log_goes_on_elsewhere
    a_full_queue_says_so_and_recovers
    large_batches_make_large_groups
    the_lock_keeps_a_second_process_out
    another_store_is_refused
    reading_says_where_it_ends
    sealed_segments_are_opened_by_their_seal
    an_idle_log_records_its_last_group
    the_event_fd_tells_of_completions
    old_segments_are_closed
}

fn uring_allowed() -> bool {
    let dir = tempfile::tempdir().unwrap();
    match Wal::open(dir.path(), options(EngineChoice::IoUring)) {
        Ok(_) => true,
        Err(OpenError::Engine { reason }) => {
            println!("io_uring is not allowed here: {reason}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn a_fresh_log_is_empty_and_reopens_empty(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    for created in [true, false, false] {
        let wal = open(dir.path(), engine);
        assert_eq!(
            (wal.first_index(), wal.last_index(), wal.last_crc()),
            (1, 0, 0)
        );
        assert_eq!(
            (wal.durable_index(), wal.queued_bytes(), wal.meta()),
            (0, 0, None)
        );
        assert_eq!(wal.recovery().created, created);
        assert_eq!(wal.recovery().torn, None);
        assert!(
            wal.engine_reason().contains("writes"),
            "{}",
            wal.engine_reason()
        );
    }
}

fn appended_entries_are_there_after_reopening(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 1..=4 {
        let mut wal = open(dir.path(), engine);
        assert_eq!(read_all(&wal), expected);
        assert_eq!(wal.durable_index(), wal.last_index());
        for size in [0, 1, 100, 5_000, 12_000, 4_096 - 64 - 96, 20_000] {
            for _ in 0..3 {
                append(&mut wal, round, size);
            }
            flush(&mut wal);
        }
        expected = read_all(&wal);
        assert_eq!(expected.len() as u64, round * 21);
    }
    let wal = open(dir.path(), engine);
    assert_eq!(read_all(&wal), expected);
    assert!(wal.recovery().segments > 4);
    let terms: Vec<(u64, u64)> = wal
        .term_runs()
        .iter()
        .map(|run| (run.first_index, run.term))
        .collect();
    assert_eq!(terms, [(1, 1), (22, 2), (43, 3), (64, 4)]);
}

fn events_name_index_and_term_of_the_durable_prefix(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    for index in 1..=50 {
        append(&mut wal, 3 + index / 20, 1_000);
    }
    assert_eq!(wal.durable_index(), 0);
    assert!(wal.queued_bytes() > 50_000);
    let events = flush(&mut wal);
    assert_eq!(durable(&events), Some((50, 5)));
    let indexes: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Durable(flushed) => Some(flushed.index()),
            _ => None,
        })
        .collect();
    assert!(indexes.is_sorted(), "{indexes:?}");
    assert_eq!((wal.durable_index(), wal.queued_bytes()), (50, 0));
    assert!(wal.statistics().groups >= 4);
}

fn batches_are_refused_by_index_chain_term_and_size(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append(&mut wal, 2, 10);
    let try_append = |wal: &mut Wal, index, term, body: &[u8]| {
        wal.append(&mut common::header(index, term, body), body)
    };
    for found in [0, 1, 3] {
        let error = try_append(&mut wal, found, 2, b"x").unwrap_err();
        assert!(
            matches!(error, AppendError::Index { expected: 2, found: f } if f == found),
            "{error}"
        );
    }
    let error = try_append(&mut wal, 2, 1, b"x").unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Term {
                expected: 2,
                found: 1
            }
        ),
        "{error}"
    );
    let error = try_append(&mut wal, 2, 2, &vec![0; 60_000]).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    let error = wal
        .append(&mut common::header(2, 2, b"abc"), b"ab")
        .unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Body {
                expected: 3,
                found: 2
            }
        ),
        "{error}"
    );
    let mut bytes = Vec::new();
    let mut header = common::header(2, 2, b"x");
    header.prev_crc = wal.last_crc() ^ 1;
    header.encode_with_body(b"x", &mut bytes);
    let error = wal
        .append_encoded(&BatchRef::decode(&bytes).unwrap())
        .unwrap_err();
    assert!(
        matches!(error, AppendError::Chain { index: 2, .. }),
        "{error}"
    );
    assert_eq!(wal.last_index(), 1);
    flush(&mut wal);
}

fn a_follower_keeps_the_leaders_bytes(engine: EngineChoice) {
    let (leader_dir, follower_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = open(leader_dir.path(), engine);
    let mut follower = open(follower_dir.path(), engine);
    for index in 0..100 {
        append(&mut leader, 1 + index / 30, (index * 37 % 900) as usize);
    }
    let Read::Ready(slices) = leader.read(1, 101, usize::MAX).unwrap() else {
        panic!("in memory")
    };
    for piece in &slices.pieces {
        for batch in drave_batch::Batches::new(piece) {
            follower.append_encoded(&batch.unwrap()).unwrap();
        }
    }
    flush(&mut leader);
    flush(&mut follower);
    drop(follower);
    let follower = open(follower_dir.path(), engine);
    assert_eq!(read_all(&follower), read_all(&leader));
    assert_eq!(follower.last_crc(), leader.last_crc());
}

fn a_truncated_suffix_stays_gone(engine: EngineChoice) {
    for append_after in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = open(dir.path(), engine);
        append_flushed(&mut wal, 1, 6, 500);
        let kept = read(&wal, 1, 4, usize::MAX).unwrap();
        wal.truncate_suffix(4).unwrap();
        assert_eq!((wal.last_index(), wal.durable_index()), (3, 3));
        assert_eq!(wal.last_crc(), kept[2].crc);
        if append_after {
            append(&mut wal, 2, 700);
        }
        flush(&mut wal);
        let expected = read_all(&wal);
        assert_eq!(expected[..3], kept);
        drop(wal);
        let wal = open(dir.path(), engine);
        assert_eq!(read_all(&wal), expected);
        assert_eq!(wal.last_index(), if append_after { 4 } else { 3 });
    }
}

fn a_truncation_into_an_older_segment_stays_gone(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 40, 8_000);
    assert!(wal.statistics().segments >= 5);
    let kept = read(&wal, 1, 11, usize::MAX).unwrap();
    drop(wal);
    let mut wal = open(dir.path(), engine);
    wal.truncate_suffix(11).unwrap();
    assert_eq!(wal.last_crc(), kept[9].crc);
    flush(&mut wal);
    drop(wal);
    let mut wal = open(dir.path(), engine);
    assert_eq!(read_all(&wal), kept);
    append_flushed(&mut wal, 2, 20, 8_000);
    let expected = read_all(&wal);
    drop(wal);
    let wal = open(dir.path(), engine);
    assert_eq!(read_all(&wal), expected);
    assert_eq!(expected.len(), 30);
}

fn a_completion_from_before_a_truncation_reports_nothing_beyond_it(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 2, 100);
    for _ in 0..5 {
        append(&mut wal, 1, 100);
    }
    wal.submit();
    wal.truncate_suffix(4).unwrap();
    append(&mut wal, 9, 100);
    append(&mut wal, 9, 100);
    // The first group is in flight with the old entries 3..=7; it makes only entry 3 durable.
    let mut events = Vec::new();
    while durable(&events).is_none() {
        wait_readable(&wal);
        wal.poll(&mut events);
    }
    assert_eq!(durable(&events), Some((3, 1)));
    assert_eq!(wal.durable_index(), 3);
    assert_eq!(durable(&flush(&mut wal)), Some((5, 9)));
}

fn a_truncated_prefix_goes_by_whole_segments(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 40, 8_000);
    let all = read_all(&wal);
    let segments = wal.statistics().segments;
    wal.truncate_prefix(20).unwrap();
    let first = wal.first_index();
    assert!(first > 1 && first <= 20, "{first}");
    assert!(
        matches!(wal.read(1, 2, 0), Err(ReadError::Compacted { found: 1, first_index }) if first_index == first)
    );
    assert!(matches!(
        wal.truncate_prefix(42),
        Err(ChangeError::Index {
            lo: 1,
            hi: 42,
            found: 42
        })
    ));
    settle(&mut wal);
    assert!(wal.statistics().segments < segments);
    assert_eq!(read_all(&wal), all[first as usize - 1..]);
    drop(wal);
    let wal = open(dir.path(), engine);
    assert_eq!(wal.first_index(), first);
    assert_eq!(read_all(&wal), all[first as usize - 1..]);
    assert_eq!(wal.term(first - 1), Some(1));
}

fn slices_survive_truncation_and_recycling(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::open(
        dir.path(),
        Options {
            tail_bytes_max: 0,
            ..options(engine)
        },
    )
    .unwrap();
    append_flushed(&mut wal, 1, 30, 8_000);
    let (mut held, mut copies) = (Vec::new(), Vec::new());
    let mut next = 1;
    while next <= 20 {
        let slices = match wal.read(next, 21, 30_000).unwrap() {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run().unwrap(),
        };
        next = slices.hi;
        copies.extend(slices.pieces.iter().map(|piece| piece.to_vec()));
        held.extend(slices.pieces);
    }
    wal.truncate_prefix(25).unwrap();
    settle(&mut wal);
    wal.truncate_suffix(28).unwrap();
    append_flushed(&mut wal, 2, 60, 8_000);
    wal.truncate_prefix(80).unwrap();
    settle(&mut wal);
    append_flushed(&mut wal, 3, 60, 8_000);
    for (piece, copy) in held.iter().zip(&copies) {
        assert_eq!(piece, copy);
    }
    drop(wal);
    assert!(held.iter().zip(&copies).all(|(piece, copy)| piece == copy));
    assert_eq!(open(dir.path(), engine).last_index(), 147);
}

fn meta_values_are_kept_and_come_before_later_entries(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    assert_eq!(wal.write_meta(b"one").unwrap(), 1);
    assert_eq!(wal.meta(), None);
    append(&mut wal, 1, 10);
    let mut events = Vec::new();
    wal.flush(&mut events).unwrap();
    let order: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::MetaDurable(meta) if meta.sequence() == 1 => Some("meta"),
            Event::Durable(_) => Some("entry"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["meta", "entry"]);
    assert_eq!(wal.meta(), Some(&b"one"[..]));
    for value in 0..10u8 {
        wal.write_meta(&[value; 1024]).unwrap();
    }
    assert!(matches!(
        wal.write_meta(&[0; 1025]),
        Err(ChangeError::TooLarge { .. })
    ));
    flush(&mut wal);
    drop(wal);
    let mut wal = open(dir.path(), engine);
    assert_eq!(wal.meta(), Some(&[9; 1024][..]));
    assert!(!wal.recovery().meta_healed);
    assert_eq!(wal.write_meta(b"").unwrap(), 12);
    flush(&mut wal);
    drop(wal);
    assert_eq!(open(dir.path(), engine).meta(), Some(&b""[..]));
}

fn a_reset_log_goes_on_elsewhere(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 20, 8_000);
    wal.reset(1_001, 7, 0xABCD).unwrap();
    assert_eq!(
        (wal.first_index(), wal.last_index(), wal.last_crc()),
        (1_001, 1_000, 0xABCD)
    );
    assert_eq!(durable(&flush(&mut wal)), Some((1_000, 7)));
    settle(&mut wal);
    assert_eq!(wal.statistics().segments, 1);
    drop(wal);
    let mut wal = open(dir.path(), engine);
    assert_eq!(
        (wal.first_index(), wal.last_index(), wal.last_crc()),
        (1_001, 1_000, 0xABCD)
    );
    assert_eq!(wal.term(1_000), Some(7));
    append_flushed(&mut wal, 8, 20, 8_000);
    let expected = read_all(&wal);
    assert_eq!(expected[0].prev_crc, 0xABCD);
    wal.reset(500, 9, 0x1234).unwrap();
    append_flushed(&mut wal, 9, 20, 8_000);
    let expected = read_all(&wal);
    drop(wal);
    let wal = open(dir.path(), engine);
    assert_eq!((wal.first_index(), wal.last_index()), (500, 519));
    assert_eq!(read_all(&wal), expected);
}

fn a_full_queue_says_so_and_recovers(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        queue_bytes_max: 10_000,
        ..options(engine)
    };
    let mut wal = Wal::open(dir.path(), options).unwrap();
    let body = vec![1; 3_000];
    let mut appended = 0;
    let error = loop {
        match wal.append(&mut common::header(appended + 1, 1, &body), &body) {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            error,
            AppendError::Full {
                queued_bytes: 9_288,
                limit: 10_000
            }
        ),
        "{error}"
    );
    assert_eq!(appended, 3);
    // What the group needs to go on is not refused because records wait.
    wal.has_room_for_control(96).unwrap();
    assert!(wal.has_room(3_000).is_err());
    let mut noop = drave_batch::BatchHeader {
        kind: drave_batch::EntryKind::Noop,
        record_count: 0,
        ..common::header(appended + 1, 1, &[])
    };
    wal.append(&mut noop, &[]).unwrap();
    flush(&mut wal);
    append(&mut wal, 1, 40_000);
    flush(&mut wal);
    assert_eq!(wal.durable_index(), 5);
}

fn large_batches_make_large_groups(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 8 << 20,
        group_bytes_max: 4_096,
        ..options(engine)
    };
    let mut wal = Wal::open(dir.path(), options.clone()).unwrap();
    for bytes in [2 << 20, 100, (2 << 20) - 1, 4_000, 2 << 20, 2 << 20] {
        append(&mut wal, 1, bytes);
    }
    flush(&mut wal);
    let expected = read_all(&wal);
    drop(wal);
    assert_eq!(read_all(&Wal::open(dir.path(), options).unwrap()), expected);
}

fn the_lock_keeps_a_second_process_out(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), engine);
    let error = Wal::open(dir.path(), options(engine)).unwrap_err();
    assert!(
        matches!(&error, OpenError::Locked { path } if path.ends_with("LOCK")),
        "{error}"
    );
    drop(wal);
    open(dir.path(), engine);
}

fn another_store_is_refused(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), engine));
    let error = Wal::open(
        dir.path(),
        Options {
            store_id: 8,
            ..options(engine)
        },
    )
    .unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Store {
                expected: 8,
                found: 7,
                ..
            }
        ),
        "{error}"
    );
}

fn reading_says_where_it_ends(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    assert!(matches!(
        wal.read(1, 2, 10),
        Err(ReadError::Beyond {
            found: 1,
            last_index: 0
        })
    ));
    append_flushed(&mut wal, 1, 5, 1_000);
    let Read::Ready(slices) = wal.read(2, 100, 2_500).unwrap() else {
        panic!("in memory")
    };
    assert_eq!((slices.lo, slices.hi, slices.pieces.len()), (2, 4, 2));
    assert!(matches!(
        wal.read(3, 3, 10),
        Err(ReadError::Range { lo: 3, hi: 3 })
    ));
    assert!(matches!(
        wal.read(0, 3, 10),
        Err(ReadError::Compacted {
            found: 0,
            first_index: 1
        })
    ));
    drop(wal);
    let wal = open(dir.path(), engine);
    let Read::Cold(job) = wal.read(2, 100, 2_500).unwrap() else {
        panic!("not in memory")
    };
    let slices = std::thread::spawn(move || job.run())
        .join()
        .unwrap()
        .unwrap();
    assert_eq!((slices.lo, slices.hi), (2, 4));
}

fn sealed_segments_are_opened_by_their_seal(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 40, 8_000);
    let expected = read_all(&wal);
    drop(wal);
    let by_seal = open(dir.path(), engine);
    let groups = by_seal.recovery().groups;
    assert_eq!(read_all(&by_seal), expected);
    drop(by_seal);
    let options = Options {
        verify_on_open: true,
        ..options(engine)
    };
    let whole = Wal::open(dir.path(), options).unwrap();
    assert!(
        groups < whole.recovery().groups,
        "{groups} {}",
        whole.recovery().groups
    );
    assert_eq!(read_all(&whole), expected);
}

fn an_idle_log_records_its_last_group(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        idle_us: 1,
        ..options(engine)
    };
    let mut wal = Wal::open(dir.path(), options.clone()).unwrap();
    append_flushed(&mut wal, 1, 1, 100);
    while wal.statistics().groups < 2 {
        wal.wait();
        wal.poll(&mut Vec::new());
    }
    let written = wal.statistics().written_bytes;
    settle(&mut wal);
    assert_eq!(
        (wal.statistics().written_bytes, written),
        (8_192, 8_192),
        "one idle group, not more"
    );
    drop(wal);
    let wal = Wal::open(dir.path(), options).unwrap();
    assert_eq!((wal.last_index(), wal.recovery().groups), (1, 2));
}

fn the_event_fd_tells_of_completions(engine: EngineChoice) {
    use rustix::event::{PollFd, PollFlags, poll};
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    settle(&mut wal);
    append(&mut wal, 1, 100);
    wal.submit();
    let mut events = Vec::new();
    while durable(&events).is_none() {
        let fd = wal.event_fd().unwrap();
        assert_eq!(
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap(),
            1
        );
        wal.poll(&mut events);
    }
    // The kernel may tell of a completion that was reaped already, but not again and again.
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    settle(&mut wal);
    let mut readable = 0;
    for _ in 0..100 {
        let fd = wal.event_fd().unwrap();
        readable += poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap();
        wal.poll(&mut events);
    }
    assert!(readable <= 1, "readable {readable} times for nothing");
}

fn old_segments_are_closed(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = open(dir.path(), engine);
    append_flushed(&mut wal, 1, 60, 8_000);
    assert!(wal.statistics().segments > 8);
    settle(&mut wal);
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let inside = links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|path| path.starts_with(dir.path()) && path.extension().is_some());
    assert_eq!(
        inside.count(),
        2,
        "the active segment and the one before it"
    );
    wal.close().unwrap();
}

/// Waits for a completion without letting anything more start.
fn wait_readable(wal: &Wal) {
    use rustix::event::{PollFd, PollFlags, poll};
    let fd = wal.event_fd().unwrap();
    assert_eq!(
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap(),
        1
    );
}
