//! Who holds which message: what follows from the events, one after the other. No I/O, and no time but the events'.
//!
//! In a snapshot, little endian:
//!
//! ```text
//! u32  attempts at most
//! u64  the first message that nobody has asked for yet
//! u64  messages put aside so far
//! u32  count, then each unfinished message below that, in order:
//!      u64 message, u32 attempts, u8 whether it was given out, u64 event that gave it out, u64 time until which it is
//!      held in microseconds since 1970, u8 whether there is a key, u16 bytes, key
//! ```

use std::collections::{BTreeMap, HashSet};

use crate::error::Wrong;
use crate::event::{Event, Receipt, Settle};
use crate::fields::{Fields, put_key};
use crate::message::KEY_BYTES_MAX;

/// Messages that were asked for and are not finished, at most: no more are given out until some are. A snapshot of
/// that many fits into a record.
pub const UNFINISHED_MAX: usize = 4_000;

/// Attempts, when the queue was not configured.
const ATTEMPTS_MAX: u32 = 5;

/// A message that is given to whoever asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Its seq.
    pub message: u64,
    /// How often it was given out, this time included.
    pub attempts: u32,
}

/// What an event did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Nothing that anybody waits for.
    None,
    /// These messages were given out.
    Granted(Vec<Grant>),
    /// Of each message that was to be settled, whether it was: not when it was finished or given out again.
    Settled(Vec<bool>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Holder {
    /// The event that gave it out.
    given_at: u64,
    until_us: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Unfinished {
    key: Option<String>,
    attempts: u32,
    /// Whoever has it, or had it last.
    holder: Option<Holder>,
}

impl Unfinished {
    fn is_free(&self, time_us: u64) -> bool {
        self.holder.is_none_or(|holder| holder.until_us <= time_us)
    }
}

/// The state of a queue's consumers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    attempts_max: u32,
    /// Messages from here on are new.
    next: u64,
    buried: u64,
    unfinished: BTreeMap<u64, Unfinished>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_MAX,
            next: 0,
            buried: 0,
            unfinished: BTreeMap::new(),
        }
    }
}

