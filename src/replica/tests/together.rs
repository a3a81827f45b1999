//! Appends to several logs in one entry: all of them or none, once, whatever becomes of the leader.

use super::*;
use drave_batch::wire::{AppendTogether, AppendedTogether, TogetherPart};
use drave_batch::{FENCE_NEXT, LogChange, TOGETHER_LOGS_MAX, decode_together};

/// One record for each of these logs.
fn together(producer_id: u64, producer_seq: u64, logs: &[u64]) -> (AppendTogether, Vec<u8>) {
    let mut request = AppendTogether {
        producer_id,
        producer_seq,
        ..AppendTogether::default()
    };
    let mut payload = Vec::new();
    for log_id in logs {
        let (append, body) = batch(*log_id, 0, 0, &[format!("for {log_id}").as_bytes()]);
        request.parts.push(TogetherPart {
            log_id: *log_id,
            record_count: append.header.record_count,
            body_len: append.header.body_len,
            body_crc: append.header.body_crc,
            ..TogetherPart::default()
        });
        payload.extend_from_slice(&body);
    }
    (request, payload)
}

impl Cluster {
    fn append_together(&mut self, node: u64, request_id: u64, asked: &(AppendTogether, Vec<u8>)) {
        self.ask(node, request_id, |r, now, to, log| {
            r.append_together(now, to, &asked.0, &asked.1, log)
        });
    }

    fn appended_together(&mut self, node: u64, asked: &(AppendTogether, Vec<u8>)) -> Vec<u64> {
        self.append_together(node, 904, asked);
        self.settle(true);
        first_seqs(&placed(self.answer(904)))
    }

    fn refused_together(&mut self, node: u64, asked: &(AppendTogether, Vec<u8>)) -> Refusal {
        self.append_together(node, 905, asked);
        self.settle(true);
        refused(self.answer(905))
    }

    fn next_seqs(&self, node: u64, logs: &[u64]) -> Vec<u64> {
        let catalogue = self.replica(node).catalogue();
        let state = |log_id: &u64| catalogue.log(*log_id).unwrap();
        let states: Vec<_> = logs.iter().map(state).collect();
        for state in &states {
            assert_eq!(state.next_seq, state.tail_seq, "{}", state.name);
        }
        states.iter().map(|state| state.next_seq).collect()
    }
}

fn placed(answer: Answer) -> AppendedTogether {
    match answer {
        Answer::AppendedTogether(appended) => appended,
        other => panic!("{other:?}"),
    }
}

fn first_seqs(appended: &AppendedTogether) -> Vec<u64> {
    appended.parts.iter().map(|part| part.first_seq).collect()
}

fn three_logs(cluster: &mut Cluster, leader: u64) -> [u64; 3] {
    ["a", "b", "c"].map(|name| cluster.create(leader, name))
}

#[test]
fn all_logs_grow_by_one_entry() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let logs = three_logs(&mut cluster, leader);
    cluster.fill(leader, logs[1], 2);
    let last_index = cluster.replica(leader).raft().last().index;
    let asked = together(0, 0, &[logs[1], logs[0]]);
    assert_eq!(cluster.appended_together(leader, &asked), [2, 0]);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index + 1);
    cluster.fill(leader, logs[0], 1);
    assert_eq!(cluster.appended_together(leader, &asked), [3, 2]);
    cluster.pass(100_000);
    for id in 1..=3 {
        assert_eq!(cluster.next_seqs(id, &logs), [3, 4, 0]);
    }
    // What a reader of one of the logs is given is a batch as any other.
    let entry = cluster.log(leader).slice(last_index + 1, last_index + 2)[0].clone();
    let entry = BatchRef::decode(&entry).unwrap();
    let parts = decode_together(&entry.header, entry.body()).unwrap();
    assert_eq!(parts[1].header.log_id, logs[0]);
    assert_eq!(parts[1].header.index, last_index + 1);
    assert_eq!(parts[1].header.append_time_us, entry.header.append_time_us);
    let record = format!("for {}", logs[0]);
    assert_eq!(
        parts[1].records().unwrap().next().unwrap(),
        record.as_bytes()
    );
    cluster.check_agreement();
}

