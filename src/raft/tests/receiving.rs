//! The follower's side: thesis 3.5, 3.6.2; obligations 28 to 36, 48, 49.

use super::super::{AppendOutcome, AppendReply, AppendResult, Effect, EntryId, Message};
use super::lab::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn rejection(message: Message) -> (u64, EntryId) {
    match message {
        Message::AppendReply(AppendReply {
            result:
                AppendResult::Rejected {
                    rejected_prev,
                    hint,
                    ..
                },
            ..
        }) => (rejected_prev, hint),
        other => panic!("not a rejection: {other:?}"),
    }
}

#[test]
fn entries_are_stored_behind_a_matching_one() {
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    let outcome = lab.append(N1, 2, id(2, 2), &[2, 2], 0);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: None,
            lo: 3,
            hi: 5
        }
    );
    assert_eq!(lab.raft.last(), id(2, 4));
}

#[test]
fn a_delayed_append_is_a_prefix_and_removes_nothing() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    assert_eq!(
        lab.append(N1, 2, id(1, 1), &[2, 2], 0),
        AppendOutcome::Nothing
    );
    assert_eq!(lab.raft.last(), id(2, 4));
    assert_eq!(lab.append(N1, 2, id(1, 1), &[], 0), AppendOutcome::Nothing);
    assert_eq!(lab.raft.last(), id(2, 4));
    let outcome = lab.append(N1, 2, id(1, 1), &[2, 2, 2, 2, 2], 0);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: None,
            lo: 5,
            hi: 7
        }
    );
}

#[test]
fn a_conflicting_entry_and_all_after_it_go() {
    let mut lab = Lab::follower(3, 2, &[1, 1, 2, 2, 2]);
    let outcome = lab.append(N1, 3, id(1, 1), &[1, 3], 0);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: Some(3),
            lo: 3,
            hi: 4
        }
    );
    assert_eq!(lab.raft.last(), id(3, 3));
    assert_eq!(lab.raft.term_at(2), Some(1));
}

#[test]
fn only_what_this_leader_verified_is_acknowledged() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    assert_eq!(lab.append(N1, 2, id(1, 1), &[2], 0), AppendOutcome::Nothing);
    assert_eq!(
        accepted(lab.reply()),
        (2, 2),
        "not the unverified tail up to 4"
    );
    let _nothing = lab.append(N1, 3, id(1, 1), &[], 0);
    let _save = lab.effects();
    lab.save_hard_state();
    assert_eq!(
        accepted(lab.reply()),
        (1, 1),
        "a new leader verifies afresh"
    );
}

#[test]
fn a_flush_behind_the_verified_part_is_not_acknowledged() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 1, id(1, 1), &[1, 1], 0);
    let _nothing = lab.append(N2, 2, id(1, 1), &[], 0);
    let _save = lab.effects();
    lab.save_hard_state();
    assert_eq!(accepted(lab.reply()), (1, 1));
    lab.flush_to(id(1, 3));
    assert!(
        lab.sent().is_empty(),
        "term 2's leader has not verified 2 and 3"
    );
}

#[test]
fn a_follower_commits_what_is_verified_and_no_more() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    lab.step(N1, heartbeat(2, 4));
    assert_eq!(lab.raft.commit_index(), 0, "a heartbeat verifies nothing");
    let _nothing = lab.append(N1, 2, id(1, 1), &[2], 4);
    assert_eq!(lab.raft.commit_index(), 2);
    let _nothing = lab.append(N1, 2, id(2, 2), &[2], 1);
    assert_eq!(
        lab.raft.commit_index(),
        3,
        "what the leader has told before is remembered"
    );
    lab.step(N1, heartbeat(2, 1));
    assert_eq!(lab.raft.commit_index(), 3, "and never goes back");
    assert_eq!(lab.raft.last(), id(2, 4), "a heartbeat truncates nothing");
}

#[test]
fn a_new_leaders_heartbeat_does_not_commit_an_old_tail() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    let _nothing = lab.append(N1, 2, id(2, 2), &[2, 2], 0);
    lab.step(N2, heartbeat(3, 4));
    assert_eq!(lab.raft.commit_index(), 0);
}

#[test]
fn a_commit_may_precede_the_own_flush() {
    let mut lab = Lab::follower(3, 1, &[1]);
    let _store = lab.append(N1, 1, id(1, 1), &[1], 2);
    assert_eq!((lab.raft.commit_index(), lab.raft.durable_index()), (2, 1));
    assert_eq!(lab.raft.commit_index_durable(), 1);
}

#[test]
fn hints_name_the_last_entry_that_could_agree() {
    let mut lab = Lab::follower(3, 5, &[1, 1, 4, 4, 5]);
    let _nothing = lab.append(N1, 5, id(5, 9), &[5], 0);
    assert_eq!(
        rejection(lab.reply()),
        (9, id(5, 5)),
        "too short: its last entry"
    );
    let _nothing = lab.append(N1, 5, id(3, 5), &[5], 0);
    assert_eq!(
        rejection(lab.reply()),
        (5, id(1, 2)),
        "terms 4 and 5 are skipped at once"
    );
    let _nothing = lab.append(N1, 5, id(4, 5), &[5], 0);
    assert_eq!(rejection(lab.reply()), (5, id(4, 4)));
}

