//! Commands and their answers, and how a command lies in the log.
//!
//! ```text
//! 0   u8    version, 1
//! 1   u8    kind: 1 put, 2 delete
//! 2   u8    condition: 0 none, 1 the key is absent, 2 its version is the one at 4
//! 3   u8    1 when an id follows at 12
//! 4   u64   the version expected, or 0
//! 12  [u8; 16]  the request's id, or zeros
//! 28  u16   bytes of the key
//! 30        the key, then the value up to the end of the record
//! ```
//!
//! Little endian. This module does not know what keys there are.

use serde::Serialize;
use thiserror::Error;

/// Bytes of a key at most.
pub const KEY_BYTES_MAX: usize = 512;

/// Bytes of a value at most.
pub const VALUE_BYTES_MAX: usize = 512 << 10;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 30;

/// Whoever retries a request gives it the same id again, and gets the first answer.
pub type RequestId = [u8; 16];

/// What must hold of a key for a command to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// Nothing.
    None,
    /// It does not exist.
    Absent,
    /// It has this version.
    Version(u64),
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change<'a> {
    /// It gets this value.
    Put(&'a [u8]),
    /// It goes.
    Delete,
}

/// A command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KvCommand<'a> {
    /// The request's id, if it has one.
    pub id: Option<RequestId>,
    /// Under which condition.
    pub condition: Condition,
    /// To which key.
    pub key: &'a str,
    /// What.
    pub change: Change<'a>,
}

/// What a command did. A version is the number of the command that wrote the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The key has its new value.
    Put {
        /// Its version now.
        version: u64,
        /// Its version before, if it existed.
        replaced: Option<u64>,
    },
    /// The key is gone.
    Deleted {
        /// The version that it had, if it existed.
        replaced: Option<u64>,
    },
    /// The condition did not hold; nothing was done.
    Conflict {
        /// The key's version, if it exists.
        found: Option<u64>,
    },
    /// There is no room; nothing was done.
    Full {
        /// Bytes of keys and values at most.
        limit: u64,
    },
    /// The record in the log is no command of this version; nothing was done.
    NotUnderstood,
}

/// Why bytes are no command.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{what}: expected {expected}, found {found}")]
pub struct NotACommand {
    what: &'static str,
    expected: u64,
    found: u64,
}

impl<'a> KvCommand<'a> {
    /// The bytes that go into the log.
    ///
    /// # Errors
    /// [`NotACommand`] for a key that is empty or too long, and for a value that is too long.
    pub fn encode(&self) -> Result<Vec<u8>, NotACommand> {
        check_key(self.key.len())?;
        let (kind, value) = match self.change {
            Change::Put(value) => (1, value),
            Change::Delete => (2, &[][..]),
        };
        check_value(value.len())?;
        let (condition, version) = match self.condition {
            Condition::None => (0, 0),
            Condition::Absent => (1, 0),
            Condition::Version(version) => (2, version),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.key.len() + value.len());
        bytes.extend_from_slice(&[VERSION, kind, condition, self.id.is_some().into()]);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&self.id.unwrap_or_default());
        let key_bytes = u16::try_from(self.key.len()).expect("keys are short");
        bytes.extend_from_slice(&key_bytes.to_le_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(value);
        Ok(bytes)
    }

