//! Configuration changes: thesis 4.1 to 4.3; obligations 41, 45 (joint), 58 to 71.

use super::super::{
    AppendReply, AppendResult, Configuration, ConfigurationAt, ConfigurationChangeError, Control,
    Effect, Message, NodeId, ProposeError, RoleKind, TransferError,
};
use super::lab::*;

fn members(voters: &[u64], learners: &[u64]) -> Configuration {
    let voters = voters.iter().map(|id| NodeId(*id));
    Configuration::new(voters, learners.iter().map(|id| NodeId(*id))).unwrap()
}

/// A leader of `voters` with learners, its no-op at 2 committed.
fn established(voters: &[u64], learners: &[u64]) -> Lab {
    let mut found = restored(3, 1, &[1]);
    found.configuration = members(voters, learners);
    let mut lab = Lab::with(config(), found).elected(voters.len() as u64);
    lab.flush_all();
    for voter in voters.iter().chain(learners).filter(|id| **id != 0) {
        lab.accept(NodeId(*voter), 2);
    }
    let _commit = lab.effects();
    assert_eq!(lab.raft.commit_index(), 2);
    lab
}

fn change(lab: &mut Lab, target: Configuration) -> Result<u64, ConfigurationChangeError> {
    let result = lab.raft.propose_configuration(lab.now_us, target);
    let _controls = lab.effects();
    result.map(|at| at.index)
}

/// Like `Lab::accept`, for peers that joined later: their session follows those of the others.
fn accept_joined(lab: &mut Lab, peer: NodeId, session: u64, index: u64) {
    let result = AppendResult::Accepted {
        match_index: index,
        received_index: index,
    };
    let term = lab.raft.term();
    let reply = AppendReply {
        term,
        session,
        result,
        credit_bytes: u64::MAX,
    };
    lab.step(peer, Message::AppendReply(reply));
}

#[test]
fn no_change_before_a_commit_of_the_term() {
    let mut lab = Lab::leader(3, 2, &[1]);
    let refused = change(&mut lab, members(&[0, 1, 2], &[3]));
    assert_eq!(
        refused,
        Err(ConfigurationChangeError::TermNotCommitted {
            term_start_index: 2
        })
    );
}

#[test]
fn one_change_at_a_time_by_log_position() {
    let mut lab = established(&[0, 1, 2], &[]);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[3])), Ok(3));
    let refused = change(&mut lab, members(&[0, 1, 2], &[]));
    assert_eq!(
        refused,
        Err(ConfigurationChangeError::Uncommitted {
            configuration_index: 3
        })
    );
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 3);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(4));
}

#[test]
fn refusals_have_names() {
    let mut lab = established(&[0, 1, 2], &[]);
    assert_eq!(
        change(&mut lab, members(&[0, 1, 2], &[])),
        Err(ConfigurationChangeError::Unchanged)
    );
    let stranger = ConfigurationChangeError::NotCaughtUp {
        node: N3,
        match_index: 0,
    };
    assert_eq!(change(&mut lab, members(&[0, 1, 2, 3], &[])), Err(stranger));
    let empty = Configuration::default();
    assert!(matches!(
        change(&mut lab, empty),
        Err(ConfigurationChangeError::Invalid(_))
    ));
    let mut joint = members(&[0, 1], &[]);
    joint.voters_outgoing = [N0, N1, N2].to_vec();
    assert_eq!(
        change(&mut lab, joint),
        Err(ConfigurationChangeError::Joint)
    );
    let demotion = change(&mut lab, members(&[0], &[1]));
    assert_eq!(
        demotion,
        Err(ConfigurationChangeError::DemotionNotAlone { node: N1 })
    );
    let mut follower = Lab::follower(3, 1, &[1]);
    let refused = change(&mut follower, members(&[0, 1], &[]));
    let not_leader = ProposeError::NotLeader { leader: None };
    assert_eq!(refused, Err(ConfigurationChangeError::Propose(not_leader)));
}

