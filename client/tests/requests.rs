//! Requests other than appends: redirects, reads, catalogue, status, replicas, handshakes.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use drave_batch::wire::MessageKind;
use drave_client::{Client, ClientError, ErrorCode, ReadLimits};
use tokio::net::TcpListener;

mod support;
use support::{FakeCluster, Fault, Hint};

async fn filled(cluster: &FakeCluster, client: &Client, count: u64) -> u64 {
    let log_id = client.create_log("orders", true).await.unwrap().log_id;
    for seq in 0..count {
        cluster.put(log_id, &[format!("record {seq}").as_bytes()]);
    }
    log_id
}

#[tokio::test]
async fn hints_are_followed_and_then_remembered() {
    let cluster = FakeCluster::start(3).await;
    cluster.elect(2);
    let first = cluster.addresses[0].clone();
    let client = cluster.builder().endpoints([first]).build().unwrap();
    filled(&cluster, &client, 0).await;
    let log = client.log("orders").await.unwrap();
    for _ in 0..5 {
        log.info().await.unwrap();
    }
    let lookups = cluster.model().requests(MessageKind::LogLookup);
    assert_eq!(lookups, 5, "every one went to the leader at once");
    cluster.elect(1);
    log.info().await.unwrap();
    assert!(cluster.model().requests(MessageKind::LogLookup) <= 5 + 3);
}

#[tokio::test]
async fn hints_in_a_circle_end_at_the_deadline_without_spinning() {
    let cluster = FakeCluster::start(3).await;
    cluster.model().hint = Hint::Circle;
    // Nobody leads.
    cluster.model().leader = 99;
    let timeout = Duration::from_millis(600);
    let client = cluster.builder().request_timeout(timeout).build().unwrap();
    let mut before = 0;
    // A request that is under way at the deadline leaves its outcome unknown, so that may happen now and then.
    for _ in 0..10 {
        let started = Instant::now();
        let error = client.create_log("orders", false).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2));
        let asked = cluster.model().requests(MessageKind::LogCreate);
        assert!(
            (3..100).contains(&(asked - before)),
            "{asked} requests after {before}"
        );
        before = asked;
        if error.code() == Some(ErrorCode::NotLeader) {
            assert!(error.has_no_side_effects() && error.leader_hint().is_some());
            return;
        }
        assert_eq!(error.code(), Some(ErrorCode::OutcomeUnknown), "{error}");
    }
    panic!("what the nodes said is never told");
}

#[tokio::test]
async fn what_a_node_said_is_not_hidden_by_another_that_cannot_be_reached() {
    let cluster = FakeCluster::start(1).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let full = std::iter::repeat_n(Fault::Refuse(ErrorCode::DiskFull), 1_000);
    cluster.model().script(MessageKind::LogCreate, full);
    let endpoints = [cluster.addresses[0].clone(), gone.clone()];
    for endpoints in [
        endpoints.clone(),
        [endpoints[1].clone(), endpoints[0].clone()],
    ] {
        let timeout = Duration::from_millis(600);
        let builder = cluster.builder().endpoints(endpoints);
        let client = builder.request_timeout(timeout).build().unwrap();
        let error = client.create_log("orders", true).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::DiskFull), "{error:?}");
        assert!(error.why().contains(&cluster.addresses[0]), "{error:?}");
    }
}

#[tokio::test]
async fn a_created_log_whose_answer_is_lost_is_not_called_existing() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    cluster
        .model()
        .script(MessageKind::LogCreate, [Fault::CloseAfter]);
    let error = client.create_log("orders", false).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    // Where existing is fine, nothing is unknown.
    cluster
        .model()
        .script(MessageKind::LogCreate, [Fault::CloseAfter]);
    let info = client.create_log("events", true).await.unwrap();
    assert_eq!(info.name, "events");
    let error = client.create_log("events", false).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogExists));
}

#[tokio::test]
async fn names_and_missing_logs_have_errors_of_their_own() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let Err(error) = client.log("missing").await else {
        panic!("there is no such log");
    };
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
    let long = "x".repeat(256);
    for name in ["", "/a", "a b", long.as_str()] {
        let error = client.create_log(name, true).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::LogName), "{name:?}");
    }
    assert_eq!(cluster.model().requests(MessageKind::LogCreate), 0);
}

