//! Leadership transfer: thesis 3.10; obligations 19, 69, 70.

use super::super::{Message, ProposeError, RoleKind, TimeoutNow, TransferError, VoteRequest};
use super::lab::*;

fn timeout_now(term: u64) -> Message {
    Message::TimeoutNow(TimeoutNow { term })
}

#[test]
fn the_target_is_told_once_it_has_everything() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.propose(1);
    lab.raft.transfer_leadership(lab.now_us, N1).unwrap();
    assert!(lab.sent().is_empty(), "it lacks entries");
    assert_eq!(
        lab.raft.propose(1),
        Err(ProposeError::Transferring { to: N1 })
    );
    lab.accept(N2, 3);
    assert!(lab.sent().is_empty(), "somebody else does not matter");
    lab.accept(N1, 3);
    assert_eq!(lab.sent(), [(N1, timeout_now(2))]);
    lab.accept(N1, 3);
    assert!(lab.sent().is_empty(), "once");
}

#[test]
fn a_transfer_is_given_up_after_an_election_timeout() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.raft.transfer_leadership(lab.now_us, N1).unwrap();
    let busy = lab.raft.transfer_leadership(lab.now_us, N2);
    assert_eq!(busy, Err(TransferError::InProgress { to: N1 }));
    for _ in 0..ELECTION_US_MAX / HEARTBEAT_US {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    assert_eq!(lab.raft.transferring_to(), None);
    let _heartbeats = lab.effects();
    lab.raft.propose(1).unwrap();
}

#[test]
fn only_another_voter_can_take_over() {
    let mut lab = Lab::leader(3, 2, &[1]);
    for to in [N0, N4] {
        let refused = lab.raft.transfer_leadership(lab.now_us, to);
        assert_eq!(refused, Err(TransferError::NotEligible { to }));
    }
    let mut lab = Lab::follower(3, 2, &[1]);
    let refused = lab.raft.transfer_leadership(lab.now_us, N1);
    assert_eq!(refused, Err(TransferError::NotLeader { leader: None }));
}

#[test]
fn the_target_campaigns_at_once_without_pre_vote() {
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    lab.step(N1, heartbeat(2, 0));
    let _reply = lab.effects();
    lab.step(N1, timeout_now(1));
    lab.step(N2, timeout_now(2));
    assert_eq!(
        lab.raft.role(),
        RoleKind::Follower,
        "neither of an older term nor of no leader"
    );
    lab.step(N1, timeout_now(2));
    assert_eq!((lab.raft.role(), lab.raft.term()), (RoleKind::Candidate, 3));
    let _save = lab.effects();
    lab.save_hard_state();
    let request = VoteRequest {
        term: 3,
        last: id(2, 2),
        pre_vote: false,
        transfer: true,
    };
    for (_, message) in lab.sent() {
        assert_eq!(message, Message::VoteRequest(request));
    }
}

#[test]
fn a_candidate_and_a_learner_ignore_it() {
    let mut found = restored(3, 2, &[1]);
    found.configuration = super::super::Configuration::new([N1, N2], [N0]).unwrap();
    let mut lab = Lab::with(config(), found);
    lab.step(N1, timeout_now(2));
    assert_eq!((lab.raft.role(), lab.raft.term()), (RoleKind::Follower, 2));
}
