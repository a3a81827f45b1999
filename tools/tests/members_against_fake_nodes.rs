//! `drave member`, `drave leader` and `drave log trim` against the client's scripted fake nodes: steps that
//! are repeated, answers that are lost, verdicts, and nodes that are not who they should be.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../client/tests/support/mod.rs"]
mod support;

use std::collections::VecDeque;

use common::{Ended, drave, run};
use drave_batch::wire::{ErrorCode, MemberOperation, MessageKind};
use support::{FakeCluster, Fault, INCARNATION};

/// Four nodes, three of which are members.
async fn with_newcomer() -> FakeCluster {
    let fake = FakeCluster::start(4).await;
    fake.model().members.only(3);
    fake
}

/// Runs the executable against the members of `fake`, whose nodes live on this runtime.
async fn against(fake: &FakeCluster, arguments: &[&str]) -> Ended {
    let mut command = drave(arguments);
    command.env("DRAVE_ENDPOINTS", fake.addresses[..3].join(","));
    tokio::task::spawn_blocking(move || run(&mut command, b""))
        .await
        .unwrap()
}

fn operations(fake: &FakeCluster) -> Vec<MemberOperation> {
    let model = fake.model();
    model.members.asked.iter().map(|c| c.operation).collect()
}

#[tokio::test]
async fn the_list_is_printed_for_people_and_programs() {
    let fake = with_newcomer().await;
    fake.model().members.silent = vec![3];
    let table = against(&fake, &["member", "list"]).await.assert_code(0);
    let mut lines = table.text().lines();
    assert_eq!(
        lines.next(),
        Some("cluster test  leader node 1  term 1  configuration 0  next free id 4")
    );
    assert_eq!(
        lines.next(),
        Some("3 voters, silent: 3, tolerates 0 more failures")
    );
    assert_eq!(lines.count(), 4, "a header and three members");
    assert!(table.stderr.is_empty(), "{}", table.stderr);
    let json = against(&fake, &["member", "list", "--format", "json"])
        .await
        .assert_code(0);
    let value: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(value["cluster_id"], "test");
    assert_eq!(value["failures_tolerated"], 0);
    assert_eq!(value["members"][2]["last_active_ms"], 60_000);
    assert_eq!(value["members"][2]["address"], *fake.addresses[2]);
}

#[tokio::test]
async fn a_node_is_added_by_what_it_says_of_itself_and_promoted_when_it_has_caught_up() {
    let fake = with_newcomer().await;
    let newcomer = fake.addresses[3].clone();
    for _ in 0..2 {
        against(&fake, &["member", "add", "4", &newcomer])
            .await
            .assert_code(0)
            .assert_says("before: 3 voters")
            .assert_says("next: drave member promote 4");
        assert_eq!(fake.model().members.configuration_index, 1, "added once");
    }
    assert_eq!(fake.model().members.asked[0].incarnation, INCARNATION);
    let lags = VecDeque::from([900, 50]);
    fake.model().members.lags.insert(4, lags);
    let promoted = against(&fake, &["member", "promote", "4", "--format", "json"])
        .await
        .assert_code(0)
        .assert_says("node 4: match 100, lag 900, catching up")
        .assert_says("node 4: match 1,000, lag 0, caught up")
        .assert_says("before: 3 voters, 1 learner, tolerates 1 failure")
        .assert_says("after:  4 voters, tolerates 1 failure");
    let value: serde_json::Value = serde_json::from_str(promoted.text()).unwrap();
    assert_eq!(value["members"][3]["role"], "voter");
    against(&fake, &["member", "remove", "4"])
        .await
        .assert_code(0)
        .assert_says("after:  3 voters, tolerates 1 failure");
}

#[tokio::test]
async fn one_that_does_not_catch_up_stays_a_learner() {
    let fake = with_newcomer().await;
    against(&fake, &["member", "add", "4", &fake.addresses[3]])
        .await
        .assert_code(0);
    let lags = VecDeque::from(vec![900; 10_000]);
    fake.model().members.lags.insert(4, lags);
    against(&fake, &["member", "promote", "4", "--wait", "500ms"])
        .await
        .assert_code(5)
        .assert_says("error[DRV-0305]: node 4 has not caught up in time")
        .assert_says("lag 900")
        .assert_says("it stays a learner");
    // Level with the leader, and then gone.
    {
        let mut model = fake.model();
        model.members.lags.clear();
        model.members.silent = vec![4];
    }
    against(&fake, &["member", "promote", "4", "--wait", "500ms"])
        .await
        .assert_code(5)
        .assert_says("lag 0, not heard of");
    assert_eq!(operations(&fake), [MemberOperation::AddLearner]);
}