#[tokio::test]
async fn all_pages_of_logs_in_order() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    for number in (0..10).rev() {
        let name = format!("log-{number}");
        client.create_log(&name, false).await.unwrap();
    }
    let names: Vec<String> = client
        .logs()
        .await
        .unwrap()
        .into_iter()
        .map(|log| log.name)
        .collect();
    let expected: Vec<String> = (0..10).map(|number| format!("log-{number}")).collect();
    assert_eq!(names, expected);
    assert!(cluster.model().requests(MessageKind::LogList) >= 4);
    let replica = client.replica(1).logs().await.unwrap();
    assert_eq!(replica.len(), 10);
}

#[tokio::test]
async fn reads_are_bounded_checked_and_end_at_the_tail() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    filled(&cluster, &client, 100).await;
    let log = client.log("orders").await.unwrap();
    let limits = ReadLimits {
        records_max: 7,
        ..ReadLimits::default()
    };
    let chunk = log.read(10, limits).await.unwrap();
    let seqs: Vec<u64> = chunk.records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (10..17).collect::<Vec<_>>());
    assert_eq!((chunk.first_seq, chunk.next_seq), (0, 100));
    assert_eq!(chunk.records[0].payload, "record 10");
    assert!(chunk.records[0].append_time_us > 1_000_000);
    assert!(log.read(100, limits).await.unwrap().records.is_empty());
    let error = log.read(101, limits).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BeyondTail));

    let small = ReadLimits {
        bytes_max: 300,
        ..ReadLimits::default()
    };
    let mut reader = log.reader(0).limits(small);
    let mut next_seq = 0;
    while let Some(chunk) = reader.next().await.unwrap() {
        for record in chunk.records {
            assert_eq!(record.seq, next_seq);
            next_seq += 1;
        }
        // What comes after the first chunk is not this reader's.
        log.append("later").await.unwrap();
    }
    assert_eq!(next_seq, 100);
}

#[tokio::test]
async fn damaged_reads_are_repeated_at_the_leader_and_reported_of_a_replica() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client();
    filled(&cluster, &client, 3).await;
    let log = client.log("orders").await.unwrap();
    let damage = |faults: Vec<Fault>| cluster.model().script(MessageKind::Read, faults);
    damage(vec![Fault::Damage; 2]);
    let chunk = log.read(0, ReadLimits::default()).await.unwrap();
    assert_eq!(chunk.records.len(), 3);
    damage(vec![Fault::Damage; 3]);
    let error = log.read(0, ReadLimits::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Damaged { .. }), "{error:?}");

    let replica = client.replica(2).log("orders").await.unwrap();
    assert_eq!(replica.id(), log.id());
    let chunk = replica.read(1, ReadLimits::default()).await.unwrap();
    assert_eq!(chunk.records.len(), 2);
    damage(vec![Fault::Damage]);
    let error = replica.read(0, ReadLimits::default()).await.unwrap_err();
    let at_node = cluster.addresses[1].clone();
    assert!(
        matches!(&error, ClientError::Damaged { address, .. } if *address == at_node),
        "{error:?}"
    );
}

#[tokio::test]
async fn cut_frames_and_wrong_heads_are_asked_for_again() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    filled(&cluster, &client, 3).await;
    let log = client.log("orders").await.unwrap();
    cluster.model().script(
        MessageKind::Read,
        [Fault::Cut, Fault::CloseBefore, Fault::Cut],
    );
    let chunk = log.read(0, ReadLimits::default()).await.unwrap();
    assert_eq!(chunk.records.len(), 3);
    cluster
        .model()
        .script(MessageKind::Read, [Fault::DamageHead]);
    let read = log.read(0, ReadLimits::default()).await;
    assert_eq!(read.unwrap().records.len(), 3);
}

