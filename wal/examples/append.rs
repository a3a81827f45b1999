//! Appends a few entries to a log in a temporary directory, makes them durable, and reads them back after
//! reopening: `cargo run -p drave-wal --example append`.

use drave_batch::{BatchHeader, Batches, EntryKind};
use drave_wal::{Event, Options, Read, Wal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        segment_bytes: 8 << 20,
        store_id: 1,
        ..Options::default()
    };
    let mut wal = Wal::open(dir.path(), options.clone())?;
    println!("engine {}: {}", wal.engine_name(), wal.engine_reason());

    for index in 1..=3 {
        let body = format!("entry {index}").into_bytes();
        let mut header = BatchHeader::new(EntryKind::Data, &body, 1);
        header.index = index;
        header.term = 1;
        wal.append(&mut header, &body)?;
    }
    let mut events = Vec::new();
    while wal.durable_index() < 3 {
        wal.submit();
        wal.poll(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Durable(flushed) => println!("durable up to entry {}", flushed.index()),
                Event::Failed(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        wal.wait();
    }
    wal.close()?;

    let wal = Wal::open(dir.path(), options)?;
    let slices = match wal.read(1, 4, 1 << 20)? {
        Read::Ready(slices) => slices,
        Read::Cold(job) => job.run()?,
    };
    for batch in slices.pieces.iter().flat_map(|piece| Batches::new(piece)) {
        let batch = batch?;
        println!(
            "read {}: {}",
            batch.header.index,
            String::from_utf8_lossy(batch.body())
        );
    }
    Ok(())
}
