use super::*;

fn acked(first_seq: u64, record_count: u64) -> Acked {
    Acked {
        first_seq,
        record_count,
    }
}

fn unknown() -> ClientError {
    ClientError::Unknown {
        code: None,
        cause: "the connection broke".to_owned(),
        attempts: 4,
    }
}

fn two_good_batches() -> Report {
    let mut report = Report::new(1_048_576);
    report.acknowledged(1..3, acked(10, 2), Duration::from_millis(1));
    report.acknowledged(3..4, acked(14, 1), Duration::from_millis(4));
    report.elapsed = Duration::from_millis(500);
    report
}

#[test]
fn ranges_merge_and_read_well() {
    let mut ranges = LineRanges::default();
    ranges.push(1..2);
    assert_eq!(ranges.to_string(), "line 1");
    ranges.push(2..8);
    assert_eq!(ranges.to_string(), "lines 1-7");
    ranges.push(9..10);
    assert_eq!(
        (ranges.to_string(), ranges.count()),
        ("lines 1-7, 9".to_owned(), 8)
    );
    for line in [20, 30, 40, 50] {
        ranges.push(line..line + 1);
    }
    assert_eq!(
        ranges.to_string(),
        "lines 1-7, 9, 20, 30, 40 and 1 more ranges"
    );
}

#[test]
fn the_summary_for_people() {
    let expected = "\
records    3
first seq  10
last seq   14
rate       6/s over 500 ms
p50        1.0 ms
p99        4.0 ms
";
    assert_eq!(
        two_good_batches().summary("x", ResultFormat::Table),
        expected
    );
    let nothing = Report::new(1_048_576).summary("x", ResultFormat::Table);
    assert!(
        nothing.starts_with("records    0\nfirst seq  -\nlast seq   -\n"),
        "{nothing}"
    );
}

#[test]
fn the_summary_for_programs() {
    let text = two_good_batches().summary("x", ResultFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["log"], &value["records"]), (&"x".into(), &3.into()));
    assert_eq!(
        (&value["first_seq"], &value["last_seq"]),
        (&10.into(), &14.into())
    );
    assert_eq!(
        (&value["batches"], &value["not_acknowledged"]),
        (&2.into(), &0.into())
    );
    assert!(value["latency_us_p50"].as_u64().unwrap() >= 1_000);
    assert!(value["latency_us_p99"].as_u64().unwrap() >= 4_000);
    assert!(text.ends_with("}\n"));
    let nothing: serde_json::Value =
        serde_json::from_str(&Report::new(1_048_576).summary("x", ResultFormat::Json)).unwrap();
    assert!(nothing["first_seq"].is_null());
}

#[test]
fn all_acknowledged_is_no_error() {
    assert_eq!(two_good_batches().error("x"), None);
    assert_eq!(Report::new(1_048_576).error("x"), None);
    let mut report = two_good_batches();
    report.output_failed(CliError::stdout(&io::ErrorKind::BrokenPipe.into()));
    assert_eq!(report.error("x"), None);
    // Interrupted when everything had been appended already.
    report.interrupted = true;
    assert_eq!(report.error("x"), None);
}

#[test]
fn an_unknown_outcome_names_its_lines() {
    let mut report = two_good_batches();
    report.failed(4..6, unknown());
    report.not_sent_from = Some(6);
    let expected = "\
error[DRV-0103]: lines 4-5 not acknowledged: the outcome is unknown
  log     x
  why     it was sent 4 times and not answered for good: the connection broke
  effect  lines 1-3: in the log, at seqs from 10 to 14
          lines 4-5: unknown, may be in the log or get there yet
          line 6 and all after it: not sent
  next    read the log from seq 15 on to see which of them it holds, then append the rest again
";
    let error = report.error("x").unwrap();
    assert_eq!(
        (error.to_string().as_str(), error.exit),
        (expected, Exit::Unavailable)
    );
}

#[test]
fn unknown_outweighs_refused() {
    let refusal = ClientError::Unavailable {
        code: None,
        cause: "c".to_owned(),
        attempts: 1,
        leader: None,
    };
    let mut report = Report::new(1_048_576);
    report.failed(1..2, refusal);
    let error = report.error("x").unwrap();
    assert_eq!(error.exit, Exit::Unavailable);
    assert_eq!(
        error.effect,
        "nothing was acknowledged\nline 1: not in the log"
    );
    report.failed(2..3, unknown());
    assert_eq!(
        report.error("x").unwrap().code,
        Some(ErrorCode::OutcomeUnknown)
    );
}

#[test]
fn long_lines_are_refused_by_name() {
    let mut report = two_good_batches();
    report.too_long = vec![LongLine {
        line: 4,
        bytes: 1_048_577,
    }];
    let expected = "\
error[DRV-0105]: line 4 refused: over the limit
  log     x
  why     a record is at most 1048576 bytes
          line 4 has 1048577 bytes
  effect  lines 1-3: in the log, at seqs from 10 to 14
          line 4: not in the log, over the limit
  next    split the long lines; every other line is in the log
";
    let error = report.error("x").unwrap();
    assert_eq!(
        (error.to_string().as_str(), error.exit),
        (expected, Exit::Precondition)
    );
}

#[test]
fn an_interruption_and_a_bad_input_say_where() {
    let mut report = two_good_batches();
    report.not_sent_from = Some(4);
    report.input_error = Some(io::Error::other("the disk is gone"));
    let error = report.error("x").unwrap();
    assert_eq!(
        (error.exit, error.why.as_str()),
        (Exit::Failure, "the disk is gone")
    );
    assert!(error.effect.ends_with("line 4 and all after it: not sent"));
    report.interrupted = true;
    assert_eq!(report.error("x").unwrap().exit, Exit::Interrupted);
}
