//! Members that come, are promoted and go, as operators ask for it.

use super::*;
use drave_batch::wire::{MemberChange, MemberListed, MemberOperation};

const ANY: u64 = u64::MAX;

fn change(operation: MemberOperation, node_id: u64, other_node_id: u64) -> MemberChange {
    let adds = operation == MemberOperation::AddLearner;
    MemberChange {
        operation,
        node_id,
        other_node_id,
        incarnation: if adds { u128::from(node_id) * 7 } else { 0 },
        expected_configuration_index: ANY,
        address: if adds {
            format!("127.0.0.{node_id}:1")
        } else {
            String::new()
        },
    }
}

fn add(node_id: u64) -> MemberChange {
    change(MemberOperation::AddLearner, node_id, 0)
}

fn promote(node_id: u64) -> MemberChange {
    change(MemberOperation::Promote, node_id, 0)
}

fn remove(node_id: u64) -> MemberChange {
    change(MemberOperation::Remove, node_id, 0)
}

fn replace(node_id: u64, other: u64) -> MemberChange {
    change(MemberOperation::Replace, node_id, other)
}

fn ask(cluster: &mut Cluster, node: u64, request_id: u64, change: &MemberChange) {
    cluster.ask(node, request_id, |r, now, to, log| {
        r.change_members(now, to, change, log)
    });
}

/// Asks, lets everything happen, and gives the answer.
fn changed(cluster: &mut Cluster, node: u64, change: &MemberChange) -> Answer {
    ask(cluster, node, 800, change);
    cluster.settle(true);
    cluster.answer(800)
}

fn listed(answer: Answer) -> MemberListed {
    match answer {
        Answer::Members(listed) => listed,
        other => panic!("{other:?}"),
    }
}

fn ids(listed: &MemberListed, role: MemberRole) -> Vec<u64> {
    let having = listed.members.iter().map(|status| &status.member);
    having
        .filter(|member| member.role == Some(role))
        .map(|member| member.node_id)
        .collect()
}

fn code(answer: Answer) -> ErrorCode {
    refused(answer).code
}

/// A new node, formatted to join.
fn join(cluster: &mut Cluster, id: u64) {
    cluster.start(id, MemoryLog::new(Members::default()));
}

/// Lets a learner keep up for long enough to be promoted.
fn catch_up(cluster: &mut Cluster) {
    for _ in 0..40 {
        cluster.pass(50_000);
    }
}

#[test]
fn a_node_is_added_promoted_and_replaces_another() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let log = cluster.create(leader, "a");
    cluster.fill(leader, log, 5);
    join(&mut cluster, 4);
    ask(&mut cluster, leader, 1, &add(4));
    assert!(cluster.answers.is_empty(), "it is not committed yet");
    assert!(
        cluster
            .replicas
            .get_mut(&leader)
            .unwrap()
            .0
            .outputs
            .members_changed
    );
    cluster.settle(true);
    let answer = listed(cluster.answer(1));
    assert!(answer.is_committed);
    assert_eq!(answer.node_id_max, 4);
    assert_eq!(ids(&answer, MemberRole::Voter), [1, 2, 3]);
    assert_eq!(ids(&answer, MemberRole::Learner), [4]);
    assert_eq!(answer.members[3].member.incarnation, 28);
    catch_up(&mut cluster);
    let answer = listed(changed(&mut cluster, leader, &promote(4)));
    assert_eq!(ids(&answer, MemberRole::Voter), [1, 2, 3, 4]);
    // The fourth leaves again, and a fifth takes the place of a follower.
    listed(changed(&mut cluster, leader, &remove(4)));
    join(&mut cluster, 5);
    listed(changed(&mut cluster, leader, &add(5)));
    catch_up(&mut cluster);
    let leaves = leader % 3 + 1;
    let answer = listed(changed(&mut cluster, leader, &replace(5, leaves)));
    assert_eq!(ids(&answer, MemberRole::Voter).len(), 3);
    assert!(ids(&answer, MemberRole::Voter).contains(&5));
    assert!(
        answer
            .members
            .iter()
            .all(|status| !status.member.outgoing_voter)
    );
    cluster.fill(leader, log, 1);
    catch_up(&mut cluster);
    for gone in [4, leaves] {
        cluster.crash(gone);
    }
    cluster.check_agreement();
    for id in cluster.replicas.keys() {
        assert_eq!(cluster.replica(*id).members().members.len(), 3);
        assert_eq!(cluster.replica(*id).members().node_id_max, 5);
    }
}

