//! Appends to several logs at once, against nodes that lose answers, forget producers and refuse.
#![allow(clippy::unwrap_used)]

mod support;

use drave_batch::wire::MessageKind;
use drave_client::{Client, ClientError, ErrorCode, Log};

use support::{FakeCluster, Fault};

async fn two_logs(client: &Client) -> (Log, Log) {
    for name in ["a", "b"] {
        client.create_log(name, true).await.unwrap();
    }
    (
        client.log("a").await.unwrap(),
        client.log("b").await.unwrap(),
    )
}

async fn next_seqs(a: &Log, b: &Log) -> (u64, u64) {
    let next_seq = async |log: &Log| log.check_tail().await.unwrap().next_seq;
    (next_seq(a).await, next_seq(b).await)
}

#[tokio::test]
async fn what_was_appended_is_not_appended_again_when_its_answer_is_lost() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let (a, b) = two_logs(&client).await;
    for (round, fault) in [
        Fault::CloseAfter,
        Fault::CloseBefore,
        Fault::Cut,
        Fault::DamageHead,
        Fault::Refuse(ErrorCode::OutcomeUnknown),
        Fault::Refuse(ErrorCode::Busy),
    ]
    .into_iter()
    .enumerate()
    {
        let round = round as u64;
        cluster
            .model()
            .script(MessageKind::AppendTogether, [fault, fault]);
        cluster.elect(round as usize % 3);
        let together = client.together().push(&b, ["x", "y"]).push(&a, ["z"]);
        let ack = together.append().await.unwrap();
        let seqs: Vec<u64> = ack.logs.iter().map(|ack| ack.first_seq).collect();
        assert_eq!(seqs, [2 * round, round], "{fault:?}");
        assert_eq!(ack.logs[0].record_count, 2);
    }
    assert_eq!(next_seqs(&a, &b).await, (6, 12));
    assert_eq!(cluster.model().producers_opened, 1);
}

#[tokio::test]
async fn a_producer_that_was_forgotten_is_registered_anew() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let (a, b) = two_logs(&client).await;
    let append = async || {
        client
            .together()
            .push(&a, ["x"])
            .push(&b, ["x"])
            .append()
            .await
    };
    append().await.unwrap();
    cluster.model().producers.clear();
    let ack = append().await.unwrap();
    assert_eq!(ack.logs[0].first_seq, 1);
    assert_eq!(cluster.model().producers_opened, 2);
    // Whether it was appended under the forgotten one is not known: it is not sent under another.
    let model = || cluster.model();
    model().script(MessageKind::AppendTogether, [Fault::CloseAfter]);
    model().script(
        MessageKind::AppendTogether,
        [Fault::Refuse(ErrorCode::UnknownProducer)],
    );
    let error = append().await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
    assert_eq!(append().await.unwrap().logs[1].first_seq, 3);
    assert_eq!(model().producers_opened, 3);
}

#[tokio::test]
async fn a_refusal_wrote_to_no_log_and_the_next_append_goes_on() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client();
    let (a, b) = two_logs(&client).await;
    let together = client.together().push(&a, ["x"]).push_if(&b, 1, ["x"]);
    let error = together.append().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ExpectSeq));
    assert!(error.has_no_side_effects());
    let fenced = b.fence().await.unwrap();
    let together = client.together().push(&a, ["x"]).push(&b, ["x"]);
    let error = together.append().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Fenced));
    assert_eq!(next_seqs(&a, &b).await, (0, 0));
    let together = client.together().push(&a, ["x"]).push_if(&fenced, 0, ["x"]);
    together.append().await.unwrap();
    client.delete_log("b").await.unwrap();
    let together = client.together().push(&a, ["x"]).push(&fenced, ["x"]);
    let error = together.append().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::LogNotFound));
    let gone = client.log("b").await.err().unwrap();
    assert_eq!(gone.code(), Some(ErrorCode::LogNotFound));
    assert_eq!(cluster.model().producers_opened, 1);
}

#[tokio::test]
async fn what_cannot_be_appended_is_not_sent() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client();
    let (a, b) = two_logs(&client).await;
    let large = vec![0; 1 << 20];
    let argument = |error: ClientError| {
        let is_argument = matches!(error, ClientError::Argument { .. });
        assert!(is_argument, "{error}");
    };
    argument(client.together().append().await.unwrap_err());
    let none: [&str; 0] = [];
    for together in [
        client.together().push(&a, none),
        client.together().push(&a, ["x"]).push(&b, none),
        client.together().push(&a, ["x"]).push(&a, ["x"]),
        client.together().push_if(&a, u64::MAX, ["x"]),
    ] {
        argument(together.append().await.unwrap_err());
    }
    let together = client.together().push(&a, [&large, &large]);
    let error = together.append().await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    assert_eq!(cluster.model().requests(MessageKind::AppendTogether), 0);
    assert_eq!(next_seqs(&a, &b).await, (0, 0));
}
