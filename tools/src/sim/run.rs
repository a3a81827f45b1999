//! One run: a safety phase in which anything may go wrong, a liveness phase in which nothing more does,
//! and a power cut at the end, after which every disk is read.

use drave_wal::CrashMode;

use drave::raft::{NodeId, Raft};

use super::fate::Fate;
use super::invariants::Violation;
use super::network::Event;
use super::node::Life;
use super::plan::{Options, Plan};
use super::start::hard_state;
use super::tally::Tally;
use super::world::World;

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was run.
    pub plan: Plan,
    /// Counts.
    pub tally: Tally,
    /// The run's hash.
    pub hash: u64,
    /// The broken invariant, if one was.
    pub failure: Option<Violation>,
    /// The timeline, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(options: &Options, lines: bool) -> Outcome {
    let plan = Plan::draw(options);
    let mut world = match World::new(plan.clone(), lines) {
        Ok(world) => world,
        Err(violation) => {
            return Outcome {
                plan,
                tally: Tally::default(),
                hash: 0,
                failure: Some(violation),
                lines: Vec::new(),
            };
        }
    };
    let failure = live(&mut world).err();
    let mut tally = world.tally.clone();
    tally.seeds = 1;
    tally.virtual_us = world.now_us;
    tally.elections = world.oracle.elections();
    tally.hand_overs = world.oracle.hand_overs();
    tally.committed = world.oracle.committed.last_index();
    tally.carried = world.oracle.committed.carried().count() as u64;
    tally.acknowledged = world.oracle.acknowledged.count();
    use super::faults::Fault as F;
    let weather = [F::Loss, F::Delay, F::Duplicate, F::Replay];
    for (fault, count) in weather.into_iter().zip(world.network.counts) {
        tally.faults[fault as usize] += count;
    }
    if let Some(violation) = &failure {
        let text = format!("{}: {}", violation.invariant, violation.what);
        world.trace.line(world.now_us, || text);
    }
    Outcome {
        hash: world.trace.hash(),
        plan,
        tally,
        failure,
        lines: world.trace.into_lines(),
    }
}

fn live(world: &mut World) -> Result<(), Violation> {
    world.queue.push(world.plan.step_us.0, Event::Fate);
    while !world.fate.is_over() {
        world.step()?;
    }
    world
        .trace
        .line(world.now_us, || "the faults end".to_owned());
    Fate::end(world)?;
    wait(world, "a leader with a committed configuration", |world| {
        leading(world).is_some_and(|raft| {
            let is_committed = raft.configuration_index() <= raft.commit_index();
            raft.is_established_leader() && is_committed && !raft.configuration().is_joint()
        })
    })?;
    stop_outsiders(world);
    recover(world)?;
    serve(world)?;
    scan(world)
}

/// How long a cluster may take to come back, in election timeouts of its slowest node, and for what has
/// times of its own: a log that was without room tries again every quarter of a second.
const PATIENCE: u64 = 60;
const PATIENCE_US: u64 = 1_000_000;

/// And how many times longer while it makes progress: small windows make it slow.
const SLOWNESS_MAX: u64 = 20;

/// Grows while nodes catch up and clients are answered.
fn progress_of(world: &World) -> u64 {
    let processes = world.nodes.iter().filter_map(|node| node.process.as_ref());
    let committed: u64 = processes
        .map(|process| process.replica.raft().commit_index())
        .sum();
    committed + world.tally.done
}

fn wait(world: &mut World, what: &str, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
    let patience_us = world.plan.election_us * PATIENCE + PATIENCE_US;
    let end_us = world.now_us + patience_us * SLOWNESS_MAX;
    let (mut moved_us, mut progress, mut steps) = (world.now_us, 0, 0u32);
    while world.now_us < end_us.min(moved_us + patience_us) {
        world.step()?;
        steps += 1;
        if !steps.is_multiple_of(16) {
            continue;
        }
        if done(world) {
            return Ok(());
        }
        let now = progress_of(world);
        if now > progress {
            (moved_us, progress) = (world.now_us, now);
        }
    }
    Err(Violation {
        invariant: "liveness",
        what: format!(
            "{what} within {PATIENCE} election timeouts: {}",
            describe(world)
        ),
    })
}

fn leading(world: &World) -> Option<&Raft> {
    let process = world.nodes[world.leader()?].process.as_ref();
    process.map(|process| process.replica.raft())
}

/// Whoever is no member any more, or not yet, is stopped, as an operator would.
fn stop_outsiders(world: &mut World) {
    let Some(members) = leading(world).map(|raft| raft.configuration().members()) else {
        return;
    };
    for slot in 0..world.nodes.len() {
        if !members.contains(&NodeId(slot as u64 + 1)) {
            world.kill(slot);
            world.nodes[slot].life = Life::Dead;
        }
    }
}

