//! The follower's side: AppendEntries checked, stored, and what they truncate undone.

use drave_batch::control::{LogCreated, ProducerRegistered};
use drave_batch::wire::AppendEntries;
use drave_batch::{
    BatchRef, Batches, DecodeError, EntryKind, LogChange, decode_carried, decode_together,
};
use thiserror::Error;

use super::append::entry_bytes;
use super::members::decode_members;
use super::{EntryLog, Fatal, LogRefusal, Now, Replica};
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{self, AppendOutcome, EntryId, EntryMeta, NodeId};

/// What is wrong with an AppendEntries: its sender has a bug, or the bytes were damaged on the way. The
/// connection is closed; nothing of the message was taken.
#[derive(Clone, Debug, Error)]
pub enum AppendProblem {
    /// A batch does not decode or fails its checksum.
    #[error("batch {position} of the append: {source}")]
    Batch {
        /// Its position in the message.
        position: usize,
        /// What is wrong.
        source: DecodeError,
    },
    /// Batches that do not follow each other.
    #[error("batch {position} of the append: expected index {expected}, found {found}")]
    Order {
        /// Its position in the message.
        position: usize,
        /// The index that follows.
        expected: u64,
        /// The index found.
        found: u64,
    },
    /// Terms that run backwards or beyond the leader's.
    #[error("batch {position} of the append: term {found} does not fit between {lo} and {hi}")]
    Term {
        /// Its position in the message.
        position: usize,
        /// The term before it.
        lo: u64,
        /// The leader's term.
        hi: u64,
        /// The term found.
        found: u64,
    },
    /// Another group's batch.
    #[error("batch {position} of the append: expected group {expected}, found {found}")]
    Group {
        /// Its position in the message.
        position: usize,
        /// This group.
        expected: u32,
        /// The group found.
        found: u32,
    },
    /// Not as many batches as announced.
    #[error("the append announces {expected} batches and holds {found}")]
    Count {
        /// Announced.
        expected: u32,
        /// Held.
        found: usize,
    },
}

/// What became of an AppendEntries.
#[derive(Debug)]
pub enum AppendTaken {
    /// It was stepped through Raft; a reply follows when it is due.
    Stepped,
    /// The log has no room: it was dropped whole, as a lost message would be.
    Dropped(LogRefusal),
    /// It is not valid.
    Invalid(AppendProblem),
}

/// What an append carries, and so which room it needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    Nothing,
    /// What the group itself needs to go on, and to make room again: it gets what a full disk keeps back.
    ControlOnly,
    Records,
}

impl Content {
    fn room(self, bytes: usize, log: &impl EntryLog) -> Result<(), LogRefusal> {
        match self {
            Self::Nothing => Ok(()),
            Self::ControlOnly => log.has_room_for_control(bytes),
            Self::Records => log.has_room(bytes),
        }
    }
}

/// The body of a control entry is looked at before anything is taken.
fn check_control(batch: &BatchRef<'_>) -> Result<(), DecodeError> {
    match batch.header.kind {
        EntryKind::Configuration => decode_members(batch.body()).map(|_| ()),
        EntryKind::LogCreate => LogCreated::decode(batch.body()).map(|_| ()),
        EntryKind::ProducerRegister => ProducerRegistered::decode(batch.body()).map(|_| ()),
        EntryKind::LogChange => LogChange::decode(batch.body()).map(|_| ()),
        EntryKind::Together => decode_together(&batch.header, batch.body()).map(|_| ()),
        EntryKind::CarryOver => decode_carried(&batch.header, batch.body()).map(|_| ()),
        _ => Ok(()),
    }
}

