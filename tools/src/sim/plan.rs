//! What a run will be like: everything that is drawn once, before it begins, from the seed and the profile.

use super::clock::RATE_TRUE;
use super::faults::{Fault, FaultSet};
use super::random::Random;

/// What kind of life a run leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// No faults: the load alone, with the product's own timers.
    Plain,
    /// Everything that uniform chance does: loss, delay, partitions, crashes.
    Uniform,
    /// Aimed at leaders: isolated, muted, crashed when just elected; small batches, odd timers.
    Churn,
    /// Members and leaders change by order all the time.
    Membership,
    /// Disks: slow, full, failing, torn, damaged, lost.
    Storage,
    /// Snapshots, compactions and trims every few entries.
    Snapshots,
    /// Leaders read under a lease, and are cut off, paused and replaced while they believe in it.
    Leases,
    /// Anything of the above.
    Mixed,
}

impl Profile {
    /// Those a seed draws from.
    pub const DRAWN: [Self; 7] = [
        Self::Uniform,
        Self::Churn,
        Self::Membership,
        Self::Storage,
        Self::Snapshots,
        Self::Leases,
        Self::Mixed,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Uniform => "uniform",
            Self::Churn => "churn",
            Self::Membership => "membership",
            Self::Storage => "storage",
            Self::Snapshots => "snapshots",
            Self::Leases => "leases",
            Self::Mixed => "mixed",
        }
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::DRAWN.iter().copied().chain([Self::Plain]);
        all.find(|profile| profile.name() == name)
    }

    /// Kinds that may be on, and in how many of 1000 runs each of them is.
    fn kinds(self) -> Vec<(Fault, u64)> {
        use Fault as F;
        let network = [
            F::Loss,
            F::Delay,
            F::Duplicate,
            F::Replay,
            F::Datagrams,
            F::Reset,
        ];
        let parts = [F::Partition, F::OneWay, F::Cut];
        let process = [F::Crash, F::Kill, F::PowerCut, F::Pause];
        let clocks = [
            F::ClockRate,
            F::ClockJump,
            F::Timers,
            F::NoPreVote,
            F::Lease,
        ];
        let aimed = [F::Isolate, F::Mute, F::CrashLeader, F::CrashCommit];
        let disks = [
            F::SlowDisk,
            F::FlushFailure,
            F::DiskFull,
            F::BitFlip,
            F::Wipe,
        ];
        let orders = [F::Membership, F::Transfer];
        let logs = [F::Snapshot, F::Trim];
        let groups: [(&[Fault], u64); 8] = match self {
            Self::Plain => return Vec::new(),
            Self::Uniform => [
                (&network, 500),
                (&parts, 500),
                (&process, 500),
                (&clocks, 300),
                (&aimed, 0),
                (&disks, 0),
                (&orders, 0),
                (&logs, 100),
            ],
            Self::Churn => [
                (&network, 200),
                (&parts, 100),
                (&process, 250),
                (&clocks, 350),
                (&aimed, 800),
                (&disks, 0),
                (&orders, 100),
                (&logs, 50),
            ],
            Self::Membership => [
                (&network, 250),
                (&parts, 300),
                (&process, 300),
                (&clocks, 250),
                (&aimed, 400),
                (&disks, 50),
                (&orders, 950),
                (&logs, 250),
            ],
            Self::Storage => [
                (&network, 150),
                (&parts, 150),
                (&process, 700),
                (&clocks, 150),
                (&aimed, 150),
                (&disks, 600),
                (&orders, 100),
                (&logs, 300),
            ],
            Self::Snapshots => [
                (&network, 300),
                (&parts, 300),
                (&process, 400),
                (&clocks, 200),
                (&aimed, 200),
                (&disks, 100),
                (&orders, 300),
                (&logs, 950),
            ],
            Self::Leases => [
                (&network, 250),
                (&parts, 300),
                (&process, 500),
                (&clocks, 250),
                (&aimed, 600),
                (&disks, 50),
                (&orders, 500),
                (&logs, 50),
            ],
            Self::Mixed => [
                (&network, 300),
                (&parts, 300),
                (&process, 300),
                (&clocks, 300),
                (&aimed, 300),
                (&disks, 300),
                (&orders, 300),
                (&logs, 400),
            ],
        };
        let each = |(kinds, permille): &(&[Fault], u64)| {
            let permille = *permille;
            kinds
                .iter()
                .map(move |kind| (*kind, permille))
                .collect::<Vec<_>>()
        };
        groups.iter().flat_map(each).collect()
    }
}

