//! What consumers ask for, and how that lies in `NAME.consumers`.
//!
//! ```text
//! 0  u8  version, 1
//! 1  u8  kind
//! 2      by kind, little endian:
//!        1 configure  u32 attempts at most
//!        2 receive    u64 microseconds until visible again, u32 messages at most, u64 first new message,
//!                     u32 count, then the keys of so many messages from there on: u8 whether there is one, u16
//!                     bytes, key
//!        3 settle     u32 count, then each: u64 message, u64 receipt, u8 what (1 acknowledge, 2 release, 3 extend),
//!                     u64 microseconds until visible again for an extension, else 0
//!        4 buried     u64 message
//!        5 snapshot   the state before this event, see `state.rs`
//! ```
//!
//! What an event does follows from the state when it comes and from its append time, not from what whoever appended it
//! believed.

use std::fmt;
use std::str::FromStr;

use crate::error::Wrong;
use crate::fields::{Fields, VERSION, put_key};
use crate::message::KEY_BYTES_MAX;
use crate::state::State;

/// New messages that one event names at most.
pub const KEYS_MAX: usize = 256;

/// Messages that one event settles at most.
pub const SETTLE_MAX: usize = 1_000;

/// Names one giving out of one message. Whoever has it may finish the message, as long as it is not given out again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Receipt {
    /// The message's seq in `NAME.messages`.
    pub message: u64,
    /// The seq in `NAME.consumers` of the event that gave it out.
    pub given_at: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.message, self.given_at)
    }
}

impl FromStr for Receipt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('.').and_then(|(message, given_at)| {
            Some(Self {
                message: message.parse().ok()?,
                given_at: given_at.parse().ok()?,
            })
        });
        numbers.ok_or_else(|| format!("expected a receipt, MESSAGE.EVENT, found {text:?}"))
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settle {
    /// It is finished.
    Acknowledge,
    /// It is visible again at once.
    Release,
    /// It is visible again so many microseconds after this event.
    Extend(u64),
}

/// A record of `NAME.consumers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// How the queue is kept. The first event.
    Configure {
        /// A message that was given out so often is given out no more.
        attempts_max: u32,
    },
    /// Somebody wants messages.
    Receive {
        /// Microseconds for which what it gets is its own.
        visibility_us: u64,
        /// Messages at most.
        limit: u32,
        /// The first message that was new when it asked.
        first: u64,
        /// The keys of the messages from there on.
        keys: Vec<Option<String>>,
    },
    /// Somebody is done with messages, or not yet. None at all tells the time.
    Settle(Vec<(Receipt, Settle)>),
    /// The message was put aside, in the same entry as this event.
    Buried {
        /// Its seq.
        message: u64,
    },
    /// The state before this event, so that what is before it may be trimmed.
    Snapshot(State),
}

