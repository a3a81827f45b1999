//! Elections: thesis 3.4, 3.6.1, 4.2.3, 9.6, one obligation or field bug per test.

use super::super::{Configuration, Effect, HardState, Message, RoleKind, VoteReply, VoteRequest};
use super::lab::*;
use std::vec::Vec;

#[test]
fn timeouts_are_redrawn_within_their_bounds() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let mut drawn = Vec::new();
    for _ in 0..50 {
        let before_us = lab.now_us;
        drawn.push(lab.raft.next_deadline_us() - before_us);
        lab.time_out();
        let _requests = lab.effects();
        lab.step(N1, vote_reply(1, false, true));
        lab.step(N2, vote_reply(1, false, true));
        let _back = lab.effects();
        assert_eq!(lab.raft.role(), RoleKind::Follower);
    }
    assert!(
        drawn
            .iter()
            .all(|us| (ELECTION_US_MIN..ELECTION_US_MAX).contains(us)),
        "{drawn:?}"
    );
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 40, "timeouts differ");
}

#[test]
fn up_to_date_is_last_term_then_last_index() {
    let cases = [
        (id(2, 3), true),
        (id(2, 9), true),
        (id(3, 1), true),
        (id(2, 2), false),
        (id(1, 9), false),
    ];
    for (last, granted) in cases {
        for pre_vote in [false, true] {
            let mut lab = Lab::follower(3, 2, &[1, 2, 2]);
            lab.step(N1, vote_request(3, last, pre_vote));
            lab.save_hard_state();
            let Message::VoteReply(reply) = lab.reply() else {
                panic!("a vote is answered")
            };
            assert_eq!(reply.granted, granted, "{last} pre_vote {pre_vote}");
        }
    }
}

#[test]
fn one_vote_per_term_also_after_restart() {
    let mut found = restored(3, 5, &[1]);
    found.hard_state.vote = Some(N1);
    let mut lab = Lab::with(config(), found);
    lab.step(N2, vote_request(5, id(9, 9), false));
    assert_eq!(lab.reply(), vote_reply(5, false, false));
    lab.step(N1, vote_request(5, id(1, 1), false));
    assert_eq!(
        lab.reply(),
        vote_reply(5, true, false),
        "asking again is answered again"
    );
}

#[test]
fn a_former_candidate_keeps_its_vote_in_the_term() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(2, true, true));
    let _requests = lab.effects();
    lab.save_hard_state();
    assert_eq!(lab.raft.role(), RoleKind::Candidate);
    lab.step(N1, heartbeat(2, 0));
    assert_eq!(lab.raft.role(), RoleKind::Follower);
    let _replies = lab.effects();
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 2,
            vote: Some(N0)
        }
    );
    lab.now_us += ELECTION_US_MAX;
    lab.step(N2, vote_request(2, id(9, 9), false));
    assert_eq!(lab.reply(), vote_reply(2, false, false));
}

#[test]
fn a_former_leader_keeps_its_vote_in_the_term() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.advance(ELECTION_US_MIN * 2);
    assert_eq!(lab.raft.role(), RoleKind::Follower, "no quorum was heard");
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 2,
            vote: Some(N0)
        }
    );
    let _stepped_down = lab.effects();
    lab.step(N2, vote_request(2, id(9, 9), false));
    assert_eq!(lab.reply(), vote_reply(2, false, false));
}

#[test]
fn only_a_vote_given_or_a_leader_restarts_the_timer() {
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    let deadline_us = lab.raft.next_deadline_us();
    lab.now_us += 1_000;
    lab.step(N1, vote_request(3, id(1, 1), false));
    lab.step(N1, vote_request(4, id(2, 2), true));
    let _replies = lab.effects();
    lab.save_hard_state();
    let _replies = lab.effects();
    assert_eq!(lab.raft.term(), 3);
    assert_eq!(
        lab.raft.next_deadline_us(),
        deadline_us,
        "a refusal and a pre-vote do not"
    );
    lab.now_us = deadline_us - 1;
    lab.step(N1, vote_request(5, id(2, 2), false));
    assert!(
        lab.raft.next_deadline_us() > deadline_us,
        "a vote given does"
    );
    let deadline_us = lab.raft.next_deadline_us();
    lab.now_us = deadline_us - 1;
    lab.step(N1, heartbeat(5, 0));
    assert!(lab.raft.next_deadline_us() > deadline_us, "a leader does");
}

