//! The incarnation each peer is known by, kept for good.
//!
//! A node that was wiped and formatted anew has forgotten its votes; under its old node id it would
//! vote as its predecessor. So the first incarnation seen of a node id is recorded, and another one is
//! refused (`docs/format.md`, "Incarnation pins").

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use drave_batch::wire::ErrorCode;
use drave_batch::{DecodeError, Reader, Writer, checksum};

use crate::store::StoreError;

const PINS_FILE: &str = "PINS";
const PINS_MAGIC: u64 = u64::from_le_bytes(*b"DRAVEPIN");
const PINS_VERSION: u32 = 1;

/// The pins of one data directory.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
    members: Vec<u64>,
    incarnations: BTreeMap<u64, u128>,
    saved: bool,
}

impl Pins {
    /// The pins as recorded; none in a new directory.
    pub(crate) fn load(dir: &Path, members: Vec<u64>) -> Result<Self, StoreError> {
        let path = dir.join(PINS_FILE);
        let incarnations = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|source| StoreError::Damaged { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        Ok(Self {
            dir: dir.to_owned(),
            members,
            incarnations,
            saved: true,
        })
    }

    /// The incarnation a node is known by.
    pub(crate) fn known(&self, node_id: u64) -> Option<u128> {
        self.incarnations.get(&node_id).copied()
    }

    /// Whether the node may come in as who it says it is; remembers it if it is new.
    pub(crate) fn judge(
        &mut self,
        node_id: u64,
        incarnation: u128,
    ) -> Result<(), (ErrorCode, String)> {
        if !self.members.contains(&node_id) {
            let message = format!(
                "node {node_id} is not a member: the members are {:?}",
                self.members
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
                self.incarnations.insert(node_id, incarnation);
                self.saved = false;
                Ok(())
            }
        }
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
    use super::*;

    #[test]
    fn the_first_incarnation_of_a_node_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(dir.path(), vec![1, 2]).unwrap();
        pins.judge(2, 7).unwrap();
        pins.save().unwrap();
        let mut pins = Pins::load(dir.path(), vec![1, 2]).unwrap();
        assert_eq!(pins.known(2), Some(7));
        pins.judge(2, 7).unwrap();
        assert_eq!(pins.judge(2, 8).unwrap_err().0, ErrorCode::WrongIncarnation);
        assert_eq!(pins.judge(3, 8).unwrap_err().0, ErrorCode::UnknownMember);
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
