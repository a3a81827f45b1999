//! Logs of random histories (appends, truncations, resets, trims, crashes, earlier repairs), damaged at random:
//! repaired from a copy of the entries, each is what it was. And the same over real files.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::files::{groups, segments};
use common::random::{Random, seed};
use common::twin::encoded;
use common::{Entry, append, read_all};
use drave_wal::{
    Behaviour, CrashMode, EngineChoice, FileName, MemoryDisk, OfferError, OpenError, Options, Read,
    Salvage, Wal,
};

fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        verify_on_open: true,
        idle_us: 500_000,
        ..common::small_options()
    }
}

fn open(disk: &MemoryDisk, seed: u64) -> Result<Wal, OpenError> {
    let behaviour = Behaviour {
        seed,
        ..Behaviour::default()
    };
    Wal::open_with(disk.engine(behaviour), options())
}

fn salvage(disk: &MemoryDisk, seed: u64) -> Result<Salvage, OpenError> {
    let behaviour = Behaviour {
        seed,
        ..Behaviour::default()
    };
    Salvage::open_with(disk.engine(behaviour), options())
}

/// Some changes, all of them durable at the end, with a crash now and then.
fn change(disk: &MemoryDisk, random: &mut Random, term: &mut u64) {
    let mut wal = open(disk, random.below(1 << 30)).unwrap();
    for _ in 0..4 + random.below(25) {
        let (first, last) = (wal.first_index(), wal.last_index());
        match random.below(20) {
            0..=1 if last > first => {
                *term += 1;
                let from = first.max(last.saturating_sub(random.below(6))) + 1;
                wal.truncate_suffix(from).unwrap();
            }
            2 => wal
                .truncate_prefix(first + random.below(last + 2 - first))
                .unwrap(),
            3 if random.below(6) == 0 => {
                *term += 1;
                let next = last + 1 + random.below(50);
                wal.reset(next, *term, random.below(1 << 32) as u32)
                    .unwrap();
            }
            4 => *term += 1,
            5 => drop(wal.write_meta(&term.to_le_bytes()).unwrap()),
            6 => {
                common::flush(&mut wal);
                append(&mut wal, *term, 700);
                wal.submit();
                drop(wal);
                disk.crash(CrashMode::Tear, random.below(1 << 30));
                wal = open(disk, random.below(1 << 30)).unwrap();
            }
            _ => {
                let bytes = [10, 300, 3_900, 9_000][random.below(4) as usize];
                append(&mut wal, *term, bytes);
                if random.below(2) == 0 {
                    common::flush(&mut wal);
                }
            }
        }
    }
    append(&mut wal, *term, 20);
    common::flush(&mut wal);
    disk.set_now_us(wal_time(disk));
    common::settle(&mut wal);
}

/// Late enough for an idle record, whatever was before.
fn wal_time(disk: &MemoryDisk) -> u64 {
    disk.operations() * 1_000_000
}

struct Twin {
    first_index: u64,
    entries: Vec<Entry>,
    encoded: BTreeMap<u64, Vec<u8>>,
    meta: Option<Vec<u8>>,
}

fn twin(disk: &MemoryDisk) -> Twin {
    let wal = open(&disk.fork(), 1).unwrap();
    let entries = read_all(&wal);
    let one = |entry: &Entry| (entry.index, encoded(&wal, entry.index));
    Twin {
        first_index: wal.first_index(),
        encoded: entries.iter().map(one).collect(),
        meta: wal.meta().map(<[u8]>::to_vec),
        entries,
    }
}