#[test]
fn a_pre_vote_changes_nothing_and_carries_the_requests_term() {
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    lab.step(N1, vote_request(7, id(2, 2), true));
    assert_eq!(
        lab.reply(),
        vote_reply(7, true, true),
        "a grant carries the request's term"
    );
    lab.step(N2, vote_request(7, id(2, 2), true));
    assert_eq!(
        lab.reply(),
        vote_reply(7, true, true),
        "any number of grants"
    );
    lab.step(N1, vote_request(7, id(1, 1), true));
    assert_eq!(
        lab.reply(),
        vote_reply(2, false, true),
        "a refusal carries the own term"
    );
    lab.step(N1, vote_request(1, id(9, 9), true));
    assert_eq!(
        lab.reply(),
        vote_reply(2, false, true),
        "an older term is answered too"
    );
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 2,
            vote: None
        }
    );
}

#[test]
fn a_refused_pre_vote_teaches_the_newer_term() {
    let mut lab = Lab::follower(3, 2, &[1]);
    lab.time_out();
    assert_eq!(lab.raft.role(), RoleKind::PreCandidate);
    lab.step(N1, vote_reply(9, false, true));
    assert_eq!((lab.raft.term(), lab.raft.role()), (9, RoleKind::Follower));
}

#[test]
fn pre_candidates_forget_their_leader_and_earlier_votes() {
    let mut lab = Lab::follower(5, 1, &[1]);
    lab.step(N1, heartbeat(1, 0));
    assert_eq!(lab.raft.leader(), Some(N1));
    lab.time_out();
    assert_eq!(
        (lab.raft.role(), lab.raft.leader()),
        (RoleKind::PreCandidate, None)
    );
    lab.step(N2, vote_reply(2, true, true));
    lab.time_out();
    lab.step(N3, vote_reply(2, true, true));
    assert_eq!(
        lab.raft.role(),
        RoleKind::PreCandidate,
        "the earlier round's vote is gone"
    );
    lab.step(N4, vote_reply(2, true, true));
    assert_eq!(lab.raft.role(), RoleKind::Candidate);
}

#[test]
fn replies_of_the_other_kind_of_vote_do_not_count() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(1, true, false));
    assert_eq!(lab.raft.role(), RoleKind::PreCandidate);
    lab.step(N1, vote_reply(2, true, true));
    let _requests = lab.effects();
    lab.save_hard_state();
    assert_eq!(lab.raft.role(), RoleKind::Candidate);
    lab.step(N2, vote_reply(2, true, true));
    assert_eq!(
        lab.raft.role(),
        RoleKind::Candidate,
        "a late pre-vote elects nobody"
    );
    lab.step(N2, vote_reply(1, true, false));
    assert_eq!(
        lab.raft.role(),
        RoleKind::Candidate,
        "nor does a vote of an older term"
    );
    lab.step(N2, vote_reply(2, true, false));
    assert_eq!(lab.raft.role(), RoleKind::Leader);
}

#[test]
fn duplicate_and_foreign_votes_do_not_count() {
    let mut lab = Lab::follower(5, 1, &[1]);
    for _ in 0..2 {
        lab.time_out();
    }
    for from in [
        N1,
        N1,
        N1,
        super::super::NodeId(77),
        super::super::NodeId(78),
    ] {
        lab.step(from, vote_reply(2, true, true));
    }
    assert_eq!(lab.raft.role(), RoleKind::PreCandidate);
    lab.step(N2, vote_reply(2, true, true));
    assert_eq!(lab.raft.role(), RoleKind::Candidate);
}

#[test]
fn a_lost_election_ends_at_once() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(1, false, true));
    assert_eq!(lab.raft.role(), RoleKind::PreCandidate);
    lab.step(N2, vote_reply(1, false, true));
    assert_eq!(lab.raft.role(), RoleKind::Follower);
}

#[test]
fn who_hears_a_leader_does_not_help_to_depose_it() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, heartbeat(1, 0));
    let _reply = lab.effects();
    lab.now_us += ELECTION_US_MIN - 1;
    lab.step(N2, vote_request(2, id(9, 9), false));
    assert!(lab.effects().is_empty(), "ignored, and the term stays");
    assert_eq!(lab.raft.term(), 1);
    lab.step(N2, vote_request(2, id(9, 9), true));
    assert_eq!(lab.reply(), vote_reply(1, false, true));
    lab.step(N1, vote_request(2, id(9, 9), true));
    assert_eq!(
        lab.reply(),
        vote_reply(2, true, true),
        "the leader itself may ask"
    );
    let transfer = VoteRequest {
        term: 2,
        last: id(9, 9),
        pre_vote: false,
        transfer: true,
    };
    lab.step(N2, Message::VoteRequest(transfer));
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 2,
            vote: Some(N2)
        },
        "transfer passes"
    );
}

#[test]
fn stickiness_ends_with_the_shortest_timeout() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, heartbeat(1, 0));
    lab.now_us += ELECTION_US_MIN;
    lab.step(N2, vote_request(2, id(9, 9), false));
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 2,
            vote: Some(N2)
        }
    );
}

