//! What one durable append costs in instructions: 128-byte entries, 4096 waiting, everything from the call
//! to the completion, background work of the same process included.
//!
//! Run it under an instruction counter with two counts and divide the difference, so that opening and closing
//! fall out; `tools/checks/instructions.sh` does.
//! usage: instructions ENGINE(io_uring|posix) APPENDS [BODY_BYTES [WAITING]]

use drave_batch::{BatchHeader, EntryKind};
use drave_wal::{EngineChoice, Options, Wal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |position: usize, default: u64| match arguments.get(position) {
        Some(text) => text.parse::<u64>(),
        None => Ok(default),
    };
    let engine = match arguments.get(1).map(String::as_str) {
        Some("io_uring") => EngineChoice::IoUring,
        Some("posix") => EngineChoice::Posix,
        _ => {
            return Err("usage: instructions io_uring|posix APPENDS [BODY_BYTES [WAITING]]".into());
        }
    };
    let (appends, bytes, waiting) = (number(2, 0)?, number(3, 128)?, number(4, 4_096)?);
    let directory = std::env::temp_dir().join(format!("drave-instructions-{}", std::process::id()));
    let options = Options {
        engine,
        ..Options::default()
    };
    let mut wal = Wal::open(&directory, options)?;
    let body = vec![0x5A; usize::try_from(bytes)?];
    let mut events = Vec::new();
    while !wal.is_quiet() {
        wal.wait();
        wal.poll(&mut events);
    }
    while wal.durable_index() < appends {
        while wal.last_index() < appends && wal.last_index() - wal.durable_index() < waiting {
            let mut header = BatchHeader::new(EntryKind::Data, &body, 1);
            (header.index, header.term) = (wal.last_index() + 1, 1);
            wal.append(&mut header, &body)?;
        }
        wal.wait();
        wal.poll(&mut events);
        events.clear();
    }
    let statistics = wal.statistics();
    println!(
        "{}: {} appends, {} flushes, {} bytes written",
        wal.engine_name(),
        wal.durable_index(),
        statistics.groups,
        statistics.written_bytes
    );
    wal.close()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
