//! Carrying over: the few live batches of old entries are appended again, in an entry of their own, so that a log with
//! one old record does not hold back the space of all that was given up around it.
//!
//! The leader decides what to carry ([`Replica::carry_plan`]), the shell reads it and hands it back
//! ([`Replica::carry_over`]); every replica applies the entry alike. Nothing about the batches changes: they keep seqs,
//! times and bytes, only where they are found is another entry. It reads nothing itself, and deletes nothing: that
//! compaction does, once a snapshot stands behind what is not needed any more.

use drave_batch::{BODY_BYTES_MAX, BatchHeader, EntryKind, decode_carried};

use super::seq_index::CarriedPart;
use super::{EntryLog, Fatal, LogRefusal, Now, Replica, Tables};
use crate::raft::mutants::{Mutant, is_planted};

/// Bytes of segments that must become free for each byte carried over: what is written for it stays a fraction of what
/// it frees, and what is held back by live batches a multiple of them.
const GAIN_MIN: u64 = 4;

/// What is to be carried over, so that no entry up to `limit` is needed any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CarryPlan {
    /// The last index that is to be freed: a stored snapshot is of it.
    pub limit: u64,
    /// Bytes of files that are free then.
    pub frees_bytes: u64,
    /// Bytes of batches to be carried, about.
    pub bytes: u64,
    /// The records, ascending by log: `log_id`, first seq, the seq after the last.
    pub logs: Vec<(u64, u64, u64)>,
}

/// An entry that carries batches over, in the log and not yet applied.
#[derive(Debug)]
pub(super) struct CarryInFlight {
    pub index: u64,
    /// What it carries of each log, by `log_id`.
    parts: Vec<(u64, CarriedPart)>,
}

impl Replica {
    /// What a leader has to carry over now, if that frees several times as much as it costs: up to the snapshot at
    /// which the one exceeds the other by most. Looks at all logs.
    #[must_use]
    pub fn carry_plan(&self, log: &impl EntryLog) -> Option<CarryPlan> {
        // Before all that earlier leaders appended is applied, the log may begin behind what the tables say is needed.
        let commit_term = self.raft.term_at(self.raft.commit_index());
        let is_ready = self.is_leader()
            && self.tables.carries.is_empty()
            && commit_term == Some(self.raft.term());
        let kept = self.snapshots.kept();
        let frees = |limit: u64| log.bytes_before(limit + 1);
        if !is_ready || frees(kept.last()?.index) == 0 {
            return None;
        }
        let needed = self.tables.catalogue.first_index_needed();
        if needed < self.raft.first_index() {
            return None;
        }
        let given_up = frees(needed.saturating_sub(1));
        let limits = kept.iter().filter(|id| id.index >= needed);
        let plans = limits.filter_map(|id| {
            let plan = self.plan_up_to(id.index, frees(id.index));
            let gain = plan.frees_bytes.saturating_sub(given_up);
            let profit = gain.checked_sub(plan.bytes.saturating_mul(GAIN_MIN))?;
            (gain > 0 && !plan.logs.is_empty()).then_some((profit, plan))
        });
        let best = plans.max_by_key(|(profit, _)| *profit);
        best.map(|(_, plan)| plan)
    }

    fn plan_up_to(&self, limit: u64, frees_bytes: u64) -> CarryPlan {
        let mut plan = CarryPlan {
            limit,
            frees_bytes,
            bytes: 0,
            logs: Vec::new(),
        };
        for state in self.tables.catalogue.logs() {
            if state.first_seq >= state.next_seq || state.tail_rules.is_deleted {
                continue;
            }
            let needed = state
                .index
                .needed_up_to(limit, state.first_seq, state.next_seq);
            let Some((from, to)) = needed else {
                continue;
            };
            let before = |seq| state.index.bytes_before(seq, state.bytes);
            let begin = before(from).unwrap_or(0);
            let end = match to < state.next_seq {
                true => before(to).unwrap_or(state.bytes),
                false => state.bytes,
            };
            plan.bytes += end.saturating_sub(begin);
            plan.logs.push((state.log_id, from, to));
        }
        plan.logs.sort_unstable();
        plan
    }

    /// Whether an entry that carries batches over is on its way: it is to be waited for.
    #[must_use]
    pub fn is_carrying(&self) -> bool {
        !self.tables.carries.is_empty()
    }

    /// Appends an entry that holds these batches again: committed ones, back to back, in the order of a plan. `false`
    /// when it was not taken: this node does not lead, or there is no room.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn carry_over(
        &mut self,
        now: Now,
        batches: &[u8],
        log: &mut impl EntryLog,
    ) -> Result<bool, Fatal> {
        if !self.is_leader() || batches.len() > BODY_BYTES_MAX as usize {
            return Ok(false);
        }
        let header = BatchHeader {
            index: self.raft.last().index + 1,
            term: self.raft.term(),
            group_id: self.config.group_id,
            append_time_us: self.tables.append_time_us.max(now.unix_us),
            ..BatchHeader::new(EntryKind::CarryOver, batches, 0)
        };
        // An entry that is none would stop every node that takes it.
        if decode_carried(&header, batches).is_err() {
            return Ok(false);
        }
        match log.has_room(header.encoded_bytes()) {
            Ok(()) => {}
            Err(refusal @ LogRefusal::Failed(_)) => return Err(refusal.into()),
            Err(_) => return Ok(false),
        }
        let Ok(id) = self.raft.propose(header.encoded_bytes() as u32) else {
            return Ok(false);
        };
        self.append_entry(now, id, header, batches, None, log)?;
        self.drain_effects(now, log)?;
        Ok(true)
    }
}

impl Tables {
    /// An entry that carries batches over is in the log.
    ///
    /// # Errors
    /// [`Fatal`] when its body is none.
    pub(super) fn carry_appended(
        &mut self,
        header: &BatchHeader,
        body: &[u8],
    ) -> Result<(), Fatal> {
        let batches = decode_carried(header, body).map_err(|error| Fatal {
            reason: format!("entry {}: {error}", header.index),
        })?;
        let mut parts: Vec<(u64, CarriedPart)> = Vec::new();
        for batch in batches {
            let header = &batch.header;
            let bytes = header.encoded_bytes() as u64;
            match parts.last_mut() {
                Some((log_id, part)) if *log_id == header.log_id => {
                    part.next_seq = header.next_seq();
                    part.last_time_us = header.append_time_us;
                    part.bytes += bytes;
                }
                _ => {
                    let part = CarriedPart {
                        seq: header.first_seq,
                        next_seq: header.next_seq(),
                        first_time_us: header.append_time_us,
                        last_time_us: header.append_time_us,
                        bytes,
                    };
                    parts.push((header.log_id, part));
                }
            }
        }
        let index = header.index;
        if is_planted(Mutant::CarryWhenAppended) {
            for (log_id, part) in &parts {
                self.catalogue.carried(*log_id, index, part);
            }
        }
        self.carries.push_back(CarryInFlight { index, parts });
        Ok(())
    }

    /// The entry at `index` is committed: its batches are found there from now on.
    pub(super) fn apply_carry(&mut self, index: u64) {
        let Some(carry) = self.carries.pop_front() else {
            return;
        };
        assert_eq!(carry.index, index, "entries are applied in order");
        for (log_id, part) in carry.parts {
            self.catalogue.carried(log_id, index, &part);
        }
    }
}
