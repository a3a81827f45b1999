use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use drave_batch::wire::{FrameHeader, Read, encode_frame};

use super::*;

fn frame(request_id: u64) -> Vec<u8> {
    let message = Read {
        log_id: 1,
        from_seq: request_id,
        bytes_max: 1,
        consistency: 0,
    };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, 0, request_id, &message, 0);
    bytes
}

fn request_ids(bytes: &[u8], frame_bytes: usize) -> Vec<u64> {
    let frames = bytes.chunks(frame_bytes);
    frames
        .map(|frame| FrameHeader::decode(frame).unwrap().request_id)
        .collect()
}

/// Sends `sent` through a proxy, and gives what arrives until the end of the direction.
fn passed(seed: u64, calm: bool, sent: Vec<u8>) -> (Vec<u8>, Disturbed) {
    connect::runtime().unwrap().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let route = Route {
            link: Link { from: 1, to: 2 },
            to: listener.local_addr().unwrap(),
        };
        let proxy = Proxy::start(&[route], seed).unwrap();
        proxy.set_calm(calm);
        let port = proxy.redirects()[0].to_port;
        assert_eq!(proxy.redirects()[0].port, route.to.port());
        let mut caller = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (mut called, remote) = listener.accept().await.unwrap();
        assert_eq!(remote.ip().to_string(), "127.0.1.11");
        let writing = async {
            caller.write_all(&sent).await.unwrap();
            caller.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(writing, called.read_to_end(&mut arrived));
        read.unwrap();
        (arrived, proxy.disturbed())
    })
}

#[test]
fn frames_are_reordered_and_doubled_and_never_lost_or_changed() {
    const FRAMES: u64 = 2000;
    let sent: Vec<u8> = (0..FRAMES).flat_map(frame).collect();
    let (arrived, disturbed) = passed(11, false, sent);
    let ids = request_ids(&arrived, frame(0).len());
    assert_eq!(ids[0], 0, "the handshake comes first");
    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(distinct, (0..FRAMES).collect());
    assert_eq!(ids.len() as u64, FRAMES + disturbed.doubled);
    assert!(!ids.is_sorted());
    assert_eq!(disturbed.frames, FRAMES - 1);
    assert_eq!(disturbed.connections, 1);
    let few = [disturbed.delayed, disturbed.overtaken, disturbed.doubled];
    assert!(few.iter().all(|count| (20..600).contains(count)), "{few:?}");
}

#[test]
fn a_calm_proxy_changes_nothing() {
    let sent: Vec<u8> = (0..500).flat_map(frame).collect();
    let (arrived, disturbed) = passed(12, true, sent.clone());
    assert!(arrived == sent);
    assert_eq!((disturbed.doubled, disturbed.overtaken), (0, 0));
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let mut sent = frame(0);
    sent.extend_from_slice(&[7; 4096]);
    let (arrived, disturbed) = passed(13, false, sent);
    assert_eq!(arrived, frame(0));
    assert_eq!(disturbed.malformed, 1);
}
