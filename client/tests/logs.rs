//! What is asked about one log: its description, its tail, its records by time and from the end.
#![allow(clippy::unwrap_used)]

mod support;

use drave_batch::wire::MessageKind;
use drave_client::{ErrorCode, ReadLimits, TailEvent, TailFrom};

use support::{FakeCluster, Fault};

/// A log of ten batches of two records, the n-th appended at 1,000,001 + n us.
async fn ten_batches() -> (FakeCluster, u64) {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let log_id = client.create_log("orders", true).await.unwrap().log_id;
    for number in 0..10_u32 {
        let record = number.to_le_bytes();
        cluster.put(log_id, &[&record, &record]);
    }
    (cluster, log_id)
}

#[tokio::test]
async fn a_log_is_described_and_says_where_it_ends() {
    let (cluster, log_id) = ten_batches().await;
    let client = cluster.client();
    cluster
        .model()
        .script(MessageKind::LogDescribe, [Fault::CloseAfter]);
    let log = client.describe_log("orders").await.unwrap();
    assert_eq!((log.log_id, log.first_seq, log.next_seq), (log_id, 0, 20));
    assert!(log.held_bytes > 960, "{log:?}");
    let tail = client.log("orders").await.unwrap().check_tail().await;
    let tail = tail.unwrap();
    assert_eq!(tail.next_seq, 20);
    assert_eq!(tail.last_time_us, log.last_time_us);
    client.create_log("empty", true).await.unwrap();
    let empty = client.describe_log("empty").await.unwrap();
    assert_eq!((empty.next_seq, empty.last_time_us), (0, None));
    let error = client.describe_log("none").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
}

#[tokio::test]
async fn records_are_read_by_time_and_from_the_end() {
    let (cluster, _) = ten_batches().await;
    let client = cluster.client();
    let log = client.log("orders").await.unwrap();
    let first = log.read(0, ReadLimits::default()).await.unwrap();
    let times: Vec<u64> = first.records.iter().map(|r| r.append_time_us).collect();
    let (begin, end) = (times[0], times[19]);
    for (time_us, seq) in [(0, 0), (begin, 0), (begin + 1, 2), (end, 18), (end + 1, 20)] {
        assert_eq!(log.seq_at(time_us).await.unwrap(), seq, "{time_us}");
    }
    let chunk = log.read_at(begin + 3, ReadLimits::default()).await.unwrap();
    let seqs: Vec<u64> = chunk.records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (6..20).collect::<Vec<_>>());
    let last = |count| log.read_last(count, ReadLimits::default());
    for (count, from) in [(0, 20), (1, 19), (5, 15), (20, 0), (u64::MAX, 0)] {
        let chunk = last(count).await.unwrap();
        let seqs: Vec<u64> = chunk.records.iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (from..20).collect::<Vec<_>>(), "the last {count}");
    }
    client.trim_log("orders", 7).await.unwrap();
    assert_eq!(log.seq_at(0).await.unwrap(), 7);
    assert_eq!(last(u64::MAX).await.unwrap().records[0].seq, 7);
}

/// Between the question where a time is and the read, the beginning of the log is trimmed.
#[tokio::test]
async fn what_is_trimmed_while_it_is_looked_for_is_left_out() {
    let (cluster, log_id) = ten_batches().await;
    let client = cluster.client();
    let log = client.log("orders").await.unwrap();
    // The read is refused as busy once, and by then the log begins later.
    cluster
        .model()
        .script(MessageKind::Read, [Fault::Refuse(ErrorCode::Busy)]);
    cluster.model().trim_at_next_read = Some((log_id, 11));
    let chunk = log.read_at(0, ReadLimits::default()).await.unwrap();
    assert_eq!((chunk.records[0].seq, chunk.first_seq), (11, 11));
}

#[tokio::test]
async fn a_tail_begins_at_a_time() {
    let (cluster, _) = ten_batches().await;
    let client = cluster.client();
    let log = client.log("orders").await.unwrap();
    let chunk = log.read(9, ReadLimits::default()).await.unwrap();
    let time_us = chunk.records[0].append_time_us;
    let mut tail = log.tail(TailFrom::TimeUs(time_us)).await.unwrap();
    let TailEvent::Record(record) = tail.next().await.unwrap() else {
        panic!("a record was appended then");
    };
    assert_eq!(record.seq, 8, "both records of the batch have its time");
    let mut tail = log.tail(TailFrom::TimeUs(u64::MAX)).await.unwrap();
    let event = tail.next().await.unwrap();
    assert_eq!(event, TailEvent::CaughtUp { next_seq: 20 });
}

