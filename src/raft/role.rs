//! The roles, each with the data that only it has.

use super::lease::Lease;
use super::progress::Progress;
use super::quorum::Votes;
use super::read::ReadQueue;
use super::types::NodeId;
use super::uncommitted::Uncommitted;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a node is, without the data.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RoleKind {
    /// Takes entries from a leader; also a learner's role.
    Follower,
    /// Asks whether an election could be won. Still in the old term.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Orders the log.
    Leader,
}

pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

impl Role {
    pub(super) fn kind(&self) -> RoleKind {
        match self {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }
}

/// A follower of one term and, once known, one leader.
pub(super) struct Follower {
    pub(super) leader: Option<NodeId>,
    /// The log up to here equals this leader's: verified by its appends, or committed before.
    pub(super) verified_index: u64,
    /// Highest commit index this leader has told; may be ahead of what is verified.
    pub(super) leader_commit: u64,
    /// Highest index acknowledged to this leader.
    pub(super) acked_index: u64,
    /// An append was accepted and its acknowledgement waits for term and vote to be durable.
    pub(super) ack_due: bool,
    /// Latest session heard from this leader.
    pub(super) session: u64,
}

impl Follower {
    /// By leader completeness, what is committed is in the log of every later leader.
    pub(super) fn new(leader: Option<NodeId>, commit_index: u64) -> Follower {
        Follower {
            leader,
            verified_index: commit_index,
            leader_commit: 0,
            acked_index: 0,
            ack_due: false,
            session: 0,
        }
    }
}

/// A leader of one term.
pub(super) struct Leader {
    /// Every other member, ascending; also members just removed, until that is committed.
    pub(super) peers: Vec<(NodeId, Progress)>,
    /// Index of the no-op that began the term.
    pub(super) term_start_index: u64,
    pub(super) uncommitted: Uncommitted,
    pub(super) reads: ReadQueue,
    pub(super) heartbeat_deadline_us: u64,
    pub(super) quorum_deadline_us: u64,
    pub(super) transfer: Option<Transfer>,
    pub(super) session_last: u64,
    pub(super) lease: Lease,
}

/// A handover under way.
pub(super) struct Transfer {
    pub(super) to: NodeId,
    pub(super) deadline_us: u64,
    /// TimeoutNow has left.
    pub(super) told: bool,
}

impl Leader {
    pub(super) fn progress(&self, peer: NodeId) -> Option<&Progress> {
        let position = self.peers.binary_search_by_key(&peer, |(id, _)| *id).ok()?;
        Some(&self.peers[position].1)
    }

    pub(super) fn progress_mut(&mut self, peer: NodeId) -> Option<&mut Progress> {
        let position = self.peers.binary_search_by_key(&peer, |(id, _)| *id).ok()?;
        Some(&mut self.peers[position].1)
    }

    pub(super) fn next_session(&mut self) -> u64 {
        self.session_last += 1;
        self.session_last
    }
}
