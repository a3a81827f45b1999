//! What a damaged log still holds, as the one that is repaired and as one that others repair theirs from.

use bytes::Bytes;
use drave_batch::control::Members;
use drave_batch::wire::{EntriesHeld, EntriesReply, EntriesRequest};
use drave_batch::{Batches, EntryKind};
use drave_wal::{OfferError, Salvage};

use super::NodeError;
use super::entries::{answer_bytes_max, outside};
use super::snapshots::SnapshotFiles;
use super::start::{self, GROUP_ID};
use crate::repair::{self, Gap, LastEntry, Refused};
use crate::store::Store;

/// A salvaged log, and the members that came to light in what was fetched.
pub(super) struct Patient {
    salvage: Salvage,
    members: Option<(u64, Members)>,
}

impl Patient {
    pub(super) fn new(salvage: Salvage) -> Self {
        let members = None;
        Self { salvage, members }
    }

    pub(super) fn salvage(&self) -> &Salvage {
        &self.salvage
    }

    pub(super) fn into_salvage(self) -> Salvage {
        self.salvage
    }

    /// The latest members fetched since this was last asked, and the entry that brought them.
    pub(super) fn take_members(&mut self) -> Option<(u64, Members)> {
        self.members.take()
    }

    /// The answer to another member. Blocks on the disk.
    pub(super) fn answer(
        &self,
        request: &EntriesRequest,
        commit_index: u64,
    ) -> (EntriesReply, Vec<Bytes>) {
        let (first_index, end) = (self.salvage.first_index(), self.salvage.last_index() + 1);
        if let Some(reply) = outside(request, first_index, end, commit_index) {
            return (reply, Vec::new());
        }
        let lo = request.lo;
        let mut missing = self.salvage.missing().iter();
        if let Some(gap) = missing.find(|gap| (gap.lo..gap.hi).contains(&lo)) {
            let reply = EntriesReply {
                held: EntriesHeld::NotHeld,
                lo: gap.lo,
                hi: gap.hi,
                commit_index,
            };
            return (reply, Vec::new());
        }
        let bytes_max = answer_bytes_max(request);
        let (mut bytes, mut pieces) = (0, Vec::new());
        let mut hi = lo;
        while hi < request.hi.min(end) {
            let encoded = match self.salvage.read(hi) {
                Ok(Some(encoded)) => encoded,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(index = hi, %error, "an entry for a member cannot be read");
                    break;
                }
            };
            if bytes > 0 && bytes + encoded.len() > bytes_max {
                break;
            }
            bytes += encoded.len();
            pieces.push(encoded);
            hi += 1;
        }
        let held = if hi > lo {
            EntriesHeld::Held
        } else {
            // Fetched and not written yet, or a disk that fails now and then.
            EntriesHeld::Busy
        };
        let reply = EntriesReply {
            held,
            lo,
            hi,
            commit_index,
        };
        (reply, pieces)
    }
}

impl repair::Patient for Patient {
    fn missing(&self) -> Vec<Gap> {
        let missing = self.salvage.missing().iter();
        missing
            .map(|gap| Gap {
                lo: gap.lo,
                hi: gap.hi,
            })
            .collect()
    }

    fn offer(&mut self, batches: &[u8]) -> Result<(), Refused> {
        self.salvage.offer(batches).map_err(refused)?;
        if let Some(found) = newest_members(batches) {
            let known = self.members.as_ref().map_or(0, |(index, _)| *index);
            if found.0 > known {
                self.members = Some(found);
            }
        }
        Ok(())
    }

    fn set_end(&mut self, last: LastEntry) -> Result<(), Refused> {
        let set = self.salvage.set_end(last.index, last.term, last.crc);
        set.map_err(|error| Refused::Invalid(error.to_string()))
    }
}

fn refused(error: OfferError) -> Refused {
    match error {
        OfferError::Chain { .. } => Refused::Other,
        OfferError::Io { .. } => Refused::Failed(error.to_string()),
        other => Refused::Invalid(other.to_string()),
    }
}

/// The latest members that can still be read, and the entry that brought them: from the entries, the newest
/// snapshot, or the store's founding members.
pub(super) fn members_known(store: &Store, salvage: &Salvage) -> Result<(u64, Members), NodeError> {
    let files = SnapshotFiles::open(store.dir(), GROUP_ID).map_err(|source| NodeError::Io {
        what: "opening the snapshots",
        source,
    })?;
    let ids = files.present().iter().rev();
    let snapshot = ids
        .filter_map(|(id, _)| start::read_snapshot(&files, *id))
        .next();
    let (mut known, read_from) = match snapshot {
        Some(snapshot) => {
            let known = (snapshot.configuration_index, snapshot.members);
            (known, snapshot.last.index + 1)
        }
        None => ((0, store.identity.members.clone()), 1),
    };
    for index in (read_from.max(salvage.first_index())..=salvage.last_index()).rev() {
        // What cannot be read here is damaged, and asked for like the rest.
        if let Ok(Some(encoded)) = salvage.read(index)
            && let Some(found) = newest_members(&encoded)
        {
            known = found;
            break;
        }
    }
    Ok(known)
}

/// The last configuration in encoded batches, and its index.
fn newest_members(encoded: &[u8]) -> Option<(u64, Members)> {
    let batches = Batches::new(encoded).filter_map(Result::ok);
    let configurations = batches.filter(|batch| batch.header.kind == EntryKind::Configuration);
    configurations
        .filter_map(|batch| {
            let members = Members::decode(batch.body()).ok()?;
            Some((batch.header.index, members))
        })
        .last()
}
