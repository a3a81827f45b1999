//! What goes wrong, when: one step after the other, each a fault of a kind that is on.
//!
//! Some faults are aimed. Uniform chance does not find the deep bugs: a leader that is isolated with one
//! follower, or crashed when it was just elected, does.

use drave_batch::wire::Lane;
use drave_wal::CrashMode;

use super::faults::Fault;
use super::invariants::Violation;
use super::network::{Event, LinkId};
use super::node::Life;
use super::operator;
use super::plan::{Plan, Profile};
use super::random::Random;
use super::world::World;

/// The faults' own state.
#[derive(Debug)]
pub struct Fate {
    random: Random,
    steps_left: u32,
    /// Until when a node may stop or refuse to start, since its disk failed or was full: what failed may
    /// show only when it completes, and a log looks for room only now and then.
    excused_until_us: Vec<u64>,
    kinds: Vec<Fault>,
}

/// How long it may take until everything about a disk that failed or was full has shown.
const NOTICED_US: u64 = 1_000_000;

impl Fate {
    /// Fate for a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let passive = [
            Fault::Loss,
            Fault::Delay,
            Fault::Duplicate,
            Fault::Replay,
            Fault::Datagrams,
            Fault::CrashLeader,
            Fault::ClockRate,
            Fault::Timers,
            Fault::NoPreVote,
            Fault::Snapshot,
            Fault::Lease,
        ];
        Self {
            random: Random::new(plan.options.seed, 4),
            steps_left: plan.steps,
            excused_until_us: vec![0; plan.nodes + plan.spares],
            kinds: plan
                .faults
                .iter()
                .filter(|kind| !passive.contains(kind))
                .collect(),
        }
    }

    /// Whether the safety phase is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.steps_left == 0
    }

    /// Whether a node may stop by itself, or refuse to start, since its disk fails.
    #[must_use]
    pub fn excuses(&self, now_us: u64, slot: usize) -> bool {
        now_us < self.excused_until_us[slot]
    }

    /// One step.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn step(world: &mut World) -> Result<(), Violation> {
        let fate = &mut world.fate;
        fate.steps_left = fate.steps_left.saturating_sub(1);
        if fate.is_over() {
            return Ok(());
        }
        let step_us = world.plan.step_us;
        let next_us = world.now_us + fate.random.range(step_us.0, step_us.1);
        world.queue.push(next_us, Event::Fate);
        if world.fate.kinds.is_empty() {
            return Ok(());
        }
        match world.fate.random.below(8) {
            0 => {
                Self::mend(world);
                Ok(())
            }
            1 => Self::start_some(world),
            _ => {
                let kinds = std::mem::take(&mut world.fate.kinds);
                let kind = world.fate.random.pick(&kinds);
                world.fate.kinds = kinds;
                Self::strike(world, kind)
            }
        }
    }

    /// Links are whole again, disks have room and their usual speed.
    fn mend(world: &mut World) {
        world
            .trace
            .line(world.now_us, || "all links are mended".to_owned());
        world.network.heal(world.now_us, &mut world.queue);
        for slot in 0..world.slots() {
            if world.fate.excused_until_us[slot] == u64::MAX {
                world.fate.excused_until_us[slot] = world.now_us + NOTICED_US;
            }
            world.nodes[slot].disk.set_capacity_bytes(None);
            world.nodes[slot].disk.forget_failure();
        }
    }

    fn start_some(world: &mut World) -> Result<(), Violation> {
        for slot in 0..world.slots() {
            if world.fate.random.coin() {
                world.start(slot)?;
            }
        }
        Ok(())
    }

    fn a_node(world: &mut World) -> usize {
        let slots = world.used as u64;
        world.fate.random.below(slots) as usize
    }

    fn strike(world: &mut World, kind: Fault) -> Result<(), Violation> {
        let slot = Self::a_node(world);
        let leader = world.leader();
        // These count where they come about.
        let counted = !matches!(kind, Fault::PowerCut | Fault::BitFlip | Fault::Wipe);
        if counted {
            world.tally.fault(kind);
        }
        world
            .trace
            .line(world.now_us, || format!("{} n{}", kind.name(), slot + 1));
        match (kind, leader) {
            (Fault::Reset, _) => Self::reset(world, slot),
            (Fault::Partition, _) => Self::partition(world),
            (Fault::OneWay | Fault::Cut, _) => {
                let other = Self::a_node(world);
                world.network.cut(slot, other);
                if kind == Fault::Cut {
                    world.network.cut(other, slot);
                }
            }
            (Fault::Isolate, Some(leader)) => {
                Self::isolate(world, leader);
                if Self::is_leased(world) {
                    Self::kill_others(world, leader);
                }
            }
            (Fault::Mute, Some(leader)) => {
                for to in 0..world.slots() {
                    world.network.cut(leader, to);
                }
            }
            (Fault::CrashCommit, Some(leader)) => Self::crash(world, leader),
            (Fault::Crash, _) => Self::crash(world, slot),
            (Fault::Kill, _) => {
                world.kill(slot);
                Self::start_later(world, slot);
            }
            (Fault::PowerCut, _) => Self::cut_power(world),
            (Fault::Pause, leader) => {
                // What a leader was told before it stood still is old when it looks at it.
                let aimed = leader.filter(|_| Self::is_leased(world));
                if let Some(leader) = aimed {
                    Self::isolate_soon(world, leader);
                }
                Self::pause(world, aimed.unwrap_or(slot));
            }
            (Fault::ClockJump, _) => Self::jump(world, slot),
            (Fault::SlowDisk, _) => Self::slow_disk(world, slot),
            (Fault::FlushFailure, _) => Self::fail_disk(world, slot),
            (Fault::DiskFull, _) => Self::fill_disk(world, slot),
            (Fault::BitFlip, _) => super::damage::flip(world, slot),
            (Fault::Wipe, _) => Self::wipe(world, slot),
            (Fault::Membership, _) => return operator::change_members(world),
            (Fault::Transfer, leader) => {
                if let Some(leader) = leader.filter(|_| Self::is_leased(world)) {
                    Self::isolate_soon(world, leader);
                }
                return operator::transfer(world);
            }
            (Fault::Trim, _) => return operator::trim(world),
            _ => {}
        }
        Ok(())
    }

    /// Leaves a node alone, or with one other.
    pub fn isolate(world: &mut World, leader: usize) {
        let companion = if world.fate.random.chance(500) {
            leader
        } else {
            Self::a_node(world)
        };
        world.network.heal(world.now_us, &mut world.queue);
        world
            .network
            .split(|slot| usize::from(slot == leader || slot == companion));
    }

    fn cut_power(world: &mut World) {
        if world.fate.random.chance(300) {
            world.tally.fault(Fault::PowerCut);
            (0..world.slots()).for_each(|slot| Self::crash(world, slot));
        }
    }

    fn reset(world: &mut World, slot: usize) {
        let peer = Self::a_node(world);
        if peer == slot {
            return;
        }
        for lane in [Lane::Control, Lane::Append] {
            if world.fate.random.coin() {
                let tells = world.fate.random.chance(700);
                let link = LinkId::new(world.slots(), slot, peer, lane);
                world.break_link(link, tells);
            }
        }
    }

    fn partition(world: &mut World) {
        world.network.heal(world.now_us, &mut world.queue);
        let sides = world.fate.random.next();
        world.network.split(|slot| (sides >> slot & 1) as usize);
    }

    /// A node loses power now and comes back later.
    pub fn crash(world: &mut World, slot: usize) {
        if world.fate.is_over() || world.nodes[slot].process.is_none() {
            return;
        }
        let mode = world.fate.random.pick(&CrashMode::ALL);
        let seed = world.fate.random.next();
        world.crash(slot, mode, seed);
        Self::start_later(world, slot);
    }

    fn start_later(world: &mut World, slot: usize) {
        let after_us = world.fate.random.magnitude(500, world.plan.election_us * 3);
        world
            .queue
            .push(world.now_us + after_us, Event::Start(slot));
    }

    /// A node's role, term or leader has just changed: it may lose power while that reaches its disk.
    pub fn role_changed(world: &mut World, slot: usize, leads: bool) {
        if world.fate.is_over() {
            return;
        }
        if leads && world.plan.faults.has(Fault::Isolate) && world.fate.random.chance(550) {
            // Before all that it has to say is said: this is how logs come to differ for long.
            world.tally.fault(Fault::Isolate);
            Self::isolate_soon(world, slot);
            return;
        }
        if !world.plan.faults.has(Fault::CrashLeader) {
            return;
        }
        if world.fate.random.chance(if leads { 350 } else { 20 }) {
            world.tally.fault(Fault::CrashLeader);
            let long_us = world.plan.timers.heartbeat_us * 2;
            let soon_us = if leads {
                long_us
            } else {
                world.plan.disk_us.1 * 2
            };
            let after_us = world.fate.random.magnitude(20, soon_us);
            world
                .queue
                .push(world.now_us + after_us, Event::Crash(slot));
        }
    }

    /// Whether this fault is to be aimed at a leader that reads under a lease.
    fn is_leased(world: &mut World) -> bool {
        world.plan.profile == Profile::Leases && world.fate.random.coin()
    }

    /// A leader is cut off a moment from now.
    fn isolate_soon(world: &mut World, leader: usize) {
        let after_us = world.fate.random.magnitude(20, world.plan.delay_us.1 * 8);
        world
            .queue
            .push(world.now_us + after_us, Event::Isolate(leader));
    }

    /// Those that promised a leader its lease are started anew, and soon elect another one.
    fn kill_others(world: &mut World, leader: usize) {
        if !world.plan.faults.has(Fault::Kill) {
            return;
        }
        for slot in (0..world.used).filter(|slot| *slot != leader) {
            world.tally.fault(Fault::Kill);
            world.kill(slot);
            Self::start_later(world, slot);
        }
    }

    fn pause(world: &mut World, slot: usize) {
        let us = world.fate.random.magnitude(500, world.plan.election_us * 3);
        let node = &mut world.nodes[slot];
        node.busy_until_us = node.busy_until_us.max(world.now_us + us);
        node.schedule();
    }

    fn jump(world: &mut World, slot: usize) {
        let us = world.fate.random.magnitude(1_000, 10_000_000);
        let back = world.fate.random.coin();
        let forwards = world.fate.random.chance(300) && !world.plan.faults.has(Fault::Lease);
        let mono_us = world.fate.random.magnitude(500, world.plan.election_us * 2);
        let node = &mut world.nodes[slot];
        node.clock
            .jump_wall(if back { -(us as i64) } else { us as i64 });
        if forwards {
            node.clock.jump_mono(world.now_us, mono_us);
            node.schedule();
        }
    }

    /// The disk takes its time from the next start of the node on.
    fn slow_disk(world: &mut World, slot: usize) {
        let slow = world.fate.random.chance(600);
        let us = world
            .fate
            .random
            .magnitude(world.plan.disk_us.1, world.plan.election_us);
        let node = &mut world.nodes[slot];
        node.disk_us = if slow { (20, us) } else { world.plan.disk_us };
        node.disk.set_latency_us(node.disk_us.0, node.disk_us.1);
    }

    fn fail_disk(world: &mut World, slot: usize) {
        if world.nodes[slot].process.is_none() {
            return;
        }
        let at = world.nodes[slot].disk.operations() + world.fate.random.range(1, 20);
        world.nodes[slot]
            .disk
            .fail_at(at, std::io::ErrorKind::Other);
        world.fate.excused_until_us[slot] = u64::MAX;
    }

    fn fill_disk(world: &mut World, slot: usize) {
        let used: u64 = world.nodes[slot]
            .disk
            .list()
            .iter()
            .map(|(_, bytes)| bytes)
            .sum();
        let room = world.fate.random.below(2) * world.plan.limits.segment_bytes;
        world.nodes[slot].disk.set_capacity_bytes(Some(used + room));
        world.fate.excused_until_us[slot] = u64::MAX;
    }

    /// Whether one more node may be lost for good.
    pub fn may_lose(world: &mut World, slot: usize) -> bool {
        let is_lost = world.nodes[slot].life == Life::Dead || world.nodes[slot].is_damaged;
        !is_lost && operator::may_lose(world, slot)
    }

    fn wipe(world: &mut World, slot: usize) {
        if world.fate.random.chance(100) && Self::may_lose(world, slot) {
            world.tally.fault(Fault::Wipe);
            world.kill(slot);
            world.nodes[slot].life = Life::Dead;
        }
    }

    /// All faults end. A minority may be lost for good.
    ///
    /// # Errors
    /// [`Violation`]
    pub fn end(world: &mut World) -> Result<(), Violation> {
        Self::mend(world);
        world.network.calm();
        for slot in 0..world.slots() {
            let node = &mut world.nodes[slot];
            node.disk
                .set_latency_us(world.plan.disk_us.0, world.plan.disk_us.1);
            node.disk_us = world.plan.disk_us;
            node.busy_until_us = world.now_us;
            node.schedule();
            if node.is_damaged {
                world.kill(slot);
                world.nodes[slot].life = Life::Dead;
            }
        }
        let slot = Self::a_node(world);
        if !world.fate.kinds.is_empty() && world.fate.random.coin() && Self::may_lose(world, slot) {
            world.kill(slot);
            world.nodes[slot].life = Life::Dead;
        }
        (0..world.slots()).try_for_each(|slot| world.start(slot))
    }

    /// A number of fate's own.
    pub fn number(&mut self) -> u64 {
        self.random.next()
    }
}
