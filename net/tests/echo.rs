//! Frames go there and back: many, large, over several connections, in order, on both engines.
#![allow(clippy::unwrap_used)]

mod common;

use std::slice::from_ref;

use bytes::Bytes;
use common::{Node, RawClient, on_both_engines, pair, pattern, request};
use drave_batch::wire::{FRAME_PAYLOAD_BYTES_MAX, Lane, Read, ReadReply};
use drave_net::{NetEvent, SendError};

const FRAMES: u64 = 20_000;

/// Echoes one frame back as an answer.
fn echo(node: &Node, event: NetEvent) -> bool {
    let NetEvent::Frame { conn, frame } = event else {
        return false;
    };
    let asked: Read = frame.decode().unwrap();
    let answer = ReadReply {
        next_seq: asked.from_seq,
        ..ReadReply::default()
    };
    let header = frame.header;
    node.net
        .send(
            conn,
            header.group_id,
            header.request_id,
            &answer,
            &[frame.payload],
        )
        .unwrap();
    true
}

#[test]
fn many_frames_come_back_in_order() {
    on_both_engines(async || {
        let (mut dialer, conn, mut server, _) = pair().await;
        let serve = async {
            let mut served = 0;
            while served < FRAMES {
                let event = server.event().await;
                served += u64::from(echo(&server, event));
            }
        };
        let ask = async {
            let (mut sent, mut received) = (0, 0);
            while received < FRAMES {
                // A window of requests, as a pipelining client has it.
                while sent < FRAMES && sent < received + 512 {
                    let payload = pattern((sent % 97) as usize, sent as u8);
                    dialer
                        .net
                        .send(conn, 7, sent, &request(sent), &[payload])
                        .unwrap();
                    sent += 1;
                }
                let NetEvent::Frame { frame, .. } = dialer.event().await else {
                    continue;
                };
                let answer: ReadReply = frame.decode().unwrap();
                assert_eq!(frame.header.group_id, 7);
                assert_eq!(frame.header.request_id, received);
                assert_eq!(answer.next_seq, received);
                assert_eq!(
                    frame.payload,
                    pattern((received % 97) as usize, received as u8)
                );
                received += 1;
            }
        };
        tokio::join!(serve, ask);
        let (asked, served) = (dialer.net.stats(), server.net.stats());
        assert_eq!((asked.frames_sent, asked.frames_received), (FRAMES, FRAMES));
        assert_eq!(asked.bytes_sent, served.bytes_received);
        assert_eq!(asked.bytes_received, served.bytes_sent);
        assert_eq!(dialer.net.queued_bytes(conn), 0);
    });
}

#[test]
fn the_largest_payload_passes_in_pieces_and_one_byte_more_does_not() {
    on_both_engines(async || {
        let (dialer, conn, mut server, _) = pair().await;
        let limit = FRAME_PAYLOAD_BYTES_MAX as usize;
        let whole = pattern(limit, 3);
        let pieces = [
            whole.slice(..100),
            whole.slice(100..3_000_000),
            whole.slice(3_000_000..3_000_001),
            whole.slice(3_000_001..),
        ];
        for round in 0..3 {
            dialer
                .net
                .send(conn, 1, round, &request(round), &pieces)
                .unwrap();
            let (_, frame) = server.frame().await;
            assert_eq!(frame.header.request_id, round);
            assert!(frame.payload == whole, "round {round}: the same 4 MiB");
        }
        let error = dialer
            .net
            .send(conn, 1, 9, &request(9), &[whole, Bytes::from_static(b"x")])
            .unwrap_err();
        let limit = limit as u64;
        assert_eq!(
            error,
            SendError::TooLarge {
                limit,
                found: limit + 1
            }
        );
        assert_eq!(dialer.net.queued_bytes(conn), 0, "nothing of it was queued");
    });
}

#[test]
fn lanes_are_connections_of_their_own() {
    on_both_engines(async || {
        let mut server = Node::new(1);
        let mut dialer = Node::new(2);
        for lane in [Lane::Control, Lane::Append, Lane::CatchUp] {
            dialer.net.dial(server.dial(1, lane));
            let conn = dialer.dialed().await;
            let (accepted, hello, _) = server.accepted().await;
            assert_eq!(hello.lane, lane);
            dialer
                .net
                .send(conn, 0, lane as u64, &request(0), &[])
                .unwrap();
            let (from, frame) = server.frame().await;
            assert_eq!((from, frame.header.request_id), (accepted, lane as u64));
        }
        assert_eq!(dialer.net.stats().dialed_now, 3);
        assert_eq!(server.net.stats().accepted_now, 3);
    });
}

#[test]
fn a_bulk_lane_that_is_not_read_does_not_hold_up_the_control_lane() {
    on_both_engines(async || {
        let mut server = Node::new(1);
        let mut dialer = Node::new(2);
        dialer.net.dial(server.dial(1, Lane::CatchUp));
        let bulk = dialer.dialed().await;
        let (bulk_accepted, ..) = server.accepted().await;
        dialer.net.dial(server.dial(1, Lane::Control));
        let control = dialer.dialed().await;
        server.accepted().await;
        server.net.pause_reading(bulk_accepted, true);
        let block = pattern(1 << 20, 1);
        let full = loop {
            // Runs until neither the kernel nor the queue takes more.
            if let Err(error) = dialer.net.send(bulk, 0, 0, &request(0), from_ref(&block)) {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert!(matches!(full, SendError::QueueFull { .. }), "{full}");
        for number in 0..100 {
            dialer
                .net
                .send(control, 0, number, &request(number), &[])
                .unwrap();
            let (_, frame) = server.frame().await;
            assert_eq!(frame.header.request_id, number);
        }
        server.net.pause_reading(bulk_accepted, false);
        let (from, _) = server.frame().await;
        assert_eq!(from, bulk_accepted);
    });
}

#[test]
fn bytes_behind_the_hello_are_not_lost() {
    on_both_engines(async || {
        let mut server = Node::new(1);
        let mut client = RawClient::connect(server.address()).await;
        let mut bytes = common::hello_bytes(|_| {});
        drave_batch::wire::encode_frame(&mut bytes, 0, 5, &request(5), 3);
        bytes.extend_from_slice(b"abc");
        client.write(&bytes).await;
        server.accepted().await;
        let (_, frame) = server.frame().await;
        assert_eq!(frame.header.request_id, 5);
        assert_eq!(&frame.payload[..], b"abc");
    });
}