#[test]
fn one_refusal_is_all_logs_refusal() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let logs = three_logs(&mut cluster, leader);
    cluster.fill(leader, logs[1], 2);
    let fence = LogChange::Fence { token: FENCE_NEXT };
    let close = LogChange::Close;
    let last_index = cluster.replica(leader).raft().last().index;
    let mut expecting = together(0, 0, &logs);
    expecting.0.parts[1].expect_seq = 1;
    let refusal = cluster.refused_together(leader, &expecting);
    assert_eq!(
        (refusal.code, refusal.found),
        (ErrorCode::ExpectSeq, 2),
        "{}",
        refusal.message
    );
    let missing = together(0, 0, &[logs[0], 999]);
    let refusal = cluster.refused_together(leader, &missing);
    assert_eq!(refusal.code, ErrorCode::LogNotFound);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    for (change, code) in [(fence, ErrorCode::Fenced), (close, ErrorCode::LogClosed)] {
        cluster.ask(leader, 1, |r, now, to, log| {
            r.change_log(now, to, logs[2], change, log)
        });
        cluster.settle(true);
        let refusal = cluster.refused_together(leader, &together(0, 0, &logs));
        assert_eq!(refusal.code, code);
    }
    assert_eq!(cluster.next_seqs(leader, &logs), [0, 2, 0]);
    expecting.0.parts[1].expect_seq = 2;
    expecting.0.parts.pop();
    let len = expecting.1.len() - expecting.0.parts[0].body_len as usize;
    expecting.1.truncate(len);
    assert_eq!(cluster.appended_together(leader, &expecting), [0, 2]);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn a_quota_that_is_used_up_holds_all_logs_and_counts_in_none() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let logs = three_logs(&mut cluster, leader);
    for (log_id, records_per_second) in [(logs[0], 3), (logs[2], 2)] {
        let change = LogChange::Limit(drave_batch::Quota {
            bytes_per_second: 0,
            records_per_second,
        });
        cluster.ask(leader, 1, |r, now, to, log| {
            r.change_log(now, to, log_id, change, log)
        });
        cluster.settle(true);
    }
    for seq in 0..2 {
        let asked = together(0, 0, &logs);
        assert_eq!(cluster.appended_together(leader, &asked), [seq; 3]);
    }
    for _ in 0..5 {
        let refusal = cluster.refused_together(leader, &together(0, 0, &logs));
        assert_eq!(refusal.code, ErrorCode::QuotaExceeded);
    }
    // The first log's last record of the second is still there to be taken.
    let asked = together(0, 0, &logs[..2]);
    assert_eq!(cluster.appended_together(leader, &asked), [2, 2]);
    let refusal = cluster.refused_together(leader, &asked);
    assert_eq!(refusal.code, ErrorCode::QuotaExceeded);
    assert_eq!(cluster.next_seqs(leader, &logs), [3, 3, 2]);
    cluster.pass(1_000_000);
    let asked = together(0, 0, &logs);
    assert_eq!(cluster.appended_together(leader, &asked), [3, 3, 2]);
}

#[test]
fn what_is_no_append_is_refused() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let logs = three_logs(&mut cluster, leader);
    let good = together(0, 0, &logs);
    let last_index = cluster.replica(leader).raft().last().index;
    let spoils: [fn(&mut AppendTogether, &mut Vec<u8>); 7] = [
        |request, _| request.parts[2].log_id = request.parts[0].log_id,
        |request, _| request.parts[1].record_count = 0,
        |request, _| request.parts[1].record_count = 2,
        |request, _| request.parts[1].body_crc ^= 1,
        |request, _| request.parts[1].body_len += 1,
        |_, payload| payload.push(0),
        |_, payload| payload.truncate(7),
    ];
    for spoil in spoils {
        let mut bad = good.clone();
        spoil(&mut bad.0, &mut bad.1);
        let refusal = cluster.refused_together(leader, &bad);
        assert_eq!(refusal.code, ErrorCode::MalformedBatch, "{bad:?}");
    }
    let mut large = together(0, 0, &logs[..1]);
    let (append, body) = batch(logs[1], 0, 0, &[&[7; 1001]]);
    large.0.parts.push(TogetherPart {
        log_id: logs[1],
        record_count: 1,
        body_len: append.header.body_len,
        body_crc: append.header.body_crc,
        ..TogetherPart::default()
    });
    large.1.extend_from_slice(&body);
    let refusal = cluster.refused_together(leader, &large);
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert_eq!(cluster.replica(leader).raft().last().index, last_index);
    assert_eq!(cluster.appended_together(leader, &good), [0, 0, 0]);
}

