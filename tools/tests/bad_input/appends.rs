//! Appends that lie: about their body, their records, their place in the log, their producer.

use drave_batch::wire::{
    Append, Appended, EXPECT_SEQ_NONE, ErrorCode, ErrorReply, FENCE_NONE, MessageKind,
    ProducerOpen, ProducerOpened, Read, ReadReply,
};
use drave_batch::{
    BATCH_HEADER_BYTES, BODY_BYTES_MAX, BatchHeader, Batches, BodyBuilder, EntryKind,
    RECORD_BYTES_MAX,
};

use crate::node::Victim;
use crate::wire::{Raw, forge, frame, frame_around};

fn body_of(records: &[&[u8]]) -> Vec<u8> {
    let mut builder = BodyBuilder::new();
    records.iter().for_each(|record| builder.push(record));
    let mut body = Vec::new();
    builder.drain_into(&mut body);
    body
}

/// An append as it should be, of no producer.
fn honest(log_id: u64, body: &[u8], record_count: u32) -> Append {
    Append {
        header: BatchHeader {
            log_id,
            ..BatchHeader::new(EntryKind::Data, body, record_count)
        },
        expect_seq: EXPECT_SEQ_NONE,
        fence: FENCE_NONE,
    }
}

/// The frame of an append as it should be.
pub(crate) fn good_append(log_id: u64, records: &[&[u8]]) -> Vec<u8> {
    let body = body_of(records);
    frame(0, 1, &honest(log_id, &body, records.len() as u32), &body)
}

/// A node with a log, and what its log must hold in the end.
struct Target {
    victim: Victim,
    log_id: u64,
    body: Vec<u8>,
    request_id: u64,
    raw: Raw,
}

impl Target {
    fn start() -> Self {
        let victim = Victim::start();
        let log_id = victim.log_id("target");
        Self {
            raw: victim.connect_client(),
            log_id,
            body: body_of(&[b"one", b"two"]),
            request_id: 0,
            victim,
        }
    }

    fn honest(&self) -> Append {
        honest(self.log_id, &self.body, 2)
    }

    fn send(&mut self, append: &Append, payload: &[u8]) -> u64 {
        self.request_id += 1;
        self.raw.send(&frame(0, self.request_id, append, payload));
        self.request_id
    }

    /// This append is refused with this code, and nothing else happens.
    #[track_caller]
    fn refused(
        &mut self,
        what: &str,
        append: &Append,
        payload: &[u8],
        code: ErrorCode,
    ) -> ErrorReply {
        eprintln!("{what}");
        let request_id = self.send(append, payload);
        self.raw.answer_refused(request_id, code)
    }

    /// As [`Self::refused`], with a header as the honest body's, changed.
    #[track_caller]
    fn refused_when(
        &mut self,
        what: &str,
        code: ErrorCode,
        change: impl FnOnce(&mut Append),
    ) -> ErrorReply {
        let mut append = self.honest();
        change(&mut append);
        let body = self.body.clone();
        self.refused(what, &append, &body, code)
    }

    #[track_caller]
    fn taken(&mut self, what: &str, append: &Append) -> Appended {
        eprintln!("{what}");
        let body = self.body.clone();
        let request_id = self.send(append, &body);
        self.raw.answer(request_id).decode()
    }

    /// The log holds what these many honest appends put there and nothing else; the node is sound.
    #[track_caller]
    fn holds_appends(mut self, count: usize) {
        self.raw.still_serves();
        self.victim.is_sound();
        let read = self
            .victim
            .test
            .run(&["read", "target"], b"")
            .assert_code(0);
        assert_eq!(read.text(), "one\ntwo\n".repeat(count));
    }
}

#[test]
fn bodies_that_are_not_what_their_header_says_are_refused() {
    use ErrorCode::MalformedBatch;
    let mut target = Target::start();
    target.refused_when("body crc", MalformedBatch, |append| {
        append.header.body_crc ^= 1;
    });
    target.refused_when("body_len too long", MalformedBatch, |append| {
        append.header.body_len += 1;
    });
    target.refused_when("body_len too short", MalformedBatch, |append| {
        append.header.body_len = 1;
    });
    target.refused_when("body_len 0", MalformedBatch, |append| {
        append.header.body_len = 0;
    });
    let empty = honest(target.log_id, &[], 1);
    target.refused("no body at all", &empty, &[], MalformedBatch);
    for (what, record_count) in [("one record less", 1), ("one more", 3), ("most", 65_536)] {
        target.refused_when(what, MalformedBatch, |append| {
            append.header.record_count = record_count;
        });
    }
    for (what, ends) in [
        ("ends that run backwards", [5, 3]),
        ("an end beyond the body", [3, 7]),
        ("a last end before the body's", [3, 5]),
        ("the largest ends", [u32::MAX, u32::MAX]),
    ] {
        let mut body = target.body.clone();
        body[..4].copy_from_slice(&u32::to_le_bytes(ends[0]));
        body[4..8].copy_from_slice(&u32::to_le_bytes(ends[1]));
        let append = honest(target.log_id, &body, 2);
        target.refused(what, &append, &body, MalformedBatch);
    }
    target.holds_appends(0);
}

