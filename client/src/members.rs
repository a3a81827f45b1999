//! The group's members: who they are, changing them, handing over the lead, and who a node says it is.
//!
//! Every decision is the leader's. Changes are idempotent there, so one whose answer was lost is asked for
//! again: of whoever leads then.

use std::time::Duration;

use drave_batch::control::MemberRole;
use drave_batch::wire::{
    LeaderTransfer, LeaderTransferred, MemberChange, MemberList, MemberListed, MemberOperation,
    Status, StatusReply,
};
use tokio::time::{Instant, timeout_at};

use crate::ClientError;
use crate::call::{Answer, Call};
use crate::cluster::is_address;
use crate::connection::{DialOptions, LinkError, cut_text, dial};

/// The configuration that is in force when any will do.
const ANY_CONFIGURATION: u64 = u64::MAX;

/// The members as the leader knows them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Members {
    /// The leader's term.
    pub term: u64,
    /// The leader's node id.
    pub leader_id: u64,
    /// Its commit index.
    pub commit_index: u64,
    /// Index of the entry that brought this configuration; 0 for the one the cluster was formatted with.
    pub configuration_index: u64,
    /// Whether that entry is committed: else a change is under way.
    pub is_committed: bool,
    /// The highest id that was ever a member's. Ids are not used again: a new node's is above it.
    pub node_id_max: u64,
    /// The members, ascending by node id.
    pub members: Vec<Member>,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Member {
    /// Its node id.
    pub node_id: u64,
    /// Its HOST:PORT.
    pub address: String,
    /// What it is in the configuration in force; `None` for a voter that leaves with the change under way.
    pub role: Option<MemberRole>,
    /// Whether it votes in the outgoing half of a joint configuration.
    pub outgoing_voter: bool,
    /// Which store it is known by; 0 while it is not known.
    pub incarnation: u128,
    /// Its log is known to be durable and equal to the leader's up to this index.
    pub match_index: u64,
    /// Entries of the leader's log that it is not known to have.
    pub lag_entries: u64,
    /// Since the leader last heard it; `None` when it never did.
    pub last_active: Option<Duration>,
    /// Whether it is level with the leader, so that it may be promoted now.
    pub is_caught_up: bool,
}

impl Members {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, node_id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.node_id == node_id)
    }

    /// Whether the configuration is a joint one, in which two majorities decide.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|member| member.outgoing_voter)
    }

    /// Whether a change of members is under way.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.is_joint() || !self.is_committed
    }

    /// How many of the voters may fail, whichever they are, before the group stops. `is_failed` says which
    /// count as failed already. `None` when the group has no majority as it is.
    #[must_use]
    pub fn failures_tolerated(&self, is_failed: impl Fn(&Member) -> bool) -> Option<usize> {
        let spare = |votes: &dyn Fn(&Member) -> bool| {
            let voters = self.members.iter().filter(|member| votes(member));
            let (mut count, mut alive) = (0_usize, 0_usize);
            for voter in voters {
                count += 1;
                alive += usize::from(!is_failed(voter));
            }
            alive.checked_sub(count / 2 + 1)
        };
        let incoming = spare(&|member| member.role == Some(MemberRole::Voter))?;
        if !self.is_joint() {
            return Some(incoming);
        }
        // The worst failures all hit the half that can spare fewer.
        Some(incoming.min(spare(&|member| member.outgoing_voter)?))
    }

    fn checked(address: &str, listed: MemberListed) -> Result<Self, ClientError> {
        let misbehaved = |what, expected, found| ClientError::Misbehaved {
            address: address.to_owned(),
            what,
            expected,
            found,
        };
        let mut members: Vec<Member> = Vec::with_capacity(listed.members.len());
        for status in listed.members {
            let node_id = status.member.node_id;
            let last = members.last().map_or(0, |last: &Member| last.node_id);
            if node_id <= last || node_id > listed.node_id_max {
                return Err(misbehaved("members in order of their ids", last, node_id));
            }
            members.push(Member {
                node_id,
                address: status.member.address,
                role: status.member.role,
                outgoing_voter: status.member.outgoing_voter,
                incarnation: status.member.incarnation,
                match_index: status.match_index,
                lag_entries: status.lag_entries,
                last_active: (status.last_active_ms != u64::MAX)
                    .then(|| Duration::from_millis(status.last_active_ms)),
                is_caught_up: status.is_caught_up,
            });
        }
        Ok(Self {
            term: listed.term,
            leader_id: listed.leader_id,
            commit_index: listed.commit_index,
            configuration_index: listed.configuration_index,
            is_committed: listed.is_committed,
            node_id_max: listed.node_id_max,
            members,
        })
    }
}

/// A change of members.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MembersChange {
    /// A new node is to receive the log, without a vote.
    AddLearner {
        /// Its id, above every id that was ever a member's.
        node_id: u64,
        /// Its HOST:PORT.
        address: String,
        /// Its store, as [`probe_identity`] tells it.
        incarnation: u128,
    },
    /// A learner that has caught up is to vote.
    Promote {
        /// The learner.
        node_id: u64,
    },
    /// A member is to leave.
    Remove {
        /// The member.
        node_id: u64,
    },
    /// A learner that has caught up takes the place of a voter, in one joint change.
    Replace {
        /// The member that leaves.
        old: u64,
        /// The learner that comes.
        new: u64,
    },
}

