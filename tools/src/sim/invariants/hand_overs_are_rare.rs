//! A leader does not give the lead away because of its disk again and again: not for slow flushes within a minute
//! after that was taken up, not at all within ten seconds, and not within two seconds after nobody took it up.
//! All by its own clock, for as long as its process lives.

use drave::replica::{
    HAND_OVER_RETRY_US, HAND_OVER_SLOW_QUIET_US, HAND_OVER_STUCK_QUIET_US, HandOverOrder,
    HandOverReason,
};

use super::{Checked, require};

const NAME: &str = "hand_overs_are_rare";

/// The last time that a process began to hand over.
#[derive(Clone, Copy, Debug)]
struct Begun {
    start: u64,
    term: u64,
    at_us: u64,
    is_slow: bool,
}

/// What each node did last.
#[derive(Debug, Default)]
pub struct HandOversAreRare {
    last: Vec<Option<Begun>>,
    count: u64,
}

impl HandOversAreRare {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// In its process number `start`, at `at_us` of its clock, the leader of `term` began to hand over.
    ///
    /// # Errors
    /// [`super::Violation`]
    pub fn check(
        &mut self,
        slot: usize,
        (start, term, at_us): (u64, u64, u64),
        order: &HandOverOrder,
    ) -> Checked {
        self.count += 1;
        if self.last.len() <= slot {
            self.last.resize(slot + 1, None);
        }
        let is_slow = matches!(order.reason, HandOverReason::Slow { .. });
        let begun = Begun {
            start,
            term,
            at_us,
            is_slow,
        };
        let last = self.last[slot].replace(begun);
        let Some(last) = last.filter(|last| last.start == start) else {
            return Ok(());
        };
        let gap_us = if last.term == term {
            HAND_OVER_RETRY_US
        } else if last.is_slow && is_slow {
            HAND_OVER_SLOW_QUIET_US
        } else if !last.is_slow && !is_slow {
            HAND_OVER_STUCK_QUIET_US
        } else {
            0
        };
        require(at_us >= last.at_us.saturating_add(gap_us), NAME, || {
            format!(
                "node {} began to hand over ({}) {} us after it had, in terms {} and {term}",
                slot + 1,
                order.reason,
                at_us.saturating_sub(last.at_us),
                last.term
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drave::raft::NodeId;

    fn order(is_slow: bool) -> HandOverOrder {
        let reason = if is_slow {
            HandOverReason::Slow {
                own_us: 100_000,
                peer_us: 1_000,
            }
        } else {
            HandOverReason::Hangs { waits_us: 500_000 }
        };
        let to = NodeId(2);
        HandOverOrder { to, reason }
    }

    #[test]
    fn a_lead_that_goes_back_and_forth_is_found() {
        const S: u64 = 1_000_000;
        for (second, is_slow, holds) in [
            ((1, 3, 59 * S), true, false),
            ((1, 3, 61 * S), true, true),
            ((2, 3, S), true, true),
            ((1, 3, S), false, true),
            ((1, 2, S), false, false),
            ((1, 2, 3 * S), true, true),
        ] {
            let mut checker = HandOversAreRare::default();
            assert!(checker.check(1, (1, 2, 0), &order(true)).is_ok());
            let found = checker.check(1, second, &order(is_slow));
            assert_eq!(found.is_ok(), holds, "{second:?}");
            assert!(checker.check(0, (1, 3, 0), &order(true)).is_ok());
            assert_eq!(checker.count(), 3);
        }
        let mut checker = HandOversAreRare::default();
        assert!(checker.check(1, (1, 2, 0), &order(false)).is_ok());
        assert!(checker.check(1, (1, 3, 9 * S), &order(false)).is_err());
    }
}
