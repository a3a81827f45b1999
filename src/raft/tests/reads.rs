//! Linearizable reads by ReadIndex: thesis 6.4; obligations 52 to 56.

use super::super::{Effect, Heartbeat, Message, ReadError};
use super::lab::*;
use std::vec::Vec;

fn answers(lab: &mut Lab) -> Vec<Effect> {
    let read =
        |effect: &Effect| matches!(effect, Effect::ReadReady { .. } | Effect::ReadFailed { .. });
    lab.effects().into_iter().filter(read).collect()
}

fn rounds(lab: &mut Lab) -> Vec<u64> {
    let sent = lab.sent();
    let round = |message: &Message| match message {
        Message::Heartbeat(Heartbeat { read_round, .. }) => *read_round,
        other => panic!("not a heartbeat: {other:?}"),
    };
    sent.iter().map(|(_, message)| round(message)).collect()
}

/// A leader of three that has committed its no-op at 2.
fn established() -> Lab {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.flush_all();
    lab.accept(N1, 2);
    let _commit = lab.effects();
    lab
}

#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.raft.read_index(lab.now_us, 7).unwrap();
    let _round = lab.effects();
    lab.heartbeat_reply(N1, 1, 0);
    assert!(
        answers(&mut lab).is_empty(),
        "confirmed, but nothing of term 2 is committed"
    );
    lab.flush_all();
    lab.accept(N1, 2);
    assert_eq!(
        answers(&mut lab),
        [Effect::ReadReady {
            ticket: 7,
            index: 2
        }]
    );
}

#[test]
fn a_read_waits_for_a_quorum_of_its_round() {
    let mut lab = established();
    lab.raft.read_index(lab.now_us, 7).unwrap();
    assert_eq!(rounds(&mut lab), [1, 1], "the round starts at once");
    lab.heartbeat_reply(N1, 0, 2);
    assert!(
        answers(&mut lab).is_empty(),
        "an answer to an earlier heartbeat confirms nothing"
    );
    lab.heartbeat_reply(N2, 1, 2);
    assert_eq!(
        answers(&mut lab),
        [Effect::ReadReady {
            ticket: 7,
            index: 2
        }]
    );
    lab.heartbeat_reply(N1, 1, 2);
    assert!(answers(&mut lab).is_empty(), "once");
}

#[test]
fn reads_share_the_next_round() {
    let mut lab = established();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    assert_eq!(rounds(&mut lab), [1, 1]);
    for ticket in 2..100 {
        lab.raft.read_index(lab.now_us, ticket).unwrap();
    }
    assert!(
        rounds(&mut lab).is_empty(),
        "they wait for the round after the one under way"
    );
    lab.heartbeat_reply(N1, 1, 2);
    let effects = lab.effects();
    let ready = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::ReadReady { .. }))
        .count();
    assert_eq!(ready, 1, "only the first");
    assert_eq!(effects.len(), 3, "and one more round for all others");
    lab.heartbeat_reply(N1, 2, 2);
    assert_eq!(answers(&mut lab).len(), 98);
}

#[test]
fn an_answer_from_before_the_read_does_not_confirm_it() {
    // etcd#20418: acknowledgements of an earlier try confirmed a later read.
    let mut lab = established();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    lab.heartbeat_reply(N1, 1, 2);
    let _ready = lab.effects();
    lab.raft.read_index(lab.now_us, 2).unwrap();
    let _round = lab.effects();
    lab.heartbeat_reply(N1, 1, 2);
    lab.heartbeat_reply(N2, 1, 2);
    assert!(answers(&mut lab).is_empty());
    lab.heartbeat_reply(N2, 99, 2);
    assert!(
        answers(&mut lab).is_empty(),
        "nor does a round that was never begun"
    );
    lab.heartbeat_reply(N2, 2, 2);
    assert_eq!(answers(&mut lab).len(), 1);
}

#[test]
fn a_lost_round_is_repeated_by_the_next_heartbeat() {
    let mut lab = established();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    let _lost = lab.effects();
    lab.raft.read_index(lab.now_us, 2).unwrap();
    lab.advance(HEARTBEAT_US);
    assert_eq!(rounds(&mut lab), [2, 2], "and takes along who waited");
    lab.heartbeat_reply(N1, 2, 2);
    assert_eq!(answers(&mut lab).len(), 2);
}

#[test]
fn reads_fail_when_leadership_ends() {
    let mut lab = established();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    lab.raft.read_index(lab.now_us, 2).unwrap();
    lab.step(N1, heartbeat(3, 0));
    let failed = [
        Effect::ReadFailed { ticket: 1 },
        Effect::ReadFailed { ticket: 2 },
    ];
    assert_eq!(answers(&mut lab), failed);
    lab.step(N1, heartbeat(4, 0));
    lab.step(N1, vote_reply(5, false, false));
    let refused = lab.raft.read_index(lab.now_us, 3);
    assert_eq!(refused, Err(ReadError::NotLeader { leader: None }));
}

#[test]
fn waiting_reads_are_bounded() {
    let mut limited = config();
    limited.reads_waiting_max = 3;
    let mut lab = Lab::with(limited, restored(3, 1, &[1])).elected(3);
    for ticket in 0..3 {
        lab.raft.read_index(lab.now_us, ticket).unwrap();
    }
    assert_eq!(
        lab.raft.read_index(lab.now_us, 3),
        Err(ReadError::Busy { waiting: 3 })
    );
}

#[test]
fn the_only_voter_confirms_by_itself() {
    let mut lab = Lab::follower(1, 1, &[1]);
    lab.advance(0);
    lab.save_hard_state();
    let _noop = lab.effects();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    assert!(answers(&mut lab).is_empty(), "its no-op is not committed");
    lab.flush_all();
    assert_eq!(
        answers(&mut lab),
        [Effect::ReadReady {
            ticket: 1,
            index: 2
        }]
    );
    lab.raft.read_index(lab.now_us, 2).unwrap();
    assert_eq!(
        answers(&mut lab),
        [Effect::ReadReady {
            ticket: 2,
            index: 2
        }]
    );
}