#[test]
fn a_change_takes_effect_when_appended() {
    let mut lab = established(&[0, 1, 2], &[3]);
    assert_eq!(change(&mut lab, members(&[0, 1, 2, 3], &[])), Ok(3));
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 2, "two of four are no majority");
    lab.accept(N3, 3);
    assert_eq!(lab.raft.commit_index(), 3);
}

#[test]
fn learners_receive_and_do_not_count() {
    let mut lab = established(&[0, 1, 2], &[3, 4]);
    lab.propose(1);
    lab.flush_all();
    lab.accept(N3, 3);
    lab.accept(N4, 3);
    assert_eq!(lab.raft.commit_index(), 2);
    assert_eq!(lab.send_appends(N3, 100).len(), 1, "the commit");
}

#[test]
fn a_joint_configuration_needs_both_majorities_and_is_left_by_itself() {
    let mut lab = established(&[0, 1, 2], &[3, 4]);
    assert_eq!(change(&mut lab, members(&[0, 3, 4], &[])), Ok(3));
    assert_eq!(lab.raft.configuration().voters_outgoing, [N0, N1, N2]);
    lab.flush_all();
    lab.accept(N1, 3);
    lab.accept(N2, 3);
    assert_eq!(lab.raft.commit_index(), 2, "the old majority alone");
    lab.accept(N3, 3);
    assert_eq!(lab.raft.commit_index(), 3, "both");
    let left = Effect::AppendControl {
        id: id(2, 4),
        control: Control::Configuration(members(&[0, 3, 4], &[])),
    };
    assert!(lab.effects().contains(&left));
    assert!(!lab.raft.configuration().is_joint());
    let refused = change(&mut lab, members(&[0, 3], &[]));
    assert_eq!(
        refused,
        Err(ConfigurationChangeError::Uncommitted {
            configuration_index: 4
        })
    );
    lab.flush_all();
    lab.accept(N4, 4);
    assert_eq!(lab.raft.commit_index(), 4);
    for view in lab.raft.progress() {
        let stays = view.peer == N3 || view.peer == N4;
        assert_eq!(view.is_departing, !stays, "{view:?}");
    }
}

#[test]
fn the_next_leader_leaves_a_joint_configuration_it_finds() {
    let mut found = restored(3, 1, &[1, 1]);
    let mut joint = members(&[0, 3, 4], &[]);
    joint.voters_outgoing = [N0, N1, N2].to_vec();
    found.configurations_appended = [ConfigurationAt {
        index: 2,
        configuration: joint,
    }]
    .to_vec();
    let mut lab = Lab::with(config(), found);
    lab.time_out();
    for pre_vote in [true, false] {
        let _requests = lab.effects();
        lab.save_hard_state();
        let term = lab.raft.term() + u64::from(pre_vote);
        lab.step(N1, vote_reply(term, true, pre_vote));
        assert_ne!(
            lab.raft.role(),
            RoleKind::Leader,
            "the old majority alone elects nobody"
        );
        lab.step(N3, vote_reply(term, true, pre_vote));
    }
    assert_eq!(lab.raft.role(), RoleKind::Leader);
    let _noop = lab.effects();
    lab.flush_all();
    lab.accept(N1, 3);
    lab.accept(N3, 3);
    assert_eq!(lab.raft.commit_index(), 3);
    assert_eq!(*lab.raft.configuration(), members(&[0, 3, 4], &[]));
}

#[test]
fn an_uncommitted_change_is_rolled_back_with_its_entry() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 1, id(1, 1), &[1], 0);
    lab.raft
        .on_configuration_stored(2, members(&[0, 1, 2, 3], &[]));
    assert_eq!(lab.raft.configuration().voters.len(), 4);
    let _store = lab.append(N2, 2, id(1, 1), &[2], 0);
    assert_eq!(*lab.raft.configuration(), members(&[0, 1, 2], &[]));
    assert_eq!(lab.raft.configuration_index(), 0);
}

