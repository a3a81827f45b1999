//! Dials: they come back after the other side did, leave from the address they are told, check who
//! answers, and end when they are ended.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use common::{Node, config, identity, on_both_engines, request};
use drave_batch::wire::{ErrorCode, Lane};
use drave_net::handshake::HandshakeError;
use drave_net::{CloseReason, Dial, DialError, DialId, NetEvent};
use tokio::io::AsyncReadExt;

async fn dial_failed(node: &mut Node) -> (DialId, DialError) {
    match node.event().await {
        NetEvent::DialFailed { dial, reason } => (dial, reason),
        other => panic!("expected DialFailed, found {other:?}"),
    }
}

#[test]
fn a_dial_comes_back_after_the_listener_restarted() {
    on_both_engines(async || {
        let mut dialer = Node::new(2);
        let mut server = Node::new(1);
        let address = server.address();
        let dial = dialer.net.dial(server.dial(1, Lane::Append));
        let first = dialer.dialed().await;
        server.accepted().await;
        server.net.shutdown().await;
        drop(server);
        let (closed, _) = dialer.closed().await;
        assert_eq!(closed, first);
        let (failed, reason) = dial_failed(&mut dialer).await;
        assert_eq!(failed, dial);
        assert!(matches!(reason, DialError::Connect { .. }), "{reason}");
        let mut config = config(1);
        config.listen = address;
        let mut server = Node::with(config, common::anyone);
        let second = loop {
            match dialer.event().await {
                NetEvent::Dialed { conn, .. } => break conn,
                NetEvent::DialFailed { .. } => {}
                other => panic!("expected Dialed, found {other:?}"),
            }
        };
        assert_ne!(first, second, "a connection's number is never given again");
        let (accepted, ..) = server.accepted().await;
        dialer.net.send(second, 0, 3, &request(3), &[]).unwrap();
        let (from, frame) = server.frame().await;
        assert_eq!((from, frame.header.request_id), (accepted, 3));
    });
}

#[test]
fn the_source_address_is_what_the_acceptor_sees() {
    on_both_engines(async || {
        let mut server = Node::new(1);
        let dialer = Node::new(2);
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        dialer.net.dial(Dial {
            source: Some(source),
            ..server.dial(1, Lane::Control)
        });
        let (_, _, remote) = server.accepted().await;
        assert_eq!(remote.ip(), source);
    });
}

#[test]
fn a_name_is_resolved_and_nonsense_is_named() {
    on_both_engines(async || {
        let server = Node::new(1);
        let mut dialer = Node::new(2);
        let nonsense = dialer.net.dial(Dial {
            address: "no port here".to_owned(),
            ..server.dial(1, Lane::Control)
        });
        let (failed, reason) = dial_failed(&mut dialer).await;
        assert_eq!(failed, nonsense);
        assert!(matches!(reason, DialError::Resolve { .. }), "{reason}");
        dialer.net.undial(nonsense);
        dialer.net.dial(Dial {
            address: format!("localhost:{}", server.address().port()),
            ..server.dial(1, Lane::Control)
        });
        dialer.dialed().await;
    });
}

#[test]
fn another_node_or_another_incarnation_is_not_taken() {
    on_both_engines(async || {
        let server = Node::new(1);
        let mut dialer = Node::new(2);
        let known = identity(1).incarnation;
        let swapped = dialer.net.dial(Dial {
            incarnation: Some(known + 1),
            ..server.dial(1, Lane::Control)
        });
        let (failed, reason) = dial_failed(&mut dialer).await;
        assert_eq!(failed, swapped);
        let DialError::Refused { error, .. } = reason else {
            panic!("expected a refusal, found {reason}");
        };
        let (node_id, expected, found) = (1, known + 1, known);
        assert_eq!(
            error,
            HandshakeError::WrongIncarnation {
                node_id,
                expected,
                found
            }
        );
        dialer.net.undial(swapped);
        dialer.net.dial(server.dial(5, Lane::Control));
        let (_, reason) = dial_failed(&mut dialer).await;
        let DialError::Refused { error, .. } = reason else {
            panic!("expected a refusal, found {reason}");
        };
        assert!(
            matches!(
                error,
                HandshakeError::Rejected {
                    code: Some(ErrorCode::WrongNode),
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(dialer.net.stats().dialed_now, 0);
        let right = Dial {
            incarnation: Some(known),
            ..server.dial(1, Lane::Control)
        };
        dialer.net.dial(right);
        dialer.dialed().await;
    });
}

#[test]
fn a_listener_that_never_answers_is_a_failed_handshake() {
    on_both_engines(async || {
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(2);
        config.handshake_timeout = Duration::from_millis(50);
        let mut dialer = Node::with(config, common::anyone);
        dialer.net.dial(Dial {
            address: mute.local_addr().unwrap().to_string(),
            ..dialer.dial(1, Lane::Control)
        });
        let (_, reason) = dial_failed(&mut dialer).await;
        assert!(matches!(reason, DialError::Handshake { .. }), "{reason}");
    });
}

#[test]
fn an_ended_dial_lets_go_in_every_state() {
    on_both_engines(async || {
        // In handshake with a listener that says nothing.
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialer = Node::new(2);
        let waiting = dialer.net.dial(Dial {
            address: mute.local_addr().unwrap().to_string(),
            ..dialer.dial(1, Lane::Control)
        });
        let (mut socket, _) = mute.accept().await.unwrap();
        let mut hello = Vec::new();
        socket.read_buf(&mut hello).await.unwrap();
        dialer.net.undial(waiting);
        while socket.read_buf(&mut hello).await.is_ok_and(|read| read > 0) {}
        // Connected.
        let mut server = Node::new(1);
        let standing = dialer.net.dial(server.dial(1, Lane::Control));
        let conn = dialer.dialed().await;
        let (accepted, ..) = server.accepted().await;
        dialer.net.undial(standing);
        assert_eq!(server.closed().await, (accepted, CloseReason::ByPeer));
        assert_eq!(dialer.closed().await, (conn, CloseReason::Local));
        // Waiting for its next attempt.
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let failing = dialer.net.dial(Dial {
            address: gone.to_string(),
            ..server.dial(1, Lane::Control)
        });
        let (failed, _) = dial_failed(&mut dialer).await;
        assert_eq!(failed, failing);
        dialer.net.undial(failing);
        // With every dial ended, nothing is left to wait for.
        dialer.net.shutdown().await;
        assert_eq!(dialer.net.stats().dialed_now, 0);
    });
}

#[test]
fn failures_are_told_at_once_and_then_about_once_a_second() {
    on_both_engines(async || {
        let mut dialer = Node::new(2);
        let gone = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        dialer.net.dial(Dial {
            address: gone.to_string(),
            ..dialer.dial(1, Lane::Control)
        });
        dial_failed(&mut dialer).await;
        let first = Instant::now();
        dial_failed(&mut dialer).await;
        assert!(first.elapsed() >= Duration::from_millis(900));
    });
}
