//! Handing over the lead: every way it ends is told.

use super::*;

fn transfer(cluster: &mut Cluster, node: u64, request_id: u64, to: u64) {
    cluster.ask(node, request_id, |r, now, reply, log| {
        r.transfer_leader(now, reply, NodeId(to), log)
    });
}

fn transferred(answer: Answer) -> wire::LeaderTransferred {
    match answer {
        Answer::Transferred(transferred) => transferred,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transfer_is_answered_when_the_new_leader_is_heard() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let to = old % 3 + 1;
    transfer(&mut cluster, old, 1, to);
    transfer(&mut cluster, old, 2, to);
    assert!(cluster.answers.is_empty());
    transfer(&mut cluster, old, 3, (old + 1) % 3 + 1);
    assert_eq!(refused(cluster.answer(3)).code, ErrorCode::Busy);
    cluster.settle(true);
    for request in [1, 2] {
        let answer = transferred(cluster.answer(request));
        assert_eq!(answer.leader_id, to);
        assert_eq!(answer.term, cluster.replica(to).raft().term());
    }
    assert!(cluster.replica(to).is_leader());
    // Asked again it is done already; asked elsewhere, who leads is named.
    transfer(&mut cluster, to, 4, to);
    assert_eq!(transferred(cluster.answer(4)).leader_id, to);
    transfer(&mut cluster, old, 5, to);
    assert_eq!(refused(cluster.answer(5)).code, ErrorCode::NotLeader);
}

#[test]
fn a_transfer_that_is_not_taken_up_ends_and_the_leader_goes_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    let to = leader % 3 + 1;
    // It was there a moment ago.
    cluster.cut = vec![to];
    transfer(&mut cluster, leader, 1, to);
    cluster.append(leader, 2, &batch(log, 0, 0, &[b"x"]));
    // Everything it has is there, so it is told, and never hears of it.
    assert_eq!(refused(cluster.answer(2)).code, ErrorCode::NoQuorum);
    let deadline = cluster.replica(leader).next_deadline_us();
    assert!(deadline > cluster.now.mono_us);
    for _ in 0..150 {
        cluster.pass(10_000);
    }
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::TransferFailed);
    cluster.append(leader, 3, &batch(log, 0, 0, &[b"x"]));
    cluster.settle(true);
    appended(cluster.answer(3));
    // By now it has not answered for long enough to be refused at once.
    transfer(&mut cluster, leader, 4, to);
    assert_eq!(refused(cluster.answer(4)).code, ErrorCode::NotEligible);
    transfer(&mut cluster, leader, 5, 9);
    assert_eq!(refused(cluster.answer(5)).code, ErrorCode::NotEligible);
}

#[test]
fn a_transfer_to_one_and_an_election_of_another_is_told_as_failed() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let (to, other) = (old % 3 + 1, (old + 1) % 3 + 1);
    cluster.cut = vec![to];
    transfer(&mut cluster, old, 1, to);
    // The old leader is cut off instead, and the third node is elected with the target's vote.
    cluster.settle(true);
    cluster.cut = vec![old];
    for _ in 0..500 {
        cluster.pass(10_000);
        if cluster.replica(other).is_leader() || cluster.replica(to).is_leader() {
            break;
        }
    }
    let leads = if cluster.replica(other).is_leader() {
        other
    } else {
        to
    };
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(50_000);
    }
    let answer = cluster.answer(1);
    if leads == to {
        // It was told before, or won by itself: either way it leads.
        let failed = matches!(&answer, Answer::Refused(r) if r.code == ErrorCode::OutcomeUnknown);
        assert!(failed || transferred(answer).leader_id == to);
    } else {
        let refusal = refused(answer);
        assert!(
            [ErrorCode::TransferFailed, ErrorCode::OutcomeUnknown].contains(&refusal.code),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_transfer_of_which_nothing_is_heard_ends_as_unknown() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let to = old % 3 + 1;
    cluster.cut = vec![to];
    transfer(&mut cluster, old, 1, to);
    // A higher term deposes the old leader in the same moment, and then it is alone.
    let higher = raft::HeartbeatReply {
        term: cluster.replica(old).raft().term() + 1,
        read_round: 0,
        session: 0,
        match_index: 0,
        received_index: 0,
        credit_bytes: 0,
    };
    cluster.ask(old, 0, |r, now, _, log| {
        r.step(now, NodeId(to), Message::HeartbeatReply(higher), log)
    });
    assert!(!cluster.replica(old).is_leader());
    assert!(cluster.answers.is_empty(), "a leader may still be heard of");
    cluster.cut = vec![old];
    for _ in 0..400 {
        cluster.pass(10_000);
    }
    assert_eq!(refused(cluster.answer(1)).code, ErrorCode::OutcomeUnknown);
}