/// What a run is made from. Two runs with equal options are the same run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// The profile; drawn from the seed unless given.
    pub profile: Option<Profile>,
    /// Voters at the start; drawn from 3 and 5 unless given.
    pub nodes: Option<usize>,
    /// Kinds that stay off, whatever was drawn.
    pub without: FaultSet,
    /// Steps of the safety phase at most; drawn unless given.
    pub steps: Option<u32>,
    /// Clients at most; drawn unless given.
    pub clients: Option<u32>,
}

impl Options {
    /// A seed with nothing else given.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            profile: None,
            nodes: None,
            without: FaultSet::default(),
            steps: None,
            clients: None,
        }
    }

    /// The command that runs exactly this.
    #[must_use]
    pub fn command(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("drave sim --seed {}", self.seed);
        // Writing to a string cannot fail.
        if let Some(profile) = self.profile {
            let _ = write!(text, " --profile {}", profile.name());
        }
        if let Some(nodes) = self.nodes {
            let _ = write!(text, " --nodes {nodes}");
        }
        if let Some(steps) = self.steps {
            let _ = write!(text, " --steps {steps}");
        }
        if let Some(clients) = self.clients {
            let _ = write!(text, " --clients {clients}");
        }
        if !self.without.is_empty() {
            let _ = write!(text, " --without {}", self.without);
        }
        text
    }
}

/// One node's timers, microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Shortest election timeout.
    pub election_us_min: u64,
    /// Longest.
    pub election_us_max: u64,
    /// Between heartbeats.
    pub heartbeat_us: u64,
}

