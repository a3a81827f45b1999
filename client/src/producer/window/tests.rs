//! The window against a model of a cluster that loses, delays, forgets, deposes and refuses: single
//! rules by hand, and the exactly-once argument by many seeds.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::*;

fn ack(first_seq: u64) -> Answer {
    Answer::Acked(Ack {
        first_seq,
        record_count: 1,
        term: 1,
        index: 0,
        duplicate: false,
    })
}

fn refusal(code: ErrorCode) -> Answer {
    Answer::Refused(refused(code))
}

fn refused(code: ErrorCode) -> Refused {
    Refused {
        code: Some(code),
        error: ClientError::Refused {
            code,
            message: code.summary().to_owned(),
            expected: 0,
            found: 0,
            address: "model".to_owned(),
            leader: None,
        },
    }
}

fn producer(id: u64) -> ProducerId {
    ProducerId {
        id,
        epoch: 0,
        in_flight_max: 8,
    }
}

fn send_all(window: &mut Window<u64>) -> Vec<(u64, Sending)> {
    let mut sent = Vec::new();
    while let Some(ready) = window.ready() {
        let batch = *window.content(ready);
        sent.push((batch, window.begin(ready)));
    }
    sent
}

/// A window with batches 0, 1, .. sent under producer 1.
fn sent_window(count: u64) -> (Window<u64>, Vec<Sending>, Instant) {
    let mut window = Window::new();
    let now = Instant::now();
    for batch in 0..count {
        window.submit(batch, now + Duration::from_secs(batch + 1));
    }
    assert!(window.needs_producer() && window.ready().is_none());
    window.registered(producer(1));
    let sent = send_all(&mut window);
    assert_eq!(sent.len() as u64, count);
    (window, sent.into_iter().map(|(_, s)| s).collect(), now)
}

fn sequences(sent: &[(u64, Sending)]) -> Vec<(u64, u64, u64)> {
    let numbers = |(batch, s): &(u64, Sending)| (*batch, s.producer.id, s.sequence);
    sent.iter().map(numbers).collect()
}

#[test]
fn the_span_is_bounded_and_unacked_counts_from_the_lowest() {
    let mut window = Window::new();
    let later = Instant::now() + Duration::from_secs(1);
    for batch in 0..20 {
        window.submit(batch, later);
    }
    window.registered(producer(1));
    let sent = send_all(&mut window);
    assert_eq!(sent.len(), 8);
    for (at, (batch, sending)) in sent.iter().enumerate() {
        assert_eq!((*batch, sending.unacked), (at as u64, at as u32));
    }
    // An answer above the lowest makes no room; one to the lowest makes room for both.
    window.answer(sent[1].1.attempt, ack(1));
    assert!(window.ready().is_none());
    window.answer(sent[0].1.attempt, ack(0));
    let more = send_all(&mut window);
    assert_eq!(sequences(&more), [(8, 1, 8), (9, 1, 9)]);
    assert_eq!(more[0].1.unacked, 6);
}

#[test]
fn busy_rewinds_once_everything_above_is_answered() {
    let (mut window, sent, _) = sent_window(3);
    assert_eq!(
        window.answer(sent[0].attempt, refusal(ErrorCode::Busy)),
        Advice::Pause
    );
    assert!(window.ready().is_none(), "1 and 2 are still out");
    let gap = || refusal(ErrorCode::SequenceGap);
    assert_eq!(window.answer(sent[1].attempt, gap()), Advice::Continue);
    assert_eq!(window.answer(sent[2].attempt, gap()), Advice::Continue);
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(0, 1, 0), (1, 1, 1), (2, 1, 2)]);
}

#[test]
fn a_lost_connection_resends_everything_under_the_same_numbers() {
    let (mut window, sent, _) = sent_window(3);
    window.answer(sent[0].attempt, ack(0));
    window.lost();
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(1, 1, 1), (2, 1, 2)]);
    // The old attempt's answer comes too late to mean anything.
    window.answer(sent[1].attempt, ack(7));
    assert_eq!(window.outstanding(), 2);
}

