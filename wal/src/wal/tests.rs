//! Which engine is chosen, and why.

use std::io;

use super::*;

fn refused() -> io::Result<io_uring::IoUring> {
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

#[test]
fn a_forbidden_ring_falls_back_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let engine = make_engine_with(dir.path(), EngineChoice::Auto, refused).unwrap();
    assert_eq!(engine.name(), "posix");
    assert!(
        engine.reason().contains("io_uring is not available"),
        "{}",
        engine.reason()
    );
    assert!(
        engine.reason().contains("on a thread") || engine.reason().contains("on threads"),
        "{}",
        engine.reason()
    );
    let options = Options {
        segment_bytes: 32 << 10,
        prewrite: false,
        ..Options::default()
    };
    let mut wal = Wal::open_with(engine, options).unwrap();
    wal.write_meta(b"works").unwrap();
    wal.flush(&mut Vec::new()).unwrap();
    assert_eq!(wal.meta(), Some(&b"works"[..]));
}

#[test]
fn a_forbidden_ring_that_was_asked_for_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = make_engine_with(dir.path(), EngineChoice::IoUring, refused) else {
        panic!("the ring was refused");
    };
    assert!(
        matches!(&error, OpenError::Engine { reason } if reason.contains("io_uring")),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

/// What waits for a time sleeps until then, and is woken by what completes before.
#[test]
fn a_wait_with_a_time_ends_at_it_or_with_a_completion() {
    for choice in [EngineChoice::Posix, EngineChoice::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = make_engine(dir.path(), choice).unwrap();
        // A signal may end a wait early, so not every one need reach its time.
        let until_us = engine.now_us() + 20_000;
        let mut waits = 0;
        while engine.now_us() < until_us {
            engine.wait(Some(until_us));
            waits += 1;
        }
        assert!(waits < 10, "{waits} waits for 20 ms");
        let far_us = engine.now_us() + 3_600_000_000;
        let (spare, bytes, prewrite) = (1, 32 << 10, true);
        let operation = crate::engine::Operation::Prepare {
            spare,
            bytes,
            prewrite,
        };
        engine.start(1, operation);
        engine.submit();
        let mut completions = Vec::new();
        while completions.is_empty() {
            engine.wait(Some(far_us));
            engine.poll(&mut completions);
        }
        assert!(engine.now_us() < far_us);
    }
}

#[test]
fn an_engine_that_was_asked_for_is_not_probed() {
    let dir = tempfile::tempdir().unwrap();
    let probe = || -> io::Result<io_uring::IoUring> { panic!("nobody asked for a ring") };
    let engine = make_engine_with(dir.path(), EngineChoice::Posix, probe).unwrap();
    assert!(
        engine.reason().starts_with("asked for"),
        "{}",
        engine.reason()
    );
}

#[test]
fn a_log_moves_between_threads_and_cold_reads_run_on_any() {
    fn sends<T: Send + 'static>() {}
    sends::<Wal>();
    sends::<ColdRead>();
    sends::<Slices>();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 32 << 10,
        prewrite: false,
        ..Options::default()
    };
    let mut wal = Wal::open(dir.path(), options).unwrap();
    wal.write_meta(b"here").unwrap();
    wal.flush(&mut Vec::new()).unwrap();
    let there = std::thread::spawn(move || {
        wal.write_meta(b"there").unwrap();
        wal.flush(&mut Vec::new()).unwrap();
        wal
    });
    let mut wal = there.join().unwrap();
    wal.write_meta(b"back").unwrap();
    wal.flush(&mut Vec::new()).unwrap();
    assert_eq!(wal.meta(), Some(&b"back"[..]));
}
