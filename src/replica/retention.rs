//! Giving up what is beyond a log's retention: the leader looks now and then and appends trims, as if a client had
//! asked, so that every replica gives up the same at the same place in the log.
//!
//! It trims at marks of the log's index, and never what the limits keep: up to a mark's stretch more is held. Time is
//! log time: that of the leader's clock, or of the last entry where that is later.

use drave_batch::{BatchHeader, EntryKind};

use super::catalogue::LogState;
use super::{EntryLog, Fatal, LogRefusal, Now, Replica};

/// Between two looks.
const LOOK_US: u64 = 1_000_000;

/// Trims of one look: with ten thousand logs they are spread over several.
const TRIMS_MAX: usize = 64;

/// When a leader looks next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    due_us: u64,
}

impl Replica {
    /// When the next look is due, in monotonic microseconds.
    pub(super) fn retention_due_us(&self) -> u64 {
        if self.is_leader() && self.tables.catalogue.has_retained() {
            self.looks.due_us
        } else {
            u64::MAX
        }
    }

    /// Looks, if that is due, and appends trims.
    pub(super) fn retain(&mut self, now: Now, log: &mut impl EntryLog) -> Result<(), Fatal> {
        if now.mono_us < self.retention_due_us() {
            return Ok(());
        }
        self.looks.due_us = now.mono_us + LOOK_US;
        let time_us = self.tables.append_time_us.max(now.unix_us);
        let logs = self.tables.catalogue.retained();
        let due = logs.filter_map(|state| {
            let first_seq = kept_from(state, time_us).filter(|seq| *seq > state.first_seq)?;
            let mut in_flight = self.tables.trims.iter();
            let is_covered =
                in_flight.any(|trim| trim.log_id == state.log_id && trim.first_seq >= first_seq);
            (!is_covered && !state.tail_rules.is_deleted).then_some((state.log_id, first_seq))
        });
        let due: Vec<(u64, u64)> = due.take(TRIMS_MAX).collect();
        for (log_id, first_seq) in due {
            let header = BatchHeader {
                log_id,
                first_seq,
                ..BatchHeader::new(EntryKind::LogTrim, &[], 0)
            };
            match log.has_room_for_control(header.encoded_bytes()) {
                Ok(()) => {}
                Err(refusal @ LogRefusal::Failed(_)) => return Err(refusal.into()),
                // The next look comes soon.
                Err(_) => return Ok(()),
            }
            let Ok(id) = self.raft.propose(header.encoded_bytes() as u32) else {
                return Ok(());
            };
            self.append_entry(now, id, header, &[], None, log)?;
        }
        Ok(())
    }
}

/// The first seq that a log's retention keeps, if it gives up anything.
fn kept_from(state: &LogState, time_us: u64) -> Option<u64> {
    let retention = state.rules.retention;
    let by_bytes = (retention.bytes > 0)
        .then(|| {
            let spare = state.bytes.checked_sub(retention.bytes)?;
            state.index.place_with_bytes_before(spare, state.bytes)
        })
        .flatten();
    let by_age = (retention.age_us > 0)
        .then(|| {
            let until_us = time_us.checked_sub(retention.age_us)?;
            if state.last_time_us > 0 && state.last_time_us <= until_us {
                return Some(state.next_seq);
            }
            state.index.mark_appended_by(until_us)
        })
        .flatten();
    by_bytes.max(by_age)
}