impl State {
    /// The first message that nobody has asked for yet.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Messages below this one are finished.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.unfinished.keys().next().copied().unwrap_or(self.next)
    }

    /// Messages that were asked for and are not finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Of these, the ones that somebody holds.
    #[must_use]
    pub fn held(&self, time_us: u64) -> usize {
        let messages = self.unfinished.values();
        messages.filter(|message| !message.is_free(time_us)).count()
    }

    /// Messages that were put aside so far.
    #[must_use]
    pub fn buried(&self) -> u64 {
        self.buried
    }

    /// How many new messages may be asked for.
    #[must_use]
    pub fn room(&self) -> usize {
        UNFINISHED_MAX.saturating_sub(self.unfinished.len())
    }

    /// A message that was given out as often as it may be, and that nobody holds any more.
    #[must_use]
    pub fn to_bury(&self, time_us: u64) -> Option<u64> {
        let mut messages = self.unfinished.iter();
        messages
            .find(|(_, it)| it.attempts >= self.attempts_max && it.is_free(time_us))
            .map(|(message, _)| *message)
    }

    /// How often a message was given out, if it is not finished.
    #[must_use]
    pub fn attempts(&self, message: u64) -> Option<u32> {
        self.unfinished.get(&message).map(|it| it.attempts)
    }

    /// Whether a message would be given out at this time, new ones left aside.
    #[must_use]
    pub fn has_visible(&self, time_us: u64) -> bool {
        !self.visible(time_us, 1).is_empty()
    }

    /// When the next held message becomes free, microseconds since 1970.
    #[must_use]
    pub fn next_free_us(&self, time_us: u64) -> Option<u64> {
        let holders = self
            .unfinished
            .values()
            .filter_map(|message| message.holder);
        holders
            .map(|holder| holder.until_us)
            .filter(|until| *until > time_us)
            .min()
    }

    /// Until when a receipt holds its message.
    #[must_use]
    pub fn held_until_us(&self, receipt: Receipt) -> Option<u64> {
        let holder = self.unfinished.get(&receipt.message)?.holder?;
        (holder.given_at == receipt.given_at).then_some(holder.until_us)
    }

    /// The messages that may be given out, at most `limit`, in order. One whose key has an earlier unfinished message
    /// waits for that.
    fn visible(&self, time_us: u64, limit: usize) -> Vec<u64> {
        let mut keys = HashSet::new();
        let mut visible = Vec::new();
        for (seq, message) in &self.unfinished {
            if visible.len() >= limit {
                break;
            }
            let is_first = message.key.as_deref().is_none_or(|key| keys.insert(key));
            if is_first && message.is_free(time_us) && message.attempts < self.attempts_max {
                visible.push(*seq);
            }
        }
        visible
    }

    /// Applies the event at `seq`, which was appended at `time_us`.
    pub fn apply(&mut self, seq: u64, time_us: u64, event: &Event) -> Outcome {
        match event {
            Event::Configure { attempts_max } => {
                self.attempts_max = (*attempts_max).max(1);
                Outcome::None
            }
            Event::Receive {
                visibility_us,
                limit,
                first,
                keys,
            } => {
                self.take_new(*first, keys);
                let given = self.visible(time_us, *limit as usize);
                let holder = Holder {
                    given_at: seq,
                    until_us: time_us.saturating_add(*visibility_us),
                };
                Outcome::Granted(
                    given
                        .into_iter()
                        .map(|seq| self.give(seq, holder))
                        .collect(),
                )
            }
            Event::Settle(settles) => {
                let settled = settles.iter();
                let settled =
                    settled.map(|(receipt, settle)| self.settle(*receipt, *settle, time_us));
                Outcome::Settled(settled.collect())
            }
            Event::Buried { message } => {
                self.buried += u64::from(self.unfinished.remove(message).is_some());
                Outcome::None
            }
            Event::Snapshot(_) => Outcome::None,
        }
    }

    /// Messages that were new to whoever asked; others may have taken some of them since.
    fn take_new(&mut self, first: u64, keys: &[Option<String>]) {
        for (message, key) in (first..).zip(keys) {
            // One that leaves a gap was not made from this log.
            if message != self.next || self.room() == 0 {
                continue;
            }
            let unfinished = Unfinished {
                key: key.clone(),
                attempts: 0,
                holder: None,
            };
            self.unfinished.insert(message, unfinished);
            self.next += 1;
        }
    }

    fn give(&mut self, message: u64, holder: Holder) -> Grant {
        let unfinished = self.unfinished.get_mut(&message);
        let unfinished = unfinished.expect("what is visible is unfinished");
        unfinished.attempts += 1;
        unfinished.holder = Some(holder);
        Grant {
            message,
            attempts: unfinished.attempts,
        }
    }

    fn settle(&mut self, receipt: Receipt, settle: Settle, time_us: u64) -> bool {
        let unfinished = self.unfinished.get_mut(&receipt.message);
        let holder = unfinished.and_then(|message| message.holder.as_mut());
        let Some(holder) = holder.filter(|holder| holder.given_at == receipt.given_at) else {
            return false;
        };
        match settle {
            // Also when it is late, as long as nobody else has the message.
            Settle::Acknowledge => {
                self.unfinished.remove(&receipt.message);
                return true;
            }
            // What is over is not over again later.
            _ if holder.until_us <= time_us => return false,
            Settle::Release => holder.until_us = time_us,
            Settle::Extend(visibility_us) => {
                holder.until_us = time_us.saturating_add(visibility_us);
            }
        }
        true
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.attempts_max.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&self.buried.to_le_bytes());
        let count = u32::try_from(self.unfinished.len()).expect("it is bounded");
        out.extend_from_slice(&count.to_le_bytes());
        for (message, unfinished) in &self.unfinished {
            out.extend_from_slice(&message.to_le_bytes());
            out.extend_from_slice(&unfinished.attempts.to_le_bytes());
            out.push(unfinished.holder.is_some().into());
            let holder = unfinished
                .holder
                .map_or((0, 0), |it| (it.given_at, it.until_us));
            out.extend_from_slice(&holder.0.to_le_bytes());
            out.extend_from_slice(&holder.1.to_le_bytes());
            put_key(out, unfinished.key.as_deref());
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Wrong> {
        let attempts_max = fields.u32("attempts at most")?;
        let next = fields.u64("first new message")?;
        let buried = fields.u64("messages put aside")?;
        let count = fields.count("unfinished messages", UNFINISHED_MAX)?;
        let mut unfinished = BTreeMap::new();
        for _ in 0..count {
            let message = fields.u64("unfinished message")?;
            let last = unfinished.last_key_value().map(|(last, _)| *last);
            if message >= next || last.is_some_and(|last| message <= last) {
                return Err(Wrong {
                    what: "unfinished message, in order and not new",
                    expected: last.map_or(0, |last| last + 1),
                    found: message,
                });
            }
            let attempts = fields.u32("attempts of a message")?;
            let is_held = fields.flag("whether a message was given out")?;
            let holder = Holder {
                given_at: fields.u64("event that gave out a message")?,
                until_us: fields.u64("time until which a message is held")?,
            };
            let key = fields.key(KEY_BYTES_MAX)?.map(str::to_owned);
            let holder = is_held.then_some(holder);
            unfinished.insert(
                message,
                Unfinished {
                    key,
                    attempts,
                    holder,
                },
            );
        }
        Ok(Self {
            attempts_max,
            next,
            buried,
            unfinished,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receive(
        state: &mut State,
        seq: u64,
        time_us: u64,
        limit: u32,
        first: u64,
        keys: &[&str],
    ) -> Vec<u64> {
        let keys = keys
            .iter()
            .map(|key| (!key.is_empty()).then(|| (*key).to_owned()));
        let event = Event::Receive {
            visibility_us: 10,
            limit,
            first,
            keys: keys.collect(),
        };
        match state.apply(seq, time_us, &event) {
            Outcome::Granted(grants) => grants.into_iter().map(|grant| grant.message).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn settle(
        state: &mut State,
        time_us: u64,
        message: u64,
        given_at: u64,
        settle: Settle,
    ) -> bool {
        let event = Event::Settle(vec![(Receipt { message, given_at }, settle)]);
        state.apply(1_000, time_us, &event) == Outcome::Settled(vec![true])
    }

    #[test]
    fn a_message_is_held_by_one_until_its_time_is_over() {
        let mut state = State::default();
        assert_eq!(receive(&mut state, 1, 100, 1, 0, &["", ""]), [0]);
        assert_eq!(
            receive(&mut state, 2, 100, 9, 0, &["", ""]),
            [1],
            "named by both, given once"
        );
        assert_eq!(receive(&mut state, 3, 109, 9, 2, &[]), [0; 0]);
        assert_eq!(state.next_free_us(109), Some(110));
        assert_eq!(receive(&mut state, 4, 110, 1, 2, &[]), [0]);
        assert_eq!(state.attempts(0), Some(2));
        assert!(
            !settle(&mut state, 110, 0, 1, Settle::Acknowledge),
            "it has another receipt now"
        );
        assert!(settle(&mut state, 111, 0, 4, Settle::Acknowledge));
        assert!(
            !settle(&mut state, 111, 0, 4, Settle::Acknowledge),
            "it is finished"
        );
        assert!(
            settle(&mut state, 500, 1, 2, Settle::Acknowledge),
            "late, but nobody else has it"
        );
        assert_eq!((state.floor(), state.unfinished()), (2, 0));
    }

    #[test]
    fn time_is_given_back_or_prolonged_while_it_lasts() {
        let mut state = State::default();
        receive(&mut state, 1, 100, 2, 0, &["", ""]);
        assert!(settle(&mut state, 105, 0, 1, Settle::Release));
        assert_eq!(receive(&mut state, 2, 105, 9, 2, &[]), [0]);
        assert!(settle(&mut state, 109, 1, 1, Settle::Extend(50)));
        assert_eq!(receive(&mut state, 3, 158, 9, 2, &[]), [0]);
        assert_eq!(receive(&mut state, 4, 159, 9, 2, &[]), [1]);
        assert!(
            !settle(&mut state, 400, 1, 4, Settle::Extend(50)),
            "it was over"
        );
        assert!(!settle(&mut state, 400, 1, 4, Settle::Release));
    }

    #[test]
    fn messages_of_a_key_come_one_after_the_other() {
        let mut state = State::default();
        assert_eq!(
            receive(&mut state, 1, 100, 9, 0, &["a", "a", "b", "", "a"]),
            [0, 2, 3]
        );
        assert_eq!(receive(&mut state, 2, 100, 9, 5, &["b"]), [0; 0]);
        assert!(settle(&mut state, 101, 0, 1, Settle::Acknowledge));
        assert_eq!(receive(&mut state, 3, 101, 9, 6, &[]), [1]);
        assert_eq!(
            receive(&mut state, 4, 111, 9, 6, &[]),
            [1, 2, 3],
            "4 and 5 wait"
        );
    }

    #[test]
    fn what_fails_too_often_is_put_aside_and_holds_its_key_until_then() {
        let mut state = State::default();
        state.apply(0, 0, &Event::Configure { attempts_max: 2 });
        assert_eq!(receive(&mut state, 1, 100, 9, 0, &["a", "a"]), [0]);
        assert_eq!(receive(&mut state, 2, 110, 9, 2, &[]), [0]);
        assert_eq!(state.to_bury(119), None, "it is still held");
        assert_eq!(state.to_bury(120), Some(0));
        assert_eq!(receive(&mut state, 3, 120, 9, 2, &[]), [0; 0]);
        state.apply(4, 120, &Event::Buried { message: 0 });
        state.apply(5, 120, &Event::Buried { message: 0 });
        assert_eq!(state.buried(), 1);
        assert_eq!(receive(&mut state, 6, 120, 9, 2, &[]), [1]);
    }

    #[test]
    fn no_more_are_given_out_than_a_snapshot_holds() {
        let mut state = State::default();
        let key = "k".repeat(KEY_BYTES_MAX);
        while state.room() > 0 {
            let keys: Vec<String> = (0..100).map(|at| format!("{at:03}{}", &key[3..])).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let next = state.next();
            receive(&mut state, next, 0, 100, next, &keys);
        }
        assert_eq!(
            (state.unfinished(), state.next()),
            (UNFINISHED_MAX, UNFINISHED_MAX as u64)
        );
        let next = state.next();
        receive(&mut state, 9_999, 0, 100, next, &["one more"]);
        assert_eq!(state.next(), next);
        let record = Event::Snapshot(state.clone()).encode();
        assert!(record.len() < 1 << 20, "{} bytes", record.len());
        assert_eq!(Event::decode(&record), Ok(Event::Snapshot(state)));
    }

    #[test]
    fn a_snapshot_out_of_order_is_refused() {
        let mut state = State::default();
        receive(&mut state, 1, 0, 9, 0, &["", ""]);
        let mut record = Event::Snapshot(state).encode();
        // The second message becomes the first once more.
        let at = record.len() - 32;
        assert_eq!(record[at], 1);
        record[at] = 0;
        assert!(
            Event::decode(&record)
                .unwrap_err()
                .what
                .starts_with("unfinished message")
        );
    }

    /// What somebody asks for, drawn.
    #[derive(Clone, Debug)]
    enum Step {
        Receive {
            limit: u32,
            named: usize,
            visibility_us: u64,
        },
        Settle {
            pick: usize,
            settle: Settle,
        },
        Bury,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let settle = prop_oneof![
            Just(Settle::Acknowledge),
            Just(Settle::Release),
            (0u64..20).prop_map(Settle::Extend),
        ];
        let step = prop_oneof![
            4 => (0u32..4, 0usize..5, 0u64..20)
                .prop_map(|(limit, named, visibility_us)| Step::Receive { limit, named, visibility_us }),
            4 => (0usize..20, settle).prop_map(|(pick, settle)| Step::Settle { pick, settle }),
            1 => Just(Step::Bury),
        ];
        prop::collection::vec((0u64..8, step), 0..80)
    }

    proptest! {
        /// At most one holds a message, keys are in order, nothing is lost, and a snapshot anywhere changes nothing.
        #[test]
        fn the_promises_hold(keys in prop::collection::vec(0usize..4, 40), steps in steps(), cut in 0usize..80) {
            let key = |message: u64| ["", "a", "b", "c"][keys[message as usize % keys.len()]];
            let mut state = State::default();
            state.apply(0, 0, &Event::Configure { attempts_max: 3 });
            let (mut time_us, mut given, mut finished) = (0, Vec::<Receipt>::new(), HashSet::new());
            // Message and time until which somebody was promised that it is theirs.
            let mut promised: BTreeMap<u64, u64> = BTreeMap::new();
            for (seq, (later, step)) in steps.into_iter().enumerate() {
                let seq = seq as u64 + 1;
                time_us += later;
                if seq as usize == cut {
                    let record = Event::Snapshot(state.clone()).encode();
                    let Ok(Event::Snapshot(restored)) = Event::decode(&record) else { panic!("it is one") };
                    prop_assert_eq!(&restored, &state);
                    state = restored;
                }
                match step {
                    Step::Receive { limit, named, visibility_us } => {
                        // Some are named that others have taken meanwhile.
                        let first = state.next().saturating_sub(1);
                        let keys = (0..named as u64).map(|at| key(first + at));
                        let keys = keys.map(|key| (!key.is_empty()).then(|| key.to_owned())).collect();
                        let event = Event::Receive { visibility_us, limit, first, keys };
                        let Outcome::Granted(grants) = state.apply(seq, time_us, &event) else { panic!("none") };
                        prop_assert!(grants.len() <= limit as usize);
                        for grant in grants {
                            let message = grant.message;
                            prop_assert!(!finished.contains(&message), "given out after it was finished");
                            let held = promised.insert(message, time_us + visibility_us);
                            prop_assert!(held.is_none_or(|until| until <= time_us), "held by two");
                            let earlier = (0..message).filter(|it| !key(*it).is_empty() && key(*it) == key(message));
                            for earlier in earlier {
                                prop_assert!(finished.contains(&earlier), "{earlier} comes before {message}");
                            }
                            prop_assert!(grant.attempts <= 3);
                            given.push(Receipt { message, given_at: seq });
                        }
                    }
                    Step::Settle { pick, settle } => {
                        let Some(receipt) = given.get(pick % given.len().max(1)).copied() else { continue };
                        let outcome = state.apply(seq, time_us, &Event::Settle(vec![(receipt, settle)]));
                        let is_last = given.iter().rev().find(|it| it.message == receipt.message) == Some(&receipt);
                        let settled = outcome == Outcome::Settled(vec![true]);
                        prop_assert!(!settled || is_last && !finished.contains(&receipt.message));
                        match settle {
                            _ if !settled => {}
                            Settle::Acknowledge => { finished.insert(receipt.message); }
                            Settle::Release => { promised.insert(receipt.message, time_us); }
                            Settle::Extend(more) => { promised.insert(receipt.message, time_us + more); }
                        }
                    }
                    Step::Bury => {
                        let Some(message) = state.to_bury(time_us) else { continue };
                        prop_assert!(promised[&message] <= time_us, "put aside under its holder");
                        state.apply(seq, time_us, &Event::Buried { message });
                        finished.insert(message);
                    }
                }
                // Everything below the new ones is finished or known as unfinished.
                let known = (0..state.next()).all(|it| finished.contains(&it) != state.attempts(it).is_some());
                prop_assert!(known, "a message is lost");
                prop_assert!((0..state.floor()).all(|it| finished.contains(&it)));
            }
        }
    }
}