/// Overwrites or removes a few things, but not the last block written to the last segment: the record that
/// all before it is durable.
fn damage(disk: &MemoryDisk, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let segments = segments(disk);
        let last = segments.iter().max().copied().unwrap();
        let chosen = segments[random.below(segments.len() as u64) as usize];
        let file = FileName::Segment(chosen);
        let mut content = disk.content(file).unwrap();
        // The highest number: an older use of the file may have left groups behind it.
        let group_seq = |at: usize| content.get(at + 8..)?.first_chunk().copied();
        let newest = groups(&content).max_by_key(|at| group_seq(*at).map(u64::from_le_bytes));
        let end = newest.unwrap_or(0);
        let range = if chosen == last { end } else { content.len() };
        if range < 512 {
            continue;
        }
        match random.below(12) {
            0 if chosen != last => disk.forget(file),
            1 if chosen != last => {
                content.truncate(random.below(range as u64) as usize);
                disk.replace(file, content);
            }
            2..=5 => {
                content[random.below(range as u64) as usize] ^= 1 << random.below(8);
                disk.replace(file, content);
            }
            _ => {
                let at = random.below(range as u64 / 512) as usize * 512;
                let bytes = [64, 512, 4096, 12 << 10][random.below(4) as usize];
                let to = (at + bytes).min(range);
                content[at..to].fill(0);
                disk.replace(file, content);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    harmless: u64,
    repaired: u64,
    entries: u64,
    start_lost: u64,
}

fn repair(disk: &MemoryDisk, twin: &Twin, seed: u64, tally: &mut Tally) -> bool {
    match open(&disk.fork(), 2) {
        Ok(_) => {
            tally.harmless += 1;
            return false;
        }
        Err(OpenError::Corrupt(_)) => {}
        Err(error) => panic!("seed {seed}: {error}"),
    }
    let mut healed = match salvage(disk, 3) {
        Ok(healed) => healed,
        Err(OpenError::Corrupt(_)) => {
            tally.start_lost += 1;
            return false;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    };
    let last = twin.entries.last().unwrap();
    if healed.missing().last().is_some_and(|m| m.hi == u64::MAX) {
        healed.set_end(last.index, last.term, last.crc).unwrap();
    }
    assert_eq!(healed.last_index(), last.index, "seed {seed}");
    while let Some(missing) = healed.missing().last().copied() {
        if missing.hi <= twin.first_index {
            // The group that says where the log begins is lost, and nobody has what was before.
            tally.start_lost += 1;
            return false;
        }
        let lo = missing
            .lo
            .max(twin.first_index)
            .max(missing.hi.saturating_sub(3));
        let offer: Vec<u8> = twin
            .encoded
            .range(lo..missing.hi)
            .flat_map(|(_, encoded)| encoded.clone())
            .collect();
        match healed.offer(&offer) {
            Ok(_) => {}
            Err(OfferError::Chain { index, .. }) if index + 1 == healed.first_index() => {
                // Of two resets in a row the last one is lost: what the log goes on from is not known.
                tally.start_lost += 1;
                return false;
            }
            Err(error) => panic!("seed {seed}: {error}, {:?}", healed.missing()),
        }
        tally.entries += missing.hi - lo;
    }
    match healed.repair() {
        Ok(_) => {}
        Err(OpenError::Corrupt(_)) => {
            // A reset to a lower index is lost: the chain does not end where the log seems to begin.
            tally.start_lost += 1;
            return false;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    }
    let again = salvage(disk, 4).unwrap();
    assert_eq!(again.damage(), [], "seed {seed}");
    drop(again);
    let wal = open(&disk.fork(), 5).unwrap();
    let found = read_all(&wal);
    let from = found
        .iter()
        .position(|entry| entry.index == twin.first_index);
    let from = from.unwrap_or_else(|| panic!("seed {seed}: the first entry is not there"));
    assert!(found[from..] == twin.entries, "seed {seed}");
    assert_eq!(wal.meta().map(<[u8]>::to_vec), twin.meta, "seed {seed}");
    tally.repaired += 1;
    true
}

/// A log that goes on after it was repaired, and is damaged again.
fn run(seed: u64, tally: &mut Tally) {
    let (disk, mut random, mut term) = (MemoryDisk::new(), Random(seed), 1);
    for _ in 0..3 {
        change(&disk, &mut random, &mut term);
        let twin = twin(&disk);
        damage(&disk, &mut random);
        if !repair(&disk, &twin, seed, tally) {
            break;
        }
    }
}

#[test]
fn random_logs_damaged_at_random_are_what_they_were() {
    let first_seed = seed();
    let mut tally = Tally::default();
    for seed in first_seed..first_seed + 1_500 {
        run(seed, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.repaired > 1_000 && tally.entries > 1_000);
    assert!(tally.start_lost < tally.repaired / 5);
}

/// Of each, where the log begins is lost with a reset: once in a run that had to be written anew, once in a log whose
/// only entry is lost, too.
#[test]
fn logs_whose_start_is_lost_are_refused() {
    let mut tally = Tally::default();
    for seed in [7_872_708_658, 6_894_387_577] {
        run(seed, &mut tally);
    }
    assert_eq!(tally.start_lost, 2, "{tally:?}");
}

#[test]
fn a_log_in_real_files_is_repaired() {
    for engine in [EngineChoice::Posix, EngineChoice::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            engine,
            verify_on_open: true,
            ..common::small_options()
        };
        let mut wal = Wal::open(dir.path(), options.clone()).unwrap();
        common::append_flushed(&mut wal, 1, 60, 3_900);
        let locked = Salvage::open(dir.path(), options.clone());
        assert!(
            matches!(locked, Err(OpenError::Locked { .. })),
            "{locked:?}"
        );
        let entries = read_all(&wal);
        let slices = match wal.read(1, 10, 1 << 20).unwrap() {
            Read::Ready(slices) => slices,
            Read::Cold(job) => job.run().unwrap(),
        };
        let encoded = slices.pieces.concat();
        drop(wal);
        let names = std::fs::read_dir(dir.path()).unwrap();
        let mut paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.to_str().unwrap().contains("seg-"));
        paths.sort();
        let mut content = std::fs::read(&paths[0]).unwrap();
        content[4096..10 * 4096].fill(0xff);
        std::fs::write(&paths[0], content).unwrap();
        std::fs::remove_file(&paths[2]).unwrap();
        let salvage = Salvage::open(dir.path(), options.clone()).unwrap();
        assert_eq!(salvage.damage().len(), 2, "{:?}", salvage.damage());
        let lost = salvage.missing().to_vec();
        assert_eq!((lost[0].lo, lost[0].hi, lost.len()), (1, 10, 2), "{lost:?}");
        drop(salvage);
        // Without the rest from elsewhere the log can only be cut there.
        let mut salvage = Salvage::open(dir.path(), options.clone()).unwrap();
        salvage.offer(&encoded).unwrap();
        assert_eq!(salvage.missing(), &lost[1..]);
        let report = salvage.cut(None).unwrap();
        assert_eq!(report.missing, lost[1..]);
        let wal = Wal::open(dir.path(), options).unwrap();
        assert_eq!(read_all(&wal), entries[..lost[1].lo as usize - 1]);
    }
}
