//! Byte sizes of what a leader has proposed in its term and not yet committed.

use alloc::collections::VecDeque;

/// Sizes of entries `[first_index, first_index + sizes.len())`; `bytes` is their sum.
///
/// It starts afresh with each term, so nothing can leak into the limit from an earlier one.
pub(super) struct Uncommitted {
    first_index: u64,
    sizes: VecDeque<u32>,
    bytes: u64,
}

impl Uncommitted {
    pub(super) fn starting_at(first_index: u64) -> Uncommitted {
        Uncommitted {
            first_index,
            sizes: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn entries(&self) -> u64 {
        self.sizes.len() as u64
    }

    pub(super) fn push(&mut self, index: u64, bytes: u32) {
        assert_eq!(
            index,
            self.first_index + self.sizes.len() as u64,
            "sizes are contiguous"
        );
        self.sizes.push_back(bytes);
        self.bytes += u64::from(bytes);
    }

    pub(super) fn committed(&mut self, commit_index: u64) {
        while self.first_index <= commit_index {
            let Some(bytes) = self.sizes.pop_front() else {
                return;
            };
            self.first_index += 1;
            self.bytes -= u64::from(bytes);
        }
    }
}
