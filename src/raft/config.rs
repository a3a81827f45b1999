//! The knobs of one node's core and their validation. Cluster membership is in `configuration`.

use super::types::NodeId;
use core::fmt;

/// Settings of one node. All durations in microseconds.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Shortest election timeout; also how long a follower sticks to the leader it heard.
    pub election_timeout_us_min: u64,
    /// Election timeouts are drawn from `[election_timeout_us_min, election_timeout_us_max)`.
    pub election_timeout_us_max: u64,
    /// How often a leader sends heartbeats.
    pub heartbeat_interval_us: u64,
    /// In-flight append messages per peer.
    pub window_entries_max: u32,
    /// In-flight append bytes that a peer may always have; more only as it shows to take them. No more than
    /// `window_bytes_max` counts.
    pub window_bytes_min: u64,
    /// In-flight append bytes per peer at most.
    pub window_bytes_max: u64,
    /// Proposed and not yet committed bytes on a leader; one entry is always admitted.
    pub uncommitted_bytes_max: u64,
    /// Proposed and not yet committed entries on a leader.
    pub uncommitted_entries_max: u32,
    /// Linearizable reads waiting on a leader.
    pub reads_waiting_max: u32,
    /// Heartbeat intervals without progress after which in-flight appends count as lost.
    pub lost_append_heartbeats: u32,
    /// Ask whether an election could be won before starting one.
    pub pre_vote: bool,
    /// A leader that does not hear a quorum steps down.
    pub check_quorum: bool,
    /// Serve linearizable reads from a lease instead of a round, on the promise that no two nodes'
    /// monotonic clocks run apart by more than this many parts in a million. `None`: no leases. The
    /// same on every node of a group, and `election_timeout_us_min` with it: every voter keeps, for that
    /// long, the promise that a lease stands on.
    pub lease_drift_ppm: Option<u32>,
}

impl Config {
    /// Settings for node `id` on a local network; every field may be changed.
    pub fn new(id: NodeId) -> Config {
        Config {
            id,
            election_timeout_us_min: 500_000,
            election_timeout_us_max: 1_000_000,
            heartbeat_interval_us: 50_000,
            window_entries_max: 64,
            window_bytes_min: 1024 * 1024,
            window_bytes_max: 8 * 1024 * 1024,
            uncommitted_bytes_max: 64 * 1024 * 1024,
            uncommitted_entries_max: 65_536,
            reads_waiting_max: 4_096,
            lost_append_heartbeats: 4,
            pre_vote: true,
            check_quorum: true,
            lease_drift_ppm: None,
        }
    }

    /// Refuses settings under which elections or replication could not make progress.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("heartbeat_interval_us", self.heartbeat_interval_us),
            ("window_entries_max", u64::from(self.window_entries_max)),
            ("window_bytes_min", self.window_bytes_min),
            ("window_bytes_max", self.window_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            (
                "uncommitted_entries_max",
                u64::from(self.uncommitted_entries_max),
            ),
            ("reads_waiting_max", u64::from(self.reads_waiting_max)),
            (
                "lost_append_heartbeats",
                u64::from(self.lost_append_heartbeats),
            ),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        let needed_us = self.heartbeat_interval_us.saturating_mul(3);
        if self.election_timeout_us_min < needed_us {
            return Err(ConfigError::ElectionTimeoutTooShort {
                needed_us,
                found_us: self.election_timeout_us_min,
            });
        }
        if self.election_timeout_us_max <= self.election_timeout_us_min {
            return Err(ConfigError::ElectionTimeoutsNotSpread {
                min_us: self.election_timeout_us_min,
                max_us: self.election_timeout_us_max,
            });
        }
        if let Some(drift_ppm) = self.lease_drift_ppm {
            if !self.check_quorum || !self.pre_vote {
                return Err(ConfigError::LeaseWithoutStickiness);
            }
            if drift_ppm > LEASE_DRIFT_PPM_MAX {
                return Err(ConfigError::LeaseDrift {
                    limit_ppm: LEASE_DRIFT_PPM_MAX,
                    found_ppm: drift_ppm,
                });
            }
        }
        Ok(())
    }

    /// How long a leader may rely on a quorum's confirmation, by its own clock: what the quorum has
    /// promised, less what the clocks may run apart meanwhile. `None` without leases.
    pub(super) fn lease_us(&self) -> Option<u64> {
        let drift_ppm = u64::from(self.lease_drift_ppm?);
        // Both clocks may be off by the bound, in opposite directions.
        Some(
            self.election_timeout_us_min / 1_000_000 * (1_000_000 - 2 * drift_ppm)
                + self.election_timeout_us_min % 1_000_000 * (1_000_000 - 2 * drift_ppm)
                    / 1_000_000,
        )
    }

    /// How long in-flight appends may show no progress before they count as lost.
    pub(super) fn lost_append_us(&self) -> u64 {
        self.heartbeat_interval_us
            .saturating_mul(u64::from(self.lost_append_heartbeats))
    }
}

/// Clocks worse than this cannot carry a lease.
const LEASE_DRIFT_PPM_MAX: u32 = 100_000;

/// Why a [`Config`] is refused.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ConfigError {
    /// A limit that must be positive is zero.
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// A follower would time out between two heartbeats.
    ElectionTimeoutTooShort {
        /// Shortest admissible `election_timeout_us_min`.
        needed_us: u64,
        /// What was given.
        found_us: u64,
    },
    /// Without a spread, candidates keep colliding.
    ElectionTimeoutsNotSpread {
        /// `election_timeout_us_min`.
        min_us: u64,
        /// `election_timeout_us_max`, which must be larger.
        max_us: u64,
    },
    /// A lease stands on pre-vote and check-quorum, and one of them is off.
    LeaseWithoutStickiness,
    /// The clocks are allowed to run too far apart.
    LeaseDrift {
        /// Largest admissible `lease_drift_ppm`.
        limit_ppm: u32,
        /// What was given.
        found_ppm: u32,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Zero { field } => write!(formatter, "{field} must be positive, found 0"),
            ConfigError::ElectionTimeoutTooShort {
                needed_us,
                found_us,
            } => write!(
                formatter,
                "election_timeout_us_min must be at least {needed_us} (3 heartbeats), found {found_us}"
            ),
            ConfigError::ElectionTimeoutsNotSpread { min_us, max_us } => write!(
                formatter,
                "election_timeout_us_max must exceed election_timeout_us_min {min_us}, found {max_us}"
            ),
            ConfigError::LeaseWithoutStickiness => {
                write!(formatter, "lease reads need pre_vote and check_quorum")
            }
            ConfigError::LeaseDrift {
                limit_ppm,
                found_ppm,
            } => write!(
                formatter,
                "lease_drift_ppm must be at most {limit_ppm}, found {found_ppm}"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}