#[test]
fn a_refusal_in_the_middle_fails_alone_and_the_rest_is_renumbered() {
    let (mut window, sent, _) = sent_window(4);
    window.answer(sent[1].attempt, refusal(ErrorCode::ExpectSeq));
    assert!(window.ready().is_none());
    window.answer(sent[2].attempt, refusal(ErrorCode::SequenceGap));
    assert!(window.ready().is_none(), "3 is still out");
    window.answer(sent[3].attempt, refusal(ErrorCode::SequenceGap));
    let settled = window.take_settled();
    assert_eq!(settled.len(), 1);
    let error = settled[0].outcome.clone().unwrap_err();
    assert_eq!(
        (settled[0].content, error.code()),
        (1, Some(ErrorCode::ExpectSeq))
    );
    assert!(error.has_no_side_effects());
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(2, 1, 1), (3, 1, 2)]);
}

#[test]
fn a_refusal_in_the_middle_and_a_lost_connection_renew_the_producer() {
    let (mut window, sent, _) = sent_window(4);
    window.answer(sent[1].attempt, refusal(ErrorCode::ExpectSeq));
    window.lost();
    // 0 is settled under its old numbers first; 2 and 3 wait for a new id.
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(0, 1, 0)]);
    window.answer(again[0].1.attempt, ack(0));
    assert!(window.needs_producer());
    window.registered(producer(2));
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(2, 2, 0), (3, 2, 1)]);
}

#[test]
fn a_refusal_after_an_unsure_attempt_is_unknown() {
    let (mut window, _, _) = sent_window(2);
    window.lost();
    let again = send_all(&mut window);
    window.answer(again[0].1.attempt, refusal(ErrorCode::LogNotFound));
    let settled = window.take_settled();
    let error = settled[0].outcome.clone().unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    // The other one depends on it and is unsure as well.
    window.answer(again[1].1.attempt, refusal(ErrorCode::SequenceGap));
    let settled = window.take_settled();
    let error = settled[0].outcome.clone().unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    assert!(window.is_empty());
}

/// A fence that came between the attempts settles the first one too; a token that was never given does not, since a
/// fence may yet give it.
#[test]
fn a_fence_or_an_end_settles_unsure_attempts() {
    let fenced = |expected, found| {
        let mut refused = refused(ErrorCode::Fenced);
        if let ClientError::Refused {
            expected: token,
            found: carried,
            ..
        } = &mut refused.error
        {
            (*token, *carried) = (expected, found);
        }
        Answer::Refused(refused)
    };
    let cases = [
        (fenced(4, 3), true),
        (fenced(4, 0), true),
        (refusal(ErrorCode::LogClosed), true),
        (fenced(3, 4), false),
        (refusal(ErrorCode::ExpectSeq), false),
    ];
    for (answer, is_settled) in cases {
        let (mut window, _, _) = sent_window(1);
        window.lost();
        let again = send_all(&mut window);
        window.answer(again[0].1.attempt, answer.clone());
        let settled = window.take_settled();
        let error = settled[0].outcome.clone().unwrap_err();
        assert_eq!(error.has_no_side_effects(), is_settled, "{answer:?}");
    }
}

#[test]
fn a_forgotten_producer_is_never_registered_again_for_what_may_be_written() {
    let (mut window, sent, now) = sent_window(2);
    window.answer(sent[0].attempt, refusal(ErrorCode::UnknownProducer));
    window.lost();
    window.submit(9, now + Duration::from_secs(9));
    // 0 was only ever refused, so 1, which is above it, was not written either.
    assert!(window.needs_producer() && window.take_settled().is_empty());

    let (mut window, _, now) = sent_window(2);
    window.lost();
    let again = send_all(&mut window);
    window.submit(9, now + Duration::from_secs(9));
    for (_, sending) in &again {
        window.answer(sending.attempt, refusal(ErrorCode::UnknownProducer));
    }
    let settled = window.take_settled();
    assert_eq!(
        settled.iter().map(|s| s.content).collect::<Vec<_>>(),
        [0, 1]
    );
    for settled in settled {
        let error = settled.outcome.unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    }
    window.registered(producer(2));
    assert_eq!(sequences(&send_all(&mut window)), [(9, 2, 0)]);
}

