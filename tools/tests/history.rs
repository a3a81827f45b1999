//! The history checker: valid random histories pass, every kind of violation is caught when it is planted.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;

use drave_tools::history::{
    Action, Append, AppendOutcome, CheckTail, FinalSlice, History, Line, Operation, Read,
    ReadOutcome, TailOutcome, ViolationKind, check, write_line,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const LOG: u64 = 1;

/// What a client intends, and when.
#[derive(Clone, Debug)]
struct Intent {
    client: u64,
    invoked_us: u64,
    /// Until it takes effect, and from then to the client's knowing.
    durations_us: [u64; 2],
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Append { count: u32, fate: Fate },
    Read { from: u16, count: u32, fails: bool },
    CheckTail,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Acknowledged,
    Failed,
    UnknownAbsent,
    /// In the log, so long after the client gave up.
    UnknownPresent {
        late_us: u64,
    },
}

fn intents() -> impl Strategy<Value = Vec<Intent>> {
    let fate = prop_oneof![
        6 => Just(Fate::Acknowledged),
        1 => Just(Fate::Failed),
        1 => Just(Fate::UnknownAbsent),
        2 => (0..100_u64).prop_map(|late_us| Fate::UnknownPresent { late_us }),
    ];
    let what = prop_oneof![
        5 => (1..4_u32, fate).prop_map(|(count, fate)| What::Append { count, fate }),
        3 => (any::<u16>(), 1..9_u32, prop::bool::weighted(0.1))
            .prop_map(|(from, count, fails)| What::Read { from, count, fails }),
        2 => Just(What::CheckTail),
    ];
    let intent = (0..5_u64, 1..300_u64, [0..40_u64, 0..40_u64], what).prop_map(
        |(client, invoked_us, durations_us, what)| Intent {
            client,
            invoked_us,
            durations_us,
            what,
        },
    );
    prop::collection::vec(intent, 1..60)
}

/// Lets each intent take effect at one moment between its beginning and its end, in the order of these
/// moments: what a correct cluster does. `trim` of 256 parts of the log are gone at the end.
fn played(intents: &[Intent], trim: u8) -> History {
    let effect_us = |intent: &Intent| {
        let late_us = match intent.what {
            What::Append {
                fate: Fate::UnknownPresent { late_us },
                ..
            } => late_us,
            _ => 0,
        };
        intent.invoked_us + intent.durations_us[0] + late_us
    };
    let mut order: Vec<usize> = (0..intents.len()).collect();
    order.sort_by_key(|at| effect_us(&intents[*at]));
    let mut history = History::default();
    let mut log: Vec<u64> = Vec::new();
    for at in order {
        let intent = &intents[at];
        let action = act(intent, at as u64 * 10, &mut log, history.operations.len());
        history.operations.push(Operation {
            client: intent.client,
            invoked_us: intent.invoked_us,
            completed_us: intent.invoked_us + intent.durations_us.iter().sum::<u64>(),
            log: LOG,
            action,
        });
    }
    let from = log.len() * usize::from(trim) / 256;
    history.finals.push(FinalSlice {
        log: LOG,
        node: None,
        from: from as u64,
        records: log[from..].to_vec(),
    });
    history
}

fn act(intent: &Intent, payload_id: u64, log: &mut Vec<u64>, number: usize) -> Action {
    let tail = log.len() as u64;
    match intent.what {
        What::Append { count, fate } => {
            if matches!(fate, Fate::Acknowledged | Fate::UnknownPresent { .. }) {
                log.extend(payload_id..payload_id + u64::from(count));
            }
            let outcome = match fate {
                Fate::Acknowledged => AppendOutcome::Ok { first_seq: tail },
                Fate::Failed => AppendOutcome::Failed,
                Fate::UnknownAbsent | Fate::UnknownPresent { .. } => AppendOutcome::Unknown,
            };
            Action::Append(Append {
                producer: intent.client,
                // Its producer submitted it in the order in which it took effect.
                producer_seq: number as u64,
                payload_id,
                count,
                outcome,
            })
        }
        What::Read { from, count, fails } => {
            let from = u64::from(from) % (tail + 1);
            let records = log[from as usize..].iter().copied().take(count as usize);
            let outcome = if fails {
                ReadOutcome::Failed
            } else {
                let records = records.collect();
                ReadOutcome::Ok { tail, records }
            };
            Action::Read(Read {
                from,
                count,
                outcome,
            })
        }
        What::CheckTail => Action::CheckTail(CheckTail {
            outcome: TailOutcome::Ok { tail },
        }),
    }
}

proptest! {
    #![proptest_config(Config { cases: 2000, ..Config::default() })]
    #[test]
    fn valid_histories_pass(intents in intents(), trim in prop_oneof![Just(0_u8), any::<u8>()]) {
        let report = check(&played(&intents, trim)).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report.violations);
    }
}

