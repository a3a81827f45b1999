//! The executor: the choice of the engine, and that everything one needs works inside both.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Node, config, on_both_engines, pair, request};
use drave_batch::wire::{Hello, Lane};
use drave_net::{IoChoice, Net, NetConfig, NetEngine, Runtime, RuntimeError, rest};
use tokio::io::unix::AsyncFd;

#[test]
fn the_choice_decides_the_engine_and_a_refusal_is_named() {
    let posix = Runtime::new(IoChoice::Posix).unwrap();
    assert_eq!(posix.engine(), NetEngine::Posix);
    let auto = Runtime::new(IoChoice::Auto).unwrap();
    println!("auto chose {}: {}", auto.engine(), auto.reason());
    match Runtime::new(IoChoice::Uring) {
        Ok(uring) => {
            assert_eq!(uring.engine(), NetEngine::Uring);
            assert_eq!(auto.engine(), NetEngine::Uring, "auto takes what works");
        }
        Err(RuntimeError::UringRefused(error)) => {
            assert_eq!(auto.engine(), NetEngine::Posix);
            assert!(auto.reason().contains(&error.to_string()));
        }
        Err(other) => panic!("expected a ring or a refusal, found {other}"),
    }
}

#[test]
fn tasks_timers_threads_and_descriptors_work_inside() {
    on_both_engines(async || {
        let local = Rc::new(Cell::new(0));
        let seen = Rc::clone(&local);
        tokio::task::spawn_local(async move { seen.set(7) })
            .await
            .unwrap();
        assert_eq!(local.get(), 7);

        let start = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() >= Duration::from_millis(5));

        assert_eq!(tokio::task::spawn_blocking(|| 8).await.unwrap(), 8);

        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || sender.send(9));
        assert_eq!(receiver.await.unwrap(), 9);
        thread.join().unwrap().unwrap();

        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        #[expect(
            deprecated,
            reason = "its successor is unsafe, which a test has no need of"
        )]
        let event = AsyncFd::new(event).unwrap();
        rustix::io::write(&event, &1u64.to_le_bytes()).unwrap();
        event.readable().await.unwrap().clear_ready();
    });
}

#[test]
fn frames_travel_beside_a_task_that_only_rests_between_its_turns() {
    const TURNS_MAX: usize = 1_000_000;
    on_both_engines(async || {
        let (dialer, conn, server, _) = pair().await;
        let mut arrived = Vec::new();
        let mut turns = 0;
        for number in 0..100 {
            dialer
                .net
                .send(conn, 0, number, &request(number), &[])
                .unwrap();
            while arrived.len() as u64 <= number {
                rest().await;
                server.net.drain(&mut arrived, 100);
                turns += 1;
                assert!(turns < TURNS_MAX, "frame {number} does not arrive");
            }
        }
        println!("100 frames in {turns} turns");
    });
}

#[test]
fn tasks_go_on_in_the_next_call() {
    let runtime = Runtime::new(IoChoice::Auto).unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    runtime.block_on(async {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sender.send(1).unwrap();
        });
    });
    assert_eq!(runtime.block_on(receiver).unwrap(), 1);
}

#[test]
fn a_port_in_use_is_an_error_and_so_is_a_missing_runtime() {
    on_both_engines(async || {
        let first = Node::new(1);
        let mut second = config(2);
        second.listen = first.address();
        let error = Net::bind(second, common::anyone).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
    let error = Net::bind(config(1), common::anyone).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_name() {
    on_both_engines(async || {
        type Change = fn(&mut NetConfig);
        let cases: [(&str, Change); 6] = [
            ("peer_connections_reserved", |config| {
                config.peer_connections_reserved = config.connections_max;
            }),
            ("connections_max", |config| config.connections_max = 0),
            ("payload_bytes_max", |config| {
                config.limits.payload_bytes_max = u32::MAX;
            }),
            ("receive_total_bytes_max", |config| {
                config.receive_total_bytes_max = config.limits.payload_bytes_max as usize;
            }),
            ("24 hours", |config| config.close_timeout = Duration::MAX),
            ("idle_timeout", |config| {
                config.idle_timeout = Some(Duration::ZERO);
            }),
        ];
        for (name, change) in cases {
            let mut config = config(1);
            change(&mut config);
            let error = Net::bind(config, common::anyone).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    });
}

/// A busy neighbour delays I/O until it rests; it does not stop it. One that never rests would stop
/// io_uring's, which is the documented limit; plain sockets go on even then.
#[test]
fn a_busy_task_does_not_stop_the_traffic_for_ever() {
    on_both_engines(async || {
        let (mut dialer, conn, mut server, accepted) = pair().await;
        let bursts = Rc::new(Cell::new(0));
        let count = Rc::clone(&bursts);
        let busy = tokio::task::spawn_local(async move {
            loop {
                for _ in 0..500 {
                    tokio::task::yield_now().await;
                }
                count.set(count.get() + 1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut round = 0;
        while round < 50 || bursts.get() < 10 {
            dialer
                .net
                .send(conn, 0, round, &request(round), &[])
                .unwrap();
            let (from, frame) = server.frame().await;
            assert_eq!((from, frame.header.request_id), (accepted, round));
            server
                .net
                .send(accepted, 0, round, &request(round), &[])
                .unwrap();
            dialer.frame().await;
            round += 1;
        }
        println!("{round} round trips beside {} busy bursts", bursts.get());
        busy.abort();
    });
}

#[test]
fn plain_sockets_go_on_beside_a_task_that_never_rests() {
    let runtime = Runtime::new(IoChoice::Posix).unwrap();
    runtime.block_on(async {
        let (dialer, conn, mut server, _) = pair().await;
        let done = Rc::new(Cell::new(false));
        let stop = Rc::clone(&done);
        let busy = tokio::task::spawn_local(async move {
            while !stop.get() {
                tokio::task::yield_now().await;
            }
        });
        for round in 0..50 {
            dialer
                .net
                .send(conn, 0, round, &request(round), &[])
                .unwrap();
            assert_eq!(server.frame().await.1.header.request_id, round);
        }
        done.set(true);
        busy.await.unwrap();
    });
}

#[test]
fn a_net_that_is_dropped_with_traffic_under_way_ends_cleanly() {
    on_both_engines(async || {
        let (dialer, conn, mut server, accepted) = pair().await;
        dialer.net.send(conn, 0, 0, &request(0), &[]).unwrap();
        server.frame().await;
        drop(dialer);
        assert_eq!(server.closed().await.0, accepted);
    });
    // Dropped by the end of the runtime, reads in flight and all.
    for choice in [IoChoice::Auto, IoChoice::Posix] {
        let runtime = Runtime::new(choice).unwrap();
        let nodes = runtime.block_on(pair());
        drop(runtime);
        drop(nodes);
    }
}

/// The executor swallows panics of tasks; a broken invariant must reach the user's loop all the same.
#[test]
fn a_panic_in_a_connections_task_is_raised_in_the_users_loop() {
    let outcome = std::panic::catch_unwind(|| {
        on_both_engines(async || {
            let mut node = Node::with(config(1), |_: &Hello| panic!("a broken invariant"));
            let dialer = Node::new(2);
            dialer.net.dial(node.dial(1, Lane::Control));
            node.event().await;
        });
    });
    let payload = outcome.unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert_eq!(*message, "a connection's task panicked");
}
