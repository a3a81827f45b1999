//! Nothing grows without limit: what a leader has uncommitted, what a peer has in flight, what waits for a
//! flush. And every node's core is consistent in itself.

use drave::raft::Raft;

use super::{Checked, Violation, require};

const NAME: &str = "bounded_queues";

/// The limits that a node was given.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Uncommitted bytes on a leader; one entry above it is admitted.
    pub uncommitted_bytes_max: u64,
    /// In-flight appends per peer.
    pub window_entries_max: u32,
    /// In-flight bytes per peer; one entry above it is admitted.
    pub window_bytes_max: u64,
    /// Bytes waiting for a flush; one append above it is admitted.
    pub queue_bytes_max: u64,
    /// Bytes of the largest entry or append.
    pub item_bytes_max: u64,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Uncommitted bytes.
    pub uncommitted_bytes: u64,
    /// In-flight appends of the peer that has most.
    pub window_entries: u64,
    /// In-flight bytes of the peer that has most.
    pub window_bytes: u64,
    /// Bytes waiting for a flush.
    pub queue_bytes: u64,
}

impl Held {
    /// What this node holds.
    #[must_use]
    pub fn of(raft: &Raft, queue_bytes: u64) -> Self {
        let mut held = Self {
            uncommitted_bytes: raft.uncommitted().0,
            queue_bytes,
            ..Self::default()
        };
        for peer in raft.progress() {
            held.window_entries = held.window_entries.max(peer.in_flight_messages as u64);
            held.window_bytes = held.window_bytes.max(peer.in_flight_bytes);
        }
        held
    }
}

/// A node after its turn.
///
/// # Errors
/// [`Violation`]
pub fn check(slot: usize, held: Held, bounds: &Bounds) -> Checked {
    let item = bounds.item_bytes_max;
    let limits = [
        (
            "uncommitted bytes",
            held.uncommitted_bytes,
            bounds.uncommitted_bytes_max + item,
        ),
        (
            "appends in flight",
            held.window_entries,
            bounds.window_entries_max.into(),
        ),
        (
            "bytes in flight",
            held.window_bytes,
            bounds.window_bytes_max + item,
        ),
        (
            "bytes waiting for a flush",
            held.queue_bytes,
            bounds.queue_bytes_max + item,
        ),
    ];
    for (what, found, limit) in limits {
        require(found <= limit, NAME, || {
            format!("node {}: {found} {what}, at most {limit}", slot + 1)
        })?;
    }
    Ok(())
}

/// What the core says of itself.
///
/// # Errors
/// [`Violation`]
pub fn check_core(slot: usize, raft: &Raft) -> Checked {
    raft.check().map_err(|violation| Violation {
        invariant: NAME,
        what: format!("node {}: {violation}", slot + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_excess_is_found() {
        let bounds = Bounds {
            uncommitted_bytes_max: 100,
            window_entries_max: 2,
            window_bytes_max: 50,
            queue_bytes_max: 70,
            item_bytes_max: 10,
        };
        let fits = Held {
            uncommitted_bytes: 110,
            window_entries: 2,
            window_bytes: 60,
            queue_bytes: 80,
        };
        assert!(check(0, fits, &bounds).is_ok());
        for excess in [
            Held {
                uncommitted_bytes: 111,
                ..fits
            },
            Held {
                window_entries: 3,
                ..fits
            },
            Held {
                window_bytes: 61,
                ..fits
            },
            Held {
                queue_bytes: 81,
                ..fits
            },
        ] {
            assert!(check(0, excess, &bounds).is_err());
        }
    }
}
