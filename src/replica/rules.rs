//! What holds for a log besides its records, and how it changes: the leader decides, an entry says so, every replica
//! applies it alike.
//!
//! Appends are judged, like conditions, over what is applied plus what is in flight. An append that follows an
//! uncommitted change in the log stands or falls with it; one that only an uncommitted change forbids is told to come
//! again, since the change may never be.

use drave_batch::wire::{ErrorCode, LogDescribed};
use drave_batch::{BatchHeader, EntryKind, FENCE_NEXT, LogChange, Quota, Retention};

use super::catalogue::LogState;
use super::{Answer, EntryLog, Fatal, Now, Refusal, Replica, ReplyTo};
use crate::raft::mutants::{Mutant, is_planted};

/// What holds for a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LogRules {
    /// The token that appends must carry, [`drave_batch::wire::FENCE_NONE`] before the first one. It only rises.
    pub fence: u64,
    /// Whether it takes no append any more.
    pub is_closed: bool,
    /// How much of it is kept.
    pub retention: Retention,
    /// How much a leader takes for it.
    pub quota: Quota,
    /// Whether it is to go. Only of what is in flight: a log that was deleted is not there.
    pub(super) is_deleted: bool,
}

impl LogRules {
    pub(super) fn change(&mut self, change: LogChange) {
        match change {
            LogChange::Fence { token } => self.fence = self.fence.max(token),
            LogChange::Close => self.is_closed = true,
            LogChange::Delete => self.is_deleted = true,
            LogChange::Retain(retention) => self.retention = retention,
            LogChange::Limit(quota) => self.quota = quota,
        }
    }
}

/// A change that is in the log and not yet applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeInFlight {
    pub index: u64,
    pub log_id: u64,
    pub change: LogChange,
}

/// What becomes of a change that is asked for.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    /// It is to be appended.
    Append(LogChange),
    /// It holds already.
    Holds,
    /// It is in flight.
    InFlight,
    /// What is in flight contradicts it.
    Busy(String),
    Refused(Refusal),
}

impl Replica {
    /// Changes what holds for a log. Answered with [`Answer::Described`] once that is committed; at once when it
    /// holds already.
    ///
    /// # Errors
    /// [`Fatal`] only; a refusal of the request is an answer.
    pub fn change_log(
        &mut self,
        now: Now,
        reply: ReplyTo,
        log_id: u64,
        change: LogChange,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        if !self.is_leader() {
            let refusal = self.not_leader();
            self.refuse(reply, refusal);
            return Ok(());
        }
        let Some(state) = self.tables.catalogue.log_appended(log_id) else {
            let message = format!("log {log_id} does not exist");
            let refusal = Refusal::new(ErrorCode::LogNotFound, message);
            return self.refuse_for_good(now, reply, refusal, log);
        };
        match judge_change(state, change) {
            Verdict::Append(change) => {
                let body = change.encode();
                let header = BatchHeader {
                    log_id,
                    ..BatchHeader::new(EntryKind::LogChange, &body, 0)
                };
                self.propose(now, reply, header, &body, log)
            }
            Verdict::Holds => {
                let answer = Answer::Described(state.describe());
                self.outputs.replies.push((reply, answer));
                Ok(())
            }
            Verdict::InFlight => {
                let mut in_flight = self.tables.changes.iter();
                let first = in_flight.find(|at| at.log_id == log_id && at.change == change);
                let index = first.map(|at| at.index);
                if !index.is_some_and(|index| self.wait_for(index, reply, 0)) {
                    let message = "the change is in flight and asked for too often";
                    self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
                }
                Ok(())
            }
            Verdict::Busy(message) => {
                self.refuse(reply, Refusal::new(ErrorCode::Busy, message));
                Ok(())
            }
            Verdict::Refused(refusal) => self.refuse_for_good(now, reply, refusal, log),
        }
    }
}

fn judge_change(state: &LogState, change: LogChange) -> Verdict {
    let tail = state.tail_rules;
    match change {
        LogChange::Delete if tail.is_deleted => Verdict::InFlight,
        LogChange::Delete => Verdict::Append(change),
        _ if tail.is_deleted => Verdict::Busy(DELETION_IN_FLIGHT.to_owned()),
        LogChange::Close if state.rules.is_closed => Verdict::Holds,
        LogChange::Close if tail.is_closed => Verdict::InFlight,
        LogChange::Close => Verdict::Append(change),
        // What was asked for last holds, so that nothing in flight is waited for.
        LogChange::Retain(_) | LogChange::Limit(_) => Verdict::Append(change),
        LogChange::Fence { token } => judge_fence(state, token),
    }
}

/// Said to who asks for something else of a log meanwhile.
pub(super) const DELETION_IN_FLIGHT: &str = "the deletion of the log is in flight";

