//! The leader's side: thesis 3.5, 3.6.2, 10.2; obligations 34 to 40, 45 to 50, 83, 87.

use super::super::{
    AppendReply, AppendResult, Effect, Message, ProgressState, ProposeError, RoleKind,
};
use super::lab::*;

/// A leader of three whose peers replicate up to its no-op.
fn replicating(terms: &[u64]) -> Lab {
    let mut lab = Lab::leader(3, 5, terms);
    lab.flush_all();
    let last_index = lab.raft.last().index;
    for peer in [N1, N2] {
        lab.send_appends(peer, 100);
        lab.accept(peer, last_index);
        lab.send_appends(peer, 100);
    }
    let _commits = lab.effects();
    assert_eq!(lab.raft.commit_index(), last_index);
    lab
}

#[test]
fn figure_8_entries_of_earlier_terms_are_not_committed_by_counting() {
    // (c): S1 leads term 4 and brings entry 2 of term 2 to a majority; (d) must remain possible.
    let mut lab = Lab::leader(5, 4, &[1, 2]);
    lab.accept(N1, 2);
    lab.accept(N2, 2);
    lab.accept(N3, 2);
    lab.accept(N4, 2);
    assert_eq!(
        lab.raft.commit_index(),
        0,
        "everybody has it, and still it is not committed"
    );
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 0);
    lab.accept(N2, 3);
    assert_eq!(
        lab.raft.commit_index(),
        3,
        "(e): an entry of term 4 commits all before it"
    );
}

#[test]
fn a_majority_is_more_than_half() {
    let mut lab = Lab::leader(4, 2, &[1]);
    lab.flush_all();
    lab.accept(N1, 2);
    assert_eq!(lab.raft.commit_index(), 0, "two of four");
    lab.accept(N2, 2);
    assert_eq!(lab.raft.commit_index(), 2, "three of four");
}

#[test]
fn appends_are_contiguous_and_pipelined() {
    let mut lab = replicating(&[1]);
    lab.propose(7);
    assert_eq!(lab.send_appends(N1, 3), [(3, 6), (6, 9), (9, 10)]);
    assert_eq!(lab.progress(N1).in_flight_messages, 3);
    lab.accept(N1, 8);
    assert_eq!(lab.progress(N1).in_flight_messages, 1);
    assert_eq!(lab.progress(N1).in_flight_bytes, 10);
}

#[test]
fn the_window_is_bounded_by_messages_and_bytes_and_credit() {
    let mut lab = replicating(&[1]);
    lab.propose(200);
    assert_eq!(lab.send_appends(N1, 1).len(), 64, "messages");
    lab.raft.on_peer_credit(N2, 55);
    assert_eq!(
        lab.send_appends(N2, 2),
        [(3, 5), (5, 7), (7, 9)],
        "bytes, one message over"
    );
    lab.raft.on_peer_credit(N2, 0);
    lab.accept(N2, 8);
    assert_eq!(
        lab.send_appends(N2, 2).len(),
        64,
        "the reply carried new credit"
    );
    lab.raft.on_peer_credit(N2, 0);
    lab.accept_received(N2, 8, 8);
    lab.raft.on_peer_credit(N2, 0);
    assert!(
        lab.send_appends(N2, 2).is_empty(),
        "an overrun peer gets no data"
    );
}

#[test]
fn a_lost_append_costs_one_round_trip_after_a_reconnect() {
    let mut lab = replicating(&[1]);
    lab.propose(6);
    lab.send_appends(N1, 2);
    lab.accept(N1, 4);
    lab.raft.on_peer_disconnected(lab.now_us, N1);
    assert_eq!(lab.progress(N1).state, ProgressState::Probe);
    assert_eq!(lab.progress(N1).in_flight_messages, 0);
    assert_eq!(
        lab.send_appends(N1, 100),
        [(5, 9)],
        "at once, from what is known"
    );
    lab.accept(N1, 8);
    assert_eq!(lab.progress(N1).state, ProgressState::Replicate);
}

#[test]
fn a_lost_append_is_found_without_a_broken_connection() {
    let mut lab = replicating(&[1]);
    lab.propose(2);
    lab.send_appends(N1, 100);
    for _ in 0..3 {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N2, 0, 2);
    }
    assert_eq!(lab.progress(N1).state, ProgressState::Replicate, "not yet");
    lab.advance(HEARTBEAT_US);
    assert_eq!(lab.progress(N1).state, ProgressState::Probe);
    assert_eq!(lab.send_appends(N1, 100), [(3, 5)]);
    assert!(lab.send_appends(N1, 100).is_empty(), "one probe at a time");
    lab.now_us += HEARTBEAT_US;
    assert_eq!(lab.send_appends(N1, 100), [(3, 5)], "and one per heartbeat");
}

