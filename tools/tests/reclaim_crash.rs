//! Power lost at every operation of the disk while records are given up: trims, a deletion, snapshots, old records
//! that are carried over, and a log that is compacted behind them. Whatever the moment, nothing that is kept is lost,
//! and nothing that was given up comes back.
//!
//! One node with the product's replica and log, over the disk in memory (`drave_tools::sim`).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use drave::node::CarryLimits;
use drave::replica::Answer;
use drave_batch::wire::{Append, EXPECT_SEQ_NONE, ErrorCode, FENCE_NONE};
use drave_batch::{BatchHeader, BodyBuilder, EntryKind, LogChange, decode_carried};
use drave_tools::sim::client::{Ask, Request};
use drave_tools::sim::clock::{Clock, RATE_TRUE};
use drave_tools::sim::node::{Life, Node, Outbox, Process, SendLimits};
use drave_tools::sim::plan::{Limits, Timers};
use drave_tools::sim::random::Random;
use drave_tools::sim::shadow::read_from;
use drave_tools::sim::snapshots::SnapshotStore;
use drave_tools::sim::start::{Setup, hard_state, initial_members};
use drave_wal::{CrashMode, MemoryDisk};

/// Records of each append.
const RECORDS: u64 = 3;

/// What a log is, as far as anybody was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ends {
    first_seq: u64,
    next_seq: u64,
}

