//! Looking at a directory without opening it: the same verdicts as an open, on whole, damaged and live logs.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{append, append_flushed, flush, settle};
use drave_wal::inspect::{BatchState, Inspector, Item, Slot, Walk, WalkOptions, newest};
use drave_wal::{Corruption, CorruptionKind, EngineChoice, OpenError, Options, Wal};
use tempfile::TempDir;

fn options() -> Options {
    Options {
        segment_bytes: 32 << 10,
        engine: EngineChoice::Posix,
        verify_on_open: true,
        ..common::small_options()
    }
}

/// Three segments: batches alone and together in a group, a truncation, an idle record at the end.
fn make(idle: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let idle_us = if idle { 1_000 } else { 0 };
    let mut wal = Wal::open(
        dir.path(),
        Options {
            idle_us,
            ..options()
        },
    )
    .unwrap();
    wal.write_meta(b"vote").unwrap();
    append_flushed(&mut wal, 1, 5, 3_900);
    wal.truncate_suffix(5).unwrap();
    for _ in 0..3 {
        append(&mut wal, 2, 700);
    }
    flush(&mut wal);
    append_flushed(&mut wal, 2, 8, 3_000);
    if idle {
        wait_for_idle(&mut wal);
    }
    settle(&mut wal);
    drop(wal);
    dir
}

/// Drives the log until an idle group was written.
fn wait_for_idle(wal: &mut Wal) {
    let before = wal.statistics().groups;
    while wal.statistics().groups == before {
        wal.submit();
        wal.poll(&mut Vec::new());
    }
    settle(wal);
}

fn walk(directory: &Path) -> Vec<Item> {
    let walk = Inspector::new(directory).walk(WalkOptions::default());
    walk.map(Result::unwrap).collect()
}

fn damage(items: &[Item]) -> Vec<&drave_wal::inspect::Damage> {
    let damage = items.iter().filter_map(|item| match item {
        Item::Damage(damage) => Some(damage),
        _ => None,
    });
    damage.collect()
}

/// Index and state of every batch, in the order of the file.
fn batches(items: &[Item]) -> Vec<(u64, bool)> {
    let mut out = Vec::new();
    for item in items {
        if let Item::Group(group) = item {
            for batch in group.batches() {
                out.push((batch.index, batch.state == BatchState::Intact));
            }
        }
    }
    out
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn segments(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("seg-")).collect();
    names.sort();
    names
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x55;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_whole_log_is_shown_as_it_is() {
    let dir = make(true);
    let items = walk(dir.path());
    assert!(damage(&items).is_empty(), "{items:?}");
    let expected: Vec<(u64, bool)> = (1..=5).chain(5..=15).map(|index| (index, true)).collect();
    assert_eq!(batches(&items), expected);
    let ends: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::End(end) => Some(end),
            _ => None,
        })
        .collect();
    assert_eq!(ends.len(), segments(dir.path()).len());
    assert!(ends.len() >= 2);
    for pair in ends.windows(2) {
        assert!(pair[0].is_sealed && pair[0].hi >= pair[1].lo, "{ends:?}");
    }
    let last = ends.last().unwrap();
    assert!(!last.is_sealed && last.torn.is_none() && last.hi == 16);
    let slots = Inspector::new(dir.path()).meta().unwrap().unwrap();
    assert_eq!(newest(&slots).unwrap().value, b"vote");
}

#[test]
fn seals_tell_the_same_as_groups() {
    let dir = make(true);
    let ends = |trust_seals| {
        let options = WalkOptions {
            trust_seals,
            ..WalkOptions::default()
        };
        let items = Inspector::new(dir.path()).walk(options).map(Result::unwrap);
        let ends = items.filter_map(|item| match item {
            Item::End(end) => Some((end.name, end.lo, end.hi, end.used_bytes, end.groups)),
            _ => None,
        });
        ends.collect::<Vec<_>>()
    };
    assert_eq!(ends(true), ends(false));
    let all = walk(dir.path()).len();
    let options = WalkOptions {
        trust_seals: true,
        ..WalkOptions::default()
    };
    assert!(Inspector::new(dir.path()).walk(options).count() < all);
}

