//! What must hold, whatever happens: one file each, named by the section of Ongaro's thesis.
//!
//! Every checker is fed after each turn of a node, in constant time plus what is new; what is compared in
//! full is compared now and then and at the end. A checker knows nothing of the simulator: it is given a
//! [`View`] of one node and what it needs of the others, so each is tested with a planted violation.

pub mod acknowledged_never_lost;
pub mod bounded_queues;
pub mod commit_never_regresses;
pub mod committed;
pub mod committed_on_durable_majority;
pub mod configuration_safety_4;
pub mod election_safety_3_2;
pub mod exactly_once_6_3;
pub mod fences_hold;
pub mod flushed_is_kept;
pub mod hand_overs_are_rare;
pub mod leader_append_only;
pub mod leader_completeness_3_6;
pub mod log_matching_3_5;
pub mod reads_linearizable_6_4;
pub mod records_are_found;
pub mod state_machine_safety_3_6;
pub mod terms_and_votes_never_regress_3_8;
pub mod times_are_found;

use drave::raft::{Configuration, EntryId, HardState, RoleKind};

use super::shadow::Shadow;

/// A broken invariant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// Whether it holds.
pub type Checked = Result<(), Violation>;

/// Refuses with a text that is made only then.
pub(crate) fn require(
    holds: bool,
    invariant: &'static str,
    what: impl FnOnce() -> String,
) -> Checked {
    if holds {
        return Ok(());
    }
    Err(Violation {
        invariant,
        what: what(),
    })
}

/// One node after one of its turns.
pub struct View<'a> {
    /// Its place; its id is one more.
    pub slot: usize,
    /// Which of its processes.
    pub start: u64,
    /// Its role.
    pub role: RoleKind,
    /// Term and vote as decided.
    pub hard_state: HardState,
    /// Its commit index.
    pub commit_index: u64,
    /// The last index applied.
    pub applied_index: u64,
    /// Its last entry, by the core.
    pub last: EntryId,
    /// The configuration in force at it, and the index that brought it.
    pub configuration: (&'a Configuration, u64),
    /// What its log was told.
    pub shadow: &'a Shadow,
    /// What its log says is durable.
    pub durable_index: u64,
}

impl View<'_> {
    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role == RoleKind::Leader
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::shadow::{Entry, Shadow};
    use super::View;
    use drave::raft::{Configuration, EntryId, HardState, NodeId, RoleKind};
    use drave_batch::EntryKind;

    /// A data entry of this term; equal arguments, equal entry.
    pub(crate) fn entry(term: u64, crc: u32) -> Entry {
        Entry {
            term,
            crc,
            kind: EntryKind::Data,
            record_count: 1,
            log_id: 1,
            first_seq: u64::from(crc),
            change: None,
            carried: None,
            producer_id: 0,
            producer_seq: 0,
            append_time_us: 0,
            operation: u64::from(crc),
        }
    }

    /// A shadow from index 1 with entries of these terms and checksums.
    pub(crate) fn shadow(entries: &[(u64, u32)]) -> Shadow {
        let mut shadow = Shadow::starting_at(1);
        for (term, crc) in entries {
            shadow.push_entry(entry(*term, *crc));
        }
        shadow
    }

    pub(crate) fn three() -> Configuration {
        Configuration::new([NodeId(1), NodeId(2), NodeId(3)], []).unwrap()
    }

    /// A follower of term 1 over this shadow.
    pub(crate) fn view<'a>(shadow: &'a Shadow, configuration: &'a Configuration) -> View<'a> {
        let last = shadow.last_index();
        let term = shadow.get(last).map_or(0, |entry| entry.term);
        View {
            slot: 0,
            start: 1,
            role: RoleKind::Follower,
            hard_state: HardState {
                term: term.max(1),
                vote: None,
            },
            commit_index: 0,
            applied_index: 0,
            last: EntryId { term, index: last },
            configuration: (configuration, 0),
            shadow,
            durable_index: last,
        }
    }
}