    /// The command in a record.
    ///
    /// # Errors
    /// [`NotACommand`]: the field, what may stand there, what stands there.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, NotACommand> {
        let wrong = |what, expected: u64, found: u64| NotACommand {
            what,
            expected,
            found,
        };
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
            return Err(wrong(
                "bytes of a command",
                HEAD_BYTES as u64,
                bytes.len() as u64,
            ));
        };
        if head[0] != VERSION {
            return Err(wrong(
                "version of a command",
                VERSION.into(),
                head[0].into(),
            ));
        }
        let version = u64::from_le_bytes(head[4..12].try_into().expect("eight bytes"));
        let condition = match head[2] {
            0 => Condition::None,
            1 => Condition::Absent,
            2 => Condition::Version(version),
            other => return Err(wrong("condition of a command", 2, other.into())),
        };
        let id = match head[3] {
            0 => None,
            1 => Some(head[12..28].try_into().expect("sixteen bytes")),
            other => return Err(wrong("whether a command has an id", 1, other.into())),
        };
        let key_bytes = usize::from(u16::from_le_bytes([head[28], head[29]]));
        check_key(key_bytes)?;
        let Some((key, value)) = rest.split_at_checked(key_bytes) else {
            return Err(wrong("bytes of a key", key_bytes as u64, rest.len() as u64));
        };
        let key = str::from_utf8(key).map_err(|error| {
            wrong(
                "bytes of a key that are UTF-8",
                key_bytes as u64,
                error.valid_up_to() as u64,
            )
        })?;
        check_value(value.len())?;
        let change = match head[1] {
            1 => Change::Put(value),
            2 if value.is_empty() => Change::Delete,
            2 => return Err(wrong("bytes behind a key to delete", 0, value.len() as u64)),
            other => return Err(wrong("kind of a command", 2, other.into())),
        };
        Ok(Self {
            id,
            condition,
            key,
            change,
        })
    }
}

fn check_key(bytes: usize) -> Result<(), NotACommand> {
    let (what, expected) = match bytes {
        0 => ("bytes of a key at least", 1),
        1..=KEY_BYTES_MAX => return Ok(()),
        _ => ("bytes of a key at most", KEY_BYTES_MAX as u64),
    };
    Err(NotACommand {
        what,
        expected,
        found: bytes as u64,
    })
}

fn check_value(bytes: usize) -> Result<(), NotACommand> {
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(NotACommand {
        what: "bytes of a value at most",
        expected: VALUE_BYTES_MAX as u64,
        found: bytes as u64,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_lies_as_documented() {
        let command = KvCommand {
            id: Some(*b"0123456789abcdef"),
            condition: Condition::Version(258),
            key: "k",
            change: Change::Put(b"value"),
        };
        let golden = b"\x01\x01\x02\x01\x02\x01\0\0\0\0\0\x000123456789abcdef\x01\0kvalue";
        assert_eq!(command.encode().unwrap(), golden);
        assert_eq!(KvCommand::decode(golden), Ok(command));
    }

    #[test]
    fn what_is_no_command_is_named() {
        let whole = KvCommand {
            id: None,
            condition: Condition::None,
            key: "key",
            change: Change::Delete,
        };
        let whole = whole.encode().unwrap();
        let changed = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        let long = [&whole[..], b"x"].concat();
        for (bytes, what) in [
            (whole[..29].to_vec(), "bytes of a command"),
            (changed(0, 2), "version"),
            (changed(1, 3), "kind"),
            (changed(2, 3), "condition"),
            (changed(3, 2), "whether"),
            (changed(28, 0), "bytes of a key at least"),
            (changed(28, 9), "bytes of a key"),
            (changed(29, 3), "bytes of a key at most"),
            (changed(30, 0xFF), "bytes of a key that are UTF-8"),
            (long, "bytes behind"),
        ] {
            let error = KvCommand::decode(&bytes).unwrap_err();
            assert!(error.what.starts_with(what), "{error} instead of {what}");
        }
    }

    proptest! {
        #[test]
        fn commands_come_back(
            id: Option<[u8; 16]>,
            condition in prop_oneof![
                Just(Condition::None),
                Just(Condition::Absent),
                any::<u64>().prop_map(Condition::Version),
            ],
            key in ".{1,100}",
            value: Option<Vec<u8>>,
        ) {
            let change = value.as_deref().map_or(Change::Delete, Change::Put);
            let command = KvCommand { id, condition, key: &key, change };
            let bytes = command.encode().unwrap();
            prop_assert_eq!(KvCommand::decode(&bytes), Ok(command));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(0u8..4, 0..60)) {
            let _ = KvCommand::decode(&bytes);
        }
    }
}
