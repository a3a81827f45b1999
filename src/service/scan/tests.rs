use drave_batch::{BatchHeader, Batches, EntryKind, encode_together};
use drave_wal::{Behaviour, MemoryDisk, Options};

use super::*;
use crate::replica::Mark;

/// A group's log with batches of some logs in it, and what a replica knows of one of them.
struct Group {
    wal: Wal,
    index: SeqIndex,
    next_seq: u64,
}

const LOG_ID: u64 = 7;

impl Group {
    fn new() -> Self {
        let options = Options {
            segment_bytes: 64 << 10,
            group_bytes_max: 16 << 10,
            tail_bytes_max: 64 << 10,
            prewrite: false,
            ..Options::default()
        };
        let engine = MemoryDisk::new().engine(Behaviour::default());
        Self {
            wal: Wal::open_with(engine, options).unwrap(),
            index: SeqIndex::default(),
            next_seq: 0,
        }
    }

    /// Appends a batch of three records to the log, or to another one.
    fn append(&mut self, log_id: u64) {
        let body = vec![log_id as u8; 1_000];
        let mut header = BatchHeader::new(EntryKind::Data, &body, 3);
        header.index = self.wal.last_index() + 1;
        header.term = 1;
        header.log_id = log_id;
        if log_id == LOG_ID {
            header.first_seq = self.next_seq;
            self.index.push(Mark {
                seq: self.next_seq,
                index: header.index,
                time_us: 10 * header.index,
                bytes_before: 0,
            });
            self.next_seq += 3;
        }
        self.wal.append(&mut header, &body).unwrap();
        self.wal.flush(&mut Vec::new()).unwrap();
    }

    /// Appends a batch of three records to each of these logs, in one entry.
    fn append_together(&mut self, logs: &[u64]) {
        let body = vec![1; 1_000];
        let entry = BatchHeader {
            index: self.wal.last_index() + 1,
            term: 1,
            ..BatchHeader::new(EntryKind::Together, &[], 0)
        };
        let part = |log_id: &u64| {
            let header = BatchHeader {
                log_id: *log_id,
                first_seq: self.next_seq,
                ..BatchHeader::new(EntryKind::Data, &body, 3)
            };
            (header, &body[..])
        };
        let parts: Vec<_> = logs.iter().map(part).collect();
        let together = encode_together(&entry, &parts);
        let mut header = BatchHeader {
            body_len: together.len() as u32,
            body_crc: drave_batch::checksum(&together),
            ..entry
        };
        self.index.push(Mark {
            seq: self.next_seq,
            index: header.index,
            time_us: 10 * header.index,
            bytes_before: 0,
        });
        self.next_seq += 3;
        self.wal.append(&mut header, &together).unwrap();
        self.wal.flush(&mut Vec::new()).unwrap();
    }

    /// Three batches of others for each of the log's own.
    fn fill(&mut self, batches: u64) {
        for at in 0..4 * batches {
            self.append(if at % 4 == 0 {
                LOG_ID
            } else {
                LOG_ID + 1 + at % 3
            });
        }
    }

    /// Steps until there is something to say.
    fn step(&self, cursor: &mut Cursor, found: &mut Found) -> Step {
        let commit_index = self.wal.last_index();
        loop {
            let log = (&self.index, self.next_seq);
            let step = match cursor
                .step(log, &self.wal, commit_index, 4_000, found)
                .unwrap()
            {
                Step::Cold(job) => cursor.take_cold(&job.run().unwrap(), 4_000, found),
                step => step,
            };
            if !matches!(step, Step::Moved) {
                return step;
            }
        }
    }

    /// First seqs of the batches from `seq` on, and how the reading ended.
    fn read(&self, seq: u64) -> (Vec<u64>, Step) {
        let mut cursor = Cursor::new(LOG_ID, seq);
        let mut seqs = Vec::new();
        loop {
            let mut found = Found::default();
            let step = self.step(&mut cursor, &mut found);
            for piece in &found.pieces {
                seqs.extend(Batches::new(piece).map(|batch| batch.unwrap().header.first_seq));
            }
            if !matches!(step, Step::Full) {
                return (seqs, step);
            }
        }
    }
}

