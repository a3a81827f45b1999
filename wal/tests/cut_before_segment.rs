//! A cut that is recorded in the segment after the one it cuts, and what a trim may take away then.
#![allow(clippy::unwrap_used)]

mod common;

use common::{append_flushed, settle, small_options};
use drave_wal::{Behaviour, CrashMode, MemoryDisk, Wal};

fn open(disk: &MemoryDisk) -> Wal {
    Wal::open_with(disk.engine(Behaviour::default()), small_options()).unwrap()
}

#[test]
fn the_term_before_the_first_entry_survives_a_trim_behind_a_cut() {
    let disk = MemoryDisk::new();
    let mut wal = open(&disk);
    append_flushed(&mut wal, 3, 1, 2_000);
    while wal.statistics().rolls == 0 {
        append_flushed(&mut wal, 3, 1, 2_000);
    }
    // The last entry began the second segment; the cut takes it and two of the first segment's.
    let cut = wal.last_index() - 2;
    wal.truncate_suffix(cut).unwrap();
    append_flushed(&mut wal, 5, 1, 2_000);
    settle(&mut wal);
    wal.truncate_prefix(cut).unwrap();
    settle(&mut wal);
    let (first_index, before) = (wal.first_index(), wal.term(wal.first_index() - 1));
    assert!(before.is_some());
    drop(wal);
    disk.crash(CrashMode::Drop, 1);
    let mut wal = open(&disk);
    assert_eq!(wal.first_index(), first_index);
    assert_eq!(wal.term(first_index - 1), before);
    assert_eq!(wal.term(cut - 1), Some(3));
    assert_eq!(wal.term(cut), Some(5));
    // The segment goes when one after it can be the first.
    while wal.statistics().rolls < 2 {
        append_flushed(&mut wal, 5, 1, 2_000);
    }
    wal.truncate_prefix(wal.last_index() + 1).unwrap();
    settle(&mut wal);
    assert!(wal.first_index() > cut);
    let (first_index, before) = (wal.first_index(), wal.term(wal.first_index() - 1));
    assert_eq!(before, Some(5));
    drop(wal);
    disk.crash(CrashMode::Drop, 2);
    let wal = open(&disk);
    assert_eq!(
        (wal.first_index(), wal.term(first_index - 1)),
        (first_index, before)
    );
}
