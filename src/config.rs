//! The configuration file: TOML, every key optional, unknown keys refused.
//!
//! Durations and sizes are strings with a unit (`"300ms"`, `"64MiB"`). A value that parses is also
//! checked against the others here, so that what the node gets is valid.

use std::path::{Path, PathBuf};
use std::time::Duration;

use drave_batch::Quota;
use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// Why a configuration was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong form; the message has line and column.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        source: Box<toml::de::Error>,
    },
    /// Values that do not fit each other.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was expected and found.
        reason: String,
    },
}

impl ConfigError {
    /// The exit code of a program that ends for this reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        7
    }
}

/// A duration written with its unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

impl Span {
    /// Whole microseconds.
    #[must_use]
    pub fn as_us(self) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            de::Error::custom(format!("{text:?} is no duration like \"300ms\": {error}"))
        })
    }
}

/// A size written with its unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|error| {
                de::Error::custom(format!("{text:?} is no size like \"64MiB\": {error}"))
            })
    }
}

const fn ms(value: u64) -> Span {
    Span(Duration::from_millis(value))
}

const fn mib(value: u64) -> Size {
    Size(value << 20)
}

/// `[cluster]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// The cluster that the data directory must belong to.
    pub id: Option<String>,
}

/// `[raft]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// The shortest time without a leader's sign of life after which a follower campaigns.
    pub election_timeout_min: Span,
    /// The longest; each wait is drawn between the two.
    pub election_timeout_max: Span,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Span,
    /// Appends that may be unacknowledged at one follower.
    pub window_appends_max: u32,
    /// Bytes of them.
    pub window_bytes_max: Size,
    /// Bytes of one append.
    pub append_bytes_max: Size,
    /// Bytes of entries that a leader takes before they are committed; beyond it answers "busy".
    pub uncommitted_bytes_max: Size,
    /// Serve linearizable reads from a lease, on the promise that clocks run apart by no more than so many
    /// parts in a million. Absent: every read asks a quorum. The same on every node of a
    /// cluster, and `election_timeout_min` with it.
    pub lease_drift_ppm: Option<u32>,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            election_timeout_min: ms(300),
            election_timeout_max: ms(600),
            heartbeat_interval: ms(50),
            window_appends_max: 64,
            window_bytes_max: mib(16),
            append_bytes_max: mib(1),
            uncommitted_bytes_max: mib(64),
            lease_drift_ppm: None,
        }
    }
}

/// `[wal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WalConfig {
    /// Bytes of one segment file.
    pub segment_bytes: Size,
    /// Bytes of one group commit at most.
    pub group_bytes_max: Size,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: mib(64),
            group_bytes_max: Size(512 << 10),
        }
    }
}

/// `[snapshots]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotsConfig {
    /// Applied entries after which the replica's state is stored: what a restart has to read again.
    pub entries: u64,
    /// Bytes of applied entries after which it is stored, if that is sooner.
    pub log_bytes: Size,
    /// Bytes of one snapshot at most: what is taken into memory from a leader.
    pub bytes_max: Size,
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self {
            entries: 65_536,
            log_bytes: mib(64),
            bytes_max: mib(256),
        }
    }
}

/// `[scrub]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// Bytes of the log and of snapshots read and checked in a second; 0 for none.
    pub bytes_per_second: Size,
    /// From the end of one pass over everything to the beginning of the next.
    pub interval: Span,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self {
            bytes_per_second: mib(16),
            interval: Span(Duration::from_hours(24)),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at most; by default what the limit of open files allows, and 4096 at most.
    pub connections_max: Option<u32>,
    /// How long a new connection may take to say who it is.
    pub handshake_timeout: Span,
    /// Bytes of requests that one client may have unanswered.
    pub client_credit_bytes: Size,
    /// Bytes of one record.
    pub record_bytes_max: Size,
    /// Named logs in the group.
    pub logs_max: u32,
    /// Producers remembered; the one idle for longest is forgotten first.
    pub producers_max: u32,
    /// Tailing readers.
    pub tails_max: u32,
    /// Bytes of batches that a leader takes of one connection in a second, 0 for no limit.
    pub client_bytes_per_second: Size,
    /// Records that it takes of one connection in a second, 0 for no limit.
    pub client_records_per_second: u64,
}

impl LimitsConfig {
    /// What one connection may append.
    #[must_use]
    pub fn client_quota(&self) -> Quota {
        Quota {
            bytes_per_second: self.client_bytes_per_second.0,
            records_per_second: self.client_records_per_second,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: None,
            handshake_timeout: ms(3000),
            client_credit_bytes: mib(8),
            record_bytes_max: Size(u64::from(drave_batch::RECORD_BYTES_MAX)),
            logs_max: 100_000,
            producers_max: 65_536,
            tails_max: 16_384,
            client_bytes_per_second: Size(0),
            client_records_per_second: 0,
        }
    }
}

/// `[fault]`: switches for tests of this program. Never to be used where data matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultConfig {
    /// What the file `fault` in the data directory says is done to the log's flushes (`docs/torture.md`).
    pub disk: bool,
}

/// The whole configuration of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Which cluster.
    pub cluster: ClusterConfig,
    /// Raft's timers and windows.
    pub raft: RaftConfig,
    /// The write-ahead log.
    pub wal: WalConfig,
    /// Snapshots of the replica's state.
    pub snapshots: SnapshotsConfig,
    /// The scrubber.
    pub scrub: ScrubConfig,
    /// Limits.
    pub limits: LimitsConfig,
    /// Switches for tests.
    pub fault: FaultConfig,
}

