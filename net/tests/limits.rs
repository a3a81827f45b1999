//! Every queue ends somewhere: outgoing, incoming, connections, per address.
#![allow(clippy::unwrap_used)]

mod common;

use std::slice::from_ref;
use std::time::Duration;

use common::{Node, RawClient, config, on_both_engines, pair, pattern, request};
use drave_batch::wire::{ErrorCode, HelloReject, Lane, MessageKind};
use drave_net::handshake::Connector;
use drave_net::{CloseReason, Flush, NetEvent, SendError};

#[test]
fn a_client_that_does_not_read_is_closed_at_the_queue_limit() {
    on_both_engines(async || {
        let mut config = config(1);
        config.send_queue_bytes_max = 3 << 20;
        let mut node = Node::with(config, common::anyone);
        let mut other = RawClient::greeted(node.address()).await;
        let (other_conn, ..) = node.accepted().await;
        let client = RawClient::greeted(node.address()).await;
        let (conn, ..) = node.accepted().await;
        let block = pattern(1 << 20, 9);
        let error = loop {
            if let Err(error) = node.net.send(conn, 0, 0, &request(0), from_ref(&block)) {
                break error;
            }
            assert!(node.net.queued_bytes(conn) <= 3 << 20, "bounded");
            tokio::task::yield_now().await;
        };
        assert!(matches!(error, SendError::QueueFull { limit, .. } if limit == 3 << 20));
        // It still does not read, and yet the connection ends at once.
        let (closed, reason) = loop {
            match node.event().await {
                NetEvent::Closed { conn, reason } => break (conn, reason),
                NetEvent::Writable { .. } => {}
                other => panic!("expected Closed, found {other:?}"),
            }
        };
        assert_eq!(closed, conn);
        assert!(matches!(reason, CloseReason::Limit { .. }), "{reason}");
        assert_eq!(
            node.net.send(conn, 0, 0, &request(0), &[]),
            Err(SendError::Closed(conn))
        );
        node.net.send(other_conn, 0, 8, &request(8), &[]).unwrap();
        assert_eq!(other.read_frame().await.unwrap().header.request_id, 8);
        drop(client);
    });
}

#[test]
fn a_peer_whose_queue_is_full_keeps_its_connection_and_tells_when_there_is_room() {
    on_both_engines(async || {
        let (mut dialer, conn, mut server, accepted) = pair().await;
        server.net.pause_reading(accepted, true);
        let block = pattern(1 << 20, 9);
        let mut sent = 0u64;
        while dialer
            .net
            .send(conn, 0, sent, &request(sent), from_ref(&block))
            .is_ok()
        {
            sent += 1;
            tokio::task::yield_now().await;
        }
        server.net.pause_reading(accepted, false);
        let mut received = 0;
        while received < sent {
            let (_, frame) = server.frame().await;
            assert_eq!(frame.header.request_id, received);
            assert!(frame.payload == block);
            received += 1;
        }
        // One event says so; earlier ones may have come while the kernel's buffers filled.
        assert!(matches!(dialer.event().await, NetEvent::Writable { conn: room } if room == conn));
        assert_eq!(dialer.net.queued_bytes(conn), 0);
        dialer.net.send(conn, 0, sent, &request(sent), &[]).unwrap();
        assert_eq!(server.frame().await.1.header.request_id, sent);
    });
}