#[test]
fn a_slow_disk_is_not_a_lost_append() {
    let mut lab = replicating(&[1]);
    lab.propose(2);
    lab.send_appends(N1, 100);
    for _ in 0..8 {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N1, 0, 4);
        lab.heartbeat_reply(N2, 0, 2);
    }
    assert_eq!(
        lab.progress(N1).state,
        ProgressState::Replicate,
        "it has them, it only flushes"
    );
    for _ in 0..9 {
        lab.advance(HEARTBEAT_US);
        lab.heartbeat_reply(N2, 0, 2);
    }
    assert_eq!(
        lab.progress(N1).state,
        ProgressState::Probe,
        "patience ends"
    );
}

#[test]
fn a_heartbeat_reply_makes_up_for_a_lost_acknowledgement() {
    let mut lab = replicating(&[1]);
    lab.propose(1);
    lab.flush_all();
    lab.send_appends(N1, 100);
    let (term, session) = (lab.raft.term(), lab.session(N1));
    let reply = super::super::HeartbeatReply {
        term,
        read_round: 0,
        session,
        match_index: 3,
        received_index: 3,
        credit_bytes: u64::MAX,
    };
    lab.step(N1, Message::HeartbeatReply(reply));
    assert_eq!(lab.raft.commit_index(), 3);
}

#[test]
fn a_rejection_clears_the_window_and_goes_back_to_the_hint() {
    let mut lab = replicating(&[1]);
    lab.propose(6);
    lab.send_appends(N1, 2);
    lab.reject(N1, 6, id(5, 4));
    let progress = lab.progress(N1);
    assert_eq!(progress.state, ProgressState::Probe);
    assert_eq!(
        (
            progress.next_index,
            progress.in_flight_messages,
            progress.in_flight_bytes
        ),
        (5, 0, 0)
    );
    assert_eq!(lab.send_appends(N1, 100), [(5, 9)]);
    lab.reject(N1, 8, id(5, 4));
    assert!(
        lab.send_appends(N1, 100).is_empty(),
        "the other rejections of the burst are stale"
    );
}

#[test]
fn stale_rejections_change_nothing() {
    let mut lab = replicating(&[1]);
    lab.propose(2);
    lab.send_appends(N1, 100);
    lab.accept(N1, 4);
    lab.reject(N1, 4, id(1, 1));
    lab.reject(N1, 3, id(1, 1));
    lab.reject(N1, 9, id(1, 1));
    let progress = lab.progress(N1);
    assert_eq!(
        (progress.state, progress.match_index),
        (ProgressState::Replicate, 4)
    );
}

#[test]
fn a_probe_skips_a_term_at_a_time() {
    // The follower holds entries of term 2 where the leader's log has 1, 1, 3, 3, 3, 4, 4, 5.
    let mut lab = Lab::leader(3, 5, &[1, 1, 3, 3, 3, 4, 4]);
    assert_eq!(lab.send_appends(N1, 100), [(8, 9)]);
    lab.reject(N1, 7, id(2, 7));
    assert_eq!(
        lab.progress(N1).next_index,
        3,
        "terms 3 and 4 cannot be in its log"
    );
    assert_eq!(lab.send_appends(N1, 100), [(3, 9)]);
    lab.accept(N1, 8);
    assert_eq!(lab.progress(N1).state, ProgressState::Replicate);
}

#[test]
fn replies_of_other_terms_and_sessions_do_not_count() {
    let mut lab = replicating(&[1]);
    lab.propose(2);
    lab.flush_all();
    let result = AppendResult::Accepted {
        match_index: 4,
        received_index: 4,
    };
    let (term, session) = (lab.raft.term(), lab.session(N1));
    let reply = AppendReply {
        term: term - 1,
        session,
        result,
        credit_bytes: 9,
    };
    lab.step(N1, Message::AppendReply(reply));
    lab.step(
        N1,
        Message::AppendReply(AppendReply {
            term,
            session: session + 7,
            ..reply
        }),
    );
    assert_eq!(
        (lab.raft.commit_index(), lab.progress(N1).match_index),
        (2, 2)
    );
    lab.raft.on_peer_connected(lab.now_us, N1);
    lab.step(N1, Message::AppendReply(AppendReply { term, ..reply }));
    assert_eq!(
        lab.progress(N1).match_index,
        2,
        "said on an earlier connection"
    );
}

