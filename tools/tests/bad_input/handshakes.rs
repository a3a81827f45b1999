//! Before the handshake is done: strangers, broken frames, silence, and hellos that do not fit.

use std::time::Instant;

use drave_batch::wire::{
    ClusterId, ErrorCode, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_PAYLOAD_BYTES_MAX, Hello,
    MessageKind, Status,
};

use crate::node::{HANDSHAKE_TIMEOUT, Victim};
use crate::wire::{Seeded, client_hello, forge, frame, frame_around};

/// What a frame header's checksum covers.
const COVERED: usize = FRAME_HEADER_BYTES - 4;

#[test]
fn garbage_is_refused_as_no_frame() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    for mut random in Seeded::several() {
        for _ in 0..100 {
            let length = random.between(FRAME_HEADER_BYTES, 10_000);
            let mut garbage = random.bytes(length);
            // No accident may turn it into a frame of another version.
            garbage[4] = !FRAME_MAGIC.to_le_bytes()[0];
            let mut raw = victim.connect();
            raw.send(&garbage);
            raw.refused_with("garbage", &[ErrorCode::MalformedFrame]);
        }
    }
    victim.log_names(mark, ErrorCode::MalformedFrame);
    victim.is_sound();
}

#[test]
fn garbage_after_the_handshake_is_refused_as_no_frame() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    for mut random in Seeded::several() {
        for _ in 0..50 {
            let length = random.between(FRAME_HEADER_BYTES, 100_000);
            let mut garbage = random.bytes(length);
            garbage[4] = !FRAME_MAGIC.to_le_bytes()[0];
            let mut raw = victim.connect_client();
            raw.send(&garbage);
            raw.refused_with("garbage", &[ErrorCode::MalformedFrame]);
        }
    }
    victim.log_names(mark, ErrorCode::MalformedFrame);
    victim.is_sound();
}

#[test]
fn another_protocol_is_refused_as_no_frame() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let strangers: [&[u8]; 3] = [
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS ClientHello and so on",
        b"SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13\r\n",
    ];
    for stranger in strangers {
        let mut raw = victim.connect();
        raw.send(stranger);
        raw.refused_with("another protocol", &[ErrorCode::MalformedFrame]);
    }
    victim.log_names(mark, ErrorCode::MalformedFrame);
    victim.is_sound();
}

#[test]
fn an_oversize_frame_is_refused_at_its_header() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let mut header = frame_around(MessageKind::Append, 1, &[]);
    for (payload_len, shakes_hands) in [
        (FRAME_PAYLOAD_BYTES_MAX + 1, true),
        (u32::MAX, true),
        (4096, false),
        (FRAME_PAYLOAD_BYTES_MAX + 1, false),
        (u32::MAX, false),
    ] {
        forge(&mut header, COVERED, 8, &payload_len.to_le_bytes());
        let mut raw = victim.connect();
        if shakes_hands {
            raw.shake_hands();
        }
        // Nothing of the payload is sent: the header alone must do.
        raw.send(&header);
        raw.refused_with("an oversize frame", &[ErrorCode::FrameTooLarge]);
    }
    victim.log_names(mark, ErrorCode::FrameTooLarge);
    victim.is_sound();
}

#[test]
fn frame_headers_that_are_a_little_wrong_are_named() {
    let mut victim = Victim::start();
    let good = frame(0, 1, &Status {}, &[]);
    let mut version = good.clone();
    forge(&mut version, COVERED, 6, &[2]);
    let mut kind = good.clone();
    forge(&mut kind, COVERED, 7, &[0xEE]);
    let mut flags = good.clone();
    forge(&mut flags, COVERED, 14, &[1]);
    let mut magic = good.clone();
    forge(&mut magic, COVERED, 4, &[0]);
    let mut header_crc = good.clone();
    header_crc[31] ^= 1;
    let mut head_crc = frame_around(MessageKind::LogCreate, 1, &[0, 1, 0, b'a']);
    let end = head_crc.len() - 1;
    head_crc[end] ^= 1;
    for (what, bytes, code) in [
        ("version", version, ErrorCode::ProtocolVersion),
        ("kind", kind, ErrorCode::MalformedFrame),
        ("flags", flags, ErrorCode::MalformedFrame),
        ("magic", magic, ErrorCode::MalformedFrame),
        ("header crc", header_crc, ErrorCode::MalformedFrame),
        ("head crc", head_crc, ErrorCode::MalformedFrame),
    ] {
        let mut raw = victim.connect_client();
        raw.send(&bytes);
        raw.refused_with(what, &[code]);
    }
    victim.is_sound();
}