/// Limits of the core and the log, small enough to be met all the time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In-flight appends per peer.
    pub window_entries_max: u32,
    /// In-flight bytes per peer.
    pub window_bytes_max: u64,
    /// Bytes of one append.
    pub append_bytes_max: u64,
    /// Entries of one append, in effect: 1, 2, 8, many.
    pub append_entries_max: u64,
    /// Uncommitted bytes on a leader.
    pub uncommitted_bytes_max: u64,
    /// Bytes waiting for a flush.
    pub queue_bytes_max: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes kept in memory behind what is durable.
    pub tail_bytes_max: u64,
    /// Groups in flight in the log.
    pub groups_in_flight_max: u32,
    /// Applied entries between two snapshots.
    pub snapshot_entries: u64,
    /// Bytes of a snapshot's part.
    pub chunk_bytes_max: u32,
    /// Producers remembered.
    pub producers_max: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As given.
    pub options: Options,
    /// As given or drawn.
    pub profile: Profile,
    /// Voters at the start; nodes `1..=nodes`.
    pub nodes: usize,
    /// Nodes that may become members later.
    pub spares: usize,
    /// What may happen.
    pub faults: FaultSet,
    /// Steps of the safety phase.
    pub steps: u32,
    /// True microseconds between two steps, `[lo, hi)`.
    pub step_us: (u64, u64),
    /// The slowest node's longest election timeout: the unit of patience.
    pub election_us: u64,
    /// The timers that nodes draw from.
    pub timers: Timers,
    /// Clients.
    pub clients: u32,
    /// Requests that one client keeps under way.
    pub pipeline: u32,
    /// True microseconds between a client's requests, `[lo, hi)`.
    pub think_us: (u64, u64),
    /// What part of an election timeout a client waits for an answer: one in so many.
    pub client_patience: u64,
    /// Of 10 requests that a client begins, how many read.
    pub reads: u64,
    /// Records per batch at most.
    pub records_max: u64,
    /// Bytes per record at most.
    pub record_bytes_max: u64,
    /// Usual one-way delay, `[lo, hi)`.
    pub delay_us: (u64, u64),
    /// Of 1000 messages, how many are lost.
    pub loss: u64,
    /// How many take long.
    pub delay: u64,
    /// How many arrive twice.
    pub duplicate: u64,
    /// How many arrive again much later.
    pub replay: u64,
    /// Usual time of a disk's operation, `[lo, hi)`.
    pub disk_us: (u64, u64),
    /// How long a turn of a node takes: what arrives meanwhile is taken in one go.
    pub turn_us: u64,
    /// The core's and the log's limits.
    pub limits: Limits,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(options: &Options) -> Self {
        let mut random = Random::new(options.seed, 1);
        let drawn = random.pick(&Profile::DRAWN);
        let profile = options.profile.unwrap_or(drawn);
        let nodes = if random.chance(650) { 3 } else { 5 };
        let mut faults = FaultSet::default();
        for (fault, permille) in profile.kinds() {
            if random.chance(permille) {
                faults = faults.with(fault);
            }
        }
        if faults.has(Fault::Datagrams) {
            // Where there are no connections, this is what there is instead.
            for fault in [Fault::Loss, Fault::Duplicate, Fault::Replay] {
                if random.chance(600) {
                    faults = faults.with(fault);
                }
            }
        }
        if profile == Profile::Leases {
            faults = faults.with(Fault::Lease);
        }
        let mut faults = faults.without(options.without);
        if faults.has(Fault::Lease) {
            // What leases are promised: equal timers, pre-vote and check-quorum.
            faults = faults.without(FaultSet::of(&[Fault::Timers, Fault::NoPreVote]));
        }
        if faults.has(Fault::Membership) {
            // Whoever was removed and does not know it would disturb the others for ever.
            faults = faults.without(FaultSet::of(&[Fault::NoPreVote]));
        }
        if profile == Profile::Plain {
            return Self::plain(options);
        }
        let heartbeat_us = random.magnitude(2_000, 20_000);
        let election_us_min = heartbeat_us * random.range(3, 11);
        let timers = Timers {
            election_us_min,
            election_us_max: election_us_min * random.range(2, 4),
            heartbeat_us,
        };
        let spread = if faults.has(Fault::Timers) { 10 } else { 1 };
        let step = random.pick(&[
            heartbeat_us,
            heartbeat_us * 4,
            election_us_min,
            election_us_min * 3,
        ]);
        let permille_of = |fault, random: &mut Random, max| {
            let permille = random.range(1, max);
            if faults.has(fault) { permille } else { 0 }
        };
        Self {
            profile,
            nodes: options.nodes.unwrap_or(nodes),
            spares: if faults.has(Fault::Membership) { 4 } else { 0 },
            steps: options.steps.unwrap_or(random.range(40, 160) as u32),
            step_us: (step / 2, step * 2),
            election_us: timers.election_us_max * spread,
            clients: options.clients.unwrap_or(random.range(1, 5) as u32),
            pipeline: random.pick(&[1, 2, 4, 16]),
            think_us: (200, random.pick(&[2_000, 8_000, 40_000])),
            client_patience: if profile == Profile::Leases { 8 } else { 2 },
            reads: if profile == Profile::Leases { 6 } else { 2 },
            records_max: random.pick(&[1, 1, 4, 16]),
            record_bytes_max: random.pick(&[24, 100, 1_000]),
            delay_us: (50, random.range(100, heartbeat_us / 3 + 200)),
            loss: permille_of(Fault::Loss, &mut random, 200),
            delay: permille_of(Fault::Delay, &mut random, 150),
            duplicate: permille_of(Fault::Duplicate, &mut random, 200),
            replay: permille_of(Fault::Replay, &mut random, 100),
            disk_us: (20, random.range(40, heartbeat_us / 2 + 100)),
            turn_us: random.pick(&[0, 0, 20, 300]),
            limits: Limits::draw(&mut random, faults, profile),
            timers,
            faults,
            options: options.clone(),
        }
    }

    /// The product's own timers and limits, no fault: what speed is measured on.
    fn plain(options: &Options) -> Self {
        Self {
            options: options.clone(),
            profile: Profile::Plain,
            nodes: options.nodes.unwrap_or(3),
            spares: 0,
            faults: FaultSet::default(),
            steps: options.steps.unwrap_or(600),
            step_us: (100_000, 100_001),
            election_us: 1_000_000,
            timers: Timers {
                election_us_min: 500_000,
                election_us_max: 1_000_000,
                heartbeat_us: 50_000,
            },
            clients: options.clients.unwrap_or(2),
            pipeline: 4,
            think_us: (100_000, 300_000),
            client_patience: 2,
            reads: 2,
            records_max: 4,
            record_bytes_max: 100,
            delay_us: (50, 300),
            loss: 0,
            delay: 0,
            duplicate: 0,
            replay: 0,
            disk_us: (100, 1_000),
            turn_us: 10,
            limits: Limits {
                window_entries_max: 64,
                window_bytes_max: 8 << 20,
                append_bytes_max: 1 << 20,
                append_entries_max: u64::MAX,
                uncommitted_bytes_max: 64 << 20,
                queue_bytes_max: 64 << 20,
                segment_bytes: 64 << 10,
                tail_bytes_max: 64 << 10,
                groups_in_flight_max: 4,
                snapshot_entries: u64::MAX,
                chunk_bytes_max: 256 << 10,
                producers_max: 1_000,
            },
        }
    }

    /// What node number `slot` is set to.
    #[must_use]
    pub fn timers_of(&self, random: &mut Random) -> Timers {
        if !self.faults.has(Fault::Timers) {
            return self.timers;
        }
        let scale = random.range(10, 100);
        let scaled = |us: u64| us * scale / 10;
        Timers {
            election_us_min: scaled(self.timers.election_us_min),
            election_us_max: scaled(self.timers.election_us_max),
            // Heartbeats keep up with the fastest node's timeouts, as the product's checks demand of one
            // configuration for all.
            heartbeat_us: self.timers.heartbeat_us,
        }
    }

    /// A clock's rate.
    #[must_use]
    pub fn clock_rate(&self, random: &mut Random) -> u64 {
        if !self.faults.has(Fault::ClockRate) {
            return RATE_TRUE;
        }
        if self.faults.has(Fault::Lease) {
            // Within the drift that leases are told to expect.
            return random.range(RATE_TRUE - 10, RATE_TRUE + 11);
        }
        random.range(RATE_TRUE * 6 / 10, RATE_TRUE * 16 / 10)
    }
}

