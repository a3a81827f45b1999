//! A log and all of its entries beside it, to damage the one and repair it from the others.

use drave_wal::{
    Behaviour, FileName, MemoryDisk, OpenError, Options, Read, Salvage, SegmentName, Wal,
};

use super::files::segments;
use super::{Entry, append, append_flushed, read_all, settle, small_options};

pub fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        verify_on_open: true,
        ..small_options()
    }
}

pub fn behaviour(seed: u64) -> Behaviour {
    Behaviour {
        seed,
        ..Behaviour::default()
    }
}

pub fn open(disk: &MemoryDisk, seed: u64) -> Result<Wal, OpenError> {
    Wal::open_with(disk.engine(behaviour(seed)), options())
}

pub fn salvage(disk: &MemoryDisk, seed: u64) -> Result<Salvage, OpenError> {
    Salvage::open_with(disk.engine(behaviour(seed)), options())
}

/// A log of three segments: a truncation that reaches into a sealed one, a superseded suffix, an idle record.
pub struct Log {
    pub disk: MemoryDisk,
    pub entries: Vec<Entry>,
    pub encoded: Vec<Vec<u8>>,
    pub segments: Vec<SegmentName>,
}

pub fn make() -> Log {
    let disk = MemoryDisk::new();
    let with_idle = Options {
        idle_us: 500_000,
        ..options()
    };
    let mut wal = Wal::open_with(disk.engine(behaviour(3)), with_idle).unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, 8, 3_900);
    wal.truncate_suffix(5).unwrap();
    for _ in 0..3 {
        append(&mut wal, 2, 300);
    }
    append_flushed(&mut wal, 2, 3, 3_000);
    wal.truncate_suffix(8).unwrap();
    append_flushed(&mut wal, 3, 4, 2_000);
    append_flushed(&mut wal, 3, 2, 7_000);
    append_flushed(&mut wal, 4, 1, 10);
    finish(disk, wal)
}

pub fn finish(disk: MemoryDisk, mut wal: Wal) -> Log {
    disk.set_now_us(1_000_000);
    settle(&mut wal);
    let entries = read_all(&wal);
    let encoded = entries
        .iter()
        .map(|entry| encoded(&wal, entry.index))
        .collect();
    drop(wal);
    let segments = segments(&disk);
    Log {
        disk,
        entries,
        encoded,
        segments,
    }
}

pub fn encoded(wal: &Wal, index: u64) -> Vec<u8> {
    let slices = match wal.read(index, index + 1, 1).unwrap() {
        Read::Ready(slices) => slices,
        Read::Cold(job) => job.run().unwrap(),
    };
    slices.pieces.concat()
}

impl Log {
    pub fn range(&self, lo: u64, hi: u64) -> Vec<u8> {
        self.encoded[lo as usize - 1..hi as usize - 1].concat()
    }

    pub fn last(&self) -> &Entry {
        self.entries.last().unwrap()
    }

    /// Offers everything missing, at most two entries at a time; how many there were.
    pub fn heal(&self, salvage: &mut Salvage) -> u64 {
        let last = self.last();
        if salvage.missing().last().is_some_and(|m| m.hi == u64::MAX) {
            salvage.set_end(last.index, last.term, last.crc).unwrap();
        }
        let mut offered = 0;
        while let Some(missing) = salvage.missing().last().copied() {
            let lo = missing.lo.max(missing.hi - 2);
            let taken = salvage.offer(&self.range(lo, missing.hi)).unwrap();
            assert_eq!((taken.lo, taken.hi), (lo, missing.hi));
            offered += missing.hi - lo;
        }
        assert!(salvage.is_whole());
        assert_eq!(salvage.first_index(), 1);
        assert_eq!(salvage.last_index(), last.index);
        assert_eq!(salvage.meta_value().as_deref(), Some(&b"vote"[..]));
        for (entry, encoded) in self.entries.iter().zip(&self.encoded) {
            assert_eq!(salvage.read(entry.index).unwrap().unwrap(), encoded[..]);
        }
        offered
    }

    /// The log is what it was, sealed segments trusted or not, and goes on.
    pub fn assert_same(&self, image: &MemoryDisk, go_on: bool) {
        let mut wal = open(image, 8).unwrap();
        assert_eq!(read_all(&wal), self.entries);
        assert_eq!(wal.meta(), Some(&b"vote"[..]));
        if go_on {
            append_flushed(&mut wal, 9, 9, 3_900);
            drop(wal);
            let trusting = Options {
                verify_on_open: false,
                ..options()
            };
            let wal = Wal::open_with(image.engine(behaviour(9)), trusting).unwrap();
            assert_eq!(read_all(&wal)[..self.entries.len()], self.entries);
            assert_eq!(wal.last_index(), self.last().index + 9);
            drop(wal);
            assert_eq!(salvage(image, 10).unwrap().damage(), []);
        }
    }

    /// If open refuses the image: salvages, completes and repairs it. How many entries it took.
    pub fn repair(&self, image: &MemoryDisk, go_on: bool) -> Option<u64> {
        match open(&image.fork(), 5) {
            Ok(wal) => {
                drop(wal);
                return None;
            }
            Err(OpenError::Corrupt(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let before = contents(image);
        let mut salvage = salvage(image, 6).unwrap();
        assert!(!salvage.damage().is_empty());
        let offered = self.heal(&mut salvage);
        assert!(
            contents(image) == before,
            "nothing is changed before the repair"
        );
        let report = salvage.repair().unwrap();
        assert!(report.segments_written + report.files_removed > 0);
        self.assert_same(image, go_on);
        Some(offered)
    }
}

pub fn contents(disk: &MemoryDisk) -> Vec<(FileName, Vec<u8>)> {
    let names = disk.list().into_iter();
    names
        .map(|(name, _)| (name, disk.durable_content(name).unwrap()))
        .collect()
}

pub fn changed(log: &Log, segment: SegmentName, change: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let image = log.disk.fork();
    let file = FileName::Segment(segment);
    let mut content = image.content(file).unwrap();
    change(&mut content);
    image.replace(file, content);
    image
}
