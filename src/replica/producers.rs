//! Who appended what under which sequence: exactly once (thesis section 6.3).
//!
//! A producer numbers its batches from 0 without gaps. For each the table keeps the next number and the
//! answers that the producer may still ask for: those from its lowest unacknowledged batch on, which it
//! names in every batch. The numbers move when a batch is appended and move back when it is truncated;
//! what is forgotten is decided only when entries are applied, in log order and by bounds that are the
//! same everywhere, so it is the same on every replica.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::raft::mutants::{Mutant, is_planted};

/// Answers of applied batches that a group keeps at most, over all producers. Beyond it the producer
/// that is idle for longest among those with more than one loses its older ones.
pub(super) const ANSWERS_MAX: usize = 1 << 18;

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

/// One producer. Invariant: of `answers`, the first `answers_applied` are of applied batches.
#[derive(Debug)]
struct Producer {
    epoch: u32,
    /// Sequence of `answers[0]`.
    answers_from: u64,
    answers: VecDeque<FirstAnswer>,
    answers_applied: usize,
    /// The last entry of this producer that is applied: who is idle for longest is forgotten first.
    /// 0 while its registration itself is not applied.
    applied_index: u64,
}

impl Producer {
    fn next_seq(&self) -> u64 {
        self.answers_from + self.answers.len() as u64
    }

    /// Drops the oldest answer.
    fn forget_first(&mut self) {
        self.answers.pop_front();
        self.answers_from += 1;
        self.answers_applied -= 1;
    }
}

/// An applied producer as a snapshot holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ProducerImage {
    pub producer_id: u64,
    pub epoch: u32,
    pub applied_index: u64,
    pub answers_from: u64,
    pub answers: Vec<FirstAnswer>,
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
    /// Of these, those with more than one applied answer.
    with_answers: BTreeMap<u64, u64>,
    /// Applied answers of all.
    answers_total: usize,
    producers_max: usize,
    answers_max: usize,
}

