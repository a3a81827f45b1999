//! Pieces and times of filling, and that a file is filled to its end.

use super::*;

const FILE_BYTES: u64 = 64 << 20;

/// Fills a file on a disk that takes `small_us` for a small piece and four times as long for a large one; gives
/// the time taken and how many pieces were large.
fn fill_slowly(available: Duration, small_us: u64) -> (Duration, usize) {
    let (mut offset, mut elapsed, mut large) = (0, Duration::from_micros(1), 0);
    while offset < FILE_BYTES {
        let piece = piece_bytes(elapsed, available, offset, FILE_BYTES);
        let factor = if piece > SMALL_BYTES { 4 } else { 1 };
        large += usize::from(piece > SMALL_BYTES);
        elapsed += Duration::from_micros(small_us * factor);
        offset += piece as u64;
    }
    assert_eq!(offset, FILE_BYTES);
    (elapsed, large)
}

#[test]
fn with_time_every_piece_is_small_and_without_every_one_is_large() {
    let (taken, large) = fill_slowly(TIME_MAX, 150);
    assert_eq!((taken.as_millis(), large), (153, 0));
    let (taken, large) = fill_slowly(Duration::ZERO, 150);
    assert_eq!((taken.as_millis(), large), (38, 64));
}

#[test]
fn a_slow_disk_gets_as_many_large_pieces_as_keep_it_on_time() {
    let available = TIME_MAX;
    let (taken, large) = fill_slowly(available, 500);
    assert!(large > 0 && large < 64, "{large}");
    assert!(
        taken <= available + Duration::from_millis(4),
        "one piece late at most: {taken:?}"
    );
}

#[test]
fn half_the_time_between_two_is_available_up_to_a_limit() {
    assert_eq!(time_available(None), Duration::ZERO);
    let idle = Duration::from_millis(100);
    assert_eq!(time_available(Some(idle)), idle / 2);
    assert_eq!(time_available(Some(Duration::from_secs(60))), TIME_MAX);
}

#[test]
fn a_file_is_filled_to_its_end_whatever_the_pace() {
    let directory = tempfile::tempdir().unwrap();
    let pace = Pace::default();
    let bytes = 3 * LARGE_BYTES + 5 * 4096;
    // The second has some time, the first none.
    for name in ["first", "second"] {
        let path = directory.path().join(name);
        std::fs::write(&path, vec![0xa5; bytes + 4096]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        pace.fill(&file, bytes as u64).unwrap();
        let read = std::fs::read(&path).unwrap();
        assert!(read[..bytes].iter().all(|byte| *byte == 0));
        assert!(read[bytes..].iter().all(|byte| *byte == 0xa5), "no further");
        assert!(pace.last_end.lock().unwrap().is_some());
    }
}
