//! Where all clients note what they do, by one monotonic clock.
//!
//! Shared by the load's thread, which writes, and the round's thread, which waits for acknowledgements.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::history::Operation;

/// An acknowledgement: when, and of which term's leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Acked {
    /// When the client had it.
    pub at_us: u64,
    /// The term of the leader that gave it.
    pub term: u64,
}

#[derive(Debug, Default)]
struct State {
    operations: Vec<Operation>,
    acks: Vec<Acked>,
    payload_id_next: u64,
    interrupted: bool,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

/// The notes. Clones share them.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

/// What was noted in one round.
#[derive(Debug, Default)]
pub struct Notes {
    /// What the clients did.
    pub operations: Vec<Operation>,
    /// The acknowledgements, in order.
    pub acks: Vec<Acked>,
}

/// Whoever waited was told to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interrupted;

impl Recorder {
    /// Its clock begins now.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// The time.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The first of `count` payload ids that nobody else gets.
    #[must_use]
    pub fn take_payload_ids(&self, count: u64) -> u64 {
        let mut state = self.state();
        let first = state.payload_id_next;
        state.payload_id_next += count;
        first
    }

    /// Notes an operation that is complete.
    pub fn note(&self, operation: Operation, acked: Option<Acked>) {
        let mut state = self.state();
        state.operations.push(operation);
        if let Some(acked) = acked {
            state.acks.push(acked);
            self.0.changed.notify_all();
        }
    }

    /// Takes everything noted so far.
    #[must_use]
    pub fn take(&self) -> Notes {
        let mut state = self.state();
        Notes {
            operations: std::mem::take(&mut state.operations),
            acks: std::mem::take(&mut state.acks),
        }
    }

    /// Ends all waits, now and later.
    pub fn interrupt(&self) {
        self.state().interrupted = true;
        self.0.changed.notify_all();
    }

    /// Whether it was interrupted.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.state().interrupted
    }

    /// Lets the time come to `at_us`.
    ///
    /// # Errors
    /// [`Interrupted`]
    pub fn wait_until(&self, at_us: u64) -> Result<(), Interrupted> {
        self.wait(at_us, |_| None::<()>).map(drop)
    }

    /// Waits for the first acknowledgement that came after `after_us`; `None` when there is none until
    /// `deadline_us`.
    ///
    /// # Errors
    /// [`Interrupted`]
    pub fn wait_acked(
        &self,
        after_us: u64,
        deadline_us: u64,
    ) -> Result<Option<Acked>, Interrupted> {
        self.wait(deadline_us, |state| first_after(&state.acks, after_us))
    }

    fn wait<T>(
        &self,
        deadline_us: u64,
        mut reached: impl FnMut(&State) -> Option<T>,
    ) -> Result<Option<T>, Interrupted> {
        let mut state = self.state();
        loop {
            if state.interrupted {
                return Err(Interrupted);
            }
            if let Some(found) = reached(&state) {
                return Ok(Some(found));
            }
            let left_us = deadline_us.saturating_sub(self.now_us());
            if left_us == 0 {
                return Ok(None);
            }
            let waited = self
                .0
                .changed
                .wait_timeout(state, Duration::from_micros(left_us));
            state = waited.expect("no code panics while it holds this lock").0;
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// The first acknowledgement that came after this time.
#[must_use]
pub fn first_after(acks: &[Acked], after_us: u64) -> Option<Acked> {
    let at = acks.partition_point(|acked| acked.at_us <= after_us);
    acks.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, CheckTail, TailOutcome};

    fn operation() -> Operation {
        Operation {
            client: 1,
            invoked_us: 0,
            completed_us: 1,
            log: 1,
            action: Action::CheckTail(CheckTail {
                outcome: TailOutcome::Failed,
            }),
        }
    }

    #[test]
    fn acknowledgements_are_waited_for() {
        let recorder = Recorder::new();
        let acked = |at_us| Acked { at_us, term: 1 };
        recorder.note(operation(), Some(acked(10)));
        recorder.note(operation(), None);
        assert_eq!(recorder.wait_acked(9, u64::MAX), Ok(Some(acked(10))));
        assert_eq!(recorder.wait_acked(10, 1), Ok(None));
        let other = recorder.clone();
        let noting = std::thread::spawn(move || other.note(operation(), Some(acked(20))));
        assert_eq!(recorder.wait_acked(10, u64::MAX), Ok(Some(acked(20))));
        noting.join().unwrap();
        let notes = recorder.take();
        assert_eq!((notes.operations.len(), notes.acks.len()), (3, 2));
        assert!(recorder.take().operations.is_empty());
    }

    #[test]
    fn an_interruption_ends_waits() {
        let recorder = Recorder::new();
        assert_eq!(recorder.wait_until(recorder.now_us() + 1), Ok(()));
        let other = recorder.clone();
        let interrupting = std::thread::spawn(move || other.interrupt());
        assert_eq!(recorder.wait_until(u64::MAX), Err(Interrupted));
        interrupting.join().unwrap();
        assert!(recorder.is_interrupted());
    }

    #[test]
    fn payload_ids_are_given_once() {
        let recorder = Recorder::new();
        assert_eq!(recorder.take_payload_ids(3), 0);
        assert_eq!(recorder.take_payload_ids(1), 3);
    }
}
