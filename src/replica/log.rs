//! What the replica asks of a group's log, and how a log says no.

use drave_batch::{BatchHeader, BatchRef};
use thiserror::Error;

use super::HardStateRecord;

/// Why the group's log does not take an entry.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum LogRefusal {
    /// More is waiting to be flushed than it takes.
    #[error("{queued_bytes} bytes wait to be flushed")]
    Full {
        /// Bytes waiting.
        queued_bytes: u64,
    },
    /// There is no room on the disk.
    #[error("no space on the disk")]
    NoSpace,
    /// Anything else: the node cannot go on with this group.
    #[error("{0}")]
    Failed(String),
}

/// The group's log as the replica uses it. Nothing is durable when a call returns; the shell reports
/// completed flushes through [`super::Replica::on_log_durable`] and
/// [`super::Replica::on_hard_state_durable`].
pub trait EntryLog {
    /// Whether `bytes` more of any kind are taken now.
    ///
    /// # Errors
    /// [`LogRefusal`] tells why not.
    fn has_room(&self, bytes: usize) -> Result<(), LogRefusal>;
    /// Whether `bytes` more of control entries are taken now: they may use what a full disk keeps back
    /// from records.
    ///
    /// # Errors
    /// [`LogRefusal`] tells why not.
    fn has_room_for_control(&self, bytes: usize) -> Result<(), LogRefusal>;
    /// Bytes of the files that hold nothing but entries before `index`: what letting those go gives back.
    fn bytes_before(&self, index: u64) -> u64;
    /// Appends a new entry, completing the header's chain.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn append(&mut self, header: &mut BatchHeader, body: &[u8]) -> Result<(), LogRefusal>;
    /// The header checksum of the last entry, which the next one's chain names.
    fn last_crc(&self) -> u32;
    /// Appends an entry that another node encoded, byte for byte.
    ///
    /// # Errors
    /// [`LogRefusal`], also when index or chain do not follow the last entry.
    fn append_encoded(&mut self, batch: &BatchRef<'_>) -> Result<(), LogRefusal>;
    /// Drops the entries from `from_index` on.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn truncate_suffix(&mut self, from_index: u64) -> Result<(), LogRefusal>;
    /// Lets entries below `first_index_kept` go, or as many of them as its files allow.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn truncate_prefix(&mut self, first_index_kept: u64) -> Result<(), LogRefusal>;
    /// Drops every entry; the log goes on at `next_index`, behind an entry of `term` whose header
    /// checksum is `crc`. A hard state written before is durable before this is.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn reset(&mut self, next_index: u64, term: u64, crc: u32) -> Result<(), LogRefusal>;
    /// Writes the hard state; no entry appended after this call is flushed before it.
    ///
    /// # Errors
    /// [`LogRefusal`]
    fn write_hard_state(&mut self, record: HardStateRecord) -> Result<(), LogRefusal>;
}
