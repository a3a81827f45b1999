//! Input that no correct peer sends: seeded random messages in every state. Nothing may panic but the
//! two findings that mean safety is already lost, and every invariant of one node must hold.

use super::super::rng::Rng;
use super::super::{
    AppendReply, AppendResult, Effect, Heartbeat, HeartbeatReply, Message, NodeId, TimeoutNow,
    VoteReply, VoteRequest,
};
use super::lab::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::vec::Vec;

fn number(rng: &mut Rng) -> u64 {
    match rng.range(0, 12) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => u64::MAX / 2,
        _ => rng.range(0, 9),
    }
}

fn message(rng: &mut Rng) -> Message {
    let term = if rng.range(0, 200) == 0 {
        u64::MAX
    } else {
        rng.range(0, 12)
    };
    let (a, b) = (rng.range(0, 2) == 0, rng.range(0, 2) == 0);
    let entry = id(number(rng), number(rng));
    let (x, y, session, credit_bytes) = (number(rng), number(rng), rng.range(0, 4), number(rng));
    match rng.range(0, 7) {
        0 => Message::VoteRequest(VoteRequest {
            term,
            last: entry,
            pre_vote: a,
            transfer: b,
        }),
        1 => Message::VoteReply(VoteReply {
            term,
            granted: a,
            pre_vote: b,
        }),
        2 => Message::Heartbeat(Heartbeat {
            term,
            commit_index: x,
            read_round: y,
            session,
        }),
        3 => Message::HeartbeatReply(HeartbeatReply {
            term,
            read_round: x,
            session,
            match_index: y,
            received_index: number(rng),
            credit_bytes,
        }),
        4 => {
            let result = AppendResult::Accepted {
                match_index: x,
                received_index: y,
            };
            Message::AppendReply(AppendReply {
                term,
                session,
                result,
                credit_bytes,
            })
        }
        5 => {
            let result = AppendResult::Rejected {
                rejected_prev: x,
                hint: entry,
                last_index: y,
            };
            Message::AppendReply(AppendReply {
                term,
                session,
                result,
                credit_bytes,
            })
        }
        _ => Message::TimeoutNow(TimeoutNow { term }),
    }
}

fn torment(rng: &mut Rng) {
    let mut lab = Lab::follower(3, 3, &[1, 2, 2, 3]);
    for _ in 0..60 {
        let from = NodeId(rng.range(1, 5));
        match rng.range(0, 6) {
            0 => {
                let mut terms: Vec<u64> = (0..rng.range(0, 4)).map(|_| rng.range(0, 9)).collect();
                if rng.range(0, 3) > 0 {
                    terms.sort_unstable();
                }
                let (term, prev) = (rng.range(0, 12), id(rng.range(0, 6), number(rng)));
                let _outcome = lab.append(from, term, prev, &terms, number(rng));
            }
            1 => lab.time_out_if_due(rng),
            2 => lab.save_hard_state(),
            3 => {
                let at = id(rng.range(0, 9), number(rng));
                lab.flush_to(at);
            }
            _ => lab.step(from, message(rng)),
        }
        for effect in lab.effects() {
            let leaves_early = matches!(
                effect,
                Effect::Send {
                    message: Message::VoteReply(VoteReply {
                        granted: true,
                        pre_vote: false,
                        ..
                    }),
                    ..
                }
            );
            assert!(
                !leaves_early || lab.raft.hard_state().vote.is_some(),
                "a vote was recorded"
            );
        }
        lab.send_appends(N1, 2);
    }
}

impl Lab {
    fn time_out_if_due(&mut self, rng: &mut Rng) {
        self.advance(rng.range(0, ELECTION_US_MAX));
        if self.raft.leader() == Some(N0) {
            let _refused = self.raft.read_index(self.now_us, 1);
            let _noop = self.effects();
            let _refused = self.raft.propose(5);
        }
    }
}

#[test]
fn nonsense_is_survived() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let result = catch_unwind(AssertUnwindSafe(|| torment(&mut rng)));
        let Err(panic) = result else { continue };
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        let known = text.contains("two leaders in term") || text.contains("contradict");
        assert!(known, "seed {seed}: {text}");
    }
}
