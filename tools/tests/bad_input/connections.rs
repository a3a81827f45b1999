//! More connections than the node has files for, and thousands of them one after the other.

use drave_batch::wire::{ErrorCode, MessageKind, Status};

use drave_tools::cli::Io;

use crate::node::Victim;
use crate::wire::{Raw, Seeded, client_hello, frame, frame_around};

/// What became of those who asked to come in.
#[derive(Debug, Default)]
struct Tally {
    served: usize,
    refused: usize,
    closed: usize,
}

/// 500 clients at once. Each is answered or closed; those who are in stay until the end.
fn crowd(victim: &Victim) -> (Vec<Raw>, Tally) {
    let hello = frame(0, 0, &client_hello(), &[]);
    let mut crowd: Vec<Raw> = (0..500).map(|_| victim.connect()).collect();
    crowd.iter_mut().for_each(|raw| raw.send(&hello));
    let mut inside = Vec::new();
    let mut tally = Tally::default();
    for mut raw in crowd {
        match raw.receive() {
            None => tally.closed += 1,
            Some(frame) if frame.header.kind == MessageKind::HelloAck => {
                tally.served += 1;
                inside.push(raw);
            }
            Some(frame) => {
                assert_eq!(
                    frame.code(),
                    Some(ErrorCode::ConnectionLimit as u32),
                    "{frame:?}"
                );
                assert!(raw.receive().is_none(), "closed behind the refusal");
                tally.refused += 1;
            }
        }
    }
    (inside, tally)
}

fn withstands_a_crowd(victim: &mut Victim) {
    let mark = victim.log_mark();
    let mut early = victim.connect_client();
    for round in 0..2 {
        let (mut inside, tally) = crowd(victim);
        eprintln!("round {round}: {tally:?}");
        assert!((1..64).contains(&tally.served), "{tally:?}");
        assert!(tally.refused > 0, "some are refused in words: {tally:?}");
        assert_eq!(tally.served + tally.refused + tally.closed, 500);
        // Who is in is served, as is who was in before.
        early.still_serves();
        inside.iter_mut().for_each(Raw::still_serves);
        drop(inside);
        victim.is_sound();
    }
    early.still_serves();
    victim.log_says(mark, &ErrorCode::ConnectionLimit.to_string());
}

#[test]
fn five_hundred_connections_at_64_files() {
    for io in [Io::Auto, Io::Posix] {
        withstands_a_crowd(&mut Victim::start_with_few_files(io, ""));
    }
}

/// The node believes it may take a thousand, and runs out of files instead.
#[test]
fn five_hundred_connections_at_64_files_and_a_limit_beyond_them() {
    for io in [Io::Auto, Io::Posix] {
        let mut victim = Victim::start_with_few_files(io, "connections_max = 1000");
        let mark = victim.log_mark();
        withstands_a_crowd(&mut victim);
        victim.log_says(mark, "cannot accept a connection");
    }
}

/// Silent connections take every slot; who says hello at once comes in all the same.
#[test]
fn silent_connections_do_not_keep_others_out() {
    let mut victim = Victim::start_with_few_files(Io::Auto, "");
    let silent: Vec<Raw> = (0..200).map(|_| victim.connect()).collect();
    victim.is_sound();
    drop(silent);
    victim.is_sound();
}

#[test]
fn thousands_of_abuses_leave_no_trace_in_memory() {
    const ABUSES: usize = 3_000;
    let mut victim = Victim::start();
    let hello = frame(0, 0, &client_hello(), &[]);
    let log_id = victim.log_id("thousands");
    let append = crate::appends::good_append(log_id, &[b"cut"]);
    let mut random = Seeded::new(crate::common::seed());
    for abuse in 0..ABUSES {
        let mut raw = victim.connect();
        match random.between(0, 6) {
            0 => {}
            1 => raw.send(&hello[..random.between(1, hello.len())]),
            2 => {
                let length = random.between(1, 5_000);
                raw.send(&random.bytes(length));
            }
            3 => {
                raw.send(&hello);
                raw.send(&append[..random.between(1, append.len())]);
            }
            4 => {
                raw.send(&hello);
                raw.send(&frame_around(MessageKind::Read, 1, &random.bytes(20)));
            }
            _ => {
                raw.send(&hello);
                raw.send(&frame(0, 1, &Status {}, &[]).repeat(50));
            }
        }
        // Half of them say goodbye, the others are just gone.
        if abuse % 2 == 0 {
            raw.finish();
        }
    }
    victim.is_sound();
    let read = victim.test.run(&["read", "thousands"], b"").assert_code(0);
    assert!(read.stdout.is_empty(), "{:?}", read.text());
}
