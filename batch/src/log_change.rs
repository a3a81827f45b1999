//! What may be changed of one log besides its records: the body of [`crate::EntryKind::LogChange`], and what a
//! client asks for.

use crate::{DecodeError, Reader, Writer};

/// In [`LogChange::Fence`] as a client asks for it: the token after the last one. No log is fenced with it.
pub const FENCE_NEXT: u64 = 0;

/// A change of one log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogChange {
    /// From here on the log takes only appends that carry this token.
    Fence {
        /// Above every token before it.
        token: u64,
    },
    /// From here on the log takes no append. It stays to be read.
    Close,
    /// The log is no more: its records are given up, and its name is free.
    Delete,
    /// How much of the log is kept: what is beyond either limit is given up by and by.
    Retain(Retention),
    /// How much a leader takes for the log.
    Limit(Quota),
}

/// How much a leader takes in a second, 0 for no limit. What was not used is kept for one second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    /// Bytes of batches, headers included.
    pub bytes_per_second: u64,
    /// Records.
    pub records_per_second: u64,
}

/// How much of a log is kept at least, in all its newest batches; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// Bytes of batches, headers included.
    pub bytes: u64,
    /// Microseconds since a record was appended.
    pub age_us: u64,
}

impl LogChange {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut Writer::new(&mut out));
        out
    }

    /// Appends its bytes.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Fence { token } => {
                writer.u8(1);
                writer.u64(*token);
            }
            Self::Close => writer.u8(2),
            Self::Delete => writer.u8(3),
            Self::Retain(retention) => {
                writer.u8(4);
                writer.u64(retention.bytes);
                writer.u64(retention.age_us);
            }
            Self::Limit(quota) => {
                writer.u8(5);
                writer.u64(quota.bytes_per_second);
                writer.u64(quota.records_per_second);
            }
        }
    }

    /// The value of a body.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::new("LogChange", body);
        let change = Self::read(&mut fields)?;
        fields.finish()?;
        Ok(change)
    }

    /// The next change in `fields`.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match fields.u8()? {
            1 => Self::Fence {
                token: fields.u64()?,
            },
            2 => Self::Close,
            3 => Self::Delete,
            4 => Self::Retain(Retention {
                bytes: fields.u64()?,
                age_us: fields.u64()?,
            }),
            5 => Self::Limit(Quota {
                bytes_per_second: fields.u64()?,
                records_per_second: fields.u64()?,
            }),
            other => {
                return Err(DecodeError::Invalid {
                    what: "LogChange.operation",
                    found: other.into(),
                });
            }
        })
    }
}
