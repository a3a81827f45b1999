//! A plain copy: files read, sent through one socket of this machine, written into another file and flushed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Of a read, and of a write.
const PIECE_BYTES: usize = 1 << 20;

/// What is written between two flushes.
const FLUSH_BYTES: u64 = 4 << 20;

/// What was copied.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// All of it flushed.
    pub bytes: u64,
    /// From the first read to the end of the last flush.
    pub elapsed: Duration,
}

/// Copies the first `bytes_max` bytes of `sources`, one after the other, into the new file `target`.
///
/// # Errors
/// What the system refuses.
///
/// # Panics
/// If the thread that sends does.
pub fn copy(sources: &[PathBuf], bytes_max: u64, target: &Path) -> io::Result<Copied> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut file = File::create_new(target)?;
    let begun = Instant::now();
    let bytes = thread::scope(|threads| {
        // Its connection is closed when it ends, whatever became of it, and that ends the receiver.
        let sending = threads.spawn(|| send(sources, bytes_max, TcpStream::connect(address)?));
        let received = receive(listener.accept()?.0, &mut file);
        let sent = sending.join().expect("the sender does not panic");
        let (sent, received) = (sent?, received?);
        if sent != received {
            return Err(io::Error::other(format!("{received} of {sent} bytes came")));
        }
        Ok(received)
    })?;
    Ok(Copied {
        bytes,
        elapsed: begun.elapsed(),
    })
}

fn send(sources: &[PathBuf], bytes_max: u64, mut socket: TcpStream) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut sent = 0;
    for source in sources {
        let mut file = File::open(source)?.take(bytes_max - sent);
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            socket.write_all(&piece[..read])?;
            sent += read as u64;
        }
    }
    Ok(sent)
}

fn receive(mut socket: TcpStream, file: &mut File) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut received, mut flushed) = (0, 0);
    loop {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            break;
        }
        file.write_all(&piece[..read])?;
        received += read as u64;
        if received - flushed >= FLUSH_BYTES {
            file.sync_data()?;
            flushed = received;
        }
    }
    file.sync_data()?;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_the_beginning_of_the_sources() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name| directory.path().join(name);
        std::fs::write(place("a"), vec![1; 3 << 20]).unwrap();
        std::fs::write(place("b"), vec![2; 3 << 20]).unwrap();
        let copied = copy(&[place("a"), place("b")], 5 << 20, &place("c")).unwrap();
        assert_eq!(copied.bytes, 5 << 20);
        let mut wanted = vec![1; 3 << 20];
        wanted.resize(5 << 20, 2);
        assert!(std::fs::read(place("c")).unwrap() == wanted);
        assert!(copy(&[place("none")], 1, &place("d")).is_err());
    }
}
