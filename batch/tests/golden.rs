//! The bytes of every layout, held in place by files: a change here is a change of the format.
//!
//! `DRAVE_BLESS=1 cargo test -p drave-batch --test golden` writes the files anew.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use drave_batch::control::{LogCreated, Member, MemberRole, Members, ProducerRegistered};
use drave_batch::wire::{self, ClusterId, Lane, Message, Role, decode_head};
use drave_batch::{BatchHeader, BatchRef, BodyBuilder, EntryKind};

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
    let mut out = Vec::new();
    wire::encode_frame(&mut out, 0, 0x0102_0304_0506_0708, message, payload);
    check(name, &out);
    let header = wire::FrameHeader::decode(&out).unwrap();
    assert_eq!(header.payload_len as usize, payload);
    let head = &out[wire::FRAME_HEADER_BYTES..];
    assert_eq!(head.len(), usize::from(header.head_len));
    assert_eq!(&decode_head::<M>(&header, head).unwrap(), message);
    for cut in 0..head.len() {
        assert!(M::decode_head(&head[..cut]).is_err(), "{name} cut at {cut}");
    }
    for at in 0..head.len() {
        let mut bad = head.to_vec();
        bad[at] ^= 0x20;
        assert!(decode_head::<M>(&header, &bad).is_err(), "{name} byte {at}");
    }
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
    };
    check_message("hello", &hello, 0);
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
    };
    check_message("heartbeat_reply", &reply, 0);
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
    };
    check_message("append_reply", &reply, 0);
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
    };
    check_message("snapshot_reply", &reply, 0);
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
    };
    check_message("status_reply", &status, 0);
}
