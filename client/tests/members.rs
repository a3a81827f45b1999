//! Members, the lead, trimming: leaders that change, answers that are lost, verdicts that are final.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use drave_batch::wire::{MemberOperation, MessageKind};
use drave_client::{ClientError, ErrorCode, MemberRole, MembersChange, probe_identity};
use tokio::net::TcpListener;

mod support;
use support::{FakeCluster, Fault, INCARNATION};

/// Four nodes, three of which are members.
async fn with_newcomer() -> FakeCluster {
    let cluster = FakeCluster::start(4).await;
    cluster.model().members.only(3);
    cluster
}

#[tokio::test]
async fn the_members_come_from_the_leader() {
    let cluster = with_newcomer().await;
    cluster.elect(2);
    cluster.model().members.silent = vec![2];
    let first = cluster.addresses[0].clone();
    let client = cluster.builder().endpoints([first]).build().unwrap();
    assert_eq!(client.cluster_id(), None);
    let members = client.members().await.unwrap();
    assert_eq!(client.cluster_id(), Some("test"));
    assert_eq!((members.leader_id, members.term), (3, 2));
    assert_eq!((members.node_id_max, members.members.len()), (3, 3));
    let second = members.member(2).unwrap();
    assert_eq!(second.role, Some(MemberRole::Voter));
    assert_eq!(second.address, cluster.addresses[1]);
    assert_eq!(second.last_active, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn a_node_is_added_promoted_and_put_in_anothers_place() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let address = cluster.addresses[3].clone();
    let members = client.add_learner(4, &address, INCARNATION).await.unwrap();
    assert_eq!(members.member(4).unwrap().role, Some(MemberRole::Learner));
    assert_eq!(members.member(4).unwrap().incarnation, INCARNATION);
    let members = client.replace(2, 4).await.unwrap();
    assert!(members.member(2).is_none());
    assert_eq!(
        cluster.model().members.describe(),
        "1 voter, 3 voter, 4 voter"
    );
    client.remove(3).await.unwrap();
    client.promote(4).await.unwrap();
    assert_eq!(cluster.model().members.describe(), "1 voter, 4 voter");
    let asked = cluster.model().members.asked.clone();
    assert_eq!(asked[1].operation, MemberOperation::Replace);
    assert_eq!((asked[1].node_id, asked[1].other_node_id), (4, 2));
    assert_eq!(asked[0].address, address);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_asked_for_again_and_made_once() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let faults = [Fault::CloseAfter, Fault::CloseBefore, Fault::Cut];
    cluster.model().script(MessageKind::MemberChange, faults);
    let members = client
        .add_learner(4, &cluster.addresses[3], INCARNATION)
        .await
        .unwrap();
    assert_eq!(members.member(4).unwrap().node_id, 4);
    let model = cluster.model();
    assert!(model.members.asked.len() >= 2, "the leader was asked again");
    assert_eq!(model.members.configuration_index, 1, "changed once");
}

#[tokio::test]
async fn the_removal_of_the_leader_is_settled_by_the_next_one() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    cluster
        .model()
        .script(MessageKind::MemberChange, [Fault::CloseAfter]);
    let members = client.remove(1).await.unwrap();
    assert_eq!(members.leader_id, 2);
    assert!(members.member(1).is_none());
}

#[tokio::test]
async fn verdicts_of_the_leader_are_not_asked_for_twice() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    for code in [
        ErrorCode::MembershipConflict,
        ErrorCode::MemberExists,
        ErrorCode::MemberUnknown,
        ErrorCode::NodeIdUsed,
        ErrorCode::NotCaughtUp,
        ErrorCode::LastVoter,
        ErrorCode::WouldLoseQuorum,
        ErrorCode::InvalidMembers,
    ] {
        cluster
            .model()
            .script(MessageKind::MemberChange, [Fault::Refuse(code)]);
        let before = cluster.model().requests(MessageKind::MemberChange);
        let error = client.promote(3).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.has_no_side_effects(), "{error:?}");
        let after = cluster.model().requests(MessageKind::MemberChange);
        assert_eq!(after, before + 1, "{code}");
    }
    for code in [ErrorCode::NotEligible, ErrorCode::TransferFailed] {
        cluster
            .model()
            .script(MessageKind::LeaderTransfer, [Fault::Refuse(code)]);
        let error = client.transfer_leader(2).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
    }
    assert_eq!(cluster.model().requests(MessageKind::LeaderTransfer), 2);
}