#[tokio::test]
async fn status_names_the_dead_within_two_seconds() {
    let mut cluster = FakeCluster::start(3).await;
    // One more that accepts connections and says nothing: a stopped process.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stopped = stopped.local_addr().unwrap().to_string();
    let mut endpoints = vec![stopped.clone()];
    endpoints.push(cluster.addresses[0].clone());
    let client = cluster
        .builder()
        .connect_timeout(Duration::from_secs(5))
        .endpoints(endpoints)
        .build()
        .unwrap();
    cluster.kill(1).await;
    let started = Instant::now();
    let status = client.status().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(status.cluster_id, "test");
    assert_eq!((status.leader_id, status.term), (Some(1), 1));
    let seen: Vec<(Option<u64>, &str, bool)> = status
        .nodes
        .iter()
        .map(|node| (node.node_id, node.address.as_str(), node.reachable))
        .collect();
    let address = |at: usize| cluster.addresses[at].as_str();
    let expected = [
        (Some(1), address(0), true),
        (Some(2), address(1), false),
        (Some(3), address(2), true),
        (None, stopped.as_str(), false),
    ];
    assert_eq!(seen, expected);
    assert!(status.nodes[1].error.is_some() && status.nodes[1].role.is_none());
    assert_eq!(status.nodes[0].role.as_deref(), Some("leader"));

    cluster.kill(0).await;
    cluster.kill(2).await;
    let started = Instant::now();
    let error = client.status().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(
        matches!(error, ClientError::Unavailable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_replica_is_found_by_id_or_address_and_its_death_is_named() {
    let mut cluster = FakeCluster::start(3).await;
    let first = cluster.addresses[0].clone();
    let client = cluster
        .builder()
        .endpoints([first])
        .request_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    filled(&cluster, &client, 2).await;
    let by_id = client.replica(3).log("orders").await.unwrap();
    assert_eq!(by_id.info().next_seq, 2);
    let third = cluster.addresses[2].clone();
    let by_address = client
        .replica_at(third.as_str())
        .log("orders")
        .await
        .unwrap();
    let mut reader = by_address.reader(0);
    assert_eq!(reader.next().await.unwrap().unwrap().records.len(), 2);
    cluster.kill(2).await;
    let error = by_id.read(0, ReadLimits::default()).await.unwrap_err();
    assert!(error.to_string().contains(&third), "{error}");
    let error = client.replica(9).logs().await.unwrap_err();
    assert!(error.to_string().contains("node 9"), "{error}");
}

#[tokio::test]
async fn the_wrong_cluster_is_refused_at_once() {
    let ours = FakeCluster::start(1).await;
    let other = FakeCluster::start_as(1, "other").await;
    let client = ours.builder().cluster_id("elsewhere").build().unwrap();
    let started = Instant::now();
    let error = client.logs().await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "not the whole deadline"
    );
    assert_eq!(error.code(), Some(ErrorCode::WrongCluster));
    let error = client.connect().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::WrongCluster));

    // Without a name the first to answer decides, and the other one is never used.
    let client = Client::builder()
        .endpoints([ours.addresses[0].clone(), other.addresses[0].clone()])
        .build()
        .unwrap();
    client.create_log("orders", true).await.unwrap();
    let status = client.status().await.unwrap();
    let reachable: Vec<bool> = status.nodes.iter().map(|node| node.reachable).collect();
    assert_eq!(reachable.iter().filter(|reachable| **reachable).count(), 1);
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_an_error_and_bounded() {
    use tokio::io::AsyncWriteExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&[0xAB; 65_536]).await;
        }
    });
    let client = Client::builder()
        .endpoints([address])
        .request_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = client.connect().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MalformedFrame), "{error:?}");
}

#[test]
fn the_builder_checks_its_arguments() {
    let build = |endpoints: &[&str]| {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        Client::builder().endpoints(endpoints).build()
    };
    assert!(build(&["localhost:4436", "localhost:4436"]).is_ok());
    for endpoints in [&[][..], &["localhost"], &["localhost:port"]] {
        assert!(build(endpoints).is_err(), "{endpoints:?}");
    }
    let bad_cluster = Client::builder()
        .endpoints(["a:1"])
        .cluster_id("a b")
        .build();
    assert!(bad_cluster.is_err());
    let no_time = Client::builder()
        .endpoints(["a:1"])
        .request_timeout(Duration::ZERO)
        .build();
    assert!(no_time.is_err());
}

/// Clients are shared between threads, and their futures run on any of them.
#[test]
fn clients_and_their_futures_are_send() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let client = Client::builder().endpoints(["a:1"]).build().unwrap();
    let producer = client.producer(drave_client::ProducerOptions::default());
    is_shared(&client);
    is_shared(&producer);
    is_send(&client.status());
    is_send(&client.log("a"));
    is_send(&client.create_log("a", true));
    is_send(&producer.submit(1, ["a"]));
    is_send(&producer.flush());
}