/// The acknowledged appends: place in the history, seq, count.
fn acknowledged(history: &History) -> Vec<(usize, u64, u32)> {
    let appends = history.operations.iter().enumerate();
    let found = appends.filter_map(|(at, operation)| match &operation.action {
        Action::Append(append) => match append.outcome {
            AppendOutcome::Ok { first_seq } => Some((at, first_seq, append.count)),
            _ => None,
        },
        _ => None,
    });
    found.collect()
}

fn append_mut(history: &mut History, at: usize) -> &mut Append {
    match &mut history.operations[at].action {
        Action::Append(append) => append,
        other => panic!("{other:?} is no append"),
    }
}

/// The reads that showed something: their places.
fn full_reads(history: &History) -> Vec<usize> {
    let operations = history.operations.iter().enumerate();
    let found = operations.filter_map(|(at, operation)| match &operation.action {
        Action::Read(Read {
            outcome: ReadOutcome::Ok { records, .. },
            ..
        }) => (!records.is_empty()).then_some(at),
        _ => None,
    });
    found.collect()
}

fn shown_mut(history: &mut History, at: usize) -> &mut Vec<u64> {
    match &mut history.operations[at].action {
        Action::Read(Read {
            outcome: ReadOutcome::Ok { records, .. },
            ..
        }) => records,
        other => panic!("{other:?} showed nothing"),
    }
}

fn push_tail(history: &mut History, [invoked_us, completed_us]: [u64; 2], tail: u64) {
    let outcome = TailOutcome::Ok { tail };
    history.operations.push(Operation {
        client: 99,
        invoked_us,
        completed_us,
        log: LOG,
        action: Action::CheckTail(CheckTail { outcome }),
    });
}

/// Makes a valid history break this rule; `None` when it has nothing to break it with.
fn planted(kind: ViolationKind, mut history: History, choice: usize) -> Option<History> {
    let acked = acknowledged(&history);
    let pick = |count: usize| choice.checked_rem(count);
    let end_us = 1 + history.operations.iter().map(|op| op.completed_us).max()?;
    let records = history.finals[0].records.clone();
    let final_records = &mut history.finals[0].records;
    let (at, seq, count) = acked[pick(acked.len())?];
    let stranger = u64::MAX - 10;
    match kind {
        ViolationKind::Lost => final_records.truncate(seq as usize + count as usize - 1),
        ViolationKind::Misplaced => {
            append_mut(&mut history, at).outcome = AppendOutcome::Ok { first_seq: seq + 1 };
        }
        ViolationKind::Duplicated => final_records.push(records[pick(records.len())?]),
        ViolationKind::SeqReused => {
            let other = acked[(pick(acked.len())? + 1) % acked.len()].0;
            (other != at).then_some(())?;
            append_mut(&mut history, other).outcome = AppendOutcome::Ok { first_seq: seq };
        }
        ViolationKind::OutOfOrder => {
            let (later, ..) = *acked.iter().find(|(_, other, _)| *other > seq)?;
            let ended_us = history.operations[later].completed_us;
            history.operations[at].invoked_us = ended_us + 1;
            history.operations[at].completed_us = ended_us + 2;
        }
        ViolationKind::ProducerOrder => {
            let client = history.operations[at].client;
            let mut others = acked.iter().filter(|(_, other, _)| *other > seq);
            let (later, ..) = *others.find(|(at, ..)| history.operations[*at].client == client)?;
            let number = append_mut(&mut history, at).producer_seq;
            let other = &mut append_mut(&mut history, later).producer_seq;
            let other = std::mem::replace(other, number);
            append_mut(&mut history, at).producer_seq = other;
        }
        ViolationKind::FailedPresent => {
            append_mut(&mut history, at).outcome = AppendOutcome::Failed;
        }
        ViolationKind::Torn => {
            (count > 1).then_some(())?;
            final_records[seq as usize + choice % count as usize] = stranger;
            append_mut(&mut history, at).outcome = AppendOutcome::Unknown;
        }
        ViolationKind::Stranger => final_records.push(stranger),
        ViolationKind::ReadMismatch => {
            let reads = full_reads(&history);
            let shown = shown_mut(&mut history, reads[pick(reads.len())?]);
            let record = choice % shown.len();
            shown[record] += 1;
        }
        ViolationKind::ReadTail => {
            let reads = full_reads(&history);
            shown_mut(&mut history, reads[pick(reads.len())?]).clear();
        }
        ViolationKind::StaleRead => {
            let ended_us = history.operations[at].completed_us;
            let tail = seq + u64::from(count) - 1;
            push_tail(&mut history, [ended_us + 1, ended_us + 500], tail);
        }
        ViolationKind::TailWentBack => {
            let tail = records.len() as u64;
            push_tail(&mut history, [end_us, end_us + 1], tail);
            push_tail(&mut history, [end_us + 2, end_us + 3], tail - 1);
        }
        ViolationKind::FutureRead => {
            let begun_us = history.operations[at].invoked_us;
            push_tail(&mut history, [0, begun_us - 1], seq + 1);
        }
        ViolationKind::ShownThenGone => {
            push_tail(&mut history, [0, end_us], records.len() as u64 + 1);
        }
        ViolationKind::ReplicasDiffer => {
            let mut replica = history.finals[0].clone();
            replica.node = Some(3);
            match choice % 3 {
                0 => drop(replica.records.pop()),
                1 => replica.records.push(stranger),
                _ => replica.records[choice % records.len()] = stranger,
            }
            history.finals.push(replica);
        }
    }
    Some(history)
}