#[tokio::test]
async fn nodes_that_are_not_who_they_should_be_are_not_added() {
    let fake = with_newcomer().await;
    let other = FakeCluster::start_as(4, "other").await;
    other.model().members.only(0);
    let (second, newcomer) = (&fake.addresses[1], &fake.addresses[3]);
    against(&fake, &["member", "add", "4", &other.addresses[3]])
        .await
        .assert_code(7)
        .assert_says("error[DRV-0702]")
        .assert_says("expected cluster test, found other");
    for line in [["member", "add", "5"], ["member", "add", "1"]] {
        let line = [&line[..], &[newcomer.as_str()]].concat();
        against(&fake, &line)
            .await
            .assert_code(7)
            .assert_says("error[DRV-0703]")
            .assert_says("found node 4");
    }
    against(&fake, &["member", "add", "4", second])
        .await
        .assert_code(7);
    // A node of the same cluster's name with members of its own.
    let founded = FakeCluster::start(4).await;
    against(&fake, &["member", "add", "4", &founded.addresses[3]])
        .await
        .assert_code(4)
        .assert_says("error[DRV-0302]")
        .assert_says("it knows the members 1 2 3 4 already")
        .assert_says("--node-id 4");
    let mut dead = FakeCluster::start(1).await;
    dead.kill(0).await;
    against(&fake, &["member", "add", "4", &dead.addresses[0]])
        .await
        .assert_code(5)
        .assert_says("nothing was changed");
    assert!(operations(&fake).is_empty(), "the leader was not asked");
}

#[tokio::test]
async fn a_replacement_says_what_is_tolerated_at_every_step() {
    let fake = with_newcomer().await;
    fake.model().members.silent = vec![2];
    let lags = VecDeque::from([0, 0, 700, 20]);
    fake.model().members.lags.insert(4, lags);
    let newcomer = fake.addresses[3].clone();
    let ended = against(&fake, &["member", "replace", "2", "4", &newcomer])
        .await
        .assert_code(0);
    let said: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| !line.starts_with("node 4: "))
        .collect();
    let add = format!("step: add node 4 at {newcomer} as a learner, without a vote");
    let expected = [
        add.as_str(),
        "  before: 3 voters, silent: 2, tolerates 0 more failures",
        "  after:  3 voters, 1 learner, silent: 2, tolerates 0 more failures",
        "step: exchange node 2 for node 4, in one change",
        "  before: 3 voters, 1 learner, silent: 2, tolerates 0 more failures",
        "  after:  3 voters, tolerates 1 failure",
        "done: node 4 votes, node 2 is no member any more",
        "now: 3 voters, tolerates 1 failure",
        "next: stop node 2 if it runs; its directory is of no more use",
    ];
    assert_eq!(said, expected, "{}", ended.stderr);
    assert!(ended.stderr.contains("lag 20"), "{}", ended.stderr);
    let table: Vec<&str> = ended.text().lines().collect();
    assert_eq!(table.len(), 6, "{}", ended.text());
    // And again.
    against(&fake, &["member", "replace", "2", "4", &newcomer])
        .await
        .assert_code(0)
        .assert_says("was there already");
    assert_eq!(fake.model().members.configuration_index, 2);
}

#[tokio::test]
async fn a_replacement_goes_on_over_lost_answers_and_other_changes() {
    let fake = with_newcomer().await;
    let conflict = Fault::Refuse(ErrorCode::MembershipConflict);
    let behind = Fault::Refuse(ErrorCode::NotCaughtUp);
    let faults = [Fault::CloseAfter, conflict, behind, Fault::CloseAfter];
    fake.model().script(MessageKind::MemberChange, faults);
    fake.model().members.changing = 3;
    let newcomer = fake.addresses[3].clone();
    against(&fake, &["member", "replace", "1", "4", &newcomer])
        .await
        .assert_code(0)
        .assert_says("a change of members is under way; waiting for its end")
        .assert_says("done: node 4 votes, node 1 is no member any more");
    assert_eq!(fake.model().members.describe(), "2 voter, 3 voter, 4 voter");
    assert_eq!(
        fake.model().members.configuration_index,
        2,
        "each step was made once"
    );
}

#[tokio::test]
async fn a_change_that_never_ends_is_told() {
    let fake = with_newcomer().await;
    fake.model().members.changing = u32::MAX;
    let newcomer = fake.addresses[3].clone();
    let line = ["member", "replace", "2", "4", &newcomer, "--wait", "500ms"];
    against(&fake, &line)
        .await
        .assert_code(5)
        .assert_says("error[DRV-0301]")
        .assert_says("too few of its voters answer");
    assert!(operations(&fake).is_empty());
}

