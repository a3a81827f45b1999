//! One core on the bench: build it in a state, feed it by hand, look at what it wants.

use super::super::{
    AppendEntries, AppendOutcome, AppendReply, AppendResult, Config, Configuration, Durable,
    Effect, EntryId, EntryMeta, HardState, Heartbeat, HeartbeatReply, Message, NodeId, Raft,
    Restored, TermRun, VoteReply, VoteRequest,
};
use std::vec::Vec;

pub(super) const N0: NodeId = NodeId(0);
pub(super) const N1: NodeId = NodeId(1);
pub(super) const N2: NodeId = NodeId(2);
pub(super) const N3: NodeId = NodeId(3);
pub(super) const N4: NodeId = NodeId(4);

pub(super) const ELECTION_US_MIN: u64 = 100_000;
pub(super) const ELECTION_US_MAX: u64 = 200_000;
pub(super) const HEARTBEAT_US: u64 = 10_000;

pub(super) fn config() -> Config {
    let mut config = Config::new(N0);
    config.election_timeout_us_min = ELECTION_US_MIN;
    config.election_timeout_us_max = ELECTION_US_MAX;
    config.heartbeat_interval_us = HEARTBEAT_US;
    config
}

pub(super) fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

/// What a node `n0` of `voters` finds that stopped with entries of these terms, from index 1.
pub(super) fn restored(voters: u64, term: u64, terms: &[u64]) -> Restored {
    let voters = (0..voters).map(NodeId);
    let mut restored = Restored::fresh(Configuration::new(voters, []).unwrap());
    restored.hard_state = HardState { term, vote: None };
    for (index, term) in (1..).zip(terms) {
        if restored
            .term_runs
            .last()
            .is_none_or(|run| run.term != *term)
        {
            restored.term_runs.push(TermRun {
                first_index: index,
                term: *term,
            });
        }
        restored.last_index = index;
    }
    restored
}

/// A core with its clock and everything it has asked for.
pub(super) struct Lab {
    pub(super) raft: Raft,
    pub(super) now_us: u64,
}

impl Lab {
    pub(super) fn with(config: Config, restored: Restored) -> Lab {
        let now_us = 1_000_000;
        let mut lab = Lab {
            raft: Raft::new(config, restored, now_us, 42).unwrap(),
            now_us,
        };
        assert!(
            lab.effects().is_empty(),
            "a core that was just made wants nothing"
        );
        lab
    }

    /// A follower of term `term` in a cluster of `voters`.
    pub(super) fn follower(voters: u64, term: u64, terms: &[u64]) -> Lab {
        Lab::with(config(), restored(voters, term, terms))
    }

    /// A leader of `term`, its no-op appended and not durable.
    pub(super) fn leader(voters: u64, term: u64, terms: &[u64]) -> Lab {
        Lab::follower(voters, term - 1, terms).elected(voters)
    }

    pub(super) fn elected(mut self, voters: u64) -> Lab {
        self.time_out();
        for pre_vote in [true, false] {
            let _requests = self.effects();
            self.save_hard_state();
            for peer in 1..=voters / 2 {
                let term = self.raft.term() + u64::from(pre_vote);
                self.step(NodeId(peer), vote_reply(term, true, pre_vote));
            }
        }
        let _announcement = self.effects();
        assert_eq!(self.raft.leader(), Some(N0));
        self
    }

