//! A snapshot from the leader: collected in memory up to a bound, made durable, and only then installed.

use drave_batch::wire::{SnapshotChunk, SnapshotReply};
use drave_batch::{DecodeError, checksum};
use thiserror::Error;

use super::super::tables::Tables;
use super::super::{EntryLog, Fatal, LogRefusal, Now, Replica};
use super::StateSnapshot;
use crate::raft::mutants::{Mutant, is_planted};
use crate::raft::{Durable, EntryId, NodeId, SnapshotOutcome};

/// Bytes that a reset of the log needs.
const RESET_BYTES: usize = 4096;

/// What is wrong with a chunk: its sender has a bug, or the bytes were damaged. The connection is closed.
#[derive(Clone, Debug, Error)]
pub enum SnapshotProblem {
    /// Numbers that contradict each other.
    #[error("snapshot chunk at {offset} of {total_bytes} bytes holds {found}")]
    Bounds {
        /// Where it begins.
        offset: u64,
        /// Of how many bytes.
        total_bytes: u64,
        /// Bytes it holds.
        found: usize,
    },
    /// More than this node takes into its memory.
    #[error("the snapshot has {found} bytes, at most {limit} are taken (snapshot_bytes_max)")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// What was announced.
        found: u64,
    },
    /// The chunk's checksum does not fit.
    #[error("snapshot chunk checksum: expected {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// As announced.
        expected: u32,
        /// Of what came.
        found: u32,
    },
    /// The whole of it does not decode.
    #[error("snapshot: {0}")]
    Content(DecodeError),
    /// It is not what was announced.
    #[error(
        "the snapshot was announced as of entry {expected} of group {group_id}, it is of {found}"
    )]
    Other {
        /// As announced.
        expected: EntryId,
        /// What came.
        found: EntryId,
        /// This group.
        group_id: u32,
    },
}

/// What became of a chunk.
#[derive(Debug)]
pub enum SnapshotTaken {
    /// It was taken, or answered.
    Stepped,
    /// It is of a session that is over, or of a leader that is none any more: not answered.
    Ignored,
    /// It is not valid. What was collected is thrown away.
    Invalid(SnapshotProblem),
}

#[derive(Debug)]
enum Stage {
    Collecting,
    /// Complete; the term of its last entry is not durable here yet.
    Complete(Box<StateSnapshot>),
    /// The shell makes it durable.
    Storing(Box<StateSnapshot>),
}

/// The one snapshot that is being received.
#[derive(Debug)]
pub(in super::super) struct Receiving {
    from: NodeId,
    term: u64,
    session: u64,
    last: EntryId,
    total_bytes: u64,
    /// Invariant: at most `total_bytes`, which are within the limit; grows as chunks come.
    bytes: Vec<u8>,
    stage: Stage,
}

impl Receiving {
    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    pub(super) fn from(&self) -> NodeId {
        self.from
    }

    pub(super) fn reply(&self, next_offset: u64, installed: bool) -> SnapshotReply {
        SnapshotReply {
            term: self.term,
            session: self.session,
            snapshot_index: self.last.index,
            next_offset,
            installed,
            pause_us: 0,
        }
    }

    /// Whether a chunk goes on with what was collected: it may come in a later session of the same leader.
    fn continues_with(&self, from: NodeId, chunk: &SnapshotChunk) -> bool {
        self.from == from
            && self.term == chunk.term
            && self.last == last_of(chunk)
            && self.total_bytes == chunk.total_bytes
    }
}

fn last_of(chunk: &SnapshotChunk) -> EntryId {
    EntryId {
        term: chunk.snapshot_term,
        index: chunk.snapshot_index,
    }
}

