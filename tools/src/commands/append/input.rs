//! Reads an input in big blocks on a thread of its own, a few blocks ahead.

use std::io::{self, Read};
use std::thread;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes allocated at once; many small reads share one allocation.
const BUFFER_BYTES: usize = 256 << 10;

/// With less room than this a new buffer is taken.
const ROOM_BYTES_MIN: usize = 16 << 10;

/// Blocks that may wait to be used.
const BLOCKS_AHEAD_MAX: usize = 8;

/// The blocks of `input` in order; an error is the last item, the end has none.
///
/// The thread ends with the input, or at the next block after the receiver is gone; it may be stuck in a
/// read for ever, so nobody waits for it.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(
    mut input: impl Read + Send + 'static,
) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD_MAX);
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let mut buffer = BytesMut::new();
            loop {
                if buffer.len() < ROOM_BYTES_MIN {
                    buffer = BytesMut::zeroed(BUFFER_BYTES);
                }
                let block = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(buffer.split_to(length).freeze()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = block.is_err();
                if sender.blocking_send(block).is_err() || last {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, with an interruption before each, then an error.
    struct Halting {
        left: usize,
        interrupt: bool,
    }

    impl Read for Halting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupt = !self.interrupt;
            if self.interrupt {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if self.left == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.left -= 1;
            buffer[0] = b'x';
            Ok(1)
        }
    }

    #[tokio::test]
    async fn all_bytes_arrive_and_then_the_end() {
        let bytes: Vec<u8> = (0..1_000_000_u32)
            .map(|number| (number % 251) as u8)
            .collect();
        let mut blocks = spawn(io::Cursor::new(bytes.clone())).unwrap();
        let mut found = Vec::new();
        while let Some(block) = blocks.recv().await {
            found.extend_from_slice(&block.unwrap());
        }
        assert!(found == bytes);
    }

    #[tokio::test]
    async fn small_reads_share_buffers_and_errors_come_last() {
        let mut blocks = spawn(Halting {
            left: 1_000,
            interrupt: false,
        })
        .unwrap();
        let (mut count, mut previous, mut joins) = (0, Bytes::new(), 0);
        let error = loop {
            match blocks.recv().await.unwrap() {
                Ok(block) => {
                    assert_eq!(block, "x");
                    joins += usize::from(block.as_ptr() as usize == previous.as_ptr() as usize + 1);
                    (count, previous) = (count + 1, block);
                }
                Err(error) => break error,
            }
        };
        assert_eq!((count, error.kind()), (1_000, io::ErrorKind::TimedOut));
        assert_eq!(joins, 999);
        assert!(blocks.recv().await.is_none());
    }
}