#[test]
fn control_entries_are_not_for_clients() {
    let mut target = Target::start();
    for kind in [
        EntryKind::Noop,
        EntryKind::Configuration,
        EntryKind::LogCreate,
        EntryKind::ProducerRegister,
    ] {
        target.refused_when(&format!("{kind:?}"), ErrorCode::MalformedBatch, |append| {
            append.header.kind = kind;
            append.header.record_count = 0;
        });
    }
    target.holds_appends(0);
}

#[test]
fn batch_headers_that_do_not_decode_are_refused() {
    // As "DRV-0111: the batch does not decode" or as a head that does not decode, with a close: both are
    // documented. Nothing may be written either way.
    let allowed = [ErrorCode::MalformedBatch, ErrorCode::MalformedFrame].map(|code| code as u32);
    let target = Target::start();
    let honest_frame = frame(0, 1, &target.honest(), &target.body);
    let honest_head = &honest_frame[32..32 + BATCH_HEADER_BYTES + 8];
    let mut cases: Vec<(String, usize, Vec<u8>)> = vec![
        ("magic".to_owned(), 88, vec![0, 0]),
        ("version".to_owned(), 90, vec![2]),
        ("kind".to_owned(), 91, vec![9]),
        ("flags".to_owned(), 92, vec![1]),
        ("reserved".to_owned(), 94, vec![1]),
        ("first_seq".to_owned(), 40, u64::MAX.to_le_bytes().to_vec()),
    ];
    for record_count in [0, 65_537, u32::MAX] {
        let bytes = record_count.to_le_bytes().to_vec();
        cases.push((format!("record_count {record_count}"), 12, bytes));
    }
    for (what, at, bytes) in cases {
        let mut head = honest_head.to_vec();
        forge(&mut head, BATCH_HEADER_BYTES - 4, at, &bytes);
        let mut raw = target.victim.connect_client();
        raw.send(&frame_around(MessageKind::Append, 5, &head));
        let refusal = raw.receive().expect("a refusal");
        let code = refusal.code();
        if what.starts_with("record_count 6") || what.ends_with(&u32::MAX.to_string()) {
            // More records than the limit: said as such, and the connection goes on.
            assert_eq!(code, Some(ErrorCode::TooLarge as u32), "{what}");
            continue;
        }
        assert!(
            code.is_some_and(|code| allowed.contains(&code)),
            "{what}: {code:?}"
        );
    }
    let mut head = honest_head.to_vec();
    head[0] ^= 1;
    let mut raw = target.victim.connect_client();
    raw.send(&frame_around(MessageKind::Append, 5, &head));
    raw.refused_with("header crc", &[ErrorCode::MalformedFrame]);
    target.holds_appends(0);
}

#[test]
fn what_is_the_leaders_to_say_is_the_leaders() {
    let mut target = Target::start();
    let mut append = target.honest();
    append.header.index = u64::MAX;
    append.header.term = u64::MAX;
    append.header.first_seq = u64::MAX - 2;
    append.header.append_time_us = u64::MAX;
    append.header.group_id = u32::MAX;
    append.header.prev_crc = u32::MAX;
    append.header.producer_seq = u64::MAX;
    append.header.producer_unacked = u32::MAX;
    append.header.producer_epoch = u32::MAX;
    let appended = target.taken("all that is the leader's", &append);
    assert_eq!((appended.first_seq, appended.record_count), (0, 2));
    assert!(
        appended.term < 1_000 && appended.index < 1_000,
        "{appended:?}"
    );
    let again = target.taken("and honestly", &target.honest());
    assert_eq!((again.first_seq, again.index), (2, appended.index + 1));
    let read = Read {
        log_id: target.log_id,
        from_seq: 0,
        bytes_max: 1 << 20,
        consistency: 0,
    };
    target.raw.send_message(900, &read);
    let answer = target.raw.answer(900);
    let _: ReadReply = answer.decode();
    let mut times = Vec::new();
    for (batch, first_seq) in Batches::new(&answer.payload).zip([0, 2]) {
        let header = batch.unwrap().header;
        assert_eq!((header.first_seq, header.group_id), (first_seq, 0));
        assert_eq!(header.term, appended.term);
        assert_eq!(header.index, appended.index + first_seq / 2);
        times.push(header.append_time_us);
    }
    // 2100 is far off, and the end of time is not reached by a client's word.
    assert!(
        times.len() == 2 && times[0] <= times[1] && times[1] < 4_102_444_800_000_000,
        "{times:?}"
    );
    target.holds_appends(2);
}

