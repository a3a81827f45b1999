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
    assert_eq!(flight.stage, Stage::Flushing);
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
