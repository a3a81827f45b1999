use super::*;

const LOG: u64 = 7;

fn operation(client: u64, [invoked_us, completed_us]: [u64; 2], action: Action) -> Line {
    Line::Operation(Operation {
        client,
        invoked_us,
        completed_us,
        log: LOG,
        action,
    })
}

/// Producer `client`, its append of `count` records with ids from `payload_id` on, numbered by that id.
fn append(
    client: u64,
    times: [u64; 2],
    payload_id: u64,
    count: u32,
    outcome: AppendOutcome,
) -> Line {
    let append = Append {
        producer: client,
        producer_seq: payload_id,
        payload_id,
        count,
        outcome,
    };
    operation(client, times, Action::Append(append))
}

fn ok(first_seq: u64) -> AppendOutcome {
    AppendOutcome::Ok { first_seq }
}

fn read(times: [u64; 2], from: u64, tail: u64, records: &[u64]) -> Line {
    let outcome = ReadOutcome::Ok {
        tail,
        records: records.to_vec(),
    };
    let count = 100;
    operation(
        9,
        times,
        Action::Read(Read {
            from,
            count,
            outcome,
        }),
    )
}

fn tail(times: [u64; 2], tail: u64) -> Line {
    let outcome = TailOutcome::Ok { tail };
    operation(9, times, Action::CheckTail(CheckTail { outcome }))
}

fn finally(from: u64, records: &[u64]) -> Line {
    Line::Final(FinalSlice {
        log: LOG,
        node: None,
        from,
        records: records.to_vec(),
    })
}

fn checked(lines: &[Line]) -> Result<Report, HistoryError> {
    let mut history = History::default();
    lines.iter().cloned().for_each(|line| history.push(line));
    check(&history)
}

/// The kinds found, each once.
fn kinds(lines: &[Line]) -> Vec<ViolationKind> {
    checked(lines).unwrap().counts.into_keys().collect()
}

#[test]
fn a_clean_history() {
    let report = checked(&[
        append(1, [10, 20], 100, 2, ok(0)),
        append(2, [10, 30], 200, 1, AppendOutcome::Unknown),
        append(2, [31, 40], 300, 1, AppendOutcome::Unknown),
        append(1, [25, 50], 102, 1, ok(3)),
        append(3, [1, 2], 400, 5, AppendOutcome::Failed),
        read([21, 22], 0, 2, &[100, 101]),
        read([21, 45], 1, 3, &[101]),
        tail([51, 52], 4),
        finally(0, &[100, 101, 200]),
        finally(3, &[102]),
    ])
    .unwrap();
    assert!(report.is_clean(), "{:?}", report.violations);
    let counts = [report.operations, report.acknowledged, report.unknown];
    assert_eq!(counts, [8, 2, 2]);
    assert_eq!(
        [report.failed, report.observations, report.records],
        [1, 3, 4]
    );
}

#[test]
fn what_was_trimmed_is_not_missed() {
    let lines = [
        append(1, [10, 20], 100, 3, ok(0)),
        append(1, [10, 20], 200, 2, AppendOutcome::Unknown),
        append(1, [21, 30], 300, 1, ok(5)),
        read([31, 32], 4, 6, &[201, 300]),
        finally(4, &[201, 300]),
    ];
    assert_eq!(kinds(&lines), []);
}

#[test]
fn lost_and_misplaced() {
    let acked = append(1, [10, 20], 100, 2, ok(0));
    let cut = [acked.clone(), finally(0, &[100])];
    assert_eq!(kinds(&cut), [ViolationKind::Lost]);
    let other = append(2, [10, 20], 200, 1, AppendOutcome::Unknown);
    let replaced = [acked.clone(), other.clone(), finally(0, &[100, 200])];
    assert_eq!(kinds(&replaced), [ViolationKind::Lost]);
    let moved = [acked, other, finally(0, &[200, 100, 101])];
    assert_eq!(kinds(&moved), [ViolationKind::Misplaced]);
}

#[test]
fn duplicated() {
    for outcome in [ok(0), AppendOutcome::Unknown] {
        let lines = [append(1, [1, 2], 100, 1, outcome), finally(0, &[100, 100])];
        assert_eq!(kinds(&lines), [ViolationKind::Duplicated]);
    }
}

#[test]
fn one_seq_for_two() {
    let report = checked(&[
        append(1, [10, 20], 100, 3, ok(0)),
        append(2, [10, 20], 200, 1, ok(1)),
        finally(0, &[100, 101, 102]),
    ])
    .unwrap();
    assert_eq!(report.count(ViolationKind::SeqReused), 1);
    assert_eq!(report.count(ViolationKind::Lost), 1);
    let mut named = report.violations.iter();
    let named = named.find(|violation| violation.kind == ViolationKind::SeqReused);
    assert_eq!(named.unwrap().operations, [0, 1]);
}

