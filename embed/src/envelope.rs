//! How a command lies in a record of the log of commands: who proposed it, and the command.
//!
//! ```text
//! 0   u8   version, 1
//! 1   u8   reserved, 0
//! 2   u16  reserved, 0
//! 4   u64  run: drawn by each start of a machine
//! 12  u64  number: counted by the run from 0
//! 20       the command
//! ```
//!
//! Little endian. Run and number only take the answer back to whoever waits for it; that a command is there once is
//! the producer's doing.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const ENVELOPE_BYTES: usize = 20;
const VERSION: u8 = 1;

/// Who waits for a command's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) run: u64,
    pub(crate) number: u64,
}

/// What is wrong with a record: the field, what may stand there, what stands there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wrong {
    pub(crate) what: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

pub(crate) fn encode(origin: Origin, command: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(ENVELOPE_BYTES + command.len());
    record.put_slice(&[VERSION, 0, 0, 0]);
    record.put_u64_le(origin.run);
    record.put_u64_le(origin.number);
    record.put_slice(command);
    record.freeze()
}

pub(crate) fn decode(record: &[u8]) -> Result<(Origin, &[u8]), Wrong> {
    let Some((head, command)) = record.split_at_checked(ENVELOPE_BYTES) else {
        return Err(Wrong {
            what: "bytes of a command's envelope",
            expected: ENVELOPE_BYTES as u64,
            found: record.len() as u64,
        });
    };
    if head[0] != VERSION {
        return Err(Wrong {
            what: "version of a command's envelope",
            expected: VERSION.into(),
            found: head[0].into(),
        });
    }
    if let Some(byte) = head[1..4].iter().find(|byte| **byte != 0) {
        return Err(Wrong {
            what: "reserved bytes of a command's envelope",
            expected: 0,
            found: (*byte).into(),
        });
    }
    let number = |at: usize| {
        let bytes = head[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    };
    let origin = Origin {
        run: number(4),
        number: number(12),
    };
    Ok((origin, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_lies_as_documented() {
        let origin = Origin {
            run: 0x0102_0304_0506_0708,
            number: 9,
        };
        let record = encode(origin, b"do it");
        let golden = b"\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0do it";
        assert_eq!(record[..], golden[..]);
        assert_eq!(decode(&record), Ok((origin, &b"do it"[..])));
    }

    #[test]
    fn what_is_no_command_is_named() {
        let record = encode(Origin { run: 1, number: 2 }, b"");
        assert_eq!(decode(&record[..19]).unwrap_err().found, 19);
        for (at, what) in [(0, "version"), (1, "reserved"), (3, "reserved")] {
            let mut record = record.to_vec();
            record[at] = 7;
            let wrong = decode(&record).unwrap_err();
            assert!(wrong.what.starts_with(what), "{wrong:?}");
            assert_eq!(wrong.found, 7);
        }
    }
}