impl Replica {
    /// A chunk of a snapshot from the leader. The answer is in [`super::super::Outputs::snapshot_replies`];
    /// a complete snapshot goes to [`super::super::Outputs::store_snapshot`].
    pub fn on_snapshot_chunk(
        &mut self,
        from: NodeId,
        chunk: &SnapshotChunk,
        payload: &[u8],
    ) -> SnapshotTaken {
        // The leader is known by its heartbeats; until then it sends again.
        if chunk.term != self.raft.term() || self.raft.leader() != Some(from) || self.is_leader() {
            return SnapshotTaken::Ignored;
        }
        if let Err(problem) = self.check_chunk(chunk, payload) {
            return SnapshotTaken::Invalid(problem);
        }
        if chunk.snapshot_index <= self.raft.commit_index() {
            let reply = SnapshotReply {
                term: chunk.term,
                session: chunk.session,
                snapshot_index: chunk.snapshot_index,
                next_offset: chunk.total_bytes,
                installed: true,
                pause_us: 0,
            };
            self.outputs.snapshot_replies.push((from, reply));
            return SnapshotTaken::Stepped;
        }
        if self.receiving_pause.in_force_us() > 0 {
            let reply = SnapshotReply {
                term: chunk.term,
                session: chunk.session,
                snapshot_index: chunk.snapshot_index,
                next_offset: 0,
                installed: false,
                pause_us: self.receiving_pause.in_force_us(),
            };
            self.outputs.snapshot_replies.push((from, reply));
            return SnapshotTaken::Stepped;
        }
        if !self.join_session(from, chunk) {
            return SnapshotTaken::Ignored;
        }
        let Some(receiving) = &mut self.receiving else {
            return SnapshotTaken::Ignored;
        };
        if matches!(receiving.stage, Stage::Collecting)
            && chunk.offset == receiving.bytes.len() as u64
        {
            receiving.bytes.extend_from_slice(payload);
            if let Err(problem) = complete(receiving, self.config.group_id) {
                self.receiving = None;
                return SnapshotTaken::Invalid(problem);
            }
        }
        let (next_offset, installed) = match receiving.stage {
            Stage::Collecting => (receiving.bytes.len() as u64, false),
            // Durable is not yet installed: only that is said.
            _ => (
                receiving.total_bytes,
                is_planted(Mutant::SnapshotAcknowledgedEarly),
            ),
        };
        let reply = receiving.reply(next_offset, installed);
        self.outputs.snapshot_replies.push((from, reply));
        self.store_complete();
        SnapshotTaken::Stepped
    }

    fn check_chunk(&self, chunk: &SnapshotChunk, payload: &[u8]) -> Result<(), SnapshotProblem> {
        let limit = self.config.snapshot_bytes_max;
        if chunk.total_bytes > limit {
            let found = chunk.total_bytes;
            return Err(SnapshotProblem::TooLarge { limit, found });
        }
        let end = chunk.offset.checked_add(payload.len() as u64);
        if end.is_none_or(|end| end > chunk.total_bytes)
            || chunk.total_bytes == 0
            || chunk.snapshot_term > chunk.term
        {
            return Err(SnapshotProblem::Bounds {
                offset: chunk.offset,
                total_bytes: chunk.total_bytes,
                found: payload.len(),
            });
        }
        let (expected, found) = (chunk.payload_crc, checksum(payload));
        if expected != found {
            return Err(SnapshotProblem::Checksum { expected, found });
        }
        Ok(())
    }

    /// Makes the chunk's session the one that is received, unless it is over or another is being stored.
    fn join_session(&mut self, from: NodeId, chunk: &SnapshotChunk) -> bool {
        if let Some(receiving) = &mut self.receiving {
            let is_older = receiving.from == from
                && receiving.term == chunk.term
                && chunk.session < receiving.session;
            if is_older {
                return false;
            }
            if receiving.continues_with(from, chunk) {
                receiving.session = chunk.session;
                return true;
            }
            if matches!(receiving.stage, Stage::Storing(_)) {
                return false;
            }
        }
        self.receiving = Some(Receiving {
            from,
            term: chunk.term,
            session: chunk.session,
            last: last_of(chunk),
            total_bytes: chunk.total_bytes,
            bytes: Vec::new(),
            stage: Stage::Collecting,
        });
        true
    }

