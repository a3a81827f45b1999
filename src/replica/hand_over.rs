//! Whether a leader should give the lead away because of its disk: it measures its own flushes, hears of its
//! peers', and names a peer that does much better, at most once in a while.
//!
//! ```text
//!            flushes slow in a row, and for long enough \
//!   leading  one flush hangs                             > a peer that is caught up and does much better?
//!            no room for a record                       /     then: hand over, and keep quiet afterwards
//! ```
//!
//! A leader whose disk is slow goes on committing through its peers meanwhile: its own acknowledgement is only
//! not counted before it is there.

use std::collections::BTreeMap;
use std::fmt;

use crate::raft::NodeId;

/// A flush that takes no longer than this is never called slow.
const SLOW_US_MIN: u64 = 40_000;

/// A peer's disk does better when its flushes take at most this part of the own ones.
const RATIO: u64 = 4;

/// So many slow flushes in a row, without a faster one between them, over at least [`SLOW_FOR_US`].
const SLOW_FLUSHES: u64 = 3;

/// See [`SLOW_FLUSHES`]: one pause of a disk is no reason.
const SLOW_FOR_US: u64 = 250_000;

/// A flush that has been under way for so long hangs.
const HANGS_US: u64 = 500_000;

/// A disk without room for a record for so long is full: space that is being made is waited for.
const FULL_FOR_US: u64 = 250_000;

/// After a hand-over because of slow flushes, and after having been handed the lead, a node does not hand it
/// over again for slow flushes.
pub const SLOW_QUIET_US: u64 = 60_000_000;

/// The same for a flush that hangs and a full disk, which cost more than a hand-over does.
pub const STUCK_QUIET_US: u64 = 10_000_000;

/// After a hand-over that nobody took up.
pub const RETRY_US: u64 = 2_000_000;

/// Flushes that the recent time is the median of.
const RECENT: usize = 8;

/// What a node says of its disk, to its leader.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskReport {
    /// What its log's last flushes took, microseconds; 0 when there was none, or when it does not say.
    pub flush_us: u64,
    /// For how long the oldest flush under way has been so, 0 for none.
    pub waits_us: u64,
    /// Whether its log takes a record of the largest size.
    pub has_room: bool,
}

/// The log's counters, from which a node learns how its own disk does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskState {
    /// Flushes completed since open.
    pub flushes: u64,
    /// What they took, added up, microseconds.
    pub flush_us_sum: u64,
    /// For how long the oldest flush under way has been so, 0 for none.
    pub waits_us: u64,
}

/// Why the lead is handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandOverReason {
    /// Flushes take much longer here.
    Slow {
        /// The shortest of the last ones here, microseconds.
        own_us: u64,
        /// What they take at the node that is to lead.
        peer_us: u64,
    },
    /// A flush does not end.
    Hangs {
        /// For how long it has been under way, microseconds.
        waits_us: u64,
    },
    /// The disk is full.
    Full,
}

impl fmt::Display for HandOverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { own_us, peer_us } => write!(
                f,
                "this node's disk is slow: flushes take {} ms here and {}.{} ms there",
                own_us / 1_000,
                peer_us / 1_000,
                peer_us / 100 % 10
            ),
            Self::Hangs { waits_us } => write!(
                f,
                "this node's disk hangs: nothing has been flushed for {} ms",
                waits_us / 1_000
            ),
            Self::Full => write!(f, "this node's disk is full"),
        }
    }
}

/// Hand the lead to `to`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HandOverOrder {
    /// Who is to lead.
    pub to: NodeId,
    /// Why.
    pub reason: HandOverReason,
}

/// A peer that could lead: a voter that answers and holds everything committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) peer: NodeId,
    /// Entries it is known to hold.
    pub(super) match_index: u64,
}

/// How long this node's last flushes took.
#[derive(Debug, Default)]
struct Meter {
    seen: DiskState,
    recent_us: [u64; RECENT],
    /// How many of them there are, and where the next one goes.
    count: u64,
}

impl Meter {
    /// Takes in what completed since the last call: how many, and how long they took on average.
    fn take(&mut self, state: DiskState) -> Option<(u64, u64)> {
        let flushes = state.flushes.saturating_sub(self.seen.flushes);
        let sum_us = state.flush_us_sum.saturating_sub(self.seen.flush_us_sum);
        self.seen = state;
        let each_us = sum_us.checked_div(flushes)?;
        for _ in 0..flushes.min(RECENT as u64) {
            self.recent_us[(self.count % RECENT as u64) as usize] = each_us.max(1);
            self.count += 1;
        }
        Some((flushes, each_us))
    }

    /// The upper median; 0 when there was none.
    fn recent_us(&self) -> u64 {
        let count = self.count.min(RECENT as u64) as usize;
        let mut known = self.recent_us;
        let known = &mut known[..count];
        known.sort_unstable();
        known.get(count / 2).copied().unwrap_or(0)
    }
}

/// Slow flushes in a row.
#[derive(Clone, Copy, Debug)]
struct SlowRun {
    since_us: u64,
    flushes: u64,
    /// The shortest of them.
    us_min: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    meter: Meter,
    has_room: bool,
    peers: BTreeMap<NodeId, DiskReport>,
    slow: Option<SlowRun>,
    full_since_us: Option<u64>,
    /// The lead was offered then, and nobody has taken it yet.
    offered: Option<(u64, HandOverReason)>,
    /// Not for slow flushes before then.
    slow_quiet_until_us: u64,
    /// Not for anything else before then.
    stuck_quiet_until_us: u64,
}

