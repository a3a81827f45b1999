//! Whether a history of one key could have happened one operation after the other, each at some moment between its
//! call and its return (Herlihy and Wing 1990; the search is Wing and Gong's, with Lowe's memory of what was tried).
//!
//! It knows nothing of versions or of the order in which the store says that it did things.

use std::collections::HashSet;

/// What an operation did, as its caller saw it. Values are drawn once, so that a value names its write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Did {
    /// It read this value, or that there is no key.
    Read(Option<u64>),
    Put(u64),
    /// It replaced this value, or made the key.
    Swapped {
        from: Option<u64>,
        to: u64,
    },
    /// It found another value.
    NotSwapped {
        from: Option<u64>,
    },
    /// It deleted the key; whether there was one.
    Deleted(bool),
    /// It may have put this value, at any time after its call, or never.
    MayPut(u64),
    MaySwap {
        from: Option<u64>,
        to: u64,
    },
    MayDelete,
}

/// An operation of a history. Times are of one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) called: u64,
    pub(crate) returned: u64,
    pub(crate) did: Did,
}

impl Operation {
    fn may_be_missing(&self) -> bool {
        matches!(
            self.did,
            Did::MayPut(_) | Did::MaySwap { .. } | Did::MayDelete
        )
    }

    /// When it is over at the latest: what may have been done may be done even later.
    fn over(&self) -> u64 {
        if self.may_be_missing() {
            u64::MAX
        } else {
            self.returned
        }
    }

    /// The value after it, if it can be done on this one.
    fn on(&self, value: Option<u64>) -> Option<Option<u64>> {
        match self.did {
            Did::Read(read) => (read == value).then_some(value),
            Did::Put(put) | Did::MayPut(put) => Some(Some(put)),
            Did::Swapped { from, to } => (from == value).then_some(Some(to)),
            Did::NotSwapped { from } => (from != value).then_some(value),
            Did::Deleted(existed) => (existed == value.is_some()).then_some(None),
            Did::MaySwap { from, to } => Some(if from == value { Some(to) } else { value }),
            Did::MayDelete => Some(None),
        }
    }
}

/// Whether the operations have an order. The key does not exist at first.
pub(crate) fn has_order(history: &[Operation]) -> bool {
    let mut history = history.to_vec();
    history.sort_by_key(|operation| operation.called);
    let mut done = vec![false; history.len()];
    let certain = history.iter().filter(|it| !it.may_be_missing()).count();
    let mut tried = HashSet::new();
    search(&history, &mut done, certain, None, &mut tried)
}

fn search(
    history: &[Operation],
    done: &mut Vec<bool>,
    certain_left: usize,
    value: Option<u64>,
    tried: &mut HashSet<(Vec<bool>, Option<u64>)>,
) -> bool {
    if certain_left == 0 {
        return true;
    }
    if !tried.insert((done.clone(), value)) {
        return false;
    }
    // An operation that was called after another had returned cannot come before it.
    let open = history.iter().zip(&*done).filter(|(_, done)| !**done);
    let first_over = open
        .map(|(operation, _)| operation.over())
        .min()
        .unwrap_or(u64::MAX);
    for at in 0..history.len() {
        let operation = history[at];
        if operation.called > first_over {
            break;
        }
        let Some(after) = operation.on(value).filter(|_| !done[at]) else {
            continue;
        };
        // What may be missing and changes nothing need not be tried.
        if operation.may_be_missing() && after == value {
            continue;
        }
        done[at] = true;
        let left = certain_left - usize::from(!operation.may_be_missing());
        if search(history, done, left, after, tried) {
            return true;
        }
        done[at] = false;
    }
    false
}

fn operations(list: &[(u64, u64, Did)]) -> Vec<Operation> {
    let operation = |&(called, returned, did): &(u64, u64, Did)| Operation {
        called,
        returned,
        did,
    };
    list.iter().map(operation).collect()
}

#[test]
fn what_can_have_happened_is_accepted() {
    for list in [
        &[(0, 1, Did::Put(1)), (2, 3, Did::Read(Some(1)))][..],
        // At the same time: either order.
        &[
            (0, 9, Did::Put(1)),
            (1, 2, Did::Read(None)),
            (3, 4, Did::Read(Some(1))),
        ],
        &[
            (0, 1, Did::MayPut(1)),
            (5, 6, Did::Read(None)),
            (7, 8, Did::Read(Some(1))),
        ],
        &[(0, 1, Did::MayPut(1)), (5, 6, Did::Read(None))],
        &[
            (0, 1, Did::Put(1)),
            (
                2,
                9,
                Did::Swapped {
                    from: Some(1),
                    to: 2,
                },
            ),
            (3, 4, Did::NotSwapped { from: Some(2) }),
        ],
        &[
            (0, 1, Did::Put(1)),
            (2, 3, Did::Deleted(true)),
            (4, 5, Did::Deleted(false)),
            (6, 7, Did::Read(None)),
        ],
        &[
            (0, 1, Did::Put(1)),
            (
                2,
                3,
                Did::MaySwap {
                    from: Some(1),
                    to: 2,
                },
            ),
            (4, 5, Did::Read(Some(2))),
        ],
        &[
            (0, 1, Did::Put(1)),
            (2, 3, Did::MayDelete),
            (4, 5, Did::Read(None)),
        ],
    ] {
        assert!(has_order(&operations(list)), "{list:?}");
    }
}

#[test]
fn what_cannot_have_happened_is_found() {
    for list in [
        // A stale read.
        &[
            (0, 1, Did::Put(1)),
            (2, 3, Did::Put(2)),
            (4, 5, Did::Read(Some(1))),
        ][..],
        // A lost write.
        &[(0, 1, Did::Put(1)), (2, 3, Did::Read(None))],
        // A value that comes back.
        &[
            (0, 9, Did::Put(1)),
            (1, 2, Did::Read(Some(1))),
            (3, 4, Did::Read(None)),
        ],
        // Two swaps from one value.
        &[
            (0, 1, Did::Put(1)),
            (
                2,
                9,
                Did::Swapped {
                    from: Some(1),
                    to: 2,
                },
            ),
            (
                2,
                9,
                Did::Swapped {
                    from: Some(1),
                    to: 3,
                },
            ),
        ],
        // A write that was done twice.
        &[
            (0, 1, Did::Put(1)),
            (2, 3, Did::Put(2)),
            (4, 5, Did::Read(Some(2))),
            (6, 7, Did::Read(Some(1))),
        ],
        &[
            (0, 1, Did::MayPut(1)),
            (2, 3, Did::Read(Some(1))),
            (4, 5, Did::Put(2)),
            (6, 7, Did::Read(Some(1))),
        ],
        &[(0, 1, Did::Put(1)), (2, 3, Did::Deleted(false))],
        &[
            (0, 1, Did::Put(1)),
            (2, 3, Did::NotSwapped { from: Some(1) }),
        ],
        // Read before it was called.
        &[(0, 1, Did::Read(Some(1))), (2, 3, Did::Put(1))],
    ] {
        assert!(!has_order(&operations(list)), "{list:?}");
    }
}