impl NodeConfig {
    /// The configuration of a file, or the defaults.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Whether the values fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`]
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, reason: String| Err(ConfigError::Value { key, reason });
        let raft = &self.raft;
        if raft.heartbeat_interval.as_us() == 0 {
            return refuse("raft.heartbeat_interval", "must be over zero".to_owned());
        }
        if raft.election_timeout_min.as_us() < 3 * raft.heartbeat_interval.as_us() {
            return refuse(
                "raft.election_timeout_min",
                format!(
                    "must be at least 3 heartbeat intervals ({:?}), is {:?}",
                    raft.heartbeat_interval.0 * 3,
                    raft.election_timeout_min.0
                ),
            );
        }
        if raft.election_timeout_max.as_us() <= raft.election_timeout_min.as_us() {
            return refuse(
                "raft.election_timeout_max",
                format!(
                    "must be over election_timeout_min ({:?}), is {:?}",
                    raft.election_timeout_min.0, raft.election_timeout_max.0
                ),
            );
        }
        let payload = u64::from(drave_batch::wire::FRAME_PAYLOAD_BYTES_MAX);
        let batch = drave_batch::encoded_bytes(drave_batch::BODY_BYTES_MAX) as u64;
        if !(64 << 10..=payload - batch).contains(&raft.append_bytes_max.0) {
            let reason = format!(
                "must be from 64KiB to {}, is {}",
                payload - batch,
                raft.append_bytes_max.0
            );
            return refuse("raft.append_bytes_max", reason);
        }
        if raft.window_appends_max == 0 || raft.window_bytes_max.0 < raft.append_bytes_max.0 {
            return refuse(
                "raft.window_bytes_max",
                "must hold at least one append".to_owned(),
            );
        }
        if raft.uncommitted_bytes_max.0 < 2 * batch {
            return refuse(
                "raft.uncommitted_bytes_max",
                format!("must be at least {}", 2 * batch),
            );
        }
        if raft.lease_drift_ppm.is_some_and(|ppm| ppm > 100_000) {
            return refuse("raft.lease_drift_ppm", "must be at most 100000".to_owned());
        }
        if self.snapshots.entries < 8 {
            return refuse("snapshots.entries", "must be at least 8".to_owned());
        }
        if self.scrub.interval.0 < Duration::from_millis(100) {
            return refuse("scrub.interval", "must be at least 100ms".to_owned());
        }
        if !(1 << 20..=1 << 32).contains(&self.snapshots.bytes_max.0) {
            return refuse(
                "snapshots.bytes_max",
                "must be from 1MiB to 4GiB".to_owned(),
            );
        }
        if self.limits.connections_max.is_some_and(|max| max < 8) {
            return refuse(
                "limits.connections_max",
                "must be at least 8: the other nodes need some".to_owned(),
            );
        }
        let limit = u64::from(drave_batch::RECORD_BYTES_MAX);
        if !(1..=limit).contains(&self.limits.record_bytes_max.0) {
            let found = self.limits.record_bytes_max.0;
            return refuse(
                "limits.record_bytes_max",
                format!("must be from 1 to {limit}, is {found}"),
            );
        }
        if self.limits.client_credit_bytes.0 < 2 * batch
            || self.limits.client_credit_bytes.0 > 1 << 30
        {
            return refuse(
                "limits.client_credit_bytes",
                format!("must be from {} to 1GiB", 2 * batch),
            );
        }
        let segment = self.wal.segment_bytes.0;
        if !(8 << 20..=1 << 30).contains(&segment) || !segment.is_multiple_of(4096) {
            return refuse(
                "wal.segment_bytes",
                "must be from 8MiB to 1GiB in steps of 4KiB".to_owned(),
            );
        }
        if !(4096..=4 << 20).contains(&self.wal.group_bytes_max.0) {
            return refuse(
                "wal.group_bytes_max",
                "must be from 4KiB to 4MiB".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        NodeConfig::load(Some(file.path()))
    }

    #[test]
    fn defaults_are_valid() {
        NodeConfig::default().check().unwrap();
    }

    #[test]
    fn units_are_read() {
        let config =
            parse("[raft]\nheartbeat_interval = \"20ms\"\n[wal]\nsegment_bytes = \"16MiB\"")
                .unwrap();
        assert_eq!(config.raft.heartbeat_interval.as_us(), 20_000);
        assert_eq!(config.wal.segment_bytes.0, 16 << 20);
    }

    #[test]
    fn unknown_keys_and_bare_numbers_are_refused() {
        for text in [
            "[raft]\nheartbeat = \"20ms\"",
            "[raft]\nheartbeat_interval = 20",
            "[other]\na = 1",
            "[",
        ] {
            assert!(
                matches!(parse(text), Err(ConfigError::Parse { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused_by_key() {
        for (text, expected) in [
            (
                "[raft]\nelection_timeout_min = \"100ms\"",
                "raft.election_timeout_min",
            ),
            (
                "[raft]\nelection_timeout_max = \"300ms\"",
                "raft.election_timeout_max",
            ),
            (
                "[raft]\nappend_bytes_max = \"4MiB\"",
                "raft.append_bytes_max",
            ),
            (
                "[limits]\nrecord_bytes_max = \"2MiB\"",
                "limits.record_bytes_max",
            ),
            ("[wal]\nsegment_bytes = \"1MiB\"", "wal.segment_bytes"),
            ("[raft]\nlease_drift_ppm = 200000", "raft.lease_drift_ppm"),
            ("[snapshots]\nentries = 1", "snapshots.entries"),
            ("[snapshots]\nbytes_max = \"1KiB\"", "snapshots.bytes_max"),
            ("[limits]\nconnections_max = 0", "limits.connections_max"),
        ] {
            match parse(text) {
                Err(ConfigError::Value { key, .. }) => assert_eq!(key, expected),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