#[test]
fn a_frame_cut_in_the_middle_is_refused() {
    let mut victim = Victim::start();
    let log_id = victim.log_id("cut");
    let whole = crate::appends::good_append(log_id, &[b"whole"]);
    let mark = victim.log_mark();
    for end in [1, 31, 32, 33, whole.len() / 2, whole.len() - 1] {
        let mut raw = victim.connect_client();
        raw.send(&whole[..end]);
        raw.finish();
        raw.refused_with("a cut frame", &[ErrorCode::MalformedFrame]);
    }
    // Gone altogether, in the middle of a frame.
    for end in 1..whole.len() {
        victim.connect_client().send(&whole[..end]);
    }
    victim.log_says(mark, "the stream ended inside a frame");
    victim.is_sound();
    let read = victim.test.run(&["read", "cut"], b"").assert_code(0);
    assert!(
        read.stdout.is_empty(),
        "nothing of a cut append is in the log"
    );
}

#[test]
fn half_a_hello_is_no_hello() {
    let mut victim = Victim::start();
    let hello = frame(0, 0, &client_hello(), &[]);
    let mark = victim.log_mark();
    let mut raw = victim.connect();
    raw.send(&hello[..hello.len() / 2]);
    raw.refused_with("half a hello", &[ErrorCode::HandshakeTimeout]);
    victim.log_names(mark, ErrorCode::HandshakeTimeout);
    // Cut after each of its bytes. This comes last: the node writes few of so many lines.
    let mark = victim.log_mark();
    for end in 1..hello.len() {
        let mut raw = victim.connect();
        raw.send(&hello[..end]);
        raw.finish();
        let frames = raw.receive_to_close();
        let codes: Vec<_> = frames.iter().map(crate::wire::Received::code).collect();
        let malformed = Some(ErrorCode::MalformedFrame as u32);
        assert!(codes.iter().all(|code| *code == malformed), "{codes:?}");
    }
    victim.log_names(mark, ErrorCode::MalformedFrame);
    victim.is_sound();
}

#[test]
fn who_says_nothing_is_closed_after_the_handshake_timeout() {
    let mut victim = Victim::start();
    let mark = victim.log_mark();
    let started = Instant::now();
    let mut silent: Vec<_> = (0..100).map(|_| victim.connect()).collect();
    for raw in &mut silent {
        raw.refused_with("silence", &[ErrorCode::HandshakeTimeout]);
    }
    assert!(
        started.elapsed() >= HANDSHAKE_TIMEOUT,
        "everyone has that long"
    );
    victim.log_names(mark, ErrorCode::HandshakeTimeout);
    victim.is_sound();
}

#[test]
fn hellos_that_do_not_fit_are_refused_by_code() {
    let mut victim = Victim::start();
    let other = Some(ClusterId::new("another").unwrap());
    let versions = |version_min, version_max| Hello {
        version_min,
        version_max,
        ..client_hello()
    };
    let mut hellos = vec![
        (
            ErrorCode::WrongCluster,
            Hello {
                cluster_id: other,
                ..client_hello()
            },
        ),
        (
            ErrorCode::WrongNode,
            Hello {
                to_node_id: 2,
                ..client_hello()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                node_id: 1,
                ..client_hello()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                incarnation: 1,
                ..client_hello()
            },
        ),
    ];
    for (min, max) in [(2, 9), (0, 0), (2, 1), (u16::MAX, u16::MAX)] {
        hellos.push((ErrorCode::ProtocolVersion, versions(min, max)));
    }
    for (code, hello) in hellos {
        let mark = victim.log_mark();
        let mut raw = victim.connect();
        raw.send(&frame(0, 0, &hello, &[]));
        raw.refused_with(&format!("{hello:?}"), &[code]);
        victim.log_names(mark, code);
    }
    // Neither is a request in the place of the hello, nor a hello after the hello.
    let mark = victim.log_mark();
    let mut raw = victim.connect();
    raw.send_message(1, &Status {});
    raw.refused_with("a request first", &[ErrorCode::UnexpectedMessage]);
    victim.log_names(mark, ErrorCode::UnexpectedMessage);
    let mut raw = victim.connect_client();
    raw.send_message(0, &client_hello());
    raw.refused_with("a second hello", &[ErrorCode::UnexpectedMessage]);
    victim.is_sound();
}

#[test]
fn heads_of_hellos_may_be_anything() {
    let mut victim = Victim::start();
    let fit = frame(0, 0, &client_hello(), &[])[FRAME_HEADER_BYTES..].to_vec();
    for mut random in Seeded::several() {
        for _ in 0..100 {
            let mut head = fit.clone();
            for _ in 0..random.between(1, 4) {
                let at = random.between(0, head.len());
                head[at] = random.next() as u8;
            }
            head.truncate(random.between(head.len() / 2, head.len() + 1));
            let mut raw = victim.connect();
            raw.send(&frame_around(MessageKind::Hello, 0, &head));
            let answer = raw.receive().expect("an answer");
            // Some of them are hellos still.
            if answer.header.kind == MessageKind::HelloReject {
                assert!(ErrorCode::from_number(answer.code().unwrap()).is_some());
                assert!(raw.receive().is_none(), "closed behind the refusal");
            } else {
                assert_eq!(answer.header.kind, MessageKind::HelloAck);
            }
        }
    }
    victim.is_sound();
}
