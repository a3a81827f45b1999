//! The fixed header of a batch: 96 bytes, little endian (`docs/format.md`, "Batch").

use crate::{BATCH_RECORDS_MAX, BODY_BYTES_MAX, DecodeError, Reader, Writer, checksum};

/// Bytes of an encoded batch header.
pub const BATCH_HEADER_BYTES: usize = 96;

/// Marks the start of a batch header's fixed identification.
pub const BATCH_MAGIC: u16 = 0xDBA7;

/// The version of the batch layout that this build writes and reads.
pub const BATCH_VERSION: u8 = 1;

/// Encoded batches are padded with zeros to a multiple of this, so that mapped headers are aligned.
pub const BATCH_ALIGN: usize = 8;

/// Bytes that a batch with a body of `body_len` takes on disk and wire: header, body, padding.
#[must_use]
pub const fn encoded_bytes(body_len: u32) -> usize {
    (BATCH_HEADER_BYTES + body_len as usize).next_multiple_of(BATCH_ALIGN)
}

/// What a Raft entry holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
#[non_exhaustive]
pub enum EntryKind {
    /// Nothing: a leader's first entry of its term.
    Noop = 0,
    /// Records of one log from one producer.
    Data = 1,
    /// The group's members; see [`crate::control::Members`].
    Configuration = 2,
    /// A named log comes into being; see [`crate::control::LogCreated`].
    LogCreate = 3,
    /// A producer registers; its id is the entry's index. See [`crate::control::ProducerRegistered`].
    ProducerRegister = 4,
    /// A log's records below `first_seq` are given up; `log_id` names the log, and there is no body.
    LogTrim = 5,
    /// Something else of the log that `log_id` names changes; see [`crate::LogChange`].
    LogChange = 6,
    /// Records of several logs from one producer, all or none; see [`crate::encode_together`].
    Together = 7,
    /// Data batches of earlier entries again, so that those may go; see [`crate::decode_carried`].
    CarryOver = 8,
}

impl EntryKind {
    fn decode(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            0 => Self::Noop,
            1 => Self::Data,
            2 => Self::Configuration,
            3 => Self::LogCreate,
            4 => Self::ProducerRegister,
            5 => Self::LogTrim,
            6 => Self::LogChange,
            7 => Self::Together,
            8 => Self::CarryOver,
            _ => {
                return Err(DecodeError::Invalid {
                    what: "batch kind",
                    found: value.into(),
                });
            }
        })
    }
}

/// The header of one batch. All fields but the two checksums of the chain are named by their meaning in
/// `docs/format.md`; `header_crc` is computed by [`BatchHeader::encode`] and checked by
/// [`BatchHeader::decode`], so it is not a field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchHeader {
    /// CRC-32 of the body, made once by whoever encoded the body.
    pub body_crc: u32,
    /// Bytes of the body, without padding.
    pub body_len: u32,
    /// Records in the body; 0 for control entries.
    pub record_count: u32,
    /// The Raft index of the entry; 0 while a client's batch has none yet.
    pub index: u64,
    /// The Raft term of the entry; 0 while it has none yet.
    pub term: u64,
    /// The log the records belong to; 0 for entries of the group itself.
    pub log_id: u64,
    /// The seq of the first record in its log.
    pub first_seq: u64,
    /// The producer, 0 for none.
    pub producer_id: u64,
    /// The producer's own number of this batch, from 0 without gaps.
    pub producer_seq: u64,
    /// Microseconds since the Unix epoch by the leader's clock, never decreasing within a group.
    pub append_time_us: u64,
    /// The Raft group.
    pub group_id: u32,
    /// The header checksum of entry `index - 1`: the chain. 0 for the first entry of a log.
    pub prev_crc: u32,
    /// The producer's epoch.
    pub producer_epoch: u32,
    /// How many of the producer's batches before this one it had no acknowledgement for when it sent
    /// this one: answers older than that may be forgotten by every replica alike.
    pub producer_unacked: u32,
    /// What the entry holds.
    pub kind: EntryKind,
    /// Reserved for compression; 0.
    pub flags: u16,
}

impl BatchHeader {
    /// A header of `kind` over `body`, everything else zero.
    #[must_use]
    pub fn new(kind: EntryKind, body: &[u8], record_count: u32) -> Self {
        Self {
            body_crc: checksum(body),
            body_len: u32::try_from(body.len()).expect("a body is far below 4 GiB"),
            record_count,
            index: 0,
            term: 0,
            log_id: 0,
            first_seq: 0,
            producer_id: 0,
            producer_seq: 0,
            append_time_us: 0,
            group_id: 0,
            prev_crc: 0,
            producer_epoch: 0,
            producer_unacked: 0,
            kind,
            flags: 0,
        }
    }

