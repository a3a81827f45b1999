//! State snapshots of a replica: when one is due, which are kept, where the log may begin after one.

mod pause;
mod receive;
mod send;
mod state;

pub use receive::{SnapshotProblem, SnapshotTaken};
pub use send::SnapshotPlan;
pub use state::StateSnapshot;

pub(super) use pause::ReceivingPause;
pub(super) use receive::Receiving;
pub(super) use send::Sending;

use super::tables::Tables;
use super::{EntryLog, Fatal, Now, Replica, ReplicaConfig};
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{EntryId, Raft};

/// Stored snapshots that are kept at most: the first, where the log begins; the last two, for a fast start;
/// and some between, where the log may begin after a trim.
const KEPT_MAX: usize = 16;

/// A snapshot is not taken before the log has grown by so many times the last one's bytes: what is written
/// for snapshots stays a fraction of what is written for the log.
const GROWTH_MIN: u64 = 4;

/// The snapshots of this replica. Invariant: `kept` ascends and all of it is durable; it has one at or
/// above the entry before the log's first, and none below.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    kept: Vec<EntryId>,
    /// Taken and not yet reported as durable.
    taken: Option<EntryId>,
    /// What was applied when the last one was taken.
    last_index: u64,
    last_applied_bytes: u64,
    /// Bytes of the last one.
    last_bytes: u64,
    /// One that was stored was lost, so another is due whatever was applied since.
    is_wanted: bool,
    /// The one that the log was made to begin after: whatever it holds was given up then, also when the trim
    /// that said so is to be confirmed again after a restart.
    begins_after: Option<EntryId>,
}

impl Snapshots {
    /// Those that were found on disk, the one restored from among them, and those that cannot be used.
    pub(super) fn restored(mut found: Vec<EntryId>, damaged: &[EntryId], raft: &Raft) -> Self {
        found.retain(|id| {
            let fits = raft.term_at(id.index).is_none_or(|term| term == id.term);
            fits && id.index + 1 >= raft.first_index() && id.index <= raft.commit_index()
        });
        found.sort_unstable_by_key(|id| id.index);
        found.dedup();
        let last_index = found.last().map_or(0, |id| id.index);
        // The log was cut back to the lowest one that is there; all before it were deleted.
        let first = found.first().copied();
        let is_lowest = |id: &EntryId| {
            let in_reach = |other: &EntryId| other.index + 1 >= raft.first_index();
            !damaged
                .iter()
                .any(|other| other.index < id.index && in_reach(other))
        };
        let begins_after = first.filter(|id| raft.first_index() > 1 && is_lowest(id));
        Self {
            kept: found,
            last_index,
            begins_after,
            ..Self::default()
        }
    }

    /// The log was replaced by this one, which is durable.
    fn replaced(&mut self, last: EntryId) {
        *self = Self {
            kept: vec![last],
            last_index: last.index,
            begins_after: Some(last),
            ..Self::default()
        };
    }

    /// Whether enough was applied, and all of it is on this node's disk: a snapshot never speaks of entries
    /// that its node could lose.
    fn is_due(&self, config: &ReplicaConfig, tables: &Tables, durable_index: u64) -> bool {
        let entries = tables.applied.id.index.saturating_sub(self.last_index);
        let bytes = tables.applied.bytes - self.last_applied_bytes;
        let is_long = entries >= config.snapshot_entries || bytes >= config.snapshot_log_bytes;
        let has_grown = entries > 0 && is_long && bytes >= GROWTH_MIN * self.last_bytes;
        self.taken.is_none()
            && tables.applied.id.index <= durable_index
            && (has_grown || self.is_wanted)
            && !tables.applied_configuration().voters.is_empty()
    }

    /// Those that are stored, ascending.
    pub(super) fn kept(&self) -> &[EntryId] {
        &self.kept
    }

    pub(super) fn keep(&mut self, id: EntryId) {
        let after = self.kept.partition_point(|kept| kept.index < id.index);
        if self.kept.get(after) != Some(&id) {
            self.kept.insert(after, id);
        }
        while self.kept.len() > KEPT_MAX {
            // Of those between, the one that is missed least.
            let inner = 1..self.kept.len() - 2;
            let gap = |at: &usize| self.kept[at + 1].index - self.kept[at - 1].index;
            let Some(least) = inner.min_by_key(gap) else {
                return;
            };
            self.kept.remove(least);
        }
    }
}

impl Replica {
    /// Whether [`Self::take_snapshot`] is to be called: enough was applied since the last one, all of it is
    /// on this node's disk, the last one was stored or given up, and the members are known.
    ///
    /// What is applied is also on this node's disk then: a stored snapshot of entries that the log does not
    /// have shows at the next start that the log has lost some.
    #[must_use]
    pub fn snapshot_due(&self) -> bool {
        let durable_index = self.raft.commit_index_durable();
        self.snapshots
            .is_due(&self.config, &self.tables, durable_index)
            && self.tables.applied.id.index <= self.raft.durable_index()
    }

