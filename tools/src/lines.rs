//! Cuts a byte stream into lines, and lines into batches.
//!
//! Pure: blocks of bytes come in, batches of records go out. A line inside one block is a slice of it; only
//! a line across blocks is copied. A line over the limit is counted, never held. Nothing here knows where
//! the bytes come from or where the batches go.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use drave_batch::{BATCH_RECORDS_MAX, RECORD_BYTES_MAX};

/// Bytes of records after which a batch of more than one record is cut when no batch size was asked for.
pub const AUTO_BATCH_BYTES: usize = 64 << 10;

/// Bytes of records after which any batch of more than one record is cut: with the table of record ends
/// beside them they stay below the largest body.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(
    drave_batch::body_bytes(BATCH_RECORDS_MAX as usize, BATCH_BYTES_MAX)
        <= drave_batch::BODY_BYTES_MAX as usize,
    "a full batch fits a body"
);

/// One line of the input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    /// Its bytes without the newline.
    Record(Bytes),
    /// It is over the limit; it had so many bytes.
    TooLong {
        /// Bytes of the line without its newline.
        bytes: u64,
    },
}

/// Splits blocks at newlines. A last line without a newline counts; no bytes after a newline are no line.
#[derive(Debug)]
pub struct LineSplitter {
    record_bytes_max: usize,
    /// The beginning of a line that its block did not end; never over the limit.
    carry: BytesMut,
    /// Bytes of that line so far, more than `carry` holds once it is over the limit.
    carried_bytes: u64,
}

impl LineSplitter {
    /// A splitter that holds lines of up to `record_bytes_max` bytes.
    #[must_use]
    pub fn new(record_bytes_max: usize) -> Self {
        Self {
            record_bytes_max,
            carry: BytesMut::new(),
            carried_bytes: 0,
        }
    }

    /// The lines that end in `block`, in order.
    pub fn push(&mut self, block: &Bytes, mut each: impl FnMut(Line)) {
        let mut start = 0;
        while let Some(length) = newline(&block[start..]) {
            each(self.end_line(block.slice(start..start + length)));
            start += length + 1;
        }
        let rest = &block[start..];
        self.carried_bytes += rest.len() as u64;
        if self.carried_bytes <= self.record_bytes_max as u64 {
            self.carry.extend_from_slice(rest);
        }
    }

    /// The last line, when the input ended without a newline.
    pub fn finish(&mut self) -> Option<Line> {
        (self.carried_bytes > 0).then(|| self.end_line(Bytes::new()))
    }

    fn end_line(&mut self, last: Bytes) -> Line {
        let bytes = self.carried_bytes + last.len() as u64;
        let carry = std::mem::take(&mut self.carry);
        let began_before = self.carried_bytes > 0;
        self.carried_bytes = 0;
        if bytes > self.record_bytes_max as u64 {
            Line::TooLong { bytes }
        } else if began_before {
            let mut whole = carry;
            whole.extend_from_slice(&last);
            Line::Record(whole.freeze())
        } else {
            Line::Record(last)
        }
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    // Eight bytes at a time: a word XORed with newlines has a zero byte where one is.
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const NEWLINES: u64 = u64::from_le_bytes([b'\n'; 8]);
    let mut chunks = bytes.chunks_exact(8);
    let mut place = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of 8 bytes")) ^ NEWLINES;
        let zeros = word.wrapping_sub(LOW) & !word & HIGH;
        if zeros != 0 {
            return Some(place + (zeros.trailing_zeros() / 8) as usize);
        }
        place += 8;
    }
    chunks
        .remainder()
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|offset| place + offset)
}

/// Records that are appended together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineBatch {
    /// The lines it holds, counted from 1.
    pub lines: Range<u64>,
    /// Their bytes.
    pub records: Vec<Bytes>,
}

/// A line that cannot be appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LongLine {
    /// Its number, from 1.
    pub line: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What comes out of the [`Batcher`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cut {
    /// A batch to append.
    Batch(LineBatch),
    /// A line to refuse.
    TooLong(LongLine),
}

/// Collects lines into batches of consecutive lines.
#[derive(Debug)]
pub struct Batcher {
    records_max: usize,
    bytes_max: usize,
    next_line: u64,
    records: Vec<Bytes>,
    bytes: usize,
}

impl Batcher {
    /// Batches of at most `records_max` records and, unless that is given, of about
    /// [`AUTO_BATCH_BYTES`].
    #[must_use]
    pub fn new(records_max: Option<u32>) -> Self {
        let (records_max, bytes_max) = match records_max {
            Some(records) => (records.clamp(1, BATCH_RECORDS_MAX), BATCH_BYTES_MAX),
            None => (BATCH_RECORDS_MAX, AUTO_BATCH_BYTES),
        };
        Self {
            records_max: records_max as usize,
            bytes_max,
            next_line: 1,
            records: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes a line; gives what is complete by it.
    pub fn push(&mut self, line: Line, cuts: &mut Vec<Cut>) {
        match line {
            Line::Record(record) => {
                debug_assert!(
                    record.len() <= RECORD_BYTES_MAX as usize,
                    "the splitter keeps the limit"
                );
                if self.bytes + record.len() > self.bytes_max {
                    cuts.extend(self.cut());
                }
                self.bytes += record.len();
                self.records.push(record);
                self.next_line += 1;
                if self.records.len() == self.records_max {
                    cuts.extend(self.cut());
                }
            }
            Line::TooLong { bytes } => {
                cuts.extend(self.cut());
                cuts.push(Cut::TooLong(LongLine {
                    line: self.next_line,
                    bytes,
                }));
                self.next_line += 1;
            }
        }
    }

    /// The records that no full batch took, because the input pauses or ended.
    pub fn cut(&mut self) -> Option<Cut> {
        if self.records.is_empty() {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        let lines = self.next_line - records.len() as u64..self.next_line;
        Some(Cut::Batch(LineBatch { lines, records }))
    }

    /// Lines taken so far.
    #[must_use]
    pub fn lines_taken(&self) -> u64 {
        self.next_line - 1
    }
}

#[cfg(test)]
mod tests;
