//! Seeds by the hundred, in profiles: first anything may go wrong and nothing unsafe may follow;
//! then the faults end, a minority may stay dead, and the cluster must serve again.
//!
//! `DRAVE_RAFT_SEEDS` sets how many seeds each profile runs, `DRAVE_RAFT_SEED` runs a single one.

use super::super::rng::Rng;
use super::super::{Configuration, NodeId, Raft, RoleKind};
use super::network::Weather;
use super::world::{Coverage, World, ids};
use std::vec::Vec;
use std::{env, eprintln, panic};

#[derive(Copy, Clone, Debug)]
enum Profile {
    /// Loss, duplication, reordering, crashes, at random.
    Uniform,
    /// Aimed at leaders: isolated with one follower, crashed when just elected, single entries.
    Churn,
    /// The same without pre-vote and check-quorum, with timers of their own on every node.
    ChurnTimers,
    /// Configuration changes, transfers, compaction and snapshots.
    Membership,
    /// Configuration changes while leaders are churned.
    MembershipChurn,
}

#[derive(Default, Debug, PartialEq)]
struct Tally {
    coverage: Coverage,
    events: u64,
    elections: u64,
    committed: u64,
    reads: u64,
}

fn seeds(default_count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("DRAVE_RAFT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DRAVE_RAFT_SEEDS").unwrap_or(default_count),
    }
}

fn run_profile(profile: Profile, default_count: u64) {
    let mut sum = Tally::default();
    for seed in seeds(default_count) {
        let result = panic::catch_unwind(|| run_seed(profile, seed));
        let Ok(tally) = result else {
            panic!("{profile:?}: seed {seed} failed; rerun with DRAVE_RAFT_SEED={seed}");
        };
        sum.coverage.add(tally.coverage);
        sum.events += tally.events;
        sum.elections += tally.elections;
        sum.committed += tally.committed;
        sum.reads += tally.reads;
    }
    eprintln!("{profile:?}: {sum:?}");
    if env::var("DRAVE_RAFT_SEED").is_ok() {
        return;
    }
    assert!(
        sum.elections > 0 && sum.committed > 0 && sum.reads > 0,
        "the cluster serves"
    );
    let Coverage {
        truncations,
        rejections,
        completions_out_of_date,
        ..
    } = sum.coverage;
    assert!(
        truncations > 0 && rejections > 0 && completions_out_of_date > 0,
        "logs diverge"
    );
    if let Profile::Membership | Profile::MembershipChurn = profile {
        let Coverage {
            logs_replaced,
            joint_configurations,
            transfers,
            ..
        } = sum.coverage;
        assert!(
            logs_replaced > 0 && joint_configurations > 0 && transfers > 0,
            "members change"
        );
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let mut pick = |max: u64| {
        if rng.range(0, 2) == 0 {
            0
        } else {
            rng.range(0, max)
        }
    };
    Weather {
        loss: pick(20),
        duplicate: pick(20),
        late: pick(15),
        delay_us_max: 4_000,
        late_us_max: 150_000,
    }
}

fn run_seed(profile: Profile, seed: u64) -> Tally {
    let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ profile as u64);
    let (nodes, voters) = match profile {
        Profile::Membership | Profile::MembershipChurn => (6, 3),
        _ if rng.range(0, 2) == 0 => (3, 3),
        _ => (5, 5),
    };
    let mut world = World::new(rng.next(), nodes, voters, weather(&mut rng));
    if let Profile::ChurnTimers = profile {
        world.pre_vote = false;
        world.election_spread = true;
    }
    world.batch_max = [1, 2, 8][rng.range(0, 3) as usize];
    for id in 0..nodes {
        world.nodes[id].flush_us_max = [500, 4_000, 40_000][rng.range(0, 3) as usize];
        world.start(id);
    }
    let steps = 120;
    for step in 0..steps {
        act(profile, &mut world, &mut rng);
        world.run_for(rng.range(500, 25_000));
        if step % 10 == 0 {
            world.check_logs();
        }
    }
    converge(&mut world, &mut rng);
    Tally {
        coverage: world.coverage,
        events: world.events,
        elections: world.oracle.elections,
        committed: world.oracle.committed.len() as u64,
        reads: world.oracle.reads_served,
    }
}

