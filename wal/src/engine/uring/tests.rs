//! What becomes of a request's result.

use super::*;

fn flight(bytes: usize) -> Flight {
    Flight {
        number: 1,
        file: Arc::new(tempfile::tempfile().unwrap()),
        offset: 0,
        blocks: Blocks::copy_of(&vec![1; bytes]),
        written: 0,
        retries: 0,
        stage: Stage::Writing,
    }
}

#[test]
fn a_direct_write_is_done_when_all_is_written() {
    let mut flight = flight(3 * BLOCK_BYTES);
    assert!(matches!(
        advance(&mut flight, 3 * BLOCK_BYTES as i32, true),
        Next::Done(Ok(()))
    ));
}

#[test]
fn a_buffered_write_is_done_only_after_its_flush() {
    let mut flight = flight(BLOCK_BYTES);
    assert!(matches!(
        advance(&mut flight, BLOCK_BYTES as i32, false),
        Next::Again
    ));
    assert_eq!(flight.stage, Stage::Written);
    flight.stage = Stage::Flushing;
    assert!(matches!(advance(&mut flight, 0, false), Next::Done(Ok(()))));
}

#[test]
fn a_short_write_goes_on_from_the_last_whole_block() {
    let mut flight = flight(3 * BLOCK_BYTES);
    assert!(matches!(
        advance(&mut flight, BLOCK_BYTES as i32 + 100, true),
        Next::Again
    ));
    assert_eq!(flight.written, BLOCK_BYTES);
    assert!(matches!(
        advance(&mut flight, 2 * BLOCK_BYTES as i32, true),
        Next::Done(Ok(()))
    ));
}

#[test]
fn interruptions_are_retried_and_not_for_ever() {
    for code in [libc::EINTR, libc::EAGAIN] {
        let mut flight = flight(BLOCK_BYTES);
        for _ in 0..RETRIES_MAX {
            assert!(matches!(advance(&mut flight, -code, true), Next::Again));
        }
        assert!(matches!(
            advance(&mut flight, -code, true),
            Next::Done(Err(_))
        ));
    }
}

#[test]
fn every_other_error_and_a_write_of_nothing_end_it() {
    for code in [
        libc::EIO,
        libc::ENOSPC,
        libc::ECANCELED,
        libc::EFBIG,
        libc::EROFS,
    ] {
        for stage in [Stage::Writing, Stage::Flushing] {
            let mut flight = flight(BLOCK_BYTES);
            flight.stage = stage;
            let Next::Done(Err(error)) = advance(&mut flight, -code, false) else {
                panic!("{code}")
            };
            assert_eq!(error.raw_os_error(), Some(code));
        }
    }
    assert!(matches!(
        advance(&mut flight(BLOCK_BYTES), 0, true),
        Next::Done(Err(_))
    ));
}

/// Two flushes of one open file at once could tell the wrong one of a failed write.
#[test]
fn one_flush_of_a_file_at_a_time() {
    let Ok(ring) = probe() else {
        println!("skipped: io_uring is not allowed here");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut engine = UringEngine::new(ring, Directory::open(dir.path()).unwrap()).unwrap();
    engine.direct = false;
    let name = |segment_seq| crate::format::SegmentName {
        segment_seq,
        first_index: 1,
    };
    for segment in [1, 2].map(name) {
        let path = dir.path().join(FileName::Segment(segment).to_string());
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        engine
            .opened
            .insert(Target::Segment(segment), file.unwrap());
    }
    let mut completions = Vec::new();
    let (mut waited, mut number) = (0, 0);
    for _ in 0..50 {
        for position in 0..8 {
            let target = Target::Segment(name(1 + position % 2));
            let blocks = Blocks::copy_of(&vec![7; BLOCK_BYTES]);
            let offset = position * BLOCK_BYTES as u64;
            engine.start(
                number,
                Operation::Write {
                    target,
                    offset,
                    blocks,
                },
            );
            number += 1;
        }
        while engine.writes_under_way() {
            engine.submit();
            let flushing: Vec<&Flight> = engine.flights.iter().flatten().collect();
            let flushing = flushing
                .iter()
                .filter(|flight| flight.stage == Stage::Flushing);
            let files: Vec<*const File> =
                flushing.map(|flight| Arc::as_ptr(&flight.file)).collect();
            let mut distinct = files.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), files.len());
            let written = |flight: &&Flight| flight.stage == Stage::Written;
            waited += engine.flights.iter().flatten().filter(written).count();
            engine.wait(None);
            engine.poll(&mut completions);
        }
    }
    assert_eq!(completions.len() as u64, number);
    assert!(
        completions
            .iter()
            .all(|completion| completion.result.is_ok())
    );
    assert!(waited > 0, "flushes that had to wait were seen");
}