#[test]
fn the_deadline_says_unknown_only_of_what_may_be_written() {
    let (mut window, sent, now) = sent_window(3);
    window.submit(3, now + Duration::from_secs(1));
    window.answer(sent[2].attempt, refusal(ErrorCode::Busy));
    let due = window.expire(now + Duration::from_secs(3), "no leader");
    assert!(due, "0 and 1 were not answered");
    let settled = window.take_settled();
    let outcome = |batch| {
        let settled = settled.iter().find(|s| s.content == batch).unwrap();
        settled.outcome.clone().unwrap_err()
    };
    assert!(!outcome(0).has_no_side_effects() && !outcome(1).has_no_side_effects());
    assert_eq!(outcome(2).code(), Some(ErrorCode::Busy));
    assert!(outcome(2).has_no_side_effects() && outcome(3).has_no_side_effects());
    assert!(outcome(3).to_string().contains("no leader"));
}

#[test]
fn a_leader_that_lacks_what_was_acknowledged_is_left() {
    let (mut window, sent, _) = sent_window(2);
    window.answer(sent[0].attempt, ack(0));
    let advice = window.answer(sent[1].attempt, refusal(ErrorCode::SequenceGap));
    assert_eq!(advice, Advice::Leave);
    assert_eq!(sequences(&send_all(&mut window)), [(1, 1, 1)]);
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How often the model refuses a batch for good: never, sometimes, always.
fn refusal_percent(batch: u64) -> u64 {
    match batch % 10 {
        3 => 100,
        7 => 50,
        _ => 0,
    }
}

#[derive(Clone, Copy)]
struct Request {
    attempt: u64,
    producer: u64,
    sequence: u64,
    batch: u64,
}

/// One leader's log: (producer, sequence, batch), the first `committed` of them for ever.
#[derive(Clone, Default)]
struct Replicated {
    entries: Vec<(u64, u64, u64)>,
    committed: usize,
}

/// A connection, alive or not: what is still in it may reach the leader long after its client left.
struct Link {
    /// The log of a deposed leader that does not know it: what it accepts is never committed.
    deposed: Option<Replicated>,
    requests: VecDeque<Request>,
    /// Accepted, to be answered when this many entries are committed.
    held: Vec<(u64, usize)>,
    replies: VecDeque<(u64, Answer)>,
}

struct Model {
    random: Random,
    cluster: Replicated,
    producers: u64,
    forgotten: HashSet<u64>,
    link: Option<Link>,
    old_links: Vec<Link>,
    /// How often what can go wrong does, drawn per seed.
    hostile_percent: u64,
    calm: bool,
}

impl Model {
    fn is_hostile(&mut self) -> bool {
        !self.calm && self.random.percent(self.hostile_percent)
    }

    fn process(&mut self, link: &mut Link) {
        let Some(request) = link.requests.pop_front() else {
            return;
        };
        let Request {
            attempt,
            producer,
            sequence,
            batch,
        } = request;
        let refuses = self.random.percent(refusal_percent(batch));
        let early = self.random.percent(30);
        let busy = self.is_hostile() && self.random.percent(5);
        let view = link.deposed.as_mut().unwrap_or(&mut self.cluster);
        let of_producer = view.entries.iter().filter(|e| e.0 == producer);
        let expected = of_producer.count() as u64;
        let place = view
            .entries
            .iter()
            .position(|e| e.0 == producer && e.1 == sequence);
        let reply = if busy {
            refusal(ErrorCode::Busy)
        } else if self.forgotten.contains(&producer) {
            refusal(ErrorCode::UnknownProducer)
        } else if early && refuses {
            refusal(ErrorCode::LogNotFound)
        } else if let Some(place) = place {
            link.held.push((attempt, place));
            return;
        } else if sequence > expected {
            refusal(ErrorCode::SequenceGap)
        } else if refuses {
            refusal(ErrorCode::ExpectSeq)
        } else {
            assert_eq!(sequence, expected);
            link.held.push((attempt, view.entries.len()));
            view.entries.push((producer, sequence, batch));
            return;
        };
        link.replies.push_back((attempt, reply));
    }

    /// Lets one request of any connection reach its node.
    fn process_any(&mut self) {
        let at = self.random.below(4) as usize;
        if at < self.old_links.len() {
            let mut link = self.old_links.swap_remove(at);
            self.process(&mut link);
            self.old_links.push(link);
        } else if let Some(mut link) = self.link.take() {
            self.process(&mut link);
            self.link = Some(link);
        }
    }

    fn commit(&mut self) {
        let open = self.cluster.entries.len() - self.cluster.committed;
        let more = if self.calm {
            open as u64
        } else {
            self.random.below(open as u64 + 1)
        };
        self.cluster.committed += more as usize;
        let committed = self.cluster.committed;
        if let Some(link) = &mut self.link {
            let held = std::mem::take(&mut link.held);
            for (attempt, place) in held {
                let deposed_committed = link.deposed.as_ref().map(|view| view.committed);
                if place < deposed_committed.unwrap_or(committed) {
                    link.replies.push_back((attempt, ack(place as u64)));
                } else {
                    link.held.push((attempt, place));
                }
            }
        }
    }

    /// A new leader has all that is committed and any part of the rest; what the old one held open is
    /// answered as unknown.
    fn elect(&mut self) {
        let before = self.cluster.clone();
        let open = self.cluster.entries.len() - self.cluster.committed;
        let kept = self.random.below(open as u64 + 1) as usize;
        self.cluster.entries.truncate(self.cluster.committed + kept);
        self.cluster.committed = self.cluster.entries.len();
        if let Some(link) = &mut self.link {
            for (attempt, _) in std::mem::take(&mut link.held) {
                let unknown = refusal(ErrorCode::OutcomeUnknown);
                link.replies.push_back((attempt, unknown));
            }
            if self.random.percent(50) {
                link.deposed = Some(before);
            }
        }
    }

    fn connect(&mut self) {
        let deposed = (self.is_hostile() && self.random.percent(30)).then(|| {
            let mut view = self.cluster.clone();
            let known = self.random.below(view.committed as u64 + 1) as usize;
            view.entries.truncate(known);
            view.committed = known;
            view
        });
        self.link = Some(Link {
            deposed,
            requests: VecDeque::new(),
            held: Vec::new(),
            replies: VecDeque::new(),
        });
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take()
            && link.deposed.is_none()
            && self.random.percent(70)
        {
            self.old_links.push(link);
        }
    }
}

const BATCHES: u64 = 60;

struct Run {
    model: Model,
    window: Window<u64>,
    start: Instant,
    now_ms: u64,
    submitted: u64,
    leaving: bool,
    settled: Vec<Settled<u64>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            model: Model {
                hostile_percent: 5 + Random(seed).below(95),
                random: Random(seed),
                cluster: Replicated::default(),
                producers: 0,
                forgotten: HashSet::new(),
                link: None,
                old_links: Vec::new(),
                calm: false,
            },
            window: Window::new(),
            start: Instant::now(),
            now_ms: 0,
            submitted: 0,
            leaving: false,
            settled: Vec::new(),
        }
    }

    fn end_session(&mut self) {
        self.model.disconnect();
        self.leaving = false;
        self.window.lost();
    }

    fn submit(&mut self) {
        if self.submitted < BATCHES {
            let lifetime_ms = 200 + self.model.random.below(3_000);
            let deadline = self.start + Duration::from_millis(self.now_ms + lifetime_ms);
            self.window.submit(self.submitted, deadline);
            self.submitted += 1;
        }
    }

    fn send(&mut self) {
        if self.window.needs_producer() && self.model.random.percent(70) {
            self.model.producers += 1;
            let mut registered = producer(self.model.producers);
            registered.in_flight_max = 1 + self.model.random.below(8) as u32;
            self.window.registered(registered);
        }
        if self.model.link.is_none() {
            self.model.connect();
        }
        if self.leaving {
            if self.window.outstanding() == 0 || self.model.random.percent(30) {
                self.end_session();
            }
            return;
        }
        for _ in 0..self.model.random.below(6) {
            let Some(ready) = self.window.ready() else {
                return;
            };
            let batch = *self.window.content(ready);
            let sending = self.window.begin(ready);
            let link = self.model.link.as_mut().unwrap();
            link.requests.push_back(Request {
                attempt: sending.attempt,
                producer: sending.producer.id,
                sequence: sending.sequence,
                batch,
            });
        }
    }

    fn receive(&mut self) {
        let reply = self.model.link.as_mut().and_then(|l| l.replies.pop_front());
        if let Some((attempt, answer)) = reply
            && self.window.answer(attempt, answer) == Advice::Leave
        {
            self.leaving = true;
        }
    }

    fn pass_time(&mut self, ms: u64) {
        self.now_ms += ms;
        let now = self.start + Duration::from_millis(self.now_ms);
        if self.window.expire(now, "the deadline passed") {
            self.end_session();
        }
    }

    fn step(&mut self) {
        let weight = self.model.random.below(100);
        match weight {
            0..15 => self.submit(),
            15..35 => self.send(),
            35..60 => self.model.process_any(),
            60..70 => self.model.commit(),
            70..90 => self.receive(),
            90..95 => {
                let ms = self.model.random.below(40);
                self.pass_time(ms);
            }
            95 if self.model.is_hostile() => self.model.elect(),
            96..98 if self.model.is_hostile() => self.end_session(),
            98 if self.model.is_hostile() && self.model.random.percent(10) => {
                let producer = self.model.producers;
                self.model.forgotten.insert(producer);
            }
            _ => {}
        }
        self.settled.extend(self.window.take_settled());
    }

    /// What was under way somewhere arrives after all: "now or later" is put to the test.
    fn deliver_leftovers(&mut self) {
        self.end_session();
        for mut link in std::mem::take(&mut self.model.old_links) {
            while !link.requests.is_empty() {
                self.model.process(&mut link);
            }
        }
    }

    fn check(&self, seed: u64) -> (usize, usize) {
        let log: Vec<u64> = self.model.cluster.entries.iter().map(|e| e.2).collect();
        let distinct: HashSet<u64> = log.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            log.len(),
            "seed {seed}: appended twice: {log:?}"
        );
        assert_eq!(
            self.settled.len() as u64,
            BATCHES,
            "seed {seed}: one outcome each"
        );
        let mut acked = Vec::new();
        let mut unknown = 0;
        for settled in &self.settled {
            let batch = settled.content;
            match &settled.outcome {
                Ok(ack) => {
                    let at = log.get(ack.first_seq as usize);
                    assert_eq!(at, Some(&batch), "seed {seed}: acknowledged, not there");
                    acked.push((batch, ack.first_seq));
                }
                Err(error) if error.has_no_side_effects() => {
                    let there = distinct.contains(&batch);
                    assert!(!there, "seed {seed}: {batch} is there in spite of {error}");
                }
                Err(_) => unknown += 1,
            }
        }
        acked.sort_unstable();
        let in_order = acked.windows(2).all(|pair| pair[0].1 < pair[1].1);
        assert!(in_order, "seed {seed}: out of order: {acked:?}");
        (acked.len(), unknown)
    }
}

