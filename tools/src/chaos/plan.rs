//! What is done to the cluster in one round, drawn from a seed: when, to whom, for how long.
//!
//! Who is leader is known only when it happens, so a plan speaks of the leader and of places among the
//! others. Nothing here acts; `round` does.

use super::random::Random;

/// A round begins with so much undisturbed load, at most.
const CALM_MS_MAX: u64 = 400;

/// How long a process is stopped.
const PAUSE_MS: [u64; 2] = [50, 3_000];

/// How long a partition lasts.
const CUT_MS: [u64; 2] = [200, 3_000];

/// How long a killed node stays dead.
const DEAD_MS: [u64; 2] = [1, 2_000];

/// A node of the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victim {
    /// Whoever leads when it happens.
    Leader,
    /// The node at this place, counted round and round, leader or not.
    Any(u64),
}

/// Who cannot reach whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// The leader is cut off both ways.
    LeaderAlone,
    /// Nothing from the leader reaches the others.
    LeaderMute,
    /// Nothing from the others reaches the leader.
    LeaderDeaf,
    /// The leader and one other node on one side.
    LeaderWithOne(u64),
    /// Two nodes do not reach each other; both reach the rest.
    OneLink(u64, u64),
    /// Nothing from the one node reaches the other.
    OneWay(u64, u64),
    /// Nobody reaches anybody.
    Everyone,
}

/// What can be done to a cluster, for the counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FaultKind {
    /// SIGKILL to the leader.
    KillLeader,
    /// SIGKILL to a node that was drawn without regard to its role.
    KillAny,
    /// SIGKILL to all nodes at once.
    KillAll,
    /// SIGSTOP to the leader, later SIGCONT.
    PauseLeader,
    /// SIGSTOP to a node that was drawn without regard to its role.
    PauseAny,
    /// [`Shape::LeaderAlone`]
    CutLeaderAlone,
    /// [`Shape::LeaderMute`]
    CutLeaderMute,
    /// [`Shape::LeaderDeaf`]
    CutLeaderDeaf,
    /// [`Shape::LeaderWithOne`]
    CutLeaderWithOne,
    /// [`Shape::OneLink`]
    CutOneLink,
    /// [`Shape::OneWay`]
    CutOneWay,
    /// [`Shape::Everyone`]
    CutEveryone,
}

impl FaultKind {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill leader",
            Self::KillAny => "kill one",
            Self::KillAll => "kill all",
            Self::PauseLeader => "pause leader",
            Self::PauseAny => "pause one",
            Self::CutLeaderAlone => "leader isolated",
            Self::CutLeaderMute => "leader mute",
            Self::CutLeaderDeaf => "leader deaf",
            Self::CutLeaderWithOne => "leader with one",
            Self::CutOneLink => "one link cut",
            Self::CutOneWay => "one way cut",
            Self::CutEveryone => "all links cut",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// SIGKILL, and a start after `dead_ms`.
    Kill {
        /// Who.
        victim: Victim,
        /// Until it is started again.
        dead_ms: u64,
    },
    /// SIGKILL to all at once, and each started again, in a random order, within `dead_ms`.
    KillAll {
        /// Until the last one is started again.
        dead_ms: u64,
    },
    /// SIGSTOP, and SIGCONT after `pause_ms`.
    Pause {
        /// Who.
        victim: Victim,
        /// Until it goes on.
        pause_ms: u64,
    },
    /// A partition that heals after `cut_ms`.
    Cut {
        /// Who cannot reach whom.
        shape: Shape,
        /// Until it heals.
        cut_ms: u64,
    },
}