#[test]
fn real_time_order() {
    let swapped = |times| {
        [
            append(1, [10, 20], 100, 1, ok(1)),
            append(2, times, 200, 1, ok(0)),
            finally(0, &[200, 100]),
        ]
    };
    assert_eq!(kinds(&swapped([21, 30])), [ViolationKind::OutOfOrder]);
    assert_eq!(kinds(&swapped([20, 30])), []);
    // One whose outcome nobody had may come late, but nothing comes before it began.
    let unknown = [
        append(1, [10, 20], 100, 1, AppendOutcome::Unknown),
        append(2, [21, 30], 200, 1, ok(0)),
        finally(0, &[200, 100]),
    ];
    assert_eq!(kinds(&unknown), []);
    let early = [
        append(1, [10, 20], 100, 1, ok(1)),
        append(2, [21, 30], 200, 1, AppendOutcome::Unknown),
        finally(0, &[200, 100]),
    ];
    assert_eq!(kinds(&early), [ViolationKind::OutOfOrder]);
}

#[test]
fn producer_order() {
    let lines = [
        append(1, [10, 30], 100, 1, ok(1)),
        append(1, [11, 30], 101, 1, ok(0)),
        finally(0, &[101, 100]),
    ];
    assert_eq!(kinds(&lines), [ViolationKind::ProducerOrder]);
}

#[test]
fn failed_but_present() {
    let lines = [
        append(1, [10, 30], 100, 1, AppendOutcome::Failed),
        finally(0, &[100]),
    ];
    assert_eq!(kinds(&lines), [ViolationKind::FailedPresent]);
}

#[test]
fn torn() {
    let batch = append(1, [10, 30], 100, 3, AppendOutcome::Unknown);
    for records in [&[100, 101][..], &[101, 102], &[100, 102, 101], &[102]] {
        assert_eq!(
            kinds(&[batch.clone(), finally(0, records)]),
            [ViolationKind::Torn],
            "{records:?}"
        );
    }
}

#[test]
fn strangers() {
    let report = checked(&[finally(0, &[100])]).unwrap();
    assert_eq!(report.count(ViolationKind::Stranger), 1);
    let mut elsewhere = append(1, [10, 30], 100, 1, AppendOutcome::Unknown);
    if let Line::Operation(operation) = &mut elsewhere {
        operation.log = LOG + 1;
    }
    let other = Line::Final(FinalSlice {
        log: LOG + 1,
        node: None,
        from: 0,
        records: Vec::new(),
    });
    let lines = [elsewhere, other, finally(0, &[100])];
    assert_eq!(kinds(&lines), [ViolationKind::Stranger]);
}

#[test]
fn reads_show_the_log() {
    let acked = append(1, [10, 20], 100, 2, ok(0));
    let whole = finally(0, &[100, 101]);
    let with = |line: Line| kinds(&[acked.clone(), whole.clone(), line]);
    assert_eq!(with(read([30, 31], 0, 2, &[100, 101])), []);
    assert_eq!(
        with(read([30, 31], 0, 2, &[101])),
        [ViolationKind::ReadMismatch]
    );
    assert_eq!(with(read([30, 31], 0, 2, &[])), [ViolationKind::ReadTail]);
    assert_eq!(
        with(read([15, 31], 0, 1, &[100, 101])),
        [ViolationKind::ReadTail]
    );
    assert_eq!(
        with(read([30, 31], 0, 3, &[100, 101, 102])),
        [ViolationKind::ReadMismatch, ViolationKind::ShownThenGone]
    );
    assert_eq!(with(tail([30, 31], 3)), [ViolationKind::ShownThenGone]);
}

#[test]
fn reads_are_neither_stale_nor_of_the_future() {
    let lines = |seen: Line| {
        [
            append(1, [10, 20], 100, 1, ok(0)),
            append(1, [30, 40], 101, 1, ok(1)),
            finally(0, &[100, 101]),
            seen,
        ]
    };
    let stale = checked(&lines(tail([41, 42], 1))).unwrap();
    assert_eq!(stale.count(ViolationKind::StaleRead), 1);
    assert_eq!(stale.violations[0].operations, [2, 1]);
    assert_eq!(kinds(&lines(tail([40, 42], 1))), []);
    let early = checked(&lines(tail([21, 29], 2))).unwrap();
    assert_eq!(early.count(ViolationKind::FutureRead), 1);
    assert_eq!(early.violations[0].operations, [2, 1]);
    assert_eq!(kinds(&lines(tail([21, 30], 2))), []);
}