#[test]
fn producers_that_are_not_there_or_jump_are_refused() {
    let mut target = Target::start();
    for producer_id in [1, 999_999, target.log_id, u64::MAX] {
        target.refused_when("no producer", ErrorCode::UnknownProducer, |append| {
            append.header.producer_id = producer_id;
        });
    }
    target.raw.send_message(800, &ProducerOpen::default());
    let opened: ProducerOpened = target.raw.answer(800).decode();
    let own = |append: &mut Append| {
        append.header.producer_id = opened.producer_id;
        append.header.producer_epoch = opened.producer_epoch;
    };
    for producer_seq in [1, 1 << 40, u64::MAX - 1, u64::MAX] {
        let reply = target.refused_when("a gap", ErrorCode::SequenceGap, |append| {
            own(append);
            append.header.producer_seq = producer_seq;
        });
        assert_eq!((reply.expected, reply.found), (0, producer_seq));
    }
    for epoch in [opened.producer_epoch + 1, u32::MAX] {
        target.refused_when("another epoch", ErrorCode::StaleEpoch, |append| {
            own(append);
            append.header.producer_epoch = epoch;
        });
    }
    for producer_unacked in [1 << 20, u32::MAX] {
        target.refused_when("unacknowledged without end", ErrorCode::Busy, |append| {
            own(append);
            append.header.producer_unacked = producer_unacked;
        });
    }
    let mut append = target.honest();
    own(&mut append);
    let first = target.taken("the first", &append);
    let second = target.taken("the first again", &append);
    assert_eq!((first.duplicate, second.duplicate), (false, true));
    assert_eq!(first.first_seq, second.first_seq);
    target.holds_appends(1);
}

#[test]
fn conditions_that_do_not_hold_are_refused() {
    let mut target = Target::start();
    target.taken("one", &target.honest());
    for expect_seq in [0, 1, 3, 1 << 40, u64::MAX - 1] {
        let reply = target.refused_when("expect_seq", ErrorCode::ExpectSeq, |append| {
            append.expect_seq = expect_seq;
        });
        assert_eq!((reply.expected, reply.found), (expect_seq, 2));
    }
    let mut append = target.honest();
    append.expect_seq = 2;
    assert_eq!(target.taken("one that holds", &append).first_seq, 2);
    target.holds_appends(2);
}

#[test]
fn logs_that_are_not_there_take_nothing() {
    let mut target = Target::start();
    let next = target.log_id + 1_000;
    for log_id in [0, 1, next, u64::MAX] {
        target.refused_when("no log", ErrorCode::LogNotFound, |append| {
            append.header.log_id = log_id;
        });
    }
    target.holds_appends(0);
}

#[test]
fn records_over_the_limit_are_refused_with_the_limit() {
    let mut target = Target::start();
    let limit = RECORD_BYTES_MAX as usize;
    let body = body_of(&[b"small", &vec![b'x'; limit + 1]]);
    let append = honest(target.log_id, &body, 2);
    let reply = target.refused("a large record", &append, &body, ErrorCode::TooLarge);
    assert_eq!(
        (reply.expected, reply.found),
        (limit as u64, limit as u64 + 1)
    );
    target.holds_appends(0);
}

#[test]
fn bodies_over_the_limit_are_refused_as_too_large() {
    let target = Target::start();
    // A batch that is sound but for its size.
    let record = vec![b'x'; 1000];
    let mut body = Vec::new();
    let count = BODY_BYTES_MAX / 1004 + 1;
    (1..=count).for_each(|number| body.extend_from_slice(&(number * 1000).to_le_bytes()));
    (0..count).for_each(|_| body.extend_from_slice(&record));
    assert!(body.len() > BODY_BYTES_MAX as usize);
    for _ in 0..20 {
        let mut raw = target.victim.connect_client();
        raw.send(&frame(0, 5, &honest(target.log_id, &body, count), &body));
        let refusal = raw.receive().expect("a refusal");
        let too_large = Some(ErrorCode::TooLarge as u32);
        assert_eq!(
            refusal.code(),
            too_large,
            "{:?}",
            refusal.decode::<ErrorReply>()
        );
    }
    target.holds_appends(0);
}

#[test]
fn lengths_that_are_only_announced_take_no_memory() {
    let mut target = Target::start();
    // Two hundred times four megabytes are announced, and a little of each is sent.
    let append = target.honest();
    let mut bytes = frame(0, 5, &append, &vec![0; 4 << 20]);
    bytes.truncate(64 << 10);
    let mut held: Vec<Raw> = (0..200).map(|_| target.victim.connect_client()).collect();
    held.iter_mut().for_each(|raw| raw.send(&bytes));
    target.victim.is_sound();
    drop(held);
    // And all of it by a few.
    let bytes = frame(0, 5, &append, &vec![0; 4 << 20]);
    for _ in 0..10 {
        let request_id = 5;
        let mut raw = target.victim.connect_client();
        raw.send(&bytes);
        raw.answer_refused(request_id, ErrorCode::MalformedBatch);
    }
    target.holds_appends(0);
}
