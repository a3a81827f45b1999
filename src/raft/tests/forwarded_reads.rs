//! Linearizable reads on followers: asked of the leader, fenced, and given up in time.

use super::super::{Effect, Message, ReadIndexReply, ReadIndexRequest, RoleKind};
use super::lab::*;
use std::vec::Vec;

/// A follower of N1 in term 2.
fn following() -> Lab {
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    lab.step(N1, heartbeat(2, 0));
    let _reply = lab.effects();
    lab
}

fn question(lab: &mut Lab) -> u64 {
    match lab.reply() {
        Message::ReadIndexRequest(ReadIndexRequest { term: 2, number }) => number,
        other => panic!("not a question: {other:?}"),
    }
}

fn answer(number: u64, index: u64, ok: bool) -> Message {
    Message::ReadIndexReply(ReadIndexReply {
        term: 2,
        number,
        index,
        ok,
    })
}

fn outcomes(lab: &mut Lab) -> Vec<(u64, Option<u64>)> {
    let outcome = |effect| match effect {
        Effect::ReadReady { ticket, index } => Some((ticket, Some(index))),
        Effect::ReadFailed { ticket } => Some((ticket, None)),
        _ => None,
    };
    lab.effects().into_iter().filter_map(outcome).collect()
}

#[test]
fn one_question_answers_all_that_came_before_it() {
    let mut lab = following();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    let first = question(&mut lab);
    lab.raft.read_index(lab.now_us, 2).unwrap();
    lab.raft.read_index(lab.now_us, 3).unwrap();
    assert!(
        lab.effects().is_empty(),
        "they came after the question left"
    );
    lab.step(N1, answer(first, 7, true));
    let effects = lab.effects();
    assert!(effects.contains(&Effect::ReadReady {
        ticket: 1,
        index: 7
    }));
    let second = effects.iter().find_map(|effect| match effect {
        Effect::Send {
            to: N1,
            message: Message::ReadIndexRequest(request),
        } => Some(request.number),
        _ => None,
    });
    assert_eq!(effects.len(), 2, "one ready, one question: {effects:?}");
    lab.step(N1, answer(second.unwrap(), 9, true));
    assert_eq!(outcomes(&mut lab), [(2, Some(9)), (3, Some(9))]);
}

#[test]
fn answers_that_are_not_to_this_question_answer_nothing() {
    let mut lab = following();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    let number = question(&mut lab);
    lab.step(N1, answer(number - 1, 7, true));
    lab.step(N2, answer(number, 7, true));
    let older = ReadIndexReply {
        term: 1,
        number,
        index: 7,
        ok: true,
    };
    lab.step(N1, Message::ReadIndexReply(older));
    assert!(outcomes(&mut lab).is_empty());
    lab.step(N1, answer(number, 7, true));
    lab.step(N1, answer(number, 8, true));
    assert_eq!(outcomes(&mut lab), [(1, Some(7))], "once");
}

#[test]
fn a_lost_question_is_repeated_under_its_number_and_given_up() {
    let mut lab = following();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    let number = question(&mut lab);
    let mut repeated = 0;
    loop {
        lab.advance(HEARTBEAT_US);
        lab.step(N1, heartbeat(2, 0));
        let effects = lab.effects();
        for effect in &effects {
            if let Effect::Send {
                message: Message::ReadIndexRequest(request),
                ..
            } = effect
            {
                assert_eq!(request.number, number);
                repeated += 1;
            }
        }
        if effects.contains(&Effect::ReadFailed { ticket: 1 }) {
            break;
        }
        assert!(repeated < 100, "it is given up");
    }
    assert_eq!(repeated, ELECTION_US_MAX / HEARTBEAT_US - 1);
}

#[test]
fn a_refusal_and_a_lost_leader_fail_the_reads() {
    let mut lab = following();
    lab.raft.read_index(lab.now_us, 1).unwrap();
    let number = question(&mut lab);
    lab.step(N1, answer(number, 0, false));
    assert_eq!(outcomes(&mut lab), [(1, None)]);
    for ticket in [2, 3] {
        lab.raft.read_index(lab.now_us, ticket).unwrap();
    }
    let _question = lab.effects();
    lab.time_out();
    while lab.raft.role() == RoleKind::Follower {
        lab.time_out();
    }
    assert_eq!(outcomes(&mut lab), [(2, None), (3, None)]);
}

#[test]
fn numbers_differ_after_a_restart() {
    let number = |seed| {
        let raft = super::super::Raft::new(config(), restored(3, 2, &[1, 2]), 1, seed).unwrap();
        let mut lab = Lab {
            raft,
            now_us: 1_000_000,
        };
        lab.step(N1, heartbeat(2, 0));
        let _reply = lab.effects();
        lab.raft.read_index(lab.now_us, 1).unwrap();
        question(&mut lab)
    };
    assert!(number(1).abs_diff(number(2)) > 1 << 32);
}

#[test]
fn a_leader_answers_a_follower_after_a_round_of_its_own() {
    let mut lab = Lab::leader(3, 2, &[1]);
    lab.flush_all();
    lab.accept(N1, 2);
    let _commit = lab.effects();
    let ask = |term, number| Message::ReadIndexRequest(ReadIndexRequest { term, number });
    lab.step(N2, ask(2, 5));
    let sent = lab.sent();
    assert!(
        sent.iter()
            .all(|(_, message)| matches!(message, Message::Heartbeat(_))),
        "a round first"
    );
    lab.heartbeat_reply(N1, 1, 2);
    assert_eq!(lab.sent(), [(N2, answer(5, 2, true))]);
    lab.step(N2, ask(1, 6));
    assert_eq!(lab.sent(), [(N2, answer(6, 0, false))], "of another term");
    lab.step(N4, ask(2, 7));
    assert!(lab.effects().is_empty(), "of a stranger");
    lab.step(N2, ask(2, 8));
    let _round = lab.effects();
    lab.step(N1, heartbeat(3, 0));
    let sent = lab.sent();
    let refused = ReadIndexReply {
        term: 2,
        number: 8,
        index: 0,
        ok: false,
    };
    assert!(
        !sent.contains(&(
            N2,
            Message::ReadIndexReply(ReadIndexReply {
                ok: true,
                ..refused
            })
        )),
        "a lost lead confirms nothing: {sent:?}"
    );
}
