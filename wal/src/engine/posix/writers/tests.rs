//! What becomes of a write, and that several are written at once.

use super::*;

/// Calls [`write_whole`] over a file that takes each write as `take` says.
fn written(
    bytes: usize,
    mut take: impl FnMut(usize) -> io::Result<usize>,
) -> (io::Result<()>, Vec<(u64, usize)>) {
    let mut calls = Vec::new();
    let result = write_whole(&vec![1; bytes], 8192, |bytes, offset| {
        calls.push((offset, bytes.len()));
        take(calls.len())
    });
    (result, calls)
}

#[test]
fn a_short_write_goes_on_from_the_last_whole_block() {
    let (result, calls) = written(3 * BLOCK_BYTES, |call| {
        Ok([BLOCK_BYTES + 100, 2 * BLOCK_BYTES][call - 1])
    });
    result.unwrap();
    assert_eq!(
        calls,
        [(8192, 3 * BLOCK_BYTES), (8192 + 4096, 2 * BLOCK_BYTES)]
    );
}

#[test]
fn an_interrupted_write_is_made_again_and_not_for_ever() {
    for kind in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
        let (result, calls) = written(BLOCK_BYTES, |call| match call {
            1 => Err(kind.into()),
            _ => Ok(BLOCK_BYTES),
        });
        result.unwrap();
        assert_eq!(calls.len(), 2);
        let (result, calls) = written(BLOCK_BYTES, |_| Err(kind.into()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(calls.len(), RETRIES_MAX as usize + 1);
    }
}

#[test]
fn a_write_that_fails_or_takes_nothing_is_final() {
    let (result, calls) = written(BLOCK_BYTES, |_| {
        Err(io::Error::from_raw_os_error(libc::EIO))
    });
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(calls.len(), 1);
    let (result, calls) = written(BLOCK_BYTES, |_| Ok(0));
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(calls.len(), 1);
}

#[test]
fn every_write_completes_and_is_in_the_file() {
    for direct in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 64 * BLOCK_BYTES]).unwrap();
        let file = Arc::new(File::options().write(true).open(&path).unwrap());
        let mailbox = Mailbox::new().unwrap();
        let writers = Writers::start(&mailbox, direct, &FaultSwitch::default()).unwrap();
        assert_eq!(
            writers.threads.len(),
            if direct { DIRECT_THREADS } else { 1 }
        );
        for number in 0..OPERATIONS_MAX as u64 {
            writers.send(Write {
                number,
                file: Arc::clone(&file),
                target: Target::Meta,
                offset: number * BLOCK_BYTES as u64,
                blocks: Blocks::copy_of(&[number as u8 + 1; BLOCK_BYTES]),
            });
        }
        drop(writers);
        let mut done = Vec::new();
        mailbox.drain(&mut done);
        let mut numbers: Vec<u64> = done.iter().map(|done| done.completion.number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..OPERATIONS_MAX as u64));
        assert!(done.iter().all(|done| done.completion.result.is_ok()));
        let content = std::fs::read(&path).unwrap();
        for (position, block) in content.chunks(BLOCK_BYTES).enumerate() {
            assert!(block.iter().all(|byte| *byte == position as u8 + 1));
        }
    }
}