#[tokio::test]
async fn verdicts_are_explained_and_end_the_command() {
    let fake = with_newcomer().await;
    let newcomer = fake.addresses[3].clone();
    for (code, exit) in [
        (ErrorCode::WouldLoseQuorum, 4),
        (ErrorCode::LastVoter, 4),
        (ErrorCode::NodeIdUsed, 4),
        (ErrorCode::InvalidMembers, 4),
        (ErrorCode::MemberUnknown, 3),
        (ErrorCode::MembershipConflict, 4),
    ] {
        let refused = Fault::Refuse(code);
        fake.model().script(MessageKind::MemberChange, [refused]);
        let ended = against(&fake, &["member", "remove", "2"])
            .await
            .assert_code(exit)
            .assert_says(&format!("error[{code}]: the members were not changed"))
            .assert_says("nothing was written");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
    let refused = Fault::Refuse(ErrorCode::WouldLoseQuorum);
    fake.model().script(MessageKind::MemberChange, [refused]);
    against(&fake, &["member", "replace", "2", "4", &newcomer])
        .await
        .assert_code(4)
        .assert_says("error[DRV-0307]")
        .assert_says("run the same command again: it goes on from here");
    assert!(operations(&fake).is_empty());
    for (line, exit, says) in [
        (&["member", "promote", "9"][..], 3, "error[DRV-0303]"),
        (&["member", "remove", "9"], 3, "error[DRV-0303]"),
        (&["member", "replace", "2", "2", "a:1"], 2, "use id 4"),
        (
            &["member", "replace", "9", "4", "a:1"],
            3,
            "error[DRV-0303]",
        ),
        (
            &["member", "replace", "2", "3", "a:1"],
            4,
            "error[DRV-0302]",
        ),
    ] {
        against(&fake, line)
            .await
            .assert_code(exit)
            .assert_says(says);
    }
    assert_eq!(operations(&fake), [MemberOperation::Remove]);
}

#[tokio::test]
async fn an_unknown_outcome_says_how_to_find_out() {
    let fake = with_newcomer().await;
    let silence = vec![Fault::Silent; 100];
    fake.model().script(MessageKind::MemberChange, silence);
    against(&fake, &["member", "remove", "3", "--timeout", "600ms"])
        .await
        .assert_code(5)
        .assert_says("error[DRV-0103]")
        .assert_says("`drave member list` shows whether it was done");
}

#[tokio::test]
async fn the_lead_is_handed_over_or_not() {
    let fake = with_newcomer().await;
    let done = against(&fake, &["leader", "transfer", "2"])
        .await
        .assert_code(0);
    assert_eq!(done.text(), "leader node 2  term 2\n");
    let json = against(&fake, &["leader", "transfer", "3", "--format", "json"])
        .await
        .assert_code(0);
    let value: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(value, serde_json::json!({"leader_id": 3, "term": 3}));
    fake.model().members.silent = vec![1];
    for to in ["1", "4"] {
        against(&fake, &["leader", "transfer", to])
            .await
            .assert_code(4)
            .assert_says("error[DRV-0308]: the lead was not handed over");
    }
    let failed = Fault::Refuse(ErrorCode::TransferFailed);
    fake.model().script(MessageKind::LeaderTransfer, [failed]);
    against(&fake, &["leader", "transfer", "2"])
        .await
        .assert_code(5)
        .assert_says("error[DRV-0309]")
        .assert_says("the old leader goes on");
}

#[tokio::test]
async fn logs_are_trimmed_up_to_their_end_at_most() {
    let fake = with_newcomer().await;
    let log_id = fake.client().create_log("a", true).await.unwrap().log_id;
    for number in 0..10_u32 {
        fake.put(log_id, &[&number.to_le_bytes()]);
    }
    let line = ["log", "trim", "a", "--before", "6"];
    for _ in 0..2 {
        let trimmed = against(&fake, &line).await.assert_code(0);
        let expected = "NAME  ID  FIRST SEQ  NEXT SEQ\na     1   6          10\n";
        assert_eq!(trimmed.text(), expected);
    }
    against(&fake, &["log", "trim", "a", "--before", "11"])
        .await
        .assert_code(4)
        .assert_says("error[DRV-0208]");
    against(&fake, &["log", "trim", "b", "--before", "0"])
        .await
        .assert_code(3)
        .assert_says("error[DRV-0201]");
}
