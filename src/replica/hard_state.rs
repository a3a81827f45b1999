//! Term and vote as the group's log keeps them: one record, replaced whole.

use drave_batch::{DecodeError, Reader, Writer};

const HARD_STATE_VERSION: u32 = 1;

/// The part of a hard state that a group keeps in its log's meta record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HardStateRecord {
    /// The term.
    pub term: u64,
    /// Who got the vote in that term, 0 for nobody.
    pub vote: u64,
    /// A commit index known when the record was written: a hint, never needed.
    pub commit_index_hint: u64,
}

impl HardStateRecord {
    /// The record's bytes (`docs/format.md`, "Hard state").
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        let mut writer = Writer::new(&mut out);
        writer.u32(HARD_STATE_VERSION);
        writer.u32(0);
        writer.u64(self.term);
        writer.u64(self.vote);
        writer.u64(self.commit_index_hint);
        out
    }

    /// The record of these bytes, whose checksum the meta record has checked.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("hard state", bytes);
        let version = fields.u32()?;
        if version != HARD_STATE_VERSION {
            let (expected, found) = (HARD_STATE_VERSION.into(), version.into());
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
        };
        assert_eq!(HardStateRecord::decode(&record.encode()).unwrap(), record);
        assert!(HardStateRecord::decode(&record.encode()[..31]).is_err());
        let mut later = record.encode();
        later[0] = 2;
        assert!(matches!(
            HardStateRecord::decode(&later),
            Err(DecodeError::Version { .. })
        ));
    }
}