#[test]
fn what_is_in_effect_is_answered_at_once() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    listed(changed(&mut cluster, leader, &add(4)));
    let last_index = cluster.replica(leader).raft().last().index;
    let mut stale = add(4);
    stale.expected_configuration_index = 0;
    let follower = leader % 3 + 1;
    for again in [&add(4), &stale, &promote(follower), &replace(leader, 4)] {
        if again.operation == MemberOperation::Replace {
            listed(changed(&mut cluster, leader, &remove(4)));
        }
        ask(&mut cluster, leader, 1, again);
        listed(cluster.answer(1));
    }
    ask(&mut cluster, leader, 2, &remove(4));
    listed(cluster.answer(2));
    assert_eq!(cluster.replica(leader).raft().last().index, last_index + 1);
}

#[test]
fn bad_requests_have_names_and_change_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    let last_index = cluster.replica(leader).raft().last().index;
    let mut other_store = add(follower);
    other_store.incarnation = 99;
    let mut homeless = add(4);
    homeless.address.clear();
    let mut taken = add(4);
    taken.address = format!("127.0.0.{follower}:1");
    let mut late = add(4);
    late.expected_configuration_index = 12;
    for (request, expected) in [
        (other_store, ErrorCode::MemberExists),
        (homeless, ErrorCode::InvalidMembers),
        (taken, ErrorCode::InvalidMembers),
        (late, ErrorCode::MembershipConflict),
        (promote(9), ErrorCode::MemberUnknown),
        (remove(9), ErrorCode::MemberUnknown),
        (remove(0), ErrorCode::MemberUnknown),
        (replace(9, follower), ErrorCode::MemberUnknown),
        (replace(follower, 9), ErrorCode::MemberUnknown),
        (replace(follower, follower), ErrorCode::InvalidMembers),
        (add(0), ErrorCode::NodeIdUsed),
        (add(u64::MAX), ErrorCode::InvalidMembers),
    ] {
        assert_eq!(
            code(changed(&mut cluster, leader, &request)),
            expected,
            "{request:?}"
        );
    }
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    ask(&mut cluster, follower, 1, &add(4));
    assert_eq!(code(cluster.answer(1)), ErrorCode::NotLeader);
    // A stranger that never answers does not become a voter, and its id is not used again.
    listed(changed(&mut cluster, leader, &add(4)));
    catch_up(&mut cluster);
    assert_eq!(
        code(changed(&mut cluster, leader, &promote(4))),
        ErrorCode::NotCaughtUp
    );
    listed(changed(&mut cluster, leader, &remove(4)));
    let refusal = refused(changed(&mut cluster, leader, &add(4)));
    assert_eq!(
        (refusal.code, refusal.expected, refusal.found),
        (ErrorCode::NodeIdUsed, 5, 4)
    );
}

#[test]
fn the_last_voter_and_the_quorum_stay() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    assert_eq!(
        code(changed(&mut cluster, leader, &remove(leader))),
        ErrorCode::LastVoter
    );
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (live, dead) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.cut = vec![dead];
    catch_up(&mut cluster);
    assert_eq!(
        code(changed(&mut cluster, leader, &remove(live))),
        ErrorCode::WouldLoseQuorum
    );
    listed(changed(&mut cluster, leader, &remove(dead)));
}

#[test]
fn a_change_under_way_is_waited_for_or_in_the_way() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.cut = vec![leader];
    ask(&mut cluster, leader, 1, &add(4));
    ask(&mut cluster, leader, 2, &add(4));
    ask(&mut cluster, leader, 3, &add(5));
    assert_eq!(code(cluster.answer(3)), ErrorCode::MembershipConflict);
    cluster.cut.clear();
    cluster.pass(100_000);
    for request in [1, 2] {
        assert_eq!(
            ids(&listed(cluster.answer(request)), MemberRole::Learner),
            [4]
        );
    }
}