#[test]
fn an_entry_is_as_large_as_any_batch_at_most() {
    let config = ReplicaConfig {
        logs_max: 64,
        ..config()
    };
    let mut cluster = Cluster::with(1, config);
    let leader = cluster.elect();
    let logs: Vec<u64> = (0..TOGETHER_LOGS_MAX)
        .map(|number| cluster.create(leader, &format!("log-{number}")))
        .collect();
    let firsts = cluster.appended_together(leader, &together(0, 0, &logs));
    assert_eq!(firsts, [0; TOGETHER_LOGS_MAX]);
    let mut request = AppendTogether::default();
    let mut payload = Vec::new();
    let record = [7; 1000];
    for log_id in &logs {
        let (append, body) = batch(*log_id, 0, 0, &[&record[..]; 40]);
        request.parts.push(TogetherPart {
            log_id: *log_id,
            record_count: append.header.record_count,
            body_len: append.header.body_len,
            body_crc: append.header.body_crc,
            ..TogetherPart::default()
        });
        payload.extend_from_slice(&body);
    }
    let refusal = cluster.refused_together(leader, &(request, payload));
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert_eq!(refusal.expected, 2 << 20);
}

#[test]
fn a_producers_entry_is_there_once_and_answered_alike() {
    let config = ReplicaConfig {
        snapshot_entries: 16,
        ..config()
    };
    let mut cluster = Cluster::with(3, config);
    let leader = cluster.elect();
    let logs = three_logs(&mut cluster, leader);
    let producer = cluster.producer(leader);
    cluster.append(leader, 1, &batch(logs[2], producer, 0, &[b"before"]));
    let asked = together(producer, 1, &logs);
    cluster.append_together(leader, 2, &asked);
    // Asked again while it is in flight.
    cluster.append_together(leader, 3, &asked);
    let mut behind = batch(logs[0], producer, 4, &[b"behind"]);
    behind.0.header.producer_unacked = 4;
    cluster.append(leader, 4, &behind);
    cluster.settle(true);
    let (first, again) = (placed(cluster.answer(2)), placed(cluster.answer(3)));
    assert_eq!(first_seqs(&first), [0, 0, 1]);
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(
        (first.parts, first.index),
        (again.parts.clone(), again.index)
    );
    assert_eq!(appended(cluster.answer(4)).first_seq, 1);
    // The next sequence is behind all of them.
    let gap = cluster.refused_together(leader, &together(producer, 6, &logs[..1]));
    assert_eq!((gap.code, gap.expected), (ErrorCode::SequenceGap, 5));
    // What was appended under the number was something else.
    for other in [&logs[..1], &[logs[1], logs[0], logs[2]]] {
        let refusal = cluster.refused_together(leader, &together(producer, 1, other));
        assert_eq!(refusal.code, ErrorCode::MalformedBatch);
    }
    // A replica that knows it from a snapshot only.
    cluster.fill(leader, logs[1], 60);
    cluster.pass(100_000);
    for id in 1..=3 {
        cluster.restart(id);
        assert!(cluster.replica(id).applied_index() >= 32);
    }
    let leader = cluster.elect();
    cluster.append_together(leader, 5, &asked);
    cluster.settle(true);
    let late = placed(cluster.answer(5));
    assert!(late.duplicate);
    assert_eq!((late.parts, late.index), (again.parts, again.index));
    assert_eq!(cluster.next_seqs(leader, &logs), [2, 61, 2]);
    cluster.pass(100_000);
    cluster.check_agreement();
}

#[test]
fn a_truncated_entry_is_in_no_log_and_its_numbers_are_free() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    let logs = three_logs(&mut cluster, old);
    let producer = cluster.producer(old);
    cluster.cut = vec![old];
    let asked = together(producer, 0, &logs);
    cluster.append_together(old, 1, &asked);
    cluster.append_together(old, 2, &together(producer, 3, &logs[1..]));
    let new = cluster.elect();
    cluster.append(new, 3, &batch(logs[1], producer, 0, &[b"another"]));
    cluster.settle(true);
    assert_eq!(appended(cluster.answer(3)).first_seq, 0);
    cluster.cut.clear();
    for _ in 0..20 {
        cluster.pass(100_000);
    }
    for request in [1, 2] {
        let refusal = refused(cluster.answer(request));
        assert_eq!(refusal.code, ErrorCode::OutcomeUnknown);
    }
    for id in 1..=3 {
        assert_eq!(cluster.next_seqs(id, &logs), [0, 1, 0]);
    }
    cluster.check_agreement();
    // The node that had it in its log decides as the others do.
    cluster.cut = (1..=3).filter(|id| *id == new).collect();
    let leader = cluster.elect();
    let asked = together(producer, 1, &logs);
    assert_eq!(cluster.appended_together(leader, &asked), [0, 1, 0]);
}
