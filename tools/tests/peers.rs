//! Clients of other systems, against those systems where they are installed.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use drave_tools::bench::peers::servers::PeerServers;
use drave_tools::bench::peers::{Peer, PeerError, etcd::Etcd, redis::Redis};
use tokio::task::{JoinSet, LocalSet};

const RECORDS: u64 = 500;

/// Starts a system's servers; nothing, said aloud, where it is not installed.
fn servers(system: &str, program: &str) -> Option<(PeerServers, tempfile::TempDir)> {
    if Command::new(program).arg("--version").output().is_err() {
        println!("skipped: {program} is not installed (benches/peers/install.sh)");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "{}/../benches/peers/{system}.sh",
        env!("CARGO_MANIFEST_DIR")
    );
    let servers = PeerServers::start(Path::new(&script), directory.path()).unwrap();
    assert_eq!((servers.endpoints.len(), servers.process_ids.len()), (3, 3));
    assert!(!servers.version.is_empty());
    Some((servers, directory))
}

async fn append_and_count(peer: Peer) {
    let peer = std::rc::Rc::new(peer);
    let mut tasks = JoinSet::new();
    for number in 0..RECORDS {
        let peer = std::rc::Rc::clone(&peer);
        tasks.spawn_local(async move { peer.append(number, vec![7; 100]).await });
    }
    while let Some(appended) = tasks.join_next().await {
        appended.unwrap().unwrap();
    }
    assert_eq!(peer.count().await.unwrap(), RECORDS);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(LocalSet::new().run_until(future))
}

fn is_running(process_id: u32) -> bool {
    Path::new(&format!("/proc/{process_id}")).exists()
}

#[test]
fn redis_takes_appends_and_is_stopped() {
    let Some((servers, _directory)) = servers("redis", "redis-server") else {
        return;
    };
    block_on(async {
        let redis = Redis::connect(&servers.endpoints[0], 4).await.unwrap();
        append_and_count(Peer::Redis(redis)).await;
    });
    let process_ids = servers.process_ids.clone();
    drop(servers);
    assert!(!process_ids.into_iter().any(is_running));
}

#[test]
fn an_append_that_no_replica_takes_is_refused() {
    let Some((servers, _directory)) = servers("redis", "redis-server") else {
        return;
    };
    block_on(async {
        // A replica takes no writes.
        let redis = Redis::connect(&servers.endpoints[1], 1).await.unwrap();
        let refused = redis.append(1, vec![1]).await.unwrap_err();
        assert!(matches!(refused, PeerError::Refused(_)), "{refused}");
    });
}

#[test]
fn etcd_takes_appends_and_is_stopped() {
    let Some((servers, _directory)) = servers("etcd", "etcd") else {
        return;
    };
    block_on(async {
        let etcd = Etcd::connect(&servers.endpoints, 4).await.unwrap();
        append_and_count(Peer::Etcd(etcd)).await;
    });
    let process_ids = servers.process_ids.clone();
    drop(servers);
    assert!(!process_ids.into_iter().any(is_running));
}
