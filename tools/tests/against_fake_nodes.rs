//! The executable against the client's scripted fake nodes: redirects, lost answers, deadlines, limits.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../client/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::{Ended, LIMIT, RunningAppend, drave, numbered_lines, run};
use drave_batch::wire::{ErrorCode, MessageKind};
use support::{FakeCluster, Fault, Random};

/// Runs the executable against `fake`, whose nodes live on this runtime.
async fn against(fake: &FakeCluster, arguments: &[&str], input: &[u8]) -> Ended {
    let mut command = drave(arguments);
    command.env("DRAVE_ENDPOINTS", fake.addresses.join(","));
    let input = input.to_vec();
    tokio::task::spawn_blocking(move || run(&mut command, &input))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_leader_is_found_and_faults_do_not_show() {
    let seed = common::seed();
    let fake = FakeCluster::start(3).await;
    fake.elect(2);
    {
        let mut model = fake.model();
        model.chaos = Some((Random(seed), 30));
        model.chaos_elections = true;
    }
    let input = numbered_lines(3_000);
    let arguments = [
        "append",
        "a",
        "--create",
        "--batch",
        "7",
        "--timeout",
        "100s",
    ];
    let seqs = against(&fake, &arguments, &input).await.assert_code(0);
    assert!(
        seqs.text()
            .lines()
            .map(|seq| seq.parse::<u64>().unwrap())
            .eq(0..3_000)
    );
    fake.model().chaos = None;
    let read = against(&fake, &["read", "a"], b"").await.assert_code(0);
    assert!(read.stdout == input, "each line once, in order");
}

#[tokio::test]
async fn a_deadline_gives_an_unknown_outcome_with_its_lines() {
    let fake = FakeCluster::start(1).await;
    fake.model()
        .script(MessageKind::Append, vec![Fault::Silent; 100]);
    let arguments = [
        "append",
        "a",
        "--create",
        "--batch",
        "2",
        "--timeout",
        "400ms",
    ];
    let ended = against(&fake, &arguments, b"1\n2\n3\n")
        .await
        .assert_code(5);
    assert!(ended.stdout.is_empty());
    let ended = ended.assert_says("error[DRV-0103]: lines 1-3 not acknowledged");
    ended.assert_says("effect  nothing was acknowledged\n          lines 1-3: unknown");
}

#[tokio::test]
async fn a_refusal_for_good_stops_the_rest() {
    let fake = FakeCluster::start(1).await;
    let gone = Fault::Refuse(ErrorCode::LogNotFound);
    fake.model().script(MessageKind::Append, vec![gone; 100]);
    let ended = against(&fake, &["append", "a", "--create"], b"1\n2\n")
        .await
        .assert_code(3);
    ended
        .assert_says("error[DRV-0201]")
        .assert_says("lines 1-2: not in the log");
}

#[tokio::test]
async fn a_lower_limit_of_the_nodes_costs_no_other_line() {
    let fake = FakeCluster::start(1).await;
    fake.model().record_bytes_max = 10;
    let input = b"short\n12345678901\nalso short\n";
    let ended = against(&fake, &["append", "a", "--create"], input)
        .await
        .assert_code(4);
    assert_eq!(ended.text(), "0\n1\n");
    ended
        .assert_says("error[DRV-0105]: line 2 refused")
        .assert_says("at most 10 bytes");
    let read = against(&fake, &["read", "a"], b"").await.assert_code(0);
    assert_eq!(read.text(), "short\nalso short\n");
}

#[tokio::test]
async fn damaged_bytes_are_never_printed() {
    let fake = FakeCluster::start(1).await;
    against(&fake, &["append", "a", "--create"], b"good\n")
        .await
        .assert_code(0);
    fake.model().script(MessageKind::Read, [Fault::Damage]);
    let read = against(&fake, &["read", "a"], b"").await.assert_code(0);
    assert_eq!(read.text(), "good\n");
    fake.model()
        .script(MessageKind::Read, vec![Fault::Damage; 100]);
    let read = against(&fake, &["read", "a"], b"").await.assert_code(6);
    assert!(read.stdout.is_empty());
    read.assert_says("error[DRV-0402]");
}

#[tokio::test]
async fn trimmed_records_are_skipped_or_told() {
    let fake = FakeCluster::start(1).await;
    against(
        &fake,
        &["append", "a", "--create", "--batch", "1"],
        b"0\n1\n2\n3\n",
    )
    .await
    .assert_code(0);
    {
        let mut model = fake.model();
        let log = model.logs.values_mut().next().unwrap();
        log.first_seq = 2;
        log.batches.retain(|(seq, _)| *seq >= 2);
    }
    let all = against(&fake, &["read", "a"], b"").await.assert_code(0);
    assert_eq!(all.text(), "2\n3\n");
    let last = against(&fake, &["tail", "a", "--last", "10"], b"")
        .await
        .assert_code(0);
    assert_eq!(last.text(), "2\n3\n");
    let gone = against(&fake, &["read", "a", "--from", "1"], b"")
        .await
        .assert_code(3);
    gone.assert_says("error[DRV-0203]");
}

#[tokio::test]
async fn counts_are_exact_over_batch_borders() {
    let fake = FakeCluster::start(1).await;
    against(
        &fake,
        &["append", "a", "--create", "--batch", "3"],
        &numbered_lines(10),
    )
    .await
    .assert_code(0);
    for from in 0..10_usize {
        for count in 0..12 {
            let (from_text, count_text) = (from.to_string(), count.to_string());
            let arguments = ["read", "a", "--from", &from_text, "--count", &count_text];
            let read = against(&fake, &arguments, b"").await.assert_code(0);
            let text = String::from_utf8(numbered_lines(10)).unwrap();
            let expected: Vec<&str> = text.lines().skip(from).take(count).collect();
            assert_eq!(
                read.text().lines().collect::<Vec<_>>(),
                expected,
                "{from} {count}"
            );
        }
    }
}

#[tokio::test]
async fn an_interruption_does_not_wait_for_each_batch_by_itself() {
    const BATCHES: u64 = 60;
    let fake = FakeCluster::start(1).await;
    fake.model()
        .script(MessageKind::Append, vec![Fault::Silent; 1_000]);
    let mut command = drave(&[
        "append",
        "a",
        "--create",
        "--batch",
        "1",
        "--timeout",
        "100s",
    ]);
    command.env("DRAVE_ENDPOINTS", fake.addresses.join(","));
    let mut append = RunningAppend::start(command);
    append.write(&numbered_lines(BATCHES as usize));
    let all_sent = async {
        while fake.model().requests.get(&(MessageKind::Append as u8)) < Some(&BATCHES) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, all_sent).await.unwrap();
    append.signal(rustix::process::Signal::INT);
    let (ended, _) = tokio::task::spawn_blocking(|| append.wait_ended())
        .await
        .unwrap();
    assert!(
        ended.elapsed < Duration::from_secs(20),
        "{:?}",
        ended.elapsed
    );
    let unknown = format!("lines 1-{BATCHES}: unknown");
    ended
        .assert_code(130)
        .assert_says("error: interrupted")
        .assert_says(&unknown);
}
