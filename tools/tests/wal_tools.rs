//! `drave wal` on the real executable: whole logs, live ones, and every kind of damage.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ended, RunningAppend, TestCluster, drave, path_text, run};
use drave_batch::{BatchHeader, EntryKind};
use drave_tools::exit::Exit;
use drave_wal::{EngineChoice, Options, Wal};
use serde_json::Value;
use tempfile::TempDir;

const BLOCK: usize = 4096;

/// Batches in the log of [`made`], of ten records each.
const BATCHES: u64 = 200;

/// A data directory with a log of several small segments, an idle group at its end.
fn made() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 256 << 10,
        group_bytes_max: 32 << 10,
        engine: EngineChoice::Posix,
        prewrite: false,
        idle_us: 1_000,
        store_id: 7,
        ..Options::default()
    };
    let mut wal = Wal::open(&dir.path().join("group-0"), options).unwrap();
    let mut events = Vec::new();
    wal.write_meta(b"vote").unwrap();
    for index in 1..=BATCHES {
        let body = vec![index as u8; 3_000];
        let mut header = BatchHeader::new(EntryKind::Data, &body, 10);
        (header.index, header.term, header.log_id) = (index, 1, 1);
        header.append_time_us = 1_700_000_000_000_000 + index;
        wal.append(&mut header, &body).unwrap();
        if index % 3 == 0 {
            wal.flush(&mut events).unwrap();
        }
    }
    wal.flush(&mut events).unwrap();
    let groups = wal.statistics().groups;
    while wal.statistics().groups == groups || !wal.is_quiet() {
        wal.submit();
        wal.poll(&mut events);
    }
    let data = dir.path().to_owned();
    (dir, data)
}

fn wal(arguments: &[&str], dir: &Path) -> Ended {
    let dir = path_text(dir);
    let all = [&["wal"], arguments, &[dir.as_str()]].concat();
    run(&mut drave(&all), b"")
}

/// The rows of a command that ends with `code`.
fn rows(arguments: &[&str], dir: &Path, code: Exit) -> Vec<Value> {
    let arguments = [arguments, &["-o", "jsonl"]].concat();
    let ended = wal(&arguments, dir).assert_code(code as i32);
    let lines = ended.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_type<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["type"] == name).collect()
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// The segments' files in order, of which the last one is not sealed.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path_text(path).contains("/seg-"));
    paths.sort();
    paths
}