impl HandOver {
    /// Takes in how the own disk does. To be called in every turn, also by a follower.
    pub(super) fn measured(&mut self, now_us: u64, state: DiskState, has_room: bool) {
        if let Some((flushes, each_us)) = self.meter.take(state) {
            if each_us < SLOW_US_MIN {
                self.slow = None;
            } else {
                let run = self.slow.get_or_insert(SlowRun {
                    since_us: now_us.saturating_sub(each_us),
                    flushes: 0,
                    us_min: u64::MAX,
                });
                run.flushes += flushes;
                run.us_min = run.us_min.min(each_us);
            }
        }
        self.has_room = has_room;
        if has_room {
            self.full_since_us = None;
        } else {
            self.full_since_us.get_or_insert(now_us);
        }
    }

    /// What to say of the own disk.
    pub(super) fn report(&self) -> DiskReport {
        DiskReport {
            flush_us: self.meter.recent_us(),
            waits_us: self.meter.seen.waits_us,
            has_room: self.has_room,
        }
    }

    /// A peer says how its disk does.
    pub(super) fn reported(&mut self, peer: NodeId, report: DiskReport) {
        self.peers.insert(peer, report);
    }

    /// This node is being handed the lead: whoever did that had a reason, and it is not handed back at once.
    pub(super) fn lead_offered(&mut self, now_us: u64) {
        self.slow_quiet_until_us = now_us.saturating_add(SLOW_QUIET_US);
    }

    /// This node does not lead any more: what it offered was taken.
    pub(super) fn lead_lost(&mut self, now_us: u64) {
        self.peers.clear();
        match self.offered.take() {
            Some((_, HandOverReason::Slow { .. })) => {
                self.slow_quiet_until_us = now_us.saturating_add(SLOW_QUIET_US);
            }
            Some(_) => self.stuck_quiet_until_us = now_us.saturating_add(STUCK_QUIET_US),
            None => {}
        }
    }

    /// Whether anything is wrong with the own disk; cheap, for every turn.
    pub(super) fn has_cause(&self, now_us: u64) -> bool {
        self.is_slow(now_us).is_some() || self.hangs().is_some() || self.is_full(now_us)
    }

    fn is_slow(&self, now_us: u64) -> Option<u64> {
        let run = self.slow.filter(|run| {
            run.flushes >= SLOW_FLUSHES && now_us.saturating_sub(run.since_us) >= SLOW_FOR_US
        })?;
        Some(run.us_min)
    }

    fn hangs(&self) -> Option<u64> {
        Some(self.meter.seen.waits_us).filter(|waits_us| *waits_us >= HANGS_US)
    }

    fn is_full(&self, now_us: u64) -> bool {
        self.full_since_us
            .is_some_and(|since_us| now_us.saturating_sub(since_us) >= FULL_FOR_US)
    }

    /// To whom the lead is to be handed, and why. Only for a leader; what is ordered counts as begun.
    pub(super) fn order(
        &mut self,
        now_us: u64,
        candidates: impl Iterator<Item = Candidate>,
    ) -> Option<HandOverOrder> {
        if self
            .offered
            .is_some_and(|(at_us, _)| now_us < at_us.saturating_add(RETRY_US))
        {
            return None;
        }
        let known = candidates.filter_map(|candidate| {
            let report = self.peers.get(&candidate.peer)?;
            Some((candidate, *report))
        });
        let mut known: Vec<(Candidate, DiskReport)> = known.collect();
        // The one that has most of the log is ready first.
        known.sort_by_key(|(candidate, report)| {
            (std::cmp::Reverse(candidate.match_index), report.flush_us)
        });
        let order = self.judge(now_us, &known)?;
        self.offered = Some((now_us, order.reason));
        Some(order)
    }

    fn judge(&self, now_us: u64, known: &[(Candidate, DiskReport)]) -> Option<HandOverOrder> {
        let order = |found: Option<&(Candidate, DiskReport)>, reason: HandOverReason| {
            let to = found?.0.peer;
            Some(HandOverOrder { to, reason })
        };
        if now_us >= self.stuck_quiet_until_us {
            if let Some(waits_us) = self.hangs() {
                let better = known.iter().find(|(_, peer)| peer.does_better(waits_us));
                if better.is_some() {
                    return order(better, HandOverReason::Hangs { waits_us });
                }
            }
            if self.is_full(now_us) {
                let better = known.iter().find(|(_, peer)| peer.does_better(HANGS_US));
                if better.is_some() {
                    return order(better, HandOverReason::Full);
                }
            }
        }
        if now_us < self.slow_quiet_until_us {
            return None;
        }
        let own_us = self.is_slow(now_us)?;
        let better = known.iter().find(|(_, peer)| peer.does_better(own_us))?;
        let peer_us = better.1.flush_us;
        order(Some(better), HandOverReason::Slow { own_us, peer_us })
    }
}

impl DiskReport {
    /// Whether the disk that this is of does much better than one whose flushes take `own_us`.
    fn does_better(&self, own_us: u64) -> bool {
        let is_fast = |us: u64| us.saturating_mul(RATIO) <= own_us;
        self.has_room && self.flush_us > 0 && is_fast(self.flush_us) && is_fast(self.waits_us)
    }
}

#[cfg(test)]
mod tests;