#[test]
fn every_batch_of_the_log_is_found_and_no_other() {
    let mut group = Group::new();
    group.fill(200);
    assert!(
        matches!(group.wal.read(1, 2, 1), Ok(Read::Cold(_))),
        "some of it is on disk only"
    );
    for (from, first) in [(0, 0), (1, 0), (300, 300), (302, 300), (597, 597)] {
        let (seqs, step) = group.read(from);
        let expected: Vec<u64> = (first..600).step_by(3).collect();
        assert_eq!(seqs, expected, "from {from}");
        assert!(matches!(step, Step::End));
    }
    assert!(matches!(group.read(600), (seqs, Step::End) if seqs.is_empty()));
}

#[test]
fn a_batch_among_those_appended_together_is_found_alone() {
    let mut group = Group::new();
    let orders = [[LOG_ID, 1, 2], [1, LOG_ID, 2], [1, 2, LOG_ID]];
    for order in orders.iter().cycle().take(150) {
        group.append_together(order);
        group.append(3);
        group.append(LOG_ID);
    }
    for from in [0, 3, 500, 897] {
        let (seqs, step) = group.read(from);
        let first = from - from % 3;
        assert_eq!(seqs, (first..900).step_by(3).collect::<Vec<_>>());
        assert!(matches!(step, Step::End));
    }
}

#[test]
fn records_that_are_gone_are_said_to_be_gone() {
    let mut group = Group::new();
    group.fill(200);
    group.wal.truncate_prefix(400).unwrap();
    let first_index = group.wal.first_index();
    assert!((2..=400).contains(&first_index), "{first_index}");
    // Every fourth entry from the first one on is the log's.
    let first_held = (first_index - 1).div_ceil(4) * 3;
    let (seqs, step) = group.read(0);
    assert!(seqs.is_empty());
    assert!(matches!(step, Step::Missing));
    let (seqs, step) = group.read(first_held);
    assert_eq!(seqs, (first_held..600).step_by(3).collect::<Vec<_>>());
    assert!(matches!(step, Step::End));
}

/// A snapshot took the place of the log while a reader was in the middle of it.
#[test]
fn what_was_found_goes_out_before_the_rest_is_said_to_be_gone() {
    let mut group = Group::new();
    group.fill(3);
    let mut cursor = Cursor::new(LOG_ID, 0);
    let mut found = Found::default();
    let commit_index = 4;
    let log = (&group.index, group.next_seq);
    let step = cursor.step(log, &group.wal, commit_index, 4_000, &mut found);
    assert!(matches!(step, Ok(Step::Moved)) && cursor.seq == 3);
    group.wal.reset(1_000, 1, 0).unwrap();
    assert!(matches!(group.step(&mut cursor, &mut found), Step::Full));
    assert_eq!(Batches::new(&found.pieces[0]).count(), 1);
    let step = group.step(&mut cursor, &mut Found::default());
    assert!(matches!(step, Step::Missing));
    // The next batch after the hole says where the log goes on.
    group.append(LOG_ID);
    let step = group.step(&mut cursor, &mut Found::default());
    assert!(matches!(step, Step::Missing));
    cursor = Cursor::new(LOG_ID, 9);
    let mut found = Found::default();
    assert!(matches!(group.step(&mut cursor, &mut found), Step::End));
    assert_eq!(Batches::new(&found.pieces[0]).count(), 1);
}

#[test]
fn one_step_looks_through_a_bounded_part_of_the_groups_log() {
    let mut group = Group::new();
    (0..600).for_each(|_| group.append(LOG_ID));
    let commit_index = group.wal.last_index();
    let (mut cursor, mut found) = (Cursor::new(LOG_ID, 0), Found::default());
    // However much the client takes, and wherever the bytes come from.
    let (bytes_max, batches_max) = (usize::MAX, SCAN_BYTES_MAX as u64 / 1_000);
    let (mut before, mut steps) = (1, 0);
    while cursor.index <= commit_index {
        let log = (&group.index, group.next_seq);
        let step = cursor.step(log, &group.wal, commit_index, bytes_max, &mut found);
        if let Step::Cold(job) = step.unwrap() {
            cursor.take_cold(&job.run().unwrap(), bytes_max, &mut found);
        }
        assert!(cursor.index - before <= batches_max);
        (before, steps) = (cursor.index, steps + 1);
    }
    assert_eq!(cursor.seq, group.next_seq);
    assert!(steps >= 600 / batches_max);
}