impl Fault {
    /// For the counts.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Kill { victim, .. } => match victim {
                Victim::Leader => FaultKind::KillLeader,
                Victim::Any(_) => FaultKind::KillAny,
            },
            Self::KillAll { .. } => FaultKind::KillAll,
            Self::Pause { victim, .. } => match victim {
                Victim::Leader => FaultKind::PauseLeader,
                Victim::Any(_) => FaultKind::PauseAny,
            },
            Self::Cut { shape, .. } => match shape {
                Shape::LeaderAlone => FaultKind::CutLeaderAlone,
                Shape::LeaderMute => FaultKind::CutLeaderMute,
                Shape::LeaderDeaf => FaultKind::CutLeaderDeaf,
                Shape::LeaderWithOne(_) => FaultKind::CutLeaderWithOne,
                Shape::OneLink(..) => FaultKind::CutOneLink,
                Shape::OneWay(..) => FaultKind::CutOneWay,
                Shape::Everyone => FaultKind::CutEveryone,
            },
        }
    }

    /// How long it lasts.
    #[must_use]
    pub fn lasts_ms(&self) -> u64 {
        match self {
            Self::Kill { dead_ms, .. } | Self::KillAll { dead_ms } => *dead_ms,
            Self::Pause { pause_ms, .. } => *pause_ms,
            Self::Cut { cut_ms, .. } => *cut_ms,
        }
    }
}

/// What plans may contain.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Whether links can be cut.
    pub partitions: bool,
    /// Faults begin before this time; all are over by then, cut short if need be.
    pub round_ms: u64,
}

/// The faults of one round, in the order in which they begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// When each begins, after the round's beginning.
    pub faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// Draws a plan: one fault, or two or three that may overlap.
    pub fn draw(random: &mut Random, bounds: Bounds) -> Self {
        let count = match random.between(0, 10) {
            0..6 => 1,
            6..9 => 2,
            _ => 3,
        };
        let begin_ms = random.between(100, 101 + CALM_MS_MAX.min(bounds.round_ms / 4));
        let mut faults = Vec::new();
        for number in 0..count {
            let at_ms = if number == 0 {
                begin_ms
            } else {
                random.between(begin_ms, begin_ms.max(bounds.round_ms * 3 / 4) + 1)
            };
            faults.push((at_ms, fault(random, bounds.partitions)));
        }
        faults.sort_by_key(|(at_ms, _)| *at_ms);
        Self { faults }
    }
}

fn fault(random: &mut Random, partitions: bool) -> Fault {
    // All at once in 1 of 10 kills.
    match random.between(0, if partitions { 100 } else { 60 }) {
        0..4 => Fault::KillAll {
            dead_ms: spread(random, DEAD_MS),
        },
        4..40 => Fault::Kill {
            victim: victim(random),
            dead_ms: spread(random, DEAD_MS),
        },
        40..60 => Fault::Pause {
            victim: victim(random),
            pause_ms: spread(random, PAUSE_MS),
        },
        _ => Fault::Cut {
            shape: shape(random),
            cut_ms: spread(random, CUT_MS),
        },
    }
}

fn victim(random: &mut Random) -> Victim {
    if random.per_mille(650) {
        Victim::Leader
    } else {
        Victim::Any(random.draw())
    }
}

fn shape(random: &mut Random) -> Shape {
    match random.between(0, 14) {
        0..3 => Shape::LeaderAlone,
        3..5 => Shape::LeaderMute,
        5..7 => Shape::LeaderDeaf,
        7..9 => Shape::LeaderWithOne(random.draw()),
        9..11 => Shape::OneLink(random.draw(), random.draw()),
        11..13 => Shape::OneWay(random.draw(), random.draw()),
        _ => Shape::Everyone,
    }
}

/// Short ones as often as long ones: each doubling of the length is as likely as the next.
fn spread(random: &mut Random, [min, max]: [u64; 2]) -> u64 {
    let doublings = (max / min).ilog2() + 1;
    let shift = random.between(0, doublings.into());
    let low = min << shift;
    random.between(low, low * 2).min(max)
}

/// A directed link that is cut.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Link {
    /// Where frames would come from.
    pub from: u64,
    /// Where they would go.
    pub to: u64,
}