#[test]
fn frames_that_are_not_drained_hold_the_reader_at_its_budget() {
    on_both_engines(async || {
        let mut config = config(1);
        config.receive_budget_bytes = 256 << 10;
        let mut server = Node::with(config, common::anyone);
        let mut dialer = Node::new(2);
        dialer.net.dial(server.dial(1, Lane::Append));
        let conn = dialer.dialed().await;
        server.accepted().await;
        let mut other = RawClient::greeted(server.address()).await;
        let (other_conn, ..) = server.accepted().await;
        let block = pattern(64 << 10, 4);
        let mut sent = 0u64;
        // The server is not drained: the dialer fills budget, kernel buffers and its own queue.
        while dialer
            .net
            .send(conn, 0, sent, &request(sent), from_ref(&block))
            .is_ok()
        {
            sent += 1;
            tokio::task::yield_now().await;
        }
        // Round trips on another connection give the server's reader all the turns it can use.
        let mut rounds_behind = 0;
        while rounds_behind < 50 {
            server.net.send(other_conn, 0, 0, &request(0), &[]).unwrap();
            other.read_frame().await.unwrap();
            rounds_behind += i32::from(server.net.stats().frames_received >= 4);
        }
        let received = server.net.stats().frames_received;
        assert!(
            received <= 5,
            "4 frames of 64 KiB fill it, found {received}"
        );
        for number in 0..sent {
            assert_eq!(server.frame().await.1.header.request_id, number);
        }
    });
}

#[test]
fn a_paused_connection_gives_no_frames_until_it_is_resumed() {
    on_both_engines(async || {
        let (dialer, conn, mut server, accepted) = pair().await;
        server.net.pause_reading(accepted, true);
        dialer.net.send(conn, 0, 1, &request(1), &[]).unwrap();
        // A second connection's frame is sent later and overtakes.
        let mut second = Node::new(3);
        second.net.dial(server.dial(1, Lane::Control));
        let fast = second.dialed().await;
        let (fast_accepted, ..) = server.accepted().await;
        second.net.send(fast, 0, 2, &request(2), &[]).unwrap();
        assert_eq!(server.frame().await.0, fast_accepted);
        server.net.pause_reading(accepted, false);
        assert_eq!(server.frame().await.0, accepted);
    });
}

#[test]
fn of_500_clients_as_many_come_in_as_there_are_slots_and_peers_still_do() {
    on_both_engines(async || {
        let mut config = config(1);
        config.connections_max = 40;
        config.peer_connections_reserved = 4;
        let mut node = Node::with(config, common::anyone);
        let address = node.address();
        let mut clients = Vec::new();
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..500 {
            let mut client = RawClient::connect(address).await;
            client
                .write(&Connector::client(None, 0).hello_bytes())
                .await;
            let frame = client.read_frame().await.expect("an answer in words");
            match frame.header.kind {
                MessageKind::HelloAck => accepted += 1,
                MessageKind::HelloReject => {
                    let reject: HelloReject = frame.decode().unwrap();
                    assert_eq!(reject.code, ErrorCode::ConnectionLimit as u32);
                    refused += 1;
                    continue;
                }
                other => panic!("expected an ack or a refusal, found {other:?}"),
            }
            clients.push(client);
        }
        assert_eq!((accepted, refused), (36, 464));
        for _ in 0..36 {
            node.accepted().await;
        }
        let mut dialer = Node::new(2);
        dialer.net.dial(node.dial(1, Lane::Control));
        dialer.dialed().await;
        node.accepted().await;
        // Slots come back when clients go and their end was drained.
        clients.clear();
        for _ in 0..36 {
            assert_eq!(node.closed().await.1, CloseReason::ByPeer);
        }
        RawClient::greeted(address).await;
        node.accepted().await;
    });
}

#[test]
fn a_flood_of_silent_connections_does_not_keep_an_honest_one_out() {
    on_both_engines(async || {
        let mut config = config(1);
        config.connections_max = 16;
        config.handshake_timeout = Duration::from_secs(25);
        let mut node = Node::with(config, common::anyone);
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(RawClient::connect(node.address()).await);
        }
        RawClient::greeted(node.address()).await;
        node.accepted().await;
        // The oldest were told why they had to go.
        let reject = silent[0].rejected().await;
        assert_eq!(reject.code, ErrorCode::ConnectionLimit as u32);
        assert!(node.net.stats().accepted_now <= 16);
    });
}

