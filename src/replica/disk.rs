//! How this node's disk does and how its peers' do, and what a leader makes of it.

use super::hand_over::Candidate;
use super::{DiskReport, DiskState, EntryLog, Fatal, HandOverOrder, Now, Replica};
use crate::raft::{NodeId, ProgressState, ProgressView};

impl Replica {
    /// What this node says of its disk in its answers to a leader.
    #[must_use]
    pub fn disk_report(&self) -> DiskReport {
        self.hand_over.report()
    }

    /// A peer says how its disk does.
    pub fn on_disk_report(&mut self, peer: NodeId, report: DiskReport) {
        if self.is_leader() && self.raft.progress().any(|view| view.peer == peer) {
            self.hand_over.reported(peer, report);
        }
    }

    /// Takes in how the own disk does; to be called once in every turn. A leader whose disk does much worse
    /// than a peer's begins to hand over the lead, which is said.
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn mind_disk(
        &mut self,
        now: Now,
        state: DiskState,
        log: &mut impl EntryLog,
    ) -> Result<Option<HandOverOrder>, Fatal> {
        let record_bytes_max = self.config.record_bytes_max as usize;
        let has_room = log.has_room(record_bytes_max) != Err(super::LogRefusal::NoSpace);
        self.hand_over.measured(now.mono_us, state, has_room);
        if !self.hand_over.has_cause(now.mono_us)
            || !self.is_leader()
            || self.raft.transferring_to().is_some()
        {
            return Ok(None);
        }
        let candidates: Vec<Candidate> = self
            .raft
            .progress()
            .filter(|view| self.could_lead(now, view))
            .map(|view| Candidate {
                peer: view.peer,
                match_index: view.match_index,
            })
            .collect();
        let order = self.hand_over.order(now.mono_us, candidates.into_iter());
        let Some(order) = order else {
            return Ok(None);
        };
        let begun = self.raft.transfer_leadership(now.mono_us, order.to);
        self.drain_effects(now, log)?;
        Ok(begun.is_ok().then_some(order))
    }

    /// Whether a peer votes, answers, and holds everything committed, so that it can lead at once.
    fn could_lead(&self, now: Now, view: &ProgressView) -> bool {
        self.raft.configuration().voters.contains(&view.peer)
            && self.is_active(now, view.peer)
            && view.state == ProgressState::Replicate
            && view.match_index >= self.raft.commit_index()
    }
}
