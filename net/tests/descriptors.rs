//! Closing really closes: the process holds as many descriptors after as before. One test in a binary
//! of its own, since descriptors belong to the whole process.
#![allow(clippy::unwrap_used)]

mod common;

use std::slice::from_ref;
use std::time::Duration;

use common::{Node, RawClient, config, hello_bytes, on_both_engines, pattern, request};
use drave_batch::wire::Lane;
use drave_net::{Flush, NetEvent};
use tokio::io::AsyncWriteExt;

/// Open descriptors of this process, less the one that counts them.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

async fn wait_closed(node: &mut Node, mut count: usize) {
    while count > 0 {
        if matches!(node.event().await, NetEvent::Closed { .. }) {
            count -= 1;
        }
    }
}

/// Connections that end in every way there is.
async fn churn(server: &mut Node, dialer: &mut Node) {
    let address = server.address();
    for round in 0..10 {
        let dial = dialer.net.dial(server.dial(1, Lane::Append));
        let conn = dialer.dialed().await;
        let (accepted, ..) = server.accepted().await;
        let block = pattern(1 << 20, 1);
        match round % 4 {
            0 => dialer.net.undial(dial),
            // With a read in flight on both sides, and with a write in flight on one.
            1 => {
                dialer.net.send(conn, 0, 0, &request(0), &[block]).unwrap();
                dialer.net.undial(dial);
                dialer.net.close(conn, Flush::Nothing);
            }
            2 => {
                dialer.net.undial(dial);
                server.net.close(accepted, Flush::Nothing);
            }
            _ => {
                server.net.pause_reading(accepted, true);
                while dialer
                    .net
                    .send(conn, 0, 0, &request(0), from_ref(&block))
                    .is_ok()
                {}
                dialer.net.undial(dial);
                dialer.net.close(conn, Flush::Nothing);
                server.net.pause_reading(accepted, false);
            }
        }
        wait_closed(dialer, 1).await;
        wait_closed(server, 1).await;
        // A client that leaves in the middle of a frame, one that is garbage, one that is silent.
        let mut cut = RawClient::greeted(address).await;
        server.accepted().await;
        cut.write(&[1, 2, 3]).await;
        drop(cut);
        wait_closed(server, 1).await;
        let mut garbage = RawClient::connect(address).await;
        garbage.write(&[0x55; 100]).await;
        assert!(garbage.read_frame().await.is_some());
        garbage.socket.shutdown().await.unwrap();
        assert!(garbage.read_frame().await.is_none());
        let mut half = RawClient::connect(address).await;
        half.write(&hello_bytes(|_| {})[..20]).await;
        assert!(half.read_frame().await.is_some(), "told about the timeout");
        assert!(half.read_frame().await.is_none());
    }
}

/// Descriptors once no connection is left. Refused connections report no event: round trips let their
/// tasks end.
async fn settled(server: &mut Node) -> usize {
    loop {
        let last = RawClient::greeted(server.address()).await;
        server.accepted().await;
        drop(last);
        wait_closed(server, 1).await;
        if server.net.stats().accepted_now == 0 {
            return open_descriptors();
        }
    }
}

#[test]
fn descriptors_return_to_what_they_were() {
    let before_all = open_descriptors();
    on_both_engines(async || {
        let mut config = config(1);
        config.handshake_timeout = Duration::from_millis(20);
        config.close_timeout = Duration::from_millis(200);
        let mut server = Node::with(config, common::anyone);
        let mut dialer = Node::new(2);
        // The first connection creates what is made once.
        churn(&mut server, &mut dialer).await;
        let before = settled(&mut server).await;
        churn(&mut server, &mut dialer).await;
        assert_eq!(settled(&mut server).await, before);
        server.net.shutdown().await;
        dialer.net.shutdown().await;
    });
    // tokio keeps a pair of sockets for signals for the life of the process.
    let left = open_descriptors() - before_all;
    assert!(left <= 2, "{left} descriptors more than at the start");
}
