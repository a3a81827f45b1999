//! How a snapshot lies in the log of snapshots, and how one is put together from its records.
//!
//! ```text
//! begin  0 u8 version 1, 1 u8 kind 1, 2 u16 0, 4 u64 seq of the first command that the snapshot does not hold
//! chunk  0 u8 version 1, 1 u8 kind 2, 2 u16 0, 4 u64 offset, 12 bytes of the file
//! end    0 u8 version 1, 1 u8 kind 3, 2 u16 0, 4 u64 bytes of the file, 12 u32 their CRC-32
//! ```
//!
//! Little endian. Every record is appended on the condition that it follows the one before it, so the records of one
//! snapshot lie together; one that has no end was given up, and the next begin follows it.
//!
//! This module neither reads nor writes logs.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};

use crate::envelope::Wrong;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 12;
const END_BYTES: usize = 16;

/// Bytes of a snapshot in one record.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// A record of the log of snapshots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part<'a> {
    /// A snapshot begins; it holds the commands before `seq`.
    Begin { seq: u64 },
    /// Its bytes from `offset` on.
    Chunk { offset: u64, bytes: &'a [u8] },
    /// It is complete.
    End { length: u64, crc: u32 },
}

impl<'a> Part<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Begin { .. } => 1,
            Self::Chunk { .. } => 2,
            Self::End { .. } => 3,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut record = BytesMut::with_capacity(END_BYTES);
        record.put_slice(&[VERSION, self.kind(), 0, 0]);
        match self {
            Self::Begin { seq } => record.put_u64_le(*seq),
            Self::Chunk { offset, bytes } => {
                record.reserve(HEAD_BYTES + bytes.len());
                record.put_u64_le(*offset);
                record.put_slice(bytes);
            }
            Self::End { length, crc } => {
                record.put_u64_le(*length);
                record.put_u32_le(*crc);
            }
        }
        record.freeze()
    }

    pub(crate) fn decode(record: &'a [u8]) -> Result<Self, Wrong> {
        let wrong = |what, expected, found| {
            Err(Wrong {
                what,
                expected,
                found,
            })
        };
        let Some((head, rest)) = record.split_at_checked(HEAD_BYTES) else {
            return wrong(
                "bytes of a part of a snapshot",
                HEAD_BYTES as u64,
                record.len() as u64,
            );
        };
        if head[0] != VERSION {
            return wrong(
                "version of a part of a snapshot",
                VERSION.into(),
                head[0].into(),
            );
        }
        if head[2..4] != [0; 2] {
            return wrong(
                "reserved bytes of a part of a snapshot",
                0,
                head[2].max(head[3]).into(),
            );
        }
        let number = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
        let bytes_after_head = rest.len() as u64;
        match head[1] {
            1 if rest.is_empty() => Ok(Self::Begin { seq: number }),
            1 => wrong("bytes behind the begin of a snapshot", 0, bytes_after_head),
            2 if rest.len() <= CHUNK_BYTES => Ok(Self::Chunk {
                offset: number,
                bytes: rest,
            }),
            2 => wrong(
                "bytes of a chunk of a snapshot",
                CHUNK_BYTES as u64,
                bytes_after_head,
            ),
            3 => match rest.try_into() {
                Ok(crc) => Ok(Self::End {
                    length: number,
                    crc: u32::from_le_bytes(crc),
                }),
                Err(_) => wrong("bytes of the end of a snapshot", 4, bytes_after_head),
            },
            kind => wrong("kind of a part of a snapshot", 3, kind.into()),
        }
    }
}

/// A snapshot whose bytes are all there and are those that were written.
#[derive(Debug)]
pub(crate) struct Complete {
    /// The first command that it does not hold.
    pub(crate) seq: u64,
    /// At its beginning.
    pub(crate) file: File,
}

struct Building {
    seq: u64,
    file: File,
    length: u64,
    crc: crc32fast::Hasher,
}

/// What went wrong with a record.
#[derive(Debug)]
pub(crate) enum CollectError {
    Wrong(Wrong),
    File(io::Error),
}

/// Puts snapshots together, in files without a name. Keeps the last one that is complete.
pub(crate) struct Collector {
    dir: PathBuf,
    building: Option<Building>,
    complete: Option<Complete>,
}

