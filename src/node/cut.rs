//! A log that an operator cut: what is remembered of it beside the log, and who may go on with it.
//!
//! What was cut off may have been acknowledged. Alone, a voter may go on without: nobody else counts on it. With
//! other voters it must not: it would vote as if it had never promised what it gave up.

use std::path::Path;
use std::time::Duration;

use drave_batch::control::{MemberRole, Members};
use drave_wal::Salvage;

use super::NodeError;
use super::patient::members_known;
use super::snapshots::SnapshotFiles;
use crate::replica::{HardStateRecord, LogCut};
use crate::store::{Store, StoreError};

/// Who votes beside a node, as far as its directory says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OtherVoters {
    /// Nobody.
    None,
    /// These.
    Known(Vec<u64>),
    /// It cannot be found out.
    Unknown,
}

/// A log that may be cut, and what is to be recorded beside it when it is.
pub struct CutPlan {
    /// Who votes beside the node.
    pub other_voters: OtherVoters,
    /// The log's new value, to be given to [`Salvage::cut`].
    pub value: Vec<u8>,
    /// Keeps the node from starting meanwhile.
    _store: Option<Store>,
}

/// What cutting a salvaged log means to the cluster of the node that it belongs to. `data_dir` is where the node's
/// identity should be. None if the log is no node's: it has no value, or one that is no hard state.
///
/// # Errors
/// [`NodeError`]: the directory is in use, or cannot be read.
pub fn plan_cut(data_dir: &Path, salvage: &Salvage) -> Result<Option<CutPlan>, NodeError> {
    let value = salvage.meta_value().unwrap_or_default();
    let Ok(record) = HardStateRecord::decode(&value) else {
        return Ok(None);
    };
    let store = match Store::open(data_dir, None, Duration::ZERO) {
        Ok(store) => Some(store),
        Err(StoreError::Unformatted { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let other_voters = match &store {
        Some(store) => {
            let (_, members) = members_known(store, salvage)?;
            others(store.identity.node_id, record.vote, &members)
        }
        None => OtherVoters::Unknown,
    };
    let missing = salvage.missing().first();
    let next_index = missing.map_or(salvage.last_index() + 1, |missing| missing.lo);
    let before = record.cut;
    let cut = LogCut {
        next_index: before.map_or(next_index, |before| before.next_index.min(next_index)),
        has_other_voters: other_voters != OtherVoters::None
            || before.is_some_and(|before| before.has_other_voters),
    };
    let record = HardStateRecord {
        cut: Some(cut),
        commit_index_hint: record.commit_index_hint.min(cut.next_index - 1),
        ..record
    };
    Ok(Some(CutPlan {
        other_voters,
        value: record.encode(),
        _store: store,
    }))
}

/// A vote for another node shows that there is one, though the entry that made it a member be lost.
fn others(node_id: u64, vote: u64, members: &Members) -> OtherVoters {
    let mut voters: Vec<u64> = voters(members).filter(|voter| *voter != node_id).collect();
    if vote != 0 && vote != node_id && !voters.contains(&vote) {
        voters.push(vote);
    }
    if !voters.is_empty() {
        return OtherVoters::Known(voters);
    }
    if members.members.is_empty() {
        return OtherVoters::Unknown;
    }
    OtherVoters::None
}

fn voters(members: &Members) -> impl Iterator<Item = u64> + '_ {
    let members = members.members.iter();
    let voting =
        members.filter(|member| member.role == Some(MemberRole::Voter) || member.outgoing_voter);
    voting.map(|member| member.node_id)
}

/// Whether a node may start beside `members` on a log that says `record` of itself.
pub(super) fn check(
    node_id: u64,
    record: &HardStateRecord,
    members: &Members,
) -> Result<(), NodeError> {
    let Some(cut) = record.cut else {
        return Ok(());
    };
    if cut.has_other_voters || others(node_id, record.vote, members) != OtherVoters::None {
        let next_index = cut.next_index;
        return Err(NodeError::Cut { next_index });
    }
    Ok(())
}

/// Takes the snapshots of what was cut off out of use; to be removed once the node may start.
pub(super) fn hide_snapshots(
    record: &HardStateRecord,
    snapshots: &mut SnapshotFiles,
) -> Vec<std::path::PathBuf> {
    match record.cut {
        Some(cut) => snapshots.hide_from(cut.next_index),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use drave_batch::control::Member;

    use super::*;

    fn member(node_id: u64, role: Option<MemberRole>, outgoing_voter: bool) -> Member {
        Member {
            node_id,
            role,
            outgoing_voter,
            incarnation: 0,
            address: String::new(),
        }
    }

    fn record(vote: u64, has_other_voters: bool) -> HardStateRecord {
        let cut = LogCut {
            next_index: 5,
            has_other_voters,
        };
        HardStateRecord {
            vote,
            cut: Some(cut),
            ..HardStateRecord::default()
        }
    }

    fn may_start(record: &HardStateRecord, members: &[Member]) -> bool {
        let members = Members::first(members.to_vec());
        match check(1, record, &members) {
            Ok(()) => true,
            Err(NodeError::Cut { next_index: 5 }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn only_who_votes_alone_goes_on_with_a_cut_log() {
        let own = member(1, Some(MemberRole::Voter), false);
        let learner = member(2, Some(MemberRole::Learner), false);
        let alone = [own.clone(), learner];
        assert!(may_start(&record(0, false), &alone[..1]));
        assert!(may_start(&record(1, false), &alone));
        for other in [
            member(2, Some(MemberRole::Voter), false),
            member(2, None, true),
            member(2, Some(MemberRole::Learner), true),
        ] {
            assert!(!may_start(&record(1, false), &[own.clone(), other]));
        }
        assert!(
            !may_start(&record(1, true), &alone),
            "who cut it knew better"
        );
        assert!(
            !may_start(&record(3, false), &alone),
            "it voted for another"
        );
        assert!(!may_start(&record(0, false), &[]), "nobody is known");
    }

    #[test]
    fn a_log_that_was_not_cut_is_any_members() {
        let two = [1, 2].map(|id| member(id, Some(MemberRole::Voter), false));
        assert!(may_start(&HardStateRecord::default(), &two));
    }
}
