//! A process out of file descriptors goes on: it refuses who it cannot take, and takes connections
//! again when there is room. One test in a binary of its own, since the limit is the whole process's.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Node, RawClient, on_both_engines};
use drave_batch::wire::{HelloReject, MessageKind};
use drave_net::FrameReader;
use drave_net::handshake::Connector;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CLIENTS: usize = 150;
const ROOM: u64 = 12;

fn limit_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(current);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// What a client was answered.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    Accepted,
    Refused(String),
    Reset,
}

fn answer(client: &mut TcpStream) -> Answer {
    let mut reader = FrameReader::new(0);
    let mut bytes = [0; 1024];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => panic!("closed without a word"),
            Ok(read) => assert_eq!(reader.push(&bytes[..read]), read),
            // The refusal was overtaken by the reset that the unread Hello causes.
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return Answer::Reset;
            }
        }
        let Some(frame) = reader.next_frame().unwrap() else {
            continue;
        };
        if frame.header.kind == MessageKind::HelloAck {
            return Answer::Accepted;
        }
        let reject: HelloReject = frame.decode().unwrap();
        return Answer::Refused(reject.message);
    }
}

#[test]
fn out_of_descriptors_is_a_state_and_not_the_end() {
    let limit_before = getrlimit(Resource::Nofile).current.unwrap();
    on_both_engines(async || {
        let mut config = common::config(1);
        config.connections_max = 1000;
        let mut node = Node::with(config, common::anyone);
        // The kernel completes these; nothing of the node runs until this task waits.
        let hello = Connector::client(None, 0).hello_bytes();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = TcpStream::connect(node.address()).unwrap();
                client.write_all(&hello).unwrap();
                client
            })
            .collect();
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
        limit_descriptors(open + ROOM);
        // Blocking reads, so off this thread.
        let answers = std::thread::spawn(move || {
            clients
                .into_iter()
                .map(|mut client| {
                    client
                        .set_read_timeout(Some(Duration::from_secs(20)))
                        .unwrap();
                    let answer = answer(&mut client);
                    (client, answer)
                })
                .collect::<Vec<_>>()
        });
        let accepting = async {
            loop {
                node.accepted().await;
            }
        };
        let answers = tokio::select! {
            answers = tokio::task::spawn_blocking(|| answers.join().unwrap()) => answers.unwrap(),
            () = accepting => unreachable!("it loops"),
        };
        limit_descriptors(limit_before);
        let accepted = answers
            .iter()
            .filter(|(_, answer)| *answer == Answer::Accepted)
            .count();
        println!("{accepted} of {CLIENTS} accepted with room for {ROOM}");
        assert!(accepted > 0 && accepted <= ROOM as usize);
        for (_, answer) in &answers {
            if let Answer::Refused(message) = answer {
                assert!(message.contains("file descriptors"), "{message}");
            }
        }
        let stats = node.net.stats();
        assert_eq!(stats.refused as usize, CLIENTS - accepted);
        // It rested between its attempts: a spinning loop has thousands of errors.
        assert!((1..100).contains(&stats.accept_errors), "{stats:?}");
        drop(answers);
        RawClient::greeted(node.address()).await;
    });
    limit_descriptors(limit_before);
}