#[test]
fn tails_do_not_go_back() {
    let lines = [
        append(1, [10, 90], 100, 1, ok(0)),
        tail([20, 30], 1),
        tail([31, 40], 0),
        finally(0, &[100]),
    ];
    assert_eq!(kinds(&lines), [ViolationKind::TailWentBack]);
}

#[test]
fn replicas_must_agree() {
    let replica = |from: u64, records: &[u64]| {
        Line::Final(FinalSlice {
            log: LOG,
            node: Some(2),
            from,
            records: records.to_vec(),
        })
    };
    let with = |line: Line| {
        kinds(&[
            append(1, [10, 20], 100, 2, ok(0)),
            finally(0, &[100, 101]),
            line,
        ])
    };
    assert_eq!(with(replica(0, &[100, 101])), []);
    assert_eq!(with(replica(1, &[101])), []);
    for different in [
        replica(0, &[100]),
        replica(0, &[100, 102]),
        replica(0, &[100, 101, 102]),
    ] {
        assert_eq!(with(different), [ViolationKind::ReplicasDiffer]);
    }
}

#[test]
fn histories_without_sense_are_refused() {
    let acked = append(1, [10, 20], 100, 2, ok(0));
    let whole = finally(0, &[100, 101]);
    assert_eq!(
        checked(std::slice::from_ref(&acked)),
        Err(HistoryError::NoFinal { log: LOG })
    );
    assert_eq!(
        checked(&[acked.clone(), whole.clone(), finally(3, &[])]),
        Err(HistoryError::FinalGap {
            log: LOG,
            expected: 2,
            found: 3
        })
    );
    let backwards = tail([31, 30], 0);
    assert!(matches!(
        checked(&[whole.clone(), backwards]),
        Err(HistoryError::Operation { operation: 0, .. })
    ));
    for broken in [
        append(1, [1, 2], 0, 0, ok(0)),
        append(1, [1, 2], u64::MAX, 1, ok(0)),
        append(1, [1, 2], 0, 1, ok(u64::MAX)),
    ] {
        let found = checked(&[whole.clone(), broken]);
        assert!(matches!(found, Err(HistoryError::Operation { .. })));
    }
    let overlapping = append(2, [10, 20], 101, 1, AppendOutcome::Unknown);
    assert_eq!(
        checked(&[acked, whole, overlapping]),
        Err(HistoryError::Ambiguous {
            operations: [0, 1],
            what: "a payload id"
        })
    );
}

#[test]
fn many_violations_are_counted_and_few_are_told() {
    let mut lines = vec![finally(0, &[])];
    lines.extend((0..1000).map(|id| append(1, [id, id + 1], id, 1, ok(id))));
    let report = checked(&lines).unwrap();
    assert_eq!(report.count(ViolationKind::Lost), 1000);
    assert_eq!(report.violations.len(), 10);
}

#[test]
fn lines_come_back_as_they_were_written() {
    let lines = [
        append(1, [10, 20], 100, 2, ok(0)),
        append(1, [10, 20], 200, 2, AppendOutcome::Failed),
        append(1, [10, 20], 300, 2, AppendOutcome::Unknown),
        read([30, 31], 0, 2, &[100, 101]),
        tail([30, 31], 2),
        finally(0, &[100, 101]),
    ];
    let mut text = Vec::new();
    let mut history = History::default();
    for line in &lines {
        write_line(&mut text, line).unwrap();
        history.push(line.clone());
    }
    assert_eq!(read_history(&text[..]).unwrap(), history);
    let first = text.split(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(
        String::from_utf8_lossy(first),
        "{\"operation\":{\"client\":1,\"invoked_us\":10,\"completed_us\":20,\"log\":7,\
         \"action\":{\"append\":{\"producer\":1,\"producer_seq\":100,\"payload_id\":100,\"count\":2,\
         \"outcome\":{\"ok\":{\"first_seq\":0}}}}}}"
    );
}

#[test]
fn lines_of_others_are_refused_by_number() {
    for (text, expected) in [
        ("{}\n", "line 1"),
        (
            "{\"final\":{\"log\":1,\"node\":null,\"from\":0,\"records\":[]}}\nx\n",
            "line 2",
        ),
        (
            "{\"final\":{\"log\":1,\"node\":null,\"from\":0,\"records\":[],\"more\":1}}\n",
            "line 1",
        ),
        (
            "{\"final\":{\"log\":1,\"node\":null,\"from\":-1,\"records\":[]}}\n",
            "line 1",
        ),
    ] {
        let error = read_history(text.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let long = vec![b' '; LINE_BYTES_MAX as usize + 1];
    let error = read_history(&long[..]).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
}