    /// Has a complete snapshot made durable, once the term of its last entry is: a log that begins after an
    /// entry of a term that could be forgotten would not be taken at the next start.
    pub(in super::super) fn store_complete(&mut self) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        if self.hard_state_durable.term < receiving.last.term {
            return;
        }
        match std::mem::replace(&mut receiving.stage, Stage::Collecting) {
            Stage::Complete(snapshot) => {
                receiving.stage = Stage::Storing(snapshot);
                let bytes = std::mem::take(&mut receiving.bytes);
                self.outputs.store_snapshot = Some((receiving.last, bytes));
            }
            other => receiving.stage = other,
        }
    }

    /// Another leader, or none: what it began to send is not completed by the next one.
    pub(in super::super) fn leave_session(&mut self, term: u64, leader: Option<NodeId>) {
        self.receiving.take_if(|receiving| {
            let is_current = receiving.term == term && leader.is_none_or(|l| l == receiving.from);
            !is_current && !matches!(receiving.stage, Stage::Storing(_))
        });
    }

    /// The snapshot that [`super::super::Outputs::store_snapshot`] gave out could not be stored: the leader is told
    /// to wait before it sends one again.
    pub fn on_snapshot_not_durable(&mut self, now: Now, id: EntryId) {
        let receiving = self.receiving.take_if(|receiving| receiving.last == id);
        if let Some(receiving) = receiving {
            self.pause_receiving(now, &receiving);
        }
    }

    /// The snapshot that [`super::super::Outputs::store_snapshot`] gave out is durable: the log goes on
    /// after it, if it holds nothing better, and the leader is told.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn on_snapshot_durable(
        &mut self,
        now: Now,
        id: Durable<EntryId>,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let of_it = |receiving: &mut Receiving| {
            receiving.last == *id.get() && matches!(receiving.stage, Stage::Storing(_))
        };
        let Some(receiving) = self.receiving.take_if(of_it) else {
            return Ok(());
        };
        let Stage::Storing(snapshot) = &receiving.stage else {
            return Ok(());
        };
        match log.has_room_for_control(RESET_BYTES) {
            // Nothing is lost: the leader sends it again when there may be room.
            Err(LogRefusal::NoSpace) => {
                self.pause_receiving(now, &receiving);
                return Ok(());
            }
            Err(refusal @ LogRefusal::Failed(_)) => return Err(refusal.into()),
            Ok(()) | Err(LogRefusal::Full { .. }) => {}
        }
        let (from, term) = (receiving.from, receiving.term);
        // The bytes of this very snapshot were flushed: that is what was attested.
        let meta = Durable::attest(snapshot.meta());
        let outcome = self.raft.install_snapshot(now.mono_us, from, term, &meta);
        match outcome {
            SnapshotOutcome::Ignored => {
                if self.raft.commit_index() < receiving.last.index {
                    return self.drain_effects(now, log);
                }
            }
            SnapshotOutcome::KeepLog => self.snapshots.keep(receiving.last),
            SnapshotOutcome::ResetLog => self.replace_log(snapshot, log)?,
        }
        self.receiving_pause.end();
        let reply = receiving.reply(receiving.total_bytes, true);
        self.outputs.snapshot_replies.push((from, reply));
        self.drain_effects(now, log)
    }

    fn replace_log(
        &mut self,
        snapshot: &StateSnapshot,
        log: &mut impl EntryLog,
    ) -> Result<(), Fatal> {
        let EntryId { term, index } = snapshot.last;
        log.reset(index + 1, term, snapshot.header_crc)?;
        let tables = Tables::from_snapshot(self.config.producers_max, snapshot);
        let before = std::mem::replace(&mut self.tables, tables);
        self.tables.keep_reads_of(before);
        self.snapshots.replaced(snapshot.last);
        self.outputs.log_replaced = true;
        let logs = snapshot.logs.iter().map(|log| log.log_id);
        self.outputs.advanced.extend(logs);
        Ok(())
    }
}

/// Decodes what is whole, and checks that it is what was announced.
fn complete(receiving: &mut Receiving, group_id: u32) -> Result<(), SnapshotProblem> {
    if (receiving.bytes.len() as u64) < receiving.total_bytes {
        return Ok(());
    }
    let snapshot = StateSnapshot::decode(&receiving.bytes).map_err(SnapshotProblem::Content)?;
    if snapshot.last != receiving.last || snapshot.group_id != group_id {
        return Err(SnapshotProblem::Other {
            expected: receiving.last,
            found: snapshot.last,
            group_id,
        });
    }
    receiving.stage = Stage::Complete(Box::new(snapshot));
    Ok(())
}