#[test]
fn exactly_once_in_order_whatever_is_lost_delayed_forgotten_or_refused() {
    let (mut acked, mut unknown, mut renewed) = (0, 0, 0);
    let seeds = 3_000;
    println!("seeds 0..{seeds}");
    for seed in 0..seeds {
        let mut run = Run::new(seed);
        for _ in 0..2_000 {
            run.step();
        }
        run.model.calm = true;
        // A deposed leader is found out by the attempt's timeout.
        run.end_session();
        for _ in 0..40 {
            for _ in 0..100 {
                run.step();
            }
            if run.window.is_empty() && run.submitted == BATCHES {
                break;
            }
            run.pass_time(100);
            run.end_session();
        }
        run.settled.extend(run.window.take_settled());
        assert!(run.window.is_empty(), "seed {seed}: settled in the end");
        run.deliver_leftovers();
        let (acked_now, unknown_now) = run.check(seed);
        acked += acked_now;
        unknown += unknown_now;
        renewed += run.model.producers - 1;
    }
    println!("acked {acked}, unknown {unknown}, renewed {renewed} times");
    // The model must not have been so hostile, or so kind, that nothing was put to the test.
    assert!(acked as u64 > seeds * BATCHES / 3, "acked {acked}");
    assert!(
        unknown as u64 > seeds && renewed > seeds,
        "{unknown} {renewed}"
    );
}

