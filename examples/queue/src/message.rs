//! Messages, and how they lie in `NAME.messages`.
//!
//! ```text
//! 0  u8   version, 1
//! 1  u8   1 when there is a key
//! 2  u16  bytes of the key
//! 4       the key, then the body up to the end of the record
//! ```

use crate::error::{QueueError, Wrong};
use crate::fields::{Fields, VERSION, put_key};

/// Bytes of a key at most.
pub const KEY_BYTES_MAX: usize = 128;

/// Bytes of a body at most.
pub const BODY_BYTES_MAX: usize = 512 << 10;

/// What is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Messages of one key are given out one at a time, in the order in which they were sent.
    pub key: Option<String>,
    /// What the sender has to say.
    pub body: Vec<u8>,
}

impl Message {
    /// A message without a key.
    #[must_use]
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            key: None,
            body: body.into(),
        }
    }

    /// The message, in order among those of this key.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, QueueError> {
        let key = self.key.as_deref();
        for (what, limit, found) in [
            ("bytes of a key", KEY_BYTES_MAX, key.map_or(0, str::len)),
            ("bytes of a body", BODY_BYTES_MAX, self.body.len()),
        ] {
            if found > limit {
                let (limit, found) = (limit as u64, found as u64);
                return Err(QueueError::TooLarge { what, limit, found });
            }
        }
        let mut record = vec![VERSION];
        put_key(&mut record, key);
        record.extend_from_slice(&self.body);
        Ok(record)
    }

    /// The key and the body of a record.
    pub(crate) fn decode(record: &[u8]) -> Result<(Option<&str>, &[u8]), Wrong> {
        let mut fields = Fields(record);
        fields.version()?;
        let key = fields.key(KEY_BYTES_MAX)?;
        if fields.0.len() > BODY_BYTES_MAX {
            return Err(Wrong {
                what: "bytes of a body",
                expected: BODY_BYTES_MAX as u64,
                found: fields.0.len() as u64,
            });
        }
        Ok((key, fields.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_lies_as_documented() {
        let message = Message::new("body").with_key("k1");
        assert_eq!(message.encode().unwrap(), b"\x01\x01\x02\0k1body");
        assert_eq!(Message::new("").encode().unwrap(), b"\x01\0\0\0");
        let long = Message::new("").with_key("k".repeat(129));
        assert!(matches!(
            long.encode(),
            Err(QueueError::TooLarge { limit: 128, .. })
        ));
        let large = Message::new(vec![0; BODY_BYTES_MAX + 1]);
        assert!(matches!(large.encode(), Err(QueueError::TooLarge { .. })));
        assert_eq!(Message::decode(b"\x02\0\0\0").unwrap_err().found, 2);
        assert_eq!(Message::decode(b"\x01\0\x01\0x").unwrap_err().expected, 0);
    }

    proptest! {
        #[test]
        fn messages_come_back(key in proptest::option::of(".{0,30}"), body: Vec<u8>) {
            let message = Message { key, body };
            let record = message.encode().unwrap();
            let (key, body) = Message::decode(&record).unwrap();
            prop_assert_eq!((key, body), (message.key.as_deref(), &message.body[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(0u8..3, 0..20)) {
            let _ = Message::decode(&bytes);
        }
    }
}
