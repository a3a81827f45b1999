//! The incarnation each peer is known by, kept for good.
//!
//! A node that was wiped and formatted anew has forgotten its votes; under its old node id it would
//! vote as its predecessor. A member that was added is named with its incarnation in the configuration.
//! For the members a cluster was formatted with, the first incarnation seen is recorded, and another one
//! is refused (`docs/format.md`, "Incarnation pins").

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use drave_batch::control::Members;
use drave_batch::wire::{ErrorCode, HelloAck};
use drave_batch::{DecodeError, Reader, Writer, checksum};
use drave_net::{ConnId, Net};

use crate::store::StoreError;

const PINS_FILE: &str = "PINS";
const PINS_MAGIC: u64 = u64::from_le_bytes(*b"DRAVEPIN");
const PINS_VERSION: u32 = 1;

/// The pins of one data directory.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
    members: Members,
    /// Members that have left and are still told so.
    departing: Vec<u64>,
    incarnations: BTreeMap<u64, u128>,
    saved: bool,
}

impl Pins {
    /// The pins as recorded; none in a new directory.
    pub(crate) fn load(dir: &Path, members: Members) -> Result<Self, StoreError> {
        let path = dir.join(PINS_FILE);
        let incarnations = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|source| StoreError::Damaged { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        Ok(Self {
            dir: dir.to_owned(),
            members,
            departing: Vec::new(),
            incarnations,
            saved: true,
        })
    }

    /// The members are these now, and `departing` are still told that they have left.
    pub(crate) fn follow(&mut self, members: Members, departing: Vec<u64>) {
        self.members = members;
        self.departing = departing;
    }

    /// The incarnation a node is known by.
    pub(crate) fn known(&self, node_id: u64) -> Option<u128> {
        let named = self.members.members.iter().find(|m| m.node_id == node_id);
        named
            .map(|member| member.incarnation)
            .filter(|incarnation| *incarnation != 0)
            .or_else(|| self.incarnations.get(&node_id).copied())
    }

    /// Whether the node may come in as who it says it is; remembers it if it is new.
    ///
    /// A node may be a member by an entry that has not come here yet, and it may be the very leader that
    /// would bring it: who has an id above all that were ever used is let in. Who has one that was used
    /// and is no member has been removed.
    pub(crate) fn judge(
        &mut self,
        node_id: u64,
        incarnation: u128,
    ) -> Result<(), (ErrorCode, String)> {
        let is_member = self.members.members.iter().any(|m| m.node_id == node_id);
        if !is_member && !self.departing.contains(&node_id) && node_id <= self.members.node_id_max {
            let ids = self.members.members.iter().map(|m| m.node_id);
            let message = format!(
                "node {node_id} is not a member: it was removed, or never was one; the members are {:?}",
                ids.collect::<Vec<_>>()
            );
            return Err((ErrorCode::UnknownMember, message));
        }
        match self.known(node_id) {
            Some(known) if known != incarnation => Err((
                ErrorCode::WrongIncarnation,
                format!(
                    "node {node_id} is known by incarnation {known:032x}, not {incarnation:032x}: \
                     its store was replaced, and may have forgotten votes"
                ),
            )),
            Some(_) => Ok(()),
            None => {
                if is_member {
                    self.incarnations.insert(node_id, incarnation);
                    self.saved = false;
                }
                Ok(())
            }
        }
    }

    /// Judges the node that answered a dial, and closes the connection if it is refused. One that is let in is
    /// recorded: a peer's incarnation is on disk before anything it says counts.
    pub(crate) fn admit(&mut self, net: &Net, conn: ConnId, ack: &HelloAck) -> io::Result<bool> {
        if let Err((code, message)) = self.judge(ack.node_id, ack.incarnation) {
            tracing::error!(peer = ack.node_id, %code, message, "peer refused");
            net.close_with(conn, code, &message);
            return Ok(false);
        }
        self.save().map(|()| true)
    }

    /// Records what is new. Blocks for one flush, once per peer in the life of a store.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        if self.saved {
            return Ok(());
        }
        let temporary = self.dir.join("PINS.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&encode(&self.incarnations))?;
        file.sync_all()?;
        fs::rename(&temporary, self.dir.join(PINS_FILE))?;
        File::open(&self.dir)?.sync_all()?;
        self.saved = true;
        Ok(())
    }
}