/// One thing that clients, operators or fate do.
fn act(profile: Profile, world: &mut World, rng: &mut Rng) {
    for id in 0..world.nodes.len() {
        if world.runs(id) && world.raft(id).role() == RoleKind::Leader {
            for _ in 0..rng.range(0, 4) {
                world.propose(id);
            }
            if rng.range(0, 3) == 0 {
                world.read(id);
            }
        }
    }
    match profile {
        Profile::Uniform => uniform_fault(world, rng),
        Profile::Churn | Profile::ChurnTimers => churn_fault(world, rng),
        Profile::Membership => {
            operate(world, rng);
            if rng.range(0, 3) == 0 {
                uniform_fault(world, rng);
            }
        }
        Profile::MembershipChurn => {
            operate(world, rng);
            churn_fault(world, rng);
        }
    }
}

fn restart_some(world: &mut World, rng: &mut Rng) {
    for id in 0..world.nodes.len() {
        if !world.runs(id) && rng.range(0, 3) == 0 {
            world.start(id);
        }
    }
}

fn uniform_fault(world: &mut World, rng: &mut Rng) {
    let nodes = world.nodes.len() as u64;
    let (a, b) = (rng.range(0, nodes) as usize, rng.range(0, nodes) as usize);
    match rng.range(0, 18) {
        0 if world.runs(a) => world.crash(a),
        1 => (0..nodes as usize).for_each(|id| {
            if world.runs(id) {
                world.crash(id);
            }
        }),
        2 => world.network.cut[a][b] = a != b,
        3 => world.network.isolate(&[a]),
        4 | 5 => world.network.heal(),
        6 if a != b => world.reconnect(a, b),
        7 if world.runs(a) => world.with_raft(a, Raft::on_leader_connection_lost),
        8 => world.nodes[a].paused_until_us = world.now_us + rng.range(0, 300_000),
        9 if world.runs(a) => {
            let credit_bytes = [0, 50, u64::MAX][rng.range(0, 3) as usize];
            world.with_raft(a, |raft, _| raft.set_credit(credit_bytes));
        }
        _ => restart_some(world, rng),
    }
}

fn churn_fault(world: &mut World, rng: &mut Rng) {
    let nodes = world.nodes.len() as u64;
    let companion = rng.range(0, nodes) as usize;
    match (rng.range(0, 10), world.leader()) {
        (0 | 1, Some(leader)) => world.network.isolate(&[leader, companion]),
        (2, Some(leader)) => world.network.isolate(&[leader]),
        (3, Some(leader)) => {
            let mute = &mut world.network.cut[leader];
            mute.iter_mut()
                .enumerate()
                .for_each(|(to, cut)| *cut = to != leader);
        }
        (4, Some(leader)) => world.crash(leader),
        (5, Some(leader)) => {
            world.nodes[leader].paused_until_us = world.now_us + rng.range(0, 200_000);
        }
        (6, _) => world.network.heal(),
        (7, _) => {
            // A leader of few: the next one is elected by whoever is left, then dies.
            let leads = |world: &World| world.leader().is_some();
            world.network.heal();
            if world.run_until_done(150_000, leads) {
                let leader = world.leader().unwrap();
                world.propose(leader);
                world.crash(leader);
            }
        }
        _ => restart_some(world, rng),
    }
}

fn operate(world: &mut World, rng: &mut Rng) {
    let nodes = world.nodes.len() as u64;
    let target = NodeId(rng.range(0, nodes));
    match (rng.range(0, 8), world.leader()) {
        (0, Some(leader)) => {
            let _refused =
                world.with_raft(leader, |raft, now| raft.transfer_leadership(now, target));
        }
        (1..=3, Some(leader)) => change_configuration(world, rng, leader, target),
        (4, _) => {
            let id = target.0 as usize;
            if world.runs(id) {
                let keep = rng.range(0, 6);
                world.compact(id, keep);
            }
        }
        (5, Some(leader)) => {
            let installed = rng.range(0, 2) == 0;
            world.with_raft(leader, |raft, now| {
                raft.snapshot_finished(now, target, installed);
            });
        }
        _ => {}
    }
}