#[test]
fn a_leader_that_hears_its_quorum_is_not_deposed_by_a_vote_request() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.step(N2, vote_request(9, id(9, 9), false));
    assert_eq!((lab.raft.role(), lab.raft.term()), (RoleKind::Leader, 2));
}

#[test]
fn learners_give_votes() {
    let mut found = restored(3, 1, &[1]);
    found.configuration = Configuration::new([N1, N2], [N0]).unwrap();
    let mut lab = Lab::with(config(), found);
    assert_eq!(
        lab.raft.next_deadline_us(),
        u64::MAX,
        "a learner never campaigns"
    );
    lab.step(N1, vote_request(2, id(1, 1), false));
    let _save = lab.raft.poll_effect();
    lab.save_hard_state();
    assert_eq!(lab.reply(), vote_reply(2, true, false));
}

#[test]
fn a_stale_leader_learns_of_the_newer_term() {
    let mut stuck = Lab::follower(3, 7, &[1]);
    stuck.step(N1, heartbeat(5, 0));
    let Message::HeartbeatReply(reply) = stuck.reply() else {
        panic!("it is answered")
    };
    assert_eq!(reply.term, 7);
    let _nothing = stuck.append(N1, 5, id(1, 1), &[5], 0);
    let Message::AppendReply(reply) = stuck.reply() else {
        panic!("it is answered")
    };
    assert_eq!(reply.term, 7);
    assert_eq!(stuck.raft.last(), id(1, 1), "and nothing is stored");

    let mut leader = Lab::leader(3, 5, &[1]);
    leader.step(N1, Message::AppendReply(reply));
    assert_eq!(
        (leader.raft.role(), leader.raft.term()),
        (RoleKind::Follower, 7)
    );
}

#[test]
fn check_quorum_deposes_a_leader_that_is_not_heard() {
    let mut lab = Lab::leader(5, 2, &[1]);
    for _ in 0..40 {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
        lab.heartbeat_reply(N2, 0, 0);
        let _heartbeats = lab.effects();
    }
    assert_eq!(
        lab.raft.role(),
        RoleKind::Leader,
        "two of four others are a quorum with itself"
    );
    for _ in 0..20 {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    assert_eq!(lab.raft.role(), RoleKind::Follower, "one is not");
    assert!(lab.effects().iter().any(|effect| matches!(
        effect,
        Effect::RoleChanged {
            role: RoleKind::Follower,
            term: 2,
            leader: None
        }
    )));
}

#[test]
fn the_only_voter_elects_itself_at_once_and_commits_by_its_own_flush() {
    let mut lab = Lab::follower(1, 3, &[1, 2]);
    assert!(lab.raft.next_deadline_us() <= lab.now_us, "due at once");
    lab.advance(0);
    assert_eq!(
        lab.raft.role(),
        RoleKind::Candidate,
        "not before term and vote are flushed"
    );
    let _save = lab.effects();
    lab.save_hard_state();
    assert_eq!((lab.raft.role(), lab.raft.term()), (RoleKind::Leader, 4));
    let _noop = lab.effects();
    assert_eq!(lab.raft.commit_index(), 0);
    lab.flush_to(id(4, 3));
    assert_eq!(lab.effects(), [Effect::CommitAdvanced { commit_index: 3 }]);
}

#[test]
fn a_node_without_a_configuration_waits() {
    let lab = Lab::with(
        config(),
        super::super::Restored::fresh(Configuration::default()),
    );
    assert_eq!(lab.raft.next_deadline_us(), u64::MAX);
}

#[test]
fn a_lost_leader_connection_brings_the_timeout_forward() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, heartbeat(1, 0));
    let _reply = lab.effects();
    lab.raft.on_leader_connection_lost(lab.now_us);
    assert!(lab.raft.next_deadline_us() < lab.now_us + HEARTBEAT_US);
    lab.step(N2, vote_request(2, id(1, 1), true));
    assert_eq!(
        lab.reply(),
        vote_reply(2, true, true),
        "and lets others try"
    );
    lab.step(N1, heartbeat(1, 0));
    assert!(
        lab.raft.next_deadline_us() >= lab.now_us + ELECTION_US_MIN,
        "unless it lives"
    );
}

#[test]
fn a_votes_term_is_adopted_without_the_vote() {
    let mut lab = Lab::follower(3, 2, &[2, 2]);
    lab.step(N1, vote_request(4, id(1, 9), false));
    assert_eq!(
        lab.raft.hard_state(),
        HardState {
            term: 4,
            vote: None
        }
    );
    let _save = lab.raft.poll_effect();
    lab.save_hard_state();
    let refusal = VoteReply {
        term: 4,
        granted: false,
        pre_vote: false,
    };
    assert_eq!(lab.reply(), Message::VoteReply(refusal));
}