impl Producers {
    pub(super) fn new(producers_max: u32, answers_max: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            by_applied: BTreeMap::new(),
            with_answers: BTreeMap::new(),
            answers_total: 0,
            producers_max: producers_max as usize,
            answers_max,
        }
    }

    /// What a snapshot holds, all of it applied.
    pub(super) fn restore(&mut self, images: &[ProducerImage]) {
        for image in images {
            let producer = Producer {
                epoch: image.epoch,
                answers_from: image.answers_from,
                answers: image.answers.iter().copied().collect(),
                answers_applied: image.answers.len(),
                applied_index: image.applied_index,
            };
            self.answers_total += producer.answers_applied;
            self.by_applied
                .insert(image.applied_index, image.producer_id);
            if producer.answers_applied > 1 {
                self.with_answers
                    .insert(image.applied_index, image.producer_id);
            }
            self.by_id.insert(image.producer_id, producer);
        }
    }

    /// What is applied, ascending by id.
    pub(super) fn images(&self) -> Vec<ProducerImage> {
        let mut images: Vec<ProducerImage> = self
            .by_applied
            .values()
            .filter_map(|id| Some((id, self.by_id.get(id)?)))
            .map(|(id, producer)| ProducerImage {
                producer_id: *id,
                epoch: producer.epoch,
                applied_index: producer.applied_index,
                answers_from: producer.answers_from,
                answers: producer
                    .answers
                    .iter()
                    .take(producer.answers_applied)
                    .copied()
                    .collect(),
            })
            .collect();
        images.sort_unstable_by_key(|image| image.producer_id);
        images
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
        if sequence == next || is_planted(Mutant::NoDeduplication) {
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

    /// The answers to as many batches from this one on as were appended in its entry.
    pub(super) fn answers_of_entry(
        &self,
        producer_id: u64,
        sequence: u64,
        index: u64,
    ) -> impl Iterator<Item = FirstAnswer> {
        let producer = self.by_id.get(&producer_id);
        let answers = producer.into_iter().flat_map(move |producer| {
            let at = sequence.saturating_sub(producer.answers_from) as usize;
            producer.answers.iter().skip(at).copied()
        });
        answers.take_while(move |answer| answer.index == index)
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

    /// The entry of a producer at `index` is applied: it had no acknowledgement for `unacked` batches
    /// before it.
    pub(super) fn applied(&mut self, producer_id: u64, unacked: u16, index: u64) {
        let Some(producer) = self.by_id.get_mut(&producer_id) else {
            return;
        };
        self.with_answers.remove(&producer.applied_index);
        if self.by_applied.remove(&producer.applied_index).is_some() {
            self.by_applied.insert(index, producer_id);
        }
        producer.applied_index = index;
        let position = producer.answers_applied;
        let next = producer.answers.get(position).map(|answer| answer.index);
        assert!(
            next.is_none_or(|next| next >= index),
            "batches of a producer are applied in order"
        );
        if next == Some(index) {
            producer.answers_applied += 1;
            self.answers_total += 1;
            let sequence = producer.answers_from + position as u64;
            let keep_from = sequence.saturating_sub(unacked.into());
            while producer.answers_from < keep_from && producer.answers_applied > 1 {
                producer.forget_first();
                self.answers_total -= 1;
            }
        }
        if producer.answers_applied > 1 {
            self.with_answers.insert(index, producer_id);
        }
        while self.answers_total > self.answers_max {
            let Some((_, idle)) = self.with_answers.pop_first() else {
                break;
            };
            let Some(producer) = self.by_id.get_mut(&idle) else {
                continue;
            };
            while producer.answers_applied > 1 {
                producer.forget_first();
                self.answers_total -= 1;
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
            answers_applied: 0,
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
            && let Some((applied_index, idle)) = self.by_applied.pop_first()
        {
            self.with_answers.remove(&applied_index);
            if let Some(producer) = self.by_id.remove(&idle) {
                self.answers_total -= producer.answers_applied;
            }
        }
        let producer = self
            .by_id
            .get_mut(&index)
            .expect("what is committed was appended");
        producer.applied_index = index;
        self.by_applied.insert(index, index);
    }

    /// Applied answers held: at most the bound, or one for each producer.
    #[cfg(test)]
    pub(super) fn answers_total(&self) -> usize {
        self.answers_total
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
        let mut table = Producers::new(2, 1_000);
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
        for index in 10..13 {
            table.applied(1, 4, index);
        }
        assert_eq!(table.judge(1, 0, 2), Verdict::Duplicate(answer(12)));
        assert_eq!(table.judge(1, 0, 4), Verdict::Next);
        table.applied(1, 1, 13);
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
        table.applied(1, 0, 10);
        assert_eq!(table.judge(1, 0, 0), Verdict::Duplicate(answer(10)));
    }

    #[test]
    fn the_one_idle_for_longest_is_forgotten() {
        let mut table = table();
        table.registration_appended(2);
        table.registration_applied(2);
        table.appended(1, 0, answer(3));
        table.applied(1, 0, 3);
        table.registration_appended(4);
        table.appended(4, 0, answer(5));
        table.registration_applied(4);
        assert_eq!(table.judge(2, 0, 0), Verdict::Unknown);
        assert_eq!(table.judge(1, 0, 1), Verdict::Next);
        assert_eq!(table.judge(4, 0, 1), Verdict::Next);
    }

    #[test]
    fn answers_are_bounded_and_the_one_idle_for_longest_loses_first() {
        let mut table = Producers::new(8, 10);
        for id in [1, 2] {
            table.registration_appended(id);
            table.registration_applied(id);
        }
        // None of the two ever says that it had an answer.
        let mut index = 10;
        for sequence in 0..5 {
            for producer in [1, 2] {
                table.appended(producer, sequence, answer(index));
                table.applied(producer, u16::MAX, index);
                index += 1;
            }
        }
        assert_eq!(table.answers_total(), 10);
        table.appended(2, 5, answer(index));
        table.applied(2, u16::MAX, index);
        assert_eq!(table.judge(1, 0, 3), Verdict::DuplicateForgotten);
        assert_eq!(table.judge(1, 0, 4), Verdict::Duplicate(answer(18)));
        assert_eq!(table.judge(2, 0, 0), Verdict::Duplicate(answer(11)));
        assert_eq!(table.answers_total(), 7);
        // A copy made from the images goes on to decide alike.
        let mut copy = Producers::new(8, 10);
        copy.restore(&table.images());
        for table in [&mut table, &mut copy] {
            for sequence in 6..10 {
                table.appended(2, sequence, answer(100 + sequence));
                table.applied(2, u16::MAX, 100 + sequence);
            }
        }
        assert_eq!(copy.images(), table.images());
        assert_eq!(
            table.answers_total(),
            2,
            "over the bound again, even the busiest keeps its last answer only"
        );
    }

    #[test]
    fn what_is_not_applied_is_not_in_the_images() {
        let mut table = table();
        table.appended(1, 0, answer(10));
        table.applied(1, 0, 10);
        table.appended(1, 1, answer(11));
        table.registration_appended(12);
        let images = table.images();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].answers, [answer(10)]);
    }
}