/// Logs by their names.
type Model = BTreeMap<&'static str, Ends>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(&'static str),
    Append(&'static str),
    Trim(&'static str, u64),
    Delete(&'static str),
    /// Time passes, until the leader has looked what holds back space.
    Wait,
}

impl Step {
    fn apply(self, model: &mut Model) {
        match self {
            Self::Create(name) => {
                let ends = Ends {
                    first_seq: 0,
                    next_seq: 0,
                };
                model.insert(name, ends);
            }
            Self::Append(name) => model.get_mut(name).unwrap().next_seq += RECORDS,
            Self::Trim(name, first_seq) => model.get_mut(name).unwrap().first_seq = first_seq,
            Self::Delete(name) => drop(model.remove(name)),
            Self::Wait => {}
        }
    }
}

/// Two logs side by side, both given up in part, one of them whole, and a new one in its place; and one that is kept.
/// Trimmed up to the last batch, so that the entries of those before it may go.
fn steps() -> Vec<Step> {
    let mut steps = (["busy", "slow", "kept"].map(Step::Create)).to_vec();
    steps.extend([Step::Append("kept")].repeat(2));
    let busy = |steps: &mut Vec<Step>, count| steps.extend([Step::Append("busy")].repeat(count));
    busy(&mut steps, 12);
    steps.push(Step::Append("slow"));
    busy(&mut steps, 12);
    steps.push(Step::Trim("busy", 69));
    steps.push(Step::Append("slow"));
    busy(&mut steps, 12);
    steps.push(Step::Trim("slow", 3));
    steps.push(Step::Trim("busy", 105));
    busy(&mut steps, 6);
    steps.push(Step::Delete("slow"));
    busy(&mut steps, 6);
    steps.push(Step::Create("slow"));
    steps.push(Step::Append("slow"));
    steps.push(Step::Trim("busy", 141));
    steps.push(Step::Wait);
    busy(&mut steps, 18);
    steps.push(Step::Append("kept"));
    busy(&mut steps, 18);
    steps.push(Step::Trim("busy", 249));
    busy(&mut steps, 9);
    steps.push(Step::Wait);
    busy(&mut steps, 3);
    steps
}

/// A node, and what drives it.
struct Rig {
    node: Node,
    setup: Setup,
    now_us: u64,
    requests: u64,
    /// Numbers of logs by name, as they were told.
    ids: BTreeMap<&'static str, u64>,
    /// Entries that hold what was carried over, when last looked.
    carried: u64,
}

const SEND_LIMITS: SendLimits = SendLimits {
    append_bytes_max: 64 << 10,
    append_entries_max: 64,
    chunk_bytes_max: 4 << 10,
    cold_us: 200,
};

const CARRIED: CarryLimits = CarryLimits {
    entry_bytes: 4 << 10,
    batch_bytes_max: 16 << 10,
};

impl Rig {
    fn new(disk: MemoryDisk, seed: u64) -> Self {
        let timers = Timers {
            election_us_min: 1_000,
            election_us_max: 2_000,
            heartbeat_us: 300,
        };
        let limits = Limits {
            window_entries_max: 64,
            window_bytes_max: 1 << 20,
            append_bytes_max: 64 << 10,
            append_entries_max: 64,
            uncommitted_bytes_max: 1 << 20,
            queue_bytes_max: 1 << 20,
            segment_bytes: 32 << 10,
            tail_bytes_max: 64 << 10,
            groups_in_flight_max: 2,
            snapshot_entries: 8,
            chunk_bytes_max: 4 << 10,
            producers_max: 16,
        };
        let setup = Setup {
            slot: 0,
            timers,
            limits,
            pre_vote: true,
            has_leases: false,
            members: initial_members(1),
            disk_us: (10, 50),
            seed,
        };
        let node = Node {
            slot: 0,
            disk,
            snapshots: SnapshotStore::default(),
            clock: Clock::new(0, RATE_TRUE),
            timers,
            process: None,
            starts: 0,
            inbox: VecDeque::new(),
            busy_until_us: 0,
            wake_us: 0,
            life: Life::Alive,
            is_damaged: false,
            disk_us: (10, 50),
        };
        Self {
            node,
            setup,
            now_us: 0,
            requests: 0,
            ids: BTreeMap::new(),
            carried: 0,
        }
    }

    fn start(&mut self) {
        let (mut log, record) = self.setup.recover(&self.node.disk).unwrap();
        let restored = self.setup.restore(&mut log, record, &self.node.snapshots);
        let replica = restored.unwrap();
        self.node.clock.restart(self.now_us);
        self.node.process = Some(Process::new(log, replica, hard_state(record), 2, CARRIED));
    }

    /// One turn, at the next time at which there is something to do. False when the power is off.
    fn turn(&mut self, out: &mut Outbox) -> bool {
        self.node.schedule();
        self.now_us = self.now_us.max(self.node.wake_us.min(self.now_us + 1_000)) + 1;
        let turned = self.node.turn(self.now_us, 1, SEND_LIMITS, out);
        if self.node.disk.is_off() {
            return false;
        }
        turned
            .map(|()| true)
            .unwrap_or_else(|stop| panic!("it stops: {stop:?}"))
    }

    /// Asks until it is answered for good; none when the power goes off before.
    fn ask(&mut self, ask: &Ask) -> Option<Result<Answer, ErrorCode>> {
        // Whoever is asked must first lead, which takes some elections' time at most.
        for _ in 0..50 {
            self.requests += 1;
            let request_id = self.requests;
            let request = Box::new(Request {
                request_id,
                ask: ask.clone(),
            });
            self.node
                .inbox
                .push_back(drave_tools::sim::node::Input::Request(0, request));
            let mut out = Outbox::default();
            let answer = loop {
                if !self.turn(&mut out) {
                    return None;
                }
                if let Some(reply) = out.replies.drain(..).find(|it| it.request_id == request_id) {
                    break reply;
                }
            };
            match answer.answer {
                Answer::Refused(refusal) if refusal.code.is_retryable() => {
                    let until = self.now_us + 500;
                    while self.now_us < until {
                        if !self.turn(&mut Outbox::default()) {
                            return None;
                        }
                    }
                }
                Answer::Refused(refusal) => return Some(Err(refusal.code)),
                answer => return Some(Ok(answer)),
            }
        }
        panic!("{ask:?} is never answered for good");
    }

    fn step(&mut self, step: Step) -> Option<()> {
        let ask = match step {
            Step::Wait => return self.wait(),
            Step::Create(name) => Ask::Create {
                name: name.to_owned(),
            },
            Step::Append(name) => self.append(name),
            Step::Trim(name, first_seq) => Ask::Trim {
                log_id: self.ids[name],
                first_seq,
            },
            Step::Delete(name) => Ask::Change {
                log_id: self.ids[name],
                change: LogChange::Delete,
            },
        };
        let answer = self.ask(&ask)?;
        let answer = answer.unwrap_or_else(|code| panic!("{step:?} is refused: {code:?}"));
        if let (Step::Create(name), Answer::Log(info)) = (step, answer) {
            self.ids.insert(name, info.log_id);
        }
        Some(())
    }

    fn wait(&mut self) -> Option<()> {
        self.now_us += 2_000_000;
        let until = self.now_us + 10_000;
        while self.now_us < until {
            if !self.turn(&mut Outbox::default()) {
                return None;
            }
        }
        Some(())
    }

    fn append(&self, name: &str) -> Ask {
        let mut body = BodyBuilder::new();
        for record in 0..RECORDS {
            body.push(&[record as u8; 300]);
        }
        let mut bytes = Vec::new();
        body.drain_into(&mut bytes);
        let body = Bytes::from(bytes);
        let mut header = BatchHeader::new(EntryKind::Data, &body, RECORDS as u32);
        header.log_id = self.ids[name];
        Ask::Append {
            append: Append {
                header,
                expect_seq: EXPECT_SEQ_NONE,
                fence: FENCE_NONE,
            },
            body,
        }
    }

    /// The logs as a client finds them, and that every record between their ends is there.
    fn model(&mut self) -> Model {
        // What is applied is what a leader has applied: one answer says that it leads.
        let leads = self.ask(&Ask::Tail { log_id: u64::MAX }).unwrap();
        drop(leads);
        let process = self.node.process.as_ref().unwrap();
        let logs: Vec<_> = process
            .replica
            .catalogue()
            .logs_after("")
            .map(|log| (log.name.to_string(), log.clone()))
            .collect();
        let first = process.log.log.wal.first_index();
        let mut held: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        self.carried = 0;
        read_from(&process.log.log, first, |batch| {
            let batches = match batch.header.kind {
                EntryKind::Data => vec![batch.clone()],
                EntryKind::CarryOver => decode_carried(&batch.header, batch.body()).unwrap(),
                _ => Vec::new(),
            };
            self.carried += u64::from(batch.header.kind == EntryKind::CarryOver);
            for batch in batches {
                let header = &batch.header;
                let ranges = held.entry(header.log_id).or_default();
                ranges.insert(header.first_seq, header.next_seq());
            }
        })
        .unwrap();
        let mut model = Model::new();
        for (name, log) in logs {
            let ends = Ends {
                first_seq: log.first_seq,
                next_seq: log.next_seq,
            };
            let ranges = held.get(&log.log_id).cloned().unwrap_or_default();
            let mut next = ends.first_seq;
            for (from, to) in ranges {
                if from <= next && next < to {
                    next = to;
                }
            }
            assert_eq!(next, ends.next_seq, "records of {name} are lost: {ends:?}");
            for seq in (ends.first_seq..ends.next_seq).filter(|seq| log.index.is_carried(*seq)) {
                let at = log.index.locate(seq).unwrap().0;
                assert!(
                    at >= first,
                    "seq {seq} of {name} is at {at}, before {first}"
                );
            }
            let name = ["busy", "slow", "kept"]
                .into_iter()
                .find(|known| *known == name)
                .unwrap();
            model.insert(name, ends);
            self.ids.insert(name, log.log_id);
        }
        model
    }
}

/// Runs the steps until the power is off: the logs as they were told, and as they are if the step under way was done.
fn run(rig: &mut Rig) -> (Model, Option<Model>) {
    let mut model = Model::new();
    for step in steps() {
        let mut after = model.clone();
        step.apply(&mut after);
        if rig.step(step).is_none() {
            return (model, Some(after));
        }
        model = after;
    }
    // What is snapshotted, compacted and removed behind the last step.
    let until = rig.now_us + 20_000;
    while rig.now_us < until {
        if !rig.turn(&mut Outbox::default()) {
            break;
        }
    }
    (model, None)
}

fn formatted() -> MemoryDisk {
    let disk = MemoryDisk::new();
    Rig::new(disk.clone(), 1).setup.format(&disk).unwrap();
    disk
}

#[test]
fn nothing_kept_is_lost_and_nothing_given_up_comes_back() {
    let disk = formatted();
    let from = disk.operations();
    let mut whole = Rig::new(disk.clone(), 1);
    whole.start();
    let (model, under_way) = run(&mut whole);
    assert_eq!(under_way, None);
    let operations = disk.operations();
    let process = whole.node.process.as_ref().unwrap();
    let first_index = process.log.log.wal.first_index();
    assert!(
        first_index > 30,
        "the log was compacted: it begins at {first_index}"
    );
    assert_eq!(whole.model(), model);
    assert!(whole.carried > 1, "{} entries carry", whole.carried);

    let mut images = 0;
    for operation in from..operations {
        for (at, mode) in CrashMode::ALL.into_iter().enumerate() {
            let disk = formatted();
            let seed = operation * 8 + at as u64;
            let mut rig = Rig::new(disk.clone(), seed);
            rig.start();
            disk.power_off_at(operation);
            let (told, maybe) = run(&mut rig);
            assert!(disk.is_off(), "operation {operation} is never reached");
            rig.node.process = None;
            rig.node.inbox.clear();
            rig.node.snapshots.crash(&mut Random::new(seed, 1));
            disk.crash(mode, seed);
            disk.restart();
            rig.start();
            let found = rig.model();
            let place = format!("operation {operation}, {mode:?}");
            assert!(
                found == told || Some(&found) == maybe.as_ref(),
                "{place}: {found:?}, told {told:?}, or {maybe:?}"
            );
            // And it goes on.
            let mut after = found;
            let step = match after.contains_key("busy") {
                true => Step::Append("busy"),
                false => Step::Create("busy"),
            };
            assert!(rig.step(step).is_some(), "{place}: it does not go on");
            step.apply(&mut after);
            assert_eq!(rig.model(), after, "{place}");
            images += 1;
        }
    }
    println!(
        "{images} losses of power over {} operations",
        operations - from
    );
    assert!(images > 1_000, "{images} are too few");
}
