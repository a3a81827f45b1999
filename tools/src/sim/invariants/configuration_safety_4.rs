//! Configuration safety (thesis chapter 4): every node goes by the latest configuration in its log,
//! committed or not; consecutive configurations cannot make two majorities that do not meet; a leader
//! begins a change only when the one before and an entry of its own term are committed.

use std::collections::BTreeSet;

use drave::raft::{Configuration, NodeId};
use drave_batch::control::{MemberRole, Members};

use super::{Checked, View, require};

const NAME: &str = "configuration_safety_4";

/// The sets that must each have a majority.
fn halves(members: &Members) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let of = |votes: &dyn Fn(&drave_batch::control::Member) -> bool| {
        let voters = members.members.iter().filter(|member| votes(member));
        voters.map(|member| member.node_id).collect()
    };
    (
        of(&|member| member.role == Some(MemberRole::Voter)),
        of(&|member| member.outgoing_voter),
    )
}

/// Whether any majority under one meets any majority under the other.
fn overlap(a: &Members, b: &Members) -> bool {
    let ((a_in, a_out), (b_in, b_out)) = (halves(a), halves(b));
    let sets = |incoming: BTreeSet<u64>, outgoing: BTreeSet<u64>| {
        [incoming, outgoing]
            .into_iter()
            .filter(|set| !set.is_empty())
            .collect::<Vec<_>>()
    };
    let (a, b) = (sets(a_in, a_out), sets(b_in, b_out));
    // One pair of sets that differ by at most one voter is enough: each side needs a majority of its own.
    a.iter().any(|a| {
        b.iter().any(|b| {
            let (majority_a, majority_b) = (a.len() / 2 + 1, b.len() / 2 + 1);
            majority_a + majority_b > a.union(b).count()
        })
    })
}

fn same(configuration: &Configuration, members: &Members) -> bool {
    let (incoming, outgoing) = halves(members);
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<BTreeSet<u64>>();
    ids(&configuration.voters) == incoming && ids(&configuration.voters_outgoing) == outgoing
}

/// A node after a turn in which its log's configurations may have changed. `initial` is what the cluster
/// began with.
///
/// # Errors
/// [`super::Violation`]
pub fn check(view: &View<'_>, initial: &Members) -> Checked {
    let node = view.slot + 1;
    let configurations = &view.shadow.configurations;
    if let Some((index, members)) = configurations.back() {
        let in_force = view.configuration.1 == *index && same(view.configuration.0, members);
        require(in_force, NAME, || {
            format!(
                "node {node} goes by the configuration of {}, its log's latest is at {index}",
                view.configuration.1
            )
        })?;
    }
    if view.leads()
        && let Some((index, _)) = configurations.back()
    {
        let term_of = |index| view.shadow.get(index).map(|entry| entry.term);
        let own = Some(view.hard_state.term);
        let is_new = view.shadow.configuration_appended && term_of(*index) == own;
        let knows_all = term_of(view.commit_index).is_none_or(|term| Some(term) == own);
        require(!is_new || knows_all, NAME, || {
            format!(
                "node {node} changes the members at {index} before an entry of its term is committed"
            )
        })?;
    }
    let whole = view.shadow.first_index() == 1;
    let first = whole.then_some(initial);
    let all = first
        .into_iter()
        .chain(configurations.iter().map(|(_, members)| members));
    let all: Vec<&Members> = all.collect();
    for pair in all.windows(2) {
        require(overlap(pair[0], pair[1]), NAME, || {
            format!(
                "node {node}: {:?} and {:?} need not meet",
                halves(pair[0]),
                halves(pair[1])
            )
        })?;
    }
    let open = configurations
        .iter()
        .filter(|(index, _)| *index > view.commit_index)
        .count();
    require(!view.leads() || open <= 1, NAME, || {
        format!("node {node} leads with {open} configurations that are not committed")
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, shadow, view};
    use super::*;
    use drave::raft::RoleKind;
    use drave_batch::control::Member;

    fn members(incoming: &[u64], outgoing: &[u64]) -> Members {
        let ids: BTreeSet<u64> = incoming.iter().chain(outgoing).copied().collect();
        let member = |node_id: u64| Member {
            node_id,
            role: incoming.contains(&node_id).then_some(MemberRole::Voter),
            outgoing_voter: outgoing.contains(&node_id),
            incarnation: 0,
            address: String::new(),
        };
        Members::first(ids.into_iter().map(member).collect())
    }

    fn configuration(ids: &[u64]) -> Configuration {
        Configuration::new(ids.iter().map(|id| NodeId(*id)), []).unwrap()
    }

    #[test]
    fn majorities_that_need_not_meet_are_told() {
        let (three, four) = (members(&[1, 2, 3], &[]), members(&[1, 2, 3, 4], &[]));
        let (five, other) = (members(&[1, 2, 3, 4, 5], &[]), members(&[4, 5, 6], &[]));
        assert!(overlap(&three, &four));
        assert!(!overlap(&three, &five));
        assert!(!overlap(&three, &other));
        let joint = members(&[4, 5, 6], &[1, 2, 3]);
        assert!(overlap(&three, &joint) && overlap(&joint, &other));
    }

    #[test]
    fn a_jump_a_stale_configuration_and_two_open_changes_are_found() {
        let initial = members(&[1, 2, 3], &[]);
        let mut log = shadow(&[(1, 1), (1, 2), (1, 3)]);
        log.configurations
            .push_back((2, members(&[1, 2, 3, 4], &[])));
        let (four, three, five) = (
            configuration(&[1, 2, 3, 4]),
            configuration(&[1, 2, 3]),
            configuration(&[1, 2, 3, 4, 5]),
        );
        let mut node = view(&log, &four);
        node.configuration = (&four, 2);
        assert!(check(&node, &initial).is_ok());
        node.configuration = (&three, 0);
        assert!(check(&node, &initial).is_err(), "stale");
        log.configurations
            .push_back((3, members(&[1, 2, 3, 4, 5], &[])));
        let mut node = view(&log, &five);
        node.configuration = (&five, 3);
        assert!(check(&node, &initial).is_ok());
        node.role = RoleKind::Leader;
        assert!(check(&node, &initial).is_err(), "two open changes");
        node.commit_index = 2;
        assert!(check(&node, &initial).is_ok());
        assert!(check(&node, &members(&[7, 8, 9], &[])).is_err(), "a jump");
        log.configuration_appended = true;
        let mut node = view(&log, &five);
        (node.configuration, node.role, node.commit_index) = ((&five, 3), RoleKind::Leader, 2);
        assert!(check(&node, &initial).is_ok());
        log.push_entry(entry(2, 9));
        log.configurations[1].0 = 4;
        let mut node = view(&log, &five);
        (node.configuration, node.role, node.commit_index) = ((&five, 4), RoleKind::Leader, 3);
        assert!(
            check(&node, &initial).is_err(),
            "before its term's first commit"
        );
    }
}
