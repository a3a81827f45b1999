//! What strangers send: silence, garbage, lies about lengths, halves of frames. Each is answered with a
//! code, closed, and felt by nobody else.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Node, RawClient, config, hello_bytes, on_both_engines, pattern, request};
use drave_batch::wire::{
    ClusterId, ErrorCode, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameHeader, Hello, Lane,
    MessageKind, Role, encode_frame,
};
use drave_net::frame::HANDSHAKE_FRAME_BYTES_MAX;
use drave_net::{CloseReason, FrameError};
use tokio::io::AsyncWriteExt;

fn code(number: u32) -> ErrorCode {
    ErrorCode::from_number(number).expect("a known code")
}

/// A node that answers quickly, with a bystander that must notice nothing.
async fn scene(handshake_timeout: Duration) -> (Node, RawClient) {
    let mut config = config(1);
    config.handshake_timeout = handshake_timeout;
    let mut node = Node::with(config, common::anyone);
    let bystander = RawClient::greeted(node.address()).await;
    node.accepted().await;
    (node, bystander)
}

const LONG: Duration = Duration::from_secs(20);

/// The bystander's frames still arrive, and nothing else does.
async fn assert_undisturbed(node: &mut Node, bystander: &mut RawClient) {
    bystander.send(77, &request(77), b"still here").await;
    let (_, frame) = node.frame().await;
    assert_eq!(frame.header.request_id, 77);
    assert_eq!(&frame.payload[..], b"still here");
    assert_eq!(node.net.stats().clients_now, 1);
}

#[test]
fn silence_is_refused_after_the_handshake_timeout() {
    on_both_engines(async || {
        let (mut node, mut bystander) = scene(Duration::from_millis(60)).await;
        let mut silent = RawClient::connect(node.address()).await;
        let mut half = RawClient::connect(node.address()).await;
        half.write(&hello_bytes(|_| {})[..FRAME_HEADER_BYTES + 3])
            .await;
        for client in [&mut silent, &mut half] {
            let reject = client.rejected().await;
            assert_eq!(code(reject.code), ErrorCode::HandshakeTimeout);
            assert!(reject.message.contains("60 ms"), "{}", reject.message);
        }
        assert_undisturbed(&mut node, &mut bystander).await;
    });
}

#[test]
fn garbage_instead_of_hello_is_refused() {
    on_both_engines(async || {
        let (mut node, mut bystander) = scene(LONG).await;
        let mut client = RawClient::connect(node.address()).await;
        // More than may be buffered, so that some is unread when the refusal leaves.
        client
            .write("GET / HTTP/1.1\r\n".repeat(2000).as_bytes())
            .await;
        let frame = client.read_frame().await.expect("a refusal");
        let reject: drave_batch::wire::HelloReject = frame.decode().unwrap();
        assert_eq!(code(reject.code), ErrorCode::MalformedFrame);
        client.socket.shutdown().await.unwrap();
        assert!(client.read_frame().await.is_none());
        assert_undisturbed(&mut node, &mut bystander).await;
    });
}

#[test]
fn a_first_frame_over_the_handshake_limit_is_refused_by_its_header() {
    on_both_engines(async || {
        let (mut node, mut bystander) = scene(LONG).await;
        let mut client = RawClient::connect(node.address()).await;
        let header = FrameHeader {
            kind: MessageKind::Hello,
            head_len: 0,
            payload_len: HANDSHAKE_FRAME_BYTES_MAX as u32,
            head_crc: 0,
            group_id: 0,
            request_id: 0,
        };
        client.write(&header.encode()).await;
        let frame = client.read_frame().await.expect("a refusal");
        let reject: drave_batch::wire::HelloReject = frame.decode().unwrap();
        assert_eq!(code(reject.code), ErrorCode::FrameTooLarge);
        drop(client);
        assert_undisturbed(&mut node, &mut bystander).await;
    });
}

#[test]
fn a_hello_that_does_not_fit_is_refused_with_its_code() {
    type Change = fn(&mut Hello);
    let cases: [(ErrorCode, Change); 7] = [
        (ErrorCode::WrongCluster, |hello| {
            hello.cluster_id = Some(ClusterId::new("elsewhere").unwrap());
        }),
        (ErrorCode::ProtocolVersion, |hello| {
            (hello.version_min, hello.version_max) = (40, 50);
        }),
        (ErrorCode::WrongNode, |hello| hello.to_node_id = 9),
        (ErrorCode::WrongCluster, |hello| {
            (hello.role, hello.node_id) = (Role::Peer, 2);
        }),
        (ErrorCode::WrongNode, |hello| peer(hello, 1)),
        (ErrorCode::UnknownMember, |hello| peer(hello, 3)),
        (ErrorCode::MalformedFrame, |hello| {
            hello.lane = Lane::CatchUp;
        }),
    ];
    fn peer(hello: &mut Hello, node_id: u64) {
        hello.role = Role::Peer;
        hello.node_id = node_id;
        hello.cluster_id = Some(ClusterId::new("testing").unwrap());
    }
    fn members(hello: &Hello) -> Result<(), (ErrorCode, String)> {
        assert_eq!(hello.role, Role::Peer, "clients are not put before it");
        match hello.node_id {
            2 => Ok(()),
            other => Err((ErrorCode::UnknownMember, format!("no node {other}"))),
        }
    }
    on_both_engines(async || {
        let node = Node::with(config(1), members);
        for (expected, change) in cases {
            let mut client = RawClient::connect(node.address()).await;
            client.write(&hello_bytes(change)).await;
            let frame = client.read_frame().await.expect("a refusal");
            let reject: drave_batch::wire::HelloReject = frame.decode().unwrap();
            assert_eq!(code(reject.code), expected, "{}", reject.message);
        }
        let mut member = RawClient::connect(node.address()).await;
        member.write(&hello_bytes(|hello| peer(hello, 2))).await;
        let frame = member.read_frame().await.expect("an ack");
        assert_eq!(frame.header.kind, MessageKind::HelloAck);
        assert_eq!(node.net.stats().refused, cases.len() as u64);
    });
}

