//! Lease reads: what they save, and when they are off.

use super::super::{Config, ConfigError};
use super::super::{Effect, HeartbeatReply, Message, TimeoutNow};
use super::lab::*;

const DRIFT_PPM: u32 = 10_000;

fn leased() -> Config {
    Config {
        lease_drift_ppm: Some(DRIFT_PPM),
        ..config()
    }
}

/// A leader of three with a lease that began now.
fn established() -> Lab {
    let mut restored = restored(3, 1, &[1]);
    restored.hard_state.term = 1;
    let mut lab = Lab::with(leased(), restored).elected(3);
    lab.flush_all();
    lab.accept(N1, 2);
    let _commit = lab.effects();
    renew(&mut lab);
    lab
}

/// A heartbeat round that N1 answers at once.
fn renew(lab: &mut Lab) {
    lab.advance(HEARTBEAT_US);
    answer_round(lab);
}

fn answer_round(lab: &mut Lab) {
    let round = lab
        .sent()
        .into_iter()
        .rev()
        .find_map(|(_, message)| match message {
            Message::Heartbeat(heartbeat) => Some(heartbeat.read_round),
            _ => None,
        })
        .unwrap();
    lab.step(
        N1,
        Message::HeartbeatReply(HeartbeatReply {
            term: lab.raft.term(),
            read_round: round,
            session: lab.session(N1),
            match_index: 0,
            received_index: 0,
            credit_bytes: u64::MAX,
        }),
    );
    let _effects = lab.effects();
}

/// Whether a read is answered without a round.
fn is_immediate(lab: &mut Lab) -> bool {
    lab.raft.read_index(lab.now_us, 7).unwrap();
    lab.effects()
        .iter()
        .any(|effect| matches!(effect, Effect::ReadReady { ticket: 7, .. }))
}

#[test]
fn a_lease_ends_before_any_voter_may_forget_its_promise() {
    let mut lab = established();
    assert!(is_immediate(&mut lab));
    // The clocks may be off by the bound, each in the worse direction.
    let shrunk_us = ELECTION_US_MIN - 2 * ELECTION_US_MIN * u64::from(DRIFT_PPM) / 1_000_000;
    lab.now_us += shrunk_us - 1;
    assert!(is_immediate(&mut lab), "the last moment");
    lab.now_us += 1;
    assert!(!is_immediate(&mut lab));
}

#[test]
fn a_leader_that_was_paused_asks_again() {
    let mut lab = established();
    lab.now_us += 10 * ELECTION_US_MAX;
    assert!(!is_immediate(&mut lab));
}

#[test]
fn a_lease_counts_from_the_sending_of_the_round() {
    let mut lab = established();
    lab.advance(HEARTBEAT_US);
    let sent_us = lab.now_us;
    lab.now_us += ELECTION_US_MIN - 10_000;
    answer_round(&mut lab);
    assert!(is_immediate(&mut lab), "answered late, and still good");
    lab.now_us = sent_us + ELECTION_US_MIN;
    assert!(!is_immediate(&mut lab), "but not for longer");
}

#[test]
fn no_lease_before_a_commit_of_the_term_or_a_confirmed_round() {
    let mut lab = Lab::with(leased(), restored(3, 1, &[1])).elected(3);
    renew(&mut lab);
    assert!(!is_immediate(&mut lab), "nothing of the term is committed");
    lab.flush_all();
    lab.accept(N1, 2);
    let _effects = lab.effects();
    assert!(is_immediate(&mut lab));
}

#[test]
fn a_handover_ends_leases_for_the_term() {
    let mut lab = established();
    lab.accept(N1, 2);
    lab.raft.transfer_leadership(lab.now_us, N1).unwrap();
    assert!(
        lab.sent()
            .contains(&(N1, Message::TimeoutNow(TimeoutNow { term: 2 })))
    );
    assert!(!is_immediate(&mut lab));
    // It was given up, and yet the message may still arrive.
    for _ in 0..=ELECTION_US_MAX / HEARTBEAT_US {
        renew(&mut lab);
    }
    assert_eq!(lab.raft.transferring_to(), None);
    assert!(!is_immediate(&mut lab));
}

#[test]
fn a_voter_keeps_its_promise_whatever_it_hears() {
    let mut lab = Lab::with(leased(), restored(3, 2, &[1, 2]));
    lab.advance(ELECTION_US_MIN);
    lab.step(N1, heartbeat(2, 0));
    let _reply = lab.effects();
    // A late answer to an election of its own teaches a newer term, and the leader is forgotten.
    lab.step(N2, vote_reply(5, false, false));
    lab.raft.on_leader_connection_lost(lab.now_us);
    let _effects = lab.effects();
    assert_eq!(lab.raft.leader(), None);
    lab.step(N2, vote_request(6, id(2, 2), false));
    assert!(lab.effects().is_empty(), "no vote yet");
    lab.step(N2, vote_request(5, id(2, 2), false));
    let _save = lab.effects();
    assert_eq!(
        lab.raft.hard_state().vote,
        None,
        "nor in the term it learned"
    );
    lab.now_us += ELECTION_US_MIN;
    lab.step(N2, vote_request(6, id(2, 2), false));
    let _save = lab.effects();
    assert_eq!(lab.raft.hard_state().vote, Some(N2));
}

#[test]
fn a_restarted_voter_keeps_what_it_may_have_promised() {
    let mut lab = Lab::with(leased(), restored(3, 2, &[1, 2]));
    lab.step(N2, vote_request(3, id(2, 2), false));
    assert!(lab.effects().is_empty());
    lab.advance(ELECTION_US_MIN);
    lab.step(N2, vote_request(3, id(2, 2), false));
    let _save = lab.effects();
    assert_eq!(lab.raft.hard_state().vote, Some(N2));
    let mut lab = Lab::follower(3, 2, &[1, 2]);
    lab.step(N2, vote_request(3, id(2, 2), false));
    let _save = lab.effects();
    assert_eq!(
        lab.raft.hard_state().vote,
        Some(N2),
        "nothing to keep without leases"
    );
}

#[test]
fn leases_need_what_they_stand_on() {
    let refused = Config {
        check_quorum: false,
        ..leased()
    };
    assert_eq!(refused.validate(), Err(ConfigError::LeaseWithoutStickiness));
    let refused = Config {
        lease_drift_ppm: Some(200_000),
        ..config()
    };
    assert!(matches!(
        refused.validate(),
        Err(ConfigError::LeaseDrift { .. })
    ));
}
