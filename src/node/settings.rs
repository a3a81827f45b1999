//! Settings of the nodes of one cluster, compared when they connect.
//!
//! - `producers_max` must be the same: which producer is forgotten every replica decides for itself from what it
//!   applied, so with different values replicas remember different producers, and a change of leader would take a
//!   known producer for an unknown one. A node that differs is refused.
//! - `election_timeout_min`, and whether there are leases at all, must be the same where there are leases: a leader
//!   answers reads alone for as long as it believes the voters to keep a promise of that length. Who differs is
//!   refused.
//! - Without leases `election_timeout_min` decides only how soon a node campaigns. It may differ while it is changed
//!   on one node after the other, and is told once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use drave_batch::wire::{ErrorCode, PeerSettings};

use crate::config::NodeConfig;

/// This node's settings as others are told them.
pub(super) fn of(config: &NodeConfig) -> PeerSettings {
    PeerSettings {
        producers_max: config.limits.producers_max,
        election_timeout_us_min: config.raft.election_timeout_min.as_us(),
        has_leases: config.raft.lease_drift_ppm.is_some(),
    }
}

/// What becomes of a peer.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    Alike,
    /// It may come in, and should be made alike.
    Tell(String),
    Refuse(String),
}

fn compare(own: &PeerSettings, node_id: u64, other: &PeerSettings) -> Verdict {
    let differs = |setting: &str, expected: String, found: String, why: &str| {
        format!("{setting} is {expected} here and {found} on node {node_id}: {why}")
    };
    if own.producers_max != other.producers_max {
        let (expected, found) = (own.producers_max, other.producers_max);
        return Verdict::Refuse(differs(
            "limits.producers_max",
            expected.to_string(),
            found.to_string(),
            "the replicas would remember different producers",
        ));
    }
    if own.has_leases != other.has_leases {
        let said = |has_leases| if has_leases { "set" } else { "not set" }.to_owned();
        return Verdict::Refuse(differs(
            "raft.lease_drift_ppm",
            said(own.has_leases),
            said(other.has_leases),
            "a lease stands on what all voters promise",
        ));
    }
    if own.election_timeout_us_min == other.election_timeout_us_min {
        return Verdict::Alike;
    }
    let span = |us| format!("{:?}", Duration::from_micros(us));
    let (expected, found) = (own.election_timeout_us_min, other.election_timeout_us_min);
    let (expected, found) = (span(expected), span(found));
    let setting = "raft.election_timeout_min";
    if own.has_leases {
        let why = "a lease lasts as long as every voter waits at least";
        Verdict::Refuse(differs(setting, expected, found, why))
    } else {
        let why = "the one that waits less campaigns more often";
        Verdict::Tell(differs(setting, expected, found, why))
    }
}

/// Judges the peers that connect, and remembers what was told.
#[derive(Debug)]
pub(super) struct Judge {
    own: PeerSettings,
    told: RefCell<BTreeMap<u64, String>>,
}

impl Judge {
    pub(super) fn new(own: PeerSettings) -> Self {
        let told = RefCell::default();
        Self { own, told }
    }

    /// Whether the peer may come in. One that says nothing of its settings may.
    pub(super) fn judge(
        &self,
        node_id: u64,
        other: Option<&PeerSettings>,
    ) -> Result<(), (ErrorCode, String)> {
        let Some(other) = other else {
            return Ok(());
        };
        match compare(&self.own, node_id, other) {
            Verdict::Alike => {
                self.told.borrow_mut().remove(&node_id);
                Ok(())
            }
            Verdict::Tell(text) => {
                let before = self.told.borrow_mut().insert(node_id, text.clone());
                if before.as_ref() != Some(&text) {
                    tracing::warn!(peer = node_id, "{text}");
                }
                Ok(())
            }
            Verdict::Refuse(text) => Err((ErrorCode::SettingsDiffer, text)),
        }
    }
}

#[cfg(test)]
mod tests;