#[test]
fn a_restart_finds_the_latest_configuration_committed_or_not() {
    let mut found = restored(3, 1, &[1, 1, 1]);
    found.configurations_appended = [ConfigurationAt {
        index: 3,
        configuration: members(&[0, 1], &[2]),
    }]
    .to_vec();
    let mut lab = Lab::with(config(), found);
    assert_eq!(*lab.raft.configuration(), members(&[0, 1], &[2]));
    let _store = lab.append(N1, 2, id(1, 2), &[2], 0);
    assert_eq!(
        *lab.raft.configuration(),
        members(&[0, 1, 2], &[]),
        "and can roll it back"
    );
}

#[test]
fn a_removed_leader_does_not_count_itself_and_hands_over() {
    let mut lab = established(&[0, 1, 2], &[]);
    assert_eq!(change(&mut lab, members(&[1, 2], &[])), Ok(3));
    assert_eq!(lab.raft.propose(1), Err(ProposeError::Leaving));
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 2, "one of two");
    assert_eq!(lab.raft.role(), RoleKind::Leader, "it leads until then");
    lab.accept(N2, 3);
    assert_eq!(
        (lab.raft.commit_index(), lab.raft.role()),
        (3, RoleKind::Follower)
    );
    let told = lab
        .sent()
        .into_iter()
        .filter(|(_, message)| matches!(message, Message::TimeoutNow(_)));
    assert_eq!(told.count(), 1);
    assert_eq!(
        lab.raft.next_deadline_us(),
        u64::MAX,
        "and does not come back"
    );
}

#[test]
fn a_node_whose_removal_is_not_committed_still_campaigns() {
    // Thesis 4.2.2: it may hold the only copy, and the one that is left cannot win without it.
    let mut found = restored(2, 1, &[1, 1]);
    found.configurations_appended = [ConfigurationAt {
        index: 2,
        configuration: members(&[1], &[]),
    }]
    .to_vec();
    let mut lab = Lab::with(config(), found);
    lab.time_out();
    assert_eq!(lab.raft.role(), RoleKind::PreCandidate);
    lab.step(N1, vote_reply(2, true, true));
    let _requests = lab.effects();
    lab.save_hard_state();
    assert_eq!(
        lab.raft.role(),
        RoleKind::Candidate,
        "its own vote does not count"
    );
    lab.step(N1, vote_reply(2, true, false));
    assert_eq!(lab.raft.role(), RoleKind::Leader);
    let _noop = lab.effects();
    lab.accept(N1, 3);
    assert_eq!(
        (lab.raft.commit_index(), lab.raft.role()),
        (3, RoleKind::Follower)
    );
}

#[test]
fn acks_of_an_earlier_membership_do_not_count() {
    // drmingdrmer/raft-rejoin-bug: removed and added again in the same term.
    let mut lab = established(&[0, 1, 2], &[3]);
    assert_eq!(lab.progress(N3).match_index, 2);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(3));
    lab.flush_all();
    lab.accept(N1, 3);
    let _commit = lab.effects();
    lab.accept(N3, 2);
    assert!(lab.progress(N3).is_departing, "told until it knows");
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[3])), Ok(4));
    lab.accept(N3, 2);
    assert_eq!(lab.progress(N3).match_index, 0, "late, of session 3");
    accept_joined(&mut lab, N3, 4, 2);
    assert_eq!(lab.progress(N3).match_index, 2);
}

#[test]
fn acks_and_votes_of_removed_nodes_do_not_count() {
    let mut lab = established(&[0, 1, 2, 3], &[]);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(3));
    lab.flush_all();
    lab.accept(N3, 3);
    assert_eq!(lab.raft.commit_index(), 2);
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 3);
}

#[test]
fn removing_a_voter_may_commit_at_once_what_its_absence_held_up() {
    let mut lab = established(&[0, 1, 2, 3], &[]);
    lab.propose(1);
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 2, "two of four");
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(4));
    assert_eq!(lab.raft.commit_index(), 3, "two of three");
}

#[test]
fn a_transfer_to_a_node_that_leaves_ends() {
    let mut lab = established(&[0, 1, 2], &[]);
    assert_eq!(change(&mut lab, members(&[0, 1], &[])), Ok(3));
    lab.flush_all();
    lab.accept(N1, 3);
    let refused = lab.raft.transfer_leadership(lab.now_us, N2);
    assert!(refused.is_err(), "not a voter any more");
}

