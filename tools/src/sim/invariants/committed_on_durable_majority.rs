//! What a leader commits is on the stable storage of a majority of the voters of the configuration in
//! force, of both majorities while it is joint; and what a follower acknowledges is on its own.

use drave::raft::{Configuration, NodeId};

use super::super::shadow::Entry;
use super::{Checked, View, require};

const NAME: &str = "committed_on_durable_majority";

/// A leader's commit index has moved. `before` is what it went by before this turn: it may have committed
/// first and changed the members then. `holds` says whether a node has the entry of an index on stable
/// storage.
///
/// # Errors
/// [`super::Violation`]
pub fn check(
    view: &View<'_>,
    before: Option<&Configuration>,
    holds: impl Fn(NodeId, u64, &Entry) -> bool,
) -> Checked {
    let now = check_under(view, view.configuration.0, &holds);
    match before {
        Some(before) if before != view.configuration.0 => {
            now.or_else(|violation| check_under(view, before, &holds).map_err(|_| violation))
        }
        _ => now,
    }
}

fn check_under(
    view: &View<'_>,
    configuration: &Configuration,
    holds: &impl Fn(NodeId, u64, &Entry) -> bool,
) -> Checked {
    let Some(entry) = view.shadow.get(view.commit_index) else {
        return Ok(());
    };
    for voters in [&configuration.voters, &configuration.voters_outgoing] {
        let count = voters
            .iter()
            .filter(|voter| holds(**voter, view.commit_index, entry))
            .count();
        require(voters.is_empty() || count > voters.len() / 2, NAME, || {
            format!(
                "node {} committed {} in term {}: of {voters:?} only {count} have it on stable storage",
                view.slot + 1,
                view.commit_index,
                view.hard_state.term
            )
        })?;
    }
    Ok(())
}

/// A node tells a leader that it has everything up to `match_index` on stable storage.
///
/// # Errors
/// [`super::Violation`]
pub fn check_acknowledgement(view: &View<'_>, match_index: u64) -> Checked {
    // What was truncated later in the same turn was durable when it was acknowledged.
    let cut = view
        .shadow
        .truncated_from
        .is_some_and(|from| from <= match_index);
    require(match_index <= view.durable_index || cut, NAME, || {
        format!(
            "node {} acknowledges {match_index}, its log is durable up to {}",
            view.slot + 1,
            view.durable_index
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shadow, three, view};
    use super::*;

    #[test]
    fn a_commit_without_a_majority_of_either_half_is_found() {
        let (entries, three) = (shadow(&[(1, 1)]), three());
        let mut leader = view(&entries, &three);
        leader.commit_index = 1;
        let only =
            |ids: &'static [u64]| move |node: NodeId, _: u64, _: &Entry| ids.contains(&node.0);
        assert!(check(&leader, None, only(&[1, 2])).is_ok());
        assert!(check(&leader, None, only(&[2])).is_err());
        let joint = Configuration {
            voters: vec![NodeId(3), NodeId(4), NodeId(5)],
            voters_outgoing: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: Vec::new(),
        };
        leader.configuration = (&joint, 1);
        assert!(check(&leader, None, only(&[3, 4, 5])).is_err());
        assert!(check(&leader, None, only(&[1, 2, 3])).is_err());
        assert!(check(&leader, None, only(&[1, 3, 4])).is_ok());
        assert!(check(&leader, Some(&three), only(&[1, 2])).is_ok());
        assert!(check(&leader, Some(&three), only(&[2])).is_err());
    }

    #[test]
    fn an_acknowledgement_ahead_of_the_disk_is_found() {
        let (entries, three) = (shadow(&[(1, 1), (1, 2)]), three());
        let mut follower = view(&entries, &three);
        follower.durable_index = 1;
        assert!(check_acknowledgement(&follower, 1).is_ok());
        assert!(check_acknowledgement(&follower, 2).is_err());
    }
}
