//! Who appended what under which sequence: exactly once (thesis section 6.3).
//!
//! A producer numbers its batches from 0 without gaps. For each the table keeps the next number and the
//! answers that the producer may still ask for: those from its lowest unacknowledged batch on, which it
//! names in every batch. The numbers move when a batch is appended and move back when it is truncated;
//! what is forgotten is decided only when entries are applied, in log order, so it is the same on every
//! replica.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The first answer to a batch, kept for its duplicates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FirstAnswer {
    /// The entry's Raft index.
    pub index: u64,
    /// The seq of its first record.
    pub first_seq: u64,
    /// Records in it.
    pub record_count: u32,
    /// The log it went to.
    pub log_id: u64,
}

#[derive(Debug)]
struct Producer {
    epoch: u32,
    /// Sequence of `answers[0]`.
    answers_from: u64,
    answers: VecDeque<FirstAnswer>,
    /// The last entry of this producer that is applied: who is idle for longest is forgotten first.
    /// 0 while its registration itself is not applied.
    applied_index: u64,
}

impl Producer {
    fn next_seq(&self) -> u64 {
        self.answers_from + self.answers.len() as u64
    }
}

/// What a batch's producer fields mean, before it is appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The next one: append it.
    Next,
    /// Appended before, with this answer; committed or not.
    Duplicate(FirstAnswer),
    /// Appended before; its answer was acknowledged by the producer and dropped.
    DuplicateForgotten,
    /// An earlier one is missing.
    Gap {
        /// The sequence that would be next.
        expected: u64,
    },
    /// Another instance took over.
    StaleEpoch {
        /// The epoch in force.
        expected: u32,
    },
    /// Not registered, or forgotten.
    Unknown,
}

/// All producers of a group.
#[derive(Debug)]
pub(super) struct Producers {
    by_id: HashMap<u64, Producer>,
    /// Those whose registration is applied, by their last applied entry: the first is idle for longest.
    by_applied: BTreeMap<u64, u64>,
    producers_max: usize,
}

impl Producers {
    pub(super) fn new(producers_max: u32) -> Self {
        Self {
            by_id: HashMap::new(),
            by_applied: BTreeMap::new(),
            producers_max: producers_max as usize,
        }
    }

    pub(super) fn judge(&self, producer_id: u64, epoch: u32, sequence: u64) -> Verdict {
        let Some(producer) = self.by_id.get(&producer_id) else {
            return Verdict::Unknown;
        };
        if epoch != producer.epoch {
            return Verdict::StaleEpoch {
                expected: producer.epoch,
            };
        }
        let next = producer.next_seq();
        if sequence == next {
            Verdict::Next
        } else if sequence > next {
            Verdict::Gap { expected: next }
        } else {
            match sequence.checked_sub(producer.answers_from) {
                Some(at) => Verdict::Duplicate(producer.answers[at as usize]),
                None => Verdict::DuplicateForgotten,
            }
        }
    }

    /// An entry of a producer was appended. Entries of producers that are not in the table (forgotten
    /// between append and apply) leave no trace.
    pub(super) fn appended(&mut self, producer_id: u64, sequence: u64, answer: FirstAnswer) {
        if let Some(producer) = self.by_id.get_mut(&producer_id)
            && producer.next_seq() == sequence
        {
            producer.answers.push_back(answer);
        }
    }

    /// The entry at `index`, the last of its producer, was truncated.
    pub(super) fn truncated(&mut self, producer_id: u64, index: u64) {
        if let Some(producer) = self.by_id.get_mut(&producer_id)
            && producer
                .answers
                .back()
                .is_some_and(|answer| answer.index == index)
        {
            producer.answers.pop_back();
        }
    }

