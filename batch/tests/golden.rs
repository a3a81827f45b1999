//! The bytes of every layout, held in place by files: a change here is a change of the format.
//!
//! `DRAVE_BLESS=1 cargo test -p drave-batch --test golden` writes the files anew.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use drave_batch::control::{LogCreated, Member, MemberRole, Members, ProducerRegistered};
use drave_batch::wire::{self, ClusterId, Lane, Message, Role, decode_head};
use drave_batch::{
    BatchHeader, BatchRef, BodyBuilder, EntryKind, LogChange, Quota, Retention, decode_together,
    encode_together,
};

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(16) {
        for byte in line {
            write!(out, "{byte:02x} ").unwrap();
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"));
    let found = hex(bytes);
    if std::env::var_os("DRAVE_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, expected,
        "{name}: the bytes are not those of docs/format.md any more"
    );
}

fn check_message<M: Message + PartialEq + std::fmt::Debug>(
    name: &str,
    message: &M,
    payload: usize,
) {
    check_appended(name, message, payload, 0);
}

/// The same for a message whose last `appended` bytes may be missing altogether.
fn check_appended<M: Message + PartialEq + std::fmt::Debug>(
    name: &str,
    message: &M,
    payload: usize,
    appended: usize,
) {
    let mut out = Vec::new();
    wire::encode_frame(&mut out, 0, 0x0102_0304_0506_0708, message, payload);
    check(name, &out);
    let header = wire::FrameHeader::decode(&out).unwrap();
    assert_eq!(header.payload_len as usize, payload);
    let head = &out[wire::FRAME_HEADER_BYTES..];
    assert_eq!(head.len(), usize::from(header.head_len));
    assert_eq!(&decode_head::<M>(&header, head).unwrap(), message);
    for cut in 0..head.len() {
        let is_whole = appended > 0 && cut == head.len() - appended;
        assert_eq!(
            M::decode_head(&head[..cut]).is_ok(),
            is_whole,
            "{name} cut at {cut}"
        );
    }
    for at in 0..head.len() {
        let mut bad = head.to_vec();
        bad[at] ^= 0x20;
        assert!(decode_head::<M>(&header, &bad).is_err(), "{name} byte {at}");
    }
}

fn encoded_head<M: Message>(message: &M) -> Vec<u8> {
    let mut head = Vec::new();
    message.encode_head(&mut head);
    head
}

fn data_header(body: &[u8], records: u32) -> BatchHeader {
    BatchHeader {
        index: 0x1111_1111_1111_1111,
        term: 0x22,
        log_id: 0x33,
        first_seq: 0x44,
        producer_id: 0x55,
        producer_seq: 0x66,
        append_time_us: 0x0006_3f00_0000_0001,
        group_id: 0x77,
        prev_crc: 0x8888_8888,
        producer_epoch: 0x99,
        producer_unacked: 0xaa,
        ..BatchHeader::new(EntryKind::Data, body, records)
    }
}

#[test]
fn batches() {
    let mut builder = BodyBuilder::new();
    for record in [&b"la drave"[..], b"", b"moves logs"] {
        builder.push(record);
    }
    let count = builder.record_count();
    let mut body = Vec::new();
    builder.drain_into(&mut body);
    let mut out = Vec::new();
    data_header(&body, count).encode_with_body(&body, &mut out);
    check("batch_data", &out);
    let batch = BatchRef::decode(&out).unwrap();
    assert_eq!(batch.header, data_header(&body, count));
    batch.verify_body().unwrap();
    let records: Vec<&[u8]> = batch.records().unwrap().collect();
    assert_eq!(records, [&b"la drave"[..], b"", b"moves logs"]);

    let entry = BatchHeader {
        log_id: 0,
        first_seq: 0,
        kind: EntryKind::Together,
        ..data_header(&[], 0)
    };
    let of_log = |log_id, first_seq| BatchHeader {
        log_id,
        first_seq,
        ..BatchHeader::new(EntryKind::Data, &body, count)
    };
    let parts = [of_log(0x33, 0x44), of_log(0x34, 0)].map(|header| (header, &body[..]));
    let together = encode_together(&entry, &parts);
    let entry = BatchHeader {
        body_crc: drave_batch::checksum(&together),
        body_len: together.len() as u32,
        ..entry
    };
    let mut out = Vec::new();
    entry.encode_with_body(&together, &mut out);
    check("batch_together", &out);
    let batch = BatchRef::decode(&out).unwrap();
    assert_eq!(batch.header, entry);
    let found = decode_together(&entry, batch.body()).unwrap();
    assert_eq!(found[1].header.log_id, 0x34);
    assert_eq!(found[1].header.producer_seq, 0x67);
    assert_eq!(found[1].body(), &body[..]);

    let mut out = Vec::new();
    let noop = BatchHeader {
        index: 1,
        term: 1,
        ..BatchHeader::new(EntryKind::Noop, &[], 0)
    };
    noop.encode_with_body(&[], &mut out);
    check("batch_noop", &out);
}

#[test]
fn control_bodies() {
    let created = LogCreated {
        name: "orders/eu".to_owned(),
    };
    check("control_log_created", &created.encode());
    assert_eq!(LogCreated::decode(&created.encode()).unwrap(), created);
    let registered = ProducerRegistered {
        name: "svc-7".to_owned(),
    };
    check("control_producer_registered", &registered.encode());
    assert_eq!(
        ProducerRegistered::decode(&registered.encode()).unwrap(),
        registered
    );
    let member = |node_id, role, outgoing_voter| Member {
        node_id,
        role,
        outgoing_voter,
        incarnation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        address: format!("10.0.0.{node_id}:4436"),
    };
    let members = Members {
        node_id_max: 11,
        members: vec![
            member(1, Some(MemberRole::Voter), true),
            member(2, Some(MemberRole::Learner), false),
            member(9, None, true),
        ],
    };
    check("control_members", &members.encode());
    assert_eq!(Members::decode(&members.encode()).unwrap(), members);
    let mut unordered = members.clone();
    unordered.members.swap(0, 1);
    assert!(Members::decode(&unordered.encode()).is_err());
    let mut above = members.clone();
    above.node_id_max = 8;
    assert!(Members::decode(&above.encode()).is_err());
    let trim = BatchHeader {
        index: 7,
        term: 2,
        log_id: 3,
        first_seq: 41,
        ..BatchHeader::new(EntryKind::LogTrim, &[], 0)
    };
    let mut out = Vec::new();
    trim.encode_with_body(&[], &mut out);
    check("batch_log_trim", &out);
    let fence = LogChange::Fence { token: 7 };
    check("control_log_fenced", &fence.encode());
    assert_eq!(LogChange::decode(&fence.encode()).unwrap(), fence);
    assert!(LogChange::decode(&[0; 9]).is_err());
    assert!(LogChange::decode(&[fence.encode(), vec![0]].concat()).is_err());
}

#[test]
fn handshake() {
    let hello = wire::Hello {
        version_min: 1,
        version_max: 1,
        role: Role::Peer,
        lane: Lane::Append,
        node_id: 2,
        incarnation: 0xfeed,
        to_node_id: 3,
        cluster_id: Some(ClusterId::new("golden").unwrap()),
        settings: None,
    };
    check_message("hello", &hello, 0);
    let hello = wire::Hello {
        settings: Some(wire::PeerSettings {
            producers_max: 65_536,
            election_timeout_us_min: 300_000,
            has_leases: true,
        }),
        ..hello
    };
    check_appended("hello_settings", &hello, 0, 13);
    let ack = wire::HelloAck {
        version: 1,
        node_id: 3,
        incarnation: 0xbeef,
        payload_bytes_max: 4 << 20,
        record_bytes_max: 1 << 20,
        credit_bytes: 8 << 20,
        cluster_id: "golden".to_owned(),
    };
    check_message("hello_ack", &ack, 0);
    check_message(
        "hello_reject",
        &wire::HelloReject {
            code: 702,
            message: "no".to_owned(),
        },
        0,
    );
}

#[test]
fn peer_messages() {
    let request = wire::VoteRequest {
        term: 5,
        last_term: 4,
        last_index: 99,
        pre_vote: true,
        transfer: false,
    };
    check_message("vote_request", &request, 0);
    check_message(
        "vote_reply",
        &wire::VoteReply {
            term: 5,
            granted: true,
            pre_vote: true,
        },
        0,
    );
    check_message(
        "heartbeat",
        &wire::Heartbeat {
            term: 5,
            commit_index: 98,
            read_round: 7,
            session: 3,
        },
        0,
    );
    let reply = wire::HeartbeatReply {
        term: 5,
        read_round: 7,
        session: 3,
        match_index: 97,
        received_index: 98,
        credit_bytes: 1 << 20,
        flush_us: 300,
        flush_waits_us: 40,
        has_room: true,
    };
    check_appended("heartbeat_reply", &reply, 0, 17);
    let head = encoded_head(&reply);
    let older = wire::HeartbeatReply {
        flush_us: 0,
        flush_waits_us: 0,
        has_room: false,
        ..reply
    };
    let short = &head[..head.len() - 17];
    assert_eq!(wire::HeartbeatReply::decode_head(short).unwrap(), older);
    let append = wire::AppendEntries {
        term: 5,
        prev_term: 4,
        prev_index: 99,
        commit_index: 98,
        session: 3,
        batch_count: 2,
    };
    check_message("append_entries", &append, 4096);
    let reply = wire::AppendReply {
        term: 5,
        session: 3,
        accepted: true,
        index: 101,
        received_index: 101,
        hint_term: 0,
        hint_index: 0,
        last_index: 0,
        credit_bytes: 1 << 20,
        flush_us: 300,
    };
    check_appended("append_reply", &reply, 0, 8);
    let head = encoded_head(&reply);
    let older = wire::AppendReply {
        flush_us: 0,
        ..reply
    };
    let short = &head[..head.len() - 8];
    assert_eq!(wire::AppendReply::decode_head(short).unwrap(), older);
    check_message("timeout_now", &wire::TimeoutNow { term: 5 }, 0);
}

#[test]
fn peer_messages_about_snapshots_and_reads() {
    let chunk = wire::SnapshotChunk {
        term: 5,
        session: 3,
        snapshot_term: 4,
        snapshot_index: 99,
        total_bytes: 1 << 20,
        offset: 65_536,
        payload_crc: 0xfeed_beef,
    };
    check_message("snapshot_chunk", &chunk, 4096);
    let reply = wire::SnapshotReply {
        term: 5,
        session: 3,
        snapshot_index: 99,
        next_offset: 69_632,
        installed: false,
        pause_us: 4_000_000,
    };
    check_appended("snapshot_reply", &reply, 0, 8);
    let head = encoded_head(&reply);
    let older = wire::SnapshotReply {
        pause_us: 0,
        ..reply
    };
    let short = &head[..head.len() - 8];
    assert_eq!(wire::SnapshotReply::decode_head(short).unwrap(), older);
    let request = wire::ReadIndexRequest {
        term: 5,
        number: 12,
    };
    check_message("read_index_request", &request, 0);
    let reply = wire::ReadIndexReply {
        term: 5,
        number: 12,
        index: 98,
        ok: true,
    };
    check_message("read_index_reply", &reply, 0);
}

#[test]
fn peer_messages_about_repair() {
    let request = wire::EntriesRequest {
        lo: 100,
        hi: 140,
        bytes_max: 1 << 20,
    };
    check_message("entries_request", &request, 0);
    let reply = wire::EntriesReply {
        held: wire::EntriesHeld::Held,
        lo: 100,
        hi: 120,
        commit_index: 98,
    };
    check_message("entries_reply", &reply, 4096);
    check_message("log_end_request", &wire::LogEndRequest {}, 0);
    let reply = wire::LogEndReply {
        term: 7,
        leads: true,
        last_index: 140,
        last_term: 6,
        last_crc: 0x0102_0304,
    };
    check_message("log_end_reply", &reply, 0);
}

#[test]
fn admin_messages() {
    check_message("member_list", &wire::MemberList {}, 0);
    let member = Member {
        node_id: 4,
        role: Some(MemberRole::Learner),
        outgoing_voter: false,
        incarnation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        address: "10.0.0.4:4436".to_owned(),
    };
    let listed = wire::MemberListed {
        term: 5,
        leader_id: 1,
        commit_index: 98,
        configuration_index: 90,
        is_committed: true,
        node_id_max: 4,
        members: vec![wire::MemberStatus {
            member,
            match_index: 97,
            lag_entries: 2,
            last_active_ms: 50,
            is_caught_up: true,
        }],
    };
    check_message("member_listed", &listed, 0);
    let change = wire::MemberChange {
        operation: wire::MemberOperation::AddLearner,
        node_id: 4,
        other_node_id: 0,
        incarnation: 7,
        expected_configuration_index: u64::MAX,
        address: "10.0.0.4:4436".to_owned(),
    };
    check_message("member_change", &change, 0);
    check_message("leader_transfer", &wire::LeaderTransfer { to: 2 }, 0);
    let transferred = wire::LeaderTransferred {
        leader_id: 2,
        term: 6,
    };
    check_message("leader_transferred", &transferred, 0);
    let trim = wire::LogTrim {
        log_id: 3,
        first_seq: 41,
    };
    check_message("log_trim", &trim, 0);
    let fence = wire::LogChangeRequest {
        log_id: 3,
        change: LogChange::Fence { token: 7 },
    };
    check_message("log_change_fence", &fence, 0);
    let quota = Quota {
        bytes_per_second: 1 << 30,
        records_per_second: 5_000,
    };
    let retention = Retention {
        bytes: 1 << 20,
        age_us: 3_600_000_000,
    };
    for (name, change) in [
        ("log_change_close", LogChange::Close),
        ("log_change_delete", LogChange::Delete),
        ("log_change_retain", LogChange::Retain(retention)),
        ("log_change_limit", LogChange::Limit(quota)),
    ] {
        check_message(name, &wire::LogChangeRequest { log_id: 3, change }, 0);
    }
}

#[test]
fn client_requests() {
    check_message(
        "producer_open",
        &wire::ProducerOpen {
            name: "svc-7".to_owned(),
        },
        0,
    );
    check_message(
        "log_create",
        &wire::LogCreate {
            if_missing: true,
            name: "orders".to_owned(),
        },
        0,
    );
    check_message(
        "log_lookup",
        &wire::LogLookup {
            consistency: 0,
            name: "orders".to_owned(),
        },
        0,
    );
    let list = wire::LogList {
        consistency: 1,
        count_max: 100,
        after: "a".to_owned(),
    };
    check_message("log_list", &list, 0);
    let append = wire::Append {
        header: data_header(b"\x01\0\0\0x", 1),
        expect_seq: 12,
        fence: 7,
    };
    check_message("append", &append, 5);
    let read = wire::Read {
        log_id: 3,
        from_seq: 10,
        bytes_max: 65_536,
        consistency: 0,
    };
    check_message("read", &read, 0);
    let start = wire::TailStart {
        log_id: 3,
        from_seq: 10,
        credit_bytes: 65_536,
    };
    check_message("tail_start", &start, 0);
    check_message("tail_credit", &wire::TailCredit { credit_bytes: 4096 }, 0);
    check_message("tail_stop", &wire::TailStop {}, 0);
    let describe = wire::LogDescribe {
        consistency: 0,
        name: "orders".to_owned(),
    };
    check_message("log_describe", &describe, 0);
    let at = wire::SeqAt {
        log_id: 3,
        time_us: 1_700_000_000_000_000,
        consistency: 1,
    };
    check_message("seq_at", &at, 0);
    check_message("status", &wire::Status {}, 0);
}

#[test]
fn client_answers() {
    let error = wire::ErrorReply {
        code: 101,
        leader_id: 2,
        expected: 3,
        found: 4,
        leader_address: "10.0.0.2:4436".to_owned(),
        message: "node 2 leads the group".to_owned(),
    };
    check_message("error_reply", &error, 0);
    let opened = wire::ProducerOpened {
        producer_id: 17,
        producer_epoch: 0,
        in_flight_max: 4096,
    };
    check_message("producer_opened", &opened, 0);
    let info = wire::LogInfo {
        log_id: 3,
        first_seq: 1,
        next_seq: 10,
        created: true,
        name: "orders".to_owned(),
    };
    check_message("log_info", &info, 0);
    let listed = wire::LogListed {
        more: true,
        logs: vec![
            wire::LogInfo {
                created: false,
                ..info.clone()
            },
            wire::LogInfo {
                created: false,
                name: "b".to_owned(),
                ..info
            },
        ],
    };
    check_message("log_listed", &listed, 0);
    let described = wire::LogDescribed {
        log_id: 3,
        first_seq: 1,
        next_seq: 10,
        last_time_us: 1_700_000_000_000_000,
        held_bytes: 4_096,
        fence: 7,
        fence_seq: 9,
        is_closed: true,
        retention_bytes: 1 << 20,
        retention_age_us: 3_600_000_000,
        quota_bytes_per_second: 1 << 30,
        quota_records_per_second: 5_000,
        name: "orders".to_owned(),
    };
    check_message("log_described", &described, 0);
    let found = wire::SeqFound {
        log_id: 3,
        first_seq: 1,
        next_seq: 10,
        seq: 7,
        time_us: 1_700_000_000_000_001,
    };
    check_message("seq_found", &found, 0);
    let appended = wire::Appended {
        log_id: 3,
        first_seq: 10,
        record_count: 2,
        duplicate: false,
        producer_seq: 4,
        term: 5,
        index: 20,
    };
    check_message("appended", &appended, 0);
    let appended = wire::AppendedTogether {
        term: 5,
        index: 20,
        producer_seq: 4,
        duplicate: true,
        parts: vec![
            wire::AppendedPart {
                log_id: 3,
                first_seq: 10,
                record_count: 2,
            },
            wire::AppendedPart {
                log_id: 4,
                first_seq: 0,
                record_count: 1,
            },
        ],
    };
    check_message("appended_together", &appended, 0);
    let asked = wire::AppendTogether {
        producer_id: 17,
        producer_epoch: 0,
        producer_unacked: 2,
        producer_seq: 4,
        parts: vec![wire::TogetherPart {
            log_id: 3,
            record_count: 2,
            body_len: 30,
            body_crc: 0x0102_0304,
            expect_seq: 10,
            fence: 7,
        }],
    };
    check_message("append_together", &asked, 30);
    check_message(
        "read_reply",
        &wire::ReadReply {
            log_id: 3,
            first_seq: 0,
            next_seq: 12,
        },
        128,
    );
    check_message(
        "tail_data",
        &wire::TailData {
            log_id: 3,
            first_seq: 0,
            next_seq: 12,
            fence: 7,
            fence_seq: 9,
        },
        128,
    );
    let status = wire::StatusReply {
        node_id: 1,
        term: 5,
        leader_id: 1,
        first_index: 1,
        last_index: 20,
        durable_index: 19,
        commit_index: 18,
        applied_index: 18,
        log_count: 2,
        uptime_us: 1_000_000,
        flush_us_p50: 128,
        flush_us_p99: 1_024,
        flush_us_max: 3_000,
        flush_waits_us: 40,
        role: "leader".to_owned(),
        io_engine: "io_uring".to_owned(),
        version: "0.1.0".to_owned(),
        fault: String::new(),
        members: vec![wire::StatusMember {
            node_id: 1,
            address: "10.0.0.1:4436".to_owned(),
        }],
        scrub: wire::ScrubStatus {
            bytes_per_second: 16 << 20,
            segment_seq: 7,
            bytes: 300_000_000,
            passes: 3,
            last_pass_unix_us: 1_700_000_000_000_000,
            found: 1,
        },
    };
    check_appended("status_reply", &status, 0, 48);
    check_message("latency", &wire::Latency {}, 0);
    let latency = wire::LatencyReply {
        node_id: 1,
        span_us: 45_000_000,
        stages: vec![wire::StageLatency {
            stage: "peer flush".to_owned(),
            peer: 2,
            entries: 7,
            us_p50: 120,
            us_p99: 900,
            us_p999: 1_000,
            us_max: 1_001,
        }],
        closed: vec![wire::QuorumsClosed {
            node_id: 2,
            entries: 7,
        }],
    };
    check_message("latency_reply", &latency, 0);
}
