//! What waits for which flush: thesis 3.8, 10.2.1; obligations 1 to 6, 15, 32, 40, 47.

use super::super::{AppendOutcome, Control, Durable, Effect, HardState, Message, NodeId, RoleKind};
use super::lab::*;
use std::vec::Vec;

#[test]
fn a_vote_leaves_after_its_flush() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, vote_request(2, id(1, 1), false));
    let vote = HardState {
        term: 2,
        vote: Some(N1),
    };
    let effects = lab.effects();
    assert_eq!(
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Send { .. }))
            .count(),
        0
    );
    assert_eq!(
        effects[0],
        Effect::SaveHardState(vote),
        "term and vote as one record"
    );
    let older = HardState {
        term: 2,
        vote: None,
    };
    lab.raft
        .on_hard_state_durable(lab.now_us, Durable::attest(older));
    assert!(
        lab.effects().is_empty(),
        "the term without the vote is not enough"
    );
    lab.save_hard_state();
    assert_eq!(lab.reply(), vote_reply(2, true, false));
    lab.save_hard_state();
    assert!(lab.effects().is_empty(), "once");
}

#[test]
fn a_candidacy_leaves_and_counts_itself_after_its_flush() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(2, true, true));
    let _pre_vote = lab.effects();
    assert_eq!(lab.raft.role(), RoleKind::Candidate);
    lab.step(N1, vote_reply(2, true, false));
    assert_eq!(
        lab.raft.role(),
        RoleKind::Candidate,
        "its own vote is not durable"
    );
    assert!(lab.sent().is_empty(), "nor has it asked anybody");
    lab.save_hard_state();
    assert_eq!(lab.raft.role(), RoleKind::Leader);
}

#[test]
fn a_superseded_vote_never_leaves() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, vote_request(2, id(1, 1), false));
    lab.step(N2, vote_request(3, id(1, 1), false));
    let _save = lab.effects();
    lab.save_hard_state();
    assert_eq!(lab.sent(), [(N2, vote_reply(3, true, false))]);
}

#[test]
fn a_slow_disk_does_not_start_another_round() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(2, true, true));
    let _save = lab.effects();
    for _ in 0..5 {
        lab.time_out();
        assert_eq!((lab.raft.role(), lab.raft.term()), (RoleKind::Candidate, 2));
    }
    lab.save_hard_state();
    let requests = lab.sent();
    assert_eq!(requests.len(), 2);
    assert!(
        lab.raft.next_deadline_us() >= lab.now_us + ELECTION_US_MIN,
        "peers get their time"
    );
}

#[test]
fn the_own_flush_is_not_charged_to_the_leader() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 1, id(1, 1), &[1], 0);
    lab.now_us += ELECTION_US_MIN;
    lab.flush_to(id(1, 2));
    assert!(lab.raft.next_deadline_us() >= lab.now_us + ELECTION_US_MIN);
}

#[test]
fn several_appends_are_acknowledged_once_and_only_as_far_as_flushed() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 1, id(1, 1), &[1, 1], 0);
    let _store = lab.append(N1, 1, id(1, 3), &[1, 1], 0);
    let _store = lab.append(N1, 1, id(1, 5), &[1], 0);
    assert!(lab.sent().is_empty(), "nothing is durable");
    lab.flush_to(id(1, 4));
    assert_eq!(accepted(lab.reply()), (4, 6));
    lab.flush_to(id(1, 6));
    assert_eq!(accepted(lab.reply()), (6, 6));
    lab.flush_to(id(1, 5));
    assert!(lab.sent().is_empty(), "late completions say nothing new");
}

#[test]
fn an_acknowledgement_waits_for_the_term_too() {
    let mut lab = Lab::follower(3, 1, &[1]);
    assert_eq!(lab.append(N1, 2, id(1, 1), &[], 0), AppendOutcome::Nothing);
    assert!(lab.sent().is_empty(), "term 2 is not durable");
    lab.save_hard_state();
    assert_eq!(accepted(lab.reply()), (1, 1));
    assert_ne!(lab.append(N1, 3, id(1, 1), &[3], 0), AppendOutcome::Nothing);
    let _save = lab.effects();
    lab.flush_to(id(3, 2));
    assert!(lab.sent().is_empty(), "the log's completion came first");
    lab.save_hard_state();
    assert_eq!(accepted(lab.reply()), (2, 2));
}