#[test]
fn a_change_of_a_lost_leader_is_unknown_and_rolled_back() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.cut = vec![old];
    ask(&mut cluster, old, 1, &add(4));
    assert_eq!(
        cluster.replica(old).members().members.len(),
        4,
        "in force when appended"
    );
    let new = cluster.elect();
    let log = cluster.create(new, "a");
    cluster
        .replicas
        .get_mut(&old)
        .unwrap()
        .0
        .outputs
        .members_changed = false;
    cluster.cut.clear();
    catch_up(&mut cluster);
    assert_eq!(code(cluster.answer(1)), ErrorCode::OutcomeUnknown);
    assert_eq!(cluster.replica(old).members(), &members(3));
    assert!(cluster.replica(old).outputs.members_changed);
    // The id was never a member's, as far as the group knows.
    let leader = cluster.elect();
    listed(changed(&mut cluster, leader, &add(4)));
    cluster.fill(leader, log, 1);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn a_leader_that_removes_itself_knows_that_it_did() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    ask(&mut cluster, leader, 1, &remove(leader));
    cluster.settle(true);
    let answer = listed(cluster.answer(1));
    assert!(!ids(&answer, MemberRole::Voter).contains(&leader));
    assert!(!cluster.replica(leader).is_leader());
    cluster.cut = vec![leader];
    let next = cluster.elect();
    let log = cluster.create(next, "a");
    cluster.fill(next, log, 1);
}

#[test]
fn members_survive_a_restart_committed_or_not() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    listed(changed(&mut cluster, leader, &add(4)));
    let follower = leader % 3 + 1;
    cluster.pass(100_000);
    cluster.restart(follower);
    let replica = cluster.replica(follower);
    assert_eq!(replica.members().members.len(), 4);
    assert_eq!(replica.members().node_id_max, 4);
    assert_eq!(replica.raft().configuration().learners, [NodeId(4)]);
    assert!(replica.outputs.members_changed);
}

#[test]
fn a_joint_configuration_begun_by_one_leader_is_waited_for_at_the_next() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    join(&mut cluster, 4);
    listed(changed(&mut cluster, old, &add(4)));
    catch_up(&mut cluster);
    let leaves = old % 3 + 1;
    ask(&mut cluster, old, 1, &replace(4, leaves));
    // The joint configuration is everywhere and committed nowhere when its leader goes.
    cluster.settle(false);
    assert!(cluster.replica(leaves).raft().configuration().is_joint());
    cluster.cut = vec![old];
    let new = cluster.elect();
    let answer = listed(changed(&mut cluster, new, &replace(4, leaves)));
    assert!(ids(&answer, MemberRole::Voter).contains(&4));
    assert!(!ids(&answer, MemberRole::Voter).contains(&leaves));
}

#[test]
fn a_leader_without_room_to_leave_a_joint_configuration_gives_up_the_lead() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    join(&mut cluster, 4);
    listed(changed(&mut cluster, old, &add(4)));
    catch_up(&mut cluster);
    let leaves = old % 3 + 1;
    ask(&mut cluster, old, 1, &replace(4, leaves));
    cluster.settle(false);
    let last = cluster.replica(old).raft().last();
    cluster.log(old).reserve_used = true;
    cluster.starved = vec![old];
    cluster.settle(true);
    // The entry by which it would be left was never stored, and the node goes on as a follower.
    let (replica, log) = &cluster.replicas[&old];
    assert_eq!(replica.outputs.lead_given_up, Some(LogRefusal::NoSpace));
    assert!(!replica.is_leader());
    assert_eq!(
        (replica.raft().last(), log.last_index()),
        (last, last.index)
    );
    assert_eq!(code(cluster.answer(1)), ErrorCode::OutcomeUnknown);
    // It told another one to take over at once, which ends what was begun.
    let mut leaders = cluster.replicas.values().filter(|(it, _)| it.is_leader());
    let (new, _) = leaders.next().unwrap();
    assert!(new.raft().term() > last.term);
    assert!(!new.raft().configuration().is_joint());
    assert!(!new.raft().configuration().voters.contains(&NodeId(leaves)));
}