#[test]
fn every_planted_violation_is_caught() {
    const CASES: u32 = 400;
    for kind in ViolationKind::ALL {
        let caught = Cell::new(0);
        let config = Config {
            cases: CASES,
            ..Config::default()
        };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&(intents(), any::<u16>()), |(intents, choice)| {
            let valid = played(&intents, 0);
            if let Some(history) = planted(kind, valid, usize::from(choice)) {
                let report = check(&history).unwrap();
                prop_assert!(report.count(kind) > 0, "{kind:?} in {history:?}");
                let told = report.violations.iter().find(|told| told.kind == kind);
                let named = &told.unwrap().operations;
                prop_assert!(named.iter().all(|at| *at < history.operations.len()));
                caught.set(caught.get() + 1);
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert!(
            caught.get() > CASES / 8,
            "{kind:?} was planted only {} times",
            caught.get()
        );
    }
}

fn written(history: &History) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for operation in &history.operations {
        write_line(&mut file, &Line::Operation(operation.clone())).unwrap();
    }
    for slice in &history.finals {
        write_line(&mut file, &Line::Final(slice.clone())).unwrap();
    }
    file
}

fn checked(file: &tempfile::NamedTempFile) -> common::Ended {
    let path = common::path_text(file.path());
    common::run(&mut common::drave(&["history", "check", &path]), b"")
}

fn small_history() -> History {
    let intent = |invoked_us, what| Intent {
        client: 1,
        invoked_us,
        durations_us: [1, 1],
        what,
    };
    let append = What::Append {
        count: 2,
        fate: Fate::Acknowledged,
    };
    played(
        &[
            intent(10, append),
            intent(20, append),
            intent(30, What::CheckTail),
        ],
        0,
    )
}

#[test]
fn the_command_says_what_holds_and_what_does_not() {
    let clean = checked(&written(&small_history())).assert_code(0);
    let expected = "3 operations: 2 acknowledged, 0 unknown, 0 failed, 1 reads and tails; \
                    4 records in the end\nevery rule holds\n";
    assert_eq!(clean.text(), expected);

    let broken = planted(ViolationKind::Lost, small_history(), 1).unwrap();
    let ended = checked(&written(&broken)).assert_code(1);
    for part in [
        "lost: log 1: payload 11 was acknowledged at 3; the log ends at 3\n",
        "  operation 1: append of payloads [10, 12), producer 1 number 1, acknowledged at 2, \
         client 1, 20 to 22 us\n",
        "shown, then gone: 1\n",
    ] {
        assert!(
            ended.text().contains(part),
            "no {part:?} in {}",
            ended.text()
        );
    }
    ended.assert_says("the promise was not kept");
}

#[test]
fn the_command_refuses_what_is_no_history() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"operation\":1}\n").unwrap();
    checked(&file).assert_code(6).assert_says("line 1");
    let mut unread = small_history();
    unread.finals.clear();
    checked(&written(&unread))
        .assert_code(6)
        .assert_says("log 1 was not read back");
    let gone = common::run(
        &mut common::drave(&["history", "check", "/nowhere/at/all"]),
        b"",
    );
    gone.assert_code(3);
}
