//! Many logs in one group, written interleaved: each is whole by itself.
#![allow(clippy::unwrap_used)]

mod common;

use common::TestCluster;
use drave_client::{ProducerOptions, ReadLimits};

const LOGS: usize = 1000;
const ROUNDS: usize = 12;

#[test]
fn interleaved_logs_read_back_whole() {
    let mut test = TestCluster::start(3);
    let client = test.client.clone();
    test.runtime.block_on(async {
        let mut logs = Vec::new();
        for number in 0..LOGS {
            let name = format!("many/{number:04}");
            client.create_log(&name, true).await.unwrap();
            logs.push(client.log(&name).await.unwrap());
        }
        let producer = client.producer(ProducerOptions::default());
        let mut tickets = Vec::new();
        for round in 0..ROUNDS {
            for (number, log) in logs.iter().enumerate() {
                // Batches of one to three records, so that seqs and batches do not go in step.
                let records =
                    (0..=(round + number) % 3).map(|part| format!("{number} {round} {part}"));
                tickets.push((number, producer.submit(log.id(), records).await.unwrap()));
            }
        }
        let mut next_seqs = vec![0; LOGS];
        for (number, ticket) in tickets {
            let ack = ticket.await.unwrap();
            assert_eq!(ack.first_seq, next_seqs[number], "log {number} has no gap");
            next_seqs[number] += u64::from(ack.record_count);
        }
        for (number, log) in logs.iter().enumerate() {
            let chunk = log.read(0, ReadLimits::default()).await.unwrap();
            assert_eq!(chunk.next_seq, next_seqs[number]);
            let expected = (0..ROUNDS).flat_map(|round| {
                (0..=(round + number) % 3).map(move |part| format!("{number} {round} {part}"))
            });
            assert!(
                chunk
                    .records
                    .iter()
                    .map(|record| &record.payload[..])
                    .eq(expected.map(String::into_bytes))
            );
            assert!(
                chunk
                    .records
                    .iter()
                    .map(|record| record.seq)
                    .eq(0..next_seqs[number])
            );
        }
    });
    test.caught_up();
    let list = test
        .run(&["log", "ls", "--format", "json"], b"")
        .assert_code(0);
    let list: Vec<serde_json::Value> = serde_json::from_str(list.text()).unwrap();
    assert_eq!(list.len(), LOGS);
    let whole = test.run(&["read", "many/0042"], b"").assert_code(0).stdout;
    for held in test.read_each_node("many/0042") {
        assert!(held == whole);
    }
}