#[test]
fn a_hole_above_the_seal_forbids_renumbering() {
    let mut window = Window::new();
    let now = Instant::now();
    for (batch, seconds) in [(0, 9), (1, 9), (2, 1), (3, 9)] {
        window.submit(batch, now + Duration::from_secs(seconds));
    }
    window.registered(producer(1));
    let sent = send_all(&mut window);
    // A frame with sequence 2 may still be on its way to the node.
    assert!(window.expire(now + Duration::from_secs(2), "silence"));
    window.answer(sent[1].1.attempt, refusal(ErrorCode::ExpectSeq));
    window.answer(sent[3].1.attempt, refusal(ErrorCode::SequenceGap));
    assert!(window.ready().is_none());
    window.answer(sent[0].1.attempt, ack(0));
    assert!(window.needs_producer());
    window.registered(producer(2));
    assert_eq!(sequences(&send_all(&mut window)), [(3, 2, 0)]);
}

/// Batch 1 is clean and idle, 2 has an attempt whose answer was lost, both are out again.
fn window_with_unsure_above_clean() -> (Window<u64>, Vec<(u64, Sending)>, Instant) {
    let (mut window, sent, now) = sent_window(4);
    window.answer(sent[0].attempt, ack(0));
    window.answer(sent[1].attempt, refusal(ErrorCode::Busy));
    window.answer(sent[3].attempt, refusal(ErrorCode::SequenceGap));
    window.lost();
    let again = send_all(&mut window);
    assert_eq!(sequences(&again), [(1, 1, 1), (2, 1, 2), (3, 1, 3)]);
    (window, again, now)
}

