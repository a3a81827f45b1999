//! Who the members are, by log position: addresses and incarnations beside the core's ids.

use drave_batch::DecodeError;
use drave_batch::control::{Member, MemberRole, Members};

use crate::raft::{Configuration, ConfigurationError, NodeId};

/// The members at the start, and those of each configuration entry after it. In force is the latest one
/// in the log, committed or not, as in the core.
///
/// Invariants: indexes ascend; `base` is at or below the applied index, or is what the replica began with.
#[derive(Clone, Debug)]
pub(super) struct MemberTable {
    base: (u64, Members),
    appended: Vec<(u64, Members)>,
    /// What is in force changed since this was last taken.
    pub changed: bool,
}

impl MemberTable {
    /// A table that begins with the members of the entry at `index`, 0 for those of a new cluster.
    pub(super) fn new(index: u64, members: Members) -> Self {
        Self {
            base: (index, members),
            appended: Vec::new(),
            changed: true,
        }
    }

    /// The members in force.
    pub(super) fn current(&self) -> &Members {
        &self.appended.last().unwrap_or(&self.base).1
    }

    /// The entry that brought them.
    pub(super) fn current_index(&self) -> u64 {
        self.appended.last().unwrap_or(&self.base).0
    }

    /// The latest members that are applied, and their entry.
    pub(super) fn applied(&self) -> (u64, &Members) {
        (self.base.0, &self.base.1)
    }

    pub(super) fn append(&mut self, index: u64, members: Members) {
        self.appended.push((index, members));
        self.changed = true;
    }

    pub(super) fn truncate_from(&mut self, from_index: u64) {
        let count = self.appended.len();
        self.appended.retain(|(index, _)| *index < from_index);
        self.changed |= count != self.appended.len();
    }

    /// The entry at `index` is applied: what it brought is not rolled back any more.
    pub(super) fn apply(&mut self, index: u64) {
        while self.appended.first().is_some_and(|first| first.0 <= index) {
            self.base = self.appended.remove(0);
        }
    }

    /// The body of an entry for the core's `configuration`: ids and roles from it, addresses and
    /// incarnations from what is in force, and from `joining` for the one that is not there yet.
    /// `None` when a member's address is not known.
    pub(super) fn named(
        &self,
        configuration: &Configuration,
        joining: Option<&Member>,
    ) -> Option<Members> {
        let current = self.current();
        let mut members = Vec::new();
        for id in configuration.members() {
            let known = current.members.iter().find(|known| known.node_id == id.0);
            let from = known.or_else(|| joining.filter(|joining| joining.node_id == id.0))?;
            let role = if configuration.voters.contains(&id) {
                Some(MemberRole::Voter)
            } else if configuration.learners.contains(&id) {
                Some(MemberRole::Learner)
            } else {
                None
            };
            members.push(Member {
                node_id: id.0,
                role,
                outgoing_voter: configuration.voters_outgoing.contains(&id),
                incarnation: from.incarnation,
                address: from.address.clone(),
            });
        }
        let last_id = members.last().map_or(0, |member| member.node_id);
        Some(Members {
            node_id_max: current.node_id_max.max(last_id),
            members,
        })
    }
}

/// The core's configuration of these members.
///
/// # Errors
/// [`ConfigurationError`] when they are none.
pub(super) fn configuration_of(members: &Members) -> Result<Configuration, ConfigurationError> {
    let having = |role: MemberRole| {
        members
            .members
            .iter()
            .filter(move |member| member.role == Some(role))
            .map(|member| NodeId(member.node_id))
    };
    let outgoing = members.members.iter().filter(|m| m.outgoing_voter);
    let configuration = Configuration {
        voters: having(MemberRole::Voter).collect(),
        voters_outgoing: outgoing.map(|member| NodeId(member.node_id)).collect(),
        learners: having(MemberRole::Learner).collect(),
    };
    configuration.validate()?;
    Ok(configuration)
}

/// The members and the configuration in the body of an entry.
///
/// # Errors
/// [`DecodeError`], also for members that are no configuration or have no voter.
pub(super) fn decode_members(body: &[u8]) -> Result<(Members, Configuration), DecodeError> {
    let members = Members::decode(body)?;
    let invalid = || DecodeError::Invalid {
        what: "members that are no configuration",
        found: members.members.len() as u64,
    };
    let configuration = configuration_of(&members).map_err(|_| invalid())?;
    if configuration.voters.is_empty() {
        return Err(invalid());
    }
    Ok((members, configuration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node_id: u64, role: MemberRole) -> Member {
        Member {
            node_id,
            role: Some(role),
            outgoing_voter: false,
            incarnation: u128::from(node_id) * 11,
            address: format!("n{node_id}:1"),
        }
    }

    #[test]
    fn members_are_in_force_when_appended_and_gone_when_truncated() {
        let one = Members::first(vec![member(1, MemberRole::Voter)]);
        let mut table = MemberTable::new(0, one.clone());
        assert!(std::mem::take(&mut table.changed));
        let target = Configuration::new([NodeId(1)], [NodeId(4)]).unwrap();
        assert_eq!(
            table.named(&target, None),
            None,
            "nobody has told where node 4 is"
        );
        let joining = member(4, MemberRole::Learner);
        let two = table.named(&target, Some(&joining)).unwrap();
        assert_eq!(two.node_id_max, 4);
        assert_eq!(two.members[1], joining);
        table.append(7, two.clone());
        assert!(std::mem::take(&mut table.changed));
        assert_eq!((table.current_index(), table.applied().0), (7, 0));
        table.truncate_from(8);
        assert!(!table.changed);
        table.truncate_from(7);
        assert!(std::mem::take(&mut table.changed));
        assert_eq!(table.current(), &one);
        table.append(9, two.clone());
        table.apply(8);
        assert_eq!(table.applied().0, 0);
        table.apply(9);
        assert_eq!(table.applied(), (9, &two));
    }

    #[test]
    fn an_id_once_used_stays_used() {
        let both = vec![member(1, MemberRole::Voter), member(9, MemberRole::Voter)];
        let mut table = MemberTable::new(0, Members::first(both));
        let target = Configuration::new([NodeId(1)], []).unwrap();
        let left = table.named(&target, None).unwrap();
        assert_eq!((left.members.len(), left.node_id_max), (1, 9));
        table.append(3, left);
        assert_eq!(table.named(&target, None).unwrap().node_id_max, 9);
    }

    #[test]
    fn a_joint_configuration_survives_its_members() {
        let joint = Configuration {
            voters: vec![NodeId(1), NodeId(3)],
            voters_outgoing: vec![NodeId(1), NodeId(2)],
            learners: vec![NodeId(4)],
        };
        let all = (1..=4).map(|id| member(id, MemberRole::Voter)).collect();
        let table = MemberTable::new(0, Members::first(all));
        let body = table.named(&joint, None).unwrap().encode();
        assert_eq!(decode_members(&body).unwrap().1, joint);
        assert!(decode_members(&Members::default().encode()).is_err());
        let learner_only = Members::first(vec![member(1, MemberRole::Learner)]);
        assert!(decode_members(&learner_only.encode()).is_err());
    }
}