#[test]
fn hints_stay_at_or_above_the_commit() {
    let mut found = restored(3, 5, &[3, 3, 3, 4]);
    found.commit_index_hint = 3;
    let mut lab = Lab::with(config(), found);
    let _nothing = lab.append(N1, 5, id(2, 9), &[5], 0);
    assert_eq!(rejection(lab.reply()), (9, id(3, 3)));
}

#[test]
fn a_missing_entry_is_not_the_compacted_one() {
    // etcd-raft 76f1249: a compacted entry read as term 0 matched a missing one.
    let mut lab = Lab::follower(3, 1, &[]);
    let _nothing = lab.append(N1, 1, id(0, 7), &[1], 0);
    assert_eq!(rejection(lab.reply()), (7, id(0, 0)));
    assert_eq!(lab.raft.last(), id(0, 0));
}

#[test]
fn an_append_from_before_the_first_entry_is_taken_up_to_date() {
    let mut found = restored(3, 3, &[]);
    found.first_index = 6;
    found.prev_term = 2;
    found.last_index = 7;
    found.term_runs = [super::super::TermRun {
        first_index: 6,
        term: 2,
    }]
    .to_vec();
    found.commit_index_hint = 6;
    let mut lab = Lab::with(config(), found);
    assert_eq!(
        lab.append(N1, 3, id(1, 2), &[1, 2], 9),
        AppendOutcome::Nothing
    );
    assert_eq!(accepted(lab.reply()), (6, 6), "at least the commit");
    let outcome = lab.append(N1, 3, id(1, 2), &[1, 2, 2, 2, 2, 3], 9);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: None,
            lo: 8,
            hi: 9
        }
    );
    assert_eq!(lab.raft.commit_index(), 8);
    let _nothing = lab.append(N1, 3, id(2, 5), &[2], 9);
    assert_eq!(
        lab.raft.last(),
        id(3, 8),
        "the entry before the first has its term"
    );
}

#[test]
fn a_contradiction_of_what_is_committed_stops_the_node() {
    let contradictions: [(EntryId, &[u64]); 2] = [(id(1, 1), &[3]), (id(1, 2), &[3])];
    for (prev, terms) in contradictions {
        let mut found = restored(3, 3, &[1, 2, 2]);
        found.commit_index_hint = 2;
        let mut lab = Lab::with(config(), found);
        let stopped = catch_unwind(AssertUnwindSafe(|| lab.append(N1, 3, prev, terms, 0)));
        assert!(stopped.is_err(), "{prev} {terms:?}");
    }
}

#[test]
fn two_leaders_in_a_term_stop_the_node() {
    let mut lab = Lab::follower(3, 3, &[1]);
    lab.step(N1, heartbeat(3, 0));
    let stopped = catch_unwind(AssertUnwindSafe(|| lab.step(N2, heartbeat(3, 0))));
    assert!(stopped.is_err());
}

#[test]
fn malformed_appends_are_ignored() {
    let mut lab = Lab::follower(3, 3, &[1, 2]);
    let cases: [(u64, EntryId, &[u64]); 6] = [
        (3, id(2, 2), &[1]),
        (3, id(2, 2), &[3, 2]),
        (3, id(2, 2), &[4]),
        (3, id(0, 0), &[0]),
        (3, id(4, 2), &[]),
        (3, id(3, u64::MAX), &[3]),
    ];
    for (term, prev, terms) in cases {
        assert_eq!(lab.append(N1, term, prev, terms, 0), AppendOutcome::Nothing);
        assert!(lab.effects().is_empty(), "{prev} {terms:?}");
    }
    assert_eq!(
        lab.append(N0, 3, id(2, 2), &[3], 0),
        AppendOutcome::Nothing,
        "from itself"
    );
    assert_eq!(lab.raft.last(), id(2, 2));
}

#[test]
fn credit_goes_out_with_every_reply() {
    let mut lab = Lab::follower(3, 1, &[1]);
    lab.raft.set_credit(77);
    let _nothing = lab.append(N1, 1, id(1, 1), &[], 0);
    let Message::AppendReply(reply) = lab.reply() else {
        panic!("an append is answered")
    };
    assert_eq!(reply.credit_bytes, 77);
    lab.step(N1, heartbeat(1, 0));
    let Message::HeartbeatReply(reply) = lab.reply() else {
        panic!("a heartbeat is answered")
    };
    assert_eq!(
        (reply.credit_bytes, reply.match_index, reply.received_index),
        (77, 1, 1)
    );
}

#[test]
fn a_role_change_precedes_the_commits_learned_by_it() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.propose(1);
    lab.flush_all();
    let _store = lab.append(N1, 3, id(1, 1), &[3, 3], 3);
    let effects = lab.effects();
    let role = effects
        .iter()
        .position(|effect| matches!(effect, Effect::RoleChanged { .. }));
    let commit = effects
        .iter()
        .position(|effect| matches!(effect, Effect::CommitAdvanced { .. }));
    assert!(
        role.unwrap() < commit.unwrap(),
        "waiters of term 2 hear of its end first"
    );
}