#[test]
fn an_unsure_batch_refused_above_the_seal_forbids_renumbering() {
    let (mut window, again, _) = window_with_unsure_above_clean();
    window.answer(again[0].1.attempt, refusal(ErrorCode::LogNotFound));
    window.answer(again[1].1.attempt, refusal(ErrorCode::LogNotFound));
    for settled in window.take_settled().iter().skip(1) {
        let error = settled.outcome.clone().unwrap_err();
        assert_eq!(
            error.code(),
            Some(ErrorCode::LogNotFound),
            "definite, by the gap"
        );
    }
    window.answer(again[2].1.attempt, refusal(ErrorCode::SequenceGap));
    assert!(
        window.needs_producer(),
        "the lost frame of 2 must find its gap open"
    );
}

#[test]
fn a_batch_that_expires_above_the_seal_is_definite_and_forbids_renumbering() {
    let mut window = Window::new();
    let now = Instant::now();
    for (batch, seconds) in [(0, 9), (1, 9), (2, 1), (3, 9)] {
        window.submit(batch, now + Duration::from_secs(seconds));
    }
    window.registered(producer(1));
    let sent = send_all(&mut window);
    window.answer(sent[0].1.attempt, ack(0));
    window.answer(sent[1].1.attempt, refusal(ErrorCode::ExpectSeq));
    window.take_settled();
    assert!(window.expire(now + Duration::from_secs(2), "silence"));
    let settled = window.take_settled();
    assert_eq!(settled[0].content, 2);
    assert!(
        settled[0]
            .outcome
            .clone()
            .unwrap_err()
            .has_no_side_effects()
    );
    window.answer(sent[3].1.attempt, refusal(ErrorCode::SequenceGap));
    assert!(window.needs_producer(), "the frame of 2 is still out");
}

#[test]
fn nothing_fresh_is_sent_above_a_seal() {
    let (mut window, sent, now) = sent_window(3);
    window.submit(9, now + Duration::from_secs(9));
    window.answer(sent[1].attempt, refusal(ErrorCode::ExpectSeq));
    assert!(window.ready().is_none(), "2 is still out");
    window.answer(sent[2].attempt, refusal(ErrorCode::SequenceGap));
    assert_eq!(sequences(&send_all(&mut window)), [(2, 1, 1), (9, 1, 2)]);
}
