//! One node, all commands: what goes in comes out.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{LIMIT, RunningAppend, TestCluster, drave, numbered_lines, path_text, run};
use rustix::process::Signal;

const MIB: usize = 1 << 20;

#[test]
fn lines_come_back_byte_for_byte() {
    let test = TestCluster::start(1);
    test.run(&["append", "a"], b"x\n")
        .assert_code(3)
        .assert_says("error[DRV-0201]");
    let created = test.run(&["log", "create", "a"], b"").assert_code(0);
    assert!(created.text().trim().parse::<u64>().is_ok(), "{created:?}");
    test.run(&["log", "create", "a"], b"")
        .assert_code(4)
        .assert_says("error[DRV-0202]");
    let same = test
        .run(&["log", "create", "a", "--if-missing"], b"")
        .assert_code(0);
    assert_eq!(same.text(), created.text());
    test.run(&["log", "create", "a b"], b"")
        .assert_code(2)
        .assert_says("error[DRV-0204]");

    let input = b"first\n\n\xff\xfe\0 not text\r\nlast without newline";
    let seqs = test.run(&["append", "a"], input).assert_code(0);
    assert_eq!(seqs.text(), "0\n1\n2\n3\n");
    let raw = test.run(&["read", "a"], b"").assert_code(0);
    assert_eq!(raw.stdout, [&input[..], b"\n"].concat());
    let alone = test.run(&["read", "a", "--node", "1"], b"").assert_code(0);
    assert_eq!(alone.stdout, raw.stdout);
    let some = test
        .run(
            &[
                "read", "a", "--from", "1", "--count", "2", "--format", "json",
            ],
            b"",
        )
        .assert_code(0);
    let rows: Vec<serde_json::Value> = some
        .text()
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert_eq!(
        (rows.len(), &rows[0]["payload"], &rows[0]["seq"]),
        (2, &"".into(), &1.into())
    );
    assert_eq!(rows[1]["payload_hex"], "fffe00206e6f7420746578740d");
    assert!(rows[1]["time_us"].as_u64().unwrap() > 1_600_000_000_000_000);
    assert!(
        test.run(&["read", "a", "--from", "4"], b"")
            .assert_code(0)
            .stdout
            .is_empty()
    );
    test.run(&["read", "a", "--from", "5"], b"")
        .assert_code(3)
        .assert_says("error[DRV-0206]");
    test.run(&["read", "b"], b"")
        .assert_code(3)
        .assert_says("error[DRV-0201]");

    let last = test.run(&["tail", "a", "--last", "2"], b"").assert_code(0);
    assert_eq!(
        last.stdout,
        b"\xff\xfe\0 not text\r\nlast without newline\n"
    );
    assert_eq!(
        test.run(&["tail", "a", "--from", "3"], b"")
            .assert_code(0)
            .text(),
        "last without newline\n"
    );
    let list = test
        .run(&["log", "ls", "--format", "json"], b"")
        .assert_code(0);
    let list: serde_json::Value = serde_json::from_str(list.text()).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["next_seq"]),
        (&"a".into(), &4.into())
    );
}

#[test]
fn records_of_every_size_up_to_the_limit() {
    let test = TestCluster::start(1);
    let mut input = Vec::new();
    let mut expected = Vec::new();
    for length in [0, 1, MIB - 1, MIB, MIB + 1, 5] {
        let line = vec![b'x'; length];
        input.extend_from_slice(&line);
        input.push(b'\n');
        if length <= MIB {
            expected.extend_from_slice(&line);
            expected.push(b'\n');
        }
    }
    let seqs = test
        .run(&["append", "sizes", "--create"], &input)
        .assert_code(4);
    assert_eq!(seqs.text(), "0\n1\n2\n3\n4\n");
    let seqs = seqs
        .assert_says("error[DRV-0105]: line 5 refused")
        .assert_says("1048576");
    assert!(
        seqs.stderr.contains("line 5 has 1048577 bytes"),
        "{}",
        seqs.stderr
    );
    assert!(test.run(&["read", "sizes"], b"").assert_code(0).stdout == expected);
}

#[test]
fn a_summary_instead_of_seqs() {
    let test = TestCluster::start(1);
    let input = numbered_lines(5_000);
    let arguments = [
        "append",
        "a",
        "--create",
        "--summary",
        "--format",
        "json",
        "--batch",
        "100",
    ];
    let summary = test.run(&arguments, &input).assert_code(0);
    let value: serde_json::Value = serde_json::from_str(summary.text()).unwrap();
    // More batches than full ones when the input paused.
    assert_eq!(value["records"], 5_000);
    assert!(value["batches"].as_u64().unwrap() >= 50, "{value}");
    assert_eq!(
        (&value["first_seq"], &value["last_seq"]),
        (&0.into(), &4_999.into())
    );
    let more = test
        .run(&["append", "a", "--summary"], b"one\n")
        .assert_code(0);
    assert!(more.text().contains("first seq  5000\n"), "{}", more.text());
    assert!(
        test.run(&["append", "a"], b"")
            .assert_code(0)
            .stdout
            .is_empty()
    );
}