impl Replica {
    /// AppendEntries from `from`, with its batches back to back in `payload`.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_append_entries(
        &mut self,
        now: Now,
        from: NodeId,
        message: &AppendEntries,
        payload: &[u8],
        log: &mut impl EntryLog,
    ) -> Result<AppendTaken, Fatal> {
        let mut metas = std::mem::take(&mut self.metas);
        metas.clear();
        let checked = self.check_batches(message, payload, &mut metas);
        let taken = match checked {
            Err(problem) => Ok(AppendTaken::Invalid(problem)),
            Ok(content) => match content.room(payload.len(), log) {
                Err(refusal @ LogRefusal::Failed(_)) => Err(refusal.into()),
                Err(refusal) if !is_planted(Mutant::AppendWithoutRoom) => {
                    Ok(AppendTaken::Dropped(refusal))
                }
                _ => self.store(now, from, message, payload, &metas, log),
            },
        };
        self.metas = metas;
        taken
    }

    fn check_batches(
        &self,
        message: &AppendEntries,
        payload: &[u8],
        metas: &mut Vec<EntryMeta>,
    ) -> Result<Content, AppendProblem> {
        let mut content = Content::Nothing;
        let mut term = message.prev_term;
        for (position, batch) in Batches::new(payload).enumerate() {
            let damaged = |source| AppendProblem::Batch { position, source };
            let batch = batch.map_err(damaged)?;
            batch.verify_body().map_err(damaged)?;
            check_control(&batch).map_err(damaged)?;
            let header = &batch.header;
            let expected = message.prev_index.wrapping_add(1 + position as u64);
            if header.index != expected {
                return Err(AppendProblem::Order {
                    position,
                    expected,
                    found: header.index,
                });
            }
            if header.term < term.max(1) || header.term > message.term {
                let (lo, hi, found) = (term, message.term, header.term);
                return Err(AppendProblem::Term {
                    position,
                    lo,
                    hi,
                    found,
                });
            }
            if header.group_id != self.config.group_id {
                let (expected, found) = (self.config.group_id, header.group_id);
                return Err(AppendProblem::Group {
                    position,
                    expected,
                    found,
                });
            }
            if matches!(
                header.kind,
                EntryKind::Data | EntryKind::Together | EntryKind::CarryOver
            ) {
                content = Content::Records;
            } else if content == Content::Nothing {
                content = Content::ControlOnly;
            }
            term = header.term;
            metas.push(EntryMeta {
                term,
                bytes: entry_bytes(header.body_len),
            });
        }
        if metas.len() != message.batch_count as usize {
            let (expected, found) = (message.batch_count, metas.len());
            return Err(AppendProblem::Count { expected, found });
        }
        Ok(content)
    }

    fn store(
        &mut self,
        now: Now,
        from: NodeId,
        message: &AppendEntries,
        payload: &[u8],
        metas: &[EntryMeta],
        log: &mut impl EntryLog,
    ) -> Result<AppendTaken, Fatal> {
        let append = raft::AppendEntries {
            term: message.term,
            prev: EntryId {
                term: message.prev_term,
                index: message.prev_index,
            },
            commit_index: message.commit_index,
            session: message.session,
        };
        let outcome = self.raft.step_append(now.mono_us, from, &append, metas);
        // The hard state goes to the log before the entries of its term, and whoever waited on a lost
        // lead is answered; what is committed may be among the entries stored next.
        let commit_index = self.drain_effects_but_commit(now, log)?;
        if let AppendOutcome::Store {
            truncate_from,
            lo,
            hi,
        } = outcome
        {
            if let Some(from_index) = truncate_from {
                self.tables.truncate(from_index);
                log.truncate_suffix(from_index)?;
            }
            for batch in Batches::new(payload) {
                let batch = batch.map_err(|error| Fatal {
                    reason: error.to_string(),
                })?;
                if (lo..hi).contains(&batch.header.index) {
                    log.append_encoded(&batch)?;
                    let (header, header_crc) = (&batch.header, batch.header_crc);
                    let brought = self
                        .tables
                        .appended(header, header_crc, batch.body(), None)?;
                    if let Some(configuration) = brought {
                        // Before anything of this append is acknowledged: that waits for its flush.
                        self.raft
                            .on_configuration_stored(header.index, configuration);
                    }
                }
            }
        }
        if let Some(commit_index) = commit_index {
            self.tables.apply_to(commit_index, &mut self.outputs);
        }
        self.drain_effects(now, log)?;
        Ok(AppendTaken::Stepped)
    }
}
