//! What a log has reported durable is there after a loss of power, and so is the hard state: what the disks
//! really hold is at least what everything else was built on.

use drave::raft::HardState;

use super::super::shadow::Shadow;
use super::{Checked, require};

const NAME: &str = "flushed_is_kept";

/// What a node's log had reported when its process ended.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// What the log was told.
    pub shadow: Shadow,
    /// Durable up to here.
    pub durable_index: u64,
    /// The last hard state reported durable.
    pub hard_state: HardState,
}

/// Compares what was recovered with what had been reported.
///
/// # Errors
/// [`super::Violation`]
pub fn check(
    slot: usize,
    reported: &Reported,
    recovered: &Shadow,
    hard_state: HardState,
) -> Checked {
    let node = slot + 1;
    require(hard_state.term >= reported.hard_state.term, NAME, || {
        format!(
            "node {node}: {:?} was durable, {hard_state:?} was recovered",
            reported.hard_state
        )
    })?;
    let same_term = hard_state.term == reported.hard_state.term;
    let vote_kept =
        reported.hard_state.vote.is_none() || hard_state.vote == reported.hard_state.vote;
    require(!same_term || vote_kept, NAME, || {
        format!(
            "node {node}: {:?} was durable, {hard_state:?} was recovered",
            reported.hard_state
        )
    })?;
    let first_index = reported.shadow.first_index().max(recovered.first_index());
    let start_max = reported
        .shadow
        .first_index()
        .max(reported.durable_index + 1);
    require(recovered.first_index() <= start_max, NAME, || {
        format!(
            "node {node}: the log begins at {} after a crash",
            recovered.first_index()
        )
    })?;
    for index in first_index..=reported.durable_index {
        let (before, after) = (reported.shadow.get(index), recovered.get(index));
        require(before.is_none() || before == after, NAME, || {
            format!(
                "node {node}: entry {index} was durable as {before:?}, recovered is {after:?}; \
                 the log was durable up to {} and now ends at {}",
                reported.durable_index,
                recovered.last_index()
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::shadow;
    use super::*;
    use drave::raft::NodeId;

    #[test]
    fn what_is_missing_or_other_than_reported_is_found() {
        let state = |term, vote: Option<u64>| HardState {
            term,
            vote: vote.map(NodeId),
        };
        let reported = Reported {
            shadow: shadow(&[(1, 1), (1, 2), (1, 3)]),
            durable_index: 2,
            hard_state: state(3, Some(2)),
        };
        let now =
            |entries: &[(u64, u32)], hard_state| check(0, &reported, &shadow(entries), hard_state);
        let good = state(3, Some(2));
        assert!(now(&[(1, 1), (1, 2)], good).is_ok());
        assert!(now(&[(1, 1), (1, 2), (2, 9)], state(4, None)).is_ok());
        assert!(now(&[(1, 1)], good).is_err());
        assert!(now(&[(1, 1), (1, 7)], good).is_err());
        assert!(now(&[(1, 1), (1, 2)], state(2, Some(2))).is_err());
        assert!(now(&[(1, 1), (1, 2)], state(3, None)).is_err());
    }
}
