//! What happened in a run or in many, in numbers.

use super::faults::Fault;

/// Counts of a run, or of many added up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Messages, completions, timers, operations.
    pub events: u64,
    /// Virtual microseconds.
    pub virtual_us: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Hand-overs begun because of a leader's disk.
    pub hand_overs: u64,
    /// Entries committed.
    pub committed: u64,
    /// Batches carried over.
    pub carried: u64,
    /// Appends acknowledged.
    pub acknowledged: u64,
    /// Linearizable reads answered.
    pub reads: u64,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Operations done.
    pub done: u64,
    /// Operations whose outcome their client never learned.
    pub unknown: u64,
    /// Processes started.
    pub starts: u64,
    /// Nodes that stopped by themselves, as they must when their disk fails.
    pub stops: u64,
    /// Damaged disks that were refused, as they must be.
    pub refusals: u64,
    /// Disks recovered and compared at the end.
    pub scanned: u64,
    /// Faults by kind.
    pub faults: [u64; 64],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            seeds: 0,
            events: 0,
            virtual_us: 0,
            elections: 0,
            hand_overs: 0,
            committed: 0,
            carried: 0,
            acknowledged: 0,
            reads: 0,
            requests: 0,
            done: 0,
            unknown: 0,
            starts: 0,
            stops: 0,
            refusals: 0,
            scanned: 0,
            faults: [0; 64],
        }
    }
}

impl Tally {
    /// One more fault of this kind.
    pub fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let Self {
            seeds,
            events,
            virtual_us,
            elections,
            hand_overs,
            committed,
            carried,
            acknowledged,
            reads,
            requests,
            done,
            unknown,
            starts,
            stops,
            refusals,
            scanned,
            faults,
        } = other;
        self.seeds += seeds;
        self.events += events;
        self.virtual_us += virtual_us;
        self.elections += elections;
        self.hand_overs += hand_overs;
        self.committed += committed;
        self.carried += carried;
        self.acknowledged += acknowledged;
        self.reads += reads;
        self.requests += requests;
        self.done += done;
        self.unknown += unknown;
        self.starts += starts;
        self.stops += stops;
        self.refusals += refusals;
        self.scanned += scanned;
        for (own, other) in self.faults.iter_mut().zip(faults) {
            *own += other;
        }
    }
}