#[test]
fn one_address_gets_no_more_than_its_share() {
    on_both_engines(async || {
        let mut config = config(1);
        config.connections_per_ip_max = Some(2);
        let mut node = Node::with(config, common::anyone);
        let first = RawClient::greeted(node.address()).await;
        let _second = RawClient::greeted(node.address()).await;
        node.accepted().await;
        node.accepted().await;
        let mut third = RawClient::connect(node.address()).await;
        let reject = third.rejected().await;
        assert_eq!(reject.code, ErrorCode::ConnectionLimit as u32);
        assert!(reject.message.contains("127.0.0.1"), "{}", reject.message);
        drop(first);
        node.closed().await;
        RawClient::greeted(node.address()).await;
    });
}

#[test]
fn large_frames_of_clients_share_their_memory_and_all_arrive() {
    on_both_engines(async || {
        let mut config = config(1);
        // Room for one frame of 4 MiB at a time.
        config.receive_total_bytes_max = 5 << 20;
        config.receive_budget_bytes = 8 << 20;
        let mut node = Node::with(config, common::anyone);
        let block = pattern(4 << 20, 5);
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(RawClient::greeted(node.address()).await);
            node.accepted().await;
        }
        let mut senders = Vec::new();
        for (number, mut client) in (0..).zip(clients) {
            let block = block.clone();
            senders.push(tokio::task::spawn_local(async move {
                client.send(number, &request(number), &block).await;
                client
            }));
        }
        let mut seen = [false; 4];
        for _ in 0..4 {
            let (_, frame) = node.frame().await;
            assert!(frame.payload == block);
            seen[usize::try_from(frame.header.request_id).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
        for sender in senders {
            drop(sender.await.unwrap());
        }
    });
}

#[test]
fn close_after_a_flush_delivers_everything_and_close_at_once_does_not_wait() {
    on_both_engines(async || {
        let (mut dialer, conn, mut server, accepted) = pair().await;
        let block = pattern(2 << 20, 6);
        for number in 0..3 {
            dialer
                .net
                .send(conn, 0, number, &request(number), from_ref(&block))
                .unwrap();
        }
        dialer.net.close(conn, Flush::Queued);
        assert_eq!(
            dialer.net.send(conn, 0, 9, &request(9), &[]),
            Err(SendError::Closed(conn))
        );
        for number in 0..3 {
            let (_, frame) = server.frame().await;
            assert_eq!(frame.header.request_id, number);
            assert!(frame.payload == block);
        }
        assert_eq!(server.closed().await, (accepted, CloseReason::ByPeer));
        loop {
            match dialer.event().await {
                NetEvent::Closed {
                    conn: closed,
                    reason,
                } => {
                    assert_eq!((closed, reason), (conn, CloseReason::Local));
                    break;
                }
                NetEvent::Writable { .. } => {}
                other => panic!("expected Closed, found {other:?}"),
            }
        }
        // The dial brings it back; this time the other side does not read.
        let conn = dialer.dialed().await;
        let (accepted, ..) = server.accepted().await;
        server.net.pause_reading(accepted, true);
        while dialer
            .net
            .send(conn, 0, 0, &request(0), from_ref(&block))
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
        dialer.net.close(conn, Flush::Nothing);
        loop {
            match dialer.event().await {
                NetEvent::Closed { conn: closed, .. } => {
                    assert_eq!(closed, conn);
                    break;
                }
                NetEvent::Writable { .. } => {}
                other => panic!("expected Closed, found {other:?}"),
            }
        }
    });
}

#[test]
fn close_with_tells_the_other_side_why() {
    on_both_engines(async || {
        let mut node = Node::new(1);
        let mut client = RawClient::greeted(node.address()).await;
        let (conn, ..) = node.accepted().await;
        node.net
            .close_with(conn, ErrorCode::UnexpectedMessage, "not from a client");
        let error = client.refused().await;
        assert_eq!(error.code, ErrorCode::UnexpectedMessage as u32);
        assert_eq!(error.message, "not from a client");
        drop(client);
        assert_eq!(node.closed().await, (conn, CloseReason::Local));
    });
}