impl Event {
    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Configure { attempts_max } => {
                out.push(1);
                out.extend_from_slice(&attempts_max.to_le_bytes());
            }
            Self::Receive {
                visibility_us,
                limit,
                first,
                keys,
            } => {
                out.push(2);
                out.extend_from_slice(&visibility_us.to_le_bytes());
                out.extend_from_slice(&limit.to_le_bytes());
                out.extend_from_slice(&first.to_le_bytes());
                put_count(&mut out, keys.len());
                for key in keys {
                    put_key(&mut out, key.as_deref());
                }
            }
            Self::Settle(settles) => {
                out.push(3);
                put_count(&mut out, settles.len());
                for (receipt, settle) in settles {
                    out.extend_from_slice(&receipt.message.to_le_bytes());
                    out.extend_from_slice(&receipt.given_at.to_le_bytes());
                    let (what, visibility_us) = match settle {
                        Settle::Acknowledge => (1, 0),
                        Settle::Release => (2, 0),
                        Settle::Extend(visibility_us) => (3, *visibility_us),
                    };
                    out.push(what);
                    out.extend_from_slice(&visibility_us.to_le_bytes());
                }
            }
            Self::Buried { message } => {
                out.push(4);
                out.extend_from_slice(&message.to_le_bytes());
            }
            Self::Snapshot(state) => {
                out.push(5);
                state.encode(&mut out);
            }
        }
        out
    }

    /// The event in a record.
    ///
    /// # Errors
    /// [`Wrong`] names the field.
    pub fn decode(record: &[u8]) -> Result<Self, Wrong> {
        let mut fields = Fields(record);
        fields.version()?;
        let event = match fields.u8("kind of an event")? {
            1 => Self::Configure {
                attempts_max: fields.u32("attempts at most")?,
            },
            2 => {
                let visibility_us = fields.u64("time until visible again")?;
                let limit = fields.u32("messages at most")?;
                let first = fields.u64("first new message")?;
                let count = fields.count("keys of new messages", KEYS_MAX)?;
                let keys = (0..count).map(|_| Ok(fields.key(KEY_BYTES_MAX)?.map(str::to_owned)));
                Self::Receive {
                    visibility_us,
                    limit,
                    first,
                    keys: keys.collect::<Result<_, Wrong>>()?,
                }
            }
            3 => {
                let count = fields.count("messages to settle", SETTLE_MAX)?;
                let settles = (0..count).map(|_| settle(&mut fields));
                Self::Settle(settles.collect::<Result<_, Wrong>>()?)
            }
            4 => Self::Buried {
                message: fields.u64("message that was put aside")?,
            },
            5 => Self::Snapshot(State::decode(&mut fields)?),
            found => {
                return Err(Wrong {
                    what: "kind of an event",
                    expected: 5,
                    found: found.into(),
                });
            }
        };
        fields.end()?;
        Ok(event)
    }
}

fn settle(fields: &mut Fields<'_>) -> Result<(Receipt, Settle), Wrong> {
    let receipt = Receipt {
        message: fields.u64("message of a receipt")?,
        given_at: fields.u64("event of a receipt")?,
    };
    let what = fields.u8("what becomes of a message")?;
    let visibility_us = fields.u64("time until visible again")?;
    let settle = match what {
        1 => Settle::Acknowledge,
        2 => Settle::Release,
        3 => Settle::Extend(visibility_us),
        found => {
            return Err(Wrong {
                what: "what becomes of a message",
                expected: 3,
                found: found.into(),
            });
        }
    };
    Ok((receipt, settle))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("counts are bounded before");
    out.extend_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_lie_as_documented() {
        let receipt = Receipt {
            message: 5,
            given_at: 6,
        };
        for (event, golden) in [
            (Event::Configure { attempts_max: 3 }, &b"\x01\x01\x03\0\0\0"[..]),
            (
                Event::Receive {
                    visibility_us: 1,
                    limit: 2,
                    first: 3,
                    keys: vec![None, Some("k".to_owned())],
                },
                b"\x01\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01\x01\0k",
            ),
            (
                Event::Settle(vec![(receipt, Settle::Extend(7))]),
                b"\x01\x03\x01\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x03\x07\0\0\0\0\0\0\0",
            ),
            (Event::Buried { message: 258 }, b"\x01\x04\x02\x01\0\0\0\0\0\0"),
        ] {
            assert_eq!(event.encode(), golden, "{event:?}");
            assert_eq!(Event::decode(golden), Ok(event));
        }
    }

    #[test]
    fn what_is_no_event_is_named() {
        for (record, what) in [
            (&b""[..], "version"),
            (b"\x02\x01\0\0\0\0", "version"),
            (b"\x01\x06", "kind"),
            (b"\x01\x01\0\0\0", "attempts"),
            (b"\x01\x01\0\0\0\0\0", "bytes behind"),
            (b"\x01\x03\xFF\xFF\xFF\xFF", "messages to settle"),
            (
                b"\x01\x03\x01\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x04\x07\0\0\0\0\0\0\0",
                "what becomes",
            ),
        ] {
            let wrong = Event::decode(record).unwrap_err();
            assert!(wrong.what.starts_with(what), "{wrong}");
        }
    }

    #[test]
    fn a_receipt_is_read_as_it_is_written() {
        let receipt = Receipt {
            message: 17,
            given_at: 4,
        };
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
        for text in ["", "17", "17.", "a.b", "1.2.3", "-1.2"] {
            assert!(text.parse::<Receipt>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(0u8..6, 0..60)) {
            let _ = Event::decode(&bytes);
        }
    }
}
