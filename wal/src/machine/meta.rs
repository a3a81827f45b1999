//! The meta record: at most one write at a time, the latest wish wins, every record ends up in both slots.

use super::Machine;
use crate::buffer::Blocks;
use crate::engine::{Operation, Target};
use crate::error::ChangeError;
use crate::event::{Event, MetaFlushed};
use crate::format::{BLOCK_BYTES, META_VALUE_BYTES_MAX, MetaRecord};
use crate::mutants::{Mutant, is_planted};

/// A slot write under way.
#[derive(Debug)]
struct MetaFlight {
    number: u64,
    record: MetaRecord,
    /// It is the copy of a record that is durable already.
    is_copy: bool,
}

/// What is durable, what is wanted, what is under way.
#[derive(Debug)]
pub(crate) struct Meta {
    durable: MetaRecord,
    wanted: MetaRecord,
    changed: bool,
    copied: bool,
    flight: Option<MetaFlight>,
}

impl Meta {
    /// Starts from a record that both slots hold.
    pub(crate) fn new(record: MetaRecord) -> Self {
        Self {
            wanted: record.clone(),
            durable: record,
            changed: false,
            copied: true,
            flight: None,
        }
    }

    /// The number of the last value asked for.
    pub(crate) fn sequence(&self) -> u64 {
        self.wanted.sequence
    }

    /// The record known durable.
    pub(crate) fn durable(&self) -> &MetaRecord {
        &self.durable
    }

    pub(super) fn want_first_segment(&mut self, segment_seq: u64) {
        self.wanted.first_segment_seq = segment_seq;
        self.changed = true;
    }

    pub(super) fn want_last_segment(&mut self, segment_seq: u64, seed: u32) {
        self.wanted.last_segment_seq = segment_seq;
        self.wanted.seed = seed;
        self.changed = true;
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.changed && self.copied && self.flight.is_none()
    }
}

/// The slot of a generation.
fn slot_offset(generation: u64) -> u64 {
    generation % 2 * BLOCK_BYTES as u64
}

impl Machine {
    /// Asks for a new value; the groups of later appends wait for it.
    pub(crate) fn write_meta(&mut self, value: &[u8]) -> Result<u64, ChangeError> {
        self.check_alive()?;
        if value.len() > META_VALUE_BYTES_MAX {
            let (found, limit) = (value.len() as u64, META_VALUE_BYTES_MAX as u64);
            return Err(ChangeError::TooLarge { found, limit });
        }
        let wanted = &mut self.meta.wanted;
        wanted.value.clear();
        wanted.value.extend_from_slice(value);
        wanted.sequence += 1;
        self.meta.changed = true;
        Ok(wanted.sequence)
    }

    pub(super) fn pump_meta(&mut self) {
        if self.meta.flight.is_some() {
            return;
        }
        let (record, is_copy) = if self.meta.changed {
            let mut record = self.meta.wanted.clone();
            record.generation = self.meta.durable.generation + 1;
            (record, false)
        } else if !self.meta.copied {
            (self.meta.durable.clone(), true)
        } else {
            return;
        };
        self.meta.changed = false;
        let mut block = [0; BLOCK_BYTES];
        record.encode(&mut block);
        // The older slot is always the one written: the newest durable record is never touched.
        let offset = slot_offset(if is_copy {
            record.generation + 1
        } else {
            record.generation
        });
        let blocks = Blocks::copy_of(&block);
        let number = self.start(Operation::Write {
            target: Target::Meta,
            offset,
            blocks,
        });
        if is_planted(Mutant::MetaReportedEarly) && !is_copy {
            self.events
                .push(Event::MetaDurable(MetaFlushed::new(record.sequence)));
        }
        self.meta.flight = Some(MetaFlight {
            number,
            record,
            is_copy,
        });
    }

    /// Takes a completion if it is the meta record's.
    pub(super) fn complete_meta(&mut self, number: u64) -> bool {
        if self
            .meta
            .flight
            .as_ref()
            .is_none_or(|flight| flight.number != number)
        {
            return false;
        }
        let flight = self.meta.flight.take().expect("it was just looked at");
        if flight.is_copy {
            self.meta.copied = true;
            return true;
        }
        self.statistics.metas += 1;
        let before = self.meta.durable.sequence;
        self.meta.durable = flight.record;
        self.meta.copied = false;
        if self.meta.durable.sequence > before {
            self.events.push(Event::MetaDurable(MetaFlushed::new(
                self.meta.durable.sequence,
            )));
        }
        true
    }
}
