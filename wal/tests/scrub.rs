//! Checking segments against their medium while the log is in use.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::random::{Random, seed};
use common::{append, append_flushed, flush, small_options};
use drave_wal::{
    Checked, CorruptionKind, EngineChoice, FileName, Options, Proof, ReadError, SegmentName, Wal,
};

/// Checks a log from a segment on; gives bytes and segments, or the first damage.
fn check(wal: &Wal, mut from: u64) -> Result<(u64, Vec<SegmentName>), ReadError> {
    let (mut bytes, mut names) = (0, Vec::new());
    while let Some(mut segment) = wal.check_from(from) {
        from = segment.name().segment_seq + 1;
        names.push(segment.name());
        loop {
            match segment.step()? {
                Checked::Piece(read) => bytes += read,
                Checked::Whole(read) => {
                    bytes += read;
                    break;
                }
            }
        }
    }
    Ok((bytes, names))
}

fn open(directory: &Path, engine: EngineChoice) -> Wal {
    let options = Options {
        engine,
        ..small_options()
    };
    Wal::open(directory, options).unwrap()
}

/// Several segments with truncations, terms, groups of many batches and of one.
fn fill(wal: &mut Wal, random: &mut Random) {
    let mut term = wal.term(wal.last_index()).unwrap_or(0).max(1);
    for _ in 0..60 {
        match random.below(8) {
            0 => {
                let end = wal.last_index() + 1;
                let kept = end - random.below((end - wal.first_index() + 1).min(20));
                wal.truncate_suffix(kept).unwrap();
                term += 1;
            }
            1 => append_flushed(wal, term, 3, 9_000),
            2 => drop(append(wal, term, 15_000)),
            _ => {
                for _ in 0..random.below(20) {
                    append(wal, term, 10 + random.below(700) as usize);
                }
            }
        }
        flush(wal);
    }
}

fn flip(path: &Path, offset: u64, mask: u8) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ mask], offset).unwrap();
}

fn path_of(directory: &Path, name: SegmentName) -> PathBuf {
    directory.join(FileName::Segment(name).to_string())
}

#[test]
fn a_log_as_it_was_written_passes_at_every_moment() {
    let mut random = Random(seed());
    for engine in [EngineChoice::Auto, EngineChoice::Posix] {
        let directory = tempfile::tempdir().unwrap();
        let mut wal = open(directory.path(), engine);
        assert_eq!(
            check(&wal, 0).unwrap().1.len(),
            1,
            "an empty log has a segment"
        );
        for round in 0..12 {
            fill(&mut wal, &mut random);
            // With appends under way.
            let term = wal.term(wal.last_index()).unwrap() + 1;
            append(&mut wal, term, 5_000);
            wal.submit();
            let (bytes, names) = check(&wal, 0).unwrap();
            assert!(
                names.len() > 2 && bytes > 100_000,
                "{bytes} bytes of {names:?}"
            );
            if round % 4 == 1 {
                flush(&mut wal);
                wal.truncate_prefix(wal.durable_index() / 2).unwrap();
            }
            if round % 4 == 2 {
                wal.close().unwrap();
                wal = open(directory.path(), engine);
                check(&wal, 0).unwrap();
            }
            if round % 4 == 3 {
                let next = wal.last_index() + 100;
                wal.reset(next, term + 1, 77).unwrap();
                flush(&mut wal);
                check(&wal, 0).unwrap();
            }
        }
    }
}