impl Collector {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            building: None,
            complete: None,
        }
    }

    /// Takes the next record.
    pub(crate) fn take(&mut self, record: &[u8]) -> Result<(), CollectError> {
        match Part::decode(record).map_err(CollectError::Wrong)? {
            Part::Begin { seq } => {
                self.building = Some(Building {
                    seq,
                    file: tempfile::tempfile_in(&self.dir).map_err(CollectError::File)?,
                    length: 0,
                    crc: crc32fast::Hasher::new(),
                });
            }
            Part::Chunk { offset, bytes } => {
                let building = self.in_snapshot()?;
                if offset != building.length {
                    return Err(CollectError::Wrong(Wrong {
                        what: "offset of a chunk of a snapshot",
                        expected: building.length,
                        found: offset,
                    }));
                }
                building.file.write_all(bytes).map_err(CollectError::File)?;
                building.crc.update(bytes);
                building.length += bytes.len() as u64;
            }
            Part::End { length, crc } => {
                self.in_snapshot()?;
                let mut building = self.building.take().expect("just looked at");
                let found = building.crc.finalize();
                for (what, expected, found) in [
                    ("bytes of a snapshot", length, building.length),
                    ("checksum of a snapshot", crc.into(), found.into()),
                ] {
                    if expected != found {
                        return Err(CollectError::Wrong(Wrong {
                            what,
                            expected,
                            found,
                        }));
                    }
                }
                building
                    .file
                    .seek(SeekFrom::Start(0))
                    .map_err(CollectError::File)?;
                self.complete = Some(Complete {
                    seq: building.seq,
                    file: building.file,
                });
            }
        }
        Ok(())
    }

    fn in_snapshot(&mut self) -> Result<&mut Building, CollectError> {
        self.building.as_mut().ok_or(CollectError::Wrong(Wrong {
            what: "begin of a snapshot before its other parts",
            expected: 1,
            found: 0,
        }))
    }

    /// The last snapshot that is complete.
    pub(crate) fn finish(self) -> Option<Complete> {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn parts(seq: u64, content: &[u8]) -> Vec<Bytes> {
        let mut parts = vec![Part::Begin { seq }.encode()];
        for (number, bytes) in content.chunks(7).enumerate() {
            let offset = number as u64 * 7;
            parts.push(Part::Chunk { offset, bytes }.encode());
        }
        let crc = crc32fast::hash(content);
        let length = content.len() as u64;
        parts.push(Part::End { length, crc }.encode());
        parts
    }

    fn collected(records: &[Bytes]) -> Result<Option<(u64, Vec<u8>)>, CollectError> {
        let mut collector = Collector::new(std::env::temp_dir());
        for record in records {
            collector.take(record)?;
        }
        Ok(collector.finish().map(|mut complete| {
            let mut content = Vec::new();
            complete.file.read_to_end(&mut content).unwrap();
            (complete.seq, content)
        }))
    }

    #[test]
    fn parts_lie_as_documented() {
        let all = [
            (
                Part::Begin { seq: 5 },
                &b"\x01\x01\0\0\x05\0\0\0\0\0\0\0"[..],
            ),
            (
                Part::Chunk {
                    offset: 258,
                    bytes: b"ab",
                },
                b"\x01\x02\0\0\x02\x01\0\0\0\0\0\0ab",
            ),
            (
                Part::End {
                    length: 9,
                    crc: 0x0102_0304,
                },
                b"\x01\x03\0\0\x09\0\0\0\0\0\0\0\x04\x03\x02\x01",
            ),
        ];
        for (part, golden) in all {
            assert_eq!(part.encode()[..], golden[..]);
            assert_eq!(Part::decode(golden), Ok(part));
        }
    }

    #[test]
    fn what_is_no_part_is_named() {
        for (record, what) in [
            (&b"\x01\x01\0\0\x05\0\0\0\0\0\0"[..], "bytes of a part"),
            (b"\x02\x01\0\0\x05\0\0\0\0\0\0\0", "version"),
            (b"\x01\x01\0\x01\x05\0\0\0\0\0\0\0", "reserved"),
            (b"\x01\x01\0\0\x05\0\0\0\0\0\0\0x", "bytes behind the begin"),
            (b"\x01\x03\0\0\x05\0\0\0\0\0\0\0xxx", "bytes of the end"),
            (b"\x01\x04\0\0\x05\0\0\0\0\0\0\0", "kind"),
        ] {
            let wrong = Part::decode(record).unwrap_err();
            assert!(wrong.what.starts_with(what), "{wrong:?}");
        }
        let long = Part::Chunk {
            offset: 0,
            bytes: &vec![0; CHUNK_BYTES + 1],
        }
        .encode();
        assert_eq!(
            Part::decode(&long).unwrap_err().expected,
            CHUNK_BYTES as u64
        );
    }

    #[test]
    fn the_last_complete_one_is_kept() {
        let mut records = parts(10, b"the first one");
        records.extend(parts(20, b"the second one, a little longer"));
        // Begun and given up.
        records.extend_from_slice(&parts(30, b"the third one")[..2]);
        let expected = (20, b"the second one, a little longer".to_vec());
        assert_eq!(collected(&records).unwrap(), Some(expected));
        records.extend(parts(40, b""));
        assert_eq!(collected(&records).unwrap(), Some((40, Vec::new())));
        assert_eq!(collected(&[]).unwrap(), None);
    }

    #[test]
    fn what_was_not_written_is_refused() {
        let whole = parts(10, b"twenty bytes of text");
        let mut gap = whole.clone();
        gap.remove(1);
        let mut short = whole.clone();
        short.remove(3);
        let mut flipped = whole.clone();
        flipped[2] = Part::Chunk {
            offset: 7,
            bytes: b"BYTES o",
        }
        .encode();
        for (records, what) in [
            (gap, "offset"),
            (short, "bytes of a snapshot"),
            (flipped, "checksum"),
            (whole[1..].to_vec(), "begin"),
        ] {
            let Err(CollectError::Wrong(wrong)) = collected(&records) else {
                panic!("{what} is taken");
            };
            assert!(wrong.what.starts_with(what), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(
            records in prop::collection::vec(prop::collection::vec(0u8..5, 0..20), 0..20),
        ) {
            let records: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
            drop(collected(&records));
        }
    }
}
