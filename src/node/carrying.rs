//! Reads what is to be carried over (`replica/carry.rs`), a little at a time, and hands it to the replica: at a bounded
//! rate, one entry after the other, each applied before the next is made. It decides neither what is carried nor what
//! may go then.

use std::collections::VecDeque;

use drave_batch::BODY_BYTES_MAX;
use drave_wal::{ColdRead, ReadError, Slices, Wal};

use crate::replica::{EntryLog, Fatal, Now, Replica};
use crate::service::scan::{Cursor, Found, Step};

/// Between two looks whether there is something to carry.
const LOOK_US: u64 = 1_000_000;

/// Until the next look after what was planned could not be carried.
const REST_US: u64 = 60_000_000;

/// Until a read that was not taken is tried again.
const RETRY_US: u64 = 10_000;

/// What is carried in a second at most.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// How large the entries are made.
#[derive(Clone, Copy, Debug)]
pub struct CarryLimits {
    /// Bytes of batches in one entry, unless one batch is larger.
    pub entry_bytes: usize,
    /// Bytes of a larger batch at most: one beyond is not carried, nor is anything else of its plan from then on.
    pub batch_bytes_max: usize,
}

impl Default for CarryLimits {
    fn default() -> Self {
        Self {
            entry_bytes: 256 << 10,
            batch_bytes_max: BODY_BYTES_MAX as usize,
        }
    }
}

/// What a plan has left.
#[derive(Debug)]
struct UnderWay {
    /// Logs to come, as in a plan.
    logs: VecDeque<(u64, u64, u64)>,
    /// The log that is being read, and where its part ends.
    cursor: Option<(Cursor, u64)>,
    found: Found,
}

/// The carrying of one group. Bounded: it holds the batches of one entry and of one read.
#[derive(Debug, Default)]
pub struct Carrier {
    limits: CarryLimits,
    under_way: Option<UnderWay>,
    /// A read is with somebody else.
    is_reading: bool,
    due_us: u64,
}