/// Whatever a check passes, an opening that reads everything passes as well, and the other way round.
#[test]
fn it_finds_what_recovery_would_find() {
    let mut random = Random(seed());
    let directory = tempfile::tempdir().unwrap();
    let mut wal = open(directory.path(), EngineChoice::Auto);
    fill(&mut wal, &mut random);
    flush(&mut wal);
    let (_, names) = check(&wal, 0).unwrap();
    let sealed = &names[..names.len() - 1];
    let (mut found, mut passed) = (0, 0);
    for _ in 0..400 {
        let name = sealed[random.below(sealed.len() as u64) as usize];
        let path = path_of(directory.path(), name);
        let offset = random.below(fs::metadata(&path).unwrap().len());
        let mask = 1 << random.below(8);
        flip(&path, offset, mask);
        let damage = check(&wal, 0);
        let image = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
        }
        let inspector = drave_wal::inspect::Inspector::new(image.path());
        let walk = inspector.walk(drave_wal::inspect::WalkOptions::default());
        let is_damaged = walk
            .map(Result::unwrap)
            .any(|item| matches!(item, drave_wal::inspect::Item::Damage(_)));
        assert_eq!(
            damage.is_err(),
            is_damaged,
            "{name} at {offset} by {mask}: {damage:?}"
        );
        match damage {
            Err(ReadError::Corrupt(corruption)) => {
                assert_eq!(corruption.file, FileName::Segment(name));
                assert!(corruption.offset <= offset);
                found += 1;
            }
            Err(other) => panic!("{other}"),
            Ok(_) => passed += 1,
        }
        flip(&path, offset, mask);
    }
    assert!(
        found > 100 && passed > 0,
        "{found} found, {passed} harmless"
    );
    check(&wal, 0).unwrap();
}

/// In the segment that is written to, only what a later group proves durable is judged: of the rest recovery cannot
/// tell damage from a torn write, and would cut it.
#[test]
fn in_the_last_segment_only_what_is_proven_durable_is_judged() {
    let directory = tempfile::tempdir().unwrap();
    let mut wal = open(directory.path(), EngineChoice::Auto);
    append_flushed(&mut wal, 1, 4, 100);
    let (_, names) = check(&wal, 0).unwrap();
    let path = path_of(directory.path(), names[0]);
    // Blocks: the header, then a group each.
    let verdicts: Vec<_> = (0..5_u64)
        .map(|block| {
            flip(&path, block * 4096 + 100, 1);
            let verdict = check(&wal, 0).map(drop);
            flip(&path, block * 4096 + 100, 1);
            verdict
        })
        .collect();
    for (block, verdict) in verdicts.iter().enumerate() {
        match (block, verdict) {
            (0, Err(ReadError::Corrupt(corruption))) => {
                assert!(matches!(corruption.kind, CorruptionKind::SegmentHeader(_)));
            }
            (1..=3, Err(ReadError::Corrupt(corruption))) => {
                assert_eq!(corruption.offset, block as u64 * 4096);
                let CorruptionKind::Group {
                    first_index, proof, ..
                } = corruption.kind
                else {
                    panic!("{corruption}");
                };
                assert_eq!(first_index, block as u64);
                assert!(matches!(proof, Proof::LaterGroup { .. }));
            }
            (4, Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
    wal.close().unwrap();
}

#[test]
fn a_segment_that_is_gone_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut wal = open(directory.path(), EngineChoice::Auto);
    append_flushed(&mut wal, 1, 30, 9_000);
    let (_, names) = check(&wal, 0).unwrap();
    fs::remove_file(path_of(directory.path(), names[1])).unwrap();
    let damage = check(&wal, 0).unwrap_err();
    let ReadError::Corrupt(corruption) = damage else {
        panic!("{damage}");
    };
    let segment_seq = names[1].segment_seq;
    assert_eq!(
        corruption.kind,
        CorruptionKind::SegmentMissing { segment_seq }
    );
}

/// The file of a check under way is not used for another segment, whatever the log does meanwhile.
#[test]
fn a_segment_under_check_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut wal = open(directory.path(), EngineChoice::Auto);
    append_flushed(&mut wal, 1, 30, 9_000);
    let mut held = wal.check_from(0).unwrap();
    let name = held.name();
    for _ in 0..10 {
        append_flushed(&mut wal, 1, 30, 9_000);
        wal.truncate_prefix(wal.durable_index() - 5).unwrap();
        common::settle(&mut wal);
    }
    assert!(!path_of(directory.path(), name).exists(), "it was trimmed");
    assert!(matches!(held.step().unwrap(), Checked::Whole(_)));
    let next = wal.check_from(name.segment_seq).unwrap();
    assert!(next.name().segment_seq > name.segment_seq);
}