/// What an open says, on a copy: nothing, or the damage; and whether it cut a torn end.
fn opened(directory: &Path) -> Result<bool, Corruption> {
    let copy = copy(directory);
    match Wal::open(copy.path(), options()) {
        Ok(wal) => Ok(wal.recovery().torn.is_some()),
        Err(OpenError::Corrupt(corruption)) => Err(corruption),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_flipped_byte_is_judged_as_an_open_judges_it() {
    let mut verdicts = [0; 3];
    for idle in [false, true] {
        let made = make(idle);
        for name in segments(made.path()) {
            let bytes = fs::read(made.path().join(&name)).unwrap().len();
            for at in (0..bytes).step_by(397) {
                let dir = copy(made.path());
                flip(&dir.path().join(&name), at);
                let items = walk(dir.path());
                let found = damage(&items);
                let torn = items
                    .iter()
                    .any(|item| matches!(item, Item::End(end) if end.torn.is_some()));
                match opened(dir.path()) {
                    Err(corruption) => {
                        verdicts[0] += 1;
                        let first = found.first().map(|damage| &damage.corruption);
                        assert_eq!(first, Some(&corruption), "{name} at {at}");
                        let Some(hi) = found[0].hi else {
                            // Without its header the last segment's groups cannot be told from others.
                            assert_eq!(corruption.offset, 0);
                            continue;
                        };
                        let lost = hi - found[0].lo;
                        assert!(lost <= 14 && found.len() <= 2, "{name} at {at}: {found:?}");
                        assert!(batches(&items).iter().any(|batch| batch.0 == 15));
                    }
                    Ok(was_torn) => {
                        verdicts[1 + usize::from(was_torn)] += 1;
                        assert!(found.is_empty(), "{name} at {at}: {found:?}");
                        assert_eq!(torn, was_torn, "{name} at {at}");
                    }
                }
            }
        }
    }
    assert!(verdicts.iter().all(|count| *count > 0), "{verdicts:?}");
}

#[test]
fn behind_a_damaged_batch_the_others_of_its_group_are_found() {
    let dir = make(true);
    let items = walk(dir.path());
    let group = items.iter().find_map(|item| match item {
        Item::Group(group) if group.batch_count == 3 => Some(group.clone()),
        _ => None,
    });
    let group = group.unwrap();
    let views = group.batches();
    let file = dir.path().join(group.segment.to_string());
    flip(&file, views[0].offset as usize + 20);
    flip(&file, views[1].offset as usize + 200);
    let items = walk(dir.path());
    let found = damage(&items);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].lo, found[0].hi), (5, Some(8)));
    assert_eq!(found[0].corruption.offset, group.offset);
    let (at, error) = found[0].detail.clone().unwrap();
    assert_eq!(at, views[0].offset);
    assert!(
        error
            .to_string()
            .contains("batch header: checksum mismatch")
    );
    let states = batches(&items);
    let of_group: Vec<_> = states.iter().skip_while(|batch| batch.1).take(3).collect();
    assert_eq!(of_group, [&(5, false), &(6, false), &(7, true)]);
}