impl Carrier {
    /// One that makes entries so large.
    #[must_use]
    pub fn new(limits: CarryLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// When [`Self::turn`] has something to do at the latest, in monotonic microseconds.
    #[must_use]
    pub fn deadline_us(&self, replica: &Replica) -> u64 {
        if !replica.is_leader() || self.is_reading || replica.is_carrying() {
            u64::MAX
        } else {
            self.due_us
        }
    }

    /// Does a bounded part of what is to be done. What it gives is to be read, and brought to [`Self::on_read`].
    ///
    /// # Errors
    /// [`Fatal`]
    pub fn turn<L: EntryLog + AsRef<Wal>>(
        &mut self,
        now: Now,
        replica: &mut Replica,
        log: &mut L,
    ) -> Result<Option<ColdRead>, Fatal> {
        if now.mono_us < self.deadline_us(replica) {
            if !replica.is_leader() {
                self.under_way = None;
            }
            return Ok(None);
        }
        let Some(under_way) = &mut self.under_way else {
            self.due_us = now.mono_us + LOOK_US;
            self.under_way = replica.carry_plan(log).map(|plan| {
                tracing::info!(
                    up_to = plan.limit,
                    frees_bytes = plan.frees_bytes,
                    bytes = plan.bytes,
                    logs = plan.logs.len(),
                    "old records are carried over"
                );
                self.due_us = now.mono_us;
                UnderWay {
                    logs: plan.logs.into(),
                    cursor: None,
                    found: Found::default(),
                }
            });
            return Ok(None);
        };
        match under_way.step(replica, log.as_ref(), self.limits.entry_bytes) {
            Ok(Step::Cold(job)) => {
                self.is_reading = true;
                Ok(Some(job))
            }
            Ok(Step::Moved) => Ok(None),
            Ok(Step::Full | Step::End | Step::Missing) => {
                self.hand_over(now, replica, log)?;
                Ok(None)
            }
            Err(error) => {
                self.give_up(now, &error);
                Ok(None)
            }
        }
    }

    /// What [`Self::turn`] wanted to be read.
    pub fn on_read(&mut self, now: Now, result: Result<Slices, ReadError>) {
        self.is_reading = false;
        match (result, &mut self.under_way) {
            (Ok(slices), Some(under_way)) => {
                if !under_way.take(&slices, self.limits.entry_bytes) {
                    self.under_way = None;
                    self.due_us = now.mono_us + REST_US;
                }
            }
            (Err(error), _) => self.give_up(now, &error),
            (Ok(_), None) => {}
        }
    }

    /// What [`Self::turn`] wanted to be read cannot be read now; it is wanted again.
    pub fn on_not_read(&mut self, now: Now) {
        self.is_reading = false;
        self.due_us = now.mono_us + RETRY_US;
    }

    /// Nothing is carried for a while. What cannot be read is found, and told, by who is to read it.
    fn give_up(&mut self, now: Now, error: &ReadError) {
        tracing::warn!(%error, "old records are not carried over");
        self.under_way = None;
        self.due_us = now.mono_us + REST_US;
    }

    /// Has an entry made of what was found.
    fn hand_over<L: EntryLog>(
        &mut self,
        now: Now,
        replica: &mut Replica,
        log: &mut L,
    ) -> Result<(), Fatal> {
        let Some(under_way) = &mut self.under_way else {
            return Ok(());
        };
        let found = std::mem::take(&mut under_way.found);
        if found.bytes == 0 {
            // All of it is done, or what comes next is not there any more.
            let is_done = under_way.logs.is_empty() && under_way.cursor.is_none();
            self.under_way = None;
            self.due_us = now.mono_us + if is_done { LOOK_US } else { REST_US };
            return Ok(());
        }
        if found.bytes > self.limits.batch_bytes_max {
            self.under_way = None;
            self.due_us = now.mono_us + REST_US;
            return Ok(());
        }
        if replica.carry_over(now, &found.pieces.concat(), log)? {
            self.due_us = now.mono_us + found.bytes as u64 * 1_000_000 / BYTES_PER_SECOND;
        } else {
            // The queue to the disk is full, for one: that passes.
            self.under_way = None;
            self.due_us = now.mono_us + LOOK_US;
        }
        Ok(())
    }
}

impl UnderWay {
    /// Goes on reading: `Moved` when there is more to do, `End` when all was read.
    fn step(&mut self, replica: &Replica, wal: &Wal, bytes_max: usize) -> Result<Step, ReadError> {
        if self.cursor.is_none() {
            let Some((log_id, from, to)) = self.logs.pop_front() else {
                return Ok(Step::End);
            };
            self.cursor = Some((Cursor::new(log_id, from), to));
        }
        let Some((cursor, to)) = &mut self.cursor else {
            return Ok(Step::End);
        };
        let Some(log) = replica.catalogue().log(cursor.log_id) else {
            // It was deleted.
            self.cursor = None;
            return Ok(Step::Moved);
        };
        if cursor.seq < log.first_seq {
            // It was trimmed meanwhile; what one entry holds of a log has no gap.
            if self.found.bytes > 0 {
                return Ok(Step::Full);
            }
            cursor.seq = log.first_seq;
        }
        let end = (*to).min(log.next_seq);
        let applied = replica.applied_index();
        let index = (&log.index, end);
        let step = cursor.step(index, wal, applied, bytes_max, &mut self.found)?;
        if matches!(step, Step::End) {
            self.cursor = None;
            return Ok(Step::Moved);
        }
        Ok(step)
    }

    /// Takes what was read; `false` when it does not hold what it should.
    fn take(&mut self, slices: &Slices, bytes_max: usize) -> bool {
        self.cursor.as_mut().is_none_or(|(cursor, _)| {
            let step = cursor.take_cold(slices, bytes_max, &mut self.found);
            !matches!(step, Step::Missing)
        })
    }
}
