//! What the Raft core costs: entries proposed, replicated to two followers, acknowledged and committed,
//! by how many travel in one append. No payload, no I/O: every flush completes at once.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drave::raft::{
    AppendEntries, AppendOutcome, Config, Configuration, Durable, Effect, EntryId, EntryMeta,
    Message, NodeId, Raft, Restored, RoleKind,
};

struct Trio {
    nodes: Vec<Raft>,
    now_us: u64,
    metas: Vec<EntryMeta>,
}

impl Trio {
    fn elected() -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let configuration = Configuration::new(ids, []).unwrap();
        let node = |id: NodeId| {
            Raft::new(
                Config::new(id),
                Restored::fresh(configuration.clone()),
                0,
                id.0,
            )
            .unwrap()
        };
        let mut trio = Self {
            nodes: ids.map(node).into(),
            now_us: 0,
            metas: Vec::new(),
        };
        for node in 0..3 {
            for other in (0..3).filter(|other| *other != node) {
                trio.nodes[node].on_peer_connected(0, ids[other]);
            }
        }
        while trio.leader().is_none() {
            trio.now_us += 10_000;
            for node in 0..3 {
                trio.nodes[node].tick(trio.now_us);
                trio.settle(node);
            }
        }
        let leader = trio.leader().unwrap();
        trio.replicate(leader);
        trio
    }

    fn leader(&self) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| node.role() == RoleKind::Leader)
    }

    fn settle(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].poll_effect() {
            match effect {
                Effect::SaveHardState(state) => {
                    self.nodes[node].on_hard_state_durable(self.now_us, Durable::attest(state));
                }
                Effect::AppendControl { id, .. } => {
                    self.nodes[node].on_log_durable(self.now_us, Durable::attest(id));
                }
                Effect::Send { to, message } => self.deliver(node, to, message),
                _ => {}
            }
        }
    }

    fn deliver(&mut self, from: usize, to: NodeId, message: Message) {
        let to = to.0 as usize - 1;
        self.nodes[to].step(self.now_us, NodeId(from as u64 + 1), message);
        self.settle(to);
    }

    /// Sends everything there is to both followers, who flush and acknowledge it at once.
    fn replicate(&mut self, leader: usize) {
        for follower in (0..3).filter(|node| *node != leader) {
            while let Some(plan) =
                self.nodes[leader].plan_append(self.now_us, NodeId(follower as u64 + 1))
            {
                let count = plan.hi_max - plan.lo;
                let to = NodeId(follower as u64 + 1);
                self.nodes[leader].append_sent(self.now_us, to, &plan, plan.hi_max, 1024 * count);
                self.metas.clear();
                self.metas
                    .extend((plan.lo..plan.hi_max).map(|index| EntryMeta {
                        term: self.nodes[leader].term_at(index).unwrap(),
                        bytes: 1024,
                    }));
                let (term, prev) = (plan.term, plan.prev);
                let append = AppendEntries {
                    term,
                    prev,
                    commit_index: plan.commit_index,
                    session: plan.session,
                };
                let from = NodeId(leader as u64 + 1);
                let outcome =
                    self.nodes[follower].step_append(self.now_us, from, &append, &self.metas);
                self.settle(follower);
                if let AppendOutcome::Store { hi, .. } = outcome {
                    let id = EntryId {
                        term: self.nodes[follower].term_at(hi - 1).unwrap(),
                        index: hi - 1,
                    };
                    self.nodes[follower].on_log_durable(self.now_us, Durable::attest(id));
                    self.settle(follower);
                }
                self.settle(leader);
            }
        }
    }
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("raft_step");
    for entries in [1u64, 16, 256] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::new("propose_replicate_commit", entries), |b| {
            let mut trio = Trio::elected();
            let leader = trio.leader().unwrap();
            b.iter(|| {
                let mut last = EntryId::default();
                for _ in 0..entries {
                    last = trio.nodes[leader].propose(1024).unwrap();
                }
                trio.settle(leader);
                trio.replicate(leader);
                trio.nodes[leader].on_log_durable(trio.now_us, Durable::attest(last));
                trio.settle(leader);
                assert_eq!(trio.nodes[leader].commit_index(), last.index);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