fn judge_fence(state: &LogState, token: u64) -> Verdict {
    let (applied, tail) = (state.rules.fence, state.tail_rules.fence);
    if token == FENCE_NEXT {
        return match tail.checked_add(1) {
            Some(token) => Verdict::Append(LogChange::Fence { token }),
            None => Verdict::Refused(fenced(tail, token)),
        };
    }
    if token > tail {
        return Verdict::Append(LogChange::Fence { token });
    }
    if token < applied {
        return Verdict::Refused(fenced(applied, token));
    }
    if token == applied {
        return Verdict::Holds;
    }
    if token == tail {
        return Verdict::InFlight;
    }
    Verdict::Busy(format!("a fence with token {tail} is in flight"))
}

/// Why an append with this token is refused, if it is.
pub(super) fn check_rules(state: &LogState, token: u64) -> Option<Refusal> {
    let (rules, tail) = (state.rules, state.tail_rules);
    let busy = |message: &str| Some(Refusal::new(ErrorCode::Busy, message));
    if tail.is_deleted && !is_planted(Mutant::AppendBehindDeletion) {
        return busy(DELETION_IN_FLIGHT);
    }
    if rules.is_closed {
        return Some(closed(state));
    }
    if tail.is_closed && !is_planted(Mutant::CloseCommitted) {
        return busy("the end of the log is in flight");
    }
    check_fence(state, token)
}

/// The answer about the end of a closed log.
pub(crate) fn closed(state: &LogState) -> Refusal {
    let next_seq = state.next_seq;
    let message = format!("the log was closed at seq {next_seq}");
    Refusal::numbers(ErrorCode::LogClosed, next_seq, next_seq, message)
}

fn check_fence(state: &LogState, token: u64) -> Option<Refusal> {
    let applied = state.rules.fence;
    let tail = if is_planted(Mutant::FenceCommitted) {
        applied
    } else {
        state.tail_rules.fence
    };
    if token == tail || is_planted(Mutant::FenceIgnored) {
        return None;
    }
    if (applied..tail).contains(&token) {
        let message = format!("a fence with token {tail} is in flight");
        return Some(Refusal::new(ErrorCode::Busy, message));
    }
    Some(fenced(applied, token))
}

fn fenced(expected: u64, found: u64) -> Refusal {
    let message = match found {
        FENCE_NEXT => format!("the log is fenced with token {expected}"),
        _ => format!("the log is fenced with token {expected}, not {found}"),
    };
    Refusal::numbers(ErrorCode::Fenced, expected, found, message)
}

impl super::Tables {
    /// A change of a log is in the log.
    ///
    /// # Errors
    /// [`Fatal`] when no such log can be there.
    pub(super) fn change_appended(
        &mut self,
        header: &BatchHeader,
        change: LogChange,
    ) -> Result<(), Fatal> {
        let Some(state) = self.catalogue.log_mut(header.log_id) else {
            return Err(super::tables::no_such_log(header));
        };
        state.tail_rules.change(change);
        self.changes.push_back(ChangeInFlight {
            index: header.index,
            log_id: header.log_id,
            change,
        });
        Ok(())
    }

    /// The changes from this index on are truncated.
    pub(super) fn truncate_changes(&mut self, from_index: u64) {
        let kept = self.changes.partition_point(|at| at.index < from_index);
        if is_planted(Mutant::TruncationKeepsFence) {
            self.changes.truncate(kept);
            return;
        }
        for truncated in self.changes.split_off(kept) {
            // Those before it are applied to the log anew.
            let Some(state) = self.catalogue.log_mut(truncated.log_id) else {
                continue;
            };
            let mut rules = state.rules;
            let of_log = |at: &&ChangeInFlight| at.log_id == truncated.log_id;
            for earlier in self.changes.iter().filter(of_log) {
                rules.change(earlier.change);
            }
            state.tail_rules = rules;
        }
    }

    /// The change at this index is committed. Gives what the log is then.
    pub(super) fn change_applied(&mut self, index: u64) -> Option<LogDescribed> {
        let at = self.changes.pop_front()?;
        assert_eq!(at.index, index, "changes are applied in order");
        let state = self.catalogue.log_mut(at.log_id)?;
        state.rules.change(at.change);
        match at.change {
            LogChange::Fence { .. } => state.fence_seq = state.next_seq,
            LogChange::Close | LogChange::Limit(_) => {}
            LogChange::Retain(_) => {
                let described = state.describe();
                self.catalogue.retention_changed(at.log_id);
                return Some(described);
            }
            LogChange::Delete => {
                let described = state.describe();
                self.catalogue.deleted(at.log_id);
                return Some(described);
            }
        }
        Some(state.describe())
    }
}