impl Limits {
    fn draw(random: &mut Random, faults: FaultSet, profile: Profile) -> Self {
        // Entries that travel one by one leave logs of all lengths.
        let is_slow = profile == Profile::Churn && random.coin();
        let snapshot_entries = random.pick(&[4, 10, 40, 200]);
        Self {
            window_entries_max: if is_slow {
                1
            } else {
                random.pick(&[1, 2, 8, 64])
            },
            window_bytes_max: random.pick(&[400, 4_000, 1 << 20]),
            append_bytes_max: random.pick(&[500, 5_000, 20_000]),
            append_entries_max: if is_slow {
                1
            } else {
                random.pick(&[1, 2, 8, u64::MAX])
            },
            uncommitted_bytes_max: random.pick(&[1_000, 20_000, 1 << 20]),
            queue_bytes_max: random.pick(&[24_000, 100_000, 1 << 20]),
            segment_bytes: random.pick(&[32 << 10, 64 << 10, 128 << 10]),
            tail_bytes_max: random.pick(&[0, 2_000, 1 << 20]),
            groups_in_flight_max: random.pick(&[1, 2, 4]),
            snapshot_entries: if faults.has(Fault::Snapshot) {
                snapshot_entries
            } else {
                u64::MAX
            },
            chunk_bytes_max: random.pick(&[1_000, 4_000, 256 << 10]),
            producers_max: random.pick(&[3, 1_000, 1_000]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_options_draw_the_same_plan_and_taking_a_fault_away_changes_nothing_else() {
        for seed in 0..200 {
            let options = Options::of(seed);
            let plan = Plan::draw(&options);
            assert_eq!(format!("{plan:?}"), format!("{:?}", Plan::draw(&options)));
            let Some(fault) = plan.faults.iter().next() else {
                continue;
            };
            let without = FaultSet::of(&[fault]);
            let less = Plan::draw(&Options { without, ..options });
            assert!(!less.faults.has(fault));
            assert_eq!(
                (plan.nodes, plan.steps, plan.step_us),
                (less.nodes, less.steps, less.step_us)
            );
        }
    }

    #[test]
    fn every_profile_turns_on_what_it_is_named_for() {
        let on = |profile, fault| {
            let draw = |seed| {
                Plan::draw(&Options {
                    profile: Some(profile),
                    ..Options::of(seed)
                })
            };
            (0..100)
                .filter(|seed| draw(*seed).faults.has(fault))
                .count()
        };
        assert!(on(Profile::Churn, Fault::Isolate) > 50);
        assert!(on(Profile::Membership, Fault::Membership) > 80);
        assert!(on(Profile::Storage, Fault::BitFlip) > 30);
        assert!(on(Profile::Snapshots, Fault::Snapshot) > 80);
        assert_eq!(on(Profile::Plain, Fault::Loss), 0);
    }
}