#[test]
fn a_stopped_node_ends_well_and_has_everything_after_a_restart() {
    let mut test = TestCluster::start(1);
    test.run(&["append", "a", "--create"], b"one\ntwo\n")
        .assert_code(0);
    let status = test.cluster.stop(1).unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    test.cluster.start(1).unwrap();
    test.leader();
    assert_eq!(
        test.run(&["append", "a"], b"three\n").assert_code(0).text(),
        "2\n"
    );
    test.cluster.kill(1).unwrap();
    test.cluster.start(1).unwrap();
    test.leader();
    assert_eq!(
        test.run(&["read", "a"], b"").assert_code(0).text(),
        "one\ntwo\nthree\n"
    );
}

#[test]
fn a_directory_in_use_is_refused() {
    let test = TestCluster::start(1);
    let data_dir = path_text(&test.cluster.data_dir(1));
    run(&mut drave(&["start", "--data-dir", &data_dir]), b"")
        .assert_code(4)
        .assert_says("in use by another process");
    test.run(&["status"], b"").assert_code(0);
}

#[test]
fn another_cluster_is_refused() {
    let test = TestCluster::start(1);
    test.run(&["status", "--cluster-id", "other", "--timeout", "2s"], b"")
        .assert_says("error");
    let refused = test
        .run(
            &["log", "ls", "--cluster-id", "other", "--timeout", "2s"],
            b"",
        )
        .assert_code(7);
    refused.assert_says("error[DRV-0702]");
}

#[test]
fn status_has_its_keys() {
    let mut test = TestCluster::start(1);
    test.leader();
    let json = test
        .run(&["status", "--format", "json"], b"")
        .assert_code(0);
    let value: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(
        (&value["cluster_id"], &value["leader_id"]),
        (&"test".into(), &1.into())
    );
    assert!(value["term"].as_u64().unwrap() >= 1);
    let node = &value["nodes"][0];
    assert_eq!(
        (&node["node_id"], &node["reachable"], &node["role"]),
        (&1.into(), &true.into(), &"leader".into())
    );
    for key in [
        "term",
        "first_index",
        "last_index",
        "durable_index",
        "commit_index",
        "applied_index",
        "flush_us_p50",
        "flush_us_p99",
        "flush_us_max",
        "flush_waits_us",
        "scrub_bytes_per_second",
        "scrub_segment_seq",
        "scrub_bytes",
        "scrub_passes",
        "scrub_last_pass_unix_us",
        "scrub_found",
    ] {
        assert!(node[key].is_u64(), "{key} in {node}");
    }
    assert!(
        ["io_uring", "posix"].contains(&node["io_engine"].as_str().unwrap()),
        "{node}"
    );
    assert_eq!(node["address"], test.cluster.address(1));
    let table = test.run(&["status"], b"").assert_code(0);
    assert!(
        table
            .text()
            .starts_with("cluster test  leader node 1  term "),
        "{}",
        table.text()
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let test = TestCluster::start(1);
    test.run(
        &["append", "a", "--create", "--summary"],
        &numbered_lines(50_000),
    )
    .assert_code(0);
    let mut child = test
        .drave(&["read", "a"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 9];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"00000000 ");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), stderr.as_str()),
        (Some(0), "")
    );
}

#[test]
fn tailing_follows_what_is_appended() {
    let test = TestCluster::start(1);
    test.run(&["append", "a", "--create"], b"0\n1\n2\n")
        .assert_code(0);
    // Its output has the form of seqs, so that the same reader serves.
    let mut tail = RunningAppend::start(test.drave(&["tail", "a", "--follow", "--last", "2"]));
    tail.wait_acknowledged(2);
    for number in 3..20 {
        test.run(&["append", "a"], format!("{number}\n").as_bytes())
            .assert_code(0);
        tail.wait_acknowledged(number);
    }
    assert_eq!(tail.acknowledged, (1..20).collect::<Vec<u64>>());
    tail.signal(Signal::INT);
    let (ended, _) = tail.finish();
    assert_eq!(ended.code, None, "Ctrl-C ends it as it ends other filters");
}

#[test]
fn an_interrupted_append_says_what_is_in_the_log() {
    let test = TestCluster::start(1);
    let mut append = RunningAppend::start(test.drave(&["append", "a", "--create"]));
    append.write(b"one\ntwo\n");
    append.wait_acknowledged(2);
    append.signal(Signal::INT);
    // Its input stays open: only the signal can end it.
    let (ended, _) = append.wait_ended();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("lines 1-2: in the log, at seqs from 0 to 1"),
        "{}",
        ended.stderr
    );
    assert!(ended.elapsed < LIMIT);
}