#[test]
fn missing_and_mixed_up_files_are_named() {
    let made = make(true);
    let names = segments(made.path());
    assert!(names.len() >= 3);

    let dir = copy(made.path());
    fs::remove_file(dir.path().join(&names[1])).unwrap();
    let items = walk(dir.path());
    let found = damage(&items);
    assert!(matches!(
        found[0].corruption.kind,
        CorruptionKind::SegmentMissing { segment_seq: 2 }
    ));
    assert!(found[0].lo < found[0].hi.unwrap() && found[0].hi.unwrap() <= 15);

    let dir = copy(made.path());
    fs::copy(made.path().join(&names[0]), dir.path().join(&names[1])).unwrap();
    let items = walk(dir.path());
    assert!(matches!(
        damage(&items)[0].corruption.kind,
        CorruptionKind::SegmentName { segment_seq: 1 }
    ));

    let dir = copy(made.path());
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join(&names[0]));
    file.unwrap().set_len(12 << 10).unwrap();
    let items = walk(dir.path());
    assert!(matches!(
        damage(&items)[0].corruption.kind,
        CorruptionKind::SegmentBytes { found: 12_288, .. }
    ));
    assert!(
        batches(&items).contains(&(1, true)),
        "what is there is read"
    );

    let dir = copy(made.path());
    fs::remove_file(dir.path().join("meta")).unwrap();
    let items = walk(dir.path());
    assert_eq!(
        damage(&items)[0].corruption.kind,
        CorruptionKind::MetaMissing
    );
    assert!(batches(&items).contains(&(15, true)));

    let dir = copy(made.path());
    flip(&dir.path().join("meta"), 100);
    let slots = Inspector::new(dir.path()).meta().unwrap().unwrap();
    assert!(matches!(slots[0], Slot::Damaged(_)) && matches!(slots[1], Slot::Valid(_)));
    assert!(damage(&walk(dir.path())).is_empty(), "one slot is enough");
    flip(&dir.path().join("meta"), 5_000);
    assert_eq!(
        damage(&walk(dir.path()))[0].corruption.kind,
        CorruptionKind::Meta
    );
}

#[test]
fn nothing_is_changed_and_no_lock_is_taken() {
    let dir = make(true);
    let listed = |path: &Path| {
        let files = Inspector::new(path).files().unwrap().into_iter();
        files
            .map(|(file, _)| (file, fs::read(path.join(file.to_string())).unwrap()))
            .collect::<Vec<_>>()
    };
    let before = listed(dir.path());
    let mut running = Inspector::new(dir.path()).walk(WalkOptions::default());
    running.next().unwrap().unwrap();
    assert!(
        Wal::open(dir.path(), options()).is_ok(),
        "a walk holds no lock"
    );
    let dir = make(true);
    let items = walk(dir.path());
    assert!(!items.is_empty());
    drop(before);
    let before = listed(dir.path());
    walk(dir.path());
    assert!(before == listed(dir.path()));
}

/// Follows until the entry before `end` was seen; the indexes met.
fn follow_until(walk: &mut Walk, end: u64, indexes: &mut Vec<u64>, trimmed: &mut u64) {
    while indexes.last().is_none_or(|last| last + 1 < end) {
        match walk.next() {
            Some(Ok(Item::Group(group))) => {
                assert!(group.is_whole);
                indexes.extend(group.batches().iter().map(|batch| batch.index));
            }
            Some(Ok(Item::Damage(damage))) => panic!("{damage:?}"),
            Some(Ok(Item::Trimmed { .. })) => *trimmed += 1,
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_live_log_is_followed_across_rolls_and_never_taken_for_damaged() {
    for trims in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut wal = Wal::open(dir.path(), options()).unwrap();
        append_flushed(&mut wal, 1, 1, 100);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (dir, ended) = (dir.path(), &ended);
            scope.spawn(move || {
                for round in 0..300_u64 {
                    append_flushed(&mut wal, 1, 1, 2_000);
                    append(&mut wal, 1, 500);
                    append(&mut wal, 1, 300);
                    if trims && round % 20 == 19 {
                        wal.truncate_prefix(wal.durable_index()).unwrap();
                    }
                }
                flush(&mut wal);
                settle(&mut wal);
                ended.store(true, Ordering::Release);
            });
            scope.spawn(move || {
                while !ended.load(Ordering::Acquire) {
                    let items = walk(dir);
                    let found = damage(&items);
                    assert!(found.is_empty(), "{found:?}");
                }
            });
            let options = WalkOptions {
                follow: true,
                ..WalkOptions::default()
            };
            let mut walk = Inspector::new(dir).walk(options);
            let (mut indexes, mut trimmed) = (Vec::new(), 0);
            follow_until(&mut walk, 902, &mut indexes, &mut trimmed);
            assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]));
            let has_all = indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            assert!(has_all || trimmed > 0);
            assert!(trims || trimmed == 0);
            walk.check_end().unwrap();
            assert!(walk.next().is_none(), "the end of a live log is no damage");
        });
    }
}