fn change(file: &Path, act: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    act(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Makes a file's first block one of a later version, its checksum right.
fn age(block: &mut [u8]) {
    block[8] = 9;
    let rest = [&block[..12], &block[16..BLOCK]].concat();
    block[12..16].copy_from_slice(&drave_batch::checksum(&rest).to_le_bytes());
}

#[test]
fn a_whole_log() {
    let (_dir, data) = made();
    let log = data.join("group-0");
    let listed = rows(&["ls"], &data, Exit::Success);
    let sealed: Vec<_> = listed
        .iter()
        .filter(|row| row["state"] == "sealed")
        .collect();
    assert!(sealed.len() >= 2, "{listed:?}");
    for row in of_type(&listed, "segment") {
        let file = log.join(row["file"].as_str().unwrap());
        assert_eq!(fs::metadata(file).unwrap().len(), row["bytes"]);
        assert!(row["used_bytes"].as_u64() <= row["bytes"].as_u64());
    }
    assert_eq!(of_type(&listed, "meta").len(), 1);
    assert!(
        listed.iter().any(|row| row["state"] == "spare"),
        "{listed:?}"
    );
    assert_eq!(
        rows(&["ls"], &log, Exit::Success),
        listed,
        "either directory"
    );

    let all = rows(&["dump"], &data, Exit::Success);
    let indexes: Vec<u64> = of_type(&all, "batch")
        .iter()
        .map(|row| row["index"].as_u64().unwrap())
        .collect();
    let last = *indexes.last().unwrap();
    assert_eq!(indexes, (1..=last).collect::<Vec<_>>());
    assert_eq!(sealed[0]["first_index"], 1);
    assert_eq!(
        of_type(&listed, "segment").last().unwrap()["last_index"],
        last
    );
    assert!(all.iter().all(|row| row["checksum"] == "ok"));
    let records = |row: &&Value| row["kind"] == "data" && row["log_id"].as_u64() > Some(0);
    let count: u64 = all
        .iter()
        .filter(records)
        .map(|row| row["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, 10 * BATCHES);
    let times: Vec<u64> = of_type(&all, "batch")
        .iter()
        .map(|row| row["append_time_us"].as_u64().unwrap())
        .collect();
    assert!(times.is_sorted() && times[0] > 1_600_000_000_000_000);
    let some = rows(&["dump", "--from", "5", "--to", "8"], &data, Exit::Success);
    let some: Vec<_> = some
        .iter()
        .map(|row| row["index"].as_u64().unwrap())
        .collect();
    assert_eq!(some, [5, 6, 7]);
    let late = rows(&["dump", "--from", &last.to_string()], &data, Exit::Success);
    assert_eq!(late.len(), 1, "{late:?}");

    let told = wal(&["verify"], &data).assert_code(0);
    let expected = format!(
        "whole: entries 1 to {last}; {} segments",
        segments(&log).len()
    );
    assert!(told.text().starts_with(&expected), "{}", told.text());
    assert!(told.text().contains("GiB/s") && told.stderr.is_empty());
    let summary = rows(&["verify"], &data, Exit::Success);
    assert_eq!(summary[0]["batches"], last);
    assert_eq!(
        (&summary[0]["whole"], &summary[0]["meta_slots_valid"]),
        (&true.into(), &2.into())
    );
    for command in ["ls", "dump", "verify"] {
        let json = wal(&[command, "-o", "json"], &data).assert_code(0);
        let values: Vec<Value> = serde_json::from_str(json.text()).unwrap();
        assert_eq!(values.len(), rows(&[command], &data, Exit::Success).len());
        assert!(wal(&[command], &data).assert_code(0).text().contains(' '));
    }
}

#[test]
fn no_log_there() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["ls", "dump", "verify", "tail"] {
        wal(&[command], dir.path())
            .assert_code(3)
            .assert_says("there is no log");
        wal(&[command], &dir.path().join("none")).assert_code(3);
        run(&mut drave(&["wal", command]), b"").assert_code(2);
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is made"
    );
}

#[test]
fn a_running_node_is_looked_at_and_followed() {
    let test = TestCluster::start(1);
    let data = test.cluster.data_dir(1);
    let dir = path_text(&data);
    test.run(&["append", "a", "--create"], b"first\n")
        .assert_code(0);
    // 30 000 lines below are at least that many entries, however the pipe fills the batches of 100.
    const ENTRIES_MIN: &str = "300";
    let follow = [
        "wal",
        "tail",
        "--from",
        "1",
        "--count",
        ENTRIES_MIN,
        "-o",
        "jsonl",
        dir.as_str(),
    ];
    let mut followed = drave(&follow);
    let followed = std::thread::spawn(move || run(&mut followed, b""));
    let mut append = RunningAppend::start(test.drave(&["append", "a", "--batch", "100"]));
    // Several segments of 8 MiB.
    let lines = format!("{}\n", "x".repeat(1_000))
        .repeat(30_000)
        .into_bytes();
    let mut input = append.take_input();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        input.write_all(&lines).unwrap();
    });
    for _ in 0..5 {
        for command in ["verify", "ls", "dump"] {
            wal(&[command, "-o", "jsonl"], &data).assert_code(0);
        }
    }
    writer.join().unwrap();
    append.finish().0.assert_code(0);
    let followed = followed.join().unwrap().assert_code(0);
    let indexes: Vec<u64> = followed
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["index"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(indexes, (1..=300).collect::<Vec<u64>>());
    test.run(&["status"], b"").assert_code(0);
    let whole = rows(&["verify"], &data, Exit::Success);
    assert!(whole[0]["segments"].as_u64().unwrap() >= 2, "{whole:?}");
}

/// Damages a copy of the log, and what `verify` says of it.
fn damaged(log: &Path, act: impl FnOnce(&Path, &[PathBuf])) -> (TempDir, Vec<Value>) {
    let dir = copy(log);
    let files = segments(dir.path());
    act(dir.path(), &files);
    let found = rows(&["verify"], dir.path(), Exit::Corruption);
    assert_eq!(found.last().unwrap()["whole"], false);
    let ended = wal(&["verify"], dir.path()).assert_code(6);
    let first = found[0]["file"].as_str().unwrap();
    assert!(ended.text().contains(&format!("DAMAGED {first} at offset")));
    ended.assert_says("the log is damaged in one place");
    wal(&["dump"], dir.path()).assert_code(6);
    (dir, found)
}

#[test]
fn every_kind_of_damage_has_its_place_and_its_exit_code() {
    let (_dir, data) = made();
    let log = data.join("group-0");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names: Vec<String> = segments(&log).iter().map(|path| name(path)).collect();

    // A byte of a batch's body.
    let batches = rows(&["dump", "--from", "20", "--to", "21"], &log, Exit::Success);
    let offset = batches[0]["offset"].as_u64().unwrap();
    let (dir, found) = damaged(&log, |_, files| {
        change(&files[0], |bytes| bytes[offset as usize + 96 + 50] ^= 1);
    });
    assert_eq!(found[0]["file"], names[0]);
    assert!(found[0]["offset"].as_u64().unwrap() < offset);
    assert_eq!(found[0]["at"], offset);
    assert!(
        found[0]["first_index"].as_u64() <= Some(20) && found[0]["end_index"].as_u64() > Some(20)
    );
    let (expected, seen) = (&found[0]["expected"], &found[0]["found"]);
    assert!(expected.is_string() && seen.is_string() && expected != seen);
    let dumped = rows(
        &["dump", "--from", "20", "--to", "22"],
        dir.path(),
        Exit::Corruption,
    );
    let states: Vec<_> = of_type(&dumped, "batch")
        .iter()
        .map(|row| &row["checksum"])
        .collect();
    assert_eq!(states, ["body", "ok"]);
    rows(&["ls"], dir.path(), Exit::Success);
    let tailed = rows(&["tail", "--from", "1"], dir.path(), Exit::Corruption);
    assert_eq!(tailed.last().unwrap()["type"], "damage");

    // A segment's header, a missing segment, a shorter file, a file in another's place.
    let (_, found) = damaged(&log, |_, files| change(&files[1], |bytes| bytes[60] ^= 1));
    assert_eq!(
        (&found[0]["file"], &found[0]["offset"]),
        (&names[1].as_str().into(), &0.into())
    );
    assert!(found[0]["expected"].is_string());
    let (dir, found) = damaged(&log, |_, files| fs::remove_file(&files[1]).unwrap());
    assert_eq!(
        (&found[0]["expected"], &found[0]["found"]),
        (&"segment 2".into(), &"none".into())
    );
    assert!(found[0]["first_index"].as_u64() < found[0]["end_index"].as_u64());
    let listed = rows(&["ls"], dir.path(), Exit::Corruption);
    assert_eq!(of_type(&listed, "damage").len(), 1);
    let other = segments(&log)[0].clone();
    damaged(&log, |_, files| {
        fs::copy(&other, &files[1]).unwrap();
    });

    // The meta record: one slot is enough, none is not.
    let (_, found) = damaged(&log, |dir, _| {
        change(&dir.join("meta"), |bytes| {
            bytes[100] ^= 1;
            bytes[BLOCK + 100] ^= 1;
        });
    });
    assert_eq!(found[0]["file"], "meta");
    damaged(&log, |dir, _| fs::remove_file(dir.join("meta")).unwrap());
    let dir = copy(&log);
    change(&dir.path().join("meta"), |bytes| bytes[100] ^= 1);
    let summary = rows(&["verify"], dir.path(), Exit::Success);
    assert_eq!(summary[0]["meta_slots_valid"], 1);
}

#[test]
fn an_unfinished_write_is_no_damage_and_a_later_version_is_none_either() {
    let (_dir, data) = made();
    let log = data.join("group-0");
    let dir = copy(&log);
    let last = segments(dir.path()).pop().unwrap();
    let listed = rows(&["ls"], dir.path(), Exit::Success);
    let open = of_type(&listed, "segment");
    let end = open.last().unwrap()["used_bytes"].as_u64().unwrap() as usize;
    // The last group, which nothing after it proves durable: its write was cut.
    change(&last, |bytes| bytes[end - BLOCK + 20] ^= 1);
    let summary = rows(&["verify"], dir.path(), Exit::Success);
    assert!(summary[0]["unfinished_offset"].as_u64().unwrap() < end as u64);
    let told = wal(&["verify"], dir.path()).assert_code(0);
    assert!(
        told.text().contains("never acknowledged"),
        "{}",
        told.text()
    );
    let listed = rows(&["ls"], dir.path(), Exit::Success);
    assert!(listed.iter().any(|row| row["state"] == "unfinished"));

    let dir = copy(&log);
    change(&segments(dir.path())[0], |bytes| age(bytes));
    wal(&["verify"], dir.path())
        .assert_code(7)
        .assert_says("has version 9");
    let dir = copy(&log);
    change(&dir.path().join("meta"), |bytes| {
        age(&mut bytes[..BLOCK]);
        age(&mut bytes[BLOCK..]);
    });
    wal(&["verify"], dir.path())
        .assert_code(7)
        .assert_says("meta has version 9");
}

/// Every file of a directory with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn a_damaged_log_is_cut_on_demand_and_what_follows_is_exported() {
    // The first batch of its group: what is before it is proven by the group before.
    let (_dir, data) = made();
    let log = data.join("group-0");
    let whole = rows(&["repair"], &data, Exit::Success);
    assert_eq!(whole[0]["type"], "whole");
    let batches = rows(&["dump", "--from", "49", "--to", "50"], &log, Exit::Success);
    let offset = batches[0]["offset"].as_u64().unwrap() as usize;
    let file = log.join(batches[0]["file"].as_str().unwrap());
    change(&file, |bytes| bytes[offset + 96 + 10] ^= 1);

    let before = content(&log);
    let told = wal(&["repair"], &data).assert_code(6);
    assert!(
        told.text().contains("missing: entries 49 to 49"),
        "{}",
        told.text()
    );
    assert!(
        told.text().contains("would end the log before entry 49"),
        "{}",
        told.text()
    );
    wal(&["repair", "--cut-at-damage"], &data).assert_code(2);
    let export = data.join("exported");
    let exported = path_text(&export);
    let cut = ["repair", "--cut-at-damage", "--export", exported.as_str()];
    fs::write(&export, b"something else").unwrap();
    wal(&cut, &data)
        .assert_code(4)
        .assert_says("cannot be exported");
    assert!(before == content(&log), "nothing was changed");
    fs::remove_file(&export).unwrap();

    let done = rows(&cut, &data, Exit::Success);
    let done = done.last().unwrap();
    assert_eq!(
        (&done["type"], &done["next_index"]),
        (&"cut".into(), &49.into())
    );
    assert_eq!(
        (&done["entries_missing"], &done["entries_dropped"]),
        (&1.into(), &(BATCHES - 49).into())
    );
    let bytes = fs::read(&export).unwrap();
    let indexes: Vec<u64> = drave_batch::Batches::new(&bytes)
        .map(|batch| {
            let batch = batch.unwrap();
            batch.verify_body().unwrap();
            batch.header.index
        })
        .collect();
    assert_eq!(indexes, (50..=BATCHES).collect::<Vec<_>>());
    let summary = rows(&["verify"], &data, Exit::Success);
    assert_eq!(
        (&summary[0]["first_index"], &summary[0]["last_index"]),
        (&1.into(), &48.into())
    );
    assert_eq!(rows(&["repair"], &data, Exit::Success)[0]["type"], "whole");
    let options = Options {
        store_id: 7,
        segment_bytes: 256 << 10,
        engine: EngineChoice::Posix,
        ..Options::default()
    };
    let wal_open = Wal::open(&log, options).unwrap();
    assert_eq!(wal_open.last_index(), 48);
    wal(&["repair"], &data)
        .assert_code(4)
        .assert_says("the log is in use");
    drop(wal_open);
    change(&log.join("meta"), |bytes| bytes.fill(1));
    wal(&["repair"], &data)
        .assert_code(6)
        .assert_says("drave member replace");
}
