//! After the handshake: heads of requests that are anything at all, names that are none, names too long.

use drave_batch::wire::{
    ErrorCode, LOCAL_READ, LogCreate, LogInfo, LogList, LogListed, LogLookup, MessageKind,
    ProducerOpen, ProducerOpened,
};

use crate::node::Victim;
use crate::wire::{Raw, Seeded, frame_around};

/// Every request of a client, the kind of its answer, and the length of its head without its text.
const REQUESTS: [(MessageKind, MessageKind, usize); 18] = [
    (MessageKind::ProducerOpen, MessageKind::ProducerOpened, 2),
    (MessageKind::LogCreate, MessageKind::LogInfo, 3),
    (MessageKind::LogLookup, MessageKind::LogInfo, 3),
    (MessageKind::LogList, MessageKind::LogListed, 7),
    (MessageKind::Append, MessageKind::Appended, 104),
    (MessageKind::Read, MessageKind::ReadReply, 21),
    (MessageKind::TailStart, MessageKind::TailData, 20),
    (MessageKind::TailCredit, MessageKind::TailData, 4),
    (MessageKind::TailStop, MessageKind::TailData, 0),
    (MessageKind::Status, MessageKind::StatusReply, 0),
    (MessageKind::Latency, MessageKind::LatencyReply, 0),
    (MessageKind::MemberList, MessageKind::MemberListed, 0),
    (MessageKind::MemberChange, MessageKind::MemberListed, 43),
    (
        MessageKind::LeaderTransfer,
        MessageKind::LeaderTransferred,
        8,
    ),
    (MessageKind::LogTrim, MessageKind::LogInfo, 16),
    (MessageKind::LogDescribe, MessageKind::LogDescribed, 3),
    (MessageKind::SeqAt, MessageKind::SeqFound, 17),
    (
        MessageKind::AppendTogether,
        MessageKind::AppendedTogether,
        64,
    ),
];

/// Sends a head of this kind, and takes whatever answer to it the protocol has.
#[track_caller]
fn endure(
    raw: &mut Option<Raw>,
    victim: &Victim,
    kind: MessageKind,
    answer: MessageKind,
    head: &[u8],
) {
    const REQUEST_ID: u64 = 11;
    let conn = raw.get_or_insert_with(|| victim.connect_client());
    conn.send(&frame_around(kind, REQUEST_ID, head));
    // Some requests have no answer; the status behind them has.
    conn.send(&frame_around(MessageKind::Status, REQUEST_ID + 1, &[]));
    loop {
        let frame = conn
            .receive()
            .expect("a refusal or an answer before a close");
        match (frame.header.request_id, frame.header.kind) {
            (12, MessageKind::StatusReply) => return,
            (REQUEST_ID, MessageKind::ErrorReply) => {
                let code = ErrorCode::from_number(frame.code().unwrap());
                assert!(code.is_some(), "a code of the list: {frame:?}");
            }
            (REQUEST_ID, found) if found == answer => {}
            (0, MessageKind::ErrorReply) => {
                let malformed = ErrorCode::MalformedFrame as u32;
                assert_eq!(frame.code(), Some(malformed), "{kind:?}: {frame:?}");
                assert!(conn.receive().is_none(), "closed behind the refusal");
                *raw = None;
                return;
            }
            other => panic!(
                "{kind:?} of {} bytes was answered with {other:?}",
                head.len()
            ),
        }
    }
}

#[test]
fn random_heads_of_every_request_are_refused_or_answered() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let mut raw = None;
    for mut random in Seeded::several() {
        for (kind, answer, length) in REQUESTS {
            for _ in 0..15 {
                let any_length = random.between(0, 300);
                let head = random.bytes(any_length);
                endure(&mut raw, &victim, kind, answer, &head);
                // The right length, so that the fields are looked at.
                let head = random.bytes(length);
                endure(&mut raw, &victim, kind, answer, &head);
                // A text whose length lies.
                let mut head = vec![0; length];
                head.extend_from_slice(b"text");
                if length >= 2 {
                    let lie = random.next() as u16;
                    head[length - 2..length].copy_from_slice(&lie.to_le_bytes());
                }
                endure(&mut raw, &victim, kind, answer, &head);
            }
        }
    }
    victim.log_says(mark, "client closed");
    victim.is_sound();
}

#[test]
fn the_longest_heads_are_refused_or_answered() {
    let mut victim = Victim::start();
    let mut raw = None;
    for (kind, answer, _) in REQUESTS {
        for fill in [0, b'a', 0xFF] {
            let head = vec![fill; u16::MAX.into()];
            endure(&mut raw, &victim, kind, answer, &head);
        }
    }
    victim.is_sound();
}

