//! A crowd of clients that misbehave in every way at once, from a seed, beside honest ones: the honest
//! are all served, and nothing is left behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use common::{Node, RawClient, config, on_both_engines, pattern, request};
use drave_batch::wire::{FRAME_HEADER_BYTES, Lane, MessageKind, Read, encode_frame};
use drave_net::handshake::Connector;
use drave_net::{NetEvent, SendError};

const SEEDS: [u64; 3] = [1, 0xD1CE, 0xFEED_F00D];
const CLIENTS: u64 = 200;
const PEER_ROUNDS: u64 = 200;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Greets; `false` when the node is full, which is an answer too.
async fn greet(client: &mut RawClient) -> bool {
    client.greet(&Connector::client(None, 0)).await.is_ok()
}

fn frame(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, 1, number, &request(number), payload.len());
    out.extend_from_slice(payload);
    out
}

/// Asks and checks every answer. Whether it was let in.
async fn honest(client: &mut RawClient, random: &mut Random) -> bool {
    if !greet(client).await {
        return false;
    }
    for number in 0..1 + random.below(20) {
        let payload = pattern(random.below(20_000) as usize, number as u8);
        client.write(&frame(number, &payload)).await;
        let answer = client.read_frame().await.expect("the honest are served");
        assert_eq!(answer.header.request_id, number);
        assert!(answer.payload == payload);
    }
    true
}

/// One client, from its first byte to its last.
async fn behave(address: SocketAddr, seed: u64, served: Rc<Cell<u64>>) {
    let mut random = Random(seed);
    let mut client = RawClient::connect(address).await;
    match random.below(8) {
        0 => client.write(&[]).await,
        1 => {
            let len = random.below(8000);
            client.write(&random.bytes(len)).await;
        }
        2 => {
            let hello = Connector::client(None, 0).hello_bytes();
            let len = random.below(hello.len() as u64) as usize;
            client.write(&hello[..len]).await;
        }
        3 => {
            if greet(&mut client).await {
                let bytes = frame(1, &[7; 5000]);
                let len = random.below(bytes.len() as u64) as usize;
                client.write(&bytes[..len]).await;
            }
        }
        4 => {
            if greet(&mut client).await {
                let mut bytes = frame(1, &[7; 100]);
                let bit = random.below(FRAME_HEADER_BYTES as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                client.write(&bytes).await;
                let answer = client.read_frame().await;
                assert!(answer.is_none_or(|frame| frame.header.kind == MessageKind::ErrorReply));
            }
        }
        5 => {
            // Asks a lot and reads nothing.
            if greet(&mut client).await {
                for number in 0..random.below(200) {
                    client.write(&frame(number, &[1; 4000])).await;
                }
            }
        }
        _ => {
            if honest(&mut client, &mut random).await {
                served.set(served.get() + 1);
            }
        }
    }
    if random.below(4) == 0 {
        // Leaves with a reset.
        socket_reset(&client);
    }
}

fn socket_reset(client: &RawClient) {
    let socket = socket2::SockRef::from(&client.socket);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Echoes every frame. A queue that is full closes its client, which is its own doing.
fn answer(node: &Node, event: NetEvent) {
    if let NetEvent::Frame { conn, frame } = event {
        let header = frame.header;
        let asked: Read = frame.decode().unwrap();
        match node.net.send(
            conn,
            header.group_id,
            header.request_id,
            &asked,
            &[frame.payload],
        ) {
            Ok(()) | Err(SendError::QueueFull { .. } | SendError::Closed(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

async fn crowd(seed: u64) {
    println!("seed {seed:#x}");
    let mut config = config(1);
    config.connections_max = 60;
    config.peer_connections_reserved = 10;
    config.handshake_timeout = Duration::from_secs(5);
    config.close_timeout = Duration::from_millis(300);
    config.send_queue_bytes_max = 300_000;
    config.send_queue_bytes_low = 10_000;
    config.receive_budget_bytes = 64_000;
    let mut node = Node::with(config, common::anyone);
    let mut peer = Node::new(2);
    peer.net.dial(node.dial(1, Lane::Control));
    let conn = peer.dialed().await;
    node.accepted().await;

    let served = Rc::new(Cell::new(0));
    let mut random = Random(seed);
    let address = node.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let seed = random.below(u64::MAX);
            tokio::task::spawn_local(behave(address, seed, Rc::clone(&served)))
        })
        .collect();
    let everyone = async {
        for client in clients {
            client.await.unwrap();
        }
        // The peer is answered throughout, and after.
        for round in 0..PEER_ROUNDS {
            let payload = [pattern(100, 1)];
            peer.net
                .send(conn, 0, round, &request(round), &payload)
                .unwrap();
            assert_eq!(peer.frame().await.1.header.request_id, round);
        }
    };
    let serving = async {
        loop {
            let event = node.event().await;
            answer(&node, event);
        }
    };
    tokio::select! {
        () = everyone => {}
        () = serving => unreachable!("it loops"),
    }
    println!("{} honest clients served", served.get());
    assert!(served.get() > 0);
    // All go but the peer. Connections that were never let in report no event: the peer's requests
    // keep the turns coming.
    while node.net.stats().accepted_now > 1 {
        peer.net.send(conn, 0, 0, &request(0), &[]).unwrap();
        let event = node.event().await;
        answer(&node, event);
    }
    assert_eq!(node.net.stats().clients_now, 0);
    assert_eq!(peer.net.stats().dialed_now, 1);
}

#[test]
fn a_crowd_of_bad_clients_disturbs_nobody() {
    on_both_engines(async || {
        for seed in SEEDS {
            crowd(seed).await;
        }
    });
}