    /// The state as applied now. The shell stores its bytes durably and calls [`Self::snapshot_stored`];
    /// until then no other is due.
    pub fn take_snapshot(&mut self) -> StateSnapshot {
        let snapshot = StateSnapshot::of(self.config.group_id, &self.tables);
        self.snapshots.taken = Some(snapshot.last);
        self.snapshots.is_wanted = false;
        self.snapshots.last_index = snapshot.last.index;
        self.snapshots.last_applied_bytes = self.tables.applied.bytes;
        self.snapshots.last_bytes = snapshot.encoded_bytes();
        if is_planted(Mutant::CompactionBeforeDurable) {
            self.snapshots.keep(snapshot.last);
        }
        snapshot
    }

    /// Bytes that a snapshot of a leader may have here: a member that is configured alike refuses larger ones.
    #[must_use]
    pub fn snapshot_bytes_max(&self) -> u64 {
        self.config.snapshot_bytes_max
    }

    /// The snapshot taken at `index` is durable: the log may begin after it, a peer may get it.
    pub fn snapshot_stored(&mut self, index: u64) {
        if let Some(taken) = self.snapshots.taken.take_if(|taken| taken.index == index) {
            self.snapshots.keep(taken);
        }
    }

    /// The snapshot taken at `index` was not stored, the disk being full for example: another is due when
    /// as much again was applied.
    pub fn snapshot_not_stored(&mut self, index: u64) {
        self.snapshots.taken.take_if(|taken| taken.index == index);
    }

    /// The stored snapshots that are to be kept, ascending; the shell deletes all others, except one that
    /// it is storing.
    #[must_use]
    pub fn snapshots_kept(&self) -> &[EntryId] {
        &self.snapshots.kept
    }

    /// A stored snapshot cannot be read any more: it is not counted on, and another one is due at once, which the log
    /// may begin after.
    pub fn snapshot_lost(&mut self, id: EntryId) {
        let count = self.snapshots.kept.len();
        self.snapshots.kept.retain(|kept| *kept != id);
        self.snapshots.is_wanted |= self.snapshots.kept.len() < count;
    }

    /// The first index that the log may begin with, if that is further than now: right after a stored
    /// snapshot below which every record has been trimmed.
    ///
    /// What a peer is being sent, and what one that answers is about to need, stays.
    #[must_use]
    pub fn compaction(&self, now: Now) -> Option<u64> {
        let first_index = self.raft.first_index();
        let limit = self.last_given_up_index().min(self.pinned_index(now));
        let mut kept = self.snapshots.kept.iter().rev();
        let found = kept.find(|id| id.index <= limit)?;
        (found.index + 1 > first_index).then_some(found.index + 1)
    }

    /// Lets the log begin later when it may: gives its new first index, after which the shell deletes the
    /// snapshots that are no longer [kept](Self::snapshots_kept).
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn compact(&mut self, now: Now, log: &mut impl EntryLog) -> Result<Option<u64>, Fatal> {
        let Some(first_index_kept) = self.compaction(now) else {
            return Ok(None);
        };
        log.truncate_prefix(first_index_kept)?;
        self.raft.log_compacted(first_index_kept);
        self.snapshots
            .kept
            .retain(|id| id.index + 1 >= first_index_kept);
        self.snapshots.begins_after = self.snapshots.kept.first().copied();
        Ok(Some(first_index_kept))
    }

    /// Every record at or below this index has been trimmed, and the index is committed and on disk here.
    /// Where a log's first record is, is known to within some entries only, so what was let go counts too.
    fn last_given_up_index(&self) -> u64 {
        let needed = self.tables.catalogue.first_index_needed();
        needed
            .saturating_sub(1)
            .min(self.raft.commit_index_durable())
            .max(self.raft.first_index() - 1)
    }

    /// What peers still need: the snapshot that one is getting, and the log after what those that answer
    /// have, unless they are far behind.
    fn pinned_index(&self, now: Now) -> u64 {
        let near = |match_index: u64| {
            match_index.saturating_add(self.config.snapshot_entries) > self.raft.last().index
                && match_index + 1 >= self.raft.first_index()
        };
        let since_us = self.active_since_us(now);
        let peers = self
            .raft
            .progress()
            .filter(|peer| peer.last_active_us >= since_us && near(peer.match_index));
        let needed = peers.map(|peer| peer.match_index).min();
        let sent = self.sending.lowest_index();
        needed.unwrap_or(u64::MAX).min(sent.unwrap_or(u64::MAX))
    }

    /// The snapshot for a peer that is behind the log: the latest of those that hold nothing but what was
    /// trimmed, since it gets no record at or below it.
    fn snapshot_to_send(&self) -> Option<EntryId> {
        let limit = if is_planted(Mutant::SnapshotBeyondTrim) {
            u64::MAX
        } else {
            self.last_given_up_index()
        };
        let reaches_log = |id: &&EntryId| id.index + 1 >= self.raft.first_index();
        let kept = &self.snapshots.kept;
        let given_up = kept
            .iter()
            .rev()
            .find(|id| id.index <= limit && reaches_log(id));
        // What the log was cut back to was given up by a commit, which a restart may have to learn again.
        let cut_back = self.snapshots.begins_after.as_ref();
        let cut_back = cut_back.filter(|id| kept.contains(id) && reaches_log(id));
        given_up.or(cut_back).copied()
    }
}