/// Two writers take the log over in turn: whoever was fenced writes nothing, and is told by name.
#[tokio::test]
async fn a_fenced_writer_writes_nothing() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    client.create_log("jobs", true).await.unwrap();
    let log = client.log("jobs").await.unwrap();
    log.append("of nobody").await.unwrap();
    let first = log.fence().await.unwrap();
    assert_eq!(first.append("first").await.unwrap().first_seq, 1);
    // The answer is lost: the fence that is asked for again is another one.
    cluster
        .model()
        .script(MessageKind::LogChangeRequest, [Fault::CloseAfter]);
    let second = log.fence().await.unwrap();
    assert!(second.fence_token() > first.fence_token());
    for late in [&log, &first] {
        let error = late.append("late").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Fenced), "{error:?}");
        assert!(error.has_no_side_effects());
        let error = late.append_if(2, ["late"]).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Fenced), "{error:?}");
    }
    assert_eq!(second.append("second").await.unwrap().first_seq, 2);
    let batcher = second.batcher(drave_client::BatcherOptions::default());
    assert_eq!(batcher.append("third").await.unwrap(), 3);
    let described = log.describe().await.unwrap();
    assert_eq!(described.fence, second.fence_token());
    assert_eq!((described.fence_seq, described.next_seq), (2, 4));
    // Tokens from elsewhere.
    let token = second.fence_token();
    assert_eq!(log.fence_at(token).await.unwrap().fence_token(), token);
    assert_eq!(log.fence_at(50).await.unwrap().fence_token(), 50);
    let error = log.fence_at(49).await.err().unwrap();
    assert_eq!(error.code(), Some(ErrorCode::Fenced));
    assert!(log.fence_at(0).await.is_err());
}

#[tokio::test]
async fn a_tail_hears_of_takeovers_and_of_the_end() {
    let (cluster, log_id) = ten_batches().await;
    let client = cluster.client();
    let log = client.log("orders").await.unwrap();
    // What came before the tail is not news to it.
    let first = log.fence().await.unwrap();
    let mut tail = first.tail(TailFrom::Seq(20)).await.unwrap();
    assert_eq!(
        tail.next().await.unwrap(),
        TailEvent::CaughtUp { next_seq: 20 }
    );
    first.append("by the first").await.unwrap();
    let second = log.fence().await.unwrap();
    second.append("by the second").await.unwrap();
    let third = log.fence().await.unwrap();
    let mut events = Vec::new();
    while events.len() < 5 {
        let text = match tail.next().await.unwrap() {
            TailEvent::Record(record) => String::from_utf8(record.payload.to_vec()).unwrap(),
            TailEvent::Fenced { token, seq } => format!("{token} at {seq}"),
            TailEvent::CaughtUp { .. } => continue,
            other => panic!("{other:?}"),
        };
        events.push(text);
        if events.len() == 3 {
            assert_eq!(third.append("by the third").await.unwrap().first_seq, 22);
            client.close_log("orders").await.unwrap();
        }
        if events.last().is_some_and(|event| event == "by the third") {
            break;
        }
    }
    let told = |text: &str| events.iter().position(|event| event == text);
    // Takeovers in a row may be told as one; none is told behind a record that it brought.
    assert!(told("by the first") < told("by the second"), "{events:?}");
    assert!(told("3 at 22").unwrap() < told("by the third").unwrap());
    assert!(told("3 at 22") > told("by the second"), "{events:?}");
    loop {
        match tail.next().await.unwrap() {
            TailEvent::CaughtUp { next_seq: 23 } => {}
            TailEvent::Closed { next_seq } => break assert_eq!(next_seq, 23),
            other => panic!("{other:?}"),
        }
    }
    let again = tail.next().await.unwrap();
    assert_eq!(again, TailEvent::Closed { next_seq: 23 });
    let error = third.append("late").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogClosed));
    assert!(error.has_no_side_effects());
    let stream = log.tail(TailFrom::Seq(22)).await.unwrap().into_stream();
    let events: Vec<_> = futures_util::StreamExt::collect(stream).await;
    let events: Vec<TailEvent> = events.into_iter().map(Result::unwrap).collect();
    assert!(matches!(events[0], TailEvent::Record(_)), "{events:?}");
    assert_eq!(events.last(), Some(&TailEvent::Closed { next_seq: 23 }));
    assert_eq!(cluster.model().logs[&log_id].next_seq, 23);
}

#[tokio::test]
async fn a_log_that_was_deleted_is_gone_and_its_name_is_another_log_s() {
    let (cluster, log_id) = ten_batches().await;
    let (client, other) = (cluster.client(), cluster.client());
    let old = other.log("orders").await.unwrap();
    // The answer is lost: the log is gone all the same.
    cluster
        .model()
        .script(MessageKind::LogChangeRequest, [Fault::CloseAfter]);
    assert_eq!(client.delete_log("orders").await.unwrap(), None);
    let error = client.delete_log("orders").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
    let error = old.append("x").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
    let new = client.create_log("orders", true).await.unwrap();
    assert!(new.created && new.log_id != log_id);
    // Who asks for the log by its name gets the new one, who has the old one does not.
    let found = other.log("orders").await.unwrap();
    assert_eq!(found.append("y").await.unwrap().first_seq, 0);
    assert!(old.append("x").await.is_err());
    let deleted = client.delete_log("orders").await.unwrap().unwrap();
    assert_eq!((deleted.log_id, deleted.next_seq), (new.log_id, 1));
}
