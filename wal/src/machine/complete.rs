//! Completions: the durable prefix moves, or the log fails for good.

use std::io;
use std::sync::Arc;

use super::Machine;
use crate::engine::Completion;
use crate::error::Failure;
use crate::event::{Event, Flushed};
use crate::format::GroupKind;
use crate::mutants::{Mutant, is_planted};

impl Machine {
    /// Takes the end of an operation.
    pub(crate) fn complete(&mut self, completion: Completion, now_us: u64) {
        let Completion { number, result } = completion;
        let position = self
            .started
            .iter()
            .position(|started| started.number == number);
        let started = self
            .started
            .swap_remove(position.expect("an operation completes once"));
        if self.failure.is_some() {
            return;
        }
        if let Err(source) = result
            && !is_planted(Mutant::FailureIgnored)
        {
            let full = matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            if !(full
                && (self.storage_full(number, now_us) || self.no_room_to_roll(number, now_us)))
            {
                self.fail(Failure {
                    operation: started.operation,
                    file: started.file,
                    offset: started.offset,
                    source: Arc::new(source),
                });
            }
            return;
        }
        if let Some(flight) = self
            .flights
            .iter_mut()
            .find(|flight| flight.number == number)
        {
            flight.done = true;
            let took_us = now_us.saturating_sub(flight.started_us);
            self.statistics.flushed(took_us);
            self.flushes.completed(now_us, took_us);
            self.advance_durable(now_us);
            self.note_progress(now_us, true);
            return;
        }
        let is_written = self.complete_meta(number) || self.complete_roll(number);
        let taken = is_written || self.complete_space(number);
        assert!(taken, "every operation has a place its completion goes to");
        self.note_progress(now_us, is_written);
    }

    /// Only the contiguous prefix of completed groups is durable, whatever completed beyond it.
    fn advance_durable(&mut self, now_us: u64) {
        while self.flights.front().is_some_and(|flight| flight.done) {
            let flight = self.flights.pop_front().expect("it was just looked at");
            assert_eq!(
                flight.group_seq,
                self.durable_group_seq + 1,
                "groups become durable in order"
            );
            self.durable_group_seq = flight.group_seq;
            self.queued_bytes -= flight.payload_bytes;
            self.statistics.payload_bytes += flight.payload_bytes;
            self.statistics.groups_in_order += 1;
            self.last_flush_us = now_us;
            if matches!(flight.kind, GroupKind::Data | GroupKind::Reset) {
                self.durable_index = self.durable_index.max(flight.visible_end.saturating_sub(1));
            }
            assert!(
                self.durable_index < self.next_index,
                "nothing is durable that is not in the log"
            );
        }
        self.trim();
        self.tail
            .evict(self.options.tail_bytes_max, self.durable_index + 1);
    }

    /// Says what became durable since it was last said.
    pub(crate) fn report_durable(&mut self) {
        let index = self.durable_index.max(self.planted_durable_index());
        if self.failure.is_none() && index > self.reported_index {
            self.reported_index = index;
            let term = self.terms.at(index);
            self.events.push(Event::Durable(Flushed::new(index, term)));
        }
    }

    /// 0, unless a bug is planted that takes what is in flight for durable.
    fn planted_durable_index(&self) -> u64 {
        let early = is_planted(Mutant::FlushReportedEarly);
        if !early && !is_planted(Mutant::FlushOutOfOrder) {
            return 0;
        }
        let counted = self.flights.iter().filter(|flight| early || flight.done);
        let ends = counted.map(|flight| flight.visible_end.saturating_sub(1));
        ends.max().unwrap_or(0)
    }

    fn fail(&mut self, failure: Failure) {
        // What completed before is durable all the same and may be said.
        self.report_durable();
        self.events.push(Event::Failed(failure.clone()));
        self.failure = Some(failure);
    }
}