/// Every node that lives has everything that the leader has, on its disk, and knows that it is committed.
fn is_caught_up(world: &World) -> bool {
    let Some(leader) = world.leader() else {
        return false;
    };
    let Some(leading) = &world.nodes[leader].process else {
        return false;
    };
    let (last, raft) = (leading.replica.raft().last(), leading.replica.raft());
    raft.is_established_leader()
        && world.nodes.iter().all(|node| match &node.process {
            None => node.life == Life::Dead,
            Some(process) => {
                let raft = process.replica.raft();
                raft.last() == last
                    && raft.commit_index() == last.index
                    && process.log.log.wal.durable_index() == last.index
            }
        })
}

fn recover(world: &mut World) -> Result<(), Violation> {
    for client in &mut world.clients {
        client.is_stopping = true;
    }
    wait(
        world,
        "one leader, all caught up, all requests settled",
        |world| world.is_settled() && is_caught_up(world),
    )
}

/// New appends are acknowledged.
fn serve(world: &mut World) -> Result<(), Violation> {
    let before = world.tally.done;
    for client in &mut world.clients {
        client.is_stopping = false;
    }
    let enough = before + world.clients.len() as u64;
    wait(world, "new requests are answered", |world| {
        world.tally.done > enough
    })?;
    recover(world)
}

fn describe(world: &World) -> String {
    let node = |node: &super::node::Node| match &node.process {
        None => format!("n{} {:?} and down", node.slot + 1, node.life),
        Some(process) => {
            let raft = process.replica.raft();
            format!(
                "n{} {:?} of term {}, last {}, durable {}, committed {}, vote {:?}",
                node.slot + 1,
                raft.role(),
                raft.term(),
                raft.last(),
                process.log.log.wal.durable_index(),
                raft.commit_index(),
                raft.hard_state().vote,
            )
        }
    };
    let mut nodes: Vec<String> = world.nodes.iter().map(node).collect();
    for node in &world.nodes {
        if let Some(process) = &node.process {
            let replica = &process.replica;
            nodes.push(format!(
                "n{} holds [{}, ..) and snapshots {:?}",
                node.slot + 1,
                replica.raft().first_index(),
                replica.snapshots_kept(),
            ));
        }
        let peers = node
            .process
            .iter()
            .flat_map(|process| process.replica.raft().progress());
        nodes.extend(peers.map(|peer| format!("n{} sees {peer:?}", node.slot + 1)));
    }
    let waiting: usize = world
        .clients
        .iter()
        .map(super::client::Client::under_way)
        .sum();
    format!("{}; {waiting} operations under way", nodes.join("; "))
}

/// All lose power at once; every disk is recovered and read.
fn scan(world: &mut World) -> Result<(), Violation> {
    let now = world.nodes.len();
    for slot in 0..now {
        world.oracle.look_at_all_of(&world.nodes[slot])?;
        if let Some(process) = &mut world.nodes[slot].process {
            let state = process.replica.take_snapshot();
            let checked = world
                .oracle
                .check_state(slot, state.last.index, &state.encode());
            checked?;
        }
    }
    world
        .oracle
        .exactly_once
        .check_all(&world.oracle.committed)?;
    for slot in 0..now {
        if world.nodes[slot].is_damaged {
            continue;
        }
        let lived = world.nodes[slot].process.is_some();
        let (mode, seed) = (world.fate.number() as usize % 5, world.fate.number());
        world.crash(slot, CrashMode::ALL[mode], seed);
        world.nodes[slot].disk.set_now_us(world.now_us);
        let setup = world.setup(slot);
        let recovered = setup.recover(&world.nodes[slot].disk);
        let (log, record) = recovered.map_err(|refused| Violation {
            invariant: "recovery",
            what: format!("node {} after the last power cut: {refused:?}", slot + 1),
        })?;
        world
            .oracle
            .recovered(slot, &log.shadow, hard_state(record))?;
        world.tally.scanned += 1;
        if lived {
            compare(world, slot, &log.shadow)?;
        }
    }
    Ok(())
}

/// The disk of a node that was caught up holds the one log, all of it, and every acknowledged operation.
fn compare(world: &World, slot: usize, found: &super::shadow::Shadow) -> Result<(), Violation> {
    let committed = &world.oracle.committed;
    let same = |index| found.get(index) == committed.get(index).map(|known| &known.entry);
    let first = found.first_index();
    if found.last_index() != committed.last_index() || !(first..=committed.last_index()).all(same) {
        return Err(Violation {
            invariant: "state_machine_safety_3_6",
            what: format!(
                "node {} recovered [{first}, {}], committed is up to {}",
                slot + 1,
                found.last_index(),
                committed.last_index()
            ),
        });
    }
    world
        .oracle
        .acknowledged
        .check_recovered(slot, first, committed, |index| {
            found.get(index).map(|entry| entry.operation)
        })
}