#[test]
fn impossible_replies_are_ignored() {
    let mut lab = replicating(&[1]);
    lab.accept(N1, 99);
    lab.accept_received(N1, 2, u64::MAX);
    lab.accept_received(N1, 2, 1);
    lab.reject(N1, 0, id(9, 99));
    lab.accept(super::super::NodeId(77), 2);
    assert_eq!(
        (lab.progress(N1).match_index, lab.raft.commit_index()),
        (2, 2)
    );
    let _effects = lab.effects();
}

#[test]
fn match_never_goes_back() {
    let mut lab = replicating(&[1]);
    lab.propose(3);
    lab.send_appends(N1, 1);
    lab.accept(N1, 5);
    lab.accept(N1, 3);
    assert_eq!(lab.progress(N1).match_index, 5);
}

#[test]
fn a_commit_is_carried_eagerly_but_once() {
    let mut lab = replicating(&[1]);
    lab.propose(1);
    lab.flush_all();
    lab.send_appends(N1, 100);
    lab.accept(N1, 3);
    assert_eq!(lab.raft.commit_index(), 3);
    let plan = lab.raft.plan_append(lab.now_us, N1).unwrap();
    assert_eq!((plan.lo, plan.hi_max, plan.commit_index), (4, 4, 3));
    assert_eq!(lab.send_appends(N1, 100), [(4, 4)]);
    assert!(lab.send_appends(N1, 100).is_empty());
}

#[test]
fn uncommitted_bytes_are_bounded_and_given_back() {
    let mut limited = config();
    limited.uncommitted_bytes_max = 100;
    let mut lab = Lab::with(limited, restored(3, 1, &[1])).elected(3);
    lab.raft.propose(1_000).unwrap();
    let busy = ProposeError::Busy {
        uncommitted_bytes: 1_000,
        uncommitted_entries: 2,
    };
    assert_eq!(
        lab.raft.propose(1),
        Err(busy),
        "one too large is admitted, alone"
    );
    lab.flush_all();
    lab.accept(N1, 3);
    assert_eq!(lab.raft.uncommitted(), (0, 0));
    for _ in 0..10 {
        lab.raft.propose(10).unwrap();
    }
    assert!(lab.raft.propose(1).is_err());
    lab.step(N1, heartbeat(9, 0));
    assert_eq!(
        lab.raft.propose(1),
        Err(ProposeError::NotLeader { leader: Some(N1) })
    );
    assert_eq!(
        lab.raft.uncommitted(),
        (0, 0),
        "nothing leaks into a later term"
    );
}

#[test]
fn a_former_leader_sends_no_more() {
    let mut lab = replicating(&[1]);
    lab.propose(2);
    let plan = lab.raft.plan_append(lab.now_us, N1).unwrap();
    lab.step(N2, heartbeat(6, 0));
    assert_eq!(lab.raft.role(), RoleKind::Follower);
    assert!(lab.raft.plan_append(lab.now_us, N1).is_none());
    lab.raft.append_sent(lab.now_us, N1, &plan, plan.hi_max, 20);
    let _effects = lab.effects();
    assert_eq!(plan.term, 5, "what was planned carries the old term");
}

#[test]
fn heartbeats_go_to_everybody_at_their_interval() {
    let mut lab = replicating(&[1]);
    let deadline_us = lab.raft.next_deadline_us();
    lab.now_us = deadline_us - 1;
    lab.raft.tick(lab.now_us);
    assert!(lab.sent().is_empty());
    lab.advance(1);
    let sent = lab.sent();
    assert_eq!(sent.len(), 2);
    for (_, message) in sent {
        let Message::Heartbeat(beat) = message else {
            panic!("not a heartbeat: {message:?}")
        };
        assert_eq!((beat.term, beat.commit_index), (5, 2));
    }
    assert_eq!(lab.raft.next_deadline_us(), lab.now_us + HEARTBEAT_US);
}

#[test]
fn the_leader_does_not_commit_what_the_quorum_has_only_received() {
    let mut lab = replicating(&[1]);
    lab.propose(1);
    lab.accept_received(N1, 2, 3);
    lab.accept_received(N2, 2, 3);
    lab.flush_all();
    assert_eq!(lab.raft.commit_index(), 2);
    assert!(
        !lab.effects()
            .iter()
            .any(|effect| matches!(effect, Effect::CommitAdvanced { .. }))
    );
}