#[tokio::test]
async fn a_conflict_after_a_lost_answer_may_be_the_change_itself() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let conflict = Fault::Refuse(ErrorCode::MembershipConflict);
    let faults = [Fault::CloseAfter, conflict, conflict];
    cluster.model().script(MessageKind::MemberChange, faults);
    let members = client.remove(3).await.unwrap();
    assert!(members.member(3).is_none());
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_leaves_the_outcome_unknown() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let lost = Fault::Refuse(ErrorCode::WouldLoseQuorum);
    let faults = [Fault::CloseAfter, lost];
    cluster.model().script(MessageKind::MemberChange, faults);
    let error = client.remove(3).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");

    let timeout = Duration::from_millis(600);
    let client = cluster.builder().request_timeout(timeout).build().unwrap();
    cluster
        .model()
        .script(MessageKind::MemberChange, vec![Fault::Silent; 100]);
    let error = client.remove(2).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OutcomeUnknown));
}

#[tokio::test]
async fn a_change_can_be_bound_to_the_configuration_it_was_decided_on() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let seen = client.members().await.unwrap().configuration_index;
    client.remove(3).await.unwrap();
    let change = MembersChange::Remove { node_id: 2 };
    let error = client
        .change_members(&change, Some(seen))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MembershipConflict));
    let seen = client.members().await.unwrap().configuration_index;
    client.change_members(&change, Some(seen)).await.unwrap();
    assert_eq!(cluster.model().members.describe(), "1 voter");
}

#[tokio::test]
async fn what_is_no_address_is_not_sent() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let error = client
        .add_learner(4, "nowhere", INCARNATION)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Argument { .. }), "{error:?}");
    assert_eq!(cluster.model().requests(MessageKind::MemberChange), 0);
}

#[tokio::test]
async fn the_lead_goes_where_it_is_asked_for_also_when_the_answer_is_lost() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let leads = client.transfer_leader(2).await.unwrap();
    assert_eq!((leads.leader_id, leads.term), (2, 2));
    cluster
        .model()
        .script(MessageKind::LeaderTransfer, [Fault::CloseAfter]);
    let leads = client.transfer_leader(3).await.unwrap();
    assert_eq!(
        (leads.leader_id, leads.term),
        (3, 3),
        "in one term, not one per attempt"
    );
    cluster.model().members.silent = vec![1];
    for to in [1, 4, 99] {
        let error = client.transfer_leader(to).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::NotEligible), "node {to}");
    }
}

#[tokio::test]
async fn trimming_gives_up_what_is_below_and_can_be_asked_for_again() {
    let cluster = with_newcomer().await;
    let client = cluster.client();
    let log_id = client.create_log("orders", true).await.unwrap().log_id;
    for number in 0..10_u32 {
        cluster.put(log_id, &[&number.to_le_bytes()]);
    }
    cluster
        .model()
        .script(MessageKind::LogTrim, [Fault::CloseAfter]);
    let info = client.trim_log("orders", 4).await.unwrap();
    assert_eq!((info.first_seq, info.next_seq), (4, 10));
    let info = client.trim_log("orders", 2).await.unwrap();
    assert_eq!(info.first_seq, 4, "what is gone does not come back");
    let error = client.trim_log("orders", 11).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TrimBeyondTail));
    let error = client.trim_log("events", 0).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
}

#[tokio::test]
async fn a_probe_asks_one_address_who_it_is_and_no_other() {
    let cluster = with_newcomer().await;
    let timeout = Duration::from_secs(5);
    let newcomer = probe_identity(&cluster.addresses[3], timeout)
        .await
        .unwrap();
    assert_eq!((newcomer.node_id, newcomer.incarnation), (4, INCARNATION));
    assert_eq!(newcomer.cluster_id, "test");
    assert!(newcomer.members.is_empty(), "it was told of none yet");
    let member = probe_identity(&cluster.addresses[1], timeout)
        .await
        .unwrap();
    let ids: Vec<u64> = member.members.iter().map(|(node_id, _)| *node_id).collect();
    assert_eq!((member.node_id, ids), (2, vec![1, 2, 3]));
    assert_eq!(
        cluster.model().requests(MessageKind::Status),
        2,
        "nobody else was asked"
    );
}

#[tokio::test]
async fn a_probe_of_nobody_ends_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let mut cluster = FakeCluster::start(1).await;
    cluster.model().script(MessageKind::Status, [Fault::Silent]);
    let timeout = Duration::from_millis(300);
    let started = Instant::now();
    for address in [&silent, &cluster.addresses[0]] {
        let error = probe_identity(address, timeout).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unavailable { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(address.as_str()), "{error}");
    }
    cluster.kill(0).await;
    let error = probe_identity(&cluster.addresses[0], timeout)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let error = probe_identity("nowhere", timeout).await.unwrap_err();
    assert!(matches!(error, ClientError::Argument { .. }), "{error:?}");
}