    pub(super) fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(effect) = self.raft.poll_effect() {
            effects.push(effect);
        }
        self.raft.check().unwrap();
        effects
    }

    pub(super) fn sent(&mut self) -> Vec<(NodeId, Message)> {
        let effects = self.effects();
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Send { to, message } => Some((to, message)),
                _ => None,
            })
            .collect()
    }

    /// The one message that is to be sent.
    pub(super) fn reply(&mut self) -> Message {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "exactly one message: {sent:?}");
        sent[0].1
    }

    pub(super) fn step(&mut self, from: NodeId, message: Message) {
        self.raft.step(self.now_us, from, message);
    }

    pub(super) fn advance(&mut self, us: u64) {
        self.now_us += us;
        self.raft.tick(self.now_us);
    }

    pub(super) fn time_out(&mut self) {
        self.now_us = self.raft.next_deadline_us();
        self.raft.tick(self.now_us);
    }

    pub(super) fn save_hard_state(&mut self) {
        let hard_state = self.raft.hard_state();
        self.raft
            .on_hard_state_durable(self.now_us, Durable::attest(hard_state));
    }

    pub(super) fn flush_to(&mut self, at: EntryId) {
        self.raft.on_log_durable(self.now_us, Durable::attest(at));
    }

    pub(super) fn flush_all(&mut self) {
        self.save_hard_state();
        self.flush_to(self.raft.last());
    }

    pub(super) fn append(
        &mut self,
        from: NodeId,
        term: u64,
        prev: EntryId,
        terms: &[u64],
        commit_index: u64,
    ) -> AppendOutcome {
        let append = AppendEntries {
            term,
            prev,
            commit_index,
            session: 1,
        };
        let entries: Vec<EntryMeta> = terms
            .iter()
            .map(|term| EntryMeta {
                term: *term,
                bytes: 10,
            })
            .collect();
        self.raft.step_append(self.now_us, from, &append, &entries)
    }

    /// Sends all that may be sent to `peer`, up to `entries_max` entries each; returns the ranges.
    pub(super) fn send_appends(&mut self, peer: NodeId, entries_max: u64) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        while let Some(plan) = self.raft.plan_append(self.now_us, peer) {
            let hi = plan.hi_max.min(plan.lo + entries_max);
            self.raft
                .append_sent(self.now_us, peer, &plan, hi, (hi - plan.lo) * 10);
            ranges.push((plan.lo, hi));
            assert!(ranges.len() < 1_000, "sending ends");
        }
        ranges
    }

    pub(super) fn session(&self, peer: NodeId) -> u64 {
        // Sessions are handed out in the order of the peers when a term begins.
        peer.0
    }

    pub(super) fn accept(&mut self, peer: NodeId, match_index: u64) {
        self.accept_received(peer, match_index, match_index);
    }

    pub(super) fn accept_received(&mut self, peer: NodeId, match_index: u64, received_index: u64) {
        let result = AppendResult::Accepted {
            match_index,
            received_index,
        };
        self.append_reply(peer, result);
    }

    pub(super) fn reject(&mut self, peer: NodeId, rejected_prev: u64, hint: EntryId) {
        let last_index = hint.index;
        self.append_reply(
            peer,
            AppendResult::Rejected {
                rejected_prev,
                hint,
                last_index,
            },
        );
    }

    fn append_reply(&mut self, peer: NodeId, result: AppendResult) {
        let (term, session) = (self.raft.term(), self.session(peer));
        let reply = AppendReply {
            term,
            session,
            result,
            credit_bytes: u64::MAX,
        };
        self.step(peer, Message::AppendReply(reply));
    }

    pub(super) fn heartbeat_reply(&mut self, peer: NodeId, read_round: u64, received_index: u64) {
        let reply = HeartbeatReply {
            term: self.raft.term(),
            read_round,
            session: self.session(peer),
            match_index: 0,
            received_index,
            credit_bytes: u64::MAX,
        };
        self.step(peer, Message::HeartbeatReply(reply));
    }

    pub(super) fn progress(&self, peer: NodeId) -> super::super::ProgressView {
        self.raft.progress().find(|view| view.peer == peer).unwrap()
    }

    pub(super) fn propose(&mut self, count: u64) {
        for _ in 0..count {
            self.raft.propose(10).unwrap();
        }
    }
}

pub(super) fn vote_request(term: u64, last: EntryId, pre_vote: bool) -> Message {
    Message::VoteRequest(VoteRequest {
        term,
        last,
        pre_vote,
        transfer: false,
    })
}

pub(super) fn vote_reply(term: u64, granted: bool, pre_vote: bool) -> Message {
    Message::VoteReply(VoteReply {
        term,
        granted,
        pre_vote,
    })
}

pub(super) fn heartbeat(term: u64, commit_index: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        term,
        commit_index,
        read_round: 0,
        session: 1,
    })
}

pub(super) fn accepted(message: Message) -> (u64, u64) {
    match message {
        Message::AppendReply(AppendReply {
            result:
                AppendResult::Accepted {
                    match_index,
                    received_index,
                },
            ..
        }) => (match_index, received_index),
        other => panic!("not an acceptance: {other:?}"),
    }
}