#[test]
fn garbage_after_the_handshake_closes_that_connection_with_an_error() {
    on_both_engines(async || {
        let (mut node, mut bystander) = scene(LONG).await;
        let mut client = RawClient::greeted(node.address()).await;
        let (conn, ..) = node.accepted().await;
        client.send(1, &request(1), b"good").await;
        let mut bad = Vec::new();
        encode_frame(&mut bad, 0, 2, &request(2), 0);
        bad[20] ^= 1;
        client.write(&bad).await;
        let (from, frame) = node.frame().await;
        assert_eq!(
            (from, frame.header.request_id),
            (conn, 1),
            "what came before counts"
        );
        let error = client.read_frame().await.expect("an error");
        let error: drave_batch::wire::ErrorReply = error.decode().unwrap();
        assert_eq!(code(error.code), ErrorCode::MalformedFrame);
        assert!(error.message.contains("checksum"), "{}", error.message);
        drop(client);
        let (closed, reason) = node.closed().await;
        assert_eq!(closed, conn);
        assert!(
            matches!(reason, CloseReason::Malformed(FrameError::Malformed(_))),
            "{reason}"
        );
        assert_undisturbed(&mut node, &mut bystander).await;
        assert_eq!(node.net.stats().closed_for_cause, 1);
    });
}

#[test]
fn a_payload_over_the_limit_is_refused_before_it_arrives() {
    on_both_engines(async || {
        let mut config = config(1);
        config.limits.payload_bytes_max = 1000;
        let mut node = Node::with(config, common::anyone);
        let mut client = RawClient::greeted(node.address()).await;
        node.accepted().await;
        client.send(1, &request(1), &pattern(1000, 0)).await;
        let (_, frame) = node.frame().await;
        assert_eq!(frame.payload.len(), 1000);
        let mut header = Vec::new();
        encode_frame(
            &mut header,
            0,
            2,
            &request(2),
            FRAME_PAYLOAD_BYTES_MAX as usize,
        );
        client.write(&header).await;
        let error = client.read_frame().await.expect("an error");
        let error: drave_batch::wire::ErrorReply = error.decode().unwrap();
        assert_eq!(code(error.code), ErrorCode::FrameTooLarge);
        drop(client);
        let (_, reason) = node.closed().await;
        let limit = 1000;
        let found = u64::from(FRAME_PAYLOAD_BYTES_MAX);
        assert_eq!(
            reason,
            CloseReason::Malformed(FrameError::TooLarge { limit, found })
        );
    });
}

#[test]
fn a_stream_cut_inside_a_frame_is_named_as_such() {
    on_both_engines(async || {
        let (mut node, mut bystander) = scene(LONG).await;
        let mut client = RawClient::greeted(node.address()).await;
        let (conn, ..) = node.accepted().await;
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, 0, 2, &request(2), 100);
        bytes.extend_from_slice(&[0; 40]);
        let (expected, found) = (bytes.len() as u64 + 60, bytes.len() as u64);
        client.write(&bytes).await;
        client.socket.shutdown().await.unwrap();
        let error = client.refused().await;
        assert_eq!(code(error.code), ErrorCode::MalformedFrame);
        let reason = CloseReason::Malformed(FrameError::Cut { expected, found });
        assert_eq!(node.closed().await, (conn, reason));
        assert_undisturbed(&mut node, &mut bystander).await;
    });
}

#[test]
fn a_frame_that_trickles_is_closed_after_the_frame_timeout() {
    on_both_engines(async || {
        let mut config = config(1);
        config.frame_timeout = Duration::from_millis(60);
        let mut node = Node::with(config, common::anyone);
        let mut client = RawClient::greeted(node.address()).await;
        let (conn, ..) = node.accepted().await;
        client.write(&[0x11; 10]).await;
        // Nothing more is sent: the node must come to the end by itself.
        assert!(client.read_frame().await.is_none());
        drop(client);
        let (closed, reason) = node.closed().await;
        assert_eq!(closed, conn);
        assert!(matches!(reason, CloseReason::Timeout { .. }), "{reason}");
    });
}

#[test]
fn an_idle_client_is_closed_and_an_idle_peer_is_not() {
    on_both_engines(async || {
        let mut config = config(1);
        config.idle_timeout = Some(Duration::from_millis(60));
        let mut node = Node::with(config, common::anyone);
        let mut dialer = Node::new(2);
        dialer.net.dial(node.dial(1, Lane::Control));
        let conn = dialer.dialed().await;
        let (peer, ..) = node.accepted().await;
        let mut client = RawClient::greeted(node.address()).await;
        let (idle, ..) = node.accepted().await;
        assert!(client.read_frame().await.is_none());
        drop(client);
        let (closed, reason) = node.closed().await;
        assert_eq!(closed, idle);
        assert!(matches!(reason, CloseReason::Timeout { .. }), "{reason}");
        dialer.net.send(conn, 0, 4, &request(4), &[]).unwrap();
        assert_eq!(node.frame().await.0, peer);
    });
}
