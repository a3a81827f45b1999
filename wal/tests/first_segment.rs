//! A log that was made with segments of one size and is first used with those of another.
#![allow(clippy::unwrap_used)]

mod common;

use common::{append_flushed, read_all, settle, small_options};
use drave_wal::{Behaviour, CrashMode, FileName, MemoryDisk, OpenError, Options, Salvage, Wal};

fn with_segments_of(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        ..small_options()
    }
}

fn open(disk: &MemoryDisk, segment_bytes: u64) -> Result<Wal, OpenError> {
    let options = with_segments_of(segment_bytes);
    Wal::open_with(disk.engine(Behaviour::default()), options)
}

/// Made small, with a value beside it and nothing in it.
fn made() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk, 0).unwrap();
    wal.write_meta(b"vote").unwrap();
    common::flush(&mut wal);
    drop(wal);
    assert_eq!(segments(&disk), [32 << 10]);
    disk
}

fn segments(disk: &MemoryDisk) -> Vec<u64> {
    let files = disk.list().into_iter();
    let segments = files.filter(|(name, _)| matches!(name, FileName::Segment(_)));
    segments.map(|(_, bytes)| bytes).collect()
}

#[test]
fn an_unused_log_takes_the_size_of_segments_that_it_is_opened_with() {
    let disk = made();
    for bytes in [64 << 10, 256 << 10, 128 << 10] {
        let wal = open(&disk, bytes).unwrap();
        assert_eq!(wal.meta(), Some(&b"vote"[..]));
        assert_eq!((wal.first_index(), wal.last_index()), (1, 0));
        drop(wal);
        assert_eq!(segments(&disk), [bytes]);
    }
    let mut wal = open(&disk, 128 << 10).unwrap();
    append_flushed(&mut wal, 1, 3, 3_000);
    settle(&mut wal);
    drop(wal);
    // What has been written to stays as it is.
    let wal = open(&disk, 64 << 10).unwrap();
    assert_eq!(read_all(&wal).len(), 3);
    drop(wal);
    assert_eq!(segments(&disk), [128 << 10]);
    let whole = Salvage::open_with(
        disk.engine(Behaviour::default()),
        with_segments_of(64 << 10),
    );
    assert_eq!(whole.unwrap().damage(), []);
}

#[test]
fn a_crash_while_the_size_changes_leaves_an_unused_log() {
    let (disk, mut crashes) = (made(), 0);
    for mode in CrashMode::ALL {
        for operation in 1.. {
            let image = disk.fork();
            image.power_off_at(image.operations() + operation);
            let done = open(&image, 64 << 10).is_ok();
            image.crash(mode, operation);
            crashes += 1;
            let mut wal = open(&image, 64 << 10).unwrap();
            assert_eq!(wal.meta(), Some(&b"vote"[..]));
            assert_eq!(segments(&image), [64 << 10]);
            append_flushed(&mut wal, 1, 30, 3_000);
            drop(wal);
            let wal = open(&image, 64 << 10).unwrap();
            assert_eq!(read_all(&wal).len(), 30);
            if done {
                break;
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 20);
}