/// The links that a shape cuts among these nodes. `leader` is one of them.
#[must_use]
pub fn links(shape: Shape, nodes: &[u64], leader: u64) -> Vec<Link> {
    let others: Vec<u64> = nodes.iter().copied().filter(|id| *id != leader).collect();
    let pick = |from: &[u64], number: u64| match from.len() as u64 {
        0 => None,
        count => from.get((number % count) as usize).copied(),
    };
    // A second node that is not the first.
    let pair = |one: u64, other: u64| {
        let one = pick(nodes, one)?;
        let rest: Vec<u64> = nodes.iter().copied().filter(|id| *id != one).collect();
        Some([one, pick(&rest, other)?])
    };
    let is_cut = |link: Link| match shape {
        Shape::LeaderAlone => link.from == leader || link.to == leader,
        Shape::LeaderMute => link.from == leader,
        Shape::LeaderDeaf => link.to == leader,
        Shape::LeaderWithOne(number) => {
            let friend = pick(&others, number);
            let is_inside = |id| id == leader || Some(id) == friend;
            is_inside(link.from) != is_inside(link.to)
        }
        Shape::OneLink(one, other) => pair(one, other)
            .is_some_and(|pair| pair.contains(&link.from) && pair.contains(&link.to)),
        Shape::OneWay(one, other) => pair(one, other) == Some([link.from, link.to]),
        Shape::Everyone => true,
    };
    let mut cut = Vec::new();
    for from in nodes {
        for to in nodes {
            let link = Link {
                from: *from,
                to: *to,
            };
            if from != to && is_cut(link) {
                cut.push(link);
            }
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cut(shape: Shape, nodes: &[u64]) -> Vec<[u64; 2]> {
        let links = links(shape, nodes, 1);
        links.into_iter().map(|link| [link.from, link.to]).collect()
    }

    #[test]
    fn plans_repeat_and_contain_every_kind() {
        let bounds = Bounds {
            partitions: true,
            round_ms: 3000,
        };
        let mut kinds = BTreeSet::new();
        let (mut one, mut other) = (Random::new(5), Random::new(5));
        for _ in 0..2000 {
            let plan = Plan::draw(&mut one, bounds);
            assert_eq!(plan, Plan::draw(&mut other, bounds));
            assert!((1..=3).contains(&plan.faults.len()));
            assert!(plan.faults.is_sorted_by_key(|(at_ms, _)| *at_ms));
            assert!(plan.faults.iter().all(|(at_ms, _)| *at_ms < 3000));
            for (_, fault) in plan.faults {
                assert!((1..=3000).contains(&fault.lasts_ms()), "{fault:?}");
                kinds.insert(fault.kind());
            }
        }
        assert_eq!(kinds.len(), 12, "{kinds:?}");
    }

    #[test]
    fn without_partitions_there_are_kills_and_pauses_only() {
        let bounds = Bounds {
            partitions: false,
            round_ms: 100,
        };
        let mut random = Random::new(6);
        for _ in 0..500 {
            let plan = Plan::draw(&mut random, bounds);
            let mut faults = plan.faults.iter();
            assert!(!faults.any(|(_, fault)| matches!(fault, Fault::Cut { .. })));
        }
    }

    #[test]
    fn lengths_are_spread_over_their_range() {
        let mut random = Random::new(3);
        let draws: Vec<u64> = (0..2000).map(|_| spread(&mut random, PAUSE_MS)).collect();
        assert!(draws.iter().all(|ms| (50..=3000).contains(ms)));
        assert!(draws.iter().filter(|ms| **ms < 200).count() > 400);
        assert!(draws.iter().filter(|ms| **ms > 1000).count() > 300);
    }

    #[test]
    fn shapes_cut_what_they_say() {
        let three = [1, 2, 3];
        assert_eq!(
            cut(Shape::LeaderAlone, &three),
            [[1, 2], [1, 3], [2, 1], [3, 1]]
        );
        assert_eq!(cut(Shape::LeaderMute, &three), [[1, 2], [1, 3]]);
        assert_eq!(cut(Shape::LeaderDeaf, &three), [[2, 1], [3, 1]]);
        assert_eq!(
            cut(Shape::LeaderWithOne(1), &three),
            [[1, 2], [2, 1], [2, 3], [3, 2]]
        );
        assert_eq!(cut(Shape::OneLink(0, 1), &three), [[1, 3], [3, 1]]);
        assert_eq!(cut(Shape::OneWay(2, 0), &three), [[3, 1]]);
        assert_eq!(cut(Shape::Everyone, &three).len(), 6);
        assert_eq!(cut(Shape::LeaderWithOne(0), &[1, 2, 3, 4, 5]).len(), 12);
        // A node alone has no links.
        for shape in [
            Shape::OneLink(0, 0),
            Shape::LeaderWithOne(0),
            Shape::Everyone,
        ] {
            assert!(cut(shape, &[1]).is_empty());
        }
    }
}