#[test]
fn a_member_that_left_is_sent_to_until_it_knows() {
    let mut lab = established(&[0, 1, 2], &[3]);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(3));
    assert_eq!(lab.send_appends(N3, 100), [(3, 4)], "the removal");
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 3);
    lab.advance(HEARTBEAT_US);
    lab.accept(N3, 3);
    lab.advance(HEARTBEAT_US);
    assert!(lab.progress(N3).is_departing, "it has the entry only");
    assert_eq!(
        lab.send_appends(N3, 100),
        [(4, 4)],
        "and that it is committed"
    );
    lab.advance(HEARTBEAT_US);
    assert!(lab.raft.progress().all(|view| view.peer != N3), "it knows");
}

#[test]
fn a_member_that_left_and_is_silent_is_given_up() {
    let mut lab = established(&[0, 1, 2], &[3]);
    assert_eq!(change(&mut lab, members(&[0, 1, 2], &[])), Ok(3));
    lab.flush_all();
    lab.accept(N1, 3);
    for _ in 0..ELECTION_US_MAX / HEARTBEAT_US {
        assert!(lab.progress(N3).is_departing);
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    assert!(lab.raft.progress().all(|view| view.peer != N3));
}

#[test]
fn a_learner_is_promoted_when_a_round_was_short() {
    // Thesis section 4.2.1: catching up in rounds.
    let mut lab = established(&[0, 1, 2], &[3]);
    lab.propose(5);
    lab.flush_all();
    lab.accept(N1, 7);
    assert!(!lab.raft.is_caught_up(N4), "a stranger");
    lab.accept(N3, 5);
    for _ in 0..ELECTION_US_MIN / HEARTBEAT_US {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    assert!(!lab.raft.is_caught_up(N3), "the round takes too long");
    lab.propose(1);
    assert!(matches!(
        change(&mut lab, members(&[0, 1, 2, 3], &[])),
        Err(ConfigurationChangeError::NotCaughtUp { node: N3, .. })
    ));
    lab.accept(N3, 7);
    assert!(
        !lab.raft.is_caught_up(N3),
        "a long round, and one more entry"
    );
    lab.accept(N3, 8);
    lab.propose(3);
    assert!(
        lab.raft.is_caught_up(N3),
        "a short one, and the next is young"
    );
    assert_eq!(change(&mut lab, members(&[0, 1, 2, 3], &[])), Ok(12));
}

#[test]
fn a_learner_that_does_not_answer_is_not_caught_up() {
    let mut lab = established(&[0, 1, 2], &[3]);
    lab.flush_all();
    let last_index = lab.raft.last().index;
    lab.accept(N1, last_index);
    lab.accept(N3, last_index);
    assert!(lab.raft.is_caught_up(N3));
    for _ in 0..ELECTION_US_MIN / HEARTBEAT_US {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    // Nothing was appended meanwhile: it has all there is.
    assert_eq!(lab.progress(N3).match_index, last_index);
    assert!(!lab.raft.is_caught_up(N3));
    assert!(matches!(
        change(&mut lab, members(&[0, 1, 2, 3], &[])),
        Err(ConfigurationChangeError::NotCaughtUp { node: N3, .. })
    ));
    lab.heartbeat_reply(N3, 0, 0);
    assert!(lab.raft.is_caught_up(N3));
}

#[test]
fn a_change_that_would_lose_the_quorum_is_refused() {
    let mut lab = established(&[0, 1, 2], &[]);
    for _ in 0..=ELECTION_US_MAX / HEARTBEAT_US {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 0);
    }
    // N2 is silent: without N1 the rest would be N0 and N2.
    assert_eq!(
        change(&mut lab, members(&[0, 2], &[])),
        Err(ConfigurationChangeError::WouldLoseQuorum {
            needed: 2,
            answering: 1
        })
    );
    assert_eq!(
        lab.raft.transfer_leadership(lab.now_us, N2),
        Err(TransferError::NotEligible { to: N2 })
    );
    assert_eq!(change(&mut lab, members(&[0, 1], &[])), Ok(3));
}