    /// An entry of a producer is applied: it had no acknowledgement for `unacked` batches before it.
    pub(super) fn applied(&mut self, producer_id: u64, sequence: u64, unacked: u32, index: u64) {
        if let Some(producer) = self.by_id.get_mut(&producer_id) {
            if self.by_applied.remove(&producer.applied_index).is_some() {
                self.by_applied.insert(index, producer_id);
            }
            producer.applied_index = index;
            let keep_from = sequence.saturating_sub(unacked.into());
            while producer.answers_from < keep_from && producer.answers.len() > 1 {
                producer.answers.pop_front();
                producer.answers_from += 1;
            }
        }
    }

    /// A registration is in the log: batches of the new producer may follow it before it is committed.
    /// The producer's id is the entry's index.
    pub(super) fn registration_appended(&mut self, index: u64) {
        let producer = Producer {
            epoch: 0,
            answers_from: 0,
            answers: VecDeque::new(),
            applied_index: 0,
        };
        self.by_id.insert(index, producer);
    }

    pub(super) fn registration_truncated(&mut self, index: u64) {
        self.by_id.remove(&index);
    }

    /// The registration at `index` is applied. Forgets the producer idle for longest when there are too
    /// many; only what is applied counts, so every replica forgets the same one.
    pub(super) fn registration_applied(&mut self, index: u64) {
        if self.by_applied.len() >= self.producers_max
            && let Some((_, idle)) = self.by_applied.pop_first()
        {
            self.by_id.remove(&idle);
        }
        let producer = self
            .by_id
            .get_mut(&index)
            .expect("what is committed was appended");
        producer.applied_index = index;
        self.by_applied.insert(index, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: u64) -> FirstAnswer {
        FirstAnswer {
            index,
            first_seq: index * 10,
            record_count: 10,
            log_id: 1,
        }
    }

    fn table() -> Producers {
        let mut table = Producers::new(2);
        table.registration_appended(1);
        table.registration_applied(1);
        table
    }

    #[test]
    fn next_gap_duplicate_and_forgotten_are_told_apart() {
        let mut table = table();
        assert_eq!(table.judge(1, 0, 0), Verdict::Next);
        assert_eq!(table.judge(1, 0, 1), Verdict::Gap { expected: 0 });
        for sequence in 0..4 {
            table.appended(1, sequence, answer(10 + sequence));
        }
        assert_eq!(table.judge(1, 0, 2), Verdict::Duplicate(answer(12)));
        assert_eq!(table.judge(1, 0, 4), Verdict::Next);
        table.applied(1, 3, 1, 13);
        assert_eq!(table.judge(1, 0, 1), Verdict::DuplicateForgotten);
        assert_eq!(table.judge(1, 0, 2), Verdict::Duplicate(answer(12)));
        assert_eq!(table.judge(1, 1, 4), Verdict::StaleEpoch { expected: 0 });
        assert_eq!(table.judge(7, 0, 0), Verdict::Unknown);
    }

    #[test]
    fn a_truncated_batch_may_come_again() {
        let mut table = table();
        table.appended(1, 0, answer(10));
        table.appended(1, 1, answer(11));
        table.truncated(1, 11);
        assert_eq!(table.judge(1, 0, 1), Verdict::Next);
        table.truncated(1, 99);
        assert_eq!(table.judge(1, 0, 0), Verdict::Duplicate(answer(10)));
    }

    #[test]
    fn the_last_answer_is_always_kept() {
        let mut table = table();
        table.appended(1, 0, answer(10));
        table.applied(1, 0, 0, 10);
        assert_eq!(table.judge(1, 0, 0), Verdict::Duplicate(answer(10)));
    }

    #[test]
    fn the_one_idle_for_longest_is_forgotten() {
        let mut table = table();
        table.registration_appended(2);
        table.registration_applied(2);
        table.appended(1, 0, answer(3));
        table.applied(1, 0, 0, 3);
        table.registration_appended(4);
        table.appended(4, 0, answer(5));
        table.registration_applied(4);
        assert_eq!(table.judge(2, 0, 0), Verdict::Unknown);
        assert_eq!(table.judge(1, 0, 1), Verdict::Next);
        assert_eq!(table.judge(4, 0, 1), Verdict::Next);
    }
}