    /// Bytes the whole batch takes on disk and wire, padding included.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        encoded_bytes(self.body_len)
    }

    /// The seq after the last record.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.first_seq + self.record_count as u64
    }

    /// The 96 bytes, checksum first.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &self.body_crc.to_le_bytes());
        put(8, &self.body_len.to_le_bytes());
        put(12, &self.record_count.to_le_bytes());
        put(16, &self.index.to_le_bytes());
        put(24, &self.term.to_le_bytes());
        put(32, &self.log_id.to_le_bytes());
        put(40, &self.first_seq.to_le_bytes());
        put(48, &self.producer_id.to_le_bytes());
        put(56, &self.producer_seq.to_le_bytes());
        put(64, &self.append_time_us.to_le_bytes());
        put(72, &self.group_id.to_le_bytes());
        put(76, &self.prev_crc.to_le_bytes());
        put(80, &self.producer_epoch.to_le_bytes());
        put(84, &self.producer_unacked.to_le_bytes());
        put(88, &BATCH_MAGIC.to_le_bytes());
        put(90, &[BATCH_VERSION, self.kind as u8]);
        put(92, &self.flags.to_le_bytes());
        let crc = checksum(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, with its checksum, which the next entry's `prev_crc` names.
    ///
    /// # Errors
    /// [`DecodeError`] for too few bytes, a wrong checksum, magic or version, and fields over their limits.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), DecodeError> {
        let bytes = Reader::new("batch header", bytes).bytes(BATCH_HEADER_BYTES)?;
        let mut fields = Reader::new("batch header", bytes);
        let header_crc = fields.u32()?;
        let found = checksum(&bytes[4..]);
        if found != header_crc {
            return Err(DecodeError::Checksum {
                what: "batch header",
                expected: header_crc,
                found,
            });
        }
        let mut header = Self::new(EntryKind::Noop, &[], 0);
        header.body_crc = fields.u32()?;
        header.body_len = fields.u32()?;
        header.record_count = fields.u32()?;
        header.index = fields.u64()?;
        header.term = fields.u64()?;
        header.log_id = fields.u64()?;
        header.first_seq = fields.u64()?;
        header.producer_id = fields.u64()?;
        header.producer_seq = fields.u64()?;
        header.append_time_us = fields.u64()?;
        header.group_id = fields.u32()?;
        header.prev_crc = fields.u32()?;
        header.producer_epoch = fields.u32()?;
        header.producer_unacked = fields.u32()?;
        let magic = fields.u16()?;
        let version = fields.u8()?;
        let kind = fields.u8()?;
        header.flags = fields.u16()?;
        let reserved = fields.u16()?;
        header.check(magic, version, reserved)?;
        header.kind = EntryKind::decode(kind)?;
        if (header.kind == EntryKind::Data) != (header.record_count > 0) {
            return Err(DecodeError::Invalid {
                what: "batch record count for its kind",
                found: header.record_count.into(),
            });
        }
        Ok((header, header_crc))
    }

    fn check(&self, magic: u16, version: u8, reserved: u16) -> Result<(), DecodeError> {
        if magic != BATCH_MAGIC {
            return Err(DecodeError::Magic {
                what: "batch header",
                expected: BATCH_MAGIC.into(),
                found: magic.into(),
            });
        }
        if version != BATCH_VERSION {
            return Err(DecodeError::Version {
                what: "batch header",
                expected: BATCH_VERSION.into(),
                found: version.into(),
            });
        }
        if self.body_len > BODY_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                what: "batch body bytes",
                limit: BODY_BYTES_MAX.into(),
                found: self.body_len.into(),
            });
        }
        if self.record_count > BATCH_RECORDS_MAX {
            return Err(DecodeError::TooLarge {
                what: "batch records",
                limit: BATCH_RECORDS_MAX.into(),
                found: self.record_count.into(),
            });
        }
        if self
            .first_seq
            .checked_add(self.record_count.into())
            .is_none()
        {
            return Err(DecodeError::Invalid {
                what: "batch first seq",
                found: self.first_seq,
            });
        }
        if self.flags != 0 {
            return Err(DecodeError::Invalid {
                what: "batch flags",
                found: self.flags.into(),
            });
        }
        if reserved != 0 {
            return Err(DecodeError::Invalid {
                what: "batch reserved field",
                found: reserved.into(),
            });
        }
        Ok(())
    }

    /// Appends the whole batch to `out`: header, body, padding.
    ///
    /// # Panics
    /// If `body` is not the body that the header describes by length.
    pub fn encode_with_body(&self, body: &[u8], out: &mut Vec<u8>) {
        assert_eq!(
            body.len(),
            self.body_len as usize,
            "the header must describe the body"
        );
        let end = out.len() + self.encoded_bytes();
        let mut writer = Writer::new(out);
        writer.bytes(&self.encode());
        writer.bytes(body);
        out.resize(end, 0);
    }
}
