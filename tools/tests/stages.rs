//! A producer retries a batch whose leader died at one stage of its path: the batch is in the log once, and the
//! answer is the one that it would have had.
//!
//! The producer writes its frames by hand, so that it never sees the first answer.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::nodes::{log_of, wait_for_log, wait_for_node};
use common::raw::RawClient;
use common::{LIMIT, TestCluster, numbered_lines};
use drave_batch::wire::{
    Append, Appended, EXPECT_SEQ_NONE, ErrorCode, ErrorReply, FENCE_NONE, Message as _,
    ProducerOpen, ProducerOpened, decode_head,
};
use drave_batch::{BatchHeader, BodyBuilder, EntryKind};
use drave_client::NodeStatus;
use rustix::process::Signal;

/// Flushes do as a file in each data directory says; snapshots after few entries.
const SETTINGS: &str = "[fault]\ndisk = true\n[snapshots]\nentries = 64\n";

/// Between two tries to find a leader that serves.
const PAUSE: Duration = Duration::from_millis(5);

/// What the producer's batches hold, one after the other.
const BATCHES: [[&str; 2]; 3] = [["a", "b"], ["c", "d"], ["e", "f"]];

/// How far the second batch got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// It is in the leader's socket.
    BeforeWrite,
    /// The leader took it; no node has flushed it.
    AfterWrite,
    /// The leader flushed it; no other node read it.
    AfterFlush,
    /// The others flushed it and it is committed; the leader has not flushed it.
    AfterCommit,
    /// All is done, but the producer never reads the answer.
    BeforeAnswer,
}

/// A cluster with one log and one producer, whose first batch is acknowledged.
struct Path {
    test: TestCluster,
    log_id: u64,
    leader: u64,
    raw: RawClient,
    opened: ProducerOpened,
}

impl Path {
    fn start() -> Self {
        let mut test = TestCluster::start_with(3, SETTINGS);
        let created = test.client.create_log("a", true);
        let log_id = test.runtime.block_on(created).unwrap().log_id;
        let leader = test.leader();
        let mut raw = RawClient::connect(test.cluster.address(leader));
        raw.send(1, &ProducerOpen::default());
        let opened = raw.receive();
        let mut path = Self {
            test,
            log_id,
            leader,
            raw,
            opened,
        };
        path.send(0);
        let first: Appended = path.raw.receive();
        assert_eq!((first.first_seq, first.record_count), (0, 2));
        path.test.caught_up();
        path
    }

    /// Sends one of the batches, as often as asked to the same bytes.
    fn send(&mut self, number: usize) {
        let mut builder = BodyBuilder::new();
        let records = BATCHES[number];
        records
            .iter()
            .for_each(|record| builder.push(record.as_bytes()));
        let mut body = Vec::new();
        builder.drain_into(&mut body);
        let header = BatchHeader {
            log_id: self.log_id,
            producer_id: self.opened.producer_id,
            producer_epoch: self.opened.producer_epoch,
            producer_seq: number as u64,
            ..BatchHeader::new(EntryKind::Data, &body, records.len() as u32)
        };
        let append = Append {
            header,
            expect_seq: EXPECT_SEQ_NONE,
            fence: FENCE_NONE,
        };
        self.raw.send_with(number as u64 + 2, &append, &body);
    }