#[test]
fn aba_a_completion_of_a_replaced_entry_says_nothing() {
    let mut lab = Lab::follower(3, 2, &[1]);
    let _store = lab.append(N1, 2, id(1, 1), &[2, 2], 0);
    let replaced = lab.append(N2, 3, id(1, 1), &[3, 3, 3], 0);
    assert_eq!(
        replaced,
        AppendOutcome::Store {
            truncate_from: Some(2),
            lo: 2,
            hi: 5
        }
    );
    let _save = lab.effects();
    lab.save_hard_state();
    let truncations = lab.raft.truncation_count();
    assert_eq!(truncations, 1, "the owner can tell");
    lab.flush_to(id(2, 3));
    assert!(lab.sent().is_empty());
    assert_eq!(lab.raft.durable_index(), 1);
    lab.flush_to(id(3, 4));
    assert_eq!(
        accepted(lab.reply()),
        (4, 4),
        "a later completion makes up for it"
    );
}

#[test]
fn truncation_takes_durability_back() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    assert_eq!(lab.raft.durable_index(), 4);
    let _store = lab.append(N1, 3, id(1, 1), &[3, 3, 3], 0);
    assert_eq!(lab.raft.durable_index(), 1);
    let _save = lab.effects();
    lab.save_hard_state();
    assert!(
        lab.sent().is_empty(),
        "what replaced the tail is not on the disk"
    );
}

#[test]
fn a_leader_counts_itself_by_its_flush_and_does_not_wait_for_it() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.propose(2);
    lab.accept(N1, 4);
    assert_eq!(
        lab.raft.commit_index(),
        0,
        "one peer of three, and nothing flushed here"
    );
    lab.flush_to(id(2, 3));
    assert_eq!(lab.raft.commit_index(), 3);
    lab.accept(N2, 4);
    assert_eq!(lab.raft.commit_index(), 4, "two peers suffice");
    assert_eq!(lab.raft.durable_index(), 3);
    assert_eq!(lab.raft.commit_index_durable(), 3);
}

#[test]
fn the_save_comes_first_and_the_commit_last() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 2, id(1, 1), &[2], 2);
    let effects = lab.effects();
    assert!(matches!(
        effects[0],
        Effect::SaveHardState(HardState {
            term: 2,
            vote: None
        })
    ));
    assert!(matches!(
        effects[1],
        Effect::RoleChanged {
            leader: Some(N1),
            ..
        }
    ));
    assert_eq!(effects[2], Effect::CommitAdvanced { commit_index: 2 });
    assert_eq!(effects.len(), 3);
}

#[test]
fn a_new_leader_appends_its_noop_before_anything_else() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.time_out();
    lab.step(N1, vote_reply(2, true, true));
    let _requests = lab.effects();
    lab.save_hard_state();
    let _requests = lab.effects();
    lab.step(N1, vote_reply(2, true, false));
    let controls: Vec<Effect> = lab
        .effects()
        .into_iter()
        .filter(|effect| matches!(effect, Effect::AppendControl { .. }))
        .collect();
    assert_eq!(
        controls,
        [Effect::AppendControl {
            id: id(2, 2),
            control: Control::Noop
        }]
    );
    assert_eq!(lab.raft.propose(0).unwrap(), id(2, 3));
}

#[test]
fn what_waits_is_bounded() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.step(N1, vote_request(2, id(1, 1), false));
    for stranger in 0..10_000 {
        for _ in 0..2 {
            lab.step(NodeId(1_000 + stranger), vote_request(2, id(9, 9), false));
        }
    }
    lab.save_hard_state();
    let sent = lab.sent();
    assert!(sent.len() <= 128, "{} messages were held", sent.len());
    assert_eq!(
        sent[0],
        (
            N1,
            Message::VoteReply(super::super::VoteReply {
                term: 2,
                granted: true,
                pre_vote: false,
            })
        )
    );
}