fn encode(incarnations: &BTreeMap<u64, u128>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.u64(PINS_MAGIC);
    writer.u32(PINS_VERSION);
    writer.u32(incarnations.len() as u32);
    for (node_id, incarnation) in incarnations {
        writer.u64(*node_id);
        writer.u128(*incarnation);
    }
    let crc = checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<u64, u128>, DecodeError> {
    let body = &bytes[..bytes.len().saturating_sub(4)];
    let expected = Reader::new("pins", &bytes[body.len()..]).u32()?;
    let found = checksum(body);
    if expected != found {
        return Err(DecodeError::Checksum {
            what: "pins",
            expected,
            found,
        });
    }
    let mut fields = Reader::new("pins", body);
    let magic = fields.u64()?;
    if magic != PINS_MAGIC {
        return Err(DecodeError::Magic {
            what: "pins",
            expected: PINS_MAGIC,
            found: magic,
        });
    }
    let version = fields.u32()?;
    if version != PINS_VERSION {
        let (expected, found) = (PINS_VERSION.into(), version.into());
        return Err(DecodeError::Version {
            what: "pins",
            expected,
            found,
        });
    }
    let mut incarnations = BTreeMap::new();
    for _ in 0..fields.u32()? {
        incarnations.insert(fields.u64()?, fields.u128()?);
    }
    fields.finish()?;
    Ok(incarnations)
}

#[cfg(test)]
mod tests {
    use drave_batch::control::Member;

    use super::*;

    fn members(of: &[(u64, u128)]) -> Members {
        let member = |(node_id, incarnation): &(u64, u128)| Member {
            node_id: *node_id,
            role: None,
            outgoing_voter: false,
            incarnation: *incarnation,
            address: String::new(),
        };
        Members::first(of.iter().map(member).collect())
    }

    #[test]
    fn the_first_incarnation_of_a_node_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path(), members(&[(1, 0), (2, 0)])).unwrap();
        pins.judge(2, 7).unwrap();
        pins.save().unwrap();
        let mut pins = Pins::load(dir.path(), members(&[(1, 0), (2, 0)])).unwrap();
        assert_eq!(pins.known(2), Some(7));
        pins.judge(2, 7).unwrap();
        assert_eq!(pins.judge(2, 8).unwrap_err().0, ErrorCode::WrongIncarnation);
        assert_eq!(pins.known(3), None);
    }

    #[test]
    fn a_member_that_was_added_is_known_by_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path(), members(&[(1, 0), (4, 44)])).unwrap();
        assert_eq!(
            pins.judge(4, 45).unwrap_err().0,
            ErrorCode::WrongIncarnation
        );
        pins.judge(4, 44).unwrap();
        pins.save().unwrap();
        assert!(!dir.path().join(PINS_FILE).exists(), "nothing to pin");
    }

    #[test]
    fn who_was_removed_stays_out_and_who_may_be_coming_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path(), members(&[(1, 0), (4, 44)])).unwrap();
        assert_eq!(pins.judge(2, 7).unwrap_err().0, ErrorCode::UnknownMember);
        pins.judge(5, 8).unwrap();
        pins.judge(5, 9).unwrap();
        pins.follow(members(&[(1, 0), (4, 44)]), vec![2]);
        pins.judge(2, 7).unwrap();
        let mut joining = Pins::load(dir.path(), Members::default()).unwrap();
        joining.judge(1, 3).unwrap();
        joining.judge(1, 4).unwrap();
    }

    #[test]
    fn damage_is_found() {
        let good = encode(&BTreeMap::from([(1, 2), (3, 4)]));
        decode(&good).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
