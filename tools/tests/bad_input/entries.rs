//! Whoever asks a running node for entries as a member that repairs its log would, and asks badly.

use drave_batch::Batches;
use drave_batch::wire::{
    EntriesHeld, EntriesReply, EntriesRequest, ErrorCode, FRAME_PAYLOAD_BYTES_MAX, Hello, HelloAck,
    Lane, Message, MessageKind, Role,
};

use crate::node::Victim;
use crate::wire::{Raw, Received, client_hello, frame_around};

/// A node with an id above all that were ever used may be a member that this one has not heard of yet.
fn connect_as_peer(victim: &Victim, lane: Lane) -> Raw {
    let mut raw = victim.connect();
    let hello = Hello {
        role: Role::Peer,
        node_id: 99,
        incarnation: 7,
        lane,
        ..client_hello()
    };
    raw.send_message(0, &hello);
    let _: HelloAck = raw.receive().expect("an answer to the hello").decode();
    raw
}

fn request(lo: u64, hi: u64, bytes_max: u32) -> EntriesRequest {
    EntriesRequest { lo, hi, bytes_max }
}

fn ask(raw: &mut Raw, request: &EntriesRequest) -> (EntriesReply, Received) {
    raw.send_message(5, request);
    let frame = raw.answer(5);
    (frame.decode(), frame)
}

#[test]
fn entries_are_given_within_bounds_and_what_is_not_there_is_named() {
    let mut victim = Victim::start();
    victim.is_sound();
    let status = victim.test.runtime.block_on(victim.test.client.status());
    let last_index = status.unwrap().nodes[0].last_index.unwrap();
    let mut raw = connect_as_peer(&victim, Lane::CatchUp);
    for bytes_max in [0, 1, u32::MAX] {
        let (reply, frame) = ask(&mut raw, &request(1, u64::MAX, bytes_max));
        assert_eq!((reply.held, reply.lo), (EntriesHeld::Held, 1));
        assert!(frame.payload.len() <= FRAME_PAYLOAD_BYTES_MAX as usize);
        let indexes: Vec<u64> = Batches::new(&frame.payload)
            .map(|batch| batch.unwrap().header.index)
            .collect();
        assert_eq!(indexes, (1..reply.hi).collect::<Vec<_>>());
        let expected = if bytes_max < 2 { 2 } else { last_index + 1 };
        assert_eq!(reply.hi, expected, "bytes_max {bytes_max}");
    }
    for lo in [last_index + 1, u64::MAX - 1] {
        let (reply, frame) = ask(&mut raw, &request(lo, u64::MAX, 1 << 20));
        assert_eq!(
            (reply.held, reply.lo),
            (EntriesHeld::NotHeld, last_index + 1)
        );
        assert_eq!((reply.hi, frame.payload.len()), (u64::MAX, 0));
    }
    let (reply, _) = ask(&mut raw, &request(0, 1, 1 << 20));
    assert_eq!((reply.held, reply.hi), (EntriesHeld::Trimmed, 1));
    victim.is_sound();
}

#[test]
fn requests_for_nothing_and_on_other_lanes_close_their_connection() {
    let mut victim = Victim::start();
    for (lo, hi) in [(1, 1), (2, 1), (0, 0), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
        let mut raw = connect_as_peer(&victim, Lane::CatchUp);
        raw.send_message(5, &request(lo, hi, 1));
        raw.refused_with(&format!("[{lo}, {hi})"), &[ErrorCode::UnexpectedMessage]);
    }
    for lane in [Lane::Control, Lane::Append] {
        let mut raw = connect_as_peer(&victim, lane);
        raw.send_message(5, &request(1, 2, 1));
        raw.refused_with(&format!("{lane:?}"), &[ErrorCode::UnexpectedMessage]);
    }
    let mut head = Vec::new();
    request(1, 2, 1).encode_head(&mut head);
    for length in [0, head.len() - 1] {
        let mut raw = connect_as_peer(&victim, Lane::CatchUp);
        raw.send(&frame_around(
            MessageKind::EntriesRequest,
            5,
            &head[..length],
        ));
        raw.refused_with("a head that is cut", &[ErrorCode::MalformedFrame]);
    }
    // It asked for nothing itself.
    let mut raw = connect_as_peer(&victim, Lane::CatchUp);
    let reply = EntriesReply {
        held: EntriesHeld::NotHeld,
        lo: 1,
        hi: 2,
        commit_index: u64::MAX,
    };
    raw.send_message(5, &reply);
    raw.refused_with("an answer", &[ErrorCode::MalformedFrame]);
    victim.is_sound();
}