    /// Sends a batch to whoever leads until it is answered, and gives the answer.
    fn settle(&mut self, number: usize) -> Appended {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.send(number);
            let (header, head) = self.raw.next_frame();
            if header.kind == Appended::KIND {
                return decode_head(&header, &head).unwrap();
            }
            let refused: ErrorReply = decode_head(&header, &head).unwrap();
            let code = ErrorCode::from_number(refused.code).unwrap();
            assert!(code.is_retryable(), "{refused:?}");
            assert!(Instant::now() < deadline, "{refused:?}");
            std::thread::sleep(PAUSE);
            self.connect();
        }
    }

    /// Turns to the node that leads now.
    fn connect(&mut self) {
        self.leader = self.test.leader();
        self.raw = RawClient::connect(self.test.cluster.address(self.leader));
    }

    fn set_fault(&self, node_id: u64, fault: &str) {
        let path = self.test.cluster.data_dir(node_id).join("fault");
        // A flush must not find it half written.
        let half = path.with_extension("new");
        fs::write(&half, fault).unwrap();
        fs::rename(&half, &path).unwrap();
    }

    fn signal_followers(&self, signal: Signal) {
        for node_id in self.test.cluster.node_ids() {
            if node_id != self.leader {
                self.test.cluster.signal(node_id, signal).unwrap();
            }
        }
    }

    /// Waits until an index that the leader tells has grown beyond what all had.
    fn wait_for_leader(&mut self, beyond: u64, index: impl Fn(&NodeStatus) -> Option<u64>) {
        let leader = self.leader;
        wait_for_node(&mut self.test, leader, "the batch", |node| {
            index(node) > Some(beyond)
        });
    }

    /// Sends the second batch and kills the leader at this stage of its path.
    fn die_at(&mut self, stage: Stage) {
        let leader = self.leader;
        let before = wait_for_node(&mut self.test, leader, "an index", |node| {
            node.last_index.is_some()
        });
        let before = before.last_index.unwrap();
        let is_alone = matches!(stage, Stage::AfterWrite | Stage::AfterFlush);
        if is_alone {
            self.signal_followers(Signal::STOP);
        }
        match stage {
            Stage::BeforeWrite => self.test.cluster.signal(leader, Signal::STOP).unwrap(),
            Stage::AfterWrite | Stage::AfterCommit => self.set_fault(leader, "hang"),
            Stage::AfterFlush | Stage::BeforeAnswer => {}
        }
        self.send(1);
        match stage {
            Stage::BeforeWrite => {}
            Stage::AfterWrite => self.wait_for_leader(before, |node| node.last_index),
            Stage::AfterFlush => self.wait_for_leader(before, |node| node.durable_index),
            Stage::AfterCommit => self.wait_for_leader(before, |node| node.commit_index),
            Stage::BeforeAnswer => self.wait_for_leader(before, |node| node.applied_index),
        }
        self.test.cluster.kill(leader).unwrap();
        if is_alone {
            self.signal_followers(Signal::CONT);
        }
        fs::remove_file(self.test.cluster.data_dir(leader).join("fault")).ok();
        self.connect();
        assert_ne!(self.leader, leader);
    }

    /// The second batch is appended once however often it is sent; whether it was there already.
    fn retry(&mut self) -> bool {
        let answer = self.settle(1);
        assert_eq!(
            (answer.first_seq, answer.record_count, answer.producer_seq),
            (2, 2, 1)
        );
        let again = self.settle(1);
        assert!(again.duplicate);
        assert_eq!(
            (again.first_seq, again.record_count, again.producer_seq),
            (2, 2, 1)
        );
        answer.duplicate
    }

    /// The third batch gets the seq after all others, and every node holds each record once, of the batches from
    /// `first_kept` on.
    fn finish(mut self, next_seq: u64, dead: u64, first_kept: usize) {
        let last = self.settle(2);
        assert_eq!((last.first_seq, last.duplicate), (next_seq, false));
        self.test.cluster.start(dead).unwrap();
        self.test.caught_up();
        for held in self.test.read_each_node("a") {
            let text = String::from_utf8(held).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.len() == 1).collect();
            assert_eq!(lines, BATCHES[first_kept..].concat());
        }
    }
}

fn once_after_dying_at(stage: Stage) -> bool {
    let mut path = Path::start();
    let dead = path.leader;
    path.die_at(stage);
    let was_there = path.retry();
    println!("{stage:?}: there already: {was_there}");
    path.finish(4, dead, 0);
    was_there
}

#[test]
fn a_leader_dies_before_it_reads_the_batch() {
    assert!(!once_after_dying_at(Stage::BeforeWrite), "nobody had it");
}

/// The others may find it in their sockets, or not: both are right, once.
#[test]
fn a_leader_dies_after_its_write_and_before_its_flush() {
    once_after_dying_at(Stage::AfterWrite);
}

#[test]
fn a_leader_dies_after_its_flush_and_before_the_commit() {
    once_after_dying_at(Stage::AfterFlush);
}

#[test]
fn a_leader_dies_after_the_commit_that_its_own_disk_took_no_part_in() {
    assert!(once_after_dying_at(Stage::AfterCommit), "it was committed");
}

#[test]
fn a_leader_dies_before_the_producer_reads_the_answer() {
    assert!(once_after_dying_at(Stage::BeforeAnswer), "it was committed");
}

#[test]
fn the_new_leader_knows_the_batch_from_a_snapshot_only() {
    let mut path = Path::start();
    let old = path.leader;
    let nodes = path.test.cluster.node_ids();
    let new = nodes.into_iter().find(|node_id| *node_id != old).unwrap();
    let status = wait_for_node(&mut path.test, new, "an index", |node| {
        node.last_index.is_some()
    });
    let last = status.last_index.unwrap();
    path.test.cluster.kill(new).unwrap();
    path.send(1);
    // The batch itself is trimmed with what follows it: an entry that is held could be sent.
    let lines = numbered_lines(6_000);
    path.test
        .run(&["append", "a", "--summary", "--batch", "2"], &lines)
        .assert_code(0);
    let trimmed = path.test.client.trim_log("a", 5_000);
    path.test.runtime.block_on(trimmed).unwrap();
    wait_for_node(&mut path.test, old, "a log that begins later", |node| {
        node.first_index > Some(last + 1)
    });
    let mark = log_of(&path.test, new).len();
    path.test.cluster.start(new).unwrap();
    wait_for_log(&path.test, new, mark, "snapshot received");
    path.test.caught_up();
    let transferred = path.test.client.transfer_leader(new);
    path.test.runtime.block_on(transferred).unwrap();
    path.test.cluster.kill(old).unwrap();
    path.connect();
    assert_eq!(path.leader, new);
    assert!(path.retry(), "the snapshot knows it");
    path.finish(6_004, old, 2);
}
