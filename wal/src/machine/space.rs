//! Segment files that are not in use: spares made ahead, retired segments, and what a full disk means.
//!
//! Only making a spare can meet a full disk. When it does, no more entries are taken in than the files at
//! hand can hold, and the last spare is left for truncations, so that the log can always be cut.

use std::collections::VecDeque;

use super::{Machine, Segment};
use crate::engine::Operation;
use crate::event::Event;
use crate::format::SegmentName;
use crate::mutants::{Mutant, is_planted};
use crate::options::Options;

/// How long to wait before trying again to make a file, or to name one, on a full disk.
pub(super) const RETRY_US: u64 = 250_000;

/// A change to files under way.
#[derive(Debug)]
enum FileFlight {
    Prepare {
        number: u64,
        spare: u64,
    },
    Retire {
        number: u64,
        segment: SegmentName,
        spare: Option<u64>,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Space {
    /// Numbers, and whether the file may hold an older segment's groups.
    ready: VecDeque<(u64, bool)>,
    next_spare: u64,
    target: usize,
    segment_bytes: u64,
    prewrite: bool,
    /// The last attempt to make a spare met a full disk.
    exhausted: bool,
    retry_at_us: u64,
    /// New segments that queued groups count on.
    planned_rolls: usize,
    /// Segments to retire once the meta record no longer names them.
    leaving: VecDeque<Segment>,
    flight: Option<FileFlight>,
}

impl Space {
    pub(crate) fn new(options: &Options, ready: Vec<u64>, next_spare: u64) -> Self {
        Self {
            ready: ready.into_iter().map(|spare| (spare, true)).collect(),
            next_spare,
            target: options.spares as usize,
            segment_bytes: options.segment_bytes,
            prewrite: options.prewrite,
            exhausted: false,
            retry_at_us: 0,
            planned_rolls: 0,
            leaving: VecDeque::new(),
            flight: None,
        }
    }

    /// Spares ready for use.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether a further segment can be counted on, with `reserve` spares left over.
    pub(super) fn may_roll(&self, reserve: usize) -> bool {
        !self.exhausted || self.ready.len() > self.planned_rolls + reserve
    }

    pub(super) fn plan_roll(&mut self) {
        self.planned_rolls += 1;
    }

    /// A spare for the next segment, which was planned.
    pub(super) fn take(&mut self) -> Option<(u64, bool)> {
        let spare = self.ready.pop_front()?;
        self.planned_rolls -= 1;
        Some(spare)
    }

    pub(super) fn let_go(&mut self, segment: Segment) {
        self.leaving.push_back(segment);
    }

    /// Retired segments are kept up to twice the number that is made ahead, so that a log that is trimmed as
    /// it grows makes no new files at all; on a full disk what is not needed is given back.
    fn kept_max(&self) -> usize {
        if self.exhausted {
            self.target
        } else {
            2 * self.target
        }
    }

    /// When a spare that there was no room for is tried again; none while something is being done about it.
    pub(super) fn retry_at_us(&self) -> Option<u64> {
        (self.exhausted && self.flight.is_none()).then_some(self.retry_at_us)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.leaving.is_empty()
            && self.flight.is_none()
            && (self.exhausted || self.ready.len() >= self.target)
    }
}

impl Machine {
    pub(super) fn pump_space(&mut self, now_us: u64) {
        if self.space.flight.is_some() {
            return;
        }
        let durable_first = self.meta.durable().first_segment_seq;
        let early = is_planted(Mutant::RetireBeforeMeta);
        let may_leave = |segment: &Segment| early || segment.name.segment_seq < durable_first;
        if self.space.leaving.front().is_some_and(may_leave) {
            let segment = self
                .space
                .leaving
                .pop_front()
                .expect("it was just looked at");
            let wanted = self.space.ready.len() < self.space.kept_max()
                && segment.bytes == self.space.segment_bytes
                && !segment.is_held();
            let spare = wanted.then(|| self.new_spare_number());
            self.retire(segment.name, spare);
            return;
        }
        let due = !self.space.exhausted || now_us >= self.space.retry_at_us;
        if self.space.ready.len() < self.space.target && due {
            let spare = self.new_spare_number();
            let (bytes, prewrite) = (self.space.segment_bytes, self.space.prewrite);
            let number = self.start(Operation::Prepare {
                spare,
                bytes,
                prewrite,
            });
            self.space.flight = Some(FileFlight::Prepare { number, spare });
        }
    }

    fn retire(&mut self, segment: SegmentName, spare: Option<u64>) {
        let number = self.start(Operation::Retire { segment, spare });
        self.space.flight = Some(FileFlight::Retire {
            number,
            segment,
            spare,
        });
    }

    fn new_spare_number(&mut self) -> u64 {
        self.space.next_spare += 1;
        self.space.next_spare - 1
    }

    /// Takes a completion if it is a spare's or a retired segment's.
    pub(super) fn complete_space(&mut self, number: u64) -> bool {
        match self.space.flight {
            Some(FileFlight::Prepare { number: own, spare }) if own == number => {
                self.space.ready.push_back((spare, false));
                self.set_exhausted(false);
            }
            Some(FileFlight::Retire {
                number: own, spare, ..
            }) if own == number => {
                self.space.ready.extend(spare.map(|spare| (spare, true)));
                // The disk has room again, or a spare: either way the next attempt is worth making now.
                self.space.retry_at_us = 0;
                if spare.is_some() && self.space.ready.len() >= self.space.target {
                    self.set_exhausted(false);
                }
            }
            _ => return false,
        }
        self.space.flight = None;
        true
    }

    /// Takes note of a full disk, if it is what ended the operation; nothing else is lost by it.
    pub(super) fn storage_full(&mut self, number: u64, now_us: u64) -> bool {
        match self.space.flight {
            Some(FileFlight::Prepare { number: own, .. }) if own == number => {
                self.space.flight = None;
            }
            // No room even for another name: the file is not used again.
            Some(FileFlight::Retire {
                number: own,
                segment,
                spare: Some(_),
            }) if own == number => self.retire(segment, None),
            _ => return false,
        }
        self.exhaust(now_us + RETRY_US);
        true
    }

    /// The disk is full until something shows otherwise, and nothing is tried before `retry_at_us`.
    pub(super) fn exhaust(&mut self, retry_at_us: u64) {
        self.space.retry_at_us = retry_at_us;
        self.set_exhausted(true);
    }

    /// A segment got its name. If no file is wanted either, nothing else will show that there is room.
    pub(super) fn space_proved(&mut self) {
        if self.space.ready.len() >= self.space.target {
            self.set_exhausted(false);
        }
    }

    fn set_exhausted(&mut self, exhausted: bool) {
        if self.space.exhausted != exhausted {
            self.space.exhausted = exhausted;
            self.events.push(if exhausted {
                Event::SpaceLow
            } else {
                Event::SpaceOk
            });
        }
    }
}