fn change_configuration(world: &mut World, rng: &mut Rng, leader: usize, target: NodeId) {
    let current = world.raft(leader).configuration().clone();
    let without = |set: &Vec<NodeId>, node| -> Vec<NodeId> {
        set.iter()
            .copied()
            .filter(|member| *member != node)
            .collect()
    };
    let next = match rng.range(0, 4) {
        0 => {
            // Every learner becomes a voter and somebody leaves: usually a joint change.
            let voters = without(&current.voters, target)
                .into_iter()
                .chain(current.learners);
            Configuration::new(voters, [])
        }
        1 if current.voters.len() > 2 => Configuration::new(
            without(&current.voters, target),
            without(&current.learners, target),
        ),
        _ if current.contains(target) => {
            let voters = without(&current.voters, target).into_iter().chain([target]);
            Configuration::new(voters, without(&current.learners, target))
        }
        _ => Configuration::new(current.voters, current.learners.into_iter().chain([target])),
    };
    if let Ok(next) = next {
        let _refused = world.with_raft(leader, |raft, now| raft.propose_configuration(now, next));
    }
}

/// Faults end. A minority of the voters in force may be dead for good.
fn converge(world: &mut World, rng: &mut Rng) {
    world.network.heal();
    world.network.weather = Weather::calm();
    for id in 0..world.nodes.len() {
        world.nodes[id].flush_us_max = 3_000;
        world.nodes[id].paused_until_us = 0;
        if !world.runs(id) {
            world.start(id);
        }
        world.with_raft(id, |raft, _| raft.set_credit(u64::MAX));
    }
    let nodes = world.nodes.len();
    for a in 0..nodes {
        for b in a + 1..nodes {
            world.reconnect(a, b);
        }
    }
    let stable = |world: &World| {
        world
            .leader()
            .is_some_and(|leader| world.raft(leader).is_established_leader())
    };
    let led = world.run_until_done(3_000_000, stable);
    assert!(led, "liveness: a leader commits\n{}", world.describe());
    kill_a_voter_for_good(world, rng);
    // What was sent before the faults ended may still depose a leader, so that comes first.
    world.run_for(300_000);
    let led = world.run_until_done(3_000_000, stable);
    assert!(
        led,
        "liveness: a leader without a minority\n{}",
        world.describe()
    );
    let leader = world.leader().unwrap();
    world.run_for(200_000);
    assert_eq!(
        world.leader(),
        Some(leader),
        "liveness: a leader stays\n{}",
        world.describe()
    );
    let at = world
        .propose(leader)
        .expect("liveness: proposals are taken");
    let reads_before = world.oracle.reads_served;
    world.read(leader).expect("liveness: reads are taken");
    let served = |world: &World| {
        let members = world.raft(leader).configuration().members();
        let has = |node: &NodeId| {
            let id = node.0 as usize;
            !world.runs(id) || world.raft(id).commit_index() >= at.index
        };
        members.iter().all(has) && world.oracle.reads_served > reads_before
    };
    let served = world.run_until_done(2_000_000, served);
    assert!(
        served,
        "liveness: every member has what is proposed\n{}",
        world.describe()
    );
    assert_eq!(
        world.leader(),
        Some(leader),
        "liveness: leadership is stable without faults"
    );
    assert!(world.oracle.last_committed() >= at);
    world.check_logs();
}

/// Where one can be spared and everybody votes.
fn kill_a_voter_for_good(world: &mut World, rng: &mut Rng) {
    let nodes = world.nodes.len() as u64;
    let leader = world.leader().expect("a leader was just seen");
    let configuration = world.raft(leader).configuration();
    if nodes > 2 && configuration.voters == ids(0..nodes) && !configuration.is_joint() {
        world.crash(rng.range(0, nodes) as usize);
    }
}

#[test]
fn uniform_faults() {
    run_profile(Profile::Uniform, 200);
}

#[test]
fn churn_of_leaders() {
    run_profile(Profile::Churn, 200);
}

#[test]
fn churn_of_leaders_without_pre_vote() {
    run_profile(Profile::ChurnTimers, 200);
}

#[test]
fn membership_and_snapshots() {
    run_profile(Profile::Membership, 200);
}

#[test]
fn membership_changes_in_churn() {
    run_profile(Profile::MembershipChurn, 200);
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| run_seed(Profile::Membership, seed);
    assert_eq!(run(7), run(7));
}