impl MembersChange {
    fn to_wire(&self, expected_configuration_index: Option<u64>) -> MemberChange {
        let (operation, node_id, other_node_id) = match self {
            Self::AddLearner { node_id, .. } => (MemberOperation::AddLearner, *node_id, 0),
            Self::Promote { node_id } => (MemberOperation::Promote, *node_id, 0),
            Self::Remove { node_id } => (MemberOperation::Remove, *node_id, 0),
            Self::Replace { old, new } => (MemberOperation::Replace, *new, *old),
        };
        let (address, incarnation) = match self {
            Self::AddLearner {
                address,
                incarnation,
                ..
            } => (address.clone(), *incarnation),
            _ => (String::new(), 0),
        };
        MemberChange {
            operation,
            node_id,
            other_node_id,
            incarnation,
            expected_configuration_index: expected_configuration_index.unwrap_or(ANY_CONFIGURATION),
            address,
        }
    }
}

/// Who leads after the lead was handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Leadership {
    /// The leader's node id.
    pub leader_id: u64,
    /// Its term.
    pub term: u64,
}

fn taken_over(call: &Call<'_>, answer: Answer<MemberListed>) -> Result<Members, ClientError> {
    let members = Members::checked(&answer.address, answer.message)?;
    for member in &members.members {
        call.cluster.learn(&member.address, member.node_id);
    }
    Ok(members)
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Members, ClientError> {
    taken_over(call, call.run(&MemberList {}).await?)
}

pub(crate) async fn change(
    call: &Call<'_>,
    change: &MembersChange,
    expected_configuration_index: Option<u64>,
) -> Result<Members, ClientError> {
    if let MembersChange::AddLearner { address, .. } = change
        && !is_address(address)
    {
        let what = format!("{:?} is not HOST:PORT", cut_text(address.clone()));
        return Err(ClientError::Argument { what });
    }
    let request = change.to_wire(expected_configuration_index);
    taken_over(call, call.run(&request).await?)
}

pub(crate) async fn transfer(call: &Call<'_>, to: u64) -> Result<Leadership, ClientError> {
    let answer = call
        .run::<_, LeaderTransferred>(&LeaderTransfer { to })
        .await?;
    let LeaderTransferred { leader_id, term } = answer.message;
    if leader_id != to {
        return Err(ClientError::Misbehaved {
            address: answer.address,
            what: "the lead where it was asked for",
            expected: to,
            found: leader_id,
        });
    }
    Ok(Leadership { leader_id, term })
}

/// Who a node says it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster_id: String,
    /// Its node id.
    pub node_id: u64,
    /// The life of its store: made anew whenever a store is formatted.
    pub incarnation: u128,
    /// The members that it knows, node id and HOST:PORT; none in a store that was made to join and has not
    /// been told of its cluster yet.
    pub members: Vec<(u64, String)>,
}

/// Asks the node at `address` (HOST:PORT), and no other, who it is; within `timeout`. Any cluster's node
/// answers; what it says is not proof of anything.
///
/// # Errors
/// [`ClientError::Argument`]; [`ClientError::Unavailable`] or [`ClientError::Refused`] when it does not
/// answer as a node does.
pub async fn probe_identity(address: &str, timeout: Duration) -> Result<NodeIdentity, ClientError> {
    if !is_address(address) {
        let what = format!("{:?} is not HOST:PORT", cut_text(address.to_owned()));
        return Err(ClientError::Argument { what });
    }
    let deadline = Instant::now() + timeout;
    let options = DialOptions {
        connect_timeout: timeout,
        cluster_id: None,
    };
    let unavailable = |error: LinkError| error.unavailable(1);
    let connection = dial(address, &options).await.map_err(unavailable)?;
    let ack = connection.ack().clone();
    let silent = || LinkError::Silent {
        address: address.to_owned(),
        silence_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let asked = async {
        let reservation = connection.reserve(0).await.map_err(|_| silent())?;
        let receiver = connection.send(reservation, &Status {}, &[])?;
        let frame = receiver.await.map_err(|_| silent())??;
        frame
            .decode::<StatusReply>()
            .map_err(|source| LinkError::Damaged {
                address: address.to_owned(),
                source,
            })
    };
    let status = match timeout_at(deadline, asked).await {
        Ok(status) => status.map_err(unavailable)?,
        Err(_) => return Err(unavailable(silent())),
    };
    let members = status.members.into_iter();
    Ok(NodeIdentity {
        cluster_id: ack.cluster_id,
        node_id: ack.node_id,
        incarnation: ack.incarnation,
        members: members
            .map(|member| (member.node_id, member.address))
            .collect(),
    })
}

#[cfg(test)]
mod tests;