#[test]
fn malformed_requests_do_not_fill_the_disk_with_log_lines() {
    const ABUSES: usize = 20_000;
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let requests = frame_around(MessageKind::Read, 1, b"short").repeat(ABUSES / 20);
    for _ in 0..20 {
        let mut raw = victim.connect_client();
        raw.send(&requests);
        raw.refused_with("a short head", &[ErrorCode::MalformedFrame]);
    }
    victim.is_sound();
    // The layer below writes 20 lines a second at most for refused connections.
    let bytes = victim.log_mark() - mark;
    eprintln!("{bytes} bytes of log for {ABUSES} malformed requests");
    assert!(
        bytes < 256 << 10,
        "{bytes} bytes of log for {ABUSES} malformed requests"
    );
}

#[test]
fn names_that_are_none_are_refused() {
    let mut victim = Victim::start();
    let mut raw = victim.connect_client();
    let long = [256, 1_000, 60_000, 65_532].map(|length| "a".repeat(length));
    let short = [
        "", ".", "..", "/", ".hidden", "/root", "a b", "a\0b", "a\nb", "\u{e4}", "a\\b", "a*",
        "\u{7f}",
    ];
    let names = short.iter().copied().chain(long.iter().map(String::as_str));
    for (request_id, name) in (1..).zip(names) {
        for if_missing in [false, true] {
            let name = name.to_owned();
            raw.send_message(request_id, &LogCreate { if_missing, name });
            raw.answer_refused(request_id, ErrorCode::LogName);
        }
    }
    let longest = LogCreate {
        if_missing: false,
        name: "a".repeat(255),
    };
    raw.send_message(100, &longest);
    assert!(raw.answer(100).decode::<LogInfo>().created);
    let mut head = vec![0, 2, 0, 0xFF, 0xFE];
    raw.send(&frame_around(MessageKind::LogCreate, 101, &head));
    raw.refused_with("a name that is no text", &[ErrorCode::MalformedFrame]);
    head[0] = 2;
    let mut raw = victim.connect_client();
    raw.send(&frame_around(MessageKind::LogCreate, 102, &head));
    raw.refused_with("a bool of 2", &[ErrorCode::MalformedFrame]);
    victim.is_sound();
    let list = victim.test.run(&["log", "ls", "--format", "json"], b"");
    let list: serde_json::Value = serde_json::from_str(list.assert_code(0).text()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
}

#[test]
fn names_of_any_length_are_looked_up() {
    let mut victim = Victim::start();
    let mut raw = victim.connect_client();
    let mut request_id = 0;
    // 65,532 bytes are all that a head has room for.
    for length in [0, 1, 256, 40_000, 65_000, 65_400, 65_500, 65_532] {
        for consistency in [0, LOCAL_READ] {
            request_id += 1;
            let name = "n".repeat(length);
            raw.send_message(request_id, &LogLookup { consistency, name });
            let reply = raw.answer_refused(request_id, ErrorCode::LogNotFound);
            assert!(!reply.message.is_empty());
        }
    }
    raw.still_serves();
    victim.is_sound();
}

#[test]
fn listings_begin_after_anything() {
    let mut victim = Victim::start();
    let mut raw = victim.connect_client();
    let afters = ["", "\u{0}", "honest", "zzz", "\u{10FFFF}"].map(str::to_owned);
    let afters = afters
        .into_iter()
        .chain([65_000, 65_528].map(|length| "z".repeat(length)));
    for (request_id, after) in (1..).zip(afters) {
        for (consistency, count_max) in [(0, 0), (0, u32::MAX), (LOCAL_READ, 1), (LOCAL_READ, 7)] {
            let expected = if after.as_str() < "honest" { 1 } else { 0 };
            let list = LogList {
                consistency,
                count_max,
                after: after.clone(),
            };
            raw.send_message(request_id, &list);
            let listed: LogListed = raw.answer(request_id).decode();
            assert_eq!(
                (listed.logs.len(), listed.more),
                (expected, false),
                "{listed:?}"
            );
        }
    }
    victim.is_sound();
}

#[test]
fn producers_have_names_of_any_length() {
    let mut victim = Victim::start();
    let mut raw = victim.connect_client();
    for (request_id, length) in (1..).zip([0, 64, 65, 65_533]) {
        let name = "\u{e4}".repeat(length / 2) + &"p".repeat(length % 2);
        raw.send_message(request_id, &ProducerOpen { name });
        let opened: ProducerOpened = raw.answer(request_id).decode();
        assert!(opened.producer_id > 0);
    }
    victim.is_sound();
}
