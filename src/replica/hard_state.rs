//! Term and vote as the group's log keeps them: one record, replaced whole.

use drave_batch::{DecodeError, Reader, Writer};

const HARD_STATE_VERSION: u32 = 1;

/// The version of a record beside a log that was cut: a program that knows nothing of cuts must not start on it.
const HARD_STATE_CUT_VERSION: u32 = 2;

/// Entries that were durable here, and may have been acknowledged, were given up on an operator's demand
/// (`drave wal repair --cut-at-damage`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogCut {
    /// The first index that was given up.
    pub next_index: u64,
    /// Another voter was known when the log was cut: it may count on what was given up.
    pub has_other_voters: bool,
}

/// The part of a hard state that a group keeps in its log's meta record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HardStateRecord {
    /// The term.
    pub term: u64,
    /// Who got the vote in that term, 0 for nobody.
    pub vote: u64,
    /// A commit index known when the record was written: a hint, never needed.
    pub commit_index_hint: u64,
    /// The log was cut, and no node has decided since that it may be used. A record that a replica writes says
    /// nothing of it.
    pub cut: Option<LogCut>,
}

impl HardStateRecord {
    /// The record's bytes (`docs/format.md`, "Hard state").
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        let mut writer = Writer::new(&mut out);
        writer.u32(match self.cut {
            None => HARD_STATE_VERSION,
            Some(_) => HARD_STATE_CUT_VERSION,
        });
        writer.u32(0);
        writer.u64(self.term);
        writer.u64(self.vote);
        writer.u64(self.commit_index_hint);
        if let Some(cut) = self.cut {
            writer.u64(cut.next_index);
            writer.u8(u8::from(cut.has_other_voters));
        }
        out
    }

    /// The record of these bytes, whose checksum the meta record has checked.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("hard state", bytes);
        let version = fields.u32()?;
        if !(HARD_STATE_VERSION..=HARD_STATE_CUT_VERSION).contains(&version) {
            let (expected, found) = (HARD_STATE_CUT_VERSION.into(), version.into());
            return Err(DecodeError::Version {
                what: "hard state",
                expected,
                found,
            });
        }
        fields.u32()?;
        let record = Self {
            term: fields.u64()?,
            vote: fields.u64()?,
            commit_index_hint: fields.u64()?,
            cut: match version {
                HARD_STATE_CUT_VERSION => Some(LogCut {
                    next_index: fields.u64()?,
                    has_other_voters: fields.bool("hard state cut")?,
                }),
                _ => None,
            },
        };
        fields.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_its_bytes() {
        let record = HardStateRecord {
            term: 7,
            vote: 3,
            commit_index_hint: 99,
            cut: None,
        };
        let cut = HardStateRecord {
            cut: Some(LogCut {
                next_index: 12,
                has_other_voters: true,
            }),
            ..record
        };
        for record in [record, cut] {
            let bytes = record.encode();
            assert_eq!(HardStateRecord::decode(&bytes).unwrap(), record);
            for end in 0..bytes.len() {
                assert!(HardStateRecord::decode(&bytes[..end]).is_err());
            }
        }
        assert_eq!(record.encode()[0], 1);
        assert_eq!(cut.encode()[0], 2, "unknown to who knows nothing of cuts");
        let mut later = record.encode();
        later[0] = 3;
        assert!(matches!(
            HardStateRecord::decode(&later),
            Err(DecodeError::Version { .. })
        ));
    }
}
