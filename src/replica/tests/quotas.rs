//! Quotas of logs, by the replica's own clock: what is refused, what is not counted, what another leader knows.

use super::*;
use drave_batch::{LogChange, Quota};

impl Cluster {
    fn limit(&mut self, node: u64, log_id: u64, records_per_second: u64) {
        let quota = Quota {
            bytes_per_second: 0,
            records_per_second,
        };
        let change = LogChange::Limit(quota);
        self.ask(node, 905, |r, now, to, log| {
            r.change_log(now, to, log_id, change, log)
        });
        self.settle(true);
        assert!(matches!(self.answer(905), Answer::Described(_)));
    }

    /// Whether a batch is taken.
    fn is_taken(&mut self, node: u64, request_id: u64, batch: &(Append, Vec<u8>)) -> bool {
        self.append(node, request_id, batch);
        self.settle(true);
        match self.answer(request_id) {
            Answer::Appended(_) => true,
            Answer::Refused(refusal) => {
                assert_eq!(refusal.code, ErrorCode::QuotaExceeded, "{refusal:?}");
                false
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_used_up_quota_refuses_new_batches_only_and_a_new_leader_knows_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (log, other) = (cluster.create(leader, "a"), cluster.create(leader, "b"));
    let producer = cluster.producer(leader);
    let first = batch(log, producer, 0, &[b"x", b"y"]);
    assert!(cluster.is_taken(leader, 1, &first));
    cluster.limit(leader, log, 2);
    let second = batch(log, producer, 1, &[b"x", b"y"]);
    assert!(cluster.is_taken(leader, 2, &second));
    assert!(!cluster.is_taken(leader, 3, &batch(log, producer, 2, &[b"z"])));
    // What is in the log already is answered as it was, and another log is not held.
    assert!(cluster.is_taken(leader, 4, &second));
    assert!(cluster.is_taken(leader, 5, &batch(other, 0, 0, &[b"z"])));
    cluster.pass(500_000);
    assert!(cluster.is_taken(leader, 6, &batch(log, producer, 2, &[b"z"])));
    // Restarted from log and snapshot, whoever leads.
    for id in 1..=3 {
        cluster.restart(id);
    }
    let leader = cluster.elect();
    assert!(cluster.is_taken(leader, 7, &batch(log, 0, 0, &[b"z", b"z"])));
    assert!(!cluster.is_taken(leader, 8, &batch(log, 0, 0, &[b"z"])));
    cluster.limit(leader, log, 0);
    assert!(cluster.is_taken(leader, 9, &batch(log, 0, 0, &[b"z"])));
    cluster.check_agreement();
}
